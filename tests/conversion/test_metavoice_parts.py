"""MetaVoice's speaker encoder and multi-band diffusion from upstream's files."""

import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import metavoice_parts as conversion
import pytest
import torch
from checkpoint_tools import ConversionError

from tests.common.comparing import assert_close
from tts_models.models.metavoice.configuration_metavoice import (
    MetaVoiceMultiBandDiffusionConfig,
    MetaVoiceSpeakerEncoderConfig,
)
from tts_models.models.metavoice.modeling_metavoice_diffusion import MetaVoiceMultiBandDiffusion
from tts_models.models.metavoice.modeling_metavoice_speaker_encoder import MetaVoiceSpeakerEncoder


NETWORK = {
    "hidden": 8,
    "depth": 2,
    "growth": 2.0,
    "norm_groups": 4,
    "kernel": 8,
    "stride": 4,
    "cross_attention": False,
}
SCHEDULE = {"beta_t0": 1e-5, "beta_t1": 0.029, "beta_exp": 7.5, "num_steps": 40, "clip": 5.0, "n_bands": None}
PROCESSOR = {"use": True, "name": "multi_band_processor", "n_bands": 3, "num_samples": 10000, "power_std": 0.4}
NO_PROCESSOR = {"use": False, "name": "multi_band_processor"}


def tiny_diffusion(codec_hidden_size: int = 4) -> MetaVoiceMultiBandDiffusion:
    """Two bands, of which the second has a processor, an LSTM at the bottleneck, and two residual blocks."""
    torch.manual_seed(0)
    band = {"hidden_size": 8, "depth": 2, "growth": 2.0, "num_train_steps": 40}
    second = {"processor_bands": 3, "processor_power": 0.4, "use_lstm": True, "res_blocks": 2}
    config = MetaVoiceMultiBandDiffusionConfig(band_configs=[band, band | second], codec_hidden_size=codec_hidden_size)
    return MetaVoiceMultiBandDiffusion(config).eval()


def upstream_name(name: str) -> str:
    """Upstream's name of a tensor of a band's network."""
    for ours, theirs in (
        ("step_embeddings.0.", "embedding."),
        ("step_embeddings.1.", "embeddings.0."),
        ("condition_projection", "conv_codec"),
        ("bottleneck.lstm", "bilstm.lstm"),
        ("bottleneck.projection", "bilstm.linear"),
        ("bottleneck.layers", "transformer.layers"),
        (".cross_attn_layer_norm", ".norm_cross"),
        (".self_attn_layer_norm", ".norm1"),
        (".final_layer_norm", ".norm2"),
        (".cross_attn.", ".cross_attention.mha."),
        (".self_attn.", ".self_attn.mha."),
        (".qkv_proj.weight", ".in_proj_weight"),
        (".o_proj", ".out_proj"),
        (".fc", ".linear"),
    ):
        name = name.replace(ours, theirs)
    return name


def upstream_bands(model: MetaVoiceMultiBandDiffusion) -> list[dict[str, Any]]:
    """The networks as upstream stores them."""
    states = [{upstream_name(name): t for name, t in band.unet.state_dict().items()} for band in model.bands]
    sums = {"counts": [4.0], "sum_x": [0.4] * 3, "sum_x2": [1.04] * 3, "sum_target_x2": [2.0] * 3}
    processor = {name: torch.tensor(values) for name, values in sums.items()}
    processor[conversion.PROCESSOR_FILTERS] = torch.zeros(2, 1, 5)
    return [
        {
            "cfg": {"diffusion_unet": NETWORK, "schedule": SCHEDULE, "processor": settings},
            "model_state": state,
            "processor_state": kept,
        }
        for state, settings, kept in zip(states, (NO_PROCESSOR, PROCESSOR), ({}, processor), strict=True)
    ]


@pytest.fixture
def omegaconf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """See [`make_omegaconf`]."""
    return make_omegaconf(monkeypatch)


