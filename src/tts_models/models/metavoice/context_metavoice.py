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
"""What a part of a long text goes on from: the texts and codes of the parts before it, as far as they fit."""

import math

import torch

from .request_metavoice import MetaVoicePart


# Room kept for a part, beside what the parts before lead one to expect.
_MARGIN = 1.5


class TextHistory:
    """The parts of one text that have been spoken.

    Args:
        first_room: Positions of the first stage.
        second_room: Positions of the second stage.
        num_codebooks: Codes that the first stage writes per frame.
        is_used: Whether parts go on from one another at all.
    """

    def __init__(self, first_room: int, second_room: int, num_codebooks: int, is_used: bool = True) -> None:
        self.first_room, self.second_room = first_room, second_room
        self.num_codebooks, self.is_used = num_codebooks, is_used
        self.spoken: list[tuple[MetaVoicePart, torch.LongTensor]] = []

    def add(self, part: MetaVoicePart, codes: torch.LongTensor | None, reason: str) -> None:
        """Keep what has become of a part.

        A part that was cut, or said nothing, is nothing to go on from: its text and its codes do not agree.

        Args:
            part: The part.
            codes: int64 `(codebooks, frames)`; of more than the first stage's codebooks the first are kept.
            reason: Why it ended.
        """
        if not self.is_used:
            return
        if reason != "stop" or codes is None or not codes.shape[1]:
            self.spoken = []
            return
        self.spoken.append((part, codes[: self.num_codebooks].cpu()))

    def before(self, part: MetaVoicePart) -> tuple[list[int], torch.LongTensor]:
        """The tokenizer's ids that are read for a part, its own last, and the codes `(codebooks, frames)` before it.

        As many of the last parts stand before it as leave room for what it is expected to need.
        """
        expected = self._expected_frames(part)
        while self.spoken:
            text = [*self.spoken[0][0].text_ids]
            for earlier, _ in self.spoken[1:]:
                text += earlier.continued_ids
            text += part.continued_ids
            codes = torch.cat([codes for _, codes in self.spoken], dim=1)
            if self._fits(len(text), codes.shape[1] + expected):
                return text, codes
            # What does not fit now never fits again.
            del self.spoken[0]
        return part.text_ids, torch.zeros(self.num_codebooks, 0, dtype=torch.long)

    def _expected_frames(self, part: MetaVoicePart) -> int:
        if not self.spoken:
            return 0
        ids = sum(len(earlier.continued_ids) for earlier, _ in self.spoken)
        frames = sum(codes.shape[1] for _, codes in self.spoken)
        return math.ceil(_MARGIN * frames / max(ids, 1) * len(part.continued_ids))

    def _fits(self, num_text_ids: int, frames: int) -> bool:
        needs_first = num_text_ids + 1 + self.num_codebooks * frames + 1
        return needs_first <= self.first_room and num_text_ids + 2 + frames <= self.second_room


__all__ = ["TextHistory"]
