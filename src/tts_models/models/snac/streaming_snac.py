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
"""Exact streaming decoder of SNAC, and the noise rule that makes it independent of how an utterance is split."""

import copy
import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING

import torch

from ...streaming.convolution import DelayLine, StreamingConv1d, StreamingConvTranspose1d, pointwise


if TYPE_CHECKING:
    from .modeling_snac import SnacDecoderBlock, SnacLocalAttention, SnacModel, SnacResidualUnit


def draw_decoder_noise(
    latents: torch.Tensor, ratios: Sequence[int], generators: list[torch.Generator] | None
) -> list[torch.Tensor]:
    """Standard normal noise (batch, 1, steps of the block) for every decoder block.

    Each latent step of each row draws one vector that holds its share of all blocks, so that a row's values depend on
    its generator and position only. A single draw over the whole length would depend on the length.
    """
    steps_per_latent = list(accumulate(ratios, mul))
    batch_size, _, steps = latents.shape
    if generators is None:
        return [latents.new_empty(batch_size, 1, steps * width).normal_() for width in steps_per_latent]
    width = sum(steps_per_latent)
    rows = [
        [torch.randn(width, generator=generator, device=generator.device) for _ in range(steps)]
        for generator in generators
    ]
    if steps == 0:
        return [latents.new_zeros(batch_size, 1, 0) for _ in steps_per_latent]
    values = torch.stack([torch.stack(row).to(latents) for row in rows])
    return [part.reshape(batch_size, 1, -1) for part in values.split(steps_per_latent, dim=-1)]


class _ResidualUnitState:
    """The branch lags its input, so the skipped input waits for it in a queue."""

    def __init__(self, unit: "SnacResidualUnit", batch_size: int):
        self.unit = unit
        self.conv1 = StreamingConv1d(unit.conv1, batch_size)
        self.skip = DelayLine(self.conv1.buffer[..., :0])

    def __call__(self, hidden_states: torch.Tensor, is_final: bool) -> torch.Tensor:
        self.skip.push(hidden_states)
        branch = self.conv1(self.unit.snake1(hidden_states), is_final)
        return self.skip.pop(branch.shape[-1]) + pointwise(self.unit.conv2, self.unit.snake2(branch))

    def select_rows(self, index: torch.Tensor) -> None:
        self.conv1.select_rows(index)
        self.skip.select_rows(index)


class _AttentionState:
    """Local attention sees whole windows only: latents wait until their window is full."""

    def __init__(self, attention: "SnacLocalAttention", batch_size: int):
        self.attention = attention
        weight = attention.to_out.weight
        self.waiting = DelayLine(weight.new_zeros(batch_size, weight.shape[0], 0))

    def __call__(self, hidden_states: torch.Tensor, is_final: bool) -> torch.Tensor:
        self.waiting.push(hidden_states)
        steps = self.waiting.buffer.shape[-1]
        windows = self.waiting.pop(steps if is_final else steps - steps % self.attention.window_size)
        return self.attention(windows) if windows.shape[-1] else windows

    def select_rows(self, index: torch.Tensor) -> None:
        self.waiting.select_rows(index)


class _DecoderBlockState:
    def __init__(self, block: "SnacDecoderBlock", batch_size: int):
        self.block = block
        self.conv_t1 = StreamingConvTranspose1d(block.conv_t1, batch_size)
        self.noise = DelayLine(block.conv_t1.weight.new_zeros(batch_size, 1, 0))
        units = (block.res_unit1, block.res_unit2, block.res_unit3)
        self.units = [_ResidualUnitState(unit, batch_size) for unit in units]

    def __call__(self, hidden_states: torch.Tensor, noise: torch.Tensor | None, is_final: bool) -> torch.Tensor:
        hidden_states = self.conv_t1(self.block.snake1(hidden_states), is_final)
        if noise is not None:
            self.noise.push(noise)
            if hidden_states.shape[-1]:
                hidden_states = self.block.noise(hidden_states, self.noise.pop(hidden_states.shape[-1]))
        for unit in self.units:
            hidden_states = unit(hidden_states, is_final)
        return hidden_states

    def select_rows(self, index: torch.Tensor) -> None:
        for state in (self.conv_t1, self.noise, *self.units):
            state.select_rows(index)


