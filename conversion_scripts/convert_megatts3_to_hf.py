"""Converts a released MegaTTS3 folder into a `from_pretrained` folder.

    python conversion_scripts/convert_megatts3_to_hf.py --input MegaTTS3/checkpoints --output megatts3-hf

`--input` holds the folders as published: `aligner_lm`, `diffusion_transformer`, `duration_lm`, `g2p` and `wavvae`. The
five networks become one set of weights, with a processor beside it. WaveVAE comes from `wavvae/model_only_last.ckpt`
where that is there (decoder and encoder, as the community trained it: voices are cloned from a recording alone), else
from the official `wavvae/decoder.ckpt` (every recording needs its `.npy` of latents); `--wavvae` names another folder
or file. Sizes are read off the tensors; the `config.yaml` files are checked against them. Every tensor must find its
place with the right shape, or be on the list of unused ones; anything else is an error and leaves no output behind,
except what upstream itself ignores: entries of the diffusion transformer and of `decoder.ckpt` that its code has no
use for are named and left out. Pickles are read with `weights_only=True`.

`--g2p-output` also writes the grapheme-to-phoneme model as a plain Qwen2 folder, for servers that run such models.
"""

import argparse
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
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
from megatts3_parts import (
    PARTS,
    UNKNOWN,
    aligner_config,
    check_positions,
    duration_config,
    transformer_config,
    vae_config,
)
from s3gen_parts import StateDict
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from tts_models import MegaTTS3Config, MegaTTS3ForConditionalGeneration, MegaTTS3Processor


CHECKPOINT_NAME, DECODER_NAME, CONFIG_NAME = "model_only_last.ckpt", "decoder.ckpt", "config.yaml"
G2P_FOLDER, VAE_FOLDER = "g2p", "wavvae"
# Part -> its folder and the name of its network in the file.
FOLDERS = {
    "aligner": ("aligner_lm", "model"),
    "duration": ("duration_lm", "dur_model"),
    "transformer": ("diffusion_transformer", "dit"),
    "vae": (VAE_FOLDER, "model_gen"),
}
# What training adds to names.
WRAPPERS = ("module.", "_orig_mod.")
TEXT_BEGIN, TEXT_END, FIRST_PHONE, LAST_PHONE = "<BOT>", "<BOS>", "<Reserved_TTS_0>", "<Reserved_TTS_801>"
# The only values with which our networks compute what upstream's do; an entry may be absent. What the tensors tell
# by themselves (norms, biases, the text encoder and its parts) is not among them.
DURATION_SETTINGS = {
    "encoder_type": ("rel_fft",),
    "use_ph_pos_embed": (True,),
    "ling_labels": (["tone"], []),
    "use_spk_embed": (False,),
    "use_spk_id": (False,),
    "use_spk_enc": (False,),
    "dur_model_type": ("ar", "ar_mse"),
    "use_rot_embed": (True,),
}


# Reading


@dataclass
class Upstream:
    """What a released folder holds, weights in upstream's names.

    Args:
        parts: Part -> its weights.
        settings: Part -> its `config.yaml`, empty where there is none.
        is_decoder_only: Whether WaveVAE comes without its encoder.
    """

    parts: dict[str, StateDict]
    settings: dict[str, dict[str, Any]]
    is_decoder_only: bool


def read_network(file: Path, network: str) -> dict[str, torch.Tensor]:
    """The weights of one network, without what training adds to their names.

    Raises:
        ConversionError: the file is missing or broken, or does not hold the network.
    """
    content = _load(file)
    networks = content.get("state_dict") if isinstance(content, dict) else None
    found = _unwrapped(networks).get(network) if isinstance(networks, dict) else None
    if not isinstance(found, dict):
        raise ConversionError(f"{file} should hold the weights of {network!r} below 'state_dict'")
    weights = _unwrapped(found)
    others = sorted(name for name, tensor in weights.items() if not isinstance(tensor, torch.Tensor))
    if others:
        raise ConversionError(f"{file}: {others[0]} is no tensor")
    return weights


def _load(file: Path) -> Any:
    if not file.is_file():
        raise ConversionError(f"there is no file {file}")
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:
        # An older kind of file cannot be mapped into memory.
        pass
    except Exception as error:  # whatever a broken or malicious pickle makes of it
        raise _unreadable(file, error) from error
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> ConversionError:
    what = "holds more than plain weights" if isinstance(error, pickle.UnpicklingError) else "cannot be read"
    return ConversionError(f"{file} {what}: {error}")


