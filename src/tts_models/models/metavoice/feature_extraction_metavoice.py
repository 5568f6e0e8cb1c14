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
"""Feature extractor of MetaVoice: the mel frames of the speaker encoder's windows."""

import math
from typing import Any

import torch
from torch.nn import functional as F

from ...audio.mel import mel_filters
from ...audio.mel_features import MelFeatureExtractor
from ...audio.trimming import voice_bounds


class MetaVoiceFeatureExtractor(MelFeatureExtractor):
    r"""
    Turns recordings into the mel frames of [`MetaVoiceSpeakerEncoder`]: power, without a logarithm. Silence before and
    after the voice is cut, and zeros follow the recording up to the end of its last window.

    Args:
        feature_size (`int`, *optional*, defaults to 40): Mel bands.
        sampling_rate (`int`, *optional*, defaults to 16000): Rate of the recordings, in Hz.
        padding_value (`float`, *optional*, defaults to 0.0): Value of the padding.
        fft_length (`int`, *optional*, defaults to 400): Samples of a window of the spectrum.
        hop_length (`int`, *optional*, defaults to 160): Samples between frames.
        window_frames (`int`, *optional*, defaults to 160): Frames that the encoder hears at once (1.6 s).
        windows_per_second (`float`, *optional*, defaults to 1.3): The encoder's windows begin so often.
        min_coverage (`float`, *optional*, defaults to 0.75): The share of a last window that must lie in the
            recording.
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
        window_frames: int = 160,
        windows_per_second: float = 1.3,
        min_coverage: float = 0.75,
        trim_decibels: float | None = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.window_frames = window_frames
        self.windows_per_second = windows_per_second
        self.min_coverage = min_coverage
        self.trim_decibels = trim_decibels

    @property
    def min_samples(self) -> int:
        """The shortest recording: one window of the spectrum."""
        return self.fft_length

    @property
    def frame_step(self) -> int:
        """Frames between the starts of two windows."""
        return round(self.sampling_rate / self.windows_per_second / self.hop_length)

    def window_starts(self, samples: int) -> list[int]:
        """First mel frame of every window of a recording of `samples` samples; the last may reach beyond its end."""
        frames = math.ceil((samples + 1) / self.hop_length)
        starts = list(range(0, max(1, frames - self.window_frames + self.frame_step + 1), self.frame_step))
        covered = (samples - starts[-1] * self.hop_length) / (self.window_frames * self.hop_length)
        return starts[:-1] if len(starts) > 1 and covered < self.min_coverage else starts

    def voice_bounds(self, samples: torch.Tensor) -> tuple[int, int]:
        """First sample of `samples` `(samples,)` that is not silence, and the one after the last."""
        return (0, len(samples)) if self.trim_decibels is None else voice_bounds(samples, self.trim_decibels)

    def frames_of(self, samples: torch.Tensor) -> torch.Tensor:
        """Mel frames of all windows `(frames, feature_size)` of a recording `(samples,)`, silence at its ends cut."""
        start, end = self.voice_bounds(samples)
        samples = samples[start:end]
        frames = self.window_starts(len(samples))[-1] + self.window_frames
        missing = frames * self.hop_length - len(samples)
        return self.mel(F.pad(samples, (0, max(missing, 0))))[:frames]

    def mel(self, samples: torch.Tensor) -> torch.Tensor:
        """`(samples,)` to `(1 + samples // hop_length, feature_size)`."""
        edge, window = self.fft_length // 2, torch.hann_window(self.fft_length)
        padded = F.pad(samples, (edge, edge))
        spectrum = torch.stft(
            padded, self.fft_length, self.hop_length, window=window, center=False, return_complex=True
        )
        filters = mel_filters(self.fft_length, self.feature_size, 0.0, self.sampling_rate / 2, self.sampling_rate)
        return (filters @ spectrum.abs().pow(2)).T


__all__ = ["MetaVoiceFeatureExtractor"]
