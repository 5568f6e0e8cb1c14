"""The training script of MegaTTS3, run as a user runs it, and what comes out of it."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.megatts3.tester import RATE, Tester, latents_for, recording
from tts_models import MegaTTS3ForConditionalGeneration, MegaTTS3Processor
from tts_models.audio import save_audio


SCRIPT = Path(__file__).parents[3] / "examples" / "finetune_megatts3.py"


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with an encoder, and three recordings of which one has its latents beside it."""
    folder = tmp_path_factory.mktemp("megatts3")
    Tester().model().save_pretrained(folder)
    Tester().processor().save_pretrained(folder)
    for number in range(3):
        save_audio(folder / f"{number}.wav", recording(1.1, seed=number), RATE)
    np.save(folder / "0.npy", latents_for(1.1))
    return folder


@pytest.mark.parametrize("extra", [[], ["--lora", "--lora_rank", 4]])
def test_fine_tuning_lowers_the_loss(folder: Path, tmp_path: Path, monkeypatch, capsys, extra: list) -> None:
    run_script(
        monkeypatch, "--model", folder, "--audio", folder, "--output", tmp_path, "--max_steps", 8,
        "--batch_size", 2, "--gradient_accumulation_steps", 1, "--learning_rate", 5e-3, "--warmup_steps", 1, *extra,
    )  # fmt: skip
    before, after = map(float, re.findall(r"loss (?:before|after): ([\d.]+)", capsys.readouterr().out))
    assert after < before
    model = MegaTTS3ForConditionalGeneration.from_pretrained(tmp_path)
    assert MegaTTS3Processor.from_pretrained(tmp_path).to_dict() == Tester().processor().to_dict()
    original = MegaTTS3ForConditionalGeneration.from_pretrained(folder).state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, original[name])}
    assert changed and all(name.startswith("transformer.") for name in changed)


def test_too_few_recordings_are_refused(folder: Path, tmp_path: Path, monkeypatch) -> None:
    save_audio(tmp_path / "short.wav", recording(0.5), RATE)
    with pytest.raises(ValueError, match="two recordings"):
        run_script(monkeypatch, "--model", folder, "--audio", tmp_path, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
