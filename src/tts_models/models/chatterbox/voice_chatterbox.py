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
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import torch

from ...files import write_tensors
from ...speech_inputs import read_voice_file
from ..s3gen import join_references


_FORMAT = "tts_models.chatterbox.voice"


@dataclass
class ChatterboxVoice:
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

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

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

    def to(self, device: torch.device | str) -> "ChatterboxVoice":
        """The same voice on another device."""
        return ChatterboxVoice(**{name: value.to(device) for name, value in self.tensors().items()})

    def save(self, path: str | PathLike) -> None:
        """Write the voice to one safetensors file."""
        tensors = self.tensors().items()
        stored = {name: value.float() if value.is_floating_point() else value for name, value in tensors}
        write_tensors(path, stored, {"format": _FORMAT})

    @classmethod
    def load(cls, path: str | PathLike) -> "ChatterboxVoice":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else.
        """
        tensors, _ = read_voice_file(path, _FORMAT)
        names = {each.name for each in fields(cls)}
        if set(tensors) != names:
            raise ValueError(f"`path` {str(path)!r} must hold {sorted(names)}; it holds {sorted(tensors)}.")
        return cls(**tensors)


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
