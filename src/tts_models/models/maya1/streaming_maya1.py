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
"""Frames of codes to sound while they are generated: exact SNAC streams for the rows of a token loop."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from ...streaming.schedule import EmitSchedule
from ..snac import SnacModel
from .audio_tokens_maya1 import AudioTokenLayout
from .decoding_maya1 import FrameStep


def split_levels(codes: torch.LongTensor, layout: AudioTokenLayout) -> tuple[torch.LongTensor, ...]:
    """Codes in slot order `(batch, frames, slots)` to one `(batch, frames * codes_per_frame)` tensor per level."""
    columns: list[list[int]] = [[] for _ in layout.strides]
    for slot, (level, _) in enumerate(layout.slots):
        columns[level].append(slot)
    return tuple(codes[..., places].flatten(1) for places in columns)


@dataclass
class SpeechPiece:
    """New samples of some rows.

    Args:
        audio: One 1-D float32 waveform per row that has something new or ended.
        ended: Rows that are complete now, and why.
    """

    audio: dict[int, torch.Tensor]
    ended: dict[int, str] = field(default_factory=dict)


class _RowGroup:
    """Rows whose frames arrive together and share one SNAC stream."""

    def __init__(self, rows: list[int], stream: object, layout: AudioTokenLayout, schedule: EmitSchedule) -> None:
        self.rows, self.stream, self.layout, self.schedule = rows, stream, layout, schedule
        self.waiting: list[torch.LongTensor] = []

    def push(self, codes: torch.LongTensor) -> dict[int, torch.Tensor]:
        """Take one frame `(rows, slots)`; samples per row when a chunk is due and the codec has some."""
        self.waiting.append(codes)
        if not self.schedule.is_due(len(self.waiting)):
            return {}
        audio = self._decode_waiting()
        return dict(zip(self.rows, audio, strict=True)) if audio.shape[-1] else {}

    def finish(self) -> dict[int, torch.Tensor]:
        """The remaining samples of every row."""
        pieces = [self._decode_waiting()] if self.waiting else []
        pieces.append(self.stream.flush().float())
        return dict(zip(self.rows, torch.cat(pieces, -1), strict=True))

    def split_off(self, rows: list[int]) -> "_RowGroup":
        """Take `rows` out into a group of their own."""
        taken = [place for place, row in enumerate(self.rows) if row in rows]
        kept = [place for place, row in enumerate(self.rows) if row not in rows]
        group = self._select(taken) if kept else self
        if kept:
            rest = self._select(kept)
            self.rows, self.stream, self.waiting = rest.rows, rest.stream, rest.waiting
        return group

    def _select(self, places: list[int]) -> "_RowGroup":
        index = torch.tensor(places)
        rows = [self.rows[place] for place in places]
        group = _RowGroup(rows, self.stream.select_rows(index), self.layout, self.schedule)
        group.waiting = [codes[index.to(codes.device)] for codes in self.waiting]
        return group

    def _decode_waiting(self) -> torch.Tensor:
        codes, self.waiting = torch.stack(self.waiting, 1), []
        return self.stream.push(split_levels(codes, self.layout)).float()


def stream_speech(
    frames: Iterable[FrameStep],
    codec: SnacModel,
    layout: AudioTokenLayout,
    generators: Sequence[torch.Generator],
    noise_scale: float,
    make_schedule: Callable[[], EmitSchedule],
    in_step: bool,
) -> Iterator[SpeechPiece]:
    """Decode the frames of a token loop as they come.

    Args:
        frames: The running loop.
        codec: The codec.
        layout: The audio ids.
        generators: Source of each row's noise.
        noise_scale: Factor of the noise.
        make_schedule: Builds the schedule of a group of rows.
        in_step: Whether all rows get their frames at the same time (the slot constraint sees to it): they then share
            one stream, and a row leaves it when it ends.
    """
    members = [list(range(len(generators)))] if in_step else [[row] for row in range(len(generators))]
    groups = []
    for rows in members:
        stream = codec.decoder_stream(len(rows), [generators[row] for row in rows], noise_scale)
        groups.append(_RowGroup(rows, stream, layout, make_schedule()))
    for step in frames:
        for group in list(groups):
            done = [row for row in group.rows if row in step.ended]
            if done:
                finished = group.split_off(done)
                if finished is group:
                    groups.remove(group)
                yield SpeechPiece(finished.finish(), {row: step.ended[row] for row in done})
        for group in groups:
            if step.codes is not None and group.rows[0] in step.rows:
                places = [step.rows.index(row) for row in group.rows]
                audio = group.push(step.codes[places])
                if audio:
                    yield SpeechPiece(audio)


__all__ = ["SpeechPiece", "split_levels", "stream_speech"]
