"""Released SNAC checkpoints become folders that load; anything incomplete becomes an error and no folder."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import convert_snac_to_hf as conversion
import pytest
import torch
from checkpoint_tools import ConversionError
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor

from tests.common.reference import ReferenceCase
from tts_models import SnacModel


State = dict[str, torch.Tensor]
CASE = Path(__file__).parents[1] / "fixtures" / "snac" / "tiny_odd_strides"


@pytest.fixture
def state() -> State:
    """A released state dict with weight norm and local attention, tiny."""
    state = ReferenceCase(CASE).state_dict()
    for name in state:
        if name.endswith("inv_freq"):
            state[name] = conversion.rotary_frequencies(state[name].numel())
    return state


def write_released(folder: Path, state: State) -> Path:
    """A folder as published."""
    folder.mkdir(exist_ok=True)
    config = json.loads((CASE / "case.json").read_text())["config"]
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "pytorch_model.bin")
    return folder


def old_spelling(state: State) -> State:
    """The names of `torch.nn.utils.weight_norm`."""
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        renamed[name.replace("parametrizations.weight.original1", "weight_v")] = tensor
    return renamed


def fused_spelling(state: State) -> State:
    """Plain weights, as third parties publish them."""
    return conversion.fuse_weight_norm(state)


@torch.no_grad()
def decode(model: SnacModel) -> torch.Tensor:
    """Audio of fixed codes without noise."""
    codes = tuple(torch.arange(2 * n)[None] % 32 for n in (1, 2, 4, 8))
    return model.decode(codes, noise_scale=0.0).audio_values


@pytest.mark.parametrize("spelling", [dict, old_spelling, fused_spelling])
def test_every_spelling_gives_the_same_folder(
    spelling: Callable[[State], State], state: State, tmp_path: Path
) -> None:
    released = write_released(tmp_path / "released", spelling(state))
    conversion.convert(released, tmp_path / "converted")
    names = {file.name for file in (tmp_path / "converted").iterdir()}
    assert names == {"config.json", "model.safetensors", "preprocessor_config.json"}
    model = SnacModel.from_pretrained(tmp_path / "converted")
    assert not any("original" in name or "inv_freq" in name for name in model.state_dict())
    assert torch.equal(decode(model), decode(conversion.load_upstream(released)))
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "converted")
    assert extractor.sampling_rate == 44100 and extractor.pad_to_multiple_of == model.config.pad_to_multiple_of


def test_safetensors_are_read_too(state: State, tmp_path: Path) -> None:
    released = write_released(tmp_path / "released", state)
    expected = decode(conversion.load_upstream(released))
    (released / "pytorch_model.bin").unlink()
    save_file(state, released / "model.safetensors")
    assert torch.equal(decode(conversion.load_upstream(released)), expected)


def missing(state: State) -> None:
    """Takes a tensor away."""
    del state["decoder.model.0.bias"]


def extra(state: State) -> None:
    """Adds a tensor that nothing knows."""
    state["decoder.model.99.bias"] = torch.zeros(1)


def misshapen(state: State) -> None:
    """Makes a tensor larger than the configuration says."""
    state["quantizer.quantizers.0.codebook.weight"] = torch.zeros(33, 4)


def half_a_weight_norm(state: State) -> None:
    """Takes one of a pair away."""
    del state["encoder.block.0.parametrizations.weight.original1"]


def other_rotary_base(state: State) -> None:
    """Frequencies that the port would not compute."""
    name = next(name for name in state if name.endswith("inv_freq"))
    state[name] = state[name] * 0.5


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, r"1 missing \(decoder.conv1.bias\)"),
        (extra, r"1 not known .*decoder.model.99.bias"),
        (misshapen, r"codebook.weight: \(33, 4\)"),
        (half_a_weight_norm, "encoder.block.0"),
        (other_rotary_base, "rotary frequencies"),
    ],
)
def test_unfit_checkpoint_is_refused(
    spoil: Callable[[State], None], message: str, state: State, tmp_path: Path
) -> None:
    spoil(state)
    released = write_released(tmp_path / "released", state)
    with pytest.raises(ConversionError, match=message):
        conversion.convert(released, tmp_path / "converted")
    assert [file.name for file in tmp_path.iterdir()] == ["released"]


def test_unknown_configuration_is_refused(state: State, tmp_path: Path) -> None:
    released = write_released(tmp_path / "released", state)
    (released / "config.json").write_text(json.dumps({"encoder_dim": 4, "model_type": "dac"}))
    with pytest.raises(ConversionError, match="model_type"):
        conversion.convert(released, tmp_path / "converted")
    (released / "config.json").write_text("{ not JSON")
    with pytest.raises(ConversionError, match="not valid JSON"):
        conversion.convert(released, tmp_path / "converted")
    (released / "config.json").unlink()
    with pytest.raises(ConversionError, match="no config.json"):
        conversion.convert(released, tmp_path / "converted")


def test_defaults_are_those_of_upstreams_constructor() -> None:
    config = conversion.convert_config({})
    assert (config.sampling_rate, config.encoder_hidden_size, config.decoder_hidden_size) == (44100, 64, 1536)
    assert config.downsampling_ratios == [3, 3, 7, 7] and config.upsampling_ratios == [7, 7, 3, 3]
    assert config.attention_window_size == 32 and config.vq_strides == [8, 4, 2, 1]
    assert config.use_noise and config.depthwise


def test_script_runs_from_the_command_line(state: State, tmp_path: Path) -> None:
    script = Path(conversion.__file__)
    released = write_released(tmp_path / "released", state)
    command = [sys.executable, str(script), "--input", str(released), "--output", str(tmp_path / "converted")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    SnacModel.from_pretrained(tmp_path / "converted")


def test_command_line_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert conversion.main(["--input", str(tmp_path), "--output", str(tmp_path / "converted")]) == 1
    assert "no config.json" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
