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
from os import PathLike

import torch

from ...files import write_tensors
from ...speech_inputs import read_voice_file


_FORMAT = "tts_models.metavoice.voice"


@dataclass
class MetaVoiceVoice:
    """
    A voice, as [`MetaVoiceProcessor.prepare_voice`] makes it.

    Args:
        speaker_embedding (`torch.FloatTensor` of shape `(speaker_embed_size,)`):
            What the speaker encoder says of the recordings, of length 1.

    Raises:
        ValueError: the vector has several axes, is empty, zero or not finite.
    """

    speaker_embedding: torch.Tensor

    def __post_init__(self) -> None:
        vector = self.speaker_embedding
        if vector.dim() != 1 or not vector.numel():
            raise ValueError(f"`speaker_embedding` must have one axis and not be empty; got {tuple(vector.shape)}.")
        if not bool(vector.isfinite().all()) or not bool(vector.any()):
            raise ValueError("`speaker_embedding` must be finite and not zero: zero means no speaker.")

    def save(self, path: str | PathLike) -> None:
        """Write the voice to one safetensors file."""
        write_tensors(path, {"speaker_embedding": self.speaker_embedding.float()}, {"format": _FORMAT})

    @classmethod
    def load(cls, path: str | PathLike) -> "MetaVoiceVoice":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else.
        """
        tensors, _ = read_voice_file(path, _FORMAT)
        if set(tensors) != {"speaker_embedding"}:
            raise ValueError(f"`path` {str(path)!r} must hold `speaker_embedding`; it holds {sorted(tensors)}.")
        return cls(**tensors)


__all__ = ["MetaVoiceVoice"]