def _unwrapped(content: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for name, value in content.items():
        for wrapper in WRAPPERS:
            name = name.replace(wrapper, "")
        result[name] = value
    if len(result) != len(content):
        raise ConversionError("some tensors have the same name apart from what training adds to it")
    return result


def read_settings(folder: Path) -> dict[str, Any]:
    """The folder's `config.yaml`, empty where there is none; raises [`ConversionError`] when it is broken."""
    file = folder / CONFIG_NAME
    if not file.is_file():
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConversionError(f"{file} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{file} should hold a mapping, got {type(content).__name__}")
    return content


def vae_file(path: Path) -> Path:
    """The file of WaveVAE that `path` means: itself, or the one of a folder, the complete one first."""
    if path.is_file():
        return path
    for name in (CHECKPOINT_NAME, DECODER_NAME):
        if (path / name).is_file():
            return path / name
    raise ConversionError(f"{path} has neither {CHECKPOINT_NAME} nor {DECODER_NAME}")


def read_upstream(folder: Path, wavvae: Path | None = None) -> Upstream:
    """Everything but the grapheme-to-phoneme model; raises [`ConversionError`] where something is missing."""
    weights = vae_file(wavvae or folder / VAE_FOLDER)
    files = {part: folder / name / CHECKPOINT_NAME for part, (name, _) in FOLDERS.items()} | {"vae": weights}
    return Upstream(
        parts={part: read_network(file, FOLDERS[part][1]) for part, file in files.items()},
        settings={part: read_settings(file.parent) for part, file in files.items()},
        is_decoder_only=weights.name != CHECKPOINT_NAME,
    )


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the grapheme-to-phoneme model, with its phones."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise ConversionError(f"{folder} has no usable tokenizer: {error}") from error
    vocabulary = tokenizer.get_vocab()
    missing = [token for token in (TEXT_BEGIN, TEXT_END, FIRST_PHONE, LAST_PHONE) if token not in vocabulary]
    if missing:
        raise ConversionError(f"the tokenizer of {folder} lacks the tokens {missing}")
    if vocabulary[LAST_PHONE] - vocabulary[FIRST_PHONE] != 801:
        raise ConversionError(f"the phones of the tokenizer of {folder} do not follow one another")
    return tokenizer


# Configurations


def check_settings(upstream: Upstream) -> None:
    """Refuses what our networks do not compute, and files that do not belong together.

    Raises:
        ConversionError: so; names the entry.
    """
    duration, vae = upstream.settings["duration"], upstream.settings["vae"]
    for name, allowed in DURATION_SETTINGS.items():
        if name in duration and duration[name] not in allowed:
            raise ConversionError(
                f"the duration model has {name}: {duration[name]!r}; only {allowed} can be converted"
            )
    has_positions = "embed_positions._float_tensor" in upstream.parts["duration"]
    if bool(duration.get("use_pos_embed", has_positions)) != has_positions:
        raise ConversionError(
            f"the duration model's {CONFIG_NAME} says use_pos_embed: {duration['use_pos_embed']}, its weights "
            f"{'have' if has_positions else 'lack'} embed_positions._float_tensor"
        )
    has_regression = "project_out_dim.0.weight" in upstream.parts["duration"]
    if (duration.get("dur_model_type", "ar_mse" if has_regression else "ar") == "ar_mse") != has_regression:
        raise ConversionError(
            f"the duration model's {CONFIG_NAME} says dur_model_type: {duration['dur_model_type']}, its weights are "
            "the other kind's"
        )
    samples = vae.get("vae_stride", 4) * vae.get("hop_size", 240)
    if samples != 960 or vae.get("audio_sample_rate", 24000) != 24000:
        raise ConversionError(f"WaveVAE has {samples} samples of {vae.get('audio_sample_rate')} Hz; 960 of 24000 fit")


def build_config(upstream: Upstream, g2p: Mapping[str, Any], first_phone: int) -> MegaTTS3Config:
    """The whole configuration.

    Args:
        upstream: All but the grapheme-to-phoneme model.
        g2p: The `config.json` of that.
        first_phone: Its token of phone 0.

    Raises:
        ConversionError: the parts do not fit together.
    """
    check_settings(upstream)
    parts, settings = upstream.parts, upstream.settings
    given = {"max_position_embeddings": settings["duration"].get("max_tokens", 60000)}
    try:
        config = MegaTTS3Config(
            aligner_config=aligner_config(parts["aligner"]),
            g2p_config=Qwen2Config.from_dict(dict(g2p)),
            duration_config=duration_config(parts["duration"], **given),
            transformer_config=transformer_config(parts["transformer"]),
            vae_config=vae_config(parts["vae"]),
            frames_multiple=settings["transformer"].get("frames_multiple", 8),
            g2p_first_phone_id=first_phone,
        )
    except ValueError as error:
        raise ConversionError(f"the parts do not fit together: {error}") from error
    use_tanh = settings["vae"].get("melgan_config", {}).get("use_tanh", config.vae_config.use_tanh)
    if bool(use_tanh) != config.vae_config.use_tanh:
        raise ConversionError(f"WaveVAE's {CONFIG_NAME} says use_tanh: {use_tanh}, its weights end otherwise")
    return config


# Weights


def convert_parts(upstream: Upstream) -> tuple[dict[str, torch.Tensor], list[str]]:
    """All weights but the grapheme-to-phoneme model's in our names, and the names of entries left out as unknown.

    Only where upstream itself ignores what it does not know may something be left out: in the diffusion transformer,
    and in WaveVAE without its encoder.
    """
    converted, left_out = {}, []
    for part, weights in upstream.parts.items():
        ours = PARTS[part][0](weights)
        if part == "transformer" or (part == "vae" and upstream.is_decoder_only):
            left_out += [f"{part}: {name.removeprefix(UNKNOWN)}" for name in ours if name.startswith(UNKNOWN)]
            ours = {name: tensor for name, tensor in ours.items() if not name.startswith(UNKNOWN)}
        converted |= {f"{part}.{name}": tensor for name, tensor in ours.items()}
    return converted, left_out


def check_complete(
    model: MegaTTS3ForConditionalGeneration, converted: StateDict, g2p_shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Checks that every weight of `model` (which may be on `meta`) is there, and nothing else.

    Raises:
        ConversionError: a missing, left-over or misshapen tensor.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in converted.items()}
    shapes |= {f"g2p.{name}": shape for name, shape in g2p_shapes.items()}
    tied = ("g2p.lm_head.weight",) if model.config.g2p_config.tie_word_embeddings else ()
    account_for(shapes, state_shapes(model), optional=tied)


def write_weights(
    folder: Path, converted: StateDict, g2p: SafetensorsCheckpoint, is_tied: bool, max_shard_size: int
) -> None:
    """The weights as safetensors, sharded where they are large; those of `g2p` in the precision they have."""
    writer = ShardedWriter(folder, max_shard_size)
    for name, tensor in converted.items():
        writer.add(name, tensor)
    for name, tensor in g2p.items():
        if not (is_tied and name == "lm_head.weight"):
            writer.add(f"g2p.{name}", tensor)
    writer.close()


def write_g2p(folder: Path, source: Path, tokenizer: PreTrainedTokenizerBase, overwrite: bool) -> None:
    """The grapheme-to-phoneme model alone, as `AutoModelForCausalLM` loads it."""
    with written_whole(folder, overwrite) as staging:
        Qwen2ForCausalLM.from_pretrained(source, dtype="auto").save_pretrained(staging)
        tokenizer.save_pretrained(staging)


def convert(
    input_folder: Path,
    output_folder: Path,
    wavvae: Path | None = None,
    g2p_output: Path | None = None,
    overwrite: bool = False,
    max_shard_size: int = DEFAULT_SHARD_SIZE,
) -> None:
    """Writes `output_folder` with configurations, safetensors weights, processor files; whole or not at all.

    Args:
        input_folder (`Path`): The model as released.
        output_folder (`Path`): The folder to write.
        wavvae (`Path`, *optional*): Another folder or file of WaveVAE.
        g2p_output (`Path`, *optional*): Where to write the grapheme-to-phoneme model alone.
        overwrite (`bool`): Replace an output folder that is not empty.
        max_shard_size (`int`): Bytes per weight file.

    Raises:
        ConversionError: An input is incomplete, or its parts do not fit together.
    """
    g2p_folder = input_folder / G2P_FOLDER
    g2p_config, g2p = read_json(g2p_folder / "config.json"), SafetensorsCheckpoint(g2p_folder)
    tokenizer = read_tokenizer(g2p_folder)
    upstream = read_upstream(input_folder, wavvae)
    check_positions(upstream.parts["aligner"])
    first_phone = tokenizer.convert_tokens_to_ids(FIRST_PHONE)
    config = build_config(upstream, g2p_config, first_phone)
    with torch.device("meta"):
        model = MegaTTS3ForConditionalGeneration(config)
    converted, left_out = convert_parts(upstream)
    check_complete(model, converted, g2p.shapes())
    for name in left_out:
        print(f"left out, as upstream does not read it: {name}", file=sys.stderr)
    with written_whole(output_folder, overwrite) as staging:
        write_weights(staging, converted, g2p, config.g2p_config.tie_word_embeddings, max_shard_size)
        config.architectures = [type(model).__name__]
        config.dtype = torch.float32
        config.save_pretrained(staging)
        model.generation_config.save_pretrained(staging)
        MegaTTS3Processor.from_config(config, tokenizer).save_pretrained(staging)
    if g2p_output is not None:
        write_g2p(g2p_output, g2p_folder, tokenizer, overwrite)
    if not config.vae_config.has_encoder:
        print("WaveVAE has no encoder: every recording of a voice needs its latents in an .npy file", file=sys.stderr)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="folder of the model as released")
    add_output_options(parser)
    parser.add_argument("--wavvae", type=Path, help="another folder or file of WaveVAE, such as one with the encoder")
    parser.add_argument("--g2p-output", type=Path, help="also write the grapheme-to-phoneme model alone, here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_arguments(arguments)
    return exit_status(
        options.output,
        lambda: convert(
            options.input,
            options.output,
            options.wavvae,
            options.g2p_output,
            options.overwrite,
            options.max_shard_size,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
