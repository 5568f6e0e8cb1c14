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
"""Mel frames for the voice encoder of Chatterbox."""

from typing import Any

import torch

from ...audio.mel import mel_filters
from ...audio.mel_features import MelFeatureExtractor
from ...audio.trimming import voice_bounds


class ChatterboxFeatureExtractor(MelFeatureExtractor):
    r"""
    Turns recordings into the mel frames of [`ChatterboxVoiceEncoder`]: power, without a logarithm. Silence before and
    after the voice is cut; the level is not normalised.

    Args:
        feature_size (`int`, *optional*, defaults to 40): Mel bands.
        sampling_rate (`int`, *optional*, defaults to 16000): Rate of the recordings, in Hz.
        padding_value (`float`, *optional*, defaults to 0.0): Value of the padding.
        fft_length (`int`, *optional*, defaults to 400): Samples of a window.
        hop_length (`int`, *optional*, defaults to 160): Samples between windows.
        max_frequency (`float`, *optional*): Upper edge of the bands, in Hz; half the rate by default.
        trim_decibels (`float`, *optional*, defaults to 20.0): What is so much quieter than the loudest part counts as
            silence; `None` cuts nothing.
    """

    refuses_silence = True

    def __init__(
        self,
        feature_size: int = 40,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        fft_length: int = 400,
        hop_length: int = 160,
        max_frequency: float | None = None,
        trim_decibels: float | None = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.max_frequency = sampling_rate / 2 if max_frequency is None else max_frequency
        self.trim_decibels = trim_decibels

    @property
    def min_samples(self) -> int:
        """The shortest recording: its edges are reflected by half a window."""
        return self.fft_length // 2 + 1

    def frames_of(self, samples: torch.Tensor) -> torch.Tensor:
        """Mel frames `(frames, feature_size)` of a recording `(samples,)`, silence at its ends cut."""
        return self.mel(self.trim(samples))

    def trim_bounds(self, samples: torch.Tensor) -> tuple[int, int]:
        """First sample of `samples` `(samples,)` that is not silence, and the one after the last."""
        if self.trim_decibels is None:
            return 0, len(samples)
        return voice_bounds(samples, self.trim_decibels)

    def trim(self, samples: torch.Tensor) -> torch.Tensor:
        """`samples` `(samples,)` without the silence before and after the voice."""
        start, end = self.trim_bounds(samples)
        return samples[start:end] if end - start >= self.min_samples else samples

    def mel(self, samples: torch.Tensor) -> torch.Tensor:
        """`(samples,)` to `(1 + samples // hop_length, feature_size)`."""
        window = torch.hann_window(self.fft_length)
        spectrum = torch.stft(samples, self.fft_length, self.hop_length, window=window, return_complex=True)
        filters = mel_filters(self.fft_length, self.feature_size, 0.0, self.max_frequency, self.sampling_rate)
        return (filters @ spectrum.abs().pow(2)).T


__all__ = ["ChatterboxFeatureExtractor"]
