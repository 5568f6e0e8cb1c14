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
"""Feature extractor of HiFTNet: the mel frames that it turns back into audio."""

from typing import Any

import torch

from ...audio.mel import log_mel_spectrogram
from ...audio.mel_features import MelFeatureExtractor


class HiFTNetFeatureExtractor(MelFeatureExtractor):
    r"""
    Turns recordings into the log-mel frames that [`HiFTNetModel`] vocodes, 50 a second at 24 kHz.

    Args:
        feature_size (`int`, defaults to 80): Mel bands.
        sampling_rate (`int`, defaults to 24000): Rate of the recordings, in Hz.
        padding_value (`float`, defaults to 0.0): Value of the padding.
        fft_length (`int`, defaults to 1920): Samples of a window.
        hop_length (`int`, defaults to 480): Samples between windows.
        max_frequency (`float`, defaults to 8000.0): Upper edge of the bands, in Hz.
    """

    channels_first = True

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 24000,
        padding_value: float = 0.0,
        fft_length: int = 1920,
        hop_length: int = 480,
        max_frequency: float = 8000.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.max_frequency = max_frequency

    @property
    def min_samples(self) -> int:
        """The shortest recording: its edges are reflected."""
        return max((self.fft_length - self.hop_length) // 2 + 1, self.hop_length)

    def frames_of(self, samples: torch.Tensor) -> torch.Tensor:
        """Log-mel frames `(frames, feature_size)` of a recording `(samples,)`."""
        return log_mel_spectrogram(
            samples,
            sampling_rate=self.sampling_rate,
            fft_length=self.fft_length,
            hop_length=self.hop_length,
            bands=self.feature_size,
            high=self.max_frequency,
        ).T


__all__ = ["HiFTNetFeatureExtractor"]
