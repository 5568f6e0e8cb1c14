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
"""The flow of MegaTTS3's diffusion transformer: times, guidance by several conditions, a stochastic Euler solver."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ...streaming.generators import RowGenerators, resolve_row_generators


# Rows of a guided evaluation per row of the batch: prompt and text, text alone, neither.
CONDITIONS = 3


def sway_times(steps: int, coefficient: float, device: torch.device) -> torch.Tensor:
    """Times `(steps + 1,)` from 0 to 1, float32, closer together at the start with a negative coefficient.

    Sway sampling, Chen et al., 2024 (arXiv 2410.06885).
    """
    times = torch.linspace(0, 1, steps + 1, device=device)
    return times + coefficient * (torch.cos(0.5 * torch.pi * times) - 1 + times)


def step_coefficients(times: torch.Tensor, overshoot: float) -> torch.Tensor:
    r"""
    What a step from `state` with `velocity` and `noise` does: `keep * (state + stride * velocity) + spread * noise`.

    A step goes beyond its end by `overshoot` times its length and comes back by noise (attention-modulated
    overshooting, Hu et al., 2024, arXiv 2411.19415, with one strength for all positions).

    Args:
        times (`torch.Tensor` of shape `(steps + 1,)`): From 0 to 1.
        overshoot (`float`): 0 gives Euler's method without noise.

    Returns:
        `torch.Tensor` of shape `(steps, 3)`: stride, keep and spread, float32.
    """
    start, end = times[:-1].double(), times[1:].double()
    beyond = (end + overshoot * (end - start)).clamp(max=1)
    keep = end / beyond
    variance = (1 - end).square() - (keep * (1 - beyond)).square()
    return torch.stack([beyond - start, keep, variance.clamp(min=0).sqrt()], dim=1).float()


def guidance_weights(
    intelligibility: float | torch.Tensor, similarity: float | torch.Tensor, batch_size: int, device: torch.device
) -> torch.Tensor:
    """Weights `(3, batch, 1, 1)` of the three conditions, which sum to 1: float32.

    `none + intelligibility * (text - none) + similarity * (prompt and text - text)`.

    Raises:
        ValueError: a strength is not a finite number, or not one per row.
    """
    strengths = []
    for name, value in (("intelligibility_weight", intelligibility), ("similarity_weight", similarity)):
        tensor = torch.as_tensor(value, dtype=torch.float32, device=device)
        if tensor.shape not in ((), (batch_size,)) or not tensor.isfinite().all():
            raise ValueError(f"`{name}` must be a finite number, or one per row ({batch_size}); got {value}.")
        strengths.append(tensor.expand(batch_size))
    text, prompt = strengths
    return torch.stack([prompt, text - prompt, 1 - text])[..., None, None]


@dataclass(frozen=True)
class FlowNoise:
    r"""
    The random part of a solution.

    Args:
        initial (`torch.Tensor` of shape `(batch, steps, channels)`): Where it begins, standard normal.
        each_step (`torch.Tensor` of shape `(batch, inference_steps, steps, channels)`): What each step adds.
    """

    initial: torch.Tensor
    each_step: torch.Tensor


def draw_flow_noise(
    lengths: Sequence[int], channels: int, inference_steps: int, generator: RowGenerators, device: torch.device
) -> FlowNoise:
    """Noise of rows of these lengths, zero after their ends: a row's does not depend on the others.

    Raises:
        ValueError: not one generator per row.
    """
    generators = resolve_row_generators(generator, len(lengths))
    longest = max(lengths)
    drawn = torch.zeros(len(lengths), inference_steps + 1, longest, channels, device=device)
    for row, length in enumerate(lengths):
        source = None if generators is None else generators[row]
        place = device if source is None else source.device
        noise = torch.randn(inference_steps + 1, length, channels, generator=source, device=place)
        drawn[row, :, :length] = noise.to(device)
    return FlowNoise(drawn[:, 0], drawn[:, 1:])


def integrate(
    velocity: Callable[[torch.Tensor, int], torch.Tensor], noise: FlowNoise, coefficients: torch.Tensor
) -> torch.Tensor:
    """From noise to latents `(batch, steps, channels)`, float32.

    Args:
        velocity: Of a state and the number of a step.
        noise: Where to begin, and what each step adds.
        coefficients: Of [`step_coefficients`].
    """
    state = noise.initial.float()
    for step, (stride, keep, spread) in enumerate(coefficients):
        state = keep * (state + stride * velocity(state, step)) + spread * noise.each_step[:, step]
    return state


__all__ = ["FlowNoise", "draw_flow_noise", "guidance_weights", "integrate", "step_coefficients", "sway_times"]