def make_omegaconf(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package of omegaconf's name, whose objects are pickled as omegaconf pickles them; returns its classes."""
    made = {}
    for module, names in conversion.OMEGACONF_CLASSES.items():
        content = types.ModuleType(module)
        for name in names:
            made[name] = type(name, (), {"__module__": module})
            setattr(content, name, made[name])
        monkeypatch.setitem(sys.modules, module, content)
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    return types.SimpleNamespace(**made)


def node(omegaconf: Any, value: Any) -> Any:
    """A value as a tree of omegaconf's nodes."""
    metadata = omegaconf.ContainerMetadata()
    metadata.__dict__ |= {"ref_type": Any, "object_type": dict, "resolver_cache": defaultdict(dict)}
    if isinstance(value, dict):
        made, content = omegaconf.DictConfig(), {key: node(omegaconf, item) for key, item in value.items()}
    elif isinstance(value, list):
        made, content = omegaconf.ListConfig(), [node(omegaconf, item) for item in value]
    else:
        made = omegaconf.AnyNode()
        made.__dict__ |= {"_val": value, "_metadata": metadata, "_parent": None}
        return made
    made.__dict__ |= {"_content": content, "_metadata": metadata, "_parent": None, "_flags_cache": None}
    return made


def write_file(path: Path, omegaconf: Any, bands: list[dict[str, Any]]) -> Path:
    """`mbd_comp_8.pt` of some bands."""
    content: dict[Any, Any] = {"sample_rate": 24000, "n_bands": len(bands)}
    for index, band in enumerate(bands):
        content[index] = band | {"cfg": node(omegaconf, band["cfg"])}
    torch.save(content, path)
    return path


def test_multi_band_diffusion(tmp_path: Path, omegaconf: Any) -> None:
    model, bands = tiny_diffusion(), upstream_bands(tiny_diffusion())
    config, weights = conversion.convert_multi_band_diffusion(write_file(tmp_path / "mbd.pt", omegaconf, bands))
    assert config.band_configs == model.config.band_configs and config.codec_hidden_size == 4
    converted = MetaVoiceMultiBandDiffusion(config)
    converted.load_state_dict(weights)
    for ours, theirs in zip(model.bands, converted.bands, strict=True):
        assert all(torch.equal(t, theirs.unet.state_dict()[name]) for name, t in ours.unet.state_dict().items())
    processor = converted.bands[1].processor
    for name, value in (("mean", 0.1), ("deviation", 0.5), ("target", 0.5)):
        assert_close(getattr(processor, name), torch.full((3,), value), 1e-6, name)


def test_attention_to_the_latent_and_no_latent_at_all() -> None:
    band = {"hidden_size": 8, "depth": 2, "growth": 2.0, "num_train_steps": 40}
    kinds = ({"use_transformer": True, "use_cross_attention": True}, {"use_condition": False})
    config = MetaVoiceMultiBandDiffusionConfig(band_configs=[band | kind for kind in kinds], codec_hidden_size=4)
    bands = upstream_bands(MetaVoiceMultiBandDiffusion(config))
    bands[1] |= {"cfg": {"diffusion_unet": NETWORK, "schedule": SCHEDULE}, "processor_state": {}}
    # A recurrence beside a transformer is never used.
    bands[0]["model_state"]["bilstm.linear.weight"] = torch.zeros(8, 16)
    converted, weights = conversion.convert_bands(bands, 24000)
    assert converted.band_configs == config.band_configs and converted.codec_hidden_size == 4
    assert weights.keys() == MetaVoiceMultiBandDiffusion(config).state_dict().keys()
    assert conversion.convert_bands(bands[1:], 24000)[0].band_configs == config.band_configs[1:]


def test_a_schedule_that_says_nothing_is_upstreams() -> None:
    bands = upstream_bands(tiny_diffusion())
    bands[0]["cfg"] = {"diffusion_unet": NETWORK}
    config, _ = conversion.convert_bands(bands, 24000)
    names = ("beta_start", "beta_end", "beta_exponent", "clip", "noise_scale")
    assert [config.band_configs[0][name] for name in names] == [1e-4, 0.02, 1.0, 5.0, 1.0]
    bands[0]["cfg"] |= {"schedule": {"clip": None}}
    assert conversion.convert_bands(bands, 24000)[0].band_configs[0]["clip"] == 0


def test_references_in_the_settings_are_followed(omegaconf: Any) -> None:
    content = {"schedule": {"num_steps": "${steps}"}, "steps": 1000, "list": [1, "${schedule.num_steps}"], "x": "${y}"}
    expected = {"schedule": {"num_steps": 1000}, "steps": 1000, "list": [1, 1000], "x": "${y}"}
    plain = conversion._resolved(content, content)
    assert plain == expected


@pytest.mark.parametrize(
    "section, change, message",
    [
        ("schedule", {"repartition": "cosine"}, "repartition"),
        ("schedule", {"n_bands": 4}, "n_bands"),
        ("schedule", {"num_steps": 1000}, "num_steps"),
        ("diffusion_unet", {"growth": 4.0}, "misshapen"),
        ("processor", {"n_bands": 5}, "misshapen"),
    ],
)
def test_other_settings_are_refused(section: str, change: dict, message: str) -> None:
    bands = upstream_bands(tiny_diffusion())
    bands[1]["cfg"] = bands[1]["cfg"] | {section: bands[1]["cfg"][section] | change}
    with pytest.raises(ConversionError, match=message):
        conversion.convert_bands(bands, 24000)


def test_every_tensor_is_accounted_for() -> None:
    for band, part, message in ((0, "model_state", "not known"), (1, "processor_state", "unknown")):
        bands = upstream_bands(tiny_diffusion())
        bands[band][part] = bands[band][part] | {"extra.weight": torch.zeros(1)}
        with pytest.raises(ConversionError, match=message):
            conversion.convert_bands(bands, 24000)
    bands = upstream_bands(tiny_diffusion())
    del bands[0]["model_state"]["encoders.0.norm.weight"]
    with pytest.raises(ConversionError, match="missing"):
        conversion.convert_bands(bands, 24000)


class Trap:
    """An object that runs something when it is unpickled."""

    def __reduce__(self) -> tuple:
        return print, ("trapped",)


def test_nothing_in_a_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, content in (("trap.pt", {"n_bands": 1, 0: Trap()}), ("list.pt", [1]), ("empty.pt", {"n_bands": 1})):
        torch.save(content, tmp_path / name)
        with pytest.raises(ConversionError, match=name):
            conversion.convert_multi_band_diffusion(tmp_path / name)
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    with pytest.raises(ConversionError, match=r"broken\.pt"):
        conversion.convert_multi_band_diffusion(tmp_path / "broken.pt")
    assert "trapped" not in capsys.readouterr().out


def test_speaker_encoder() -> None:
    encoder = MetaVoiceSpeakerEncoder(
        MetaVoiceSpeakerEncoderConfig(num_mel_bins=10, hidden_size=8, num_hidden_layers=2, speaker_embed_size=6)
    )
    upstream = {name.replace("projection", "linear"): tensor for name, tensor in encoder.state_dict().items()}
    upstream |= {name: torch.ones(1) for name in conversion.SPEAKER_ENCODER_UNUSED}
    config, weights = conversion.convert_speaker_encoder(upstream)
    assert (config.num_mel_bins, config.hidden_size, config.num_hidden_layers, config.speaker_embed_size) == (
        10,
        8,
        2,
        6,
    )
    assert weights.keys() == encoder.state_dict().keys()
    for changed, message in (
        ({**upstream, "extra": torch.zeros(1)}, "not known"),
        ({name: t for name, t in upstream.items() if name != "lstm.bias_hh_l1"}, "missing"),
        ({}, "no speaker encoder"),
    ):
        with pytest.raises(ConversionError, match=message):
            conversion.convert_speaker_encoder(changed)
