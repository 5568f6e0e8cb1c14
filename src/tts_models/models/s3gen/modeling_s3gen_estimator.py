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
"""S3Gen's estimator: the velocity that carries noise towards the mel spectrogram."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from ...streaming.history import History
from .configuration_s3gen import S3GenConfig
from .modeling_s3gen_layers import S3GenCausalConv1d, S3GenEstimatorAttention, convolve


class S3GenConvBlock(nn.Module):
    """Causal convolution, layer norm, Mish."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        # The checkpoint's numbering counts two transpositions, which this layout does not need.
        self.block = nn.ModuleDict(
            {
                "0": S3GenCausalConv1d(in_channels, out_channels, 3),
                "2": nn.LayerNorm(out_channels),
            }
        )

    def forward(self, hidden_states: torch.Tensor, history: History | None = None) -> torch.Tensor:
        return F.mish(self.block["2"](self.block["0"](hidden_states, history)))


class S3GenResnet(nn.Module):
    """Two convolution blocks with a shift by the time between them, added to a projection of the input."""

    def __init__(self, config: S3GenConfig, in_channels: int):
        super().__init__()
        width = config.decoder_channels[0]
        self.mlp = nn.ModuleDict({"1": nn.Linear(4 * width, width)})
        self.block1 = S3GenConvBlock(in_channels, width)
        self.block2 = S3GenConvBlock(width, width)
        self.res_conv = nn.Conv1d(in_channels, width, 1)

    def shift(self, time: torch.Tensor) -> torch.Tensor:
        """The shift `(rows, 1, channels)` of embedded times `(rows, 4 * channels)`."""
        return self.mlp["1"](F.mish(time))[:, None]

    def forward(
        self, hidden_states: torch.Tensor, shift: torch.Tensor, history: History | None = None
    ) -> torch.Tensor:
        shifted = self.block1(hidden_states, history) + shift
        return self.block2(shifted, history) + convolve(self.res_conv, hidden_states)


class S3GenFeedForward(nn.Module):
    """Linear layer, activation, linear layer; with `"geglu"` one half of the first layer gates the other."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        width, name = config.decoder_channels[0], config.decoder_act_fn
        self.is_gated = name == "geglu"
        if not self.is_gated and name not in ACT2FN:
            raise ValueError(
                "`decoder_act_fn` must be 'geglu' or an activation that transformers knows "
                f"({', '.join(ACT2FN)}), got {name!r}."
            )
        self.activation = ACT2FN["gelu" if self.is_gated else name]
        self.net = nn.ModuleDict(
            {
                "0": nn.ModuleDict({"proj": nn.Linear(width, (8 if self.is_gated else 4) * width)}),
                "2": nn.Linear(4 * width, width),
            }
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.net["0"]["proj"](hidden_states)
        if not self.is_gated:
            return self.net["2"](self.activation(hidden_states))
        values, gates = hidden_states.chunk(2, dim=-1)
        return self.net["2"](values * self.activation(gates))


class S3GenTransformerBlock(nn.Module):
    """Attention and feed-forward layer, each normalised before."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        width = config.decoder_channels[0]
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = S3GenEstimatorAttention(config)
        self.norm3 = nn.LayerNorm(width)
        self.ff = S3GenFeedForward(config)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, history: History | None = None
    ) -> torch.Tensor:
        hidden_states = hidden_states + self.attn1(self.norm1(hidden_states), attention_mask, history)
        return hidden_states + self.ff(self.norm3(hidden_states))


