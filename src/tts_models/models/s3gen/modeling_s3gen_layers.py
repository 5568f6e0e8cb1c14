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
"""Parts of S3Gen's flow: convolutions that look back, and the two kinds of self-attention.

Everything here works on (batch, steps, channels), where a convolution is one matrix product, and takes the `history`
of a stream, with which the same code runs over a signal in pieces.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ...acceleration.attention import eager_attention_forward
from ...streaming.history import History
from .configuration_s3gen import S3GenConfig


@lru_cache(maxsize=8)
def relative_positions(first: int, last: int, channels: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Sinusoidal rows of the offsets `first`, `first - 1`, … `last`: sines at even channels, cosines at odd ones.

    Args:
        first, last (`int`): Largest and smallest offset, query position minus key position.
        channels (`int`): Width of a row.
        dtype, device: Of the result; it is kept for the next call and must not be written to.

    Returns:
        `torch.Tensor` of shape `(first - last + 1, channels)`.
    """
    with torch.inference_mode(False):  # a later call may train
        offsets = torch.arange(first, last - 1, -1, device=device, dtype=torch.float32)
        exponents = torch.arange(0, channels, 2, device=device, dtype=torch.float32) / channels
        angles = torch.outer(offsets, 10000.0**-exponents)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(dtype)


def shift_relative(scores: torch.Tensor, keys: int) -> torch.Tensor:
    """Scores by offset to scores by key.

    Args:
        scores (`torch.Tensor` of shape `(…, queries, keys + queries - 1)`): Column `c` belongs to the offset
            `keys - 1 - c`; the last query stands at the last key.
        keys (`int`): Number of keys.

    Returns:
        `torch.Tensor` of shape `(…, queries, keys)`.
    """
    queries = scores.shape[-2]
    padded = F.pad(scores, (0, 1))
    width = padded.shape[-1] - 1
    flat = padded.flatten(-2)[..., queries - 1 : queries - 1 + queries * width]
    return flat.unflatten(-1, (queries, width))[..., :keys]


class S3GenCausalConv1d(nn.Conv1d):
    """Convolution with stride 1 over (batch, steps, channels) that looks back only."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, hidden_states: torch.Tensor, history: History | None = None) -> torch.Tensor:
        before = self.kernel_size[0] - 1
        if history is None:
            hidden_states = F.pad(hidden_states, (0, 0, before, 0))
        else:
            hidden_states = history.extend(self, hidden_states, before, dim=1)
        return convolve(self, hidden_states)


def convolve(layer: nn.Conv1d, hidden_states: torch.Tensor) -> torch.Tensor:
    """A stride-1 convolution without padding over (batch, steps, channels), as one matrix product."""
    kernel_size = layer.kernel_size[0]
    steps = hidden_states.shape[1] - kernel_size + 1
    if kernel_size == 1:
        return F.linear(hidden_states, layer.weight.squeeze(-1), layer.bias)
    windows = torch.cat([hidden_states[:, i : i + steps] for i in range(kernel_size)], dim=-1)
    return F.linear(windows, layer.weight.transpose(1, 2).flatten(1), layer.bias)


class S3GenEncoderAttention(nn.Module):
    """Self-attention with relative positions (Transformer-XL), every step to every step that the mask lets it see."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        width = config.encoder_output_size
        self.config = config
        self.num_heads = config.encoder_attention_heads
        self.head_dim = width // self.num_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, history: History | None = None
    ) -> torch.Tensor:
        batch_size, steps, width = hidden_states.shape
        shape = (batch_size, steps, self.num_heads, self.head_dim)
        query = self.linear_q(hidden_states).view(shape)
        key = self.linear_k(hidden_states).view(shape).transpose(1, 2)
        value = self.linear_v(hidden_states).view(shape).transpose(1, 2)
        if history is not None:
            key, value = history.append(self, key, value)
        positions = self._positions(hidden_states, key.shape[2], history)
        scores = torch.matmul((query + self.pos_bias_v).transpose(1, 2), positions.transpose(1, 2))
        bias = shift_relative(scores, key.shape[2]) * self.scaling
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention_interface(
            self,
            (query + self.pos_bias_u).transpose(1, 2),
            key,
            value,
            bias if attention_mask is None else bias + attention_mask,
            dropout=self.config.encoder_dropout_rate if self.training else 0.0,
            scaling=self.scaling,
            is_causal=False,
        )
        return self.linear_out(output.reshape(batch_size, steps, width))

    def _positions(self, hidden_states: torch.Tensor, keys: int, history: History | None) -> torch.Tensor:
        """Projected rows of every offset between the steps and their keys: (heads, rows, head_dim)."""
        queries = hidden_states.shape[1]

        def project(room: int) -> torch.Tensor:
            rows = relative_positions(
                room - 1, 1 - queries, hidden_states.shape[2], hidden_states.dtype, hidden_states.device
            )
            return self.linear_pos(rows).view(-1, self.num_heads, self.head_dim).transpose(0, 1)

        if history is None:
            return project(keys)
        # In a stream the number of keys grows with every piece: rows are made for more than are needed now.
        table = history.table((self, queries), keys, project)
        return table[:, -(keys + queries - 1) :]


class S3GenEncoderLayer(nn.Module):
    """Attention and feed-forward layer, each normalised before."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        width = config.encoder_output_size
        self.self_attn = S3GenEncoderAttention(config)
        self.feed_forward = S3GenEncoderMLP(config)
        self.norm_mha = nn.LayerNorm(width, eps=1e-12)
        self.norm_ff = nn.LayerNorm(width, eps=1e-12)
        self.dropout = nn.Dropout(config.encoder_dropout_rate)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, history: History | None = None
    ) -> torch.Tensor:
        attended = self.self_attn(self.norm_mha(hidden_states), attention_mask, history)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.feed_forward(self.norm_ff(hidden_states)))


class S3GenEncoderMLP(nn.Module):
    """Two linear layers with SiLU between."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        self.w_1 = nn.Linear(config.encoder_output_size, config.encoder_linear_units)
        self.w_2 = nn.Linear(config.encoder_linear_units, config.encoder_output_size)
        self.dropout = nn.Dropout(config.encoder_dropout_rate)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.w_2(self.dropout(F.silu(self.w_1(hidden_states))))


class S3GenEstimatorAttention(nn.Module):
    """Self-attention without positions; the convolutions around it know the order."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        width = config.decoder_channels[0]
        inner = config.decoder_num_heads * config.decoder_attention_head_dim
        self.config = config
        self.head_dim = config.decoder_attention_head_dim
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(width, inner, bias=False)
        self.to_v = nn.Linear(width, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, width)])

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, history: History | None = None
    ) -> torch.Tensor:
        batch_size, steps = hidden_states.shape[:2]
        shape = (batch_size, steps, -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2) for projection in (self.to_q, self.to_k, self.to_v)
        )
        if history is not None:
            key, value = history.append(self, key, value)
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention_interface(self, query, key, value, attention_mask, scaling=self.scaling, is_causal=False)
        return self.to_out[0](output.reshape(batch_size, steps, -1))
