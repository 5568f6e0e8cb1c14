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
"""S3Gen's flow encoder: speech tokens at 25 Hz to what the mel frames at 50 Hz should sound like."""

import torch
from torch import nn
from torch.nn import functional as F

from ...streaming.history import History
from .chunks_s3gen import ChunkMask
from .configuration_s3gen import S3GenConfig
from .modeling_s3gen_layers import S3GenCausalConv1d, S3GenEncoderLayer, convolve


class S3GenEncoderEmbedding(nn.Module):
    """Linear layer, layer norm, scaled by the square root of the width."""

    def __init__(self, config: S3GenConfig, in_features: int):
        super().__init__()
        width = config.encoder_output_size
        self.scale = width**0.5
        self.out = nn.ModuleList([nn.Linear(in_features, width), nn.LayerNorm(width)])
        self.dropout = nn.Dropout(config.encoder_dropout_rate)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for layer in self.out:
            hidden_states = layer(hidden_states)
        return self.dropout(self.dropout(hidden_states) * self.scale)


class S3GenLookahead(nn.Module):
    """Two convolutions, the first of which hears `pre_lookahead_len` tokens ahead; nothing else in the flow does."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        width = config.encoder_output_size
        self.look_ahead = config.pre_lookahead_len
        self.conv1 = nn.Conv1d(width, width, self.look_ahead + 1)
        self.conv2 = S3GenCausalConv1d(width, width, 3)

    def forward(
        self,
        hidden_states: torch.Tensor,
        ahead: torch.Tensor | None = None,
        history: History | None = None,
    ) -> torch.Tensor:
        """The hidden states (batch, steps, channels), mixed with the at most `look_ahead` ones that follow them."""
        follow = hidden_states if ahead is None else torch.cat([hidden_states, ahead], dim=1)
        missing = hidden_states.shape[1] + self.look_ahead - follow.shape[1]
        mixed = F.leaky_relu(convolve(self.conv1, F.pad(follow, (0, 0, 0, missing))))
        return hidden_states + self.conv2(mixed, history)


class S3GenUpsample(nn.Module):
    """Every step repeated, then a convolution that looks back."""

    def __init__(self, config: S3GenConfig):
        super().__init__()
        self.stride = config.token_mel_ratio
        width = config.encoder_output_size
        self.conv = S3GenCausalConv1d(width, width, 2 * self.stride + 1)

    def forward(self, hidden_states: torch.Tensor, history: History | None = None) -> torch.Tensor:
        return self.conv(hidden_states.repeat_interleave(self.stride, dim=1), history)


class S3GenEncoder(nn.Module):
    r"""
    Upsampling conformer without convolution modules: embedded tokens (batch, tokens, token_embed_dim) to hidden states
    (batch, tokens * token_mel_ratio, encoder_output_size).

    Attributes:
        mask_padding (`bool`): Whether the embedded padding of a batch is silenced before the look-ahead, so that a row
            does not depend on its padding. Upstream leaves it in; `False` reproduces that.
    """

    def __init__(self, config: S3GenConfig):
        super().__init__()
        self.mask_padding = True
        self.stride = config.token_mel_ratio
        self.embed = S3GenEncoderEmbedding(config, config.token_embed_dim)
        self.pre_lookahead_layer = S3GenLookahead(config)
        self.encoders = nn.ModuleList(S3GenEncoderLayer(config) for _ in range(config.encoder_num_blocks))
        self.up_layer = S3GenUpsample(config)
        self.up_embed = S3GenEncoderEmbedding(config, config.encoder_output_size)
        self.up_encoders = nn.ModuleList(S3GenEncoderLayer(config) for _ in range(config.encoder_num_up_blocks))
        self.after_norm = nn.LayerNorm(config.encoder_output_size)

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        key_mask: torch.Tensor | None = None,
        chunk_mask: ChunkMask | None = None,
    ) -> torch.Tensor:
        """Encode a batch at once.

        Args:
            inputs_embeds (`torch.Tensor` of shape `(batch, tokens, token_embed_dim)`): Embedded tokens.
            padding_mask (`torch.BoolTensor` of shape `(batch, tokens)`, *optional*): True for tokens; padding follows.
            key_mask (`torch.BoolTensor` of shape `(batch, tokens)`, *optional*): Tokens that the attention sees, where
                these are not all; the look-ahead hears every token.
            chunk_mask (`ChunkMask`, *optional*): Limits attention to chunks.
        """
        hidden_states = self.embed(inputs_embeds)
        if padding_mask is not None and self.mask_padding:
            hidden_states = hidden_states * padding_mask[..., None]
        hidden_states = self.pre_lookahead_layer(hidden_states)
        key_mask = padding_mask if key_mask is None else key_mask
        mask = attention_bias(hidden_states, key_mask, chunk_mask)
        for layer in self.encoders:
            hidden_states = layer(hidden_states, mask)
        hidden_states = self.up_embed(self.up_layer(hidden_states))
        mask = None if mask is None else repeat_bias(mask, self.stride)
        for layer in self.up_encoders:
            hidden_states = layer(hidden_states, mask)
        return self.after_norm(hidden_states)

    def forward_chunk(self, embedded: torch.Tensor, ahead: torch.Tensor, history: History) -> torch.Tensor:
        """Hidden states of the next chunk, which attends to itself and to the past.

        Args:
            embedded (`torch.Tensor` of shape `(batch, tokens, encoder_output_size)`): Output of `embed`.
            ahead (`torch.Tensor` of shape `(batch, at most look-ahead, encoder_output_size)`): What follows.
            history (`History`): The past.
        """
        hidden_states = self.pre_lookahead_layer(embedded, ahead, history)
        for layer in self.encoders:
            hidden_states = layer(hidden_states, None, history)
        hidden_states = self.up_embed(self.up_layer(hidden_states, history))
        for layer in self.up_encoders:
            hidden_states = layer(hidden_states, None, history)
        return self.after_norm(hidden_states)


def attention_bias(
    hidden_states: torch.Tensor, key_mask: torch.Tensor | None, chunk_mask: ChunkMask | None
) -> torch.Tensor | None:
    """What is added to the attention's scores: `(batch, 1, tokens or 1, tokens)` in the dtype of `hidden_states`.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch, tokens, channels)`): One step per token.
        key_mask (`torch.BoolTensor` of shape `(batch, tokens)`, *optional*): True for tokens that can be seen.
        chunk_mask (`ChunkMask`, *optional*): Which tokens see which.
    """
    visible = None if key_mask is None else key_mask[:, None, None]
    if chunk_mask is not None:
        chunks = chunk_mask.visible(hidden_states.shape[1], hidden_states.device)[:, None]
        visible = chunks if visible is None else visible & chunks
    if visible is None:
        return None
    bias = torch.zeros(visible.shape, dtype=hidden_states.dtype, device=hidden_states.device)
    return bias.masked_fill_(~visible, 0.5 * torch.finfo(hidden_states.dtype).min)


def repeat_bias(bias: torch.Tensor, repeats: int) -> torch.Tensor:
    """The bias of tokens for so many steps per token."""
    bias = bias.repeat_interleave(repeats, dim=-1)
    return bias.repeat_interleave(repeats, dim=-2) if bias.shape[-2] > 1 else bias
