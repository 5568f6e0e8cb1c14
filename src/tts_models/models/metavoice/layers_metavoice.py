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
"""The blocks of both stages of MetaVoice."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm


if TYPE_CHECKING:
    from .configuration_metavoice import MetaVoiceStageConfig


_LAYER_NORM_EPS = 1e-5


class MetaVoiceMLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: "MetaVoiceStageConfig") -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))


class MetaVoiceDecoderLayer(LlamaDecoderLayer):
    """Llama's block, with the norms and the MLP of the configuration; in training, dropout of what it adds."""

    def __init__(self, config: "MetaVoiceStageConfig", layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.input_layernorm, self.post_attention_layernorm = make_norm(config), make_norm(config)
        # CODEPATH: of the released stages one has gated MLPs and one has not; upstream trains either with both.
        if not config.use_gated_mlp:
            self.mlp = MetaVoiceMLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        return hidden_states + self.dropout(self.mlp(self.post_attention_layernorm(hidden_states)))


def make_norm(config: "MetaVoiceStageConfig") -> nn.Module:
    """A norm over the width of a stage."""
    # CODEPATH: of the released stages one has root-mean-square norms and one layer norms.
    if config.norm_type == "rms_norm":
        return LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=_LAYER_NORM_EPS, bias=config.use_norm_bias)


class MetaVoiceIdentityRotation(nn.Module):
    """Stands where Llama turns queries and keys by their positions, and turns nothing."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim

    def forward(
        self, hidden_states: torch.Tensor, position_ids: torch.LongTensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ones and zeros `(1, length, head_dim)`."""
        ones = hidden_states.new_ones(1, 1, self.head_dim).expand(-1, hidden_states.shape[1], -1)
        return ones, torch.zeros_like(ones)


__all__ = ["MetaVoiceDecoderLayer", "MetaVoiceIdentityRotation", "MetaVoiceMLP", "make_norm"]
