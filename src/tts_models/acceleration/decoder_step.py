"""One decoding step of a Llama or Qwen3 decoder with as few operations as it needs.

For a few rows the library's layer spends much of its time between the matrix products. This step joins the
projections that read the same input, keeps the rotary table ready, and takes caches that write in place. What it
computes equals the library's layers up to rounding.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaModel

from .kv_cache import LayerCache
from .projections import ColumnsProjection, Projection, is_plain


# Folding the norms into the projections copies their weights once per utterance: only worth it, and only harmless,
# for small models.
_MAX_FOLDED_PARAMETERS = 64_000_000
_ROPE_TYPES = ("default", "linear", "llama3")

MakeProjection = Callable[..., Projection]
RunLayer = Callable[..., torch.Tensor]


class StepLayer:
    """The weights of one decoder layer.

    Args:
        layer: A decoder layer with `self_attn` and `mlp`, as in Llama and Qwen3.
        project: Makes a product of linear layers that read the same input.
        fold: Whether the norms' weights are folded into the products that follow them.
    """

    def __init__(self, layer: nn.Module, project: MakeProjection, fold: bool = False) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.attention_norm, self.mlp_norm = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        if fold:
            self.qkv = _fold(self.attention_norm, *inputs)
            self.gate_up = _fold(self.mlp_norm, mlp.gate_proj, mlp.up_proj)
            self.output, self.down = (ColumnsProjection(each.weight.T) for each in (attention.o_proj, mlp.down_proj))
            self.attention_norm = self.mlp_norm = None
        else:
            self.qkv, self.output = project(*inputs), project(attention.o_proj)
            self.gate_up, self.down = project(mlp.gate_proj, mlp.up_proj), project(mlp.down_proj)
        self.eps = layer.input_layernorm.variance_epsilon
        self.activation = mlp.act_fn
        self.head_dim = attention.head_dim
        self.kv_heads = attention.config.num_key_value_heads
        self.heads = attention.config.num_attention_heads
        self.query_key_norm = self._query_key_norm(attention)

    def _query_key_norm(self, attention: nn.Module) -> torch.Tensor | None:
        """The norms over the heads of queries and keys, `(heads + kv_heads, 1, head_dim)`; Llama has none."""
        if getattr(attention, "q_norm", None) is None:
            return None
        norms = [attention.q_norm.weight] * self.heads + [attention.k_norm.weight] * self.kv_heads
        return torch.stack([norm.detach() for norm in norms])[:, None]


def _fold(norm: torch.Tensor, *modules: nn.Linear) -> Projection:
    return ColumnsProjection((torch.cat([module.weight for module in modules]) * norm).T)


def layer_step(
    hidden: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    mask: torch.Tensor | None,
    layer: StepLayer,
    cache: LayerCache,
) -> torch.Tensor:
    """One decoder layer over the new positions `hidden` `(batch, new, hidden_size)`; see [`DecoderStep`]."""
    batch_size, new, _ = hidden.shape
    states = layer.qkv(normalize(hidden, layer.attention_norm, layer.eps)).view(batch_size, new, -1, layer.head_dim)
    states = states.transpose(1, 2)
    rotated = states[:, : layer.heads + layer.kv_heads]
    if layer.query_key_norm is not None:
        rotated = normalize(rotated, layer.query_key_norm, layer.eps)
    rotated = torch.addcmul(rotated * cos, rotated.roll(layer.head_dim // 2, -1), sin)
    keys, values = cache.update(rotated[:, layer.heads :], states[:, layer.heads + layer.kv_heads :])
    attended = attend(rotated[:, : layer.heads], keys, values, mask)
    hidden = hidden + layer.output(attended.transpose(1, 2).reshape(batch_size, new, -1))
    gate, up = layer.gate_up(normalize(hidden, layer.mlp_norm, layer.eps)).chunk(2, -1)
    return hidden + layer.down(layer.activation(gate) * up)


def normalize(states: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """Root-mean-square norm over the last axis, computed in float32 as the library does."""
    if weight is not None and weight.dim() == 1:
        return F.rms_norm(states, weight.shape, weight, eps)
    normed = F.rms_norm(states, states.shape[-1:], None, eps)
    return normed if weight is None else normed * weight


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention of `(batch, heads, new, head_dim)` over `(batch, kv_heads, known, head_dim)`.

    The heads that share keys are laid out as one longer sequence of queries, so that no key is copied.
    """
    batch_size, heads, new, head_dim = queries.shape
    shared = heads // keys.shape[1]
    grouped = queries.reshape(batch_size, keys.shape[1], shared * new, head_dim)
    if mask is not None and new > 1:
        mask = mask.repeat(1, 1, shared, 1)
    attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
    return attended.view(batch_size, heads, new, head_dim)


