"""Converts a released SNAC checkpoint into a folder that `SnacModel.from_pretrained` loads.

    python conversion_scripts/convert_snac_to_hf.py --input snac_24khz --output snac-24khz-hf

`--input` is a folder as published (`hubertsiuzdak/snac_24khz`, `snac_32khz`, `snac_44khz`): a `config.json` with the
constructor's arguments and a flat state dict in `pytorch_model.bin` (read with `weights_only=True`) or
`model.safetensors`. Weight normalisation is read in three spellings and stored as the plain weights it stands for.
Every tensor must find its place with the right shape; anything else is an error and leaves no output behind.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from checkpoint_tools import (
    ConversionError,
    account_for,
    fuse_weight_norm,
    read_json,
    read_state_dict,
    run_conversion,
    state_shapes,
    written_whole,
)

from tts_models import SnacConfig, SnacFeatureExtractor, SnacModel


# Upstream's constructor arguments in the port's words.
CONFIG_NAMES = {
    "sampling_rate": "sampling_rate",
    "encoder_dim": "encoder_hidden_size",
    "encoder_rates": "downsampling_ratios",
    "latent_dim": "hidden_size",
    "decoder_dim": "decoder_hidden_size",
    "decoder_rates": "upsampling_ratios",
    "attn_window_size": "attention_window_size",
    "codebook_size": "codebook_size",
    "codebook_dim": "codebook_dim",
    "vq_strides": "vq_strides",
    "noise": "use_noise",
    "depthwise": "depthwise",
}
# What upstream's constructor assumes for an argument that config.json leaves out.
UPSTREAM_DEFAULTS = {
    "sampling_rate": 44100,
    "encoder_dim": 64,
    "encoder_rates": [3, 3, 7, 7],
    "latent_dim": None,
    "decoder_dim": 1536,
    "decoder_rates": [7, 7, 3, 3],
    "attn_window_size": 32,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": [8, 4, 2, 1],
    "noise": True,
    "depthwise": True,
}
# Saved upstream, computed here: the rotary frequencies of the local attention.
ROTARY_BUFFER = ".rel_pos.inv_freq"
RESIDUAL_UNIT = {0: "snake1", 1: "conv1", 2: "snake2", 3: "conv2"}


def convert_config(upstream: Mapping[str, Any]) -> SnacConfig:
    """Upstream's `config.json` as a [`SnacConfig`].

    Raises:
        ConversionError: An argument that upstream's constructor does not have.
    """
    unknown = sorted(upstream.keys() - CONFIG_NAMES.keys())
    if unknown:
        raise ConversionError(f"config.json holds {unknown}, SNAC's arguments are {sorted(CONFIG_NAMES)}")
    arguments = UPSTREAM_DEFAULTS | dict(upstream)
    return SnacConfig(**{CONFIG_NAMES[name]: value for name, value in arguments.items()})


def _residual_units(upstream: str, port: str, first: int) -> Iterator[tuple[str, str]]:
    for unit in range(3):
        for position, name in RESIDUAL_UNIT.items():
            yield f"{upstream}.block.{first + unit}.block.{position}", f"{port}.res_unit{unit + 1}.{name}"


def _encoder_modules(config: SnacConfig) -> Iterator[tuple[str, str]]:
    yield "encoder.block.0", "encoder.conv1"
    last = len(config.downsampling_ratios) + 1
    for index in range(1, last):
        upstream, port = f"encoder.block.{index}", f"encoder.block.{index - 1}"
        yield from _residual_units(upstream, port, first=0)
        yield f"{upstream}.block.3", f"{port}.snake1"
        yield f"{upstream}.block.4", f"{port}.conv1"
    if config.attention_window_size:
        yield f"encoder.block.{last}", "encoder.attention"
        last += 1
    yield f"encoder.block.{last}", "encoder.conv2"


def _decoder_modules(config: SnacConfig) -> Iterator[tuple[str, str]]:
    stem = ["conv1", "conv_pointwise"] if config.depthwise else ["conv1"]
    stem += ["attention"] if config.attention_window_size else []
    for index, name in enumerate(stem):
        yield f"decoder.model.{index}", f"decoder.{name}"
    for index in range(len(config.upsampling_ratios)):
        upstream, port = f"decoder.model.{len(stem) + index}", f"decoder.block.{index}"
        yield f"{upstream}.block.0", f"{port}.snake1"
        yield f"{upstream}.block.1", f"{port}.conv_t1"
        if config.use_noise:
            yield f"{upstream}.block.2", f"{port}.noise"
        yield from _residual_units(upstream, port, first=3 if config.use_noise else 2)
    last = len(stem) + len(config.upsampling_ratios)
    yield f"decoder.model.{last}", "decoder.snake1"
    yield f"decoder.model.{last + 1}", "decoder.conv2"


def _quantizer_modules(config: SnacConfig) -> Iterator[tuple[str, str]]:
    for index in range(len(config.vq_strides)):
        for name in ("in_proj", "out_proj", "codebook"):
            yield (f"quantizer.quantizers.{index}.{name}",) * 2


def module_names(config: SnacConfig) -> dict[str, str]:
    """Upstream's name → the port's name of every module that holds parameters."""
    return dict([*_encoder_modules(config), *_decoder_modules(config), *_quantizer_modules(config)])


def rename(name: str, modules: Mapping[str, str]) -> str:
    """The port's name of upstream's parameter `name`; unchanged when it lies in none of the known modules."""
    prefix = name
    while prefix := prefix.rpartition(".")[0]:
        if prefix in modules:
            return modules[prefix] + name.removeprefix(prefix)
    return f"(unknown) {name}"


def rotary_frequencies(size: int) -> torch.Tensor:
    """The `size` frequencies that upstream saves with every local attention, and the port computes."""
    return 1.0 / 10000 ** (torch.arange(size, dtype=torch.float32) / size)


def _check_rotary_buffer(name: str, values: torch.Tensor) -> None:
    if values.dim() != 1 or not torch.allclose(values.float(), rotary_frequencies(values.numel()), rtol=1e-3):
        raise ConversionError(f"{name} does not hold the rotary frequencies of base 10000 that the port computes")


def convert_state_dict(upstream: Mapping[str, torch.Tensor], config: SnacConfig) -> dict[str, torch.Tensor]:
    """Renames and fuses upstream's parameters, and checks that they are those of `SnacModel(config)`.

    Args:
        upstream (`Mapping[str, torch.Tensor]`): Flat state dict in upstream's names, tensors possibly on `meta`.
        config (`SnacConfig`): The configuration they belong to.

    Returns:
        `dict[str, torch.Tensor]`: Plain weights in the port's names.

    Raises:
        ConversionError: A missing, left-over or misshapen tensor.
    """
    kept = {}
    for name, tensor in upstream.items():
        if not name.endswith(ROTARY_BUFFER):
            kept[name] = tensor
        elif not tensor.is_meta:
            _check_rotary_buffer(name, tensor)
    modules = module_names(config)
    converted = {rename(name, modules): tensor for name, tensor in fuse_weight_norm(kept).items()}
    with torch.device("meta"):
        expected = state_shapes(SnacModel(config))
    account_for({name: tuple(tensor.shape) for name, tensor in converted.items()}, expected)
    return converted


def load_upstream(folder: Path) -> SnacModel:
    """Reads a released folder into a [`SnacModel`] in evaluation mode.

    Raises:
        ConversionError: The folder is not a complete SNAC checkpoint.
    """
    config = convert_config(read_json(folder / "config.json"))
    converted = convert_state_dict(read_state_dict(folder), config)
    model = SnacModel(config)
    model.load_state_dict(converted, strict=True)
    return model.eval()


def feature_extractor_for(config: SnacConfig) -> SnacFeatureExtractor:
    """The feature extractor that fits a codec."""
    return SnacFeatureExtractor(
        sampling_rate=config.sampling_rate,
        hop_length=config.hop_length,
        pad_to_multiple_of=config.pad_to_multiple_of,
    )


def convert(input_folder: Path, output_folder: Path, overwrite: bool = False) -> None:
    """Writes `output_folder` with configuration, safetensors weights and feature extractor; whole or not at all."""
    model = load_upstream(input_folder)
    with written_whole(output_folder, overwrite) as staging:
        model.save_pretrained(staging)
        feature_extractor_for(model.config).save_pretrained(staging)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_conversion(__doc__, "released folder: config.json, pytorch_model.bin", convert, arguments)


if __name__ == "__main__":
    sys.exit(main())
