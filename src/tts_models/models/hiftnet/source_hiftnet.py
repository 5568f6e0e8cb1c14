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
"""The harmonic-plus-noise source of HiFTNet, in a form that can be continued frame by frame."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from .configuration_hiftnet import HiFTNetConfig


@dataclass
class SourceDraws:
    """The random part of a source.

    Attributes:
        phase (`torch.Tensor` of shape `(batch, harmonics, 1)`): First phase of every harmonic, in radians.
        noise (`torch.Tensor` of shape `(batch, harmonics, samples)`): Standard normal noise.
    """

    phase: torch.Tensor
    noise: torch.Tensor


def draw_phase(
    config: HiFTNetConfig, batch_size: int, generators: list[torch.Generator] | None, device: torch.device
) -> torch.Tensor:
    """First phases, uniform in (-pi, pi) for the overtones and 0 for the fundamental: (batch, harmonics, 1)."""
    harmonics = config.nb_harmonics + 1
    if generators is None:
        uniform = torch.rand(batch_size, harmonics, 1, device=device)
    else:
        rows = [torch.rand(harmonics, 1, generator=g, device=g.device).to(device) for g in generators]
        uniform = torch.stack(rows)
    phase = (2 * uniform - 1) * math.pi
    phase[:, 0] = 0
    return phase


def draw_noise(
    config: HiFTNetConfig,
    batch_size: int,
    frames: int,
    generators: list[torch.Generator] | None,
    device: torch.device,
) -> torch.Tensor:
    """Standard normal noise (batch, harmonics, frames * hop_length).

    With generators each frame is drawn by itself, so that a row's noise does not depend on how many frames are drawn
    at once: a stream gets what one pass over the whole gets.
    """
    harmonics, hop = config.nb_harmonics + 1, config.hop_length
    if generators is None or frames == 0:
        return torch.randn(batch_size, harmonics, frames * hop, device=device)
    rows = [
        torch.cat([torch.randn(harmonics, hop, generator=g, device=g.device) for _ in range(frames)], dim=-1)
        for g in generators
    ]
    return torch.stack([row.to(device) for row in rows])


class HiFTNetSource(nn.Module):
    """Sines of the fundamental and its overtones plus noise, mixed to one signal in (-1, 1)."""

    def __init__(self, config: HiFTNetConfig):
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.nb_harmonics + 1, 1)

    def forward(
        self, f0: torch.Tensor, draws: SourceDraws, cycles: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            f0: Fundamental frequency `(batch, frames)`, in Hz.
            draws: Phases, and noise for these frames.
            cycles: Where the harmonics stand before the first frame, in cycles `(batch, harmonics)`; 0 at a start.

        Returns:
            The source `(batch, 1, frames * hop_length)`, and the cycles after the last frame.
        """
        harmonics, cycles = self.harmonics(f0, draws, cycles)
        mixed = torch.tanh(self.linear(harmonics.transpose(1, 2).to(self.linear.weight.dtype)))
        return mixed.transpose(1, 2), cycles

    @torch.no_grad()
    def harmonics(
        self, f0: torch.Tensor, draws: SourceDraws, cycles: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sines and noise before mixing `(batch, harmonics, frames * hop_length)`, float32, and the cycles after."""
        config, f0 = self.config, f0.float()
        multiples = torch.arange(1, config.nb_harmonics + 2, device=f0.device)
        # Cycles are summed in double precision and per frame: in float32, and per sample, a long clip drifts.
        precise = torch.float32 if f0.device.type == "mps" else torch.float64
        step = (f0[:, None] * multiples[:, None] / config.sampling_rate).to(precise)
        if cycles is None:
            cycles = step.new_zeros(step.shape[:2])
        ends = (cycles[..., None] + (step * config.hop_length).cumsum(-1)) % 1
        starts = torch.cat([cycles[..., None], ends[..., :-1]], dim=-1)
        within = torch.arange(1, config.hop_length + 1, device=f0.device, dtype=precise)
        angles = (starts[..., None] + step[..., None] * within) % 1
        sines = config.nsf_alpha * torch.sin(2 * math.pi * angles.float().flatten(-2) + draws.phase.float())
        voiced = (f0 > config.nsf_voiced_threshold).float().repeat_interleave(config.hop_length, dim=-1)[:, None]
        deviation = voiced * config.nsf_sigma + (1 - voiced) * config.nsf_alpha / 3
        last = ends[..., -1] if f0.shape[-1] else cycles
        return sines * voiced + deviation * draws.noise.float(), last


__all__ = ["HiFTNetSource", "SourceDraws", "draw_noise", "draw_phase"]
