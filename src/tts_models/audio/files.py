"""Audio files, through soundfile (libsndfile, which its wheels bring along)."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..files import written_whole
from .checks import check_sampling_rate, check_waveform
from .convert import resample


# Suffix -> (container, sample format) of libsndfile.
AUDIO_SUFFIXES = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


def check_audio_path(path: str | os.PathLike) -> Path:
    """`path` as a `Path` that can be written: a known suffix, in a folder that exists and is writable.

    Raises:
        ValueError: the suffix is none of `AUDIO_SUFFIXES`.
        OSError: the folder is missing or cannot be written to, or `path` is a folder.
    """
    path = Path(path)
    if path.suffix.lower() not in AUDIO_SUFFIXES:
        raise ValueError(f"`path` must end in one of {', '.join(AUDIO_SUFFIXES)}, got {str(path)!r}.")
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder, not a file name.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {str(path.parent)!r} does not exist.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"The folder {str(path.parent)!r} cannot be written to.")
    return path


def save_audio(path: str | os.PathLike, audio: Any, sampling_rate: int) -> Path:
    """Writes mono `audio` to `path` and returns it. The file appears whole or not at all.

    Args:
        path: File name; its suffix (.wav, .flac, .ogg, .mp3) chooses the format.
        audio: Samples of shape (samples,), array or tensor; what lies outside [-1, 1] is clipped.
        sampling_rate: Rate in Hz.

    Raises:
        ValueError: `audio` is empty, not mono or not finite, or the suffix or the rate is not allowed.
        OSError: `path` cannot be written.
    """
    samples = np.clip(check_waveform(audio), -1.0, 1.0)
    sampling_rate = check_sampling_rate(sampling_rate)
    path = check_audio_path(path)
    container, sample_format = AUDIO_SUFFIXES[path.suffix.lower()]
    import soundfile

    try:
        with written_whole(path) as temporary:
            soundfile.write(temporary, samples, sampling_rate, format=container, subtype=sample_format)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"`{path}` cannot hold audio of {sampling_rate} Hz as {container}: {error}") from error
    return path


def load_audio(path: str | os.PathLike, sampling_rate: int | None = None, mono: bool = True) -> tuple[np.ndarray, int]:
    """Reads an audio file.

    Args:
        path: A file that libsndfile can read (wav, flac, ogg, mp3, …).
        sampling_rate: Rate to resample to, in Hz; `None` keeps the file's.
        mono: Whether channels are averaged. If `False`, a file of several channels is refused.

    Returns:
        float32 samples of shape (samples,), and their rate in Hz.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no audio, is empty, holds NaN, or has several channels and `mono` is `False`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no audio file {str(path)!r}.")
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"`path` {str(path)!r} cannot be read as audio: {error}") from error
    if samples.shape[1] > 1 and not mono:
        raise ValueError(f"`path` {str(path)!r} has {samples.shape[1]} channels: pass mono=True to average them.")
    audio = check_waveform(samples.mean(axis=1), name=f"audio of {path.name}")
    if sampling_rate is None:
        return audio, rate
    return resample(audio, rate, sampling_rate), check_sampling_rate(sampling_rate)


__all__ = ["AUDIO_SUFFIXES", "check_audio_path", "load_audio", "save_audio"]
