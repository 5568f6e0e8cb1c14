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


@dataclass(frozen=True)
class ChunkMask:
    r"""
    Attention limited to chunks of tokens, counted from the start of the prompt: a token sees its own chunk and those
    before it.

    Args:
        size (`int`): Tokens per chunk. The released weights were trained with 25.
        first (`torch.LongTensor` of shape `(batch,)` or `None`): A chunk also ends here, at this position of each row:
            so that the first chunk of an answer can be a short one.
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
        fixed = torch.Generator().manual_seed(0)
        self.frames = self._draw(prompt_frames, fixed)[:prompt_frames]
        self.seed = torch.randint(2**62, (1,), generator=generator).item()
        self.generator = torch.Generator().manual_seed(self.seed)

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


__all__ = ["ChunkMask", "FrameNoise"]