class DecoderStep:
    """The hidden states after a few more positions per row.

    Args:
        backbone: A decoder like `LlamaModel` or `Qwen3Model` that attends to every earlier position. Its weights are
            read when the step is built.
        project: Makes a product of linear layers that read the same input, see `projections`.
        fold: Whether the norms' weights are folded into the products that follow them, which copies those.
    """

    def __init__(self, backbone: nn.Module, project: MakeProjection, fold: bool = False) -> None:
        self.backbone = backbone
        self.layers = [StepLayer(layer, project, fold) for layer in backbone.layers]
        self.eps = backbone.norm.variance_epsilon
        self.table: tuple[torch.Tensor, torch.Tensor] | None = None

    @classmethod
    def folded(cls, backbone: nn.Module) -> "DecoderStep | None":
        """The step with folded norms for a plain, small, float32 `LlamaModel` on the CPU; `None` for any other."""
        return cls(backbone, _fold, fold=True) if _is_foldable(backbone) else None

    def __call__(
        self,
        embeds: torch.Tensor,
        positions: torch.LongTensor,
        mask: torch.Tensor | None,
        cache: Sequence[LayerCache],
        run_layer: RunLayer = layer_step,
    ) -> torch.Tensor:
        """Hidden states `(batch, new, hidden_size)` after the rows `embeds` of that shape.

        Args:
            embeds: Inputs.
            positions: `(batch or 1, new)`; within the table, see [`DecoderStep.reserve_positions`].
            mask: Additive, `(batch or 1, 1, new, known + new)`, or `None` where every row sees every position.
            cache: One layer each, whose `update` appends the new states and returns all of them.
            run_layer: [`layer_step`], or a compiled form of it.
        """
        cos, sin = (each[positions][:, None] for each in self.table)
        hidden = embeds
        for layer, cache_layer in zip(self.layers, cache, strict=True):
            hidden = run_layer(hidden, cos, sin, mask, layer, cache_layer)
        return normalize(hidden, self.backbone.norm.weight, self.eps)

    def reserve_positions(self, needed: int) -> None:
        """Make the rotary table reach `needed` positions: cosines and signed sines, `(positions, head_dim)` each.

        The sign belongs to the rotation of the first half.
        """
        if self.table is not None and len(self.table[0]) >= needed:
            return
        norm = self.backbone.norm.weight
        all_positions = torch.arange(max(2 * needed, 1024), device=norm.device)[None]
        cos, sin = self.backbone.rotary_emb(norm, all_positions)
        sign = torch.ones(cos.shape[-1], dtype=sin.dtype, device=sin.device)
        sign[: cos.shape[-1] // 2] = -1
        self.table = cos[0], sin[0] * sign


def _is_foldable(backbone: nn.Module) -> bool:
    if type(backbone) is not LlamaModel or backbone.training or backbone.config._attn_implementation != "sdpa":
        return False
    parameters = list(backbone.parameters())
    if sum(parameter.numel() for parameter in parameters) > _MAX_FOLDED_PARAMETERS:
        return False
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in parameters):
        return False
    return has_plain_rotation(backbone) and all(map(_is_untouched, backbone.modules()))


def has_plain_rotation(backbone: nn.Module) -> bool:
    """Whether the rotary table does not depend on the length of the sequence."""
    return (backbone.config.rope_parameters or {}).get("rope_type", "default") in _ROPE_TYPES


def _is_untouched(module: nn.Module) -> bool:
    """No hooks, no adapter around a projection, no biases."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return False
    if isinstance(module, nn.Linear):
        return is_plain(module) and module.bias is None
    return not hasattr(module, "base_layer")


__all__ = ["DecoderStep", "RunLayer", "StepLayer", "has_plain_rotation", "layer_step"]
