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
"""Feature extractor of the S3 tokenizer: Whisper's log-mel frames, each utterance at its own length."""

from typing import Any

import torch

from ...audio.mel import whisper_log_mel
from ...audio.mel_features import MelFeatureExtractor


class S3TokenizerFeatureExtractor(MelFeatureExtractor):
    r"""
    Turns recordings into the log-mel frames that [`S3TokenizerModel`] quantizes: 100 a second, not padded to 30 s, and
    each recording scaled by its own maximum.

    Args:
        feature_size (`int`, defaults to 128): Mel bands.
        sampling_rate (`int`, defaults to 16000): Rate of the recordings, in Hz.
        padding_value (`float`, defaults to 0.0): Value of the padding.
        fft_length (`int`, defaults to 400): Samples of a window.
        hop_length (`int`, defaults to 160): Samples between windows.
    """

    channels_first = True

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        fft_length: int = 400,
        hop_length: int = 160,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.fft_length = fft_length
        self.hop_length = hop_length

    @property
    def min_samples(self) -> int:
        """The shortest recording: its edges are reflected over half a window."""
        return max(self.fft_length // 2 + 1, self.hop_length)

    def frames_of(self, samples: torch.Tensor) -> torch.Tensor:
        """Log-mel frames `(frames, feature_size)` of a recording `(samples,)`."""
        return whisper_log_mel(
            samples,
            sampling_rate=self.sampling_rate,
            fft_length=self.fft_length,
            hop_length=self.hop_length,
            bands=self.feature_size,
        ).T


__all__ = ["S3TokenizerFeatureExtractor"]
