"""The training script of Chatterbox, run as a user runs it, and what comes out of it."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.models.chatterbox.tester import Tester, recording
from tts_models import ChatterboxForConditionalGeneration, ChatterboxProcessor
from tts_models.audio import save_audio


SCRIPT = Path(__file__).parents[3] / "examples" / "finetune_chatterbox.py"


def run_script(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny English model with three recordings, `train.jsonl` beside it."""
    folder = tmp_path_factory.mktemp("chatterbox")
    Tester().model().save_pretrained(folder)
    Tester().processor().save_pretrained(folder)
    lines = []
    for number in range(3):
        save_audio(folder / f"{number}.wav", recording(0.4, seed=number), 24000)
        line = {"audio": f"{number}.wav", "text": f"Text {number}."}
        lines.append(json.dumps(line | ({"ref_audio": "0.wav"} if number else {})))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("extra", [[], ["--lora", "--lora_rank", 4]])
def test_fine_tuning_lowers_the_loss(folder: Path, tmp_path: Path, monkeypatch, capsys, extra: list) -> None:
    run_script(
        monkeypatch, "--model", folder, "--data", folder / "train.jsonl", "--output", tmp_path, "--max_steps", 6,
        "--batch_size", 2, "--gradient_accumulation_steps", 1, "--learning_rate", 5e-3, "--warmup_steps", 1,
        "--default_voice", folder / "1.wav", *extra,
    )  # fmt: skip
    before, after = map(float, re.findall(r"loss (?:before|after): ([\d.]+)", capsys.readouterr().out))
    assert after < before
    model = ChatterboxForConditionalGeneration.from_pretrained(tmp_path)
    processor = ChatterboxProcessor.from_pretrained(tmp_path)
    assert model.generate(**processor(text="Hello."), seed=0, max_new_tokens=4).audio_lengths > 0
    original = ChatterboxForConditionalGeneration.from_pretrained(folder).state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, original[name])}
    assert changed and all(name.startswith("t3.") for name in changed)


@pytest.mark.parametrize("line", ['{"audio": "0.wav"}', '{"audio": "none.wav", "text": "a"}', "[1]"])
def test_bad_lines_are_named(folder: Path, tmp_path: Path, monkeypatch, line: str) -> None:
    data = folder / "bad.jsonl"
    data.write_text((folder / "train.jsonl").read_text() + line)
    with pytest.raises(ValueError, match="line 4"):
        run_script(monkeypatch, "--model", folder, "--data", data, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
