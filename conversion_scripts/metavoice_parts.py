"""The parts of MetaVoice beside its two stages: speaker encoder and multi-band diffusion, in our words.

Used by `convert_metavoice_to_hf.py`. Sizes are read off the tensors; what the tensors do not say, such as the noise
schedule, comes from the file.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from checkpoint_tools import ConversionError, account_for, state_shapes

from tts_models.models.metavoice.configuration_metavoice import (
    MetaVoiceMultiBandDiffusionConfig,
    MetaVoiceSpeakerEncoderConfig,
)
from tts_models.models.metavoice.modeling_metavoice_diffusion import MetaVoiceMultiBandDiffusion
from tts_models.models.metavoice.modeling_metavoice_speaker_encoder import MetaVoiceSpeakerEncoder


StateDict = Mapping[str, torch.Tensor]

# What only the training of the speaker encoder needs.
SPEAKER_ENCODER_UNUSED = ("similarity_weight", "similarity_bias")

# Rules of the network of one band; the first that matches a whole name counts.
UNET_RULES = (
    (r"(encoders|decoders)\.(\d+)\.(conv|convtr|norm)\.(.*)", r"\1.\2.\3.\4"),
    (r"(encoders|decoders)\.(\d+)\.(res_blocks\.\d+\.(?:norm|conv)[12]\..*)", r"\1.\2.\3"),
    (r"embedding\.weight", r"step_embeddings.0.weight"),
    (r"embeddings\.(\d+)\.weight", r"step_embeddings.<\1>.weight"),
    (r"conv_codec\.(.*)", r"condition_projection.\1"),
    (r"bilstm\.lstm\.(.*)", r"bottleneck.lstm.\1"),
    (r"bilstm\.linear\.(.*)", r"bottleneck.projection.\1"),
    (r"transformer\.layers\.(\d+)\.self_attn\.mha\.in_proj_weight", r"bottleneck.layers.\1.self_attn.qkv_proj.weight"),
    (r"transformer\.layers\.(\d+)\.self_attn\.mha\.out_proj\.(.*)", r"bottleneck.layers.\1.self_attn.o_proj.\2"),
    (
        r"transformer\.layers\.(\d+)\.cross_attention\.mha\.in_proj_weight",
        r"bottleneck.layers.\1.cross_attn.qkv_proj.weight",
    ),
    (
        r"transformer\.layers\.(\d+)\.cross_attention\.mha\.out_proj\.(.*)",
        r"bottleneck.layers.\1.cross_attn.o_proj.\2",
    ),
    (r"transformer\.layers\.(\d+)\.norm_cross\.(.*)", r"bottleneck.layers.\1.cross_attn_layer_norm.\2"),
    (r"transformer\.layers\.(\d+)\.linear([12])\.(.*)", r"bottleneck.layers.\1.fc\2.\3"),
    (r"transformer\.layers\.(\d+)\.norm1\.(.*)", r"bottleneck.layers.\1.self_attn_layer_norm.\2"),
    (r"transformer\.layers\.(\d+)\.norm2\.(.*)", r"bottleneck.layers.\1.final_layer_norm.\2"),
)
# What a processor collected of its training data; its filters follow from the number of bands.
PROCESSOR_SUMS = ("counts", "sum_x", "sum_x2", "sum_target_x2")
PROCESSOR_FILTERS = "split_bands.lowpass.filters"


def convert_speaker_encoder(upstream: StateDict) -> tuple[MetaVoiceSpeakerEncoderConfig, dict[str, torch.Tensor]]:
    """Configuration and weights of `speaker_encoder.pt`'s `model_state`.

    Raises:
        ConversionError: A missing, left-over or misshapen tensor.
    """
    kept = {name: tensor for name, tensor in upstream.items() if name not in SPEAKER_ENCODER_UNUSED}
    converted = {re.sub(r"^linear\.", "projection.", name): tensor for name, tensor in kept.items()}
    if "lstm.weight_ih_l0" not in converted or "projection.weight" not in converted:
        raise ConversionError("this is no speaker encoder: it has no lstm.weight_ih_l0 or no linear.weight")
    width, hidden = converted["projection.weight"].shape
    config = MetaVoiceSpeakerEncoderConfig(
        num_mel_bins=converted["lstm.weight_ih_l0"].shape[1],
        hidden_size=hidden,
        num_hidden_layers=sum(re.fullmatch(r"lstm\.weight_ih_l\d+", name) is not None for name in converted),
        speaker_embed_size=width,
    )
    with torch.device("meta"):
        expected = state_shapes(MetaVoiceSpeakerEncoder(config))
    account_for({name: tuple(tensor.shape) for name, tensor in converted.items()}, expected)
    return config, converted


def rename_unet(name: str) -> str:
    """Our name of a tensor of a band's network; unknown names stay."""
    for pattern, replacement in UNET_RULES:
        match = re.fullmatch(pattern, name)
        if match:
            return re.sub(r"<(\d+)>", lambda number: str(int(number[1]) + 1), match.expand(replacement))
    return name


