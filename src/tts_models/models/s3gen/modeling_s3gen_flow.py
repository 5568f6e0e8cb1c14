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
"""S3Gen's flow: speech tokens and a reference voice to a mel spectrogram, by conditional flow matching."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from ...acceleration.cuda_graph import GraphedFunction
from ...streaming.history import History
from .chunks_s3gen import ChunkMask
from .configuration_s3gen import S3GenConfig
from .modeling_s3gen_encoder import S3GenEncoder, attention_bias, repeat_bias
from .modeling_s3gen_estimator import S3GenEstimator


@dataclass(frozen=True)
class FlowPlan:
    r"""
    What an integration needs that no request changes.

    Args:
        times (`torch.Tensor` of shape `(steps + 1,)`): Times from 0 to 1, float32.
        shifts (`torch.Tensor` of shape `(levels, steps, 1, channels)`): What they add in the estimator.
        guidance (`float`): Strength of classifier-free guidance; with 0 the unconditional rows are left out.
    """

    times: torch.Tensor
    shifts: torch.Tensor
    guidance: float

    @property
    def steps(self) -> int:
        """Euler steps."""
        return self.times.shape[0] - 1

    @property
    def copies(self) -> int:
        """Rows of the estimator per row of the batch."""
        return 2 if self.guidance else 1


class S3GenDecoder(nn.Module):
    """The flow-matching decoder: integrates the estimator's velocity, or computes the loss that trains it."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        self.config = config
        self.estimator = S3GenEstimator(config)
        self.use_graphs(None)

    def time_steps(self, steps: int, device: torch.device) -> torch.Tensor:
        """The times `(steps + 1,)` from 0 to 1, float32."""
        times = torch.linspace(0, 1, steps + 1, device=device)
        # CODEPATH: mean velocities in the Turbo checkpoint (s3gen_meanflow), those of an instant in the others.
        return times if self.config.meanflow else self.warp(times)

    def warp(self, times: torch.Tensor) -> torch.Tensor:
        """Uniform times to those of the schedule: dense at the start."""
        # CODEPATH: cosine in all released checkpoints; linear in models trained without.
        return 1 - torch.cos(times * 0.5 * torch.pi) if self.config.cfm_t_scheduler == "cosine" else times

    def plan(self, steps: int | None, guidance: float | None, device: torch.device) -> FlowPlan:
        """What an integration of so many steps needs; the configuration's values where `None` is given."""
        config = self.config
        times = self.time_steps(config.default_flow_steps if steps is None else steps, device)
        if guidance is None:
            # CODEPATH: the Turbo checkpoint (s3gen_meanflow) was distilled from guided outputs.
            guidance = 0.0 if config.meanflow else config.cfm_inference_cfg_rate
        # CODEPATH: mean velocities in the Turbo checkpoint (s3gen_meanflow), those of an instant in the others.
        ends = times[1:] if config.meanflow else None
        shifts = self.estimator.shifts(times[:-1], ends)
        return FlowPlan(times, shifts, float(guidance))

    def forward(
        self,
        noise: torch.Tensor,
        encoded: torch.Tensor,
        speaker: torch.Tensor,
        condition: torch.Tensor,
        plan: FlowPlan,
        attention_mask: torch.Tensor | None = None,
        histories: Sequence[History] | None = None,
    ) -> torch.Tensor:
        r"""
        Integrate from noise to mel frames.

        Args:
            noise, encoded, condition (`torch.Tensor` of shape `(batch, frames, mel_bins)`): Start, encoded tokens, and
                the mel frames of the prompt with zeros after them.
            speaker (`torch.Tensor` of shape `(batch, mel_bins)`): Projected speaker vector.
            plan ([`FlowPlan`]): Times and guidance.
            attention_mask (`torch.Tensor` of shape `(batch, 1, frames or 1, frames)`, *optional*): Added to scores.
            histories (`Sequence[History]`, *optional*): One per step, for a stream.

        Returns:
            `torch.Tensor` of shape `(batch, frames, mel_bins)`: Mel frames, float32.
        """
        frames = noise.shape[1]
        given = torch.cat([encoded, speaker[:, None].expand(-1, frames, -1), condition], dim=-1)
        given = given.to(self.estimator.dtype)
        state = noise.float()
        if self.graphed_estimator is not None and histories is None:
            state, given, attention_mask = self._fill_bucket(state, given, attention_mask)
        if plan.guidance:
            given = torch.cat([given, torch.zeros_like(given)])
            attention_mask = attention_mask if attention_mask is None else attention_mask.repeat(2, 1, 1, 1)
        for step, (time, end) in enumerate(zip(plan.times[:-1], plan.times[1:], strict=True)):
            repeated = state.to(given.dtype).repeat(plan.copies, 1, 1)
            inputs = (torch.cat([repeated, given], dim=-1), plan.shifts[:, step : step + 1], attention_mask)
            if histories is not None:
                velocity = self.estimator(*inputs, histories[step]).float()
            else:
                velocity = (self.graphed_estimator or self.estimator)(*inputs).float()
            if plan.guidance:
                guided, unguided = velocity.chunk(2)
                velocity = (1 + plan.guidance) * guided - plan.guidance * unguided
            state = state + (end - time) * velocity
        return state[:, :frames]

    def use_graphs(self, bucket_frames: int | None) -> None:
        """Run the estimator through CUDA graphs, on inputs padded to multiples of `bucket_frames`; `None` ends it."""
        self.bucket_frames, self.graphed_estimator = bucket_frames, None
        if bucket_frames is not None:
            estimator = self.estimator
            self.graphed_estimator = GraphedFunction(
                lambda *inputs: estimator(*inputs), lambda: estimator.final_proj.weight.data_ptr()
            )

    def _fill_bucket(
        self, state: torch.Tensor, given: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The inputs, padded at the end by frames that nothing attends to."""
        frames = state.shape[1]
        missing = -frames % self.bucket_frames
        if attention_mask is None:
            attention_mask = given.new_zeros(state.shape[0], 1, 1, frames)
        rows = missing if attention_mask.shape[2] > 1 else 0
        attention_mask = F.pad(attention_mask, (0, missing, 0, rows), value=0.5 * torch.finfo(given.dtype).min)
        return F.pad(state, (0, 0, 0, missing)), F.pad(given, (0, 0, 0, missing)), attention_mask

    def loss(
        self,
        target: torch.Tensor,
        encoded: torch.Tensor,
        speaker: torch.Tensor,
        condition: torch.Tensor,
        frame_mask: torch.Tensor,
        attention_mask: torch.Tensor | None,
        draws: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        r"""
        Flow-matching loss: mean squared error of the velocity at a random time of the straight path from noise to the
        target, over the valid frames.

        Args:
            target, encoded, condition (`torch.Tensor` of shape `(batch, frames, mel_bins)`): As in `forward`; the
                target is the mel spectrogram.
            speaker (`torch.Tensor` of shape `(batch, mel_bins)`): Projected speaker vector.
            frame_mask (`torch.BoolTensor` of shape `(batch, frames)`): True for valid frames.
            attention_mask (`torch.Tensor`, *optional*): Added to scores.
            draws (`dict`): `time` `(batch,)` uniform before the schedule, `noise` as the target, `keep` bool
                `(batch,)`: whether a row keeps its conditions.
        """
        noise, keep = draws["noise"], draws["keep"].to(target.dtype)
        times = self.warp(draws["time"])
        time, sigma = times[:, None, None], self.config.cfm_sigma_min
        state = (1 - (1 - sigma) * time) * noise + time * target
        velocity = target - (1 - sigma) * noise
        speaker = speaker[:, None].expand(-1, target.shape[1], -1)
        given = torch.cat([encoded, speaker, condition], dim=-1) * keep[:, None, None]
        inputs = torch.cat([state, given], dim=-1).to(self.estimator.dtype)
        # CODEPATH: the Turbo checkpoint (s3gen_meanflow) learns here a step that ends where it begins.
        ends = times if self.config.meanflow else None
        shifts = self.estimator.shifts(times, ends)
        predicted = self.estimator(inputs, shifts, attention_mask).to(target.dtype)
        error = F.mse_loss(predicted, velocity, reduction="none") * frame_mask[..., None]
        return error.sum() / (frame_mask.sum() * target.shape[2])


class S3GenFlow(nn.Module):
    """Speech tokens with a prompt and a speaker vector to mel frames."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab_size, config.token_embed_dim)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_embed_dim, config.mel_bins)
        self.encoder = S3GenEncoder(config)
        self.encoder_proj = nn.Linear(config.encoder_output_size, config.mel_bins)
        self.decoder = S3GenDecoder(config)

    def speaker(self, embedding: torch.Tensor) -> torch.Tensor:
        """Projection `(batch, mel_bins)` of speaker vectors `(batch, speaker_embed_dim)` of any length."""
        layer = self.spk_embed_affine_layer
        return layer(F.normalize(embedding.to(layer.weight.dtype), dim=1))

    def encode(
        self,
        tokens: torch.Tensor,
        lengths: torch.Tensor,
        chunk_mask: ChunkMask | None = None,
        num_ahead: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        r"""
        Encode padded tokens.

        Args:
            tokens (`torch.LongTensor` of shape `(batch, tokens)`): Prompt and speech tokens; padding may be anything
                inside the vocabulary.
            lengths (`torch.LongTensor` of shape `(batch,)`): Tokens of each row.
            chunk_mask ([`ChunkMask`], *optional*): Limits attention to chunks.
            num_ahead (`int`): How many tokens at a row's end belong to frames not wanted yet. With a chunk mask only
                the look-ahead hears them; without one the encoder attends to them, as upstream's does.

        Returns:
            What the frames should sound like `(batch, frames, mel_bins)`, and what the estimator adds to its scores.
        """
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        padding_mask = positions < lengths[:, None]
        kept = positions < (lengths - num_ahead)[:, None]
        is_padded = not padding_mask.all()
        embeds = self.input_embedding(tokens) * padding_mask[..., None]
        hidden_states = self.encoder(
            embeds,
            padding_mask if is_padded else None,
            kept if num_ahead and chunk_mask is not None else None,
            chunk_mask,
        )
        kept_tokens = max(int(lengths.max()) - num_ahead, 0)
        encoded = self.encoder_proj(hidden_states)[:, : kept_tokens * self.config.token_mel_ratio]
        estimator_input = encoded.to(self.decoder.estimator.dtype)[:, :: self.config.token_mel_ratio]
        kept = kept[:, :kept_tokens]
        bias = attention_bias(estimator_input, None if kept.all() else kept, chunk_mask)
        return encoded, None if bias is None else repeat_bias(bias, self.config.token_mel_ratio)


__all__ = ["FlowPlan", "S3GenDecoder", "S3GenFlow"]
