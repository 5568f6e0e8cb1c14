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
"""The token loop of MetaVoice's first stage: guidance, sampling order, rows that end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ...acceleration.end_rules import EndRules, TokenStep
from ...acceleration.sampling import RowSampler
from .program_metavoice import Picking, ProgramLoop


if TYPE_CHECKING:
    from .acceleration_metavoice import CachedRunner
    from .configuration_metavoice import MetaVoiceFirstStageConfig
    from .modeling_metavoice_first_stage import MetaVoiceFirstStageForCausalLM


_LEAST_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class Guidance:
    """How strongly the loop leans towards the speaker and the text.

    Scores are `(speaker + prompt - 1) · full + (1 - speaker) · without speaker + (1 - prompt) · without text`. Rows
    whose factor would be zero are not computed.

    Args:
        speaker: At least 1; 1 is no guidance.
        prompt: The same for the text.

    Raises:
        ValueError: a scale is below 1.
    """

    speaker: float = 3.0
    prompt: float = 1.0

    def __post_init__(self) -> None:
        for name in ("speaker", "prompt"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"`guidance_scale` must be at least 1 for the {name}; got {getattr(self, name)}.")

    @classmethod
    def of(cls, scale: "float | Sequence[float] | Guidance") -> "Guidance":
        """From one scale, which is the speaker's, or from both."""
        if isinstance(scale, Guidance):
            return scale
        given = [scale] if isinstance(scale, int | float) else list(scale)
        if len(given) not in (1, 2):
            raise ValueError(f"`guidance_scale` must be one number or two; got {len(given)}.")
        return cls(*map(float, given))

    @property
    def factors(self) -> list[float]:
        """Of the full rows, and of those that are computed besides them."""
        return [self.speaker + self.prompt - 1, *(1 - each for each in (self.speaker, self.prompt) if each > 1)]

    def repeat(self, rows: torch.Tensor) -> torch.Tensor:
        """`rows` once for every factor."""
        return rows.repeat(len(self.factors), *[1] * (rows.dim() - 1))

    def repeat_ids(self, ids: torch.LongTensor, config: "MetaVoiceFirstStageConfig") -> torch.LongTensor:
        """`ids` `(rows, …)` for all rows; those without their text see its end at every place of it."""
        if self.prompt <= 1:
            return self.repeat(ids)
        hidden = ids.masked_fill(ids > config.end_of_audio_token_id, config.end_of_text_token_id)
        return torch.cat([ids] * (len(self.factors) - 1) + [hidden])

    def repeat_speakers(self, speaker_embeddings: torch.Tensor) -> torch.Tensor:
        """`speaker_embeddings` `(rows, size)` for all rows; zeros for those without their speaker."""
        rows = [speaker_embeddings]
        if self.speaker > 1:
            rows.append(torch.zeros_like(speaker_embeddings))
        if self.prompt > 1:
            rows.append(speaker_embeddings)
        return torch.cat(rows)

    def combine(self, logits: torch.Tensor) -> torch.Tensor:
        """Scores `(rows, vocab_size)` of `logits` for all rows, in float32."""
        logits = logits.float()
        factors = self.factors
        if len(factors) == 1:
            return logits
        return sum(factor * part for factor, part in zip(factors, logits.chunk(len(factors)), strict=True))


def first_stage_processors(
    temperature: float | None = 1.0,
    top_p: float | None = 0.95,
    top_k: int | None = None,
    extra: Sequence[LogitsProcessor] = (),
) -> LogitsProcessorList:
    """Upstream's processors in upstream's order: temperature, top-k, top-p.

    Args:
        temperature: What scores are divided by.
        top_p: The likeliest ids that hold so much probability are kept; `None` or 1 for all.
        top_k: So many ids, and those equal to the last of them, are kept; `None` or 0 for all.
        extra: Further processors; they see the guided scores first.
    """
    warpers: list[LogitsProcessor] = []
    if temperature not in (None, 1.0):
        warpers.append(TemperatureLogitsWarper(max(float(temperature), _LEAST_TEMPERATURE)))
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p is not None and top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    return LogitsProcessorList([*extra, *warpers])


