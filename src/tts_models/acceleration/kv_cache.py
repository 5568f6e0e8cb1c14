"""A key/value cache that writes into room it reserved, instead of copying everything at every token."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers.cache_utils import Cache, DynamicLayer


class LayerCache(Protocol):
    """What a decoding step needs of one layer of a cache."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in `(batch, heads, new, head_dim)` states; returns all states."""


class ReservedLayer(DynamicLayer):
    """One layer of `ReservedCache`: `keys` and `values` are views of the filled part of larger buffers.

    `DynamicLayer` joins the old and the new states at every step, which moves the whole cache through memory per
    token. Here the buffers double when they are full.
    """

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Reserve room for the prompt and as much again."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._length = 0
        room = max(2 * key_states.shape[-2], 256)
        self._key_buffer = self._reserve(key_states, room)
        self._value_buffer = self._reserve(value_states, room)
        self.keys, self.values = self._key_buffer[..., :0, :], self._value_buffer[..., :0, :]
        self.is_initialized = True

    @staticmethod
    def _reserve(states: torch.Tensor, room: int) -> torch.Tensor:
        batch_size, heads, _, head_dim = states.shape
        return states.new_empty(batch_size, heads, room, head_dim)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append `(batch, heads, new, head_dim)` states; returns views of all states so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, end = self._length, self._length + key_states.shape[-2]
        if end > self._key_buffer.shape[-2]:
            self._grow(2 * end)
        self._key_buffer.narrow(2, start, end - start).copy_(key_states)
        self._value_buffer.narrow(2, start, end - start).copy_(value_states)
        self._length = end
        self.keys, self.values = self._key_buffer.narrow(2, 0, end), self._value_buffer.narrow(2, 0, end)
        return self.keys, self.values

    def _grow(self, room: int) -> None:
        for name, filled in (("_key_buffer", self.keys), ("_value_buffer", self.values)):
            buffer = self._reserve(filled, room)
            buffer[..., : self._length, :] = filled
            setattr(self, name, buffer)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only the rows `indices`."""
        self._key_buffer, self._value_buffer = self._key_buffer[indices], self._value_buffer[indices]
        self.keys = self._key_buffer[..., : self._length, :]
        self.values = self._value_buffer[..., : self._length, :]


class ReservedCache(Cache):
    """A cache of `ReservedLayer`s, for models whose layers all attend to every earlier token.

    Args:
        num_layers: Decoder layers of the model.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[ReservedLayer() for _ in range(num_layers)])


class RepeatedLayer:
    """One layer of a cache that is filled by the same few steps again and again: all its views are made once.

    Args:
        shape: `(batch, heads, room, head_dim)`.
        ends: Where each step ends; the first begins at 0, the others where the one before ended.
        dtype: Of the states.
        device: Of the states.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], ends: Sequence[int], dtype: torch.dtype, device: torch.device
    ) -> None:
        buffers = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(2)]
        starts = [0, *ends[:-1]]
        self.new = [[each[:, :, start:end] for each in buffers] for start, end in zip(starts, ends, strict=True)]
        self.all = [tuple(each[:, :, :end] for each in buffers) for end in ends]
        self.step = 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the `(batch, heads, new, head_dim)` states of the present step; returns all states so far."""
        keys, values = self.new[self.step]
        keys.copy_(key_states)
        values.copy_(value_states)
        return self.all[self.step]


class SlotLayer:
    """One layer of a cache whose room never changes: new states go to the slots that a tensor names.

    `update` returns the whole room, filled or not, so shapes stay the same from step to step and nothing is read
    back from the device: what compiled code and CUDA graphs need. A mask hides the slots that are not filled.

    Args:
        shape: `(batch, heads, room, head_dim)`.
        dtype: Of the states.
        device: Of the states.
    """

    def __init__(self, shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        # Zeros, because a masked slot still enters the products, and chance may have left a NaN there.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.slots = torch.zeros(1, dtype=torch.long, device=device)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write `(batch, heads, new, head_dim)` states to `slots` `(new,)`; returns all slots."""
        self.keys.index_copy_(2, self.slots, key_states)
        self.values.index_copy_(2, self.slots, value_states)
        return self.keys, self.values

    def fill(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put the states `(batch, heads, length, head_dim)` of a prompt into the first slots."""
        self.keys[:, :, : keys.shape[2]] = keys
        self.values[:, :, : values.shape[2]] = values


__all__ = ["LayerCache", "RepeatedLayer", "ReservedCache", "ReservedLayer", "SlotLayer"]
