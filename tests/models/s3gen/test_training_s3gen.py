"""The fine-tuning example, run as a user runs it, and what comes out of it."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.models.s3gen.tester import Tester, random_tokens, recording, voice
from tts_models import S3GenModel
from tts_models.audio import save_audio


SCRIPT = Path(__file__).parents[3] / "examples/finetune_s3gen.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny checkpoint with recordings, one of them too short."""
    Tester().model().save_pretrained(tmp_path / "model")
    for number, seconds in enumerate((1.0, 0.8, 1.2, 0.1)):
        samples = recording(seconds, 16000, seed=number).numpy()
        save_audio(tmp_path / f"{number}.wav", samples, 16000)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["finetune_s3gen.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_fine_tuning_lowers_the_loss(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    run(
        monkeypatch, "--model", folder / "model", "--audio", folder, "--output", folder / "tuned", "--max_steps", 10,
        "--batch_size", 2, "--gradient_accumulation_steps", 1, "--warmup_steps", 1, "--learning_rate", 5e-3,
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "2 training examples" in printed
    before, after = map(float, re.findall(r"loss (?:before|after): ([\d.]+)", printed))
    assert after < before
    original, tuned = (S3GenModel.from_pretrained(folder / name) for name in ("model", "tuned"))
    changed = {
        name for name, value in tuned.state_dict().items() if not torch.equal(value, original.state_dict()[name])
    }
    assert changed and all(name.startswith("flow.") for name in changed)
    assert tuned.inference(random_tokens(1, 3), ref_dict=voice(tuned.config))[0].isfinite().all()


def test_fine_tuning_says_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (folder / f"{number}.wav").unlink()
    with pytest.raises(ValueError, match="at least two recordings"):
        run(monkeypatch, "--model", folder / "model", "--audio", folder, "--output", folder / "tuned")
    assert not (folder / "tuned").exists()
