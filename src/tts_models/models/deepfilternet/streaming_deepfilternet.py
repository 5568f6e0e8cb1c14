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
"""Exact streaming of DeepFilterNet: everything looks back only, so state takes the place of the past."""

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ...audio.sinc_resample import SincResampleStream
from ...streaming.context import LeftContext


if TYPE_CHECKING:
    from .modeling_deepfilternet import DeepFilterNetModel


# Upstream resamples what it hears with wider filters than torchaudio's default.
ZERO_CROSSINGS = 16


class DeepFilterNetStream:
    r"""
    Enhances samples as they arrive; the concatenation of everything it returns is `DeepFilterNetModel.forward`'s
    waveform of all samples. What comes out is `config.latency_samples` (30 ms in the release), rounded up to a whole
    hop, behind what went in. Samples of another rate are resampled as [`~DeepFilterNetModel.enhance`] does it.

    Args:
        model ([`DeepFilterNetModel`]): The network.
        batch_size (`int`): Rows of every piece.
        atten_lim_db (`float`, *optional*): Noise is quieted by at most so many dB.
        sampling_rate (`int`, *optional*): Rate of what is pushed, in Hz; `config.sampling_rate` by default.

    Attributes:
        samples_in (`int`): Samples heard so far, of each row, at `config.sampling_rate`.
        samples_out (`int`): Samples that have come out.
    """

    def __init__(
        self,
        model: "DeepFilterNetModel",
        batch_size: int = 1,
        atten_lim_db: float | None = None,
        sampling_rate: int | None = None,
    ):
        model.check_limit(atten_lim_db)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        config = model.config
        self.model, self.atten_lim_db = model, atten_lim_db
        self.context = LeftContext(batch_size)
        self.samples_in = self.samples_out = 0
        self._resampler: SincResampleStream | None = None
        if sampling_rate is not None and sampling_rate != config.sampling_rate:
            self._resampler = SincResampleStream(sampling_rate, config.sampling_rate, ZERO_CROSSINGS)
        self.is_flushed = False
        self._pending = torch.zeros(batch_size, 0, device=model.device)
        self._past = config.df_order - 1 - config.df_lookahead
        # Spectrum from `_past` frames before the next frame on; gains and filters of the next frames.
        self._spectrum = torch.zeros(batch_size, self._past, config.num_bins, dtype=torch.complex64).to(model.device)
        self._gains: torch.Tensor | None = None
        self._filters: torch.Tensor | None = None
        self._features_to_skip = config.conv_lookahead
        self._samples_to_skip = config.fft_length - config.hop_length

    @torch.no_grad()
    def push(self, samples: torch.Tensor) -> torch.Tensor:
        """Enhances the next samples; returns those `(batch, n)` that are complete, possibly none.

        Args:
            samples (`torch.FloatTensor` of shape `(batch, samples)`): In [-1, 1], possibly none.

        Raises:
            ValueError: a wrong shape, or the stream is already flushed.
        """
        if self.is_flushed:
            raise ValueError("The stream is flushed: start another one with `DeepFilterNetModel.stream`.")
        if samples.dim() != 2 or samples.shape[0] != len(self._pending):
            raise ValueError(
                f"`samples` must have shape {(len(self._pending), 'samples')}, got {tuple(samples.shape)}."
            )
        samples = samples.to(self._pending)
        self._hear(samples if self._resampler is None else self._resampler.push(samples))
        return self._run(self._pending.shape[-1] // self.model.config.hop_length)

    @torch.no_grad()
    def flush(self) -> torch.Tensor:
        """Returns the remaining samples `(batch, n)` and closes the stream."""
        self.is_flushed = True
        config = self.model.config
        if self._resampler is not None and self._resampler.samples_in:
            self._hear(self._resampler.flush())
        frames = (self._pending.shape[-1] + config.fft_length) // config.hop_length
        self._pending = F.pad(self._pending, (0, config.fft_length))
        return self._run(frames, is_final=True)

    def _hear(self, samples: torch.Tensor) -> None:
        self.samples_in += samples.shape[-1]
        self._pending = torch.cat([self._pending, samples], dim=-1)

    def _run(self, frames: int, is_final: bool = False) -> torch.Tensor:
        """Takes `frames` hops of the pending samples."""
        if frames == 0:
            return self._pending.new_zeros(len(self._pending), 0)
        transform, size = self.model.transform, frames * self.model.config.hop_length
        taken, self._pending = self._pending[:, :size], self._pending[:, size:].clone()
        spectrum = transform.spectrum(taken, self.context)
        self._estimate(spectrum, is_final)
        ahead = self.model.config.df_lookahead
        self._spectrum = torch.cat([self._spectrum, F.pad(spectrum, (0, 0, 0, ahead if is_final else 0))], dim=1)
        return self._cut(transform.waveform(self._enhanced(), self.context), is_final)

    def _estimate(self, spectrum: torch.Tensor, is_final: bool) -> None:
        """Gains and filters of as many frames as can be heard ahead of."""
        transform, ahead = self.model.transform, self.model.config.conv_lookahead
        erb = transform.erb_features(spectrum, self.context)
        bins = transform.complex_features(spectrum, self.context)
        skipped = min(self._features_to_skip, erb.shape[1])
        self._features_to_skip -= skipped
        erb, bins = (F.pad(part[:, skipped:], (0, 0, 0, ahead if is_final else 0)) for part in (erb, bins))
        if erb.shape[1] == 0:
            return
        gains, filters, _ = self.model.estimate(erb, bins, self.context)
        self._gains = gains if self._gains is None else torch.cat([self._gains, gains], dim=1)
        self._filters = filters if self._filters is None else torch.cat([self._filters, filters], dim=1)

    def _enhanced(self) -> torch.Tensor:
        """The enhanced spectrum of the frames whose filters and whose future are known."""
        past, ahead = self._past, self.model.config.df_lookahead
        known = 0 if self._gains is None else self._gains.shape[1]
        count = max(min(self._spectrum.shape[1] - past - ahead, known), 0)
        if count == 0:
            return self._spectrum[:, :0]
        noisy = self._spectrum[:, past : past + count]
        enhanced = self.model.apply(
            noisy, self._spectrum[:, : past + count + ahead], self._gains[:, :count], self._filters[:, :count]
        )
        self._spectrum = self._spectrum[:, count:].clone()
        self._gains, self._filters = self._gains[:, count:].clone(), self._filters[:, count:].clone()
        return self.model.limit(enhanced, noisy, self.atten_lim_db)

    def _cut(self, samples: torch.Tensor, is_final: bool) -> torch.Tensor:
        """Without the transform's delay at the beginning, and without what was padded at the end."""
        skipped = min(self._samples_to_skip, samples.shape[-1])
        self._samples_to_skip -= skipped
        samples = samples[:, skipped:]
        if is_final:
            samples = samples[:, : self.samples_in - self.samples_out]
        self.samples_out += samples.shape[-1]
        return samples


__all__ = ["DeepFilterNetStream"]
