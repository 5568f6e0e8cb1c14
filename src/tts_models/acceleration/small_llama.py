"""The steps of a small Llama on the CPU, with as few operations as they need.

At a few million parameters a step of the library's layers is spent between the matrix products, and the longer it
takes, the more of the weights have left the processor's cache by the next one. What this computes equals the library's
layers up to rounding.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaModel

from .decoder_step import has_plain_rotation
from .kv_cache import ReservedCache
from .projections import is_plain


# The weights are copied for every utterance: only worth it, and only harmless, for small models.
_MAX_PARAMETERS = 64_000_000
_LEAST_ROOM = 256


class _Layer(NamedTuple):
    """The weights of one decoder layer, the norms folded into those that follow them.

    They lie in memory as `(in, out)`, which a CPU reads faster for a single row.
    """

    queries_keys_values: torch.Tensor
    output: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class SmallLlama:
    """Reads one token per row and step after the library has read the prompts.

    Args:
        backbone: A model that [`SmallLlama.suits`]; its weights are copied.
        cache: Keys and values of the prompts, copied too.
    """

    def __init__(self, backbone: LlamaModel, cache: ReservedCache) -> None:
        config = backbone.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, self.intermediate_size = backbone.layers[0].self_attn.head_dim, config.intermediate_size
        self.backbone = backbone
        scale = config.hidden_size**0.5
        # The norm divides a row by the hypotenuse of its length and this; the root of its size is in the weights.
        self.length_offset = torch.tensor((config.hidden_size * config.rms_norm_eps) ** 0.5)
        self.norm = backbone.norm.weight.detach() * scale
        self.layers = [self._layer(layer, scale) for layer in backbone.layers]
        self.length = cache.get_seq_length()
        self.room = max(2 * self.length, _LEAST_ROOM)
        self.rotations = self._rotations()
        self.states = [self._take_over(layer.keys, layer.values) for layer in cache.layers]

    @staticmethod
    def suits(backbone: nn.Module) -> bool:
        """Whether `backbone` is a plain, small, float32 `LlamaModel` on the CPU."""
        if type(backbone) is not LlamaModel or backbone.training or backbone.config._attn_implementation != "sdpa":
            return False
        parameters = list(backbone.parameters())
        if sum(parameter.numel() for parameter in parameters) > _MAX_PARAMETERS:
            return False
        if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in parameters):
            return False
        is_plain_llama = backbone.config.hidden_act == "silu" and has_plain_rotation(backbone)
        return is_plain_llama and all(map(_is_untouched, backbone.modules()))

    def _layer(self, layer: nn.Module, scale: float) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        queries = self._pair(attention.q_proj.weight.T) * attention.scaling
        inputs = torch.cat([queries, self._pair(attention.k_proj.weight.T), attention.v_proj.weight.T], 1)
        gate_up = torch.cat([mlp.gate_proj.weight.T, mlp.up_proj.weight.T], 1)
        return _Layer(
            inputs * (layer.input_layernorm.weight * scale)[:, None],
            attention.o_proj.weight.T.contiguous(),
            gate_up * (layer.post_attention_layernorm.weight * scale)[:, None],
            mlp.down_proj.weight.T.contiguous(),
        )

    def _pair(self, states: torch.Tensor) -> torch.Tensor:
        """The last axis, whole heads, with the two numbers that are rotated together side by side.

        The rotation is then one product of complex numbers; the products of queries and keys stay what they were.
        """
        halves = states.unflatten(-1, (-1, 2, self.head_dim // 2))
        return halves.transpose(-1, -2).flatten(-3)

    def _rotations(self) -> torch.Tensor:
        """Cosine and sine of each pair, `(room, head_dim)`."""
        cos, sin = self.backbone.rotary_emb(self.norm, torch.arange(self.room)[None])
        half = self.head_dim // 2
        return torch.stack([cos[0, :, :half], sin[0, :, :half]], -1).flatten(1)

    def _take_over(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Both `(batch, kv_heads, length, head_dim)` at the start of room `(2, batch, kv_heads, room, head_dim)`."""
        states = keys.new_empty(2, *keys.shape[:2], self.room, self.head_dim)
        states[0, :, :, : self.length] = self._pair(keys)
        states[1, :, :, : self.length] = values
        return states

    def _grow(self) -> None:
        grown = []
        self.room *= 2
        for states in self.states:
            grown.append(states.new_empty(*states.shape[:3], self.room, self.head_dim))
            grown[-1][..., : self.length, :] = states[..., : self.length, :]
        self.states, self.rotations = grown, self._rotations()

    def batch_select_indices(self, index: torch.LongTensor) -> None:
        """Go on with the rows `index` (int64) only."""
        self.states = [states[:, index] for states in self.states]

    # Spares every small operation the bookkeeping of views and versions.
    @torch.inference_mode()
    def step(self, hidden: torch.Tensor, positions: torch.LongTensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The hidden states `(batch, hidden_size)` after one more row each.

        Args:
            hidden: Embedded tokens `(batch, hidden_size)`.
            positions: `(batch, 1)`, where they stand.
            mask: Additive, `(batch, 1, 1, known + 1)`, or `None` where every row sees every position.
        """
        if self.length == self.room:
            self._grow()
        self.length += 1
        rows, width = len(hidden), self.intermediate_size
        rotation = F.embedding(positions, self.rotations).view(rows, 1, -1, 2)
        rotation = torch.view_as_complex(rotation)
        if mask is not None:
            mask = mask.expand(-1, self.kv_heads, -1, -1).flatten(0, 1)
        for layer, states in zip(self.layers, self.states, strict=True):
            projected = torch.mm(self._divide(hidden), layer.queries_keys_values)
            hidden = torch.addmm(hidden, self._attend(projected, rotation, mask, states), layer.output)
            gate_up = torch.mm(self._divide(hidden), layer.gate_up)
            gate, up = gate_up.narrow(1, 0, width), gate_up.narrow(1, width, width)
            hidden = torch.addmm(hidden, F.silu(gate).mul_(up), layer.down)
        return self._divide(hidden).mul_(self.norm)

    def _divide(self, hidden: torch.Tensor) -> torch.Tensor:
        """Rows of the same length, apart from the epsilon."""
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return hidden / torch.hypot(length, self.length_offset)

    def _attend(
        self, projected: torch.Tensor, rotation: torch.Tensor, mask: torch.Tensor | None, states: torch.Tensor
    ) -> torch.Tensor:
        """What the queries find, `(batch, heads * head_dim)`; the new keys and values join the others.

        Queries that share keys stand below each other, so that no key is copied.
        """
        rows, known, kept = len(projected), self.length, 2 * self.kv_heads
        pairs = torch.view_as_complex(projected.view(rows, self.heads + kept, -1, 2))
        pairs.narrow(1, 0, self.heads + self.kv_heads).mul_(rotation)
        projected = projected.view(rows, self.heads + kept, self.head_dim)
        new = projected.narrow(1, self.heads, kept).view(rows, 2, self.kv_heads, self.head_dim)
        states.select(3, known - 1).copy_(new.transpose(0, 1))
        queries = projected.narrow(1, 0, self.heads).reshape(rows * self.kv_heads, -1, self.head_dim)
        keys, values = states.view(2, rows * self.kv_heads, self.room, self.head_dim).narrow(2, 0, known).unbind()
        keys = keys.transpose(1, 2)
        scores = torch.bmm(queries, keys) if mask is None else torch.baddbmm(mask, queries, keys)
        return torch.bmm(scores.softmax(-1), values).view(rows, -1)


def _is_untouched(module: nn.Module) -> bool:
    """No hooks, no adapter around a projection, no biases."""
    if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__:
        return False
    if isinstance(module, nn.Linear):
        return is_plain(module) and module.bias is None
    return not hasattr(module, "base_layer")


__all__ = ["SmallLlama"]
