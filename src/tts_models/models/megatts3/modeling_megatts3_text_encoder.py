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
"""The encoder of phones and tones that MegaTTS3's duration model and diffusion transformer each have."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.vits.modeling_vits import VitsAttention

from .configuration_megatts3 import MegaTTS3TextEncoderConfig
from .modeling_megatts3_base import check_ids


def sinusoid_positions(positions: torch.Tensor, size: int) -> torch.Tensor:
    """Sines, then cosines of `positions` `(...)` at `size / 2` frequencies: float32 `(..., size)`."""
    half = size // 2
    steps = torch.arange(half, device=positions.device, dtype=torch.float32)
    angles = positions.float()[..., None] * torch.exp(steps * (-math.log(10000.0) / (half - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class MegaTTS3TextConvolution(nn.Conv1d):
    """A convolution over `(batch, length, channels)` that keeps the length."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states.transpose(1, 2)).transpose(1, 2)


class MegaTTS3TextPrenet(nn.Module):
    """Convolutions with norms in front of the layers, added to their input."""

    def __init__(self, config: MegaTTS3TextEncoderConfig) -> None:
        super().__init__()
        size, count = config.hidden_size, config.prenet_layers
        kernel = config.prenet_kernel_size
        self.convs = nn.ModuleList(MegaTTS3TextConvolution(size, size, kernel) for _ in range(count))
        self.norms = nn.ModuleList(nn.LayerNorm(size, eps=config.layer_norm_eps) for _ in range(count))
        self.projection = nn.Linear(size, size)
        self.dropout = config.dropout

    def forward(self, hidden_states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """`(batch, length, hidden_size)`, with `valid` `(batch, length, 1)` zero on padding."""
        residual = hidden_states
        for conv, norm in zip(self.convs, self.norms, strict=True):
            hidden_states = torch.relu(norm(conv(hidden_states * valid)))
            hidden_states = F.dropout(hidden_states, self.dropout, self.training)
        return (residual + self.projection(hidden_states)) * valid


class MegaTTS3TextFeedForward(nn.Module):
    """A convolution over neighbouring phones, and a product back to the width."""

    def __init__(self, config: MegaTTS3TextEncoderConfig) -> None:
        super().__init__()
        self.conv = MegaTTS3TextConvolution(config.hidden_size, config.intermediate_size, config.kernel_size)
        self.projection = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = config.dropout

    def forward(self, hidden_states: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hidden_states = F.dropout(torch.relu(self.conv(hidden_states * valid)), self.dropout, self.training)
        return self.projection(hidden_states) * valid


class MegaTTS3TextLayer(GradientCheckpointingLayer):
    """Attention with relative positions, and the feed-forward layer, each normalised before."""

    def __init__(self, config: MegaTTS3TextEncoderConfig) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VitsAttention(config)
        self.feed_forward_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = MegaTTS3TextFeedForward(config)
        self.dropout, self.norm_first = config.dropout, config.norm_first

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states * valid
        before = self.self_attn_layer_norm(hidden_states) if self.norm_first else hidden_states
        attended, _ = self.self_attn(before, attention_mask=attention_mask)
        hidden_states = hidden_states + F.dropout(attended, self.dropout, self.training)
        # CODEPATH: the released checkpoint normalises first; upstream's class can also do so after.
        if not self.norm_first:
            hidden_states = self.self_attn_layer_norm(hidden_states)
            transformed = self.feed_forward(hidden_states, valid)
            return self.feed_forward_layer_norm(hidden_states + F.dropout(transformed, self.dropout, self.training))
        transformed = self.feed_forward(self.feed_forward_layer_norm(hidden_states), valid)
        return hidden_states + F.dropout(transformed, self.dropout, self.training)


def check_text(config: MegaTTS3TextEncoderConfig, phone_ids: torch.LongTensor, tone_ids: torch.LongTensor) -> None:
    """Refuses phones and tones, int64 `(batch, length)` both, that the tables do not hold.

    Raises:
        ValueError: the ids do not fit each other or the tables.
    """
    check_ids("phone_ids", phone_ids, config.vocab_size)
    check_ids("tone_ids", tone_ids, config.num_tones)
    if phone_ids.shape != tone_ids.shape:
        raise ValueError(
            f"`tone_ids` must have the shape of `phone_ids` {tuple(phone_ids.shape)}; got {tuple(tone_ids.shape)}."
        )


class MegaTTS3TextEmbedding(nn.Module):
    """Phones and tones to the sum of their embeddings, of which none knows of its neighbours."""

    def __init__(self, config: MegaTTS3TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.phone_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.tone_embedding = nn.Embedding(config.num_tones, config.hidden_size)

    def forward(self, phone_ids: torch.LongTensor, tone_ids: torch.LongTensor) -> torch.Tensor:
        """Phones and tones, int64 `(batch, length)` both, to `(batch, length, hidden_size)`, zeros on phone 0.

        Raises:
            ValueError: the ids do not fit each other or the tables.
        """
        check_text(self.config, phone_ids, tone_ids)
        return (self.phone_embedding(phone_ids) + self.tone_embedding(tone_ids)) * (phone_ids > 0)[..., None]


class MegaTTS3TextEncoder(nn.Module):
    """
    Phones and tones to states: embeddings with absolute positions, convolutions, layers with relative positions.

    Rows are padded on the right with phone 0, which comes out as zeros; a row's states do not depend on it.
    """

    def __init__(self, config: MegaTTS3TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.phone_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.tone_embedding = nn.Embedding(config.num_tones, config.hidden_size)
        self.prenet = MegaTTS3TextPrenet(config)
        self.layers = nn.ModuleList(MegaTTS3TextLayer(config) for _ in range(config.num_hidden_layers))
        # CODEPATH: the released checkpoint has a last norm; without norms in front the layers end in one each.
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm_first else nn.Identity()

    def forward(self, phone_ids: torch.LongTensor, tone_ids: torch.LongTensor) -> torch.Tensor:
        """States of the phones.

        Args:
            phone_ids: int64 `(batch, length)`, padded on the right with 0.
            tone_ids: int64 `(batch, length)`.

        Returns:
            `(batch, length, hidden_size)`, zeros on padding.

        Raises:
            ValueError: the ids do not fit each other or the tables.
        """
        check_text(self.config, phone_ids, tone_ids)
        valid = (phone_ids > 0)[..., None].to(self.phone_embedding.weight.dtype)
        hidden_states = self.prenet(self._embed(phone_ids, tone_ids), valid)
        # The heads' products take an additive mask of the full shape.
        hidden = (phone_ids <= 0)[:, None, None].expand(-1, 1, phone_ids.shape[1], -1)
        attention_mask = torch.zeros_like(hidden, dtype=valid.dtype).masked_fill(hidden, torch.finfo(valid.dtype).min)
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask, valid)
        return self.norm(hidden_states * valid) * valid

    def _embed(self, phone_ids: torch.LongTensor, tone_ids: torch.LongTensor) -> torch.Tensor:
        embeds = self.phone_embedding(phone_ids) * math.sqrt(self.config.hidden_size)
        positions = torch.arange(phone_ids.shape[1], device=phone_ids.device)
        return embeds + self.tone_embedding(tone_ids) + sinusoid_positions(positions, embeds.shape[-1]).to(embeds)


__all__ = ["MegaTTS3TextEmbedding", "MegaTTS3TextEncoder"]
