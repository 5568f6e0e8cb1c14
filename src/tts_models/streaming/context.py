"""What causal layers still need of the past, so that a signal can run through them in pieces.

A causal layer looks a fixed number of steps back. Offline it sees zeros (or nothing) before the signal; in pieces it
needs the end of what came before. The layer asks for it by `context.extend(self, piece, size)`, and the same code then
runs offline and in pieces.
"""

from collections.abc import Hashable, Sequence

import torch


class LeftContext:
    """The last inputs of every causal layer, for a batch of streams.

    Tensors are replaced and never written to, so a copy shares them and costs nothing.

    Args:
        batch_size: Rows of every piece.

    Attributes:
        steps (`torch.LongTensor` of shape `(batch_size,)`, on the CPU): Steps that each row has seen, counted by
            whoever runs the layers.
        tensors (`dict`): What each layer kept, batch first.
    """

    def __init__(self, batch_size: int):
        self.steps = torch.zeros(batch_size, dtype=torch.long)
        self.tensors: dict[Hashable, torch.Tensor] = {}

    @property
    def batch_size(self) -> int:
        """Rows of every piece."""
        return self.steps.shape[0]

    def extend(self, layer: Hashable, piece: torch.Tensor, size: int, dim: int = -1) -> torch.Tensor:
        """The piece with the `size` steps before it, zeros where the signal had not begun.

        Args:
            layer: Whose input it is: the layer, or anything else that tells the inputs apart.
            piece: The next steps, batch first, of any length.
            size: Steps that the layer looks back; the same at every call.
            dim: The time axis.
        """
        if size == 0:
            return piece
        before = self.tensors.get(layer)
        if before is None:
            shape = list(piece.shape)
            shape[dim] = size
            before = piece.new_zeros(shape)
        extended = torch.cat([before, piece], dim=dim)
        # A clone, because a slice would keep the whole piece in memory.
        self.tensors[layer] = extended.narrow(dim, extended.shape[dim] - size, size).clone()
        return extended

    def copy(self) -> "LeftContext":
        """An independent continuation of the same past."""
        return self._like(self.steps, self.tensors)

    def select_rows(self, index: torch.Tensor) -> "LeftContext":
        """The context of the rows `index` (int64), in that order."""
        tensors = {layer: tensor.index_select(0, index.to(tensor.device)) for layer, tensor in self.tensors.items()}
        return self._like(self.steps[index.cpu()], tensors)

    @classmethod
    def join(cls, contexts: Sequence["LeftContext"]) -> "LeftContext":
        """One context with the rows of several, some of which may have seen nothing yet."""
        samples = {layer: tensor for context in contexts for layer, tensor in context.tensors.items()}
        tensors = {
            layer: torch.cat(
                [
                    context.tensors.get(layer, sample.new_zeros(context.batch_size, *sample.shape[1:]))
                    for context in contexts
                ]
            )
            for layer, sample in samples.items()
        }
        return cls._like(torch.cat([context.steps for context in contexts]), tensors)

    @classmethod
    def _like(cls, steps: torch.Tensor, tensors: dict[Hashable, torch.Tensor]) -> "LeftContext":
        context = cls(len(steps))
        context.steps, context.tensors = steps.clone(), dict(tensors)
        return context


__all__ = ["LeftContext"]
