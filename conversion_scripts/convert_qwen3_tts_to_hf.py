"""Joins a released Qwen3-TTS model and its codec into one `from_pretrained` folder.

    python conversion_scripts/convert_qwen3_tts_to_hf.py --input Qwen3-TTS-12Hz-1.7B-Base --output qwen3-tts-base

`--input` is a folder as released: `config.json`, the tokenizer's files, `model.safetensors` and the sub-folder
`speech_tokenizer` with the codec (`--codec` names another place). The tensors keep their names, so such a folder also
loads as it is; the converted one is a single set of weights with a processor's configuration beside it. Every tensor
must find its place with the right shape; anything else is an error and leaves no output behind. Tensors are copied one
at a time, so the memory needed is that of the codec and of one output shard.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from checkpoint_tools import (
    DEFAULT_SHARD_SIZE,
    ConversionError,
    SafetensorsCheckpoint,
    ShardedWriter,
    account_for,
    add_output_options,
    exit_status,
    read_json,
    state_shapes,
    written_whole,
)
from transformers import AutoTokenizer, GenerationConfig

from tts_models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration, Qwen3TTSProcessor, Qwen3TTSTokenizerModel


CODEC_FOLDER, CODEC_PREFIX = "speech_tokenizer", "speech_tokenizer."
GENERATION_NAME = "generation_config.json"


def read_config(folder: Path) -> Qwen3TTSConfig:
    """The model's configuration; raises [`ConversionError`] when it is another model's."""
    content = read_json(folder / "config.json")
    if content.get("model_type") != "qwen3_tts":
        raise ConversionError(f"{folder} holds a {content.get('model_type')!r} model, a 'qwen3_tts' one is needed")
    try:
        return Qwen3TTSConfig.from_dict(content)
    except ValueError as error:
        raise ConversionError(f"{folder / 'config.json'}: {error}") from error


def read_codec(folder: Path) -> Qwen3TTSTokenizerModel:
    """The codec, in float32; raises [`ConversionError`] when the folder does not hold it whole."""
    if not folder.is_dir():
        raise ConversionError(f"there is no codec in {folder}: name its folder with --codec")
    try:
        return Qwen3TTSTokenizerModel.from_pretrained(folder, dtype=torch.float32)
    except (ValueError, OSError) as error:
        raise ConversionError(f"{folder} holds no usable codec: {error}") from error


def build_empty_model(config: Qwen3TTSConfig) -> Qwen3TTSForConditionalGeneration:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return Qwen3TTSForConditionalGeneration(config)


def plan_model(shapes: Mapping[str, tuple[int, ...]], config: Qwen3TTSConfig) -> dict[str, str]:
    """Where each released tensor goes: to its own name, once every one is accounted for.

    Args:
        shapes (`Mapping[str, tuple[int, ...]]`): Name and shape of what the checkpoint holds.
        config (`Qwen3TTSConfig`): The configuration it belongs to.

    Raises:
        ConversionError: A missing, left-over or misshapen tensor.
    """
    expected = {
        name: shape
        for name, shape in state_shapes(build_empty_model(config)).items()
        if not name.startswith(CODEC_PREFIX)
    }
    account_for(shapes, expected)
    return {name: name for name in shapes}


def read_generation_config(folder: Path) -> dict:
    """The sampling settings of the checkpoint; none where it has no such file."""
    return read_json(folder / GENERATION_NAME) if (folder / GENERATION_NAME).is_file() else {}


def build_processor(folder: Path, config: Qwen3TTSConfig) -> Qwen3TTSProcessor:
    """The processor for a tokenizer's files and a configuration."""
    try:
        return Qwen3TTSProcessor.from_config(config, AutoTokenizer.from_pretrained(folder, local_files_only=True))
    except (ValueError, OSError) as error:
        raise ConversionError(f"{folder} has no usable tokenizer: {error}") from error


def copy_weights(
    checkpoint: SafetensorsCheckpoint,
    plan: Mapping[str, str],
    codec: Qwen3TTSTokenizerModel,
    folder: Path,
    max_shard_size: int,
) -> None:
    """Writes the joined weights, reading the model's tensors one at a time."""
    writer = ShardedWriter(folder, max_shard_size)
    for name, tensor in codec.state_dict().items():
        writer.add(CODEC_PREFIX + name, tensor)
    for name, tensor in checkpoint.items():
        writer.add(plan[name], tensor)
    writer.close()


def convert(
    input_folder: Path,
    output_folder: Path,
    codec_folder: Path | None = None,
    overwrite: bool = False,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
) -> None:
    """Writes `output_folder` with configurations, safetensors weights, processor files; whole or not at all.

    Args:
        input_folder (`Path`): The model as released.
        output_folder (`Path`): The folder to write.
        codec_folder (`Path`, *optional*): The codec's folder; `speech_tokenizer` inside `input_folder` by default.
        overwrite (`bool`): Replace an output folder that is not empty.
        max_shard_size (`int`): Bytes per weight file.

    Raises:
        ConversionError: An input is incomplete, or the two do not fit together.
    """
    config, checkpoint = read_config(input_folder), SafetensorsCheckpoint(input_folder)
    plan = plan_model(checkpoint.shapes(), config)
    settings, processor = read_generation_config(input_folder), build_processor(input_folder, config)
    codec = read_codec(codec_folder or input_folder / CODEC_FOLDER)
    try:
        config = Qwen3TTSConfig.from_dict(config.to_dict() | {"speech_tokenizer_config": codec.config.to_dict()})
    except ValueError as error:
        raise ConversionError(f"the model and the codec do not fit together: {error}") from error
    model = build_empty_model(config)
    with written_whole(output_folder, overwrite) as staging:
        copy_weights(checkpoint, plan, codec, staging, max_shard_size)
        account_for(SafetensorsCheckpoint(staging).shapes(), state_shapes(model))
        config.architectures = [type(model).__name__]
        config.save_pretrained(staging)
        GenerationConfig(**(model.generation_config.to_dict() | settings)).save_pretrained(staging)
        processor.save_pretrained(staging)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="folder of the model as released")
    add_output_options(parser)
    parser.add_argument("--codec", type=Path, help="folder of the codec (default: speech_tokenizer inside --input)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_arguments(arguments)
    return exit_status(
        options.output,
        lambda: convert(options.input, options.output, options.codec, options.overwrite, options.max_shard_size),
    )


if __name__ == "__main__":
    sys.exit(main())
