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
"""The token loop of Chatterbox: prompts of T3, guidance, the order of the score processors, rows that end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ...acceleration.end_rules import EndRules, TokenStep
from ...acceleration.lockstep import LockstepDecoder
from ...acceleration.sampling import RowSampler


if TYPE_CHECKING:
    from .modeling_chatterbox import ChatterboxT3Model


@dataclass
class T3Prompt:
    """What T3 reads before it speaks, one row per part of a text, padded on the left.

    Args:
        inputs_embeds: `(rows, length, hidden_size)`; with guidance the rows come again, without their text.
        attention_mask: int64 `(rows, length)`, 0 for padding.
        text_starts: Position of each part's first text id.
        text_lengths: Text ids of each part.
    """

    inputs_embeds: torch.Tensor
    attention_mask: torch.LongTensor
    text_starts: list[int]
    text_lengths: list[int]

    @property
    def lengths(self) -> list[int]:
        """Positions of each part, without padding."""
        return self.attention_mask[: len(self.text_lengths)].sum(-1).tolist()


def build_prompt(
    t3: "ChatterboxT3Model", voices: Sequence[torch.Tensor], texts: Sequence[torch.LongTensor], is_guided: bool
) -> T3Prompt:
    """Lay out [voice | text | start of speech] for every part.

    Args:
        t3: The model.
        voices: What each part reads of its voice, `(voice_length, hidden_size)`.
        texts: Ids of each part, int64 `(text_length,)`.
        is_guided: Whether the rows come a second time, without their text.
    """
    starts = torch.full((1, 1), t3.config.start_speech_token_id, device=t3.device)
    # Upstream's Llama models read the start twice, both times at the first speech position.
    start = t3.embed_speech(starts).expand(-1, t3.config.num_start_tokens, -1)[0]
    rows = []
    for drop in [False, True] if is_guided else [False]:
        for voice, text in zip(voices, texts, strict=True):
            dropped = torch.tensor([drop], device=t3.device)
            rows.append(torch.cat([voice, t3.embed_text(text[None], drop_text=dropped)[0], start]))
    embeds = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
    length = embeds.shape[1]
    before = torch.tensor([length - len(row) for row in rows], device=embeds.device)
    mask = (torch.arange(length, device=embeds.device) >= before[:, None]).long()
    text_starts = [int(before[row]) + len(voice) for row, voice in enumerate(voices)]
    return T3Prompt(embeds, mask, text_starts, [len(text) for text in texts])


def score_processors(
    config: GenerationConfig, is_turbo: bool, extra: Sequence[LogitsProcessor] = ()
) -> LogitsProcessorList:
    """The processors in upstream's order, which differs between the variants.

    Args:
        config: The generation parameters; without `do_sample` only the repetition penalty stays.
        is_turbo: Temperature, top-k, top-p, then the penalty; else penalty, temperature, top-k, min-p, top-p.
        extra: Further processors; they see the guided scores first.
    """
    penalty, warpers = [], []
    if (config.repetition_penalty or 1.0) != 1.0:
        penalty = [RepetitionPenaltyLogitsProcessor(float(config.repetition_penalty))]
    if config.do_sample:
        if config.temperature not in (None, 1.0):
            warpers.append(TemperatureLogitsWarper(float(config.temperature)))
        if config.top_k:
            warpers.append(TopKLogitsWarper(config.top_k))
        if config.min_p:
            warpers.append(MinPLogitsWarper(config.min_p))
        if (1.0 if config.top_p is None else config.top_p) < 1.0:
            warpers.append(TopPLogitsWarper(config.top_p))
    own = [*warpers, *penalty] if is_turbo else [*penalty, *warpers]
    return LogitsProcessorList([*extra, *own])


class TokenDecoding:
    """Token by token generation of a batch; iterate over it to run it. Rows that end leave the batch.

    Args:
        t3: The model.
        prompt: The prompts.
        processors: Applied to the guided scores, with the row's history.
        sampler: Picks from the scores.
        limits: The most tokens of each row, the end included.
        guidance: Factor of the difference that the text makes; 0 for prompts without guidance.
        penalize_start: Whether the start of speech stays in the history; else only until there is a token.
    """

    def __init__(
        self,
        t3: "ChatterboxT3Model",
        prompt: T3Prompt,
        processors: LogitsProcessorList,
        sampler: RowSampler,
        limits: Sequence[int],
        guidance: float = 0.0,
        penalize_start: bool = True,
    ) -> None:
        self.t3, self.processors, self.sampler = t3, processors, sampler
        self.guidance, self.penalize_start = guidance, penalize_start
        self.decoder = LockstepDecoder(
            t3.backbone, attention_mask=prompt.attention_mask, inputs_embeds=prompt.inputs_embeds
        )
        self.rows = list(range(len(prompt.text_lengths)))
        self.is_guided = len(prompt.inputs_embeds) > len(self.rows)
        start = t3.config.start_speech_token_id
        self.history = torch.full((len(self.rows), 1), start, device=prompt.inputs_embeds.device)
        self.rules = EndRules(t3.config.stop_speech_token_id, limits)

    @property
    def picked(self) -> list[list[int]]:
        """The tokens so far, one list per row, the end included."""
        return self.rules.picked

    def __iter__(self) -> Iterator[TokenStep]:
        watchers = [processor for processor in self.processors if hasattr(processor, "attach")]
        for watcher in watchers:
            watcher.attach(self.t3.backbone)
        try:
            yield from self._run()
        finally:
            for watcher in watchers:
                watcher.detach()

    def _run(self) -> Iterator[TokenStep]:
        hidden_states = self.decoder.prefill()
        position = 1
        while self.rows:
            tokens = self.sampler(self.processors(self.history, self.scores(hidden_states)))
            step = self.rules.take(self.rows, tokens.tolist())
            yield step
            kept = [place for place, row in enumerate(self.rows) if row not in step.ended]
            if len(kept) < len(self.rows):
                tokens = self._keep(kept, tokens)
            if not self.rows:
                return
            self.history = self._extended(tokens)
            hidden_states = self.decoder.step_embeds(self._embed(tokens, position))
            position += 1

    def scores(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Scores `(rows, speech_vocab_size)` after guidance, float32."""
        logits = self.t3.speech_head(hidden_states).float()
        if not self.is_guided:
            return logits
        with_text, without = logits.chunk(2)
        return with_text + self.guidance * (with_text - without)

    def _embed(self, tokens: torch.LongTensor, position: int) -> torch.Tensor:
        positions = torch.full_like(tokens[:, None], position)
        embeds = self.t3.embed_speech(tokens[:, None], positions=positions)[:, 0]
        return embeds.repeat(2, 1) if self.is_guided else embeds

    def _extended(self, tokens: torch.LongTensor) -> torch.LongTensor:
        is_only_start = self.history.shape[1] == 1 and not self.penalize_start and len(self.picked[self.rows[0]]) == 1
        before = self.history[:, :0] if is_only_start else self.history
        return torch.cat([before, tokens[:, None]], dim=1)

    def _keep(self, kept: list[int], tokens: torch.LongTensor) -> torch.LongTensor:
        """Go on with the rows at the places `kept`; returns their tokens."""
        index = torch.tensor(kept, dtype=torch.long, device=tokens.device)
        if kept:
            both = torch.cat([index, index + len(self.rows)]) if self.is_guided else index
            self.decoder.select(both)
            self.sampler.select(index)
            for processor in self.processors:
                if hasattr(processor, "select"):
                    processor.select(index)
        self.history = self.history[index]
        self.rows = [self.rows[place] for place in kept]
        return tokens[index]


__all__ = ["T3Prompt", "TokenDecoding", "build_prompt", "score_processors"]
