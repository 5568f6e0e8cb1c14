"""Released MetaVoice files, with EnCodec beside them, become one folder; anything that does not fit is an error."""

import collections
import re
from pathlib import Path
from typing import Any

import convert_metavoice_to_hf as conversion
import pytest
import torch
from checkpoint_tools import ConversionError, SafetensorsCheckpoint
from convert_deepfilternet_to_hf import convert_config as enhancer_config
from convert_deepfilternet_to_hf import upstream_names as enhancer_names
from metavoice_stages import first_stage_config, second_stage_config
from transformers import AutoModelForTextToWaveform, AutoProcessor, EncodecModel

from tests.conversion.test_metavoice_parts import make_omegaconf, tiny_diffusion, upstream_bands, write_file
from tests.models.metavoice.tiny import PATTERN, TINY, tiny_ranks
from tts_models import (
    DeepFilterNetModel,
    MetaVoiceConfig,
    MetaVoiceFirstStageConfig,
    MetaVoiceFirstStageForCausalLM,
    MetaVoiceForConditionalGeneration,
)


END_OF_TEXT = "<|endoftext|>"
FIRST_ARGUMENTS = {
    "n_head": 2,
    "norm_type": "rmsnorm",
    "rmsnorm_eps": 1e-5,
    "nonlinearity_type": "swiglu",
    "causal": True,
}
SECOND_ARGUMENTS = {"n_head": 2, "norm_type": "layernorm", "nonlinearity_type": "gelu", "causal": False}


# Ours on the left, upstream's on the right.
NAMES = (
    (r"^model\.", ""),
    (r"^layers\.", "transformer.h."),
    (r"input_layernorm", "ln_1"),
    (r"post_attention_layernorm", "ln_2"),
    (r"self_attn\.o_proj", "attn.c_proj"),
    (r"self_attn", "attn"),
    (r"mlp\.down_proj", "mlp.c_proj"),
    (r"^norm\.", "transformer.ln_f."),
    (r"^embed_positions", "transformer.wpe"),
    (r"^embed_tokens\.weight", "transformer.wtes.0.weight"),
    (r"^embed_tokens", "transformer.wtes"),
    (r"^heads", "lm_heads"),
    (r"^speaker_projection", "speaker_cond_pos"),
)
FIRST_NAMES = (*NAMES, (r"mlp\.gate_proj", "mlp.swiglu.w1"), (r"mlp\.up_proj", "mlp.swiglu.w3"))
SECOND_NAMES = (*NAMES, (r"mlp\.up_proj", "mlp.c_fc"))


def upstream_weights(part: torch.nn.Module, names: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """The weights of one of our stages in upstream's names."""
    weights: dict[str, torch.Tensor] = {}
    for name, tensor in part.state_dict().items():
        for ours, theirs in names:
            name = re.sub(ours, theirs, name)
        weights[name] = tensor.clone()
    weights.pop("lm_head.weight", None)
    for name in [name for name in weights if ".attn.q_proj." in name]:
        parts = [weights.pop(name.replace("q_proj", f"{kind}_proj")) for kind in "qkv"]
        weights[name.replace("q_proj", "c_attn")] = torch.cat(parts)
    return {prefix + name: tensor for name, tensor in weights.items()}


def stage_file(
    weights: dict[str, torch.Tensor], arguments: dict[str, Any], offset: int, **meta: Any
) -> dict[str, Any]:
    ranks = tiny_ranks()
    tokenizer = {
        "name": "trained",
        "pat_str": PATTERN,
        "mergeable_ranks": ranks,
        "special_tokens": {END_OF_TEXT: len(ranks)},
        "offset": offset,
    }
    return {"model": weights, "model_args": arguments, "config": {}, "meta": {"tokenizer": tokenizer} | meta}


@pytest.fixture(scope="module")
def model() -> MetaVoiceForConditionalGeneration:
    torch.manual_seed(0)
    return MetaVoiceForConditionalGeneration(MetaVoiceConfig(**TINY)).eval()


@pytest.fixture
def released(tmp_path: Path, model: MetaVoiceForConditionalGeneration) -> Path:
    """A folder with the files of the release, and EnCodec in `codec`."""
    first = upstream_weights(model.first_stage, FIRST_NAMES, "_orig_mod.")
    first["_orig_mod.lm_heads.0.weight"] = first["_orig_mod.transformer.wtes.0.weight"]
    second = upstream_weights(model.second_stage, SECOND_NAMES)
    encoder = {
        name.replace("projection", "linear"): value for name, value in model.speaker_encoder.state_dict().items()
    }
    encoder |= {"similarity_weight": torch.ones(1), "similarity_bias": torch.zeros(1)}
    folder = tmp_path / "released"
    folder.mkdir()
    torch.save(stage_file(first, FIRST_ARGUMENTS, 17), folder / "first_stage.pt")
    torch.save(stage_file(second, SECOND_ARGUMENTS, 9), folder / "second_stage.pt")
    torch.save({"model_state": encoder, "step": 3}, folder / "speaker_encoder.pt")
    model.codec_model.save_pretrained(folder / "codec")
    return folder


def convert(released: Path, output: Path, **options: Any) -> Path:
    conversion.convert(released, released / "codec", output, **options)
    return output


def edit(file: Path, change: Any) -> None:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)


