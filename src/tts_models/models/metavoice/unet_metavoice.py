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
"""The network of one band of multi-band diffusion (San Roman et al., 2023): a U-Net that estimates noise."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward


# The transformer at the bottleneck has one size, whatever the network's.
_TRANSFORMER_LAYERS, _TRANSFORMER_HEADS, _TRANSFORMER_INNER = 6, 8, 2048
_MAX_PERIOD = 10_000.0
_LSTM_LAYERS = 2


class MetaVoiceUNetResBlock(nn.Module):
    """Twice: group norm, ReLU, dilated convolution; added to the input."""

    def __init__(self, channels: int, groups: int, dilation: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.norm2 = nn.GroupNorm(groups, channels)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        branch = self.conv1(F.relu(self.norm1(hidden_states)))
        return hidden_states + self.conv2(F.relu(self.norm2(branch)))


def _res_blocks(band: dict[str, Any], channels: int) -> nn.ModuleList:
    return nn.ModuleList(
        MetaVoiceUNetResBlock(channels, band["norm_groups"], 2**index) for index in range(band["res_blocks"])
    )


class MetaVoiceUNetEncoderLayer(nn.Module):
    """A strided convolution, a group norm, residual blocks."""

    def __init__(self, band: dict[str, Any], input_channels: int, output_channels: int):
        super().__init__()
        kernel, self.stride = band["kernel_size"], band["stride"]
        self.conv = nn.Conv1d(
            input_channels, output_channels, kernel, self.stride, (kernel - self.stride) // 2, bias=False
        )
        self.norm = nn.GroupNorm(band["norm_groups"], output_channels)
        self.res_blocks = _res_blocks(band, output_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = F.pad(hidden_states, (0, -hidden_states.shape[-1] % self.stride))
        hidden_states = F.relu(self.norm(self.conv(hidden_states)))
        for block in self.res_blocks:
            hidden_states = block(hidden_states)
        return hidden_states


class MetaVoiceUNetDecoderLayer(nn.Module):
    """Residual blocks, a group norm, a transposed convolution."""

    def __init__(self, band: dict[str, Any], input_channels: int, output_channels: int):
        super().__init__()
        kernel, stride = band["kernel_size"], band["stride"]
        self.res_blocks = _res_blocks(band, input_channels)
        self.norm = nn.GroupNorm(band["norm_groups"], input_channels)
        self.convtr = nn.ConvTranspose1d(
            input_channels, output_channels, kernel, stride, (kernel - stride) // 2, bias=False
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for block in self.res_blocks:
            hidden_states = block(hidden_states)
        return self.convtr(F.relu(self.norm(hidden_states)))


class MetaVoiceUNetRecurrence(nn.Module):
    """A recurrence over the bottleneck, in both directions."""

    def __init__(self, channels: int):
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, _LSTM_LAYERS, batch_first=True, bidirectional=True)
        self.projection = nn.Linear(2 * channels, channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.projection(self.lstm(hidden_states.transpose(1, 2))[0]).transpose(1, 2)


class MetaVoiceUNetAttention(nn.Module):
    """Attention of every step of the bottleneck to all others, or to those of something else."""

    def __init__(self, config: PreTrainedConfig, channels: int):
        super().__init__()
        self.config = config
        self.head_dim = channels // _TRANSFORMER_HEADS
        self.scaling = self.head_dim**-0.5
        self.num_key_value_groups = 1
        self.is_causal = False
        self.qkv_proj = nn.Linear(channels, 3 * channels, bias=False)
        self.o_proj = nn.Linear(channels, channels, bias=False)

    def forward(self, hidden_states: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        """`memory` `(batch, any length, channels)` is what is attended to, `hidden_states` itself by default."""
        if memory is None:
            projected = self.qkv_proj(hidden_states).chunk(3, dim=-1)
        else:
            queries, keys, values = self.qkv_proj.weight.chunk(3)
            projected = F.linear(hidden_states, queries), F.linear(memory, keys), F.linear(memory, values)
        heads = [each.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for each in projected]
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attend(self, *heads, None, dropout=0.0, scaling=self.scaling)
        return self.o_proj(output.flatten(2))


class MetaVoiceUNetTransformerLayer(nn.Module):
    """Attention, that to the condition if there is one, and two layers with a ReLU between them; norms after each."""

    def __init__(self, config: PreTrainedConfig, channels: int, has_cross_attention: bool):
        super().__init__()
        self.self_attn = MetaVoiceUNetAttention(config, channels)
        self.self_attn_layer_norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, _TRANSFORMER_INNER, bias=False)
        self.fc2 = nn.Linear(_TRANSFORMER_INNER, channels, bias=False)
        self.final_layer_norm = nn.LayerNorm(channels)
        self.cross_attn = None
        # CODEPATH: upstream's training configuration adds the condition instead; the released file says what it has.
        if has_cross_attention:
            self.cross_attn = MetaVoiceUNetAttention(config, channels)
            self.cross_attn_layer_norm = nn.LayerNorm(channels)

    def forward(self, hidden_states: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        before = hidden_states
        hidden_states = self.self_attn_layer_norm(hidden_states + self.self_attn(hidden_states))
        if self.cross_attn is not None:
            # As upstream, which asks with what came into the layer and not with what its attention has made of it.
            hidden_states = self.cross_attn_layer_norm(hidden_states + self.cross_attn(before, memory))
        return self.final_layer_norm(hidden_states + self.fc2(F.relu(self.fc1(hidden_states))))


class MetaVoiceUNetTransformer(nn.Module):
    """Transformer layers over the bottleneck, whose positions are sinusoids, as are those of what they attend to."""

    def __init__(self, config: PreTrainedConfig, channels: int, has_cross_attention: bool):
        super().__init__()
        self.layers = nn.ModuleList(
            MetaVoiceUNetTransformerLayer(config, channels, has_cross_attention) for _ in range(_TRANSFORMER_LAYERS)
        )

    def forward(self, hidden_states: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        hidden_states = _with_positions(hidden_states.transpose(1, 2))
        memory = None if condition is None else _with_positions(condition.transpose(1, 2))
        for layer in self.layers:
            hidden_states = layer(hidden_states, memory)
        return hidden_states.transpose(1, 2)


def _with_positions(rows: torch.Tensor) -> torch.Tensor:
    return rows + sinusoids(*rows.shape[1:], rows.device).to(rows)


def sinusoids(steps: int, channels: int, device: torch.device) -> torch.Tensor:
    """Positions as cosines, then sines: float32 `(steps, channels)`."""
    share = torch.arange(channels // 2, device=device) / (channels // 2 - 1)
    angles = torch.arange(steps, device=device)[:, None] * torch.exp(-share * math.log(_MAX_PERIOD))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class MetaVoiceDiffusionUNet(nn.Module):
    """
    Estimates the noise in a waveform at a step of the diffusion, given EnCodec's latent.

    Args:
        config: The model's configuration, for its attention.
        band: The band's entry of `config.band_configs`.
    """

    def __init__(self, config: PreTrainedConfig, band: dict[str, Any]):
        super().__init__()
        widths = [1, band["hidden_size"]]
        while len(widths) <= band["depth"]:
            widths.append(min(int(widths[-1] * band["growth"]), band["max_channels"]))
        stages = list(zip(widths, widths[1:], strict=False))
        self.encoders = nn.ModuleList(MetaVoiceUNetEncoderLayer(band, *stage) for stage in stages)
        self.decoders = nn.ModuleList(
            MetaVoiceUNetDecoderLayer(band, width, narrower) for narrower, width in reversed(stages)
        )
        embedded = widths[1:] if band["embed_all_layers"] else widths[1:2]
        self.step_embeddings = nn.ModuleList(nn.Embedding(band["num_train_steps"], width) for width in embedded)
        self.attends_to_condition = band["use_cross_attention"]
        self.condition_projection = None
        # CODEPATH: upstream can train a network that hears nothing but the noise.
        if band["use_condition"]:
            self.condition_projection = nn.Conv1d(config.codec_hidden_size, widths[-1], 1)
        self.bottleneck = None
        # CODEPATH: upstream's training configuration has neither; the released file says what it has.
        if band["use_transformer"]:
            self.bottleneck = MetaVoiceUNetTransformer(config, widths[-1], self.attends_to_condition)
        elif band["use_lstm"]:
            self.bottleneck = MetaVoiceUNetRecurrence(widths[-1])

    def forward(self, noisy: torch.Tensor, steps: torch.Tensor, latents: torch.Tensor | None) -> torch.Tensor:
        """
        Args:
            noisy: `(batch, 1, samples)`.
            steps: int64 `(batch,)`, the diffusion's step of every row.
            latents: `(batch, codec_hidden_size, frames)`; a network that does not hear them needs none.

        Returns:
            The noise `(batch, 1, samples)`.
        """
        skips, hidden_states = [], noisy
        for index, encoder in enumerate(self.encoders):
            hidden_states = encoder(hidden_states)
            if index < len(self.step_embeddings):
                hidden_states = hidden_states + self.step_embeddings[index](steps)[..., None]
            skips.append(hidden_states)
        condition = None if self.condition_projection is None else self.condition_projection(latents)
        if condition is not None and not self.attends_to_condition:
            # Upstream adds in place, so the last skip carries the condition too; without a bottleneck it alone speaks.
            skips[-1] = hidden_states = hidden_states + F.interpolate(condition, hidden_states.shape[-1])
        if self.bottleneck is None:
            hidden_states = torch.zeros_like(hidden_states)
        elif self.attends_to_condition:
            hidden_states = self.bottleneck(hidden_states, condition)
        else:
            hidden_states = self.bottleneck(hidden_states)
        for decoder in self.decoders:
            skip = skips.pop()
            hidden_states = decoder(hidden_states[..., : skip.shape[-1]] + skip)
        return hidden_states[..., : noisy.shape[-1]]


__all__ = ["MetaVoiceDiffusionUNet"]
