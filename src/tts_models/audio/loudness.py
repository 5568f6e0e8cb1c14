"""Loudness as broadcasters measure it (ITU-R BS.1770): K-weighted, gated, in LUFS."""

import math
from functools import lru_cache

import numpy as np


_BLOCK_SECONDS, _STEP = 0.4, 0.25
_ABSOLUTE_GATE, _RELATIVE_GATE = -70.0, -10.0
_OFFSET = -0.691
_IMPULSE_SECONDS = 0.5  # by then both filters have decayed beyond double precision


def _high_shelf(sampling_rate: int) -> tuple[list[float], list[float]]:
    """4 dB above 1500 Hz: what a head does to sound."""
    gain, quality = 10 ** (4.0 / 40), 1 / math.sqrt(2)
    angle = 2 * math.pi * 1500.0 / sampling_rate
    cosine, root = math.cos(angle), 2 * math.sqrt(gain) * math.sin(angle) / (2 * quality)
    plus, minus = gain + 1, gain - 1
    return (
        [
            gain * (plus + minus * cosine + root),
            -2 * gain * (minus + plus * cosine),
            gain * (plus + minus * cosine - root),
        ],
        [plus - minus * cosine + root, 2 * (minus - plus * cosine), plus - minus * cosine - root],
    )


def _high_pass(sampling_rate: int) -> tuple[list[float], list[float]]:
    """38 Hz: what is not heard does not count."""
    angle = 2 * math.pi * 38.0 / sampling_rate
    cosine, alpha = math.cos(angle), math.sin(angle) / (2 * 0.5)
    return [(1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2], [1 + alpha, -2 * cosine, 1 - alpha]


@lru_cache(maxsize=8)
def _weighting(sampling_rate: int) -> np.ndarray:
    """The impulse response of both filters."""
    signal = [1.0] + [0.0] * int(_IMPULSE_SECONDS * sampling_rate)
    for ahead, back in (_high_shelf(sampling_rate), _high_pass(sampling_rate)):
        output = [0.0, 0.0]
        inputs = [0.0, 0.0, *signal]
        for place in range(2, len(inputs)):
            value = sum(factor * inputs[place - lag] for lag, factor in enumerate(ahead))
            output.append((value - back[1] * output[-1] - back[2] * output[-2]) / back[0])
        signal = output[2:]
    return np.asarray(signal)


def integrated_loudness(samples: np.ndarray, sampling_rate: int) -> float | None:
    """The loudness of a recording in LUFS; `None` where it is shorter than 0.4 s or silent.

    Args:
        samples: Mono, `(samples,)`, in [-1, 1].
        sampling_rate: Their rate in Hz.
    """
    seconds = len(samples) / sampling_rate
    if seconds < _BLOCK_SECONDS:
        return None
    response = _weighting(sampling_rate)
    size = len(samples) + len(response) - 1
    weighted = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]
    energy = np.concatenate([[0.0], np.cumsum(np.square(weighted))])
    count = round((seconds - _BLOCK_SECONDS) / (_BLOCK_SECONDS * _STEP)) + 1
    starts = [int(_BLOCK_SECONDS * (block * _STEP) * sampling_rate) for block in range(count)]
    ends = [int(_BLOCK_SECONDS * (block * _STEP + 1) * sampling_rate) for block in range(count)]
    ends = [min(end, len(samples)) for end in ends]
    power = (energy[ends] - energy[starts]) / (_BLOCK_SECONDS * sampling_rate)
    power = power[_decibels(power) > _ABSOLUTE_GATE]
    if not len(power):
        return None
    power = power[_decibels(power) > _decibels(power.mean()) + _RELATIVE_GATE]
    return float(_decibels(power.mean()))


def _decibels(power: np.ndarray) -> np.ndarray:
    return _OFFSET + 10 * np.log10(np.maximum(power, 1e-30))


def normalize_loudness(samples: np.ndarray, sampling_rate: int, target: float) -> np.ndarray:
    """`samples` `(samples,)` at `target` LUFS, float32; as they are where they have no loudness."""
    loudness = integrated_loudness(samples, sampling_rate)
    return samples if loudness is None else (samples * 10 ** ((target - loudness) / 20)).astype(np.float32)


def match_loudness(samples: np.ndarray, sampling_rate: int, target: float | None, peak: float = 0.95) -> np.ndarray:
    """`samples` `(samples,)` at `target` LUFS, float32, and scaled down to `peak` where they would leave [-1, 1].

    Args:
        samples: Mono, in any range; those without a loudness (silence, less than 0.4 s) are only kept in range.
        sampling_rate: Their rate in Hz.
        target: Loudness in LUFS; `None` leaves it as it is.
        peak: The largest magnitude after scaling down.
    """
    if target is not None:
        samples = normalize_loudness(samples, sampling_rate, target)
    largest = float(np.abs(samples).max(initial=0.0))
    return samples if largest < 1 else (samples / largest * peak).astype(np.float32)


__all__ = ["integrated_loudness", "match_loudness", "normalize_loudness"]
