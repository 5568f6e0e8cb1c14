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
"""A whole frame of Qwen3-TTS over tensors of fixed shape: for compiled layers, and for one CUDA graph per frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...acceleration.cuda_graph import CapturedCall
from ...acceleration.inline_picker import InlinePicker, are_pure
from ...acceleration.kv_cache import LayerCache, ReservedCache, SlotLayer
from ...acceleration.lockstep import LockstepDecoder
from ...acceleration.sampling import pick
from .decoding_qwen3_tts import EndRules, FirstCodePicker, FrameStep
from .prompt_qwen3_tts import PromptBatch


if TYPE_CHECKING:
    from .acceleration_qwen3_tts import FastFrameWriter, FastLoops
    from .configuration_qwen3_tts import Qwen3TTSCodePredictorConfig, Qwen3TTSTalkerConfig


# Slots of the first program; each next one has twice as many.
_FIRST_ROOM = 512
# The attention kernels want rows of masks that begin at multiples of so many values.
_ALIGNMENT = 8
# Idle programs kept per model: each holds a cache, and a graph where there is one.
_MOST_IDLE = 8


@dataclass
class Sampling:
    """How a frame's codes are picked.

    Args:
        picker: Holds the settings and the sampler of first codes.
        writer: Holds the processors and the sampler of the other codes.
        key: Equal for calls that pick in the same way.
    """

    picker: FirstCodePicker
    writer: "FastFrameWriter"
    key: str

    @property
    def is_inline(self) -> bool:
        """Whether a program can pick so."""
        return InlinePicker.supports(self.picker.processors) and are_pure(self.writer.processors)

    def uniforms(self, count: int) -> torch.Tensor:
        """The random numbers of a frame, `(batch or 1, 1 + count)`, in the order in which the slow loop draws them."""
        drawn = [self.picker.sampler.draw(1), self.writer.sampler.draw(count)]
        rows = max(map(len, drawn))
        return torch.cat([each.expand(rows, -1) for each in drawn], dim=1)


class FrameProgram:
    """Picks the first code, writes the others, and takes the talker's step, without asking the device anything.

    Args:
        loops: The weights.
        batch_size: Rows.
        room: Slots of the talker's cache.
        sampling: How codes are picked; only its settings are taken.
    """

    def __init__(self, loops: "FastLoops", batch_size: int, room: int, sampling: Sampling) -> None:
        self.loops, self.room, self.key = loops, room, None
        talker, device = loops.talker, loops.talker.device
        config, self.dtype = talker.config, talker.dtype
        loops.talker_step.reserve_positions(room)
        # Kept, because a recorded graph goes on reading this table also when a longer one is made.
        self.table = loops.talker_step.table
        self.cache = self._slots(talker.model.config, batch_size, room)
        predictor_room = -(-(loops.num_groups + 1) // _ALIGNMENT) * _ALIGNMENT
        self.predictor_cache = self._slots(talker.code_predictor.config, batch_size, predictor_room)
        self.predictor_slots = torch.arange(loops.num_groups + 1, device=device)
        self.blocked = torch.finfo(self.dtype).min
        self.predictor_mask = torch.full((predictor_room, predictor_room), self.blocked, device=device).triu(1)
        self.predictor_mask = self.predictor_mask.to(self.dtype)[None, None]
        self.mask = torch.full((batch_size, 1, 1, room), self.blocked, dtype=self.dtype, device=device)
        self.positions = torch.zeros(batch_size, 1, dtype=torch.long, device=device)
        self.hidden = torch.zeros(batch_size, config.hidden_size, dtype=self.dtype, device=device)
        self.text_row = torch.zeros_like(self.hidden)
        self.uniforms = torch.zeros(batch_size, loops.num_groups + 1, device=device)
        self.codes = torch.zeros(batch_size, loops.num_groups + 1, dtype=torch.long, device=device)
        self.is_drawing = sampling.writer.sampler.generators is not None
        self.processors = sampling.writer.processors
        self.picker = self._inline_picker(sampling.picker, batch_size, config.vocab_size)
        self.run = CapturedCall(self.frame, device) if loops.options.use_cuda_graphs else self.frame

    def _slots(
        self, config: "Qwen3TTSTalkerConfig | Qwen3TTSCodePredictorConfig", batch_size: int, room: int
    ) -> list[SlotLayer]:
        shape = (batch_size, config.num_key_value_heads, room, config.head_dim)
        layers = [SlotLayer(shape, self.dtype, self.loops.talker.device) for _ in range(config.num_hidden_layers)]
        for layer in layers[1:]:
            layer.slots = layers[0].slots
        return layers

    @staticmethod
    def _inline_picker(picker: FirstCodePicker, batch_size: int, vocab_size: int) -> InlinePicker:
        penalty = 1.0 if picker.penalty is None else picker.penalty.penalty
        is_drawing, device = picker.sampler.generators is not None, picker.sampler.device
        return InlinePicker(picker.processors, penalty, picker.window, is_drawing, batch_size, vocab_size, device)

    def frame(self) -> None:
        """One frame: `hidden`, `uniforms` and `text_row` in; `codes` and the next `hidden` out."""
        loops = self.loops
        first_codes = self.picker(loops.codec_head(self.hidden), self.uniforms[:, :1])
        codes, embeds, _ = loops.write_codes(
            self.hidden,
            loops.talker.embed_codec(first_codes),
            self._select_slots,
            self._pick,
            loops.predictor_layer,
        )
        self.codes.copy_(torch.cat([first_codes[:, None], codes], dim=1))
        slots = self.cache[0].slots
        self.mask.index_fill_(3, slots, 0.0)
        inputs = (embeds + self.text_row)[:, None]
        rotation = loops.talker_step.rotation(self.positions)
        states = loops.talker_step(inputs, rotation, self.mask, self.cache, loops.talker_layer)
        self.hidden.copy_(states[:, -1])
        slots.add_(1)
        self.positions.add_(1)

    def _select_slots(self, group: int) -> tuple[Sequence[LayerCache], torch.Tensor]:
        start, end = self.loops.spans[group]
        for layer in self.predictor_cache:
            layer.slots = self.predictor_slots[start:end]
        return self.predictor_cache, self.predictor_mask[:, :, start:end]

    def _pick(self, scores: torch.Tensor, group: int) -> torch.LongTensor:
        uniforms = self.uniforms[:, group + 1 : group + 2] if self.is_drawing else None
        return pick(self.processors(None, scores), uniforms)

    def start(self, cache: ReservedCache, hidden: torch.Tensor, attention_mask: torch.LongTensor) -> None:
        """Go on from prompts `(batch, length)` that were read into `cache`."""
        length = attention_mask.shape[1]
        for own, read in zip(self.cache, cache.layers, strict=True):
            own.fill(read.keys, read.values)
        self.mask.fill_(self.blocked)
        self.mask[:, 0, 0, :length] = torch.where(attention_mask.bool(), 0.0, self.blocked).to(self.dtype)
        self.positions.copy_(attention_mask.sum(-1, keepdim=True))
        self.cache[0].slots.fill_(length)
        self.hidden.copy_(hidden)
        self.picker.reset()

    def take_over(self, other: "FrameProgram") -> None:
        """Go on where a program with less room stopped."""
        for own, read in zip(self.cache, other.cache, strict=True):
            own.fill(read.keys, read.values)
        self.mask.fill_(self.blocked)
        self.mask[..., : other.room] = other.mask
        self.cache[0].slots.copy_(other.cache[0].slots)
        for name in ("positions", "hidden"):
            getattr(self, name).copy_(getattr(other, name))
        self.picker.take_over(other.picker)


class ProgramPool:
    """Programs that nobody uses at present: made once, they serve every later call of the same kind.

    Args:
        loops: The weights; they hold the idle programs.
        batch_size: Rows.
        sampling: How codes are picked.
    """

    def __init__(self, loops: "FastLoops", batch_size: int, sampling: Sampling) -> None:
        self.loops, self.batch_size, self.sampling = loops, batch_size, sampling

    def take(self, room: int) -> FrameProgram:
        """A program with so many slots, for one user alone."""
        key = (self.batch_size, room, self.sampling.key)
        for place, program in enumerate(self.loops.programs):
            if program.key == key:
                return self.loops.programs.pop(place)
        program = FrameProgram(self.loops, self.batch_size, room, self.sampling)
        program.key = key
        return program

    def give_back(self, program: FrameProgram) -> None:
        """Keep the program for later, and the most recent of the others."""
        self.loops.programs.append(program)
        del self.loops.programs[:-_MOST_IDLE]


class ProgramDecoding:
    """[`FrameDecoding`] by a [`FrameProgram`]. Rows that end ride along, unheard, until the batch is done.

    Args:
        loops: The weights.
        prompts: The prompts.
        sampling: How codes are picked.
        rules: When rows end.
    """

    def __init__(self, loops: "FastLoops", prompts: PromptBatch, sampling: Sampling, rules: EndRules) -> None:
        self.loops, self.prompts, self.sampling, self.rules = loops, prompts, sampling, rules
        self.batch_size, self.length = prompts.attention_mask.shape
        self.pool = ProgramPool(loops, self.batch_size, sampling)

    @property
    def picked(self) -> list[list[int]]:
        """The ids picked so far, see [`EndRules`]."""
        return self.rules.picked

    def __iter__(self) -> Iterator[FrameStep]:
        room = _FIRST_ROOM
        while room <= self.length:
            room *= 2
        program = self.pool.take(room)
        try:
            self._read_prompts(program)
            rows, frame = list(range(self.batch_size)), 0
            while rows:
                if self.length + frame >= program.room:
                    program = self._grow(program)
                states, codes = self._run(program, frame)
                # The one thing that the host must know of a frame: which rows ended.
                first_codes = codes[:, 0].tolist()
                ended = self.rules.ended(rows, [first_codes[row] for row in rows])
                rows = [row for row in rows if row not in ended]
                yield self._step(rows, codes, states, ended)
                frame += 1
        finally:
            self.pool.give_back(program)

    def _read_prompts(self, program: FrameProgram) -> None:
        mask = self.prompts.attention_mask
        decoder = LockstepDecoder(
            self.loops.talker.model, attention_mask=mask, inputs_embeds=self.prompts.inputs_embeds
        )
        hidden_states = decoder.prefill()
        program.start(decoder.cache, hidden_states, mask)

    def _grow(self, program: FrameProgram) -> FrameProgram:
        larger = self.pool.take(2 * program.room)
        larger.take_over(program)
        self.pool.give_back(program)
        return larger

    def _run(self, program: FrameProgram, frame: int) -> tuple[torch.Tensor, torch.LongTensor]:
        """The talker's states before a frame, and its codes, of all rows."""
        states = program.hidden.clone()
        program.text_row.copy_(self.prompts.text_row(frame))
        program.uniforms.copy_(self.sampling.uniforms(self.loops.num_groups))
        program.run()
        return states, program.codes.clone()

    def _step(
        self, rows: list[int], codes: torch.LongTensor, states: torch.Tensor, ended: dict[int, str]
    ) -> FrameStep:
        if not rows:
            return FrameStep([], ended=ended)
        if len(rows) < self.batch_size:
            codes, states = codes[rows], states[rows]
        return FrameStep(rows, codes, states, ended)


__all__ = ["FrameProgram", "ProgramDecoding", "ProgramPool", "Sampling"]