class SnacDecoderStream:
    r"""
    Decodes codes as they arrive; the concatenation of everything it returns is what `SnacModel.decode` returns for all
    codes and the same generators.

    Every convolution keeps the inputs it still needs, so nothing is decoded twice and no cross-fade is needed. The
    convolutions look ahead: after `n` frames `n * samples_per_frame - look_ahead` samples have come out (none while
    that is negative), and `flush` returns the rest. With local attention the latents also wait for a whole window.

    Args:
        model ([`SnacModel`]): The codec.
        batch_size (`int`): Rows decoded together.
        generators (`list[torch.Generator]`, *optional*): Source of the noise of each row.
        noise_scale (`float`): Factor of the noise.

    Attributes:
        look_ahead (`int`): Samples by which the output lags the codes (4757 for the released 24 kHz codec).
        samples_out (`int`): Samples per row returned so far.
    """

    def __init__(
        self,
        model: "SnacModel",
        batch_size: int,
        generators: list[torch.Generator] | None = None,
        noise_scale: float = 1.0,
    ):
        self.model, self.generators, self.noise_scale = model, generators, noise_scale
        self.batch_size = batch_size
        self.samples_out = 0
        self.is_flushed = False
        decoder = model.decoder
        self.conv1 = StreamingConv1d(decoder.conv1, batch_size)
        self.attention = None if decoder.attention is None else _AttentionState(decoder.attention, batch_size)
        self.blocks = [_DecoderBlockState(block, batch_size) for block in decoder.block]
        self.conv2 = StreamingConv1d(decoder.conv2, batch_size)

    @property
    def look_ahead(self) -> int:
        ratios = self.model.config.upsampling_ratios
        samples_per_step = [math.prod(ratios[i:]) for i in range(len(ratios) + 1)]
        # 39 = (1 + 3 + 9) * 3: the paddings of a block's three dilated convolutions.
        blocks = sum(
            step * (math.ceil(ratio / 2) + 39) for ratio, step in zip(ratios, samples_per_step[1:], strict=True)
        )
        return 3 * samples_per_step[0] + blocks + 3

    @torch.no_grad()
    def push(self, audio_codes: Sequence[torch.LongTensor]) -> torch.Tensor:
        """Decode the next frames; returns the samples `(batch, n)` that are complete, possibly none.

        Args:
            audio_codes (`tuple(torch.LongTensor)`): One `(batch, frames * codes_per_frame)` tensor per quantizer.

        Raises:
            ValueError: if the codes are malformed, their batch differs, or the stream is already flushed.
        """
        if self.is_flushed:
            raise ValueError("The stream is flushed: start another one with `SnacModel.decoder_stream`.")
        self.model.check_codes(audio_codes)
        if audio_codes[0].shape[0] != self.batch_size:
            raise ValueError(f"`audio_codes` must hold {self.batch_size} rows, got {audio_codes[0].shape[0]}.")
        return self._run(self.model.quantizer.from_codes(audio_codes), is_final=False)

    @torch.no_grad()
    def flush(self) -> torch.Tensor:
        """Return the remaining samples `(batch, n)` and close the stream."""
        if self.is_flushed:
            return self.conv2.buffer.new_zeros(self.batch_size, 0)
        self.is_flushed = True
        if self.conv1.buffer.shape[-1] == self.conv1.padding:  # nothing was pushed: the layers hold only their padding
            return self.conv2.buffer.new_zeros(self.batch_size, 0)
        return self._run(self.conv1.buffer.new_zeros(self.batch_size, self.model.config.hidden_size, 0), is_final=True)

    def select_rows(self, index: torch.Tensor) -> "SnacDecoderStream":
        """A new stream that goes on with the rows `index` (int64); this one is left as it is.

        The two share the rows' generators: push each row to one of them only.
        """
        shared = (*self.model.modules(), self.generators)
        selected = copy.deepcopy(self, {id(part): part for part in shared})
        selected.batch_size = len(index)
        if self.generators is not None:
            selected.generators = [self.generators[row] for row in index.tolist()]
        for state in (selected.conv1, selected.attention, *selected.blocks, selected.conv2):
            if state is not None:
                state.select_rows(index)
        return selected

    def _run(self, latents: torch.Tensor, is_final: bool) -> torch.Tensor:
        decoder = self.model.decoder
        noise = self._draw_noise(latents)
        hidden_states = self.conv1(latents, is_final)
        if decoder.conv_pointwise is not None:
            hidden_states = pointwise(decoder.conv_pointwise, hidden_states)
        if self.attention is not None:
            hidden_states = self.attention(hidden_states, is_final)
        for block, block_noise in zip(self.blocks, noise, strict=True):
            hidden_states = block(hidden_states, block_noise, is_final)
        audio = torch.tanh(self.conv2(decoder.snake1(hidden_states), is_final)).squeeze(1)
        self.samples_out += audio.shape[-1]
        return audio

    def _draw_noise(self, latents: torch.Tensor) -> list[torch.Tensor | None]:
        ratios = self.model.config.upsampling_ratios
        if not self.model.config.use_noise or self.noise_scale == 0:
            return [None] * len(ratios)
        noise = draw_decoder_noise(latents, ratios, self.generators)
        return [block * self.noise_scale for block in noise]


__all__ = ["SnacDecoderStream", "draw_decoder_noise"]
