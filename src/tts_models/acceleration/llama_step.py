"""One decoding step of a small Llama on the CPU with as few operations as it needs.

At a width of a few hundred the library's layer spends most of its time between the matrix products: this step joins
the projections that read the same input, keeps the rotary table ready and folds the norms' weights into them. It is
used only where nothing can tell the difference, see `LlamaStep.supports`.
"""

import torch
from torch import nn
from transformers import LlamaModel

from .kv_cache import ReservedCache


# Joining projections copies their weights once per utterance: only worth it, and only harmless, for small models.
_MAX_PARAMETERS = 64_000_000
_ROPE_TYPES = ("default", "linear", "llama3")


class _LayerWeights:
    """The weights of one decoder layer, norms folded into the projections that follow them."""

    def __init__(self, layer: nn.Module) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = self._join(layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj)
        self.output = attention.o_proj.weight.T
        self.gate_up = self._join(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj)
        self.down = mlp.down_proj.weight.T
        self.eps = layer.input_layernorm.variance_epsilon

    @staticmethod
    def _join(norm: nn.Module, *projections: nn.Linear) -> torch.Tensor:
        return (torch.cat([projection.weight for projection in projections]) * norm.weight).T


class LlamaStep:
    """The hidden state after one more token per row, equal to `LlamaModel`'s up to rounding.

    Args:
        backbone: The model; its weights are read when the step is built.
        cache: The cache that the prompt was read into; both this step and the model keep writing to it.
    """

    def __init__(self, backbone: LlamaModel, cache: ReservedCache) -> None:
        self.backbone, self.cache = backbone, cache
        config = backbone.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = backbone.layers[0].self_attn.head_dim
        self.layers = [_LayerWeights(layer) for layer in backbone.layers]
        self.activation = backbone.layers[0].mlp.act_fn
        self.table: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def supports(cls, backbone: nn.Module) -> bool:
        """Whether the step can stand in for `backbone`: a plain, small, float32 `LlamaModel` on the CPU."""
        if type(backbone) is not LlamaModel or backbone.training or backbone.config._attn_implementation != "sdpa":
            return False
        parameters = list(backbone.parameters())
        if sum(parameter.numel() for parameter in parameters) > _MAX_PARAMETERS:
            return False
        if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in parameters):
            return False
        rope = (backbone.config.rope_parameters or {}).get("rope_type", "default")
        return rope in _ROPE_TYPES and all(cls._is_plain(module) for module in backbone.modules())

    @staticmethod
    def _is_plain(module: nn.Module) -> bool:
        """No hooks, no adapter around a projection, no biases."""
        if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
            return False
        if isinstance(module, nn.Linear):
            return type(module) is nn.Linear and module.bias is None
        return not hasattr(module, "base_layer")

    def __call__(
        self, token_ids: torch.LongTensor, positions: torch.LongTensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Hidden states `(batch, hidden_size)` after `token_ids` `(batch,)` at `positions` `(batch, 1)`.

        `mask` is additive, `(batch, 1, 1, cached + 1)`, or `None`.
        """
        batch_size = token_ids.shape[0]
        hidden = self.backbone.embed_tokens.weight[token_ids]
        cos, sin = self._rotary(positions)
        half = self.head_dim // 2
        for index, weights in enumerate(self.layers):
            states = (_normalize(hidden, weights.eps) @ weights.qkv).view(batch_size, -1, 1, self.head_dim)
            rotated = states[:, : self.heads + self.kv_heads]
            swapped = torch.cat((rotated[..., half:], rotated[..., :half]), -1)
            rotated = torch.addcmul(rotated * cos, swapped, sin)
            keys, values = self.cache.update(rotated[:, self.heads :], states[:, self.heads + self.kv_heads :], index)
            attended = nn.functional.scaled_dot_product_attention(
                rotated[:, : self.heads], keys, values, attn_mask=mask, enable_gqa=self.heads != self.kv_heads
            )
            hidden = hidden + attended.view(batch_size, -1) @ weights.output
            gate, up = (_normalize(hidden, weights.eps) @ weights.gate_up).chunk(2, -1)
            hidden = hidden + (self.activation(gate) * up) @ weights.down
        return self.backbone.norm(hidden)

    def _rotary(self, positions: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines `(batch, 1, 1, head_dim)`; the sign belongs to the rotation of the first half."""
        needed = int(positions.max()) + 1
        if self.table is None or self.table[0].shape[0] < needed:
            all_positions = torch.arange(max(2 * needed, 1024))[None]
            cos, sin = self.backbone.rotary_emb(self.backbone.embed_tokens.weight, all_positions)
            sign = torch.ones(self.head_dim)
            sign[: self.head_dim // 2] = -1
            self.table = cos[0], sin[0] * sign
        cos, sin = self.table
        return cos[positions][:, None], sin[positions][:, None]


def _normalize(hidden: torch.Tensor, eps: float) -> torch.Tensor:
    squares = (hidden * hidden).sum(-1, keepdim=True)
    return hidden * squares.mul_(1 / hidden.shape[-1]).add_(eps).rsqrt_()


__all__ = ["LlamaStep"]
