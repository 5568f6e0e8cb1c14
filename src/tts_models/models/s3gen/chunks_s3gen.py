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
"""How S3Gen's streaming divides an utterance: what sees what, and the noise of every frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...streaming.generators import RowGenerators, resolve_row_generators


@dataclass(frozen=True)
class S3GenChunks:
    r"""
    How an utterance is divided for streaming. Every chunk sees itself and the chunks before it, so that mel frames of
    a finished chunk never change.

    Args:
        size (`int`, defaults to 25): Tokens (40 ms each) per chunk, counted from the start of the prompt. The released
            weights were trained with 25.
        first (`int`, *optional*, defaults to 15): A chunk also ends so many tokens after the prompt, so that the first
            sound comes early.
        left (`int`, *optional*): Tokens before its chunk that a token sees; all of them by default. With a limit,
            memory and work per chunk stop growing.

    Raises:
        ValueError: if a number is not positive.
    """

    size: int = 25
    first: int | None = 15
    left: int | None = None

    def __post_init__(self) -> None:
        for name in ("size", "first", "left"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` of S3GenChunks must be at least 1, got {value}.")

    def mask(self, prompt_lengths: Sequence[int]) -> "ChunkMask":
        """The mask of rows with prompts of so many tokens."""
        first = None if self.first is None else [length + self.first for length in prompt_lengths]
        return ChunkMask(self.size, first, self.left)


@dataclass(frozen=True)
class ChunkMask:
    r"""
    Attention limited to chunks of tokens, counted from the start of the prompt: a token sees its own chunk and those
    before it.

    Args:
        size (`int`): Tokens per chunk.
        first (`Sequence[int]`, *optional*): A chunk of each row also ends at this position.
        left (`int` or `None`): Tokens before its chunk that a token sees; `None` for all.
    """

    size: int
    first: Sequence[int] | None = None
    left: int | None = None

    def starts(self, tokens: int, device: torch.device) -> torch.Tensor:
        """First position of the chunk of each of so many tokens, `(batch or 1, tokens)`."""
        positions = torch.arange(tokens, device=device)[None]
        starts = positions // self.size * self.size
        if self.first is not None:
            first = torch.as_tensor(self.first, device=device)[:, None]
            starts = torch.where(positions >= first, torch.maximum(starts, first), starts)
        return starts

    def visible(self, tokens: int, device: torch.device) -> torch.Tensor:
        """Which key each query sees: bool `(batch or 1, tokens, tokens)`."""
        starts = self.starts(tokens, device)
        seen = starts[:, :, None] >= starts[:, None]
        if self.left is not None:
            seen &= torch.arange(tokens, device=device) >= starts[..., None] - self.left
        return seen

    def end_of(self, position: int) -> int:
        """Where the chunk of the first row that holds `position` ends."""
        end = (position // self.size + 1) * self.size
        return end if self.first is None or position >= self.first[0] else min(end, self.first[0])


class FrameNoise:
    """Standard normal noise by absolute frame: the same frame gets the same noise however the utterance is divided.

    The frames of the prompt have fixed noise, so that what is computed from a prompt can be kept for every request.

    Args:
        channels (`int`): Mel bins.
        prompt_frames (`int`): Frames before the first one that is drawn from `generator`.
        generator (`torch.Generator`, *optional*): Of the other frames, on the CPU; the default one of torch if `None`.
    """

    block = 32

    def __init__(self, channels: int, prompt_frames: int, generator: torch.Generator | None = None):
        self.channels, self.prompt_frames = channels, prompt_frames
        self.frames = self._draw(prompt_frames, torch.Generator().manual_seed(0))[:prompt_frames]
        self.generator = torch.default_generator if generator is None else generator

    def _draw(self, frames: int, generator: torch.Generator) -> torch.Tensor:
        # In blocks of one size: torch draws numbers that depend on how many are asked for.
        blocks = [torch.randn(self.block, self.channels, generator=generator) for _ in range(-(-frames // self.block))]
        return torch.cat([torch.empty(0, self.channels), *blocks])

    def between(self, start: int, stop: int) -> torch.Tensor:
        """Noise of the frames `start … stop`, `(stop - start, channels)` float32 on the CPU."""
        missing = stop - self.frames.shape[0]
        if missing > 0:
            self.frames = torch.cat([self.frames, self._draw(missing, self.generator)])
        return self.frames[start:stop]


def split_generators(generator: RowGenerators, batch_size: int) -> tuple[list[torch.Generator], list[torch.Generator]]:
    """Independent generators for flow and vocoder, one per row: a stream draws from both in turn."""
    generators = resolve_row_generators(generator, batch_size)
    if generators is None:
        seeds = torch.randint(2**62, (batch_size, 2))
    else:
        seeds = torch.stack([torch.randint(2**62, (2,), generator=g, device=g.device).cpu() for g in generators])
    flow, vocoder = ([torch.Generator().manual_seed(seed) for seed in column] for column in seeds.T.tolist())
    return flow, vocoder


__all__ = ["S3GenChunks"]
