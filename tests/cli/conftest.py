"""A tiny speaking checkpoint for the command line."""

from pathlib import Path

import pytest
import torch

from tests.models.maya1.tester import Tester


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Maya1 with random weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    tester = Tester()
    tester.model().save_pretrained(folder)
    tester.processor().save_pretrained(folder)
    return folder
