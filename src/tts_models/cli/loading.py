"""Loading a model for the command line: any family, a folder or a Hub id."""

from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UsageError


if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

DTYPES = ("float32", "bfloat16", "float16")


def resolve_model(name: str | None) -> str:
    """A folder or Hub id; the default voice's folder where `name` is `None`.

    Raises:
        UsageError: `name` is empty.
        FileNotFoundError: `name` can only be a folder, and there is none, or it has no `config.json`.
    """
    if name is None:
        from ..voices import DEFAULT_VOICE

        name = str(DEFAULT_VOICE)
    if not name:
        raise UsageError("`--model` is empty: give a folder or a Hub id.")
    path = Path(name)
    looks_like_path = path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if path.exists() or looks_like_path:
        if not path.is_dir():
            raise FileNotFoundError(f"There is no model folder {name!r}.")
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"The folder {name!r} holds no model: it has no config.json.")
    return name


def quieten(show_progress: bool) -> None:
    """Keeps transformers' own notices off the terminal, and its bars where nobody sees them."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    if not show_progress:
        logging.disable_progress_bar()


def load_speaker(
    name: str, device: str | None = None, dtype: str | None = None
) -> "tuple[PreTrainedModel, ProcessorMixin]":
    """The model, ready on its device, and its processor.

    Args:
        name: Folder or Hub id.
        device: A torch device; CUDA where there is one by default, else the CPU.
        dtype: One of `DTYPES`; the checkpoint's own by default.

    Raises:
        RuntimeError: the checkpoint cannot be loaded, lacks weights, or its model does not speak.
    """
    import torch
    from transformers import AutoModelForTextToWaveform, AutoProcessor

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model = AutoModelForTextToWaveform.from_pretrained(name, dtype=dtype or "auto")
        processor = AutoProcessor.from_pretrained(name)
    except Exception as error:
        raise RuntimeError(f"{name!r} cannot be loaded as a speaking model: {error}") from error
    if not hasattr(model, "generate_stream"):
        raise RuntimeError(f"{type(model).__name__} of {name!r} has no `generate_stream`: it is none of our models.")
    return model.to(device).eval(), processor


__all__ = ["DTYPES", "load_speaker", "quieten", "resolve_model"]
