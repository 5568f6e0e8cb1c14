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
"""Prompts of Qwen3-TTS as rows of talker inputs: what is read before the first frame, what is added to each frame."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from .modeling_qwen3_tts import Qwen3TTSForConditionalGeneration

# Ids around the spoken text in a tokenised turn: start, role, line break; and what closes it.
_HEAD, _SPEECH_TAIL, _REFERENCE_TAIL = 3, 5, 2


@dataclass
class PromptRow:
    """
    One text to speak, as ids.

    Args:
        input_ids: int64 `(length,)`, the tokenised turn with the text and the start of the answer.
        instruct_ids: int64 `(length,)`, a tokenised instruction, or `None`.
        reference_ids: int64 `(length,)`, the tokenised turn with the transcript of the reference, or `None`.
        reference_codes: int64 `(frames, num_code_groups)` of the reference; with a transcript the voice is cloned in
            context.
        speaker_embedding: `(hidden_size,)`, or `None`.
        speaker_id: Row of the codec table that holds a named speaker, or `None`.
        language_id: Row of the codec table, or `None` where the model decides.
        non_streaming_mode: Whether the whole text is read before the first frame.
    """

    input_ids: torch.LongTensor
    instruct_ids: torch.LongTensor | None = None
    reference_ids: torch.LongTensor | None = None
    reference_codes: torch.LongTensor | None = None
    speaker_embedding: torch.Tensor | None = None
    speaker_id: int | None = None
    language_id: int | None = None
    non_streaming_mode: bool = False

    @property
    def is_in_context(self) -> bool:
        """Whether the prompt holds the reference itself, and not only its voice."""
        return self.reference_codes is not None

    @property
    def length(self) -> int:
        """Positions of the prompt."""
        prefix = (3 if self.language_id is None else 4) + (self.speaker_id is not None)
        before = (0 if self.instruct_ids is None else len(self.instruct_ids)) + _HEAD + prefix + 1
        before += self.speaker_embedding is not None
        read = len(self.input_ids) - _HEAD - _SPEECH_TAIL + 1
        if not self.is_in_context:
            return before + (read + 1 if self.non_streaming_mode else 1)
        read += len(self.reference_ids) - _HEAD - _REFERENCE_TAIL
        return before + len(self.reference_codes) + 1 + (read if self.non_streaming_mode else 0)


@dataclass
class PromptBatch:
    """
    The prompts of a batch.

    Args:
        inputs_embeds: `(batch, length, hidden_size)`, zero-padded on the left.
        attention_mask: int64 `(batch, length)`, 0 for padding.
        trailing: `(batch, steps, hidden_size)`, text added to the frames one by one, padded with `pad_row`.
        pad_row: `(hidden_size,)`, added to every frame after that.
    """

    inputs_embeds: torch.Tensor
    attention_mask: torch.LongTensor
    trailing: torch.Tensor
    pad_row: torch.Tensor

    def text_row(self, frame: int) -> torch.Tensor:
        """What is added to the input after frame `frame`: text while there is some; `(batch or 1, hidden_size)`."""
        return self.trailing[:, frame] if frame < self.trailing.shape[1] else self.pad_row[None]


class PromptBuilder:
    """Sums text and codec rows into prompts.

    Args:
        model: Owner of the tables.
    """

    def __init__(self, model: "Qwen3TTSForConditionalGeneration") -> None:
        self.config, self.talker = model.config, model.talker
        device = model.device
        special = (self.config.tts_bos_token_id, self.config.tts_eos_token_id, self.config.tts_pad_token_id)
        rows = self.talker.embed_text(torch.tensor(special, device=device))
        self.tts_bos, self.tts_eos, self.tts_pad = rows.split(1)
        codec = self.config.talker_config
        rows = self.talker.embed_codec(torch.tensor((codec.codec_pad_id, codec.codec_bos_id), device=device))
        self.codec_pad, self.codec_bos = rows.split(1)

    def batch(self, rows: Sequence[PromptRow]) -> PromptBatch:
        """All prompts, padded to one length."""
        built = [self.build(row) for row in rows]
        length = max(len(prompt) for prompt, _ in built)
        steps = max(len(trailing) for _, trailing in built)
        inputs_embeds = torch.stack(
            [torch.cat([prompt.new_zeros(length - len(prompt), prompt.shape[-1]), prompt]) for prompt, _ in built]
        )
        lengths = torch.tensor([len(prompt) for prompt, _ in built], device=inputs_embeds.device)
        mask = torch.arange(length, device=inputs_embeds.device) >= length - lengths[:, None]
        trailing = torch.stack([torch.cat([rest, self.tts_pad.expand(steps - len(rest), -1)]) for _, rest in built])
        return PromptBatch(inputs_embeds, mask.long(), trailing, self.tts_pad[0])

    def build(self, row: PromptRow) -> tuple[torch.Tensor, torch.Tensor]:
        """One prompt `(length, hidden_size)`, and the text rows `(steps, hidden_size)` for its frames."""
        turn = self.talker.embed_text(row.input_ids)
        role, text = turn[:_HEAD], turn[_HEAD:-_SPEECH_TAIL]
        parts = [] if row.instruct_ids is None else [self.talker.embed_text(row.instruct_ids)]
        parts += [role, self.tts_pad + self._prefix(row), self.tts_bos + self.codec_pad]
        body, trailing = self._in_context(row, text) if row.is_in_context else self._alone(row, text)
        return torch.cat([*parts, body]), trailing

    def _prefix(self, row: PromptRow) -> torch.Tensor:
        """Language, and the speaker where there is one, `(positions, hidden_size)`."""
        codec = self.config.talker_config
        ids = [codec.codec_nothink_id, codec.codec_think_bos_id, codec.codec_think_eos_id]
        if row.language_id is not None:
            ids = [codec.codec_think_id, codec.codec_think_bos_id, row.language_id, codec.codec_think_eos_id]
        if row.speaker_id is not None:
            ids.append(row.speaker_id)
        prefix = self.talker.embed_codec(torch.tensor(ids, device=row.input_ids.device))
        if row.speaker_embedding is not None:
            prefix = torch.cat([prefix, row.speaker_embedding[None].to(prefix)])
        return prefix

    def _alone(self, row: PromptRow, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The text without a reference: all of it before the first frame, or one token there and one with each."""
        if row.non_streaming_mode:
            read = torch.cat([text, self.tts_eos]) + self.codec_pad
            return torch.cat([read, self.tts_pad + self.codec_bos]), self.tts_pad
        # The token after the role, which for an empty text is the end of the turn, as upstream.
        first = self.talker.embed_text(row.input_ids[_HEAD : _HEAD + 1])
        return first + self.codec_bos, torch.cat([text[1:], self.tts_eos])

    def _in_context(self, row: PromptRow, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Transcript and text over the codes of the reference, side by side or one after the other."""
        transcript = self.talker.embed_text(row.reference_ids[_HEAD:-_REFERENCE_TAIL])
        read = torch.cat([transcript, text, self.tts_eos])
        heard = torch.cat([self.codec_bos, self.talker.embed_frames(row.reference_codes)])
        if row.non_streaming_mode:
            return torch.cat([read + self.codec_pad, self.tts_pad + heard]), self.tts_pad
        if len(read) > len(heard):
            return read[: len(heard)] + heard, read[len(heard) :]
        return torch.cat([read, self.tts_pad.expand(len(heard) - len(read), -1)]) + heard, self.tts_pad


__all__ = ["PromptBatch", "PromptBuilder", "PromptRow"]