def test_everything_arrives(released: Path, model: MetaVoiceForConditionalGeneration, tmp_path: Path):
    output = convert(released, tmp_path / "out", max_shard_size=50_000)
    assert len(SafetensorsCheckpoint(output).file_names) > 1
    loaded = AutoModelForTextToWaveform.from_pretrained(output)
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    for stage in ("first_stage_config", "second_stage_config"):
        found, wanted = (getattr(each.config, stage).to_dict() for each in (loaded, model))
        free = {"dtype", "initializer_range"}
        assert {k: v for k, v in found.items() if k not in free} == {k: v for k, v in wanted.items() if k not in free}


def test_the_tokenizer_is_made_of_the_ranks(released: Path, tmp_path: Path):
    tokenizer = AutoProcessor.from_pretrained(convert(released, tmp_path / "out")).tokenizer
    ids = tokenizer("Then the other.").input_ids
    assert ids[-1] == len(tiny_ranks()) == tokenizer.eos_token_id
    assert tokenizer.convert_ids_to_tokens(ids)[1:3] == ["he", "n"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Then the other."


def test_diffusion_and_enhancer_come_along(
    released: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: MetaVoiceForConditionalGeneration
):
    diffusion = tiny_diffusion(model.config.codec_config.hidden_size)
    file = write_file(tmp_path / "mbd.pt", make_omegaconf(monkeypatch), upstream_bands(diffusion))
    # An empty configuration stands for upstream's defaults, which are smaller than the release.
    enhancer = DeepFilterNetModel(enhancer_config({}))
    names = enhancer_names(enhancer)
    release = tmp_path / "DeepFilterNet3"
    release.mkdir()
    (release / "config.ini").write_text("[df]\nsr = 48000\n")
    state = {names.get(name, name): value for name, value in enhancer.state_dict().items()}
    torch.save(state, release / "model_120.ckpt.best")
    output = convert(released, tmp_path / "out", diffusion_file=file, enhancer_path=release)
    loaded = AutoModelForTextToWaveform.from_pretrained(output)
    for name, value in enhancer.state_dict().items():
        assert torch.equal(loaded.enhancer.state_dict()[name], value), name
    for ours, theirs in zip(diffusion.bands, loaded.diffusion.bands, strict=True):
        assert all(
            torch.equal(value, theirs.unet.state_dict()[name]) for name, value in ours.unet.state_dict().items()
        )
    assert torch.equal(loaded.first_stage.lm_head.weight, model.first_stage.lm_head.weight)


def test_half_precision_is_for_the_first_stage(released: Path, tmp_path: Path):
    checkpoint = SafetensorsCheckpoint(convert(released, tmp_path / "out", dtype="bfloat16"))
    for name, tensor in checkpoint.items():
        if tensor.is_floating_point():
            assert tensor.dtype == (torch.bfloat16 if name.startswith("first_stage.") else torch.float32), name
    loaded = AutoModelForTextToWaveform.from_pretrained(tmp_path / "out", dtype="auto")
    assert loaded.first_stage.dtype == torch.bfloat16 and loaded.second_stage.dtype == torch.float32


def test_another_first_stage(released: Path, tmp_path: Path):
    other = tmp_path / "tuned.pt"
    (released / "first_stage.pt").rename(other)
    edit(other, lambda content: content["model"]["_orig_mod.transformer.ln_f.weight"].add_(1))
    convert(released, tmp_path / "out", first_stage_file=other)
    loaded = AutoModelForTextToWaveform.from_pretrained(tmp_path / "out")
    assert torch.all(loaded.first_stage.model.norm.weight == 2)


def test_classes_in_a_pickle_are_refused_by_name(released: Path, tmp_path: Path):
    torch.save({"model": {}, "extra": collections.UserDict()}, released / "first_stage.pt")
    with pytest.raises(ConversionError, match="collections.UserDict"):
        convert(released, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_first_stage_of_other_blocks(released: Path, tmp_path: Path):
    """What model_args do not say is as upstream's constructor takes it: layer norms, plain MLPs."""
    torch.manual_seed(1)
    blocks = {"norm_type": "layer_norm", "use_norm_bias": True, "use_gated_mlp": False, "hidden_act": "gelu"}
    config = MetaVoiceFirstStageConfig(
        **TINY["first_stage_config"] | blocks | {"attention_bias": True, "mlp_bias": True}
    )
    other = MetaVoiceFirstStageForCausalLM(config)
    weights = upstream_weights(other, SECOND_NAMES)
    torch.save(stage_file(weights, {"n_head": 2}, 17), released / "first_stage.pt")
    convert(released, tmp_path / "out")
    loaded = AutoModelForTextToWaveform.from_pretrained(tmp_path / "out").first_stage
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in other.state_dict().items())
    assert all(getattr(loaded.config, name) == value for name, value in blocks.items())
    assert loaded.config.speaker_start_token_id is None


def test_a_text_without_the_speaker() -> None:
    weights = {
        "transformer.wtes.0.weight": torch.zeros(1600, 8),
        "transformer.wpe.weight": torch.zeros(4, 8),
        "transformer.h.0.mlp.c_fc.weight": torch.zeros(32, 8),
        "speaker_cond_pos.weight": torch.zeros(8, 4),
    }
    arguments = {"n_head": 2, "spk_emb_on_text": False}
    assert first_stage_config(weights, arguments, 1001).speaker_start_token_id == 1537
    with pytest.raises(ConversionError, match="spk_emb_on_text"):
        second_stage_config(weights, arguments | {"causal": False})


DEFECTS = {
    "a missing tensor": (
        "first_stage.pt",
        lambda c: c["model"].pop("_orig_mod.transformer.h.0.ln_1.weight"),
        "missing",
    ),
    "an unknown tensor": ("second_stage.pt", lambda c: c["model"].update(extra=torch.zeros(1)), "not known"),
    "a misshapen tensor": (
        "second_stage.pt",
        lambda c: c["model"].update({"transformer.ln_f.weight": torch.ones(3)}),
        "misshapen",
    ),
    "an untied head": (
        "first_stage.pt",
        lambda c: c["model"].update({"_orig_mod.lm_heads.0.weight": torch.zeros(284, 32)}),
        "should be equal",
    ),
    "another network": ("first_stage.pt", lambda c: c["model_args"].update(norm_type="batchnorm"), "norm_type"),
    "no tokenizer": ("first_stage.pt", lambda c: c["meta"].pop("tokenizer"), "tokenizer"),
    "two tokenizers": (
        "second_stage.pt",
        lambda c: c["meta"]["tokenizer"].update(pat_str="."),
        "different tokenizers",
    ),
    "a wrong offset": ("first_stage.pt", lambda c: c["meta"]["tokenizer"].update(offset=18), "end of text"),
    "no speaker encoder": ("speaker_encoder.pt", lambda c: c.pop("model_state"), "model_state"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_what_does_not_fit_is_an_error(defect: str, released: Path, tmp_path: Path):
    file, change, message = DEFECTS[defect]
    edit(released / file, change)
    with pytest.raises(ConversionError, match=message):
        convert(released, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["first_stage.pt", "second_stage.pt", "speaker_encoder.pt"])
def test_missing_files(missing: str, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    (released / missing).unlink()
    arguments = ["--input", released, "--codec", released / "codec", "--output", tmp_path / "out"]
    assert conversion.main([str(each) for each in arguments]) == 1
    assert missing in capsys.readouterr().err


def test_a_codec_of_another_form(released: Path, tmp_path: Path):
    config = MetaVoiceConfig(**TINY).codec_config
    config.codebook_size = 16
    EncodecModel(config).save_pretrained(released / "codec")
    with pytest.raises(ConversionError, match="do not fit together"):
        convert(released, tmp_path / "out")
    with pytest.raises(ConversionError, match="EnCodec"):
        conversion.convert(released, released, tmp_path / "out")
