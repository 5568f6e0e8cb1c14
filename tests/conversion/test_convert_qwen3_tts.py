"""A released Qwen3-TTS folder and its codec become one folder; anything that does not fit becomes an error."""

import json
import shutil
from pathlib import Path

import convert_qwen3_tts_to_hf as conversion
import pytest
import torch
from checkpoint_tools import ConversionError, SafetensorsCheckpoint
from safetensors.torch import load_file, save_file
from transformers import AutoModelForTextToWaveform, AutoProcessor, GenerationConfig

from tests.models.qwen3_tts.tester import Tester, prepared_voice, write_released_folder


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A tiny folder in the released layout, in bfloat16, without settings that are ours alone."""
    model = Tester().model(kind="base")
    model.talker.to(torch.bfloat16)
    write_released_folder(model, tmp_path / "released")
    settings = {"do_sample": True, "temperature": 0.7, "subtalker_dosample": True, "subtalker_temperature": 0.6}
    (tmp_path / "released" / "generation_config.json").write_text(json.dumps(settings))
    return tmp_path / "released"


@pytest.mark.parametrize("max_shard_size", [conversion.DEFAULT_SHARD_SIZE, 20_000])
def test_joined_folder_holds_both_parts(released: Path, tmp_path: Path, max_shard_size: int) -> None:
    conversion.convert(released, tmp_path / "joined", max_shard_size=max_shard_size)
    weights = dict(SafetensorsCheckpoint(tmp_path / "joined").items())
    for name, tensor in load_file(released / "model.safetensors").items():
        assert torch.equal(weights.pop(name), tensor)
    assert weights and all(name.startswith("speech_tokenizer.") for name in weights)


def test_joined_folder_speaks_as_the_released_one(released: Path, tmp_path: Path) -> None:
    assert conversion.main(["--input", str(released), "--output", str(tmp_path / "joined")]) == 0
    spoken = []
    for folder in (released, tmp_path / "joined"):
        inputs = AutoProcessor.from_pretrained(folder)(text="Hello.", voice=prepared_voice())
        model = AutoModelForTextToWaveform.from_pretrained(folder)
        spoken.append(model.generate(**inputs, seed=0, max_frames=4, min_new_tokens=5).audio)
    assert torch.equal(*spoken)
    settings = GenerationConfig.from_pretrained(tmp_path / "joined")
    assert (settings.temperature, settings.subtalker_temperature, settings.max_new_tokens) == (0.7, 0.6, 8192)


def test_codec_may_lie_elsewhere(released: Path, tmp_path: Path) -> None:
    (released / "speech_tokenizer").rename(tmp_path / "codec")
    with pytest.raises(ConversionError, match="--codec"):
        conversion.convert(released, tmp_path / "joined")
    conversion.convert(released, tmp_path / "joined", tmp_path / "codec")
    assert (tmp_path / "joined" / "model.safetensors").is_file()


@pytest.mark.parametrize("spoil", ["missing", "extra", "misshapen"])
def test_tensors_that_do_not_fit_are_errors(released: Path, tmp_path: Path, spoil: str) -> None:
    weights = load_file(released / "model.safetensors")
    name = "talker.text_projection.linear_fc1.bias"
    tensor = weights.pop(name)
    if spoil == "extra":
        weights |= {name: tensor, "talker.surprise": torch.zeros(1)}
    elif spoil == "misshapen":
        weights[name] = torch.cat([tensor, tensor])
    save_file(weights, released / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConversionError, match="surprise" if spoil == "extra" else name):
        conversion.convert(released, tmp_path / "joined")
    assert not (tmp_path / "joined").exists()


def test_other_folders_are_refused(released: Path, tmp_path: Path) -> None:
    content = json.loads((released / "config.json").read_text())
    for change, message in (
        ({"model_type": "llama"}, "llama"),
        ({"tokenizer_type": "qwen3_tts_tokenizer_25hz"}, "tokenizer_type"),
    ):
        (released / "config.json").write_text(json.dumps(content | change))
        with pytest.raises(ConversionError, match=message):
            conversion.convert(released, tmp_path / "joined")
    (released / "config.json").write_text(json.dumps(content))
    for name in ("vocab.json", "tokenizer_config.json", "merges.txt"):
        (released / name).unlink()
    with pytest.raises(ConversionError, match="tokenizer"):
        conversion.convert(released, tmp_path / "joined")


def test_full_output_folder_is_kept(released: Path, tmp_path: Path) -> None:
    (tmp_path / "joined").mkdir()
    (tmp_path / "joined" / "precious").write_text("")
    assert conversion.main(["--input", str(released), "--output", str(tmp_path / "joined")]) == 1
    assert [file.name for file in (tmp_path / "joined").iterdir()] == ["precious"]
    shutil.rmtree(released)
    assert conversion.main(["--input", str(released), "--output", str(tmp_path / "other")]) == 1
