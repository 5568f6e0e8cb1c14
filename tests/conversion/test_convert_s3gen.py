"""Released S3Gen checkpoints and their parts become folders that load; anything incomplete becomes an error."""

import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import convert_s3gen_to_hf as conversion
import pytest
import torch
from checkpoint_tools import ConversionError, fuse_weight_norm
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor

from tests.common.fill import fill_state_dict
from tests.common.reference import ReferenceCase
from tts_models import CAMPPlusModel, HiFTNetModel, S3GenConfig, S3GenModel, S3TokenizerModel
from tts_models.audio.mel import mel_filters
from tts_models.models.s3gen.modeling_s3gen_flow import S3GenFlow


State = dict[str, torch.Tensor]
FIXTURES = Path(__file__).parents[1] / "fixtures" / "s3gen"
FLOW = {
    "token_embed_dim": 16,
    "speaker_embed_dim": 24,
    "encoder_output_size": 16,
    "encoder_attention_heads": 2,
    "encoder_linear_units": 24,
    "encoder_num_blocks": 2,
    "encoder_num_up_blocks": 1,
    "decoder_channels": [16],
    "decoder_n_blocks": 2,
    "decoder_num_mid_blocks": 1,
    "decoder_num_heads": 1,
}
PART_CLASSES = {"tokenizer": S3TokenizerModel, "speaker_encoder": CAMPPlusModel, "vocoder": HiFTNetModel}


@lru_cache
def released_parts(meanflow: bool) -> State:
    """A tiny checkpoint in upstream's names, with weight norm and the tokenizer's constants."""
    with torch.device("meta"):  # the flow has upstream's names
        flow = S3GenFlow(S3GenConfig(**FLOW, meanflow=meanflow)).state_dict()
    state = fill_state_dict({f"flow.{name}": tuple(tensor.shape) for name, tensor in flow.items()})
    cases = {"tokenizer.": "s3_tokenizer_tiny", "speaker_encoder.": "campplus_tiny", "mel2wav.": "hift_decode_tiny"}
    for prefix, case in cases.items():
        state |= {prefix + name: tensor for name, tensor in ReferenceCase(FIXTURES / case).state_dict().items()}
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    return state | {name: torch.tensor(7) for name in counters}


def released_state(meanflow: bool = False) -> State:
    """A copy that a test may change."""
    return dict(released_parts(meanflow))


@pytest.fixture
def state() -> State:
    """As released, tiny."""
    return released_state()


def old_spelling(state: State) -> State:
    """The names of `torch.nn.utils.weight_norm`."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for long, short in names.items():
        state = {name.replace(long, short): tensor for name, tensor in state.items()}
    return state


def without_constants(state: State) -> State:
    """As `s3gen.safetensors` may be."""
    return {name: t for name, t in state.items() if name not in ("tokenizer._mel_filters", "tokenizer.window")}


def run(*arguments: object) -> int:
    """The script's exit status."""
    return conversion.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("spelling", [dict, old_spelling, fuse_weight_norm, without_constants])
def test_every_spelling_gives_the_same_model(spelling: Callable[[State], State], state: State) -> None:
    expected = conversion.load_s3gen(state).state_dict()
    converted = conversion.load_s3gen(spelling(state)).state_dict()
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in expected.items())
    assert not any("original" in name or "mel_filters" in name for name in converted)


def test_released_folder_becomes_a_folder_that_loads(state: State, tmp_path: Path) -> None:
    (tmp_path / "released").mkdir()
    save_file(state, tmp_path / "released" / "s3gen.safetensors")
    assert run("--input", tmp_path / "released", "--output", tmp_path / "converted") == 0
    model = AutoModel.from_pretrained(tmp_path / "converted")
    assert AutoProcessor.from_pretrained(tmp_path / "converted").vocab_size == model.config.vocab_size
    assert type(model) is S3GenModel and not model.config.meanflow
    sizes = {name: getattr(model.config, name) for name in FLOW}
    assert sizes == FLOW and model.config.vocoder_config.upsample_rates == [8, 5, 3]
    assert torch.equal(model.flow.input_embedding.weight, state["flow.input_embedding.weight"])


def test_mean_flow_file_is_taken_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "released").mkdir()
    save_file(released_state(), tmp_path / "released" / "s3gen.safetensors")
    save_file(released_state(meanflow=True), tmp_path / "released" / "s3gen_meanflow.safetensors")
    assert run("--input", tmp_path / "released", "--meanflow", "--output", tmp_path / "converted") == 0
    model = S3GenModel.from_pretrained(tmp_path / "converted")
    assert model.config.meanflow and model.config.default_flow_steps == 2


