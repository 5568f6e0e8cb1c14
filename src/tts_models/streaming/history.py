"""What a chunk-wise causal transformer keeps of the past: the inputs of its convolutions and every key and value."""

from collections.abc import Callable, Hashable

import torch

from .context import LeftContext


class History:
    """The last inputs of causal layers ([`LeftContext`]), and the keys and values of attention layers.

    An attention layer sees the whole past, or a last part of it.

    Room is reserved ahead, a quarter more whenever it is full, so that a piece does not move everything kept.

    Args:
        batch_size: Rows of every piece.
        max_steps: Past steps that an attention layer sees besides the new ones; `None` for all.
        layer_steps: The same for single layers.
    """

    def __init__(
        self, batch_size: int, max_steps: int | None = None, layer_steps: dict[Hashable, int | None] | None = None
    ):
        self.context = LeftContext(batch_size)
        self.max_steps, self.layer_steps = max_steps, layer_steps or {}
        self._buffers: dict[Hashable, torch.Tensor] = {}
        self._filled: dict[Hashable, int] = {}
        self._tables: dict[Hashable, tuple[int, torch.Tensor]] = {}

    def extend(self, layer: Hashable, piece: torch.Tensor, size: int, dim: int = -1) -> torch.Tensor:
        """As [`LeftContext.extend`]."""
        return self.context.extend(layer, piece, size, dim)

    def append(self, layer: Hashable, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `(batch, heads, steps, head_dim)` of the steps seen so far, these included."""
        filled, new = self._filled.get(layer, 0), key.shape[2]
        buffer, limit = self._buffers.get(layer), self.layer_steps.get(layer, self.max_steps)
        if limit is not None and filled > limit:
            buffer = self._reserve(buffer[..., filled - limit : filled, :], limit + 2 * new)
            filled = limit
        if buffer is None:
            buffer = key.new_empty(2, *key.shape[:2], 2 * new, key.shape[3])
        elif filled + new > buffer.shape[3]:
            buffer = self._reserve(buffer[..., :filled, :], filled + new + max(filled // 4, new))
        buffer[0, :, :, filled : filled + new] = key
        buffer[1, :, :, filled : filled + new] = value
        self._buffers[layer], self._filled[layer] = buffer, filled + new
        return buffer[0, :, :, : filled + new], buffer[1, :, :, : filled + new]

    def table(self, name: Hashable, size: int, make: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """A table made by `make(room)` for some `room` of at least `size`, kept until more is asked for."""
        room, table = self._tables.get(name, (0, None))
        if room < size:
            room = max(size, 2 * room)
            table = make(room)
            self._tables[name] = (room, table)
        return table

    def copy(self) -> "History":
        """An independent continuation of the same past."""
        history = type(self)(self.context.batch_size, self.max_steps, self.layer_steps)
        history.context = self.context.copy()
        history._filled, history._tables = dict(self._filled), dict(self._tables)
        history._buffers = {
            layer: self._reserve(buffer[..., : self._filled[layer], :], buffer.shape[3])
            for layer, buffer in self._buffers.items()
        }
        return history

    @property
    def num_bytes(self) -> int:
        """Memory reserved for keys and values."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers.values())

    @staticmethod
    def _reserve(kept: torch.Tensor, room: int) -> torch.Tensor:
        buffer = kept.new_empty(*kept.shape[:3], room, kept.shape[4])
        buffer[..., : kept.shape[3], :] = kept
        return buffer


__all__ = ["History"]