def band_config(
    upstream: StateDict, settings: Mapping[str, Any], schedule: Mapping[str, Any], processor: Mapping[str, Any] | None
) -> tuple[dict[str, Any], int | None]:
    """One band's configuration, sizes from the tensors and the rest from its settings, and the width of the latent.

    The width is `None` where the network does not hear the latent.

    Args:
        upstream (`StateDict`): The network's state.
        settings (`Mapping[str, Any]`): `cfg.diffusion_unet`.
        schedule (`Mapping[str, Any]`): `cfg.schedule`.
        processor (`Mapping[str, Any]`, *optional*): `n_bands` and `power_std`; `None` where the band has none.

    Raises:
        ConversionError: A tensor is missing.
    """
    try:
        first, (num_steps, hidden_size) = upstream["encoders.0.conv.weight"], upstream["embedding.weight"].shape
    except KeyError as error:
        raise ConversionError(f"this is no network of multi-band diffusion: it has no {error}") from error
    kernel, condition = first.shape[-1], upstream.get("conv_codec.weight")
    has_transformer = any(name.startswith("transformer.") for name in upstream)
    config = {
        "hidden_size": hidden_size,
        "depth": _count(upstream, r"encoders\.(\d+)\."),
        "growth": float(settings.get("growth", 2.0)),
        "max_channels": int(settings.get("max_channels", 10_000)),
        "kernel_size": kernel,
        "stride": int(settings.get("stride", 2)),  # upstream's default
        "res_blocks": _count(upstream, r"encoders\.0\.res_blocks\.(\d+)\."),
        "norm_groups": int(settings.get("norm_groups", 4)),
        "use_lstm": "bilstm.linear.weight" in upstream and not has_transformer,
        "use_transformer": has_transformer,
        "embed_all_layers": "embeddings.0.weight" in upstream,
        "use_condition": condition is not None,
        "use_cross_attention": any(".cross_attention." in name for name in upstream),
        "beta_start": float(schedule.get("beta_t0", 1e-4)),
        "beta_end": float(schedule.get("beta_t1", 0.02)),
        "beta_exponent": float(schedule.get("beta_exp", 1.0)),
        "num_train_steps": num_steps,
        "clip": float(schedule.get("clip", 5.0) or 0.0),
        "noise_scale": float(schedule.get("noise_scale", 1.0)),
        "processor_bands": 0,
        "processor_power": 0.0,
    }
    if processor is not None:
        config["processor_bands"] = int(processor.get("n_bands", 8))
        config["processor_power"] = _power(processor.get("power_std", 1.0))
    _check_schedule(schedule, num_steps)
    return config, None if condition is None else condition.shape[1]


def _check_schedule(schedule: Mapping[str, Any], num_steps: int) -> None:
    known = {"repartition": "power", "n_bands": None, "num_steps": num_steps}
    for name, value in known.items():
        if schedule.get(name, value) != value:
            raise ConversionError(f"the schedule's {name} is {schedule[name]!r}; only {value!r} can be converted")


def _power(value: Any) -> float | list[float]:
    return [float(item) for item in value] if isinstance(value, list | tuple) else float(value)


def _count(upstream: StateDict, pattern: str) -> int:
    return 1 + max((int(match[1]) for name in upstream if (match := re.match(pattern, name))), default=-1)


def processor_weights(state: StateDict) -> dict[str, torch.Tensor]:
    """Mean, deviation and target of every band of a processor.

    Raises:
        ConversionError: A sum is missing.
    """
    missing = [name for name in PROCESSOR_SUMS if name not in state]
    extra = sorted(state.keys() - {*PROCESSOR_SUMS, PROCESSOR_FILTERS})
    if missing or extra:
        raise ConversionError(f"a band's processor lacks {missing} or has unknown tensors {extra}")
    counts, sums, squares, targets = (state[name].float() for name in PROCESSOR_SUMS)
    mean = sums / counts
    # Upstream takes no root of the target, which its networks were trained with.
    return {
        "mean": mean,
        "deviation": (squares / counts - mean.square()).clamp(min=0).sqrt(),
        "target": targets / counts,
    }


