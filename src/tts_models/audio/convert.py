"""Changing the rate and the sample format."""

from typing import Any

import numpy as np

from .checks import check_sampling_rate, check_waveform


def resample(audio: Any, orig: int, target: int) -> np.ndarray:
    """Band-limited resampling by soxr's high-quality filter.

    Args:
        audio: Samples of shape (samples,).
        orig: Rate of `audio` in Hz.
        target: Rate wanted in Hz.

    Returns:
        float32 of shape (about samples * target / orig,); `audio` itself where the rates agree.

    Raises:
        ValueError: a rate is not allowed, or `audio` is not a finite mono waveform.
    """
    orig, target = check_sampling_rate(orig, "orig"), check_sampling_rate(target, "target")
    samples = check_waveform(audio)
    if orig == target:
        return samples
    import soxr

    return soxr.resample(samples, orig, target, quality="HQ").astype(np.float32, copy=False)


def pcm16(audio: Any) -> bytes:
    """Little-endian signed 16-bit samples of `audio` (samples,); what lies outside [-1, 1] is clipped.

    Raises:
        ValueError: `audio` is not a finite mono waveform.
    """
    samples = np.clip(check_waveform(audio), -1.0, 1.0)
    return np.round(samples * 32767.0).astype("<i2").tobytes()


__all__ = ["pcm16", "resample"]
