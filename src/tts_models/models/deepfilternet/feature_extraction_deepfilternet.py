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
"""Feature extractor of DeepFilterNet: raw audio."""

from typing import Any

from ...audio.raw_features import RawAudioFeatureExtractor


class DeepFilterNetFeatureExtractor(RawAudioFeatureExtractor):
    r"""
    Pads raw mono audio to a batch that [`DeepFilterNetModel`] enhances.

    Args:
        feature_size (`int`, *optional*, defaults to 1): Channels of the audio; only 1 is supported.
        sampling_rate (`int`, *optional*, defaults to 48000): Sampling rate of the model, in Hz.
        padding_value (`float`, *optional*, defaults to 0.0): Value of the padding.
    """

    def __init__(
        self, feature_size: int = 1, sampling_rate: int = 48000, padding_value: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)


__all__ = ["DeepFilterNetFeatureExtractor"]
