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
"""Feature extractor of CAM++: Kaldi's filter bank, centred over the recording."""

from typing import Any

import torch

from ...audio.mel import kaldi_filter_bank
from ...audio.mel_features import MelFeatureExtractor


class CAMPPlusFeatureExtractor(MelFeatureExtractor):
    r"""
    Turns recordings into the filter-bank frames of [`CAMPPlusModel`]: 100 a second, without dither, minus each
    recording's mean.

    Args:
        feature_size (`int`, defaults to 80): Mel bands.
        sampling_rate (`int`, defaults to 16000): Rate of the recordings, in Hz.
        padding_value (`float`, defaults to 0.0): Value of the padding.
    """

    def __init__(
        self, feature_size: int = 80, sampling_rate: int = 16000, padding_value: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)

    @property
    def min_samples(self) -> int:
        """The shortest recording: three frames, which leave two for the standard deviation."""
        return self.sampling_rate * 25 // 1000 + 2 * (self.sampling_rate // 100)

    def frames_of(self, samples: torch.Tensor) -> torch.Tensor:
        """Centred filter-bank frames `(frames, feature_size)` of a recording `(samples,)`."""
        frames = kaldi_filter_bank(samples, sampling_rate=self.sampling_rate, bands=self.feature_size)
        return frames - frames.mean(0)


__all__ = ["CAMPPlusFeatureExtractor"]
