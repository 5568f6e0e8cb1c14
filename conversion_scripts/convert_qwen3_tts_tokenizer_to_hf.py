"""Converts the released Qwen3-TTS tokenizer into a folder that `Qwen3TTSTokenizerModel.from_pretrained` loads.

    python conversion_scripts/convert_qwen3_tts_tokenizer_to_hf.py --input Qwen3-TTS-Tokenizer-12Hz --output codec

`--input` is a folder as published: `Qwen/Qwen3-TTS-Tokenizer-12Hz`, or the `speech_tokenizer` folder inside any
`Qwen/Qwen3-TTS-12Hz-*` checkpoint (the same files). Upstream's names are kept, so `from_pretrained` also takes the
published folder as it is; the script checks it tensor by tensor and gives it our configuration and feature extractor.
A missing, extra or misshapen tensor, or a setting that nobody knows, is an error and leaves no output behind.
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from checkpoint_tools import (
    ConversionError,
    account_for,
    read_json,
    read_state_dict,
    run_conversion,
    state_shapes,
    written_whole,
)
from transformers import MimiConfig, PreTrainedConfig

from tts_models import Qwen3TTSTokenizerConfig, Qwen3TTSTokenizerFeatureExtractor, Qwen3TTSTokenizerModel


MODEL_TYPE = "qwen3_tts_tokenizer_12hz"
# Tensors that neither encoding nor decoding reads. They are kept, so that a converted folder holds all that upstream's
# does: names, or the ends of names.
UNUSED_TENSORS = (
    ".codebook.initialized",
    "encoder.quantizer.semantic_residual_vector_quantizer.output_proj.weight",
    "encoder.quantizer.acoustic_residual_vector_quantizer.output_proj.weight",
    "decoder.quantizer.rvq_first.input_proj.weight",
    "decoder.quantizer.rvq_rest.input_proj.weight",
)
# Settings in the released file that upstream's decoder does not read either.
UNREAD_DECODER_SETTINGS = {
    "num_semantic_quantizers",
    "semantic_codebook_size",
    "vector_quantization_hidden_dimension",
}
# Upstream's names for what `rope_parameters` holds; the library takes them, too.
ROTARY_SETTINGS = ("rope_theta", "rope_scaling")
# What upstream's decoder assumes where the file says nothing; our defaults are the released values.
ASSUMED_DECODER_SETTINGS = {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 16}


def _check_settings(part: str, settings: Mapping[str, Any], known: Iterable[str]) -> None:
    unknown = sorted(settings.keys() - set(known) - PreTrainedConfig().to_dict().keys() - {"torch_dtype"})
    if unknown:
        raise ConversionError(f"{part} holds {unknown}, which the Qwen3-TTS tokenizer does not know")


def convert_config(upstream: Mapping[str, Any]) -> Qwen3TTSTokenizerConfig:
    """Upstream's `config.json` as a [`Qwen3TTSTokenizerConfig`].

    Raises:
        ConversionError: Another model type, or a setting that the model does not know.
    """
    if upstream.get("model_type", MODEL_TYPE) != MODEL_TYPE:
        raise ConversionError(f"config.json is that of a {upstream['model_type']!r}, expected {MODEL_TYPE!r}")
    ours = Qwen3TTSTokenizerConfig().to_dict()
    _check_settings("config.json", upstream, ours)
    encoder, decoder = upstream.get("encoder_config") or {}, upstream.get("decoder_config") or {}
    mimi = {*MimiConfig().to_dict(), "_frame_rate", *ROTARY_SETTINGS}
    _check_settings("encoder_config", encoder, {*ours["encoder_config"], *mimi})
    _check_settings("decoder_config", decoder, {*ours["decoder_config"], *UNREAD_DECODER_SETTINGS, *ROTARY_SETTINGS})
    width = encoder.get("codebook_dim", ours["encoder_config"]["codebook_dim"])
    inner = encoder.get("vector_quantization_hidden_dimension", width)
    if inner != width:
        raise ConversionError(f"encoder_config: codebooks of another width ({inner}) than `codebook_dim`")
    # The keys of both files are the same; what upstream does not read is left out of ours.
    return Qwen3TTSTokenizerConfig(
        **_known(upstream, ours.keys() - {"encoder_config", "decoder_config"}),
        encoder_config=_known(encoder, {*ours["encoder_config"], "_frame_rate", *ROTARY_SETTINGS}),
        decoder_config=_known(complete_decoder(decoder), {*ours["decoder_config"], *ROTARY_SETTINGS}),
    )


def complete_decoder(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Upstream's decoder settings with what its class assumes for those that are absent; of nothing, nothing."""
    if not settings:
        return {}
    settings = {**ASSUMED_DECODER_SETTINGS, **settings}
    return {"head_dim": settings["hidden_size"] // settings["num_attention_heads"], **settings}


def _known(settings: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    technical = PreTrainedConfig().to_dict().keys() | {"model_type"}
    return {name: settings[name] for name in names if name in settings and name not in technical}


def convert_state_dict(
    upstream: Mapping[str, torch.Tensor], config: Qwen3TTSTokenizerConfig
) -> dict[str, torch.Tensor]:
    """The port's state dict: upstream's names are ours, so this accounts for every tensor.

    Args:
        upstream (`Mapping[str, torch.Tensor]`): Flat state dict in upstream's names, tensors possibly on `meta`.
        config (`Qwen3TTSTokenizerConfig`): The configuration they belong to.

    Raises:
        ConversionError: A missing, left-over or misshapen tensor.
    """
    with torch.device("meta"):
        expected = state_shapes(Qwen3TTSTokenizerModel(config))
    account_for({name: tuple(tensor.shape) for name, tensor in upstream.items()}, expected)
    return dict(upstream)


def unused_tensors(names: Iterable[str]) -> list[str]:
    """Those of `names` that are kept without being read."""
    return [name for name in names if name.endswith(UNUSED_TENSORS)]


def load_upstream(folder: Path) -> Qwen3TTSTokenizerModel:
    """Reads a released folder into a [`Qwen3TTSTokenizerModel`] in evaluation mode.

    Raises:
        ConversionError: The folder is not a complete Qwen3-TTS tokenizer.
    """
    config = convert_config(read_json(folder / "config.json"))
    converted = convert_state_dict(read_state_dict(folder), config)
    model = Qwen3TTSTokenizerModel(config)
    model.load_state_dict(converted, strict=True)
    return model.eval()


def convert(input_folder: Path, output_folder: Path, overwrite: bool = False) -> None:
    """Writes `output_folder` with configuration, safetensors weights and feature extractor; whole or not at all."""
    model = load_upstream(input_folder)
    with written_whole(output_folder, overwrite) as staging:
        model.save_pretrained(staging)
        Qwen3TTSTokenizerFeatureExtractor(sampling_rate=model.config.input_sample_rate).save_pretrained(staging)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_conversion(__doc__, "released folder: config.json, model.safetensors", convert, arguments)


if __name__ == "__main__":
    sys.exit(main())
