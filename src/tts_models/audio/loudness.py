"""Loudness as broadcasters measure it (ITU-R BS.1770): K-weighted, gated, in LUFS."""

import math
from collections.abc import Callable
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


_FILTERS = (_high_shelf, _high_pass)


@lru_cache(maxsize=16)
def _impulse_response(filters: tuple[Callable[[int], tuple[list[float], list[float]]], ...], rate: int) -> np.ndarray:
    """The impulse response of some filters, one after the other."""
    signal = [1.0] + [0.0] * int(_IMPULSE_SECONDS * rate)
    for ahead, back in (make(rate) for make in filters):
        output = [0.0, 0.0]
        inputs = [0.0, 0.0, *signal]
        for place in range(2, len(inputs)):
            value = sum(factor * inputs[place - lag] for lag, factor in enumerate(ahead))
            output.append((value - back[1] * output[-1] - back[2] * output[-2]) / back[0])
        signal = output[2:]
    return np.asarray(signal)


def _convolved(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    size = len(samples) + len(response) - 1
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]


def integrated_loudness(samples: np.ndarray, sampling_rate: int) -> float | None:
    """The loudness of a recording in LUFS; `None` where it is shorter than 0.4 s or silent.

    Args:
        samples: Mono, `(samples,)`, in [-1, 1].
        sampling_rate: Their rate in Hz.
    """
    seconds = len(samples) / sampling_rate
    if seconds < _BLOCK_SECONDS:
        return None
    weighted = _convolved(samples, _impulse_response(_FILTERS, sampling_rate))
    energy = np.concatenate([[0.0], np.cumsum(np.square(weighted))])
    count = round((seconds - _BLOCK_SECONDS) / (_BLOCK_SECONDS * _STEP)) + 1
    starts = [int(_BLOCK_SECONDS * (block * _STEP) * sampling_rate) for block in range(count)]
    ends = [int(_BLOCK_SECONDS * (block * _STEP + 1) * sampling_rate) for block in range(count)]
    ends = [min(end, len(samples)) for end in ends]
    return _gated((energy[ends] - energy[starts]) / (_BLOCK_SECONDS * sampling_rate))


def clipped_loudness(samples: np.ndarray, sampling_rate: int) -> float | None:
    """The loudness of a recording in LUFS as `torchaudio.transforms.Loudness` measures it.

    What the filters make larger than 1 is clipped, so loud recordings count as quieter than they are, and only whole
    blocks count. `None` where there is no block, or the recording is silent.

    Args:
        samples: Mono, `(samples,)`.
        sampling_rate: Their rate in Hz.
    """
    size = round(_BLOCK_SECONDS * sampling_rate)
    if len(samples) < size:
        return None
    weighted = samples
    for part in _FILTERS:
        weighted = np.clip(_convolved(weighted, _impulse_response((part,), sampling_rate)), -1.0, 1.0)
    energy = np.concatenate([[0.0], np.cumsum(np.square(weighted))])
    starts = np.arange(0, len(samples) - size + 1, round(size * _STEP))
    return _gated((energy[starts + size] - energy[starts]) / size)


def _gated(power: np.ndarray) -> float | None:
    """Loudness of the blocks of some power, quiet ones left out."""
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


def compress_loudness(
    samples: np.ndarray, sampling_rate: int, target: float = -14.0, energy_floor: float = 2e-3
) -> np.ndarray:
    """`samples` at `target` LUFS with the peaks pressed below 1, as `audiocraft` writes its files.

    Args:
        samples: Mono, `(samples,)`.
        sampling_rate: Their rate in Hz.
        target: Loudness before the peaks are pressed (by a hyperbolic tangent).
        energy_floor: A recording of less root mean square is not changed; nor is one shorter than 0.4 s.

    Returns:
        float32 `(samples,)` in [-1, 1].
    """
    samples = np.asarray(samples, np.float32)
    is_quiet = not len(samples) or np.sqrt(np.mean(np.square(samples, dtype=np.float64))) < energy_floor
    loudness = None if is_quiet else clipped_loudness(samples, sampling_rate)
    if loudness is not None:
        samples = np.tanh(samples * np.float32(10 ** ((target - loudness) / 20)))
    return np.clip(samples, -1.0, 1.0)


__all__ = [
    "clipped_loudness",
    "compress_loudness",
    "integrated_loudness",
    "match_loudness",
    "normalize_loudness",
]