class S3GenTimeEmbedding(nn.Module):
    """Sinusoids of the time, then two linear layers."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        self.channels = config.decoder_in_channels
        width = 4 * config.decoder_channels[0]
        self.linear_1 = nn.Linear(self.channels, width)
        self.linear_2 = nn.Linear(width, width)

    def features(self, time: torch.Tensor) -> torch.Tensor:
        """Sinusoids `(rows, channels)` of the times `(rows,)`, float32: half precision is too coarse for them."""
        half = self.channels // 2
        step = -math.log(10000.0) / (half - 1)
        frequencies = torch.exp(torch.arange(half, device=time.device, dtype=torch.float32) * step)
        angles = 1000.0 * time.float()[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        features = self.features(time).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(features)))


class S3GenEstimator(nn.Module):
    r"""
    Network of one resolution with a skip connection: `[noisy mel | encoded tokens | speaker | prompt]` and the time to
    a velocity, all over (batch, frames, channels). Every convolution looks back only.
    """

    def __init__(self, config: S3GenConfig):
        super().__init__()
        width = config.decoder_channels[0]
        self.time_mlp = S3GenTimeEmbedding(config)
        # CODEPATH: the mean-flow (Turbo) checkpoint also embeds the time at which a step ends.
        self.time_embed_mixer = nn.Linear(8 * width, 4 * width, bias=False) if config.meanflow else None
        self.down_blocks = nn.ModuleList([self._level(config, config.decoder_in_channels, has_convolution=True)])
        self.mid_blocks = nn.ModuleList(self._level(config, width) for _ in range(config.decoder_num_mid_blocks))
        self.up_blocks = nn.ModuleList([self._level(config, 2 * width, has_convolution=True)])
        self.final_block = S3GenConvBlock(width, width)
        self.final_proj = nn.Conv1d(width, config.decoder_out_channels, 1)

    @staticmethod
    def _level(config: S3GenConfig, in_channels: int, has_convolution: bool = False) -> nn.ModuleList:
        width = config.decoder_channels[0]
        blocks = nn.ModuleList(S3GenTransformerBlock(config) for _ in range(config.decoder_n_blocks))
        convolution = [S3GenCausalConv1d(width, width, 3)] if has_convolution else []
        return nn.ModuleList([S3GenResnet(config, in_channels), blocks, *convolution])

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the computation."""
        return self.final_proj.weight.dtype

    def shifts(self, time: torch.Tensor, end_time: torch.Tensor | None = None) -> torch.Tensor:
        """What the times `(rows,)` add in every level: `(levels, rows, 1, channels)`.

        It does not depend on the audio, so a solver computes it once for all its steps.

        Args:
            time (`torch.Tensor` of shape `(rows,)`): Times in [0, 1].
            end_time (`torch.Tensor` of shape `(rows,)`, *optional*): Where the step ends, for a mean-flow model.
        """
        embedded = self.time_mlp(time)
        if self.time_embed_mixer is not None:
            embedded = self.time_embed_mixer(torch.cat([embedded, self.time_mlp(end_time)], dim=-1))
        levels = [*self.down_blocks, *self.mid_blocks, *self.up_blocks]
        return torch.stack([level[0].shift(embedded) for level in levels])

    def forward(
        self,
        hidden_states: torch.Tensor,
        shifts: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        history: History | None = None,
    ) -> torch.Tensor:
        r"""
        Args:
            hidden_states (`torch.Tensor` of shape `(batch, frames, decoder_in_channels)`): The joined inputs.
            shifts (`torch.Tensor` of shape `(levels, batch or 1, 1, channels)`): From `shifts`.
            attention_mask (`torch.Tensor` of shape `(batch, 1, frames or 1, frames)`, *optional*): Added to scores.
            history (`History`, *optional*): What this Euler step has seen of the frames before these.

        Returns:
            `torch.Tensor` of shape `(batch, frames, decoder_out_channels)`: The velocity.
        """
        shift = iter(shifts)
        (down,), (up,) = self.down_blocks, self.up_blocks
        hidden_states = skip = self._run_level(down, hidden_states, next(shift), attention_mask, history)
        hidden_states = down[2](hidden_states, history)
        for level in self.mid_blocks:
            hidden_states = self._run_level(level, hidden_states, next(shift), attention_mask, history)
        hidden_states = torch.cat([hidden_states, skip], dim=-1)
        hidden_states = self._run_level(up, hidden_states, next(shift), attention_mask, history)
        hidden_states = self.final_block(up[2](hidden_states, history), history)
        return convolve(self.final_proj, hidden_states)

    @staticmethod
    def _run_level(
        level: nn.ModuleList,
        hidden_states: torch.Tensor,
        shift: torch.Tensor,
        attention_mask: torch.Tensor | None,
        history: History | None,
    ) -> torch.Tensor:
        hidden_states = level[0](hidden_states, shift, history)
        for block in level[1]:
            hidden_states = block(hidden_states, attention_mask, history)
        return hidden_states
