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

from ..qwen3_tts_tokenizer import Qwen3TTSTokenizerDecoderStream, Qwen3TTSTokenizerModel
from .decoding_qwen3_tts import FrameStep
from .windowed_qwen3_tts import WindowedStream


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


CodecStream = Qwen3TTSTokenizerDecoderStream | WindowedStream


def exact_stream(
    codec: Qwen3TTSTokenizerModel, references: Sequence[torch.LongTensor | None]
) -> Qwen3TTSTokenizerDecoderStream:
    """A stream of the codec whose rows go on from their references.

    Args:
        codec: The codec.
        references: Codes `(frames, num_code_groups)` of each row, or `None`; their own sound is left out.
    """
    if all(codes is None for codes in references):
        return codec.decoder_stream(len(references))
    streams = [codec.decoder_stream(1, None if codes is None else codes[None]) for codes in references]
    return Qwen3TTSTokenizerDecoderStream.join(streams)


class SpeechStream:
    """The codec's stream of the rows that still speak, and their frames that wait for it.

    Args:
        stream: The codec's stream.
        rows: How many rows there are.
        device: Where the sound is wanted.
    """

    def __init__(self, stream: CodecStream, rows: int, device: torch.device) -> None:
        self.stream, self.rows, self.device = stream, list(range(rows)), device
        self.waiting: list[torch.LongTensor] = []

    def decode_waiting(self) -> dict[int, torch.Tensor]:
        """New samples of every row."""
        if not self.waiting:
            return {}
        audio = self.stream.push(torch.stack(self.waiting, dim=1)).float()
        self.waiting = []
        return dict(zip(self.rows, audio, strict=True))

    def finish(self, ended: Iterable[int]) -> dict[int, torch.Tensor]:
        """The rest of the samples of the rows `ended`, which leave; the frames of the others go on waiting."""
        taken = [place for place, row in enumerate(self.rows) if row in ended]
        kept = [place for place, row in enumerate(self.rows) if row not in ended]
        index = torch.tensor(taken)
        pieces = self._rest(self.stream.select_rows(index), [codes[index.to(codes.device)] for codes in self.waiting])
        audio = {self.rows[place]: pieces[number] for number, place in enumerate(taken)}
        if kept:
            index = torch.tensor(kept)
            self.stream = self.stream.select_rows(index)
            self.waiting = [codes[index.to(codes.device)] for codes in self.waiting]
        self.rows = [self.rows[place] for place in kept]
        return audio

    def _rest(self, stream: CodecStream, waiting: list[torch.LongTensor]) -> torch.Tensor:
        """What rows that leave still have to say, `(batch, samples)`."""
        pieces = [torch.zeros(stream.batch_size, 0, device=self.device)]
        if waiting:
            pieces.append(stream.push(torch.stack(waiting, dim=1)).float())
        if isinstance(stream, WindowedStream):
            pieces.append(stream.flush())
        return torch.cat(pieces, dim=1)


def stream_speech(
    steps: Iterable[FrameStep], stream: CodecStream, rows: int, device: torch.device, schedule: Schedule
) -> Iterator[SpeechPiece]:
    """Decode the frames of a running loop as they come.

    Args:
        steps: The loop.
        stream: The codec's stream, one row each.
        rows: How many rows there are.
        device: Where the sound is wanted.
        schedule: Says when a chunk is due, for all rows: their frames come at the same time.
    """
    speech = SpeechStream(stream, rows, device)
    for step in steps:
        if step.ended:
            yield SpeechPiece(speech.finish(step.ended), step.ended)
        if step.codes is not None:
            speech.waiting.append(step.codes)
            if schedule.is_due(len(speech.waiting)):
                yield SpeechPiece(speech.decode_waiting())


__all__ = ["CodecStream", "SpeechPiece", "SpeechStream", "exact_stream", "stream_speech"]
