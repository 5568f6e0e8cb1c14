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
"""Frames of codes to sound while they are generated, exactly: the codec keeps its state from chunk to chunk."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from ..qwen3_tts_tokenizer import Qwen3TTSTokenizerModel
from .decoding_qwen3_tts import FrameStep


class Schedule(Protocol):
    """Says when frames are decoded."""

    def is_due(self, frames: int) -> bool:
        """Whether `frames` waiting frames make a chunk."""


@dataclass
class SpeechPiece:
    """New samples of some rows.

    Args:
        audio: One 1-D float32 waveform per row that has something new or ended.
        ended: Rows that are complete now, and why.
    """

    audio: dict[int, torch.Tensor]
    ended: dict[int, str] = field(default_factory=dict)


class SpeechStream:
    """The codec's stream of the rows that still speak, and their frames that wait for it.

    Args:
        codec: The codec.
        references: Codes `(frames, num_code_groups)` that each row goes on from, or `None`; their own sound is left
            out.
    """

    def __init__(self, codec: Qwen3TTSTokenizerModel, references: Sequence[torch.LongTensor | None]) -> None:
        self.rows = list(range(len(references)))
        self.waiting: list[torch.LongTensor] = []
        self.device = codec.device
        if all(codes is None for codes in references):
            self.stream = codec.decoder_stream(len(references))
            return
        streams = [codec.decoder_stream(1, None if codes is None else codes[None]) for codes in references]
        self.stream = type(streams[0]).join(streams)

    def decode_waiting(self) -> dict[int, torch.Tensor]:
        """New samples of every row."""
        audio = self._decode(list(range(len(self.rows))))
        self.waiting = []
        return audio

    def finish(self, ended: Iterable[int]) -> dict[int, torch.Tensor]:
        """The rest of the samples of the rows `ended`, which leave; the frames of the others go on waiting."""
        taken = [place for place, row in enumerate(self.rows) if row in ended]
        kept = [place for place, row in enumerate(self.rows) if row not in ended]
        audio = self._decode(taken, leave=True)
        if kept:
            index = torch.tensor(kept)
            self.stream = self.stream.select_rows(index)
            self.waiting = [codes[index.to(codes.device)] for codes in self.waiting]
        self.rows = [self.rows[place] for place in kept]
        return audio

    def _decode(self, places: list[int], leave: bool = False) -> dict[int, torch.Tensor]:
        if not self.waiting:
            return {self.rows[place]: torch.zeros(0, device=self.device) for place in places}
        index, stream = torch.tensor(places), self.stream
        if leave:
            stream = stream.select_rows(index)
        codes = torch.stack(self.waiting, dim=1)
        audio = stream.push(codes[index.to(codes.device)]).float()
        return {self.rows[place]: audio[number] for number, place in enumerate(places)}


def stream_speech(
    steps: Iterable[FrameStep],
    codec: Qwen3TTSTokenizerModel,
    references: Sequence[torch.LongTensor | None],
    schedule: Schedule,
) -> Iterator[SpeechPiece]:
    """Decode the frames of a running loop as they come.

    Args:
        steps: The loop.
        codec: The codec.
        references: As of [`SpeechStream`].
        schedule: Says when a chunk is due, for all rows: their frames come at the same time.
    """
    stream = SpeechStream(codec, references)
    for step in steps:
        if step.ended:
            yield SpeechPiece(stream.finish(step.ended), step.ended)
        if step.codes is not None:
            stream.waiting.append(step.codes)
            if schedule.is_due(len(stream.waiting)):
                yield SpeechPiece(stream.decode_waiting())


__all__ = ["SpeechPiece", "SpeechStream", "stream_speech"]
