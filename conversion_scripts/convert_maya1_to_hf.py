"""Joins a released Maya1 language model and a SNAC codec into one `from_pretrained` folder.

    python conversion_scripts/convert_maya1_to_hf.py --input maya1 --codec snac_24khz --output maya1-hf

`--input` is a Llama folder as published (`maya-research/maya1`): `config.json`, tokenizer files, and safetensors, in
one file or in shards. `--codec` is a SNAC folder, as published or already converted. Tensors are copied one at a time,
so the memory needed is that of one output shard. Token ids are read from the tokenizer by their strings, and checked:
the audio tokens must be contiguous and inside the vocabulary. Every tensor must find its place with the right shape;
anything else is an error and leaves no output behind.

An Orpheus checkpoint is the same network: `--prompt-template "{voice}: {text}"` converts it.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from convert_snac_to_hf import feature_extractor_for, load_upstream
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tts_models import (
    Maya1Config,
    Maya1ForConditionalGeneration,
    Maya1Processor,
    SnacModel,
)


EMBEDDING_NAME, HEAD_NAME = "model.embed_tokens.weight", "lm_head.weight"


def read_text_config(folder: Path) -> LlamaConfig:
    """The language model's configuration; raises [`ConversionError`] when it is not a Llama's."""
    content = read_json(folder / "config.json")
    if content.get("model_type") != "llama":
        raise ConversionError(f"{folder} holds a {content.get('model_type')!r} model, a 'llama' one is needed")
    return LlamaConfig.from_dict(content)


def read_codec(folder: Path) -> SnacModel:
    """The codec, from a converted folder or from one as published."""
    if read_json(folder / "config.json").get("model_type") == "snac":
        return SnacModel.from_pretrained(folder, dtype=torch.float32)
    return load_upstream(folder)


def plan_language_model(shapes: Mapping[str, tuple[int, ...]], config: LlamaConfig) -> dict[str, str | None]:
    """Where each released tensor goes.

    Args:
        shapes (`Mapping[str, tuple[int, ...]]`): Name and shape of what the checkpoint holds.
        config (`LlamaConfig`): The configuration it belongs to.

    Returns:
        `dict[str, str | None]`: Released name → name in the joined model, `None` for a head that is the embedding.

    Raises:
        ConversionError: A missing, left-over or misshapen tensor.
    """
    tied = config.tie_word_embeddings
    with torch.device("meta"):
        expected = state_shapes(LlamaForCausalLM(config))
    account_for(shapes, expected, optional=[HEAD_NAME] if tied else [])
    return {name: None if tied and name == HEAD_NAME else f"language_model.{name}" for name in shapes}


def check_tied_head(checkpoint: SafetensorsCheckpoint, plan: Mapping[str, str | None]) -> None:
    """A head that is left out must be the embedding; raises [`ConversionError`] otherwise."""
    if HEAD_NAME in plan and plan[HEAD_NAME] is None and not checkpoint.equal(HEAD_NAME, EMBEDDING_NAME):
        raise ConversionError(
            f"{HEAD_NAME} differs from {EMBEDDING_NAME}, but config.json says `tie_word_embeddings: true`"
        )


def check_vocabulary(processor: Maya1Processor, vocab_size: int) -> None:
    """Every audio token has the id that its number says, and every token a row in the embedding.

    Raises:
        ConversionError: Names the first token that is missing or elsewhere, or tokens are left over.
    """
    vocabulary, layout = processor.tokenizer.get_vocab(), processor.audio_token_layout
    first = processor.control_tokens["audio_token"]
    match = re.fullmatch(r"(.*?)(\d+)(\D*)", first)
    if match is None:
        raise ConversionError(f"the first audio token {first!r} holds no number to count on from")
    for index in range(layout.num_ids):
        token = f"{match[1]}{int(match[2]) + index}{match[3]}"
        if vocabulary.get(token) != layout.offset + index:
            raise ConversionError(
                f"the audio tokens are not contiguous: {token!r} has id {vocabulary.get(token)}, "
                f"expected {layout.offset + index}"
            )
    number = int(match[2]) + layout.num_ids
    if all(f"{match[1]}{number + spare}{match[3]}" in vocabulary for spare in range(layout.slots_per_frame)):
        raise ConversionError(
            f"the codec has codes for {layout.num_ids} audio tokens, the tokenizer holds more of them: "
            f"it is not the codec that the language model was trained with"
        )
    if max(vocabulary.values()) >= vocab_size:
        raise ConversionError(f"the tokenizer has ids up to {max(vocabulary.values())}, the model only {vocab_size}")


def build_processor(tokenizer_folder: Path, codec: SnacModel, **options: Any) -> Maya1Processor:
    """The processor for a tokenizer and a codec; `options` are those of [`Maya1Processor`] that are not `None`."""
    try:
        return Maya1Processor(
            AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True),
            feature_extractor_for(codec.config),
            codebook_size=codec.config.codebook_size,
            vq_strides=codec.config.vq_strides,
            **{name: value for name, value in options.items() if value is not None},
        )
    except (ValueError, OSError) as error:
        raise ConversionError(f"{tokenizer_folder} has no usable tokenizer: {error}") from error


def build_empty_model(text_config: LlamaConfig, codec: SnacModel, processor: Maya1Processor) -> Any:
    """The joined model without memory for its weights."""
    try:
        config = Maya1Config(
            text_config=text_config, codec_config=codec.config, dtype=text_config.dtype, **processor.config_token_ids
        )
    except ValueError as error:
        raise ConversionError(f"the language model and the codec do not fit together: {error}") from error
    with torch.device("meta"):
        return Maya1ForConditionalGeneration(config)


def copy_weights(
    checkpoint: SafetensorsCheckpoint,
    plan: Mapping[str, str | None],
    codec: SnacModel,
    folder: Path,
    max_shard_size: int,
) -> None:
    """Writes the joined weights, reading the language model's tensors one at a time."""
    writer = ShardedWriter(folder, max_shard_size)
    for name, tensor in codec.state_dict().items():
        writer.add(f"codec_model.{name}", tensor)
    for name, tensor in checkpoint.items():
        target = plan[name]
        if target is not None:
            writer.add(target, tensor)
    writer.close()


