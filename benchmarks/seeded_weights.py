"""Weights that depend on nothing but their names and shapes, so that two implementations hold the same ones."""

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import nn
from transformers import PreTrainedModel


_ONES = ("weight", "scale", "gamma", "cluster_usage", "initialized")
_INITIALISERS = ("normal_", "uniform_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "trunc_normal_")


@contextmanager
def uninitialised() -> Iterator[None]:
    """Networks made inside keep whatever is in their memory: they are filled afterwards."""
    patches = [patch.object(nn.init, name, lambda tensor, *args, **kwargs: tensor) for name in _INITIALISERS]
    patches.append(patch.object(PreTrainedModel, "init_weights", lambda self: None))
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in reversed(patches):
            each.stop()


def build(make: Callable[[], nn.Module]) -> nn.Module:
    """The network that `make` returns on the CPU, in evaluation mode, with seeded weights."""
    with uninitialised():
        network = make().eval()
    for name, values in network.state_dict().items():
        if values.is_floating_point():
            fill(name, values)
    return network


def fill(name: str, values: torch.Tensor) -> None:
    """Matrices: normal, divided by the root of their inputs. Vectors: ones for scales and counts, zeros for others."""
    if values.dim() < 2:
        values.fill_(1.0 if name.endswith(_ONES) else 0.0)
        return
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    values.normal_(0.0, 1 / math.sqrt(values[0].numel()), generator=generator)


__all__ = ["build", "fill", "uninitialised"]
