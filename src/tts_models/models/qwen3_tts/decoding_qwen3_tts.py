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
"""The frame loop of Qwen3-TTS: one talker step and one run of the code predictor per frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

from ...acceleration.kv_cache import ReservedCache
from ...acceleration.lockstep import LockstepDecoder
from ...acceleration.sampling import RowSampler
from .prompt_qwen3_tts import PromptBatch


if TYPE_CHECKING:
    from .acceleration_qwen3_tts import FastFrameWriter, FastLoops
    from .modeling_qwen3_tts import Qwen3TTSCodePredictor, Qwen3TTSTalker


@dataclass
class FrameStep:
    """What one round of the loop brought.

    Args:
        rows: Rows that got a frame.
        codes: Its codes, int64 `(len(rows), num_code_groups)`.
        hidden_states: The talker's state that it was written from, `(len(rows), hidden_size)`.
        ended: Rows that ended before this frame, and why (`"stop"` or `"length"`).
    """

    rows: list[int]
    codes: torch.LongTensor | None = None
    hidden_states: torch.Tensor | None = None
    ended: dict[int, str] = field(default_factory=dict)


class FirstCodePicker:
    """Picks the first code of a frame, or an end, from the talker's scores.

    Args:
        batch_size: Rows.
        processors: Applied to the scores after the repetition penalty, with the row's own history.
        sampler: Picks from the scores.
        repetition_penalty: Over the first codes of the row, the prompt left out; 1.0 is none.
        repetition_penalty_window: The most recent frames that it looks at; 0 for all.
    """

    def __init__(
        self,
        batch_size: int,
        processors: LogitsProcessorList,
        sampler: RowSampler,
        repetition_penalty: float = 1.0,
        repetition_penalty_window: int = 0,
    ) -> None:
        self.processors, self.sampler, self.window = processors, sampler, repetition_penalty_window
        has_penalty = repetition_penalty != 1.0
        self.penalty = RepetitionPenaltyLogitsProcessor(float(repetition_penalty)) if has_penalty else None
        self.history = torch.empty(batch_size, 0, dtype=torch.long, device=sampler.device)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` `(batch, vocab_size)` as the sampler gets them, float32."""
        scores = logits.float()
        if self.penalty is not None and self.history.shape[1]:
            # A negative start beyond the length is the whole history, as is -0.
            scores = self.penalty(self.history[:, -self.window :], scores)
        return self.processors(self.history, scores)

    def pick(self, logits: torch.Tensor) -> torch.LongTensor:
        """The next id `(batch,)`; it enters the history."""
        picked = self.sampler(self.scores(logits))
        self.history = torch.cat([self.history, picked[:, None]], dim=1)
        return picked

    def select(self, index: torch.LongTensor) -> None:
        """Go on with the rows `index` (int64) only; the sampler is left alone."""
        self.history = self.history[index]


