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
"""Training S3Gen's flow: the random draws of a step, and the loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .chunks_s3gen import ChunkMask
from .configuration_s3gen import S3GenConfig
from .modeling_s3gen_flow import S3GenFlow


@dataclass
class TrainingDraws:
    r"""
    The random part of a training step.

    Args:
        time (`torch.Tensor` of shape `(batch,)`): Uniform in [0, 1), before the schedule.
        noise (`torch.Tensor` of shape `(batch, frames, mel_bins)`): Standard normal.
        keep (`torch.BoolTensor` of shape `(batch,)`): Whether a row keeps its conditions.
        prompt_frames (`torch.LongTensor` of shape `(batch,)`): Frames of the target given as prompt.
    """

    time: torch.Tensor
    noise: torch.Tensor
    keep: torch.Tensor
    prompt_frames: torch.Tensor


def draw_training(
    config: S3GenConfig,
    target: torch.Tensor,
    lengths: torch.Tensor,
    generators: Sequence[torch.Generator] | None,
) -> TrainingDraws:
    """Draws for a batch: half of the rows get no prompt, the others up to 30 % of their frames.

    Args:
        config (`S3GenConfig`): Gives the share of rows without conditions.
        target (`torch.Tensor` of shape `(batch, frames, mel_bins)`): Mel frames; gives shape, dtype and device.
        lengths (`torch.LongTensor` of shape `(batch,)`): Tokens of each row.
        generators (`Sequence[torch.Generator]`, *optional*): One per row.
    """
    batch_size, frames = target.shape[:2]
    shares, noise = [], []
    for row in range(batch_size):
        generator = torch.default_generator if generators is None else generators[row]
        shares.append(torch.rand(4, generator=generator, device=generator.device).cpu())
        noise.append(torch.randn(target.shape[1:], generator=generator, device=generator.device).cpu())
    time, kept, has_prompt, share = torch.stack(shares).to(target.device).unbind(1)
    longest = (0.3 * config.token_mel_ratio * lengths).floor()
    return TrainingDraws(
        time=time,
        noise=torch.stack(noise).to(target),
        keep=kept > config.cfm_training_cfg_rate,
        prompt_frames=((has_prompt < 0.5) * share * (longest + 1)).long().clamp(max=frames),
    )


def flow_loss(
    flow: S3GenFlow,
    tokens: torch.Tensor,
    lengths: torch.Tensor,
    target: torch.Tensor,
    embedding: torch.Tensor,
    chunk_mask: ChunkMask | None,
    draws: TrainingDraws,
) -> torch.Tensor:
    r"""
    Flow-matching loss of a batch, as CosyVoice 2 trains it.

    Args:
        flow (`S3GenFlow`): The flow.
        tokens (`torch.LongTensor` of shape `(batch, tokens)`): Padded speech tokens.
        lengths (`torch.LongTensor` of shape `(batch,)`): Tokens of each row.
        target (`torch.Tensor` of shape `(batch, token_mel_ratio * tokens, mel_bins)`): Mel frames.
        embedding (`torch.Tensor` of shape `(batch, speaker_embed_dim)`): Speaker vectors.
        chunk_mask (`ChunkMask`, *optional*): Trains for streaming.
        draws (`TrainingDraws`): The random part.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    ratio = flow.config.token_mel_ratio
    encoded, bias = flow.encode(tokens, lengths, chunk_mask)
    target = target[:, : encoded.shape[1]]
    frames = torch.arange(target.shape[1], device=target.device)
    condition = target * (frames < draws.prompt_frames[:, None])[..., None]
    return flow.decoder.loss(
        target,
        encoded.to(target.dtype),
        flow.speaker(embedding).to(target.dtype),
        condition,
        frames < ratio * lengths[:, None],
        bias,
        {"time": draws.time, "noise": draws.noise[:, : target.shape[1]], "keep": draws.keep},
    )


__all__ = ["TrainingDraws"]
