"""Layers that vocoders share. They know how long the rows of a padded batch are: each gives what it has alone."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from .acceleration.fast_convolution import FastConv1d, use_fast_convolutions
from .audio.lengths import length_mask


Vocoder = TypeVar("Vocoder", bound=nn.Module)


def keep(hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Zeros in (batch, channels, steps) after each row's length; `None` where nothing is padding."""
    if lengths is None:
        return hidden_states
    return hidden_states * length_mask(lengths, hidden_states.shape[-1])[:, None]


def reflect(hidden_states: torch.Tensor, half: int, lengths: torch.Tensor | None) -> torch.Tensor:
    """(batch, channels, steps) with `half` mirrored steps before the first and after the last of each row."""
    if lengths is None:
        return F.pad(hidden_states, (half, half), mode="reflect")
    positions = torch.arange(-half, hidden_states.shape[-1] + half, device=hidden_states.device).abs()
    last = lengths[:, None] - 1
    index = (last - (last - positions).abs()).clamp(min=0)
    return hidden_states.gather(2, index[:, None].expand(-1, hidden_states.shape[1], -1))


class FastConvolutionsMixin:
    """For a vocoder made of [`FastConv1d`]s."""

    def use_fast_convolutions(self: Vocoder, enabled: bool = True) -> Vocoder:
        """Compute with fewer multiplications, on a CPU in float32: about a third less time for twice the memory.

        Weights that change afterwards are noticed, and used plainly until the next call.

        Returns:
            The model itself.

        Raises:
            ValueError: the model is elsewhere, or in another dtype.
        """
        use_fast_convolutions(self, enabled)
        return self


class DilatedResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each after an activation, added to the input, as in HiFi-GAN.

    Args:
        channels: Of input and output.
        kernel_size: Odd; of all convolutions.
        dilations: Of the first convolution of each pair.
        activation: Makes an activation for so many channels, which must leave zeros as they are.
    """

    def __init__(
        self, channels: int, kernel_size: int, dilations: Sequence[int], activation: Callable[[int], nn.Module]
    ):
        super().__init__()
        half = kernel_size // 2
        self.convs1 = nn.ModuleList(
            FastConv1d(channels, channels, kernel_size, padding=half * dilation, dilation=dilation)
            for dilation in dilations
        )
        self.convs2 = nn.ModuleList(FastConv1d(channels, channels, kernel_size, padding=half) for _ in dilations)
        self.activations1 = nn.ModuleList(activation(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(activation(channels) for _ in dilations)

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """(batch, channels, steps), zero after each row's length."""
        for conv1, conv2, activation1, activation2 in zip(
            self.convs1, self.convs2, self.activations1, self.activations2, strict=True
        ):
            branch = keep(activation2(conv1(activation1(hidden_states))), lengths)
            hidden_states = keep(hidden_states + conv2(branch), lengths)
        return hidden_states


__all__ = ["DilatedResidualBlock", "FastConvolutionsMixin", "keep", "reflect"]
