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
"""Training MegaTTS3's diffusion transformer: the random draws of a step, and the error."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


SHORTEST_PROMPT, LONGEST_PROMPT = 0.1, 0.9


@dataclass
class MegaTTS3TrainingDraws:
    r"""
    The random part of a training step.

    Args:
        time (`torch.Tensor` of shape `(batch,)`): In (0, 1), logistic-normal as upstream draws it.
        noise (`torch.Tensor` of shape `(batch, steps, latent_dim)`): Standard normal.
        prompt_lengths (`torch.LongTensor` of shape `(batch,)`): Latents at a row's start that are given as the prompt.
        has_prompt (`torch.BoolTensor` of shape `(batch,)`): Whether a row sees its prompt.
        has_text (`torch.BoolTensor` of shape `(batch,)`): Whether a row sees its text; one without sees no prompt.
    """

    time: torch.Tensor
    noise: torch.Tensor
    prompt_lengths: torch.LongTensor
    has_prompt: torch.BoolTensor
    has_text: torch.BoolTensor


def draw_training(
    labels: torch.Tensor,
    lengths: torch.Tensor,
    dropout: float,
    generators: Sequence[torch.Generator] | None,
) -> MegaTTS3TrainingDraws:
    """Draws for a batch. A row's are the same alone and beside longer ones.

    Args:
        labels (`torch.Tensor` of shape `(batch, steps, latent_dim)`): Gives shape, dtype and device.
        lengths (`torch.LongTensor` of shape `(batch,)`): Latents of each row.
        dropout (`float`): Share of rows that lose prompt and text; as large a share loses the prompt alone, which
            makes the three conditions of the guidance.
        generators (`Sequence[torch.Generator]`, *optional*): One per row.
    """
    shares, noise = [], torch.zeros_like(labels)
    for row, length in enumerate(lengths.tolist()):
        generator = torch.default_generator if generators is None else generators[row]
        drawn = [
            draw(size, generator=generator, device=generator.device)
            for draw, size in ((torch.randn, 1), (torch.rand, 2), (torch.randn, (length, labels.shape[2])))
        ]
        shares.append(torch.cat(drawn[:2]).to(labels.device))
        noise[row, :length] = drawn[2].to(noise)
    logit, share, kept = torch.stack(shares).unbind(1)
    prompt_share = SHORTEST_PROMPT + (LONGEST_PROMPT - SHORTEST_PROMPT) * share
    return MegaTTS3TrainingDraws(
        time=logit.sigmoid(),
        noise=noise,
        prompt_lengths=(prompt_share * lengths).long(),
        has_prompt=kept >= min(2 * dropout, 1.0),
        has_text=kept >= dropout,
    )


def masked_mean_square(predicted: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of (batch, steps, channels) where `mask` (batch, steps, 1) is 1: a scalar."""
    error = (predicted - target).square() * mask
    return error.sum() / (mask.sum() * predicted.shape[2])


__all__ = ["MegaTTS3TrainingDraws"]
