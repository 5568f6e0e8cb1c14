"""Converts a released Chatterbox folder, of any variant, into a `from_pretrained` folder.

    python conversion_scripts/convert_chatterbox_to_hf.py --input chatterbox --output chatterbox-hf
    python conversion_scripts/convert_chatterbox_to_hf.py --input chatterbox --variant multilingual --output multi-hf
    python conversion_scripts/convert_chatterbox_to_hf.py --input chatterbox-turbo --output turbo-hf

`--input` is a folder as published: `ResembleAI/chatterbox` holds the English and the multilingual model,
`chatterbox-turbo` and `chatterbox-nano` one each. T3, the voice encoder and S3Gen become one set of weights; the
tokenizer, the built-in voice (`conds.pt`) and the table of Chinese characters come along. `--t3` names another T3 file
(a fine-tuned one for a single language, say). No configuration is published: sizes are read off the tensors. Every
tensor must find its place with the right shape, or be on the list of unused ones; anything else is an error and leaves
no output behind. Pickles are read with `weights_only=True`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from checkpoint_tools import (
    DEFAULT_SHARD_SIZE,
    ConversionError,
    ShardedWriter,
    account_for,
    add_output_options,
    exit_status,
    state_shapes,
    written_whole,
)
from convert_s3gen_to_hf import convert_state_dict, read_weights, s3gen_config
from s3gen_parts import PREFIXES, StateDict, check_constants, count_of, part_of, renamed, shape_of
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tts_models import ChatterboxConfig, ChatterboxForConditionalGeneration, ChatterboxProcessor, ChatterboxVoice
from tts_models.models.chatterbox import ChatterboxT3Config, ChatterboxVoiceEncoderConfig


HEAD_DIM = 64
SILENCE_TOKEN = 4299
LONG_PROMPT = {"prompt_length": 375, "prompt_seconds": 15.0}
PLAIN_SPEECH, MEANFLOW_SPEECH = ("s3gen.safetensors", "s3gen.pt"), ("s3gen_meanflow.safetensors",)
CANGJIE_FILE, VOICE_FILE = "Cangjie5_TC.json", "conds.pt"
# Released variant -> its T3 files (the newest first), S3Gen files, and tokenizer file (`None`: a GPT-2 tokenizer's).
FILES: dict[str, tuple[tuple[str, ...], tuple[str, ...], str | None]] = {
    "english": (("t3_cfg.safetensors",), PLAIN_SPEECH, "tokenizer.json"),
    "multilingual": (
        ("t3_mtl23ls_v3.safetensors", "t3_mtl23ls_v2.safetensors"),
        PLAIN_SPEECH,
        "grapheme_mtl_merged_expanded_v1.json",
    ),
    "turbo": (("t3_turbo_v1.safetensors",), MEANFLOW_SPEECH, None),
    "nano": (("t3_nano_v1.safetensors",), MEANFLOW_SPEECH, None),
}
VOICE_ENCODER_FILES = ("ve.safetensors", "ve.pt")
# Tables of the backbones that upstream never reads (it deletes the second itself).
UNUSED_T3 = frozenset({"tfmr.embed_tokens.weight", "tfmr.wte.weight"})
# Scales of the loss that the voice encoder was trained with.
UNUSED_VOICE_ENCODER = frozenset({"similarity_weight", "similarity_bias"})

# Upstream's names on the left, ours on the right.
T3_RULES = (
    (r"tfmr\.(.+)", r"backbone.\1"),
    (r"(text|speech)_emb\.weight", r"\1_embedding.weight"),
    (r"(text|speech)_pos_emb\.emb\.weight", r"\1_position_embedding.weight"),
    (r"((?:text|speech)_head\.(?:weight|bias))", r"\1"),
    (r"cond_enc\.spkr_enc\.(weight|bias)", r"conditioning.speaker_projection.\1"),
    (r"cond_enc\.emotion_adv_fc\.weight", r"conditioning.emotion_projection.weight"),
    (r"cond_enc\.perceiver\.pre_attention_query", r"conditioning.perceiver.query"),
    (r"cond_enc\.perceiver\.attn\.norm\.(weight|bias)", r"conditioning.perceiver.attention.norm.\1"),
    (r"cond_enc\.perceiver\.attn\.to_([qkv])\.(weight|bias)", r"conditioning.perceiver.attention.\1_proj.\2"),
    (r"cond_enc\.perceiver\.attn\.proj_out\.(weight|bias)", r"conditioning.perceiver.attention.out_proj.\1"),
)
VOICE_ENCODER_RULES = ((r"(lstm\.\w+)", r"\1"), (r"proj\.(weight|bias)", r"projection.\1"))


# Names


def convert_t3(upstream: StateDict) -> dict[str, Any]:
    """T3's weights in our names, the unused ones left out."""
    return renamed({name: tensor for name, tensor in upstream.items() if name not in UNUSED_T3}, T3_RULES)


