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
"""A voice prepared once: the speaker vector of one or several reference recordings."""

from dataclasses import dataclass

import torch

from ...prepared_voice import PreparedVoice


@dataclass
class MetaVoiceVoice(PreparedVoice):
    """
    A voice, as [`MetaVoiceProcessor.prepare_voice`] makes it.

    Args:
        speaker_embedding (`torch.FloatTensor` of shape `(speaker_embed_size,)`):
            What the speaker encoder says of the recordings, of length 1.

    Raises:
        ValueError: the vector has several axes, is empty, zero or not finite.
    """

    file_format = "tts_models.metavoice.voice"

    speaker_embedding: torch.Tensor

    def __post_init__(self) -> None:
        vector = self.speaker_embedding
        if vector.dim() != 1 or not vector.numel():
            raise ValueError(f"`speaker_embedding` must have one axis and not be empty; got {tuple(vector.shape)}.")
        if not bool(vector.isfinite().all()) or not bool(vector.any()):
            raise ValueError("`speaker_embedding` must be finite and not zero: zero means no speaker.")


__all__ = ["MetaVoiceVoice"]
