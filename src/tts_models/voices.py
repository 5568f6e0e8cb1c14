"""The voice that ships with the package."""

from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .models.maya1 import Maya1ForConditionalGeneration, Maya1Processor


DEFAULT_VOICE = Path(__file__).parent / "default_voice"
"""Folder of a small Maya1 checkpoint with a female and a male English voice (16 kHz); its `README.md` is the model
card."""


def default_voice() -> "tuple[Maya1ForConditionalGeneration, Maya1Processor]":
    r"""
    Load the shipped model and its processor; no network is needed.

    Example:

    ```python
    >>> from tts_models import default_voice

    >>> model, processor = default_voice()
    >>> output = model.generate(**processor("Hello.", voice="male"), seed=0)
    >>> processor.save_audio(output, "hello.wav")
    ```
    """
    from .models.maya1 import Maya1ForConditionalGeneration, Maya1Processor

    model = Maya1ForConditionalGeneration.from_pretrained(DEFAULT_VOICE)
    return model.eval(), Maya1Processor.from_pretrained(DEFAULT_VOICE)


__all__ = ["DEFAULT_VOICE", "default_voice"]
