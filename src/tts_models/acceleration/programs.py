"""Where loops over tensors of fixed shape are kept for their next use."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import nn


Program = TypeVar("Program")
# Recording takes a few steps, which need their room.
_SMALLEST_ROOM = 16


class KeptPrograms:
    """Programs made for the weights of one model, one per batch size and rounded room.

    A program is used by one caller at a time: hold `lock` meanwhile. Copies of the model begin with none.

    Args:
        bucket: What the room is rounded up to.
        max_programs: Programs kept; the one unused for longest goes first.
    """

    def __init__(self, bucket: int, max_programs: int = 8) -> None:
        self.bucket, self.max_programs = bucket, max_programs
        self.lock = threading.Lock()
        self._programs: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, make: Callable[[int, int], Program], weight: torch.Tensor, batch_size: int, room: int) -> Program:
        """A program with at least the room asked for.

        Args:
            make: Makes one of a batch size and a room.
            weight: One of the model's; whether it was moved or cast tells if a program still fits.
            batch_size: Rows.
            room: Positions.
        """
        room = max(-(-room // self.bucket) * self.bucket, _SMALLEST_ROOM)
        key = (batch_size, room, weight.data_ptr(), weight.dtype, weight.device)
        program = self._programs.pop(key, None)
        if program is None:
            program = make(batch_size, room)
        self._programs[key] = program
        if len(self._programs) > self.max_programs:
            self._programs.popitem(last=False)
        return program

    def __reduce__(self) -> tuple:
        return KeptPrograms, (self.bucket, self.max_programs)


def weights_fingerprint(model: nn.Module) -> tuple:
    """Changes when a weight of `model` is replaced, moved or written to."""
    return tuple((p.data_ptr(), p.device, p.dtype, 0 if p.is_inference() else p._version) for p in model.parameters())


__all__ = ["KeptPrograms", "weights_fingerprint"]
