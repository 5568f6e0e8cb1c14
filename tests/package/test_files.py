"""Files that appear whole or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tts_models.files import write_tensors, written_whole


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with written_whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_tensors_replace_a_file_only_when_they_can_be_stored(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"rows": torch.arange(6).reshape(2, 3).T}, {"format": "test"})
    with pytest.raises(TypeError):
        write_tensors(path, {"rows": torch.zeros(1)}, {"format": 3})
    assert load_file(path)["rows"].tolist() == [[0, 3], [1, 4], [2, 5]] and list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_tensors(tmp_path / "none" / "a.safetensors", {"a": torch.zeros(1)})