@pytest.mark.parametrize("part", list(PART_CLASSES))
def test_parts_convert_alone(part: str, state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "s3gen.pt")
    assert run("--input", tmp_path / "s3gen.pt", "--part", part, "--output", tmp_path / "part") == 0
    model = AutoModel.from_pretrained(tmp_path / "part")
    assert type(model) is PART_CLASSES[part]
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "part")
    assert extractor.sampling_rate == model.config.sampling_rate
    whole = getattr(conversion.load_s3gen(state), "mel2wav" if part == "vocoder" else part).state_dict()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in model.state_dict().items())


def test_files_of_cosyvoice_take_the_place_of_parts(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "s3gen.safetensors")
    flow = {name.removeprefix("flow."): tensor + 1 for name, tensor in state.items() if name.startswith("flow.")}
    vocoder = {
        f"generator.{name.removeprefix('mel2wav.')}": tensor + 1
        for name, tensor in state.items()
        if name.startswith("mel2wav.")
    }
    torch.save(flow, tmp_path / "flow.pt")
    torch.save(vocoder, tmp_path / "hift.pt")
    files = ("--flow", tmp_path / "flow.pt", "--vocoder", tmp_path / "hift.pt")
    assert run("--input", tmp_path / "s3gen.safetensors", *files, "--output", tmp_path / "converted") == 0
    model = S3GenModel.from_pretrained(tmp_path / "converted")
    assert torch.equal(model.flow.encoder_proj.bias, state["flow.encoder_proj.bias"] + 1)
    assert torch.equal(model.mel2wav.conv_pre.bias, state["mel2wav.conv_pre.bias"] + 1)
    assert run("--input", tmp_path / "hift.pt", "--part", "vocoder", "--output", tmp_path / "vocoder") == 0
    alone = HiFTNetModel.from_pretrained(tmp_path / "vocoder")
    assert torch.equal(alone.conv_pre.weight, model.mel2wav.conv_pre.weight)


def missing(state: State) -> None:
    """Takes a tensor away."""
    del state["flow.encoder_proj.bias"]


def extra(state: State) -> None:
    """Adds a tensor that nothing knows."""
    state["mel2wav.ups.0.scale"] = torch.zeros(1)


def outside(state: State) -> None:
    """Adds a tensor of another part."""
    state["discriminator.weight"] = torch.zeros(1)


def misshapen(state: State) -> None:
    """Makes a tensor larger than the others say."""
    state["speaker_encoder.xvector.dense.nonlinear.batchnorm.running_mean"] = torch.zeros(25)


def half_a_weight_norm(state: State) -> None:
    """Takes one of a pair away."""
    del state["mel2wav.conv_post.parametrizations.weight.original1"]


def other_filters(state: State) -> None:
    """Mel filters that the feature extractor would not compute."""
    state["tokenizer._mel_filters"] = mel_filters(400, 128, 0.0, 7600.0, 16000)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, r"1 missing \(flow.encoder_proj.bias\)"),
        (extra, r"1 not known .*upsampler.0.scale"),
        (outside, "discriminator.weight"),
        (misshapen, r"projection_bn.running_mean: \(25,\)"),
        (half_a_weight_norm, "conv_post"),
        (other_filters, "_mel_filters"),
    ],
)
def test_unfit_checkpoint_is_refused(
    spoil: Callable[[State], None], message: str, state: State, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    spoil(state)
    save_file(state, tmp_path / "s3gen.safetensors")
    assert run("--input", tmp_path, "--output", tmp_path / "converted") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["s3gen.safetensors"]
    with pytest.raises(ConversionError, match=message):
        conversion.load_s3gen(state)
    assert capsys.readouterr().err.startswith("error: ")


def test_command_line_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("--input", tmp_path, "--output", tmp_path / "converted") == 1
    assert "s3gen.safetensors" in capsys.readouterr().err
    (tmp_path / "s3gen.safetensors").write_bytes(b"not weights")
    assert run("--input", tmp_path, "--output", tmp_path / "converted") == 1
    assert "not a readable safetensors file" in capsys.readouterr().err
    torch.save({"conv": [1]}, tmp_path / "s3gen.pt")
    assert run("--input", tmp_path / "s3gen.pt", "--output", tmp_path / "converted") == 1
    assert "flat dictionary" in capsys.readouterr().err


def test_script_runs_from_the_command_line(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "s3gen.pt")
    script, output = conversion.__file__, tmp_path / "hiftnet"
    command = [script, "--input", tmp_path / "s3gen.pt", "--part", "vocoder", "--output", output]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    HiFTNetModel.from_pretrained(output)
