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
"""Feature extraction of MegaTTS3: how a reference recording is padded, and the mel frames that the aligner hears."""

import numpy as np
import torch

from ...audio import resample
from ...audio.mel import whisper_log_mel
from ...audio.mel_features import MelFeatureExtractor


class MegaTTS3FeatureExtractor(MelFeatureExtractor):
    r"""
    Log-mel frames of recordings for the aligner: Whisper's, without padding to 30 s.

    Args:
        feature_size (`int`, *optional*, defaults to 80):
            Mel bands.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Rate of the recordings, in Hz.
        padding_value (`float`, *optional*, defaults to 0.0):
            Value of the padding.
        frames_multiple (`int`, *optional*, defaults to 8):
            Frames are cut to a multiple of it.
        fft_length, hop_length (`int`, *optional*, defaults to 400 and 160):
            Samples of a window, and between windows.
        reference_rate (`int`, *optional*, defaults to 24000):
            Rate of the reference recordings that `pad_reference` takes, in Hz.
        reference_window (`int`, *optional*, defaults to 1200):
            They are padded to one sample less than a multiple of it.
        reference_silence (`int`, *optional*, defaults to 12000):
            Silence after that, in samples.
    """

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16000,
        padding_value: float = 0.0,
        frames_multiple: int = 8,
        fft_length: int = 400,
        hop_length: int = 160,
        reference_rate: int = 24000,
        reference_window: int = 1200,
        reference_silence: int = 12000,
        **kwargs,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.frames_multiple = frames_multiple
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.reference_rate = reference_rate
        self.reference_window = reference_window
        self.reference_silence = reference_silence

    @property
    def min_samples(self) -> int:
        """The shortest recording that gives a frame."""
        return max(self.frames_multiple * self.hop_length, self.fft_length // 2 + 1)

    def frames_of(self, samples: torch.Tensor) -> torch.Tensor:
        """Frames `(frames, feature_size)` of a recording `(samples,)`, a multiple of `frames_multiple` of them."""
        mel = whisper_log_mel(
            samples,
            sampling_rate=self.sampling_rate,
            fft_length=self.fft_length,
            hop_length=self.hop_length,
            bands=self.feature_size,
        )
        return mel[:, : mel.shape[1] // self.frames_multiple * self.frames_multiple].T

    def pad_reference(self, samples: np.ndarray) -> np.ndarray:
        """A reference recording as the models hear it: padded to whole windows, with silence after it.

        Args:
            samples: float32 `(samples,)` at `reference_rate`.
        """
        missing = self.reference_window - 1 - len(samples) % self.reference_window
        return np.pad(samples, (0, missing + self.reference_silence))

    def reference_features(self, padded: np.ndarray) -> torch.Tensor:
        """Frames `(frames, feature_size)` of a padded reference `(samples,)` at `reference_rate`."""
        return self.frames_of(self.check_recording(self.resample_reference(padded), "voice"))

    def resample_reference(self, padded: np.ndarray) -> np.ndarray:
        """A padded reference `(samples,)` at the aligner's rate; a last fraction of a sample counts as one."""
        heard = resample(padded, self.reference_rate, self.sampling_rate)
        length = -(-len(padded) * self.sampling_rate // self.reference_rate)
        return np.pad(heard[:length], (0, max(length - len(heard), 0)))


__all__ = ["MegaTTS3FeatureExtractor"]
