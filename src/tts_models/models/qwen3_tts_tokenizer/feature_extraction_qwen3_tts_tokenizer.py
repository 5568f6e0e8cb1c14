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
"""Feature extractor of the Qwen3-TTS tokenizer: raw audio to padded batches."""

from ...audio.raw_features import RawAudioFeatureExtractor


class Qwen3TTSTokenizerFeatureExtractor(RawAudioFeatureExtractor):
    r"""
    Pads raw mono audio to a batch that [`Qwen3TTSTokenizerModel`] encodes.

    Args:
        feature_size (`int`, defaults to 1): Channels of the audio; only 1 is supported.
        sampling_rate (`int`, defaults to 24000): Sampling rate of the codec, in Hz.
        padding_value (`float`, defaults to 0.0): Value of the padding.
        pad_to_multiple_of (`int`, *optional*): Length in samples that batches are padded to a multiple of. The codes
            do not depend on it.
    """


__all__ = ["Qwen3TTSTokenizerFeatureExtractor"]
