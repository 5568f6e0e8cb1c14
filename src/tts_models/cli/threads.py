"""How many threads the command computes with."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .errors import UsageError


if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Below this size an operation takes microseconds: threads save less than waiting for each other costs, and on a
# machine with other work one late thread holds all up (measured: 6 times slower).
SMALL_MODEL_PARAMETERS = 50_000_000


def check_threads(threads: int | None) -> None:
    """Raises:
    UsageError: the number is below 1.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"`--threads` {threads} is not allowed: a number of at least 1.")


@contextmanager
def computing_threads(model: "PreTrainedModel", threads: int | None) -> Iterator[None]:
    """Computes with `threads` threads inside the block.

    By default a small model on the CPU gets one, and any other what torch chose; `OMP_NUM_THREADS` is respected.
    """
    import torch

    before = torch.get_num_threads()
    if threads is None and model.device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        threads = 1 if model.num_parameters() < SMALL_MODEL_PARAMETERS else None
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


__all__ = ["check_threads", "computing_threads"]