class Alternation:
    """Forbids whatever would break the order of the codebooks, text ids, and an end in the middle of a frame.

    The model is free to write two codes of one codebook in a row; the codes behind them would then pair up wrongly.

    Args:
        config: The first stage's.
        device: Where the scores are.
        end_token_id: Ends a row.
    """

    def __init__(self, config: "MetaVoiceFirstStageConfig", device: torch.device, end_token_id: int) -> None:
        ids = torch.arange(config.vocab_size, device=device)
        codebooks = torch.arange(config.num_codebooks, device=device)[:, None]
        is_code = ids.div(config.num_codes, rounding_mode="floor") == codebooks
        is_end = (ids == end_token_id) & (codebooks == 0)
        self.forbidden, self.end_token_id = ~(is_code | is_end), end_token_id

    def __call__(self, scores: torch.Tensor, step: int) -> torch.Tensor:
        """`scores` `(rows, vocab_size)` of the id number `step` after whole frames."""
        return scores.masked_fill(self.forbidden[step % len(self.forbidden)], -float("inf"))


@dataclass
class FirstStageBatch:
    """Prompts of several rows, padded on the left, each as often as guidance needs it.

    Args:
        input_ids: int64 `(all_rows, length)`.
        attention_mask: int64 `(all_rows, length)`, 0 for padding.
        speaker_embeddings: `(all_rows, speaker_embed_size)`, zeros for no speaker.
    """

    input_ids: torch.LongTensor
    attention_mask: torch.LongTensor
    speaker_embeddings: torch.Tensor

    @classmethod
    def build(
        cls,
        first_stage: "MetaVoiceFirstStageForCausalLM",
        prompts: Sequence[torch.LongTensor],
        speaker_embeddings: torch.Tensor,
        guidance: Guidance,
    ) -> "FirstStageBatch":
        """Lay out `prompts`, one per row of `speaker_embeddings`."""
        device, config = first_stage.device, first_stage.config
        rows = [prompt.to(device) for prompt in prompts]
        ids = pad_sequence(rows, batch_first=True, padding_value=config.end_of_audio_token_id, padding_side="left")
        lengths = torch.tensor([len(row) for row in rows], device=device)
        places = torch.arange(ids.shape[1], device=device)
        mask = (places >= ids.shape[1] - lengths[:, None]).long()
        speakers = guidance.repeat_speakers(speaker_embeddings.to(device, first_stage.dtype))
        return cls(guidance.repeat_ids(ids, config), guidance.repeat(mask), speakers)

    def select(self, index: torch.LongTensor) -> "FirstStageBatch":
        """The rows `index` (int64)."""
        return FirstStageBatch(self.input_ids[index], self.attention_mask[index], self.speaker_embeddings[index])