def convert(
    input_folder: Path,
    codec_folder: Path,
    output_folder: Path,
    overwrite: bool = False,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
    **processor_options: Any,
) -> None:
    """Writes `output_folder` with configurations, safetensors weights, processor files; whole or not at all.

    Args:
        input_folder (`Path`): The Llama folder.
        codec_folder (`Path`): The SNAC folder, published or converted.
        output_folder (`Path`): The folder to write.
        overwrite (`bool`): Replace an output folder that is not empty.
        max_shard_size (`int`): Bytes per weight file.
        processor_options: `prompt_template`, `prepend_bos`, `default_voice` of [`Maya1Processor`].

    Raises:
        ConversionError: An input is incomplete, or the two do not fit together.
    """
    text_config, codec = read_text_config(input_folder), read_codec(codec_folder)
    checkpoint = SafetensorsCheckpoint(input_folder)
    plan = plan_language_model(checkpoint.shapes(), text_config)
    check_tied_head(checkpoint, plan)
    processor = build_processor(input_folder, codec, **processor_options)
    check_vocabulary(processor, text_config.vocab_size)
    model = build_empty_model(text_config, codec, processor)
    with written_whole(output_folder, overwrite) as staging:
        copy_weights(checkpoint, plan, codec, staging, max_shard_size)
        tied = ["language_model." + HEAD_NAME] if text_config.tie_word_embeddings else []
        account_for(SafetensorsCheckpoint(staging).shapes(), state_shapes(model), optional=tied)
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(staging)
        model.generation_config.save_pretrained(staging)
        processor.save_pretrained(staging)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="Llama folder with tokenizer and safetensors")
    parser.add_argument("--codec", type=Path, required=True, help="SNAC folder, as published or converted")
    add_output_options(parser)
    parser.add_argument("--prompt-template", help="text inside the prompt, with {voice} and {text}")
    parser.add_argument("--default-voice", help="description used when none is given")
    parser.add_argument(
        "--single-bos", dest="prepend_bos", action="store_false", default=None, help="one BOS, not two"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = vars(parse_arguments(arguments))
    folders = [options.pop(name) for name in ("input", "codec", "output")]
    return exit_status(folders[-1], lambda: convert(*folders, **options))


if __name__ == "__main__":
    sys.exit(main())
