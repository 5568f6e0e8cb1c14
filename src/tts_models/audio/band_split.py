"""Splitting a waveform into frequency bands that add up to it, evenly spaced on the mel scale."""

import math
from functools import lru_cache

import torch
from torch.nn import functional as F


_ZERO_CROSSINGS = 8


def mel_edges(bands: int, sampling_rate: int) -> list[float]:
    """The frequencies between `bands` bands from 0 to half the rate, in Hz."""
    highest = 2595 * math.log10(1 + sampling_rate / 2 / 700)
    return [700 * (10 ** (highest * band / bands / 2595) - 1) for band in range(1, bands)]


@lru_cache(maxsize=8)
def _low_pass_filters(bands: int, sampling_rate: int, device: torch.device) -> torch.Tensor:
    """Hann-windowed sinc filters `(bands - 1, taps)`, all as long as the lowest needs."""
    cut_offs = torch.tensor(mel_edges(bands, sampling_rate), dtype=torch.float64)[:, None] / sampling_rate
    half = int(_ZERO_CROSSINGS / cut_offs[0].item() / 2)
    times = torch.arange(-half, half + 1, dtype=torch.float64)
    window = torch.hann_window(2 * half + 1, periodic=False, dtype=torch.float64)
    filters = 2 * cut_offs * torch.sinc(2 * cut_offs * times) * window
    return (filters / filters.sum(-1, keepdim=True)).to(device, torch.float32)


def _filtered(samples: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """(batch, samples) by symmetric (filters, taps) to (filters, batch, samples), the edges repeated."""
    taps = filters.shape[-1]
    padded = F.pad(samples[:, None], (taps // 2, taps // 2), mode="replicate")[:, 0]
    size = 1 << (padded.shape[-1] - 1).bit_length()
    spectrum = torch.fft.rfft(padded, size) * torch.fft.rfft(filters, size)[:, None]
    return torch.fft.irfft(spectrum, size)[..., taps - 1 : taps - 1 + samples.shape[-1]]


def split_bands(samples: torch.Tensor, bands: int, sampling_rate: int) -> torch.Tensor:
    """The bands of waveforms, lowest first, as `julius.SplitBands` splits them; their sum is the waveform.

    Args:
        samples: float32 `(batch, samples)`.
        bands: How many.
        sampling_rate: Rate of the samples in Hz.

    Returns:
        float32 `(bands, batch, samples)`.

    Raises:
        ValueError: there are no bands, or no samples.
    """
    if bands < 1 or samples.dim() != 2 or not samples.shape[-1]:
        raise ValueError(
            f"`samples` must have shape (batch, samples), not empty, and `bands` be at least 1; got "
            f"{tuple(samples.shape)} and {bands}."
        )
    if bands == 1:
        return samples[None]
    lows = _filtered(samples.float(), _low_pass_filters(bands, sampling_rate, samples.device))
    return torch.cat([lows[:1], lows.diff(dim=0), (samples - lows[-1])[None]])


__all__ = ["mel_edges", "split_bands"]
