"""`tts-models info`: what a checkpoint is, read from its small files and the headers of its weights."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .loading import quieten, resolve_model


if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def add_parser(commands: Any) -> None:
    """Adds the sub-command to `commands`, the object that `add_subparsers` returned."""
    parser = commands.add_parser("info", help="describe a model", description="Describe a model without loading it.")
    parser.set_defaults(run=run)
    parser.add_argument("model", nargs="?", help="folder or Hub id; the voice that comes with the package by default")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def model_class_name(config: "PreTrainedConfig") -> str | None:
    """Name of the class that the Auto classes load for `config`: the speaking one where there is one."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING, MODEL_MAPPING

    for mapping in (MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING, MODEL_MAPPING):
        model_class = mapping.get(type(config), None)
        if model_class is not None:
            return getattr(model_class, "__name__", str(model_class))
    return None


def local_parameters(folder: Path) -> int:
    """Number of values in the folder's safetensors files.

    Raises:
        FileNotFoundError: there is no such file.
    """
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"The folder {str(folder)!r} holds no weights: it has no safetensors file.")
    count = 0
    for file in files:
        with safe_open(file, framework="np") as tensors:
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())
    return count


def count_parameters(name: str) -> int:
    """Number of values in the checkpoint `name`, a folder or Hub id, without loading them."""
    if Path(name).is_dir():
        return local_parameters(Path(name))
    from huggingface_hub import get_safetensors_metadata

    return sum(get_safetensors_metadata(name).parameter_count.values())


def describe(name: str) -> dict[str, Any]:
    """What is known of the checkpoint `name`, a folder or Hub id.

    Raises:
        RuntimeError: it is no checkpoint, or a damaged one.
    """
    from transformers import AutoConfig, AutoProcessor, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(name)
        parameters = count_parameters(name)
        processor = AutoProcessor.from_pretrained(name)
    except Exception as error:
        raise RuntimeError(f"{name!r} cannot be read as a model: {error}") from error
    try:
        generation = GenerationConfig.from_pretrained(name).to_diff_dict()
    except OSError:
        generation = {}
    return {
        "model": name,
        "model type": config.model_type,
        "class": model_class_name(config),
        "processor": type(processor).__name__,
        "parameters": parameters,
        "dtype": str(config.dtype).removeprefix("torch."),
        "sampling rate": getattr(config, "sampling_rate", None),
        "voices": getattr(processor, "voices", None),
        "generation": {key: value for key, value in generation.items() if key != "transformers_version"},
    }


def _readable(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {content}" for key, content in value.items())
    return str(value)


def run(args: argparse.Namespace) -> None:
    """Carries out the sub-command."""
    name = resolve_model(args.model)
    quieten(sys.stderr.isatty())
    found = describe(name)
    if args.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for key, value in found.items():
        if value not in (None, {}, []):
            print(f"{key + ':':<15} {_readable(value)}")


__all__ = ["add_parser", "run"]
