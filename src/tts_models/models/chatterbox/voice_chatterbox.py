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
"""A voice prepared once: what T3 reads of a reference recording, and what S3Gen needs of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...prepared_voice import PreparedVoice
from ..s3gen import join_references


@dataclass
class ChatterboxVoice(PreparedVoice):
    """
    A voice, as [`ChatterboxProcessor.prepare_voice`] makes it; fits every checkpoint of the same variant.

    Args:
        speaker_embedding (`torch.FloatTensor` of shape `(speaker_embed_size,)`):
            What the voice encoder says of the recording.
        prompt_tokens (`torch.LongTensor` of shape `(prompt_length,)`):
            Speech tokens of the recording, which T3 reads.
        reference_tokens (`torch.LongTensor` of shape `(tokens,)`):
            Speech tokens from which S3Gen goes on.
        reference_features (`torch.FloatTensor` of shape `(frames, mel_bins)`):
            Mel frames from which S3Gen goes on.
        reference_embedding (`torch.FloatTensor` of shape `(s3gen speaker_embed_dim,)`):
            S3Gen's own speaker vector.

    Raises:
        ValueError: a tensor has another number of axes, or is empty.
    """

    file_format = "tts_models.chatterbox.voice"

    speaker_embedding: torch.Tensor
    prompt_tokens: torch.LongTensor
    reference_tokens: torch.LongTensor
    reference_features: torch.Tensor
    reference_embedding: torch.Tensor

    def __post_init__(self) -> None:
        for name, value in self.tensors().items():
            axes = 2 if name == "reference_features" else 1
            if value.dim() != axes or (not value.numel() and name != "prompt_tokens"):
                raise ValueError(f"`{name}` must have {axes} axes and not be empty; got shape {tuple(value.shape)}.")

    @property
    def reference(self) -> dict[str, Any]:
        """S3Gen's part as its `ref_dict`."""
        return join_voices([self])

    @classmethod
    def from_parts(
        cls, speaker_embedding: torch.Tensor, prompt_tokens: torch.LongTensor, reference: dict[str, Any]
    ) -> "ChatterboxVoice":
        """A voice from its parts.

        Args:
            speaker_embedding: `(speaker_embed_size,)`.
            prompt_tokens: int64 `(prompt_length,)`.
            reference: S3Gen's `ref_dict` of one recording.
        """
        return cls(
            speaker_embedding,
            prompt_tokens.long(),
            reference["prompt_token"][0].long(),
            reference["prompt_feat"][0].float(),
            reference["embedding"][0],
        )


def join_voices(voices: Sequence[ChatterboxVoice]) -> dict[str, Any]:
    """S3Gen's `ref_dict` of several voices, one row each, padded."""
    return join_references(
        [
            {
                "prompt_token": voice.reference_tokens[None],
                "prompt_feat": voice.reference_features[None],
                "embedding": voice.reference_embedding[None],
            }
            for voice in voices
        ]
    )


__all__ = ["ChatterboxVoice"]
