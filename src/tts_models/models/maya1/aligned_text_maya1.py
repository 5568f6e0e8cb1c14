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
"""Text inside the stream of audio tokens: each piece of it stands where it is about to be spoken.

A small language model spends most of its training on finding out which part of the prompt it is speaking. A checkpoint
with aligned text is told: the units of the text (a phoneme with the blanks and punctuation after it) are repeated in
the stream, each one some units before it is spoken, and between two frames the model only decides whether the unit in
hand is over. No unit can be skipped or said twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


IGNORED_LABEL = -100
# A unit ends at the median of the durations that the model thinks possible.
_MEDIAN = 0.5


@dataclass(frozen=True)
class AlignedTextLayout:
    """How text stands in the stream.

    The stream starts with the first `lookahead + 1` units. Where unit `n` begins to be spoken, unit `n + lookahead`
    follows, or `end_of_text_id` when there are no more.

    Args:
        first_unit_id: Lowest id that starts a unit.
        last_unit_id: Highest id that starts a unit.
        next_id: What the model writes where the next unit follows; it is never read.
        end_of_text_id: The id that follows the text in the prompt.
        lookahead: Units read ahead of the one that is spoken.
    """

    first_unit_id: int
    last_unit_id: int
    next_id: int
    end_of_text_id: int
    lookahead: int = 1

    def units(self, prompt: Sequence[int]) -> list[list[int]]:
        """The units of a prompt: each starts at an id of the range and takes the ids up to the next.

        Raises:
            ValueError: the prompt holds none.
        """
        units: list[list[int]] = []
        for token_id in prompt:
            if self.first_unit_id <= token_id <= self.last_unit_id:
                units.append([token_id])
            elif units and token_id == self.end_of_text_id:
                return units
            elif units:
                units[-1].append(token_id)
        raise ValueError("`input_ids` holds no text that this checkpoint can speak: make it with its processor.")

    def unit(self, units: Sequence[list[int]], number: int) -> list[int]:
        """Unit `number`, or the end of the text after the last one."""
        return units[number] if number < len(units) else [self.end_of_text_id]

    def opening(self, units: Sequence[list[int]]) -> list[int]:
        """The ids that the stream starts with."""
        return [token_id for number in range(self.lookahead + 1) for token_id in self.unit(units, number)]

    def interleave(
        self, units: Sequence[list[int]], frames: Sequence[list[int]], unit_of_frame: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """The stream of one utterance, for training.

        Args:
            units: The units of its text.
            frames: The audio ids of each frame.
            unit_of_frame: Number of the unit spoken in each frame; never falls.

        Returns:
            Ids and labels of equal length. Where a unit follows, the label is `next_id`.
        """
        ids = self.opening(units)
        labels = [IGNORED_LABEL] * len(ids)
        spoken = 0
        for frame, number in zip([*frames, []], [*unit_of_frame, len(units) - 1], strict=True):
            while spoken < number:
                spoken += 1
                unit = self.unit(units, spoken + self.lookahead)
                ids += unit
                labels += [self.next_id] + [IGNORED_LABEL] * (len(unit) - 1)
            ids += frame
            labels += frame
        return ids, labels

    def frames_per_unit(self, stream: Sequence[int], slots: int) -> list[int]:
        """Frames spoken of each unit, from a generated stream.

        Args:
            stream: The ids after the prompt, up to the end of the speech.
            slots: Audio ids per frame.
        """
        counts, opened = [0], 0
        for token_id in stream:
            if token_id == self.end_of_text_id or self.first_unit_id <= token_id <= self.last_unit_id:
                opened += 1
                counts += [0] * (opened > self.lookahead + 1)
            elif opened > self.lookahead:
                counts[-1] += 1
        return [count // slots for count in counts]


def units_of_frames(unit_ends: Sequence[float], frames: int, frame_seconds: float) -> list[int]:
    """Number of the unit spoken in the middle of each frame.

    Args:
        unit_ends: Time in seconds at which each unit ends.
        frames: Number of frames.
        frame_seconds: Length of a frame in seconds.
    """
    middles = (torch.arange(frames) + 0.5) * frame_seconds
    ends = torch.tensor(unit_ends, dtype=torch.float32)
    return torch.searchsorted(ends, middles).clamp(max=len(unit_ends) - 1).tolist()


class AlignedText:
    """Where one row is in its text.

    Args:
        layout: How text stands in the stream.
        prompt: Ids of the row's prompt.
    """

    def __init__(self, layout: AlignedTextLayout, prompt: Sequence[int]) -> None:
        self.layout, self.units = layout, layout.units(prompt)
        self.spoken = 0
        self._survival = 1.0

    @property
    def is_last(self) -> bool:
        """Whether the unit in hand is the last one."""
        return self.spoken == len(self.units) - 1

    def is_over(self, probability: float) -> bool:
        """Whether the unit in hand ends here, when the model thinks so with `probability`.

        The chance that it lasts longer is the product over the frames; the unit ends where that falls below one half.
        """
        self._survival *= 1 - probability
        return self._survival < _MEDIAN

    def advance(self) -> list[int]:
        """Begin the next unit; returns the ids that the model reads."""
        self.spoken += 1
        self._survival = 1.0
        return self.layout.unit(self.units, self.spoken + self.layout.lookahead)


__all__ = ["AlignedText", "AlignedTextLayout", "units_of_frames"]