def convert_voice_encoder(upstream: StateDict) -> dict[str, Any]:
    """The voice encoder's weights in our names, the unused ones left out."""
    kept = {name: tensor for name, tensor in upstream.items() if name not in UNUSED_VOICE_ENCODER}
    return renamed(kept, VOICE_ENCODER_RULES)


# Configurations, from names and shapes


def backbone_arguments(upstream: StateDict) -> dict[str, Any]:
    """Sizes of the backbone, as arguments of its configuration; the heads have 64 channels."""
    text_rows, width = shape_of(upstream, "text_emb.weight")
    common = {"vocab_size": 1, "bos_token_id": None, "eos_token_id": None}
    if "tfmr.wpe.weight" in upstream:
        return common | {
            "model_type": "gpt2",
            "n_embd": width,
            "n_head": max(width // HEAD_DIM, 1),
            "n_layer": count_of(upstream, r"tfmr\.h\.(\d+)\."),
            "n_positions": shape_of(upstream, "tfmr.wpe.weight")[0],
        }
    released = ChatterboxT3Config().backbone_config.to_dict()
    keys = shape_of(upstream, "tfmr.layers.0.self_attn.k_proj.weight")[0]
    return (
        released
        | common
        | {
            "model_type": "llama",
            "hidden_size": width,
            "intermediate_size": shape_of(upstream, "tfmr.layers.0.mlp.gate_proj.weight")[0],
            "num_hidden_layers": count_of(upstream, r"tfmr\.layers\.(\d+)\."),
            "num_attention_heads": max(width // HEAD_DIM, 1),
            "num_key_value_heads": max(keys // HEAD_DIM, 1),
            "head_dim": min(width, HEAD_DIM),
        }
    )


def t3_config(upstream: StateDict, text_ends: tuple[int | None, int | None], num_codes: int) -> ChatterboxT3Config:
    """T3's configuration.

    Args:
        upstream: Its weights, possibly on `meta`.
        text_ends: Ids before and after a text.
        num_codes: Speech tokens that are sound; start and stop are the next two.
    """
    is_gpt2, has_positions = "tfmr.wpe.weight" in upstream, "text_pos_emb.emb.weight" in upstream
    has_perceiver = "cond_enc.perceiver.pre_attention_query" in upstream
    arguments: dict[str, Any] = {
        "backbone_config": backbone_arguments(upstream),
        "text_vocab_size": shape_of(upstream, "text_emb.weight")[0],
        "speech_vocab_size": shape_of(upstream, "speech_emb.weight")[0],
        "start_text_token_id": text_ends[0],
        "stop_text_token_id": text_ends[1],
        "num_speech_codes": num_codes,
        "start_speech_token_id": num_codes,
        "stop_speech_token_id": num_codes + 1,
        "num_start_tokens": 1 if is_gpt2 else 2,
        "max_text_positions": shape_of(upstream, "text_pos_emb.emb.weight")[0] if has_positions else None,
        "max_speech_positions": shape_of(upstream, "speech_pos_emb.emb.weight")[0] if has_positions else None,
        "speaker_embed_size": shape_of(upstream, "cond_enc.spkr_enc.weight")[1],
        "use_perceiver": has_perceiver,
        "use_emotion": "cond_enc.emotion_adv_fc.weight" in upstream,
        "speech_head_bias": "speech_head.bias" in upstream,
    }
    if has_perceiver:
        arguments["perceiver_queries"] = shape_of(upstream, "cond_enc.perceiver.pre_attention_query")[1]
    return ChatterboxT3Config(**arguments | (LONG_PROMPT if is_gpt2 else {}))


def voice_encoder_config(upstream: StateDict) -> ChatterboxVoiceEncoderConfig:
    """The voice encoder's configuration."""
    return ChatterboxVoiceEncoderConfig(
        num_mel_bins=shape_of(upstream, "lstm.weight_ih_l0")[1],
        hidden_size=shape_of(upstream, "lstm.weight_hh_l0")[1],
        num_hidden_layers=count_of(upstream, r"lstm\.weight_ih_l(\d+)"),
        speaker_embed_size=shape_of(upstream, "proj.weight")[0],
    )


def build_config(
    variant: str, t3: StateDict, voice_encoder: StateDict, s3gen: StateDict, text_ends: tuple[int | None, int | None]
) -> ChatterboxConfig:
    """The whole configuration of a released variant; see [`t3_config`]."""
    speech = s3gen_config(s3gen)
    is_turbo = FILES[variant][2] is None
    return ChatterboxConfig(
        t3_config=t3_config(t3, text_ends, speech.vocab_size),
        voice_encoder_config=voice_encoder_config(voice_encoder),
        s3gen_config=speech,
        variant="turbo" if is_turbo else variant,
        end_silence_token_id=min(SILENCE_TOKEN, speech.vocab_size - 1) if is_turbo else None,
        end_trim_tokens=int(variant == "multilingual"),
    )


def converted_weights(
    model: ChatterboxForConditionalGeneration, t3: StateDict, voice_encoder: StateDict, s3gen: StateDict
) -> StateDict:
    """All weights of `model` (which may be on `meta`) in our names, accounted for.

    Raises:
        ConversionError: a missing, left-over or misshapen tensor.
    """
    converted = {f"t3.{name}": tensor for name, tensor in convert_t3(t3).items()}
    converted |= {f"voice_encoder.{name}": tensor for name, tensor in convert_voice_encoder(voice_encoder).items()}
    speech = convert_state_dict(s3gen, model.config.s3gen_config)
    converted |= {f"s3gen.{name}": tensor for name, tensor in speech.items()}
    account_for({name: tensor.shape for name, tensor in converted.items()}, state_shapes(model))
    return converted


# Files


def first_present(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of some files that the folder has; raises [`ConversionError`] where it has none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ConversionError(f"{folder} has none of {', '.join(names)}")


def find_variant(folder: Path) -> str:
    """The variant whose T3 the folder holds; the English one of a folder with several."""
    for variant, (names, _, _) in FILES.items():
        if any((folder / name).is_file() for name in names):
            return variant
    raise ConversionError(
        f"{folder} holds no T3 that is known: name its variant with --variant and its file with --t3"
    )


def read_tokenizer(folder: Path, variant: str) -> tuple[PreTrainedTokenizerBase, tuple[int | None, int | None]]:
    """The tokenizer, and the ids before and after a text."""
    name = FILES[variant][2]
    if name is None:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (ValueError, OSError) as error:
            raise ConversionError(f"{folder} has no usable tokenizer: {error}") from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer, (None, None)
    file = first_present(folder, (name,))
    try:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file))
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise ConversionError(f"{file} is no tokenizer: {error}") from error
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in ("[START]", "[STOP]", "[SPACE]") if token not in vocabulary]
    if missing:
        raise ConversionError(f"{file} lacks the tokens {missing}")
    return tokenizer, (vocabulary["[START]"], vocabulary["[STOP]"])


def read_voice(file: Path) -> ChatterboxVoice:
    """The built-in voice; raises [`ConversionError`] when the file holds something else."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        t3, speech = content["t3"], content["gen"]
        reference = {name: torch.as_tensor(value) for name, value in speech.items() if value is not None}
        return ChatterboxVoice.from_parts(
            t3["speaker_emb"].flatten().float(), t3["cond_prompt_speech_tokens"][0], reference
        )
    except Exception as error:  # whatever a broken or malicious pickle makes of it
        raise ConversionError(f"{file} holds no voice: {error}") from error


def read_cangjie(folder: Path) -> list[str] | None:
    """The table of Chinese characters, where there is one."""
    file = folder / CANGJIE_FILE
    if not file.is_file():
        return None
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ConversionError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(table, list) or not all(isinstance(entry, str) and "\t" in entry for entry in table):
        raise ConversionError(f"{file} should hold a list of character and code, with a tab between them")
    return table


def build_processor(
    folder: Path, variant: str, config: ChatterboxConfig, tokenizer: PreTrainedTokenizerBase
) -> ChatterboxProcessor:
    """The processor, with the voice and the table that the folder holds."""
    if len(tokenizer) > config.t3_config.text_vocab_size:
        raise ConversionError(
            f"the tokenizer has {len(tokenizer)} tokens, T3 knows {config.t3_config.text_vocab_size}: they do not "
            "belong together"
        )
    processor = ChatterboxProcessor.from_config(config, tokenizer)
    if (folder / VOICE_FILE).is_file():
        processor.default_voice = read_voice(folder / VOICE_FILE)
    if variant == "multilingual":
        processor.cangjie_table = read_cangjie(folder)
    return processor


def generation_defaults(model: ChatterboxForConditionalGeneration, t3_file: Path) -> GenerationConfig:
    """The variant's defaults; upstream's class for the second multilingual model penalises repetition more."""
    settings = model.generation_config
    if "v2" in t3_file.stem and model.config.variant == "multilingual":
        settings.repetition_penalty = 2.0
    return settings


def write_weights(weights: Mapping[str, torch.Tensor], folder: Path, max_shard_size: int) -> None:
    """The weights as safetensors, sharded where they are large."""
    writer = ShardedWriter(folder, max_shard_size)
    for name, tensor in weights.items():
        writer.add(name, tensor)
    writer.close()


def convert(
    input_folder: Path,
    output_folder: Path,
    variant: str | None = None,
    t3_file: Path | None = None,
    overwrite: bool = False,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
) -> None:
    """Writes `output_folder` with configurations, safetensors weights, processor files; whole or not at all.

    Args:
        input_folder (`Path`): The model as released.
        output_folder (`Path`): The folder to write.
        variant (`str`, *optional*): One of `FILES`; found by the files that are there.
        t3_file (`Path`, *optional*): Another T3 file.
        overwrite (`bool`): Replace an output folder that is not empty.
        max_shard_size (`int`): Bytes per weight file.

    Raises:
        ConversionError: An input is incomplete, or its parts do not fit together.
    """
    variant = variant or find_variant(input_folder)
    t3_names, s3gen_names, _ = FILES[variant]
    t3_file = t3_file or first_present(input_folder, t3_names)
    tokenizer, text_ends = read_tokenizer(input_folder, variant)
    parts = [t3_file, first_present(input_folder, VOICE_ENCODER_FILES), first_present(input_folder, s3gen_names)]
    t3, voice_encoder, s3gen = map(read_weights, parts)
    try:
        config = build_config(variant, t3, voice_encoder, s3gen, text_ends)
    except ValueError as error:
        raise ConversionError(f"the parts do not fit together: {error}") from error
    check_constants(part_of(s3gen, PREFIXES["tokenizer"]), config.s3gen_config.tokenizer_config)
    with torch.device("meta"):
        model = ChatterboxForConditionalGeneration(config)
    weights = converted_weights(model, t3, voice_encoder, s3gen)
    processor = build_processor(input_folder, variant, config, tokenizer)
    with written_whole(output_folder, overwrite) as staging:
        write_weights(weights, staging, max_shard_size)
        config.architectures = [type(model).__name__]
        config.dtype = torch.float32
        config.save_pretrained(staging)
        generation_defaults(model, t3_file).save_pretrained(staging)
        processor.save_pretrained(staging)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="folder of the model as released")
    add_output_options(parser)
    parser.add_argument("--variant", choices=list(FILES), help="default: the one whose T3 is there, English first")
    parser.add_argument("--t3", type=Path, help="another T3 file, such as a fine-tuned one")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_arguments(arguments)
    return exit_status(
        options.output,
        lambda: convert(
            options.input,
            options.output,
            options.variant,
            options.t3,
            options.overwrite,
            options.max_shard_size,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
