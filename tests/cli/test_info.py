"""`tts-models info` describes a checkpoint without loading its weights."""

import json
from pathlib import Path

import pytest

from tests.models.maya1.tester import Tester as Maya1Tester
from tts_models import SnacFeatureExtractor
from tts_models.cli import main


def test_describes_a_speaking_model(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(checkpoint), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    parameters = sum(parameter.numel() for parameter in Maya1Tester().model().parameters())
    assert found["model type"] == "maya1" and found["class"] == "Maya1ForConditionalGeneration"
    assert found["processor"] == "Maya1Processor" and found["sampling rate"] == 8000
    assert found["parameters"] == pytest.approx(parameters, rel=0.1)


def test_describes_a_codec(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codec = Maya1Tester().model().codec_model
    codec.save_pretrained(tmp_path)
    SnacFeatureExtractor(sampling_rate=codec.config.sampling_rate).save_pretrained(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "SnacModel" in printed and "SnacFeatureExtractor" in printed and "8,000" in printed


def test_broken_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "snac"}')
    assert main(["info", str(tmp_path)]) == 1
    assert "no safetensors file" in capsys.readouterr().err
