"""One decoding step of a Llama or Qwen3 decoder with as few operations as it needs.

For a few rows the library's layer spends much of its time between the matrix products. This step joins the
projections that read the same input, keeps the rotary table ready, and takes caches that write in place. What it
computes equals the library's layers up to rounding.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .kv_cache import LayerCache
from .projections import Projection


_ROPE_TYPES = ("default", "linear", "llama3")

MakeProjection = Callable[..., Projection]
RunLayer = Callable[..., torch.Tensor]


class RmsNorm:
    """Root-mean-square norm over the last axis.

    Args:
        weight: `(size,)`, or more axes before it.
        size: Of the last axis.
        eps: Added to the mean square.
    """

    def __init__(self, weight: torch.Tensor, size: int, eps: float) -> None:
        self.weight, self.size, self.eps = weight, size, eps
        # On a CPU the library's norm takes eight operations; over the length of the vector it is four.
        self.by_length = weight.device.type == "cpu" and weight.dtype == torch.float32
        self.offset = torch.tensor((size * eps) ** 0.5)
        self.scaled = weight.detach() * size**0.5

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        if self.by_length:
            length = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
            return torch.mul(states, self.scaled).div_(torch.hypot(length, self.offset))
        if self.weight.dim() == 1:
            return F.rms_norm(states, (self.size,), self.weight, self.eps)
        return F.rms_norm(states, (self.size,), None, self.eps) * self.weight


class StepLayer:
    """The weights of one decoder layer.

    Args:
        layer: A decoder layer with `self_attn` and `mlp`, as in Llama and Qwen3.
        project: Makes a product of linear layers that read the same input.
    """

    def __init__(self, layer: nn.Module, project: MakeProjection) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        norms = (layer.input_layernorm.weight, layer.post_attention_layernorm.weight)
        eps = layer.input_layernorm.variance_epsilon
        self.qkv = project(attention.q_proj, attention.k_proj, attention.v_proj)
        self.output = project(attention.o_proj)
        self.gate_up, self.down = project(mlp.gate_proj, mlp.up_proj), project(mlp.down_proj)
        self.attention_norm, self.mlp_norm = (RmsNorm(norm, len(norm), eps) for norm in norms)
        self.activation = mlp.act_fn
        self.head_dim = attention.head_dim
        self.kv_heads = attention.config.num_key_value_heads
        self.heads = attention.config.num_attention_heads
        self.shared = self.heads // self.kv_heads
        self.query_key_norm = self._query_key_norm(attention)

    def _query_key_norm(self, attention: nn.Module) -> RmsNorm | None:
        """The norms over the heads of queries and keys at once; Llama has none."""
        if getattr(attention, "q_norm", None) is None:
            return None
        norms = [attention.q_norm.weight] * self.heads + [attention.k_norm.weight] * self.kv_heads
        weight = torch.stack([norm.detach() for norm in norms])[:, None]
        return RmsNorm(weight, self.head_dim, attention.q_norm.variance_epsilon)


def layer_step(
    hidden: torch.Tensor,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    mask: torch.Tensor | None,
    layer: StepLayer,
    cache: LayerCache,
) -> torch.Tensor:
    """One decoder layer over the new positions `hidden` `(batch, new, hidden_size)`; see [`DecoderStep`]."""
    batch_size, new, _ = hidden.shape
    states = layer.qkv(layer.attention_norm(hidden))
    if new == 1:
        states = states.view(batch_size, -1, 1, layer.head_dim)
    else:
        states = states.view(batch_size, new, -1, layer.head_dim).transpose(1, 2)
    rotated, values = states.split([layer.heads + layer.kv_heads, layer.kv_heads], 1)
    if layer.query_key_norm is not None:
        rotated = layer.query_key_norm(rotated)
    if cos is not None:
        first, second = rotated.chunk(2, -1)
        rotated = (rotated * cos).addcmul_(torch.cat((second, first), -1), sin)
    queries, keys = rotated.split([layer.heads, layer.kv_heads], 1)
    keys, values = cache.update(keys, values)
    attended = _attend(queries, keys, values, mask, layer)
    hidden = layer.output(attended).add_(hidden)
    gate, up = layer.gate_up(layer.mlp_norm(hidden)).chunk(2, -1)
    return layer.down(layer.activation(gate).mul_(up)).add_(hidden)


def _attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, layer: StepLayer
) -> torch.Tensor:
    """Attention of `(batch, heads, new, head_dim)` over `(batch, kv_heads, known, head_dim)`; gives rows.

    The heads that share keys are laid out as one longer sequence of queries, so that no key is copied.
    """
    batch_size, _, new, head_dim = queries.shape
    grouped = queries.reshape(batch_size, layer.kv_heads, layer.shared * new, head_dim)
    if mask is not None and new > 1:
        mask = mask.repeat(1, 1, layer.shared, 1)
    attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
    if new > 1:
        attended = attended.view(batch_size, layer.heads, new, head_dim).transpose(1, 2)
    return attended.reshape(batch_size, new, layer.heads * head_dim)


class DecoderStep:
    """The hidden states after a few more positions per row.

    Args:
        backbone: A decoder like `LlamaModel` or `Qwen3Model` that attends to every earlier position. Its weights are
            read when the step is built.
        project: Makes a product of linear layers that read the same input, see `projections`.
    """

    def __init__(self, backbone: nn.Module, project: MakeProjection) -> None:
        self.backbone = backbone
        self.layers = [StepLayer(layer, project) for layer in backbone.layers]
        norm = backbone.norm.weight
        self.norm = RmsNorm(norm, len(norm), backbone.norm.variance_epsilon)
        self.table: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(
        self,
        embeds: torch.Tensor,
        rotation: tuple[torch.Tensor | None, torch.Tensor | None],
        mask: torch.Tensor | None,
        cache: Sequence[LayerCache],
        run_layer: RunLayer = layer_step,
    ) -> torch.Tensor:
        """Hidden states `(batch, new, hidden_size)` after the rows `embeds` of that shape.

        Args:
            embeds: Inputs.
            rotation: Of the positions, see [`DecoderStep.rotation`]; twice `None` for a model without.
            mask: Additive, `(batch or 1, 1, new, known + new)`, or `None` where every row sees every position.
            cache: One layer each, whose `update` appends the new states and returns all of them.
            run_layer: [`layer_step`], or a compiled form of it.
        """
        (cos, sin), hidden = rotation, embeds
        for layer, cache_layer in zip(self.layers, cache, strict=True):
            hidden = run_layer(hidden, cos, sin, mask, layer, cache_layer)
        return self.norm(hidden)

    def rotation(self, positions: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines `(batch or 1, 1, new, head_dim)` at `positions` `(batch or 1, new)`.

        Within the table, see [`DecoderStep.reserve_positions`].
        """
        flat, shape = positions.flatten(), (*positions.shape[:1], 1, *positions.shape[1:], -1)
        cos, sin = (each.index_select(0, flat).view(shape) for each in self.table)
        return cos, sin

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


def has_plain_rotation(backbone: nn.Module) -> bool:
    """Whether the rotary table does not depend on the length of the sequence."""
    return (backbone.config.rope_parameters or {}).get("rope_type", "default") in _ROPE_TYPES


def has_plain_positions(backbone: nn.Module) -> bool:
    """Whether every earlier position is seen and the rotation never changes, as a [`DecoderStep`] takes for given."""
    return has_plain_rotation(backbone) and sees_every_position(backbone)


def sees_every_position(backbone: nn.Module) -> bool:
    """Whether no layer has a window."""
    return set(getattr(backbone.config, "layer_types", None) or ["full_attention"]) == {"full_attention"}


__all__ = [
    "DecoderStep",
    "RunLayer",
    "StepLayer",
    "has_plain_positions",
    "has_plain_rotation",
    "layer_step",
    "sees_every_position",
]
