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
"""Log-mel frames for the speaker encoder of Qwen3-TTS, and waveforms for its codec."""

from typing import Any

import torch

from ...audio.mel import log_mel_spectrogram
from ...audio.mel_features import MelFeatureExtractor


class Qwen3TTSFeatureExtractor(MelFeatureExtractor):
    r"""
    Turns reference recordings into the log-mel frames of [`Qwen3TTSSpeakerEncoder`]. The level is not normalised.

    Args:
        feature_size (`int`, *optional*, defaults to 128): Mel bands.
        sampling_rate (`int`, *optional*, defaults to 24000): Rate of the recordings, in Hz.
        padding_value (`float`, *optional*, defaults to 0.0): Value of the padding.
        fft_length (`int`, *optional*, defaults to 1024): Samples of a window.
        hop_length (`int`, *optional*, defaults to 256): Samples between windows.
        min_frequency (`float`, *optional*, defaults to 0.0): Lower edge of the bands, in Hz.
        max_frequency (`float`, *optional*): Upper edge of the bands, in Hz; half the rate by default.
        mel_floor (`float`, *optional*, defaults to 1e-5): Least energy of a band, before the logarithm.
    """

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 24000,
        padding_value: float = 0.0,
        fft_length: int = 1024,
        hop_length: int = 256,
        min_frequency: float = 0.0,
        max_frequency: float | None = None,
        mel_floor: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.min_frequency = min_frequency
        self.max_frequency = sampling_rate / 2 if max_frequency is None else max_frequency
        self.mel_floor = mel_floor

    @property
    def min_samples(self) -> int:
        """The shortest recording: five frames, as the speaker encoder reflects its edges."""
        return self.fft_length + self.hop_length

    def check_recording(self, recording: Any, name: str = "raw_audio") -> torch.Tensor:
        """A recording as float32 `(samples,)`.

        Raises:
            ValueError: it is too short, silent, not mono, or holds NaN or infinite samples.
        """
        samples = super().check_recording(recording, name)
        if not samples.any():
            raise ValueError(f"`{name}` is silent: there is no voice in it.")
        return samples

    def frames_of(self, samples: torch.Tensor) -> torch.Tensor:
        """Log-mel frames `(frames, feature_size)` of a recording `(samples,)`."""
        return log_mel_spectrogram(
            samples,
            sampling_rate=self.sampling_rate,
            fft_length=self.fft_length,
            hop_length=self.hop_length,
            bands=self.feature_size,
            low=self.min_frequency,
            high=self.max_frequency,
            floor=self.mel_floor,
        ).T


__all__ = ["Qwen3TTSFeatureExtractor"]
