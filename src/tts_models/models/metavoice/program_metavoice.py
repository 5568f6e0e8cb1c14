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
"""A step of MetaVoice's first stage over tensors of fixed shape: for compiled layers, and for CUDA graphs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from transformers import LogitsProcessorList

from ...acceleration.cuda_graph import CapturedCall
from ...acceleration.inline_picker import are_pure
from ...acceleration.kv_cache import ReservedCache, SlotLayer
from ...acceleration.sampling import RowSampler, pick


if TYPE_CHECKING:
    from .acceleration_metavoice import CachedRunner, FastSteps
    from .decoding_metavoice_first_stage import Alternation, Guidance
    from .modeling_metavoice_first_stage import MetaVoiceFirstStageForCausalLM


_FIRST_ROOM = 512
_MOST_IDLE = 4


class Picking:
    """How ids are picked, in operations that stay on the device.

    Args:
        guidance: Combines the scores of the rows.
        alternation: Watches over the order of the codes, if anything does.
        processors: Applied to the guided scores; they look at nothing else.
        sampler: Gives the random numbers.
    """

    def __init__(
        self,
        guidance: "Guidance",
        alternation: "Alternation | None",
        processors: LogitsProcessorList,
        sampler: RowSampler,
    ) -> None:
        self.guidance, self.alternation = guidance, alternation
        self.processors, self.sampler = processors, sampler

    @property
    def is_inline(self) -> bool:
        """Whether a program can pick so."""
        return are_pure(self.processors) and type(self.sampler) is RowSampler

    @property
    def is_drawing(self) -> bool:
        """Whether ids are drawn; otherwise the best is taken."""
        return self.sampler.generators is not None

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for pickings that do the same."""
        settings = [(type(each).__name__, *sorted(vars(each).items())) for each in self.processors]
        end = None if self.alternation is None else self.alternation.end_token_id
        return (self.guidance, end, str(settings), self.is_drawing)


