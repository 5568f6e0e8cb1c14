"""Converts a released S3Gen, or one of its parts, into a folder that `from_pretrained` loads.

    python conversion_scripts/convert_s3gen_to_hf.py --input chatterbox --output s3gen-hf
    python conversion_scripts/convert_s3gen_to_hf.py --input chatterbox-turbo --meanflow --output s3gen-meanflow-hf
    python conversion_scripts/convert_s3gen_to_hf.py --input chatterbox --part vocoder --output hiftnet-hf

`--input` is a folder as published (`ResembleAI/chatterbox`, `chatterbox-turbo`, `chatterbox-nano`) or one of its files
`s3gen.safetensors`, `s3gen.pt` (read with `weights_only=True`) and `s3gen_meanflow.safetensors`. CosyVoice 2's
`flow.pt` and `hift.pt` can take the place of the same parts (`--flow`, `--vocoder`); a `hift.pt` alone converts with
`--part vocoder --input hift.pt`. No configuration is published: sizes are read off the tensors. Every tensor must find
its place with the right shape; anything else is an error and leaves no output behind.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from checkpoint_tools import ConversionError, exit_status, written_whole
from s3gen_parts import (
    PART_CONVERTERS,
    PARTS,
    PREFIXES,
    StateDict,
    check_constants,
    check_fit,
    count_of,
    feature_extractor_for,
    load_part,
    outside,
    part_of,
    shape_of,
    speaker_encoder_config,
    tokenizer_config,
    vocoder_config,
)
from safetensors import SafetensorError
from safetensors.torch import load_file

from tts_models import S3GenConfig, S3GenModel, S3GenProcessor


FILE_NAMES = ("s3gen.safetensors", "s3gen.pt", "s3gen_meanflow.safetensors")
MEANFLOW_FILE_NAMES = ("s3gen_meanflow.safetensors",)


# Reading


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """A flat state dict from a safetensors file or a pickle of tensors.

    Raises:
        ConversionError: the file is missing or broken, or holds something else.
    """
    if not file.is_file():
        raise ConversionError(f"there is no file {file}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state_dict = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ConversionError(f"{file} is not a readable safetensors file: {error}") from error
    except Exception as error:  # whatever a broken or malicious pickle makes of it
        raise ConversionError(f"{file} cannot be read as plain weights: {error}") from error
    if not isinstance(state_dict, dict) or not all(isinstance(v, torch.Tensor) for v in state_dict.values()):
        raise ConversionError(f"{file} should hold a flat dictionary of tensors")
    return state_dict


def find_file(path: Path, meanflow: bool = False) -> Path:
    """The weights that `path` means: itself, or the file of a released folder.

    Raises:
        ConversionError: the folder has no such file.
    """
    if path.is_file():
        return path
    names = MEANFLOW_FILE_NAMES if meanflow else FILE_NAMES
    for name in names:
        if (path / name).is_file():
            return path / name
    raise ConversionError(f"{path} has none of {', '.join(names)}")


# Configurations, from names and shapes


def flow_arguments(state_dict: StateDict) -> dict[str, Any]:
    """Sizes of the flow, as arguments of [`S3GenConfig`]; the estimator's heads have 64 channels."""
    vocab_size, token_embed_dim = shape_of(state_dict, "input_embedding.weight")
    mel_bins, speaker_embed_dim = shape_of(state_dict, "spk_embed_affine_layer.weight")
    estimator = "decoder.estimator."
    width, in_channels, _ = shape_of(state_dict, f"{estimator}down_blocks.0.0.block1.block.0.weight")
    inner = shape_of(state_dict, f"{estimator}mid_blocks.0.1.0.attn1.to_q.weight")[0]
    return {
        "vocab_size": vocab_size,
        "token_embed_dim": token_embed_dim,
        "speaker_embed_dim": speaker_embed_dim,
        "mel_bins": mel_bins,
        "encoder_output_size": shape_of(state_dict, "encoder.after_norm.bias")[0],
        "encoder_attention_heads": shape_of(state_dict, "encoder.encoders.0.self_attn.pos_bias_u")[0],
        "encoder_linear_units": shape_of(state_dict, "encoder.encoders.0.feed_forward.w_1.bias")[0],
        "encoder_num_blocks": count_of(state_dict, r"encoder\.encoders\.(\d+)\."),
        "encoder_num_up_blocks": count_of(state_dict, r"encoder\.up_encoders\.(\d+)\."),
        "decoder_in_channels": in_channels,
        "decoder_out_channels": shape_of(state_dict, f"{estimator}final_proj.bias")[0],
        "decoder_channels": [width],
        "decoder_n_blocks": count_of(state_dict, rf"{re.escape(estimator)}mid_blocks\.0\.1\.(\d+)\."),
        "decoder_num_mid_blocks": count_of(state_dict, rf"{re.escape(estimator)}mid_blocks\.(\d+)\."),
        "decoder_num_heads": max(inner // 64, 1),
        "decoder_attention_head_dim": min(inner, 64),
        "meanflow": f"{estimator}time_embed_mixer.weight" in state_dict,
    }


def s3gen_config(state_dict: StateDict) -> S3GenConfig:
    """The configuration that a whole checkpoint's tensors belong to."""
    parts = {part: part_of(state_dict, prefix) for part, prefix in PREFIXES.items()}
    speaker_encoder = speaker_encoder_config(parts["speaker_encoder"])
    return S3GenConfig(
        **flow_arguments(parts["flow"]),
        speaker_feat_dim=speaker_encoder.num_mel_bins,
        tokenizer_config=tokenizer_config(parts["tokenizer"]),
        speaker_encoder_config=speaker_encoder,
        vocoder_config=vocoder_config(parts["vocoder"]),
    )


# Weights


CONVERTERS: dict[str, Callable[[StateDict], dict[str, torch.Tensor]]] = {
    **PART_CONVERTERS,
    "flow": dict,  # the flow keeps upstream's names
}


def convert_state_dict(upstream: StateDict, config: S3GenConfig) -> dict[str, torch.Tensor]:
    """Renames and fuses upstream's parameters, and checks that they are those of `S3GenModel(config)`.

    Args:
        upstream: Flat state dict in upstream's names, tensors possibly on `meta`.
        config: The configuration they belong to.

    Raises:
        ConversionError: a missing, left-over or misshapen tensor.
    """
    unknown = outside(upstream, PREFIXES.values())
    if unknown:
        raise ConversionError(f"{len(unknown)} tensors lie in none of S3Gen's parts ({', '.join(unknown[:3])})")
    converted = {
        prefix + name: tensor
        for part, prefix in PREFIXES.items()
        for name, tensor in CONVERTERS[part](part_of(upstream, prefix)).items()
    }
    check_fit(converted, S3GenModel, config)
    return converted


def load_s3gen(upstream: StateDict) -> S3GenModel:
    """A whole upstream state dict as an [`S3GenModel`] in evaluation mode.

    Raises:
        ConversionError: it is not a complete S3Gen.
    """
    config = s3gen_config(upstream)
    check_constants(part_of(upstream, PREFIXES["tokenizer"]), config.tokenizer_config)
    converted = convert_state_dict(upstream, config)
    model = S3GenModel(config)
    model.load_state_dict(converted, strict=True)
    return model.eval()


def with_parts(upstream: StateDict, flow: Path | None, vocoder: Path | None) -> StateDict:
    """`upstream` with its flow and its vocoder replaced by CosyVoice 2's files, where they are given."""
    replaced = dict(upstream)
    for prefix, file in ((PREFIXES["flow"], flow), (PREFIXES["vocoder"], vocoder)):
        if file is None:
            continue
        weights = read_weights(file)
        replaced = {name: tensor for name, tensor in replaced.items() if not name.startswith(prefix)}
        replaced |= {prefix + name.removeprefix("generator."): tensor for name, tensor in weights.items()}
    return replaced


def convert(options: argparse.Namespace) -> None:
    """Writes the output folder, whole or not at all."""
    upstream = read_weights(find_file(options.input, options.meanflow))
    if options.part != "all":
        model = load_part(upstream, options.part)
        preparation = feature_extractor_for(model.config)
    else:
        model = load_s3gen(with_parts(upstream, options.flow, options.vocoder))
        preparation = S3GenProcessor.from_config(model.config)
    with written_whole(options.output, options.overwrite) as staging:
        model.save_pretrained(staging)
        preparation.save_pretrained(staging)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="released folder, or one of its S3Gen files")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--part", choices=["all", *PARTS], default="all", help="convert one part alone (default: all)")
    parser.add_argument("--meanflow", action="store_true", help="take s3gen_meanflow.safetensors of the folder")
    parser.add_argument("--flow", type=Path, help="CosyVoice 2's flow.pt, in place of the input's flow")
    parser.add_argument("--vocoder", type=Path, help="CosyVoice 2's hift.pt, in place of the input's vocoder")
    parser.add_argument("--overwrite", action="store_true", help="replace an output folder that is not empty")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_arguments(arguments)
    return exit_status(options.output, lambda: convert(options))


if __name__ == "__main__":
    sys.exit(main())
