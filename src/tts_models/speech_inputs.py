"""What the processors of speaking models check the same way: texts, values for each text, recordings, voice files."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .audio import AUDIO_SUFFIXES, check_waveform, load_audio, resample


def check_texts(text: Any, max_characters: int, name: str = "text") -> list[str]:
    """One text or several as a list.

    Args:
        text: A string, or a list of them.
        max_characters: The longest text allowed.
        name: The argument's name in an error.

    Raises:
        ValueError: no text, one without a letter or digit, or one that is too long.
    """
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(each, str) for each in texts):
        raise ValueError(f"`{name}` must be a string or a list of at least one; got {text!r:.80}.")
    for row, each in enumerate(texts):
        if not any(character.isalnum() for character in each):
            raise ValueError(f"`{name}` {row} holds nothing to say: {each!r:.80}.")
        if len(each) > max_characters:
            raise ValueError(f"`{name}` {row} has {len(each)} characters; at most {max_characters} are allowed.")
    return list(texts)


def spread(name: str, value: Any, rows: int) -> list[Any]:
    """One value per text: a list gives one each, anything else is for all.

    Raises:
        ValueError: a list of another length.
    """
    if not isinstance(value, list):
        return [value] * rows
    if len(value) != rows:
        raise ValueError(f"`{name}` holds {len(value)} entries for {rows} rows: pass one, or one each.")
    return value


def read_recording(
    voice: Any, sampling_rate: int | None, target_rate: int, min_seconds: float, max_seconds: float
) -> np.ndarray:
    """A recording given as `voice`, float32 `(samples,)` at `target_rate`.

    Args:
        voice: Path, array or tensor `(samples,)`, or a pair of array and rate in Hz.
        sampling_rate: Rate in Hz of an array.
        target_rate: Rate wanted in Hz.
        min_seconds: The shortest recording allowed.
        max_seconds: The longest recording allowed.

    Raises:
        ValueError: no such file, no audio, no rate, several channels in an array, NaN, or another length.
    """
    if isinstance(voice, str | PathLike):
        if not Path(voice).is_file():
            raise ValueError(
                f"`voice` {str(voice)!r} is no file: a recording ({', '.join(AUDIO_SUFFIXES)}) or a prepared voice "
                "(.safetensors) is needed."
            )
        samples, _ = load_audio(voice, target_rate)
    else:
        samples = _resampled_array(voice, sampling_rate, target_rate)
    seconds = len(samples) / target_rate
    if not min_seconds <= seconds <= max_seconds:
        raise ValueError(f"`voice` lasts {seconds:.2f} s; {min_seconds:g} s to at most {max_seconds:g} s are allowed.")
    return samples


def _resampled_array(voice: Any, sampling_rate: int | None, target_rate: int) -> np.ndarray:
    if isinstance(voice, tuple) and len(voice) == 2 and isinstance(voice[1], int):
        voice, sampling_rate = voice
    if not isinstance(voice, np.ndarray | torch.Tensor):
        raise ValueError(f"`voice` must be a path, an array or a prepared voice; got {type(voice).__name__}.")
    if sampling_rate is None:
        raise ValueError("`sampling_rate` is needed for a `voice` that is an array.")
    return resample(check_waveform(voice, "voice"), sampling_rate, target_rate)


def read_voice_file(path: str | PathLike, content: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a prepared voice.

    Args:
        path: A safetensors file.
        content: What its metadata must state as `format`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no voice file {str(path)!r}.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"`path` {str(path)!r} is not a safetensors file: {error}") from error
    if metadata.get("format") != content:
        raise ValueError(f"`path` {str(path)!r} holds no prepared voice of this model ({content}).")
    return tensors, metadata


__all__ = ["check_texts", "read_recording", "read_voice_file", "spread"]