class StepProgram:
    """Picks an id per row and reads it, without asking the device anything.

    Args:
        first_stage: The model.
        steps: Its weights.
        rows: Rows without those that guidance adds.
        room: Slots of the cache.
        picking: How ids are picked; only its settings are taken.
    """

    def __init__(
        self,
        first_stage: "MetaVoiceFirstStageForCausalLM",
        steps: "FastSteps",
        rows: int,
        room: int,
        picking: Picking,
    ) -> None:
        config, device, self.dtype = first_stage.config, first_stage.device, first_stage.dtype
        self.config, self.steps, self.room = config, steps, room
        self.key = (rows, room, picking.key)
        self.guidance, self.processors, self.is_drawing = picking.guidance, picking.processors, picking.is_drawing
        self.forbidden = None if picking.alternation is None else picking.alternation.forbidden
        self.table = first_stage.model.embed_tokens.weight
        every = rows * len(self.guidance.factors)
        shape = (every, config.num_key_value_heads, room, config.head_dim)
        self.cache = [SlotLayer(shape, self.dtype, device) for _ in range(config.num_hidden_layers)]
        for layer in self.cache[1:]:
            layer.slots = self.cache[0].slots
        self.blocked = torch.finfo(self.dtype).min
        self.mask = torch.full((every, 1, 1, room), self.blocked, dtype=self.dtype, device=device)
        self.positions = torch.zeros(every, 1, dtype=torch.long, device=device)
        self.speaker_term = torch.zeros(every, config.hidden_size, dtype=self.dtype, device=device)
        self.logits = torch.zeros(every, config.vocab_size, dtype=self.dtype, device=device)
        self.uniforms = torch.zeros(rows, 1, device=device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.phase = torch.zeros(1, dtype=torch.long, device=device)
        self.run = CapturedCall(self.step, device) if steps.uses_cuda_graphs else self.step

    def step(self) -> None:
        """One step: `logits` and `uniforms` in; `tokens` and the next `logits` out."""
        scores = self.guidance.combine(self.logits)
        if self.forbidden is not None:
            scores = scores.masked_fill(self.forbidden.index_select(0, self.phase), -float("inf"))
            self.phase.add_(1).remainder_(len(self.forbidden))
        picked = pick(self.processors(None, scores), self.uniforms if self.is_drawing else None)
        self.tokens.copy_(picked)
        embeds = F.embedding(self.guidance.repeat_ids(picked, self.config), self.table) + self.speaker_term
        slots = self.cache[0].slots
        self.mask.index_fill_(3, slots, 0.0)
        rotation = self.steps.step.rotation(self.positions)
        states = self.steps.step(embeds[:, None], rotation, self.mask, self.cache, self.steps.run_layer)
        self.logits.copy_(self.steps.head(states[:, -1]))
        slots.add_(1)
        # Rows that have ended ride along, and may run out of positions.
        self.positions.add_(1).clamp_(max=self.config.max_position_embeddings - 1)

    def start(self, runner: "CachedRunner", logits: torch.Tensor, attention_mask: torch.LongTensor) -> None:
        """Go on from prompts `(every row, length)` that `runner` has read."""
        length = attention_mask.shape[1]
        self._fill(runner.decoder.cache)
        self.mask.fill_(self.blocked)
        self.mask[:, 0, 0, :length] = torch.where(attention_mask.bool(), 0.0, self.blocked).to(self.dtype)
        self.positions.copy_(attention_mask.sum(-1, keepdim=True))
        self.cache[0].slots.fill_(length)
        self.speaker_term.copy_(runner.speaker_term)
        self.logits.copy_(logits)
        self.phase.zero_()

    def _fill(self, cache: ReservedCache) -> None:
        for own, read in zip(self.cache, cache.layers, strict=True):
            own.fill(read.keys, read.values)

    def take_over(self, other: "StepProgram") -> None:
        """Go on where a program with less room stopped."""
        for own, read in zip(self.cache, other.cache, strict=True):
            own.fill(read.keys, read.values)
        self.mask.fill_(self.blocked)
        self.mask[..., : other.room] = other.mask
        self.cache[0].slots.copy_(other.cache[0].slots)
        for name in ("positions", "speaker_term", "logits", "phase"):
            getattr(self, name).copy_(getattr(other, name))


class ProgramLoop:
    """The ids of a batch, step by step, by a [`StepProgram`]; iterate over it to run it.

    On a CUDA device the next step is under way while the host looks at the ids of the last: one step may be in vain.

    Args:
        first_stage: The model.
        steps: Its weights; they keep the idle programs.
        runner: Reads the prompts.
        attention_mask: int64 `(every row, length)` of the prompts.
        picking: How ids are picked.
    """

    def __init__(
        self,
        first_stage: "MetaVoiceFirstStageForCausalLM",
        steps: "FastSteps",
        runner: "CachedRunner",
        attention_mask: torch.LongTensor,
        picking: Picking,
    ) -> None:
        self.first_stage, self.steps, self.runner = first_stage, steps, runner
        self.attention_mask, self.picking = attention_mask, picking
        self.rows = len(attention_mask) // len(picking.guidance.factors)

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the new id of every row, also of rows that have ended: those are to be passed over."""
        room = _FIRST_ROOM
        while room <= self.attention_mask.shape[1]:
            room *= 2
        program, used = self._take(room), self.attention_mask.shape[1]
        try:
            program.start(self.runner, self.runner.prefill(), self.attention_mask)
            waiting = None
            while True:
                if used >= program.room:
                    program = self._grow(program)
                launched, used = self._launch(program), used + 1
                if program.tokens.device.type != "cuda":
                    yield launched[0].tolist()
                    continue
                if waiting is not None:
                    yield self._read(*waiting)
                waiting = launched
        finally:
            self._give_back(program)

    def _launch(self, program: StepProgram) -> tuple[torch.Tensor, Any]:
        """The ids of a step on their way to the host, and the event after which they are there."""
        program.uniforms.copy_(self.picking.sampler.draw(1))
        program.run()
        if program.tokens.device.type != "cuda":
            return program.tokens.clone(), None
        host = torch.empty(self.rows, dtype=torch.long, pin_memory=True).copy_(program.tokens, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        return host, event

    @staticmethod
    def _read(host: torch.Tensor, event: Any) -> list[int]:
        event.synchronize()
        return host.tolist()

    def _take(self, room: int) -> StepProgram:
        key = (self.rows, room, self.picking.key)
        for place, program in enumerate(self.steps.programs):
            if program.key == key:
                return self.steps.programs.pop(place)
        return StepProgram(self.first_stage, self.steps, self.rows, room, self.picking)

    def _give_back(self, program: StepProgram) -> None:
        self.steps.programs.append(program)
        del self.steps.programs[:-_MOST_IDLE]

    def _grow(self, program: StepProgram) -> StepProgram:
        larger = self._take(2 * program.room)
        larger.take_over(program)
        self._give_back(program)
        return larger


__all__ = ["Picking", "ProgramLoop", "StepProgram"]
