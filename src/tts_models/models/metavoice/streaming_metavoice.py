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
"""From the first stage's tokens to sound, frame by frame: what a stream keeps of a part and of a text."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from transformers import EncodecModel

from ...audio.joining import QuietJoiner
from ...streaming.encodec import EncodecDecoderStream
from ...streaming.schedule import TwoPhaseSchedule
from .configuration_metavoice import MetaVoiceFirstStageConfig
from .decoding_metavoice_second_stage import complete_codes, draw_uniforms, second_stage_room
from .request_metavoice import MetaVoiceChunks


if TYPE_CHECKING:
    from ..deepfilternet import DeepFilterNetModel
    from .modeling_metavoice_second_stage import MetaVoiceSecondStageModel


def pair_codes(config: MetaVoiceFirstStageConfig, tokens: Iterable[int]) -> Iterator[list[int]]:
    """The frames among first-stage ids, as soon as each codebook has its code.

    Args:
        config: The first stage's.
        tokens: Ids of codes; others are left out.
    """
    waiting: list[deque[int]] = [deque() for _ in range(config.num_codebooks)]
    for token in tokens:
        codebook, code = divmod(token, config.num_codes)
        if codebook < len(waiting):
            waiting[codebook].append(code)
        if all(waiting):
            yield [each.popleft() for each in waiting]


class ChunkedCompletion:
    """The second stage over a part whose frames come one by one.

    A chunk of frames is completed once `lookahead` further ones have come. The model sees the text and as many frames
    before them as fit, whatever has been completed already; a completed code never changes.

    Args:
        second_stage: The model.
        text_ids: The tokenizer's ids, of the parts before too where their frames are given.
        before: Codes `(input codebooks, frames)` of the parts before.
        speaker_embedding: `(speaker_embed_size,)`.
        generator: Draws the codes, in the order of the frames; `None` for the best.
        chunks: When chunks are completed.
        temperature: Randomness.
        top_k: Candidates.
    """

    def __init__(
        self,
        second_stage: "MetaVoiceSecondStageModel",
        text_ids: Sequence[int],
        before: torch.LongTensor,
        speaker_embedding: torch.Tensor,
        generator: torch.Generator | None,
        chunks: MetaVoiceChunks,
        temperature: float = 1.0,
        top_k: int = 200,
    ) -> None:
        self.second_stage, self.text_ids, self.speaker = second_stage, list(text_ids), speaker_embedding
        self.generator, self.chunks = generator, chunks
        self.temperature, self.top_k = temperature, top_k
        self.room = second_stage_room(second_stage.config, len(self.text_ids))
        self.frames = before.T.tolist()
        self.completed = len(self.frames)
        self.uniforms = torch.zeros(len(self.frames), len(second_stage.config.target_vocab_sizes))
        self.schedule = TwoPhaseSchedule(chunks.steady, chunks.first, chunks.first_until)

    def push(self, frame: Sequence[int]) -> torch.LongTensor | None:
        """One more frame; returns the codes `(num_codebooks, frames)` of a chunk that is complete with it."""
        self.frames.append(list(frame))
        ready = len(self.frames) - self.chunks.lookahead
        is_due = self.schedule.is_due(max(ready - self.completed, 0))
        if is_due:
            return self._complete(ready)
        # More could not be seen at once.
        is_full = len(self.frames) - self.completed >= self.room
        return self._complete(len(self.frames)) if is_full else None

    def finish(self) -> torch.LongTensor | None:
        """The codes of the frames that are left, if any."""
        return self._complete(len(self.frames)) if self.completed < len(self.frames) else None

    def _complete(self, end: int) -> torch.LongTensor:
        start, first = max(len(self.frames) - self.room, 0), self.completed
        missing = len(self.frames) - len(self.uniforms)
        if self.generator is not None and missing:
            drawn = draw_uniforms(self.generator, missing, self.second_stage.config)
            self.uniforms = torch.cat([self.uniforms, drawn])
        device = self.second_stage.device
        codes = complete_codes(
            self.second_stage,
            [self.text_ids],
            [torch.tensor(self.frames[start:], device=device).T],
            self.speaker[None],
            None if self.generator is None else [self.uniforms[start:]],
            temperature=self.temperature,
            top_k=self.top_k,
        )[0]
        self.completed = end
        return codes[:, first - start : end - start]


class TextSound:
    """The sound of one text, from the codes of its parts.

    Parts that go on from one another are decoded as one; others begin anew and are joined where both are quiet.

    Args:
        codec: EnCodec.
        enhancer: Cleans the sound, or `None`.
    """

    def __init__(self, codec: EncodecModel, enhancer: "DeepFilterNetModel | None" = None) -> None:
        self.codec = codec
        self.decoder = EncodecDecoderStream(codec)
        rate = codec.config.sampling_rate
        self.joiner = QuietJoiner(rate)
        self.cleaner = None if enhancer is None else enhancer.stream(sampling_rate=rate)

    def push(self, codes: torch.LongTensor, is_last: bool = False) -> torch.Tensor:
        """Samples `(n,)` that are ready after more codes `(num_codebooks, frames)`; `is_last` of the last part."""
        return self._clean(self.joiner.add(self.decoder.push(codes[None])[0], is_last))

    def begin_anew(self) -> torch.Tensor:
        """The next codes do not go on from these; returns what is ready."""
        samples = torch.cat([self.joiner.add(self.decoder.flush()[0]), self.joiner.end_part()])
        self.decoder = EncodecDecoderStream(self.codec)
        return self._clean(samples)

    def finish(self) -> torch.Tensor:
        """The rest."""
        rest = [self.joiner.add(self.decoder.flush()[0]), self.joiner.finish()]
        return self._clean(torch.cat(rest), is_final=True)

    def _clean(self, samples: torch.Tensor, is_final: bool = False) -> torch.Tensor:
        samples = samples.float()
        if self.cleaner is not None:
            cleaned = [self.cleaner.push(samples[None])] + ([self.cleaner.flush()] if is_final else [])
            samples = torch.cat(cleaned, dim=1)[0]
        return samples.clamp(-1, 1)


__all__ = ["ChunkedCompletion", "TextSound", "pair_codes"]
