"""Weight normalisation of convolutions: put on for training as upstream does it, never stored."""

from collections.abc import Iterable

from torch import nn
from torch.nn.utils import parametrizations, parametrize


def apply_weight_norm(modules: Iterable[nn.Module]) -> None:
    """Split the weights of the convolutions among `modules` into magnitude and direction; again does nothing."""
    for module in modules:
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)) and not parametrize.is_parametrized(module):
            parametrizations.weight_norm(module)


def remove_weight_norm(modules: Iterable[nn.Module]) -> None:
    """Fuse magnitude and direction back into plain weights."""
    for module in modules:
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


__all__ = ["apply_weight_norm", "remove_weight_norm"]
