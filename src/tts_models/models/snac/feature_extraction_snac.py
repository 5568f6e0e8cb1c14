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
"""Feature extractor of SNAC: raw audio to padded batches."""

from ...audio.raw_features import RawAudioFeatureExtractor


class SnacFeatureExtractor(RawAudioFeatureExtractor):
    r"""
    Pads raw mono audio to a batch that [`SnacModel`] encodes.

    Args:
        feature_size (`int`, defaults to 1): Channels of the audio; only 1 is supported.
        sampling_rate (`int`, defaults to 24000): Sampling rate of the codec, in Hz.
        padding_value (`float`, defaults to 0.0): Value of the padding.
        hop_length (`int`, defaults to 512): Samples per latent step.
        pad_to_multiple_of (`int`, defaults to 2048): Length in samples that batches are padded to a multiple of.
    """

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 24000,
        padding_value: float = 0.0,
        hop_length: int = 512,
        pad_to_multiple_of: int = 2048,
        **kwargs,
    ):
        super().__init__(
            feature_size=feature_size,
            sampling_rate=sampling_rate,
            padding_value=padding_value,
            pad_to_multiple_of=pad_to_multiple_of,
            **kwargs,
        )
        self.hop_length = hop_length


__all__ = ["SnacFeatureExtractor"]
