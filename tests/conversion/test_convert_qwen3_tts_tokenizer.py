"""The released Qwen3-TTS tokenizer becomes a folder that loads; anything incomplete becomes an error and no folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import convert_qwen3_tts_tokenizer_to_hf as conversion
import pytest
import torch
from checkpoint_tools import ConversionError
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor

from tests.models.qwen3_tts_tokenizer.tester import Tester, random_codes
from tts_models import Qwen3TTSTokenizerConfig, Qwen3TTSTokenizerFeatureExtractor, Qwen3TTSTokenizerModel


RELEASED = json.loads((Path(__file__).parents[1] / "fixtures" / "qwen3_tts_tokenizer" / "released.json").read_text())
State = dict[str, torch.Tensor]


def released_state() -> State:
    """Every tensor of the released checkpoint, without its values."""
    return {name: torch.empty(shape, device="meta") for name, (_, shape) in RELEASED["tensors"].items()}


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder as published, tiny."""
    folder = tmp_path / "released"
    Tester().model().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["encoder_config"] |= {"_frame_rate": 100.0, "upsample_groups": 16, "use_streaming": False}
    config["decoder_config"] |= {"semantic_codebook_size": 64, "rope_theta": 10000}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_released_tensor_is_accounted_for() -> None:
    state = released_state()
    assert len(state) == 496 and sum(tensor.numel() for tensor in state.values()) == 170_557_441
    converted = conversion.convert_state_dict(state, conversion.convert_config(RELEASED["config"]))
    assert converted.keys() == state.keys()
    # 32 flags, and a projection of each of the two branches of encoder and decoder.
    assert len(conversion.unused_tensors(converted)) == 36


def missing(state: State) -> None:
    """Takes a tensor away."""
    del state["decoder.pre_conv.conv.bias"]


def extra(state: State) -> None:
    """Adds a tensor that nothing knows."""
    state["decoder.decoder.7.conv.bias"] = torch.empty(1, device="meta")


def misshapen(state: State) -> None:
    """Makes a tensor larger than the configuration says."""
    state["encoder.downsample.conv.weight"] = torch.empty(512, 512, 5, device="meta")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, r"1 missing \(decoder.pre_conv.conv.bias\)"),
        (extra, r"1 not known .*decoder.decoder.7.conv.bias"),
        (misshapen, r"encoder.downsample.conv.weight: \(512, 512, 5\)"),
    ],
)
def test_unfit_checkpoint_is_refused(spoil: Callable[[State], None], message: str) -> None:
    state = released_state()
    spoil(state)
    with pytest.raises(ConversionError, match=message):
        conversion.convert_state_dict(state, conversion.convert_config(RELEASED["config"]))


def test_folder_is_converted_whole(released: Path, tmp_path: Path) -> None:
    conversion.convert(released, tmp_path / "converted")
    names = {file.name for file in (tmp_path / "converted").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    before, after = (load_file(folder / "model.safetensors") for folder in (released, tmp_path / "converted"))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    codes = random_codes(1, 6)
    models = [Qwen3TTSTokenizerModel.from_pretrained(folder) for folder in (released, tmp_path / "converted")]
    with torch.no_grad():
        assert torch.equal(*(model.decode(codes).audio_values for model in models))
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "converted")
    assert type(extractor) is Qwen3TTSTokenizerFeatureExtractor and extractor.sampling_rate == 2400


def test_incomplete_folder_leaves_nothing_behind(released: Path, tmp_path: Path) -> None:
    state = load_file(released / "model.safetensors")
    del state["decoder.pre_conv.conv.bias"]
    save_file(state, released / "model.safetensors")
    with pytest.raises(ConversionError, match="1 missing"):
        conversion.convert(released, tmp_path / "converted")
    assert [file.name for file in tmp_path.iterdir()] == ["released"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mimi"}, "mimi"),
        ({"sampling": 3}, "sampling"),
        ({"encoder_config": {"surprise": 1}}, "encoder_config holds.*surprise"),
        ({"decoder_config": {"surprise": 1}}, "decoder_config holds.*surprise"),
        ({"encoder_config": {"codebook_dim": 256, "vector_quantization_hidden_dimension": 128}}, "128"),
    ],
)
def test_unknown_configuration_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        conversion.convert_config(RELEASED["config"] | change)


def test_settings_that_a_file_leaves_out_are_those_that_upstream_assumes() -> None:
    decoder = RELEASED["config"]["decoder_config"]
    silent = {name: value for name, value in decoder.items() if name not in ("hidden_size", "head_dim")}
    config = conversion.convert_config(RELEASED["config"] | {"decoder_config": silent | {"num_attention_heads": 8}})
    assert (config.decoder_config.hidden_size, config.decoder_config.head_dim) == (1024, 128)
    assert conversion.convert_config({}).to_dict() == Qwen3TTSTokenizerConfig().to_dict()


@pytest.mark.parametrize("part", ["encoder_config", "decoder_config"])
def test_stretched_rotation_is_taken_over(part: str) -> None:
    settings = RELEASED["config"][part] | {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    rotation = getattr(conversion.convert_config(RELEASED["config"] | {part: settings}), part).rope_parameters
    assert (rotation["rope_type"], rotation["factor"], rotation["rope_theta"]) == ("linear", 2.0, 10000)


def test_command_line(released: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--input", str(released), "--output", str(tmp_path / "converted")]
    assert conversion.main(arguments) == 0
    assert conversion.main(arguments) == 1 and "not empty" in capsys.readouterr().err
    assert conversion.main([*arguments, "--overwrite"]) == 0
    assert conversion.main(["--input", str(tmp_path), "--output", str(tmp_path / "none")]) == 1
    assert "no config.json" in capsys.readouterr().err
