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
"""A voice prepared once: the speaker vector of a recording and, for cloning in context, its codes and transcript."""

from dataclasses import dataclass
from os import PathLike

import torch

from ...files import write_tensors
from ...speech_inputs import read_voice_file


_FORMAT = "tts_models.qwen3_tts.voice"


@dataclass
class Qwen3TTSVoice:
    """
    A voice for a `"base"` model, as [`Qwen3TTSProcessor.prepare_voice`] makes it; fits models of the same width.

    Args:
        speaker_embedding (`torch.FloatTensor` of shape `(hidden_size,)`):
            The speaker vector.
        reference_codes (`torch.LongTensor` of shape `(frames, num_code_groups)`, *optional*):
            The recording as codes; with them the voice is cloned in context.
        transcript (`str`, *optional*):
            What is said in the recording; belongs to `reference_codes`.

    Raises:
        ValueError: one of codes and transcript is missing, or a shape is wrong.
    """

    speaker_embedding: torch.Tensor
    reference_codes: torch.LongTensor | None = None
    transcript: str | None = None

    def __post_init__(self) -> None:
        if self.speaker_embedding.dim() != 1:
            raise ValueError(f"`speaker_embedding` must be 1-D; got shape {tuple(self.speaker_embedding.shape)}.")
        if (self.reference_codes is None) != (self.transcript is None):
            raise ValueError("`reference_codes` and `transcript` belong together: give both or neither.")
        if self.reference_codes is not None and (self.reference_codes.dim() != 2 or not len(self.reference_codes)):
            raise ValueError(
                "`reference_codes` must have the shape (frames, num_code_groups) with at least one frame; "
                f"got {tuple(self.reference_codes.shape)}."
            )

    def save(self, path: str | PathLike) -> None:
        """Write the voice to one safetensors file."""
        tensors = {"speaker_embedding": self.speaker_embedding.float()}
        metadata = {"format": _FORMAT}
        if self.reference_codes is not None:
            tensors["reference_codes"] = self.reference_codes.long()
            metadata["transcript"] = self.transcript
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | PathLike) -> "Qwen3TTSVoice":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else.
        """
        tensors, metadata = read_voice_file(path, _FORMAT)
        if "speaker_embedding" not in tensors:
            raise ValueError(f"`path` {str(path)!r} holds no `speaker_embedding`.")
        return cls(tensors["speaker_embedding"], tensors.get("reference_codes"), metadata.get("transcript"))


__all__ = ["Qwen3TTSVoice"]