class FrameWriter:
    """Runs the code predictor: the codes of a frame after the first, one after the other.

    Args:
        predictor: The network.
        processors: Applied to the scores of every code; they look at nothing else.
        sampler: Picks from the scores.
    """

    def __init__(
        self, predictor: "Qwen3TTSCodePredictor", processors: LogitsProcessorList, sampler: RowSampler
    ) -> None:
        self.predictor, self.processors, self.sampler = predictor, processors, sampler
        self.num_layers = predictor.config.num_hidden_layers
        self.positions = torch.arange(predictor.config.num_code_groups + 1, device=predictor.device)[None]

    def write(
        self, hidden_states: torch.Tensor, first_embeds: torch.Tensor
    ) -> tuple[torch.LongTensor, torch.Tensor, list[torch.Tensor]]:
        """One frame per row.

        Args:
            hidden_states: The talker's state before the frame, `(batch, talker_hidden_size)`.
            first_embeds: Its row of the first code, `(batch, talker_hidden_size)`.

        Returns:
            The codes `(batch, num_code_groups - 1)`, the sum of the frame's rows `(batch, talker_hidden_size)`, the
            first code's included, and the raw scores of every step, `(batch, vocab_size)` each.
        """
        predictor, cache = self.predictor, ReservedCache(self.num_layers)
        inputs, start = torch.stack([hidden_states, first_embeds], dim=1), 0
        frame_embeds, codes, all_scores = first_embeds, [], []
        for head, table in zip(predictor.lm_head, predictor.model.codec_embedding, strict=True):
            end = start + inputs.shape[1]
            states = predictor.model(
                inputs_embeds=predictor.small_to_mtp_projection(inputs),
                position_ids=self.positions[:, start:end],
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            scores = head(states[:, -1]).float()
            picked = self.sampler(self.processors(None, scores))
            row, start = table(picked), end
            inputs, frame_embeds = row[:, None], frame_embeds + row
            codes.append(picked)
            all_scores.append(scores)
        return torch.stack(codes, dim=1), frame_embeds, all_scores


class EndRules:
    """When rows end.

    Args:
        end_ids: Ids that end a row.
        token_limits: The most ids that each row may pick; the last is never spoken.

    Attributes:
        picked: The ids picked so far, one list per row, the end and the last one included.
    """

    def __init__(self, end_ids: Sequence[int], token_limits: Sequence[int]) -> None:
        self.end_ids, self.limits = frozenset(end_ids), list(token_limits)
        self.picked: list[list[int]] = [[] for _ in self.limits]

    def ended(self, rows: Sequence[int], first_codes: Sequence[int]) -> dict[int, str]:
        """Those of `rows` whose newest id ends them, or is one too many, and why."""
        ended = {}
        for row, code in zip(rows, first_codes, strict=True):
            self.picked[row].append(code)
            if code in self.end_ids:
                ended[row] = "stop"
            elif len(self.picked[row]) >= self.limits[row]:
                ended[row] = "length"
        return ended


class FrameDecoding:
    """Frame by frame generation of a batch; iterate over it to run it. Rows that end leave the batch.

    Args:
        talker: The network.
        prompts: The prompts.
        picker: Picks first codes.
        writer: Writes the other codes.
        rules: When rows end.
        loops: Take the talker's steps instead of its own layers.
    """

    def __init__(
        self,
        talker: "Qwen3TTSTalker",
        prompts: PromptBatch,
        picker: FirstCodePicker,
        writer: "FrameWriter | FastFrameWriter",
        rules: EndRules,
        loops: "FastLoops | None" = None,
    ) -> None:
        self.talker, self.prompts, self.picker, self.writer, self.rules = talker, prompts, picker, writer, rules
        self.codec_head = talker.codec_head if loops is None else loops.codec_head
        self.decoder = LockstepDecoder(
            talker.model,
            attention_mask=prompts.attention_mask,
            inputs_embeds=prompts.inputs_embeds,
            fast_step=None if loops is None else loops.talker_step,
        )
        self.rows = list(range(len(rules.limits)))

    @property
    def picked(self) -> list[list[int]]:
        """The ids picked so far, see [`EndRules`]."""
        return self.rules.picked

    def __iter__(self) -> Iterator[FrameStep]:
        hidden_states = self.decoder.prefill()
        frame = 0
        while self.rows:
            first_codes = self.picker.pick(self.codec_head(hidden_states))
            ended = self.rules.ended(self.rows, first_codes.tolist())
            if ended:
                hidden_states, first_codes = self._drop(ended, hidden_states, first_codes)
            if not self.rows:
                yield FrameStep([], ended=ended)
                return
            codes, embeds, _ = self.writer.write(hidden_states, self.talker.embed_codec(first_codes))
            yield FrameStep(list(self.rows), torch.cat([first_codes[:, None], codes], 1), hidden_states, ended)
            hidden_states = self.decoder.step_embeds(embeds + self.prompts.text_row(frame))
            frame += 1

    def _drop(self, ended: dict[int, str], *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take the rows `ended` out; returns `states` without them."""
        kept = [place for place, row in enumerate(self.rows) if row not in ended]
        self.rows = [self.rows[place] for place in kept]
        index = torch.tensor(kept, dtype=torch.long, device=states[0].device)
        if kept:
            self.decoder.select(index)
            self.picker.select(index)
            self.prompts = replace(self.prompts, trailing=self.prompts.trailing[index])
            # Both may draw from the same sampler, which must then be told once.
            for sampler in {id(each): each for each in (self.picker.sampler, self.writer.sampler)}.values():
                sampler.select(index)
        return tuple(state[index] for state in states)


__all__ = ["EndRules", "FirstCodePicker", "FrameDecoding", "FrameStep", "FrameWriter"]