def convert_bands(
    bands: list[Mapping[str, Any]], sampling_rate: int
) -> tuple[MetaVoiceMultiBandDiffusionConfig, dict[str, torch.Tensor]]:
    """Configuration and weights of multi-band diffusion.

    Args:
        bands (`list[Mapping[str, Any]]`): Of each band `model_state`, `processor_state` and `cfg` (plain containers).
        sampling_rate (`int`): Rate of the sound in Hz.

    Raises:
        ConversionError: A missing, left-over or misshapen tensor, or settings that cannot be converted.
    """
    configs, widths, converted = [], set(), {}
    for index, band in enumerate(bands):
        cfg, processor = band["cfg"], band["cfg"].get("processor") or {}
        is_processed = bool(processor.get("use", bool(processor)))
        config, width = band_config(
            band["model_state"],
            cfg.get("diffusion_unet", {}),
            cfg.get("schedule", {}),
            processor if is_processed else None,
        )
        configs.append(config)
        widths.update([width] * (width is not None))
        # Beside a transformer upstream makes a recurrence, and leaves it aside.
        unused = "bilstm." if config["use_transformer"] else None
        state = {name: t for name, t in band["model_state"].items() if unused is None or not name.startswith(unused)}
        renamed = {rename_unet(name): tensor for name, tensor in state.items()}
        converted |= {f"bands.{index}.unet.{name}": tensor for name, tensor in renamed.items()}
        if is_processed:
            weights = processor_weights(band["processor_state"])
            converted |= {f"bands.{index}.processor.{name}": tensor for name, tensor in weights.items()}
    if len(widths) > 1:
        raise ConversionError(f"the bands hear latents of different widths: {sorted(widths)}")
    width = {"codec_hidden_size": widths.pop()} if widths else {}
    config = MetaVoiceMultiBandDiffusionConfig(band_configs=configs, sampling_rate=sampling_rate, **width)
    with torch.device("meta"):
        expected = state_shapes(MetaVoiceMultiBandDiffusion(config))
    account_for({name: tuple(tensor.shape) for name, tensor in converted.items()}, expected)
    return config, converted


# Reading `mbd_comp_8.pt`, whose settings are pickled objects of omegaconf.


class OmegaNode:
    """Takes the place of every omegaconf class in a pickle: keeps the state, runs nothing."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


# Classes that omegaconf's pickles name; each becomes an `OmegaNode`.
OMEGACONF_CLASSES = {
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata", "UnionNode"),
    "omegaconf.nodes": (
        "AnyNode",
        "BooleanNode",
        "BytesNode",
        "EnumNode",
        "FloatNode",
        "IntegerNode",
        "PathNode",
        "StringNode",
    ),
}


def _stand_ins() -> list[Any]:
    nodes = [
        (type(name, (OmegaNode,), {"__module__": module}), f"{module}.{name}")
        for module, names in OMEGACONF_CLASSES.items()
        for name in names
    ]
    return [*nodes, defaultdict, (Any, "typing.Any"), dict, list, int, float, str, bool]


def settings_of(node: Any) -> Any:
    """What an omegaconf object holds, as plain containers and values; references to other values are followed."""
    content = plain(node)
    return _resolved(content, content)


def _resolved(value: Any, root: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, root) for item in value]
    reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
    if reference is None:
        return value
    target = root
    for part in reference[1].split("."):
        target = target.get(part) if isinstance(target, dict) else None
    return value if target in (None, value) else _resolved(target, root)


def plain(value: Any) -> Any:
    """What an omegaconf object holds, as plain containers and values."""
    if isinstance(value, OmegaNode):
        content = value.state
        return plain(content["_content"] if "_content" in content else content.get("_val"))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def read_multi_band_diffusion(path: Path) -> dict[Any, Any]:
    """The content of `mbd_comp_8.pt`, its settings as plain containers; nothing in the file is run.

    Raises:
        ConversionError: The file holds objects of classes that are not known, or is broken.
    """
    try:
        with torch.serialization.safe_globals(_stand_ins()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken or malicious pickle makes of it
        raise ConversionError(f"{path} cannot be read as weights and settings: {error}") from error
    if not isinstance(content, dict) or "n_bands" not in content:
        raise ConversionError(f"{path} is no multi-band diffusion: it has no n_bands")
    return content


def convert_multi_band_diffusion(
    path: Path,
) -> tuple[MetaVoiceMultiBandDiffusionConfig, dict[str, torch.Tensor]]:
    """Configuration and weights of `mbd_comp_8.pt`.

    Raises:
        ConversionError: The file is broken, or is not made of the networks that this package knows.
    """
    content = read_multi_band_diffusion(Path(path))
    missing = [band for band in range(content["n_bands"]) if band not in content]
    if missing:
        raise ConversionError(f"{path} lacks the bands {missing}")
    bands = [
        {
            "cfg": settings_of(content[band]["cfg"]),
            "model_state": content[band]["model_state"],
            "processor_state": content[band]["processor_state"],
        }
        for band in range(content["n_bands"])
    ]
    return convert_bands(bands, int(content.get("sample_rate", 24000)))
