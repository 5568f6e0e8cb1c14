# Copyright 2026 The tts_models authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The transform of DeepFilterNet and its two features, over whole signals or piece by piece."""

import math
from functools import lru_cache

import torch
from torch.nn import functional as F

from ...streaming.context import LeftContext
from .configuration_deepfilternet import DeepFilterNetConfig


# Levels in dB that the lowest and the highest ERB band begin at, and magnitudes of the lowest and highest bin.
FIRST_DECIBELS = (-60.0, -90.0)
FIRST_MAGNITUDES = (1e-3, 1e-4)
DECIBEL_SCALE = 40.0
LEAST_POWER = 1e-10
# Frames whose running mean is one matrix product; what comes before a block enters it as one value.
BLOCK_FRAMES = 128


def erb_widths(config: DeepFilterNetConfig) -> list[int]:
    """Bins of every band: equal steps on the scale of equivalent rectangular bandwidths, none below the least."""
    scale, nyquist = 9.265, config.sampling_rate // 2
    width = config.sampling_rate / config.fft_length
    highest = scale * math.log1p(nyquist / (24.7 * scale))
    widths, last, borrowed = [], 0, 0
    for band in range(1, config.num_erb_bands + 1):
        frequency = 24.7 * scale * (math.exp(band * highest / config.num_erb_bands / scale) - 1)
        edge = math.floor(frequency / width + 0.5)
        bins = edge - last - borrowed
        borrowed = max(config.min_erb_bins - bins, 0)
        widths.append(max(bins, config.min_erb_bins))
        last = edge
    widths[-1] += config.num_bins - sum(widths)
    return widths


# Tables made while inference mode is on could not be used in training later.
@lru_cache(maxsize=8)
@torch.inference_mode(False)
def band_matrix(widths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """`(bins, bands)`: 1 where a bin belongs to a band."""
    bands = torch.arange(len(widths)).repeat_interleave(torch.tensor(widths))
    return F.one_hot(bands, len(widths)).to(device, torch.float32)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def spectral_window(fft_length: int, device: torch.device) -> torch.Tensor:
    """The window whose square overlaps to one, as Vorbis has it: `(fft_length,)`."""
    steps = (torch.arange(fft_length, dtype=torch.float64) + 0.5) * math.pi / fft_length
    return torch.sin(math.pi / 2 * torch.sin(steps).square()).to(device, torch.float32)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _mean_matrix(decay: float, frames: int, device: torch.device) -> torch.Tensor:
    """What the running mean after each frame takes of each frame: `(frames, frames)`."""
    steps = torch.arange(frames, dtype=torch.float64)
    distance = steps[:, None] - steps
    matrix = torch.where(distance >= 0, (1 - decay) * decay ** distance.clamp(min=0), 0.0)
    return matrix.to(device, torch.float32)


def running_mean(values: torch.Tensor, first: torch.Tensor, decay: float) -> torch.Tensor:
    """`s[t] = decay * s[t - 1] + (1 - decay) * values[t]` along the frames of `(batch, frames, bins)`.

    Args:
        values: float32.
        first: `s[-1]`, `(batch, bins)`.
        decay: What a frame keeps of the mean.
    """
    means = []
    for block in values.split(BLOCK_FRAMES, dim=1):
        matrix = _mean_matrix(decay, block.shape[1], values.device)
        # As differences to the mean before: what the matrix's rows lack to 1 is the share of that mean.
        means.append(first[:, None] + torch.matmul(matrix, block - first[:, None]))
        first = means[-1][:, -1]
    return torch.cat(means, dim=1) if means else values


class DeepFilterNetTransform:
    """Waveform to spectrum and features, and spectrum to waveform, in float32 on any device.

    Every method takes the signal in pieces: `context` holds what the pieces before leave behind. A fresh context is a
    signal's beginning.

    Args:
        config ([`DeepFilterNetConfig`]): Sizes of the transform.
    """

    def __init__(self, config: DeepFilterNetConfig) -> None:
        self.config = config
        self.widths = tuple(erb_widths(config))
        self.overlaps = config.fft_length // config.hop_length

    def spectrum(self, samples: torch.Tensor, context: LeftContext) -> torch.Tensor:
        """Spectrum complex64 `(batch, frames, bins)` of `(batch, samples)`, whole hops of them."""
        fft, hop = self.config.fft_length, self.config.hop_length
        extended = context.extend("samples", samples.float(), fft - hop)
        frames = extended.unfold(-1, fft, hop) * spectral_window(fft, samples.device)
        return torch.fft.rfft(frames) * (2 * hop / fft**2)

    def waveform(self, spectrum: torch.Tensor, context: LeftContext) -> torch.Tensor:
        """Samples `(batch, frames * hop)` of a spectrum, `fft_length - hop_length` later than they went in."""
        fft, hop = self.config.fft_length, self.config.hop_length
        if spectrum.shape[1] == 0:  # which the transform refuses
            return spectrum.real.new_zeros(len(spectrum), 0)
        frames = torch.fft.irfft(spectrum, fft, norm="forward") * spectral_window(fft, spectrum.device)
        extended = context.extend("windows", frames, self.overlaps - 1, dim=1)
        count, last = spectrum.shape[1], self.overlaps - 1
        parts = extended.unflatten(-1, (self.overlaps, hop))
        return sum(parts[:, last - index : last - index + count, index] for index in range(self.overlaps)).flatten(1)

    def erb_features(self, spectrum: torch.Tensor, context: LeftContext) -> torch.Tensor:
        """Level of every band against its running mean: `(batch, frames, bands)`."""
        bands = band_matrix(self.widths, spectrum.device)
        power = (spectrum.real.square() + spectrum.imag.square()) @ (bands / bands.sum(0))
        decibels = 10 * (power + LEAST_POWER).log10()
        return (decibels - self._follow("decibels", decibels, FIRST_DECIBELS, context)) / DECIBEL_SCALE

    def complex_features(self, spectrum: torch.Tensor, context: LeftContext) -> torch.Tensor:
        """The lowest bins over the root of their running magnitude: complex64 `(batch, frames, num_df_bins)`."""
        bins = spectrum[..., : self.config.num_df_bins]
        return bins / self._follow("magnitudes", bins.abs(), FIRST_MAGNITUDES, context).sqrt()

    def _follow(
        self, name: str, values: torch.Tensor, ends: tuple[float, float], context: LeftContext
    ) -> torch.Tensor:
        first = context.tensors.get(name)
        if first is None:
            first = torch.linspace(*ends, values.shape[-1], device=values.device).expand(len(values), -1)
        means = running_mean(values, first, self.config.norm_decay)
        if means.shape[1]:
            context.tensors[name] = means[:, -1].detach().clone()
        return means


__all__ = ["DeepFilterNetTransform", "band_matrix", "erb_widths", "running_mean"]