class FirstStageDecoding:
    """Token by token generation of a batch; iterate over it to run it. Rows that end leave the batch.

    Every row has its own length, budget and end, and gets what it would get alone.

    Args:
        first_stage: The model.
        prompts: First-stage ids of each row, int64 `(length,)`: text, its end, and whole frames of codes, if any.
        speaker_embeddings: `(rows, speaker_embed_size)`.
        processors: Applied to the guided scores, see [`first_stage_processors`].
        sampler: Picks from the scores.
        limits: The most ids of each row, the end included; the model's positions are another limit.
        guidance_scale: The speaker's scale, or that and the text's; see [`Guidance`].
        end_token_id: Ends a row; the configuration's end of audio by default.
        enforce_alternation: Whether [`Alternation`] watches over the order of the codes.

    Raises:
        ValueError: a prompt is empty or leaves no room, a limit is below 1, or a scale is below 1.
    """

    def __init__(
        self,
        first_stage: "MetaVoiceFirstStageForCausalLM",
        prompts: Sequence[torch.LongTensor],
        speaker_embeddings: torch.Tensor,
        processors: LogitsProcessorList,
        sampler: RowSampler,
        limits: Sequence[int],
        guidance_scale: float | Sequence[float] | Guidance = 3.0,
        end_token_id: int | None = None,
        enforce_alternation: bool = True,
    ) -> None:
        self.first_stage, self.processors, self.sampler = first_stage, processors, sampler
        self.guidance = Guidance.of(guidance_scale)
        _check(first_stage.config, prompts, speaker_embeddings, limits)
        room = first_stage.config.max_position_embeddings
        end = first_stage.config.end_of_audio_token_id if end_token_id is None else end_token_id
        # The last id is never read, so it may stand one place beyond the positions.
        limits = [min(limit, room - len(prompt)) for limit, prompt in zip(limits, prompts, strict=True)]
        self.rules = EndRules(end, limits)
        self.batch = FirstStageBatch.build(first_stage, prompts, speaker_embeddings, self.guidance)
        self.alternation = Alternation(first_stage.config, first_stage.device, end) if enforce_alternation else None

    @property
    def picked(self) -> list[list[int]]:
        """The ids so far, one list per row, the end included."""
        return self.rules.picked

    def __iter__(self) -> Iterator[TokenStep]:
        runner = self.first_stage.make_runner(self.batch)
        picking = Picking(self.guidance, self.alternation, self.processors, self.sampler)
        if runner.steps is not None and runner.steps.has_fixed_shapes and picking.is_inline:
            return self._run_program(runner, picking)
        return self._run(runner)

    def _run_program(self, runner: "CachedRunner", picking: Picking) -> Iterator[TokenStep]:
        """By a program: rows that have ended ride along."""
        rows, mask = list(range(len(self.rules.limits))), self.batch.attention_mask
        for tokens in ProgramLoop(self.first_stage, runner.steps, runner, mask, picking):
            step = self.rules.take(rows, [tokens[row] for row in rows])
            yield step
            rows = [row for row in rows if row not in step.ended]
            if not rows:
                return

    def _run(self, runner: "CachedRunner") -> Iterator[TokenStep]:
        """With a cache that grows: rows that have ended leave the batch."""
        rows, step = list(range(len(self.rules.limits))), 0
        logits = runner.prefill()
        history = self.batch.input_ids[: len(rows), :0]
        while True:
            scores = self.guidance.combine(logits)
            if self.alternation is not None:
                scores = self.alternation(scores, step)
            tokens = self.sampler(self.processors(history, scores))
            taken = self.rules.take(rows, tokens.tolist())
            yield taken
            if taken.ended:
                rows, kept = self._keep(rows, taken)
                if not rows:
                    return
                runner.select(self.guidance, kept)
                self.sampler.select(kept)
                tokens, history = tokens[kept], history[kept]
            history = torch.cat([history, tokens[:, None]], dim=1)
            logits, step = runner.step(self.guidance.repeat_ids(tokens, self.first_stage.config)), step + 1

    def _keep(self, rows: list[int], step: TokenStep) -> tuple[list[int], torch.LongTensor]:
        places = [place for place, row in enumerate(rows) if row not in step.ended]
        index = torch.tensor(places, dtype=torch.long, device=self.first_stage.device)
        return [rows[place] for place in places], index


def _check(
    config: "MetaVoiceFirstStageConfig",
    prompts: Sequence[torch.LongTensor],
    speaker_embeddings: torch.Tensor,
    limits: Sequence[int],
) -> None:
    room = config.max_position_embeddings
    if not prompts or not len(prompts) == len(speaker_embeddings) == len(limits):
        raise ValueError(
            f"`prompts`, `speaker_embeddings` and `limits` must have one entry per row; got {len(prompts)}, "
            f"{len(speaker_embeddings)} and {len(limits)}."
        )
    for prompt in prompts:
        if not 1 <= len(prompt) < room:
            raise ValueError(f"`prompts` must have 1…{room - 1} ids each; one has {len(prompt)}: split the text.")
    if min(limits) < 1:
        raise ValueError(f"`limits` must be at least 1; got {min(limits)}.")


__all__ = [
    "Alternation",
    "FirstStageBatch",
    "FirstStageDecoding",
    "Guidance",
    "TokenStep",
    "first_stage_processors",
]
