# Copyright 2026 The tts_models authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Layers of DeepFilterNet: causal convolutions, grouped projections, and recurrences, over a signal or its pieces."""

from collections.abc import Callable, Sequence
from math import gcd

import torch
from torch import nn
from torch.nn import functional as F

from ...streaming.context import LeftContext


class DeepFilterNetGroupedLinear(nn.Module):
    """A projection of every group of features by itself, without bias."""

    def __init__(self, input_size: int, output_size: int, groups: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(groups, input_size // groups, output_size // groups))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        grouped = hidden_states.unflatten(-1, (self.weight.shape[0], -1))
        return torch.einsum("btgi,gio->btgo", grouped, self.weight).flatten(2)


class DeepFilterNetSkip(nn.Module):
    """What goes round a recurrence: nothing, its input, or a projection of it."""

    def __init__(self, kind: str, input_size: int, output_size: int, groups: int):
        super().__init__()
        self.kind = kind
        # CODEPATH: only the grouped projection has weights.
        self.projection = (
            DeepFilterNetGroupedLinear(input_size, output_size, groups) if kind == "groupedlinear" else None
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor | float:
        if self.projection is not None:
            return self.projection(hidden_states)
        return hidden_states if self.kind == "identity" else 0.0


class DeepFilterNetRecurrence(nn.Module):
    """A grouped projection, gated recurrent layers and, if `output_size` is given, a second projection."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int | None,
        num_layers: int,
        groups: int,
        skip: str = "none",
    ):
        super().__init__()
        self.input_projection = DeepFilterNetGroupedLinear(input_size, hidden_size, groups)
        self.gru = nn.GRU(hidden_size, hidden_size, num_layers, batch_first=True)
        # CODEPATH: the filters' recurrence hands its states on as they are.
        self.output_projection = self.skip = None
        if output_size is not None:
            self.output_projection = DeepFilterNetGroupedLinear(hidden_size, output_size, groups)
            self.skip = DeepFilterNetSkip(skip, input_size, output_size, groups)

    def forward(self, hidden_states: torch.Tensor, context: LeftContext) -> torch.Tensor:
        if hidden_states.shape[1] == 0:
            width = self.gru.hidden_size
            states = hidden_states.new_zeros(hidden_states.shape[0], 0, width)
        else:
            states = self._run(F.relu(self.input_projection(hidden_states)), context)
        if self.output_projection is None:
            return states
        return F.relu(self.output_projection(states)) + self.skip(hidden_states)

    def _run(self, states: torch.Tensor, context: LeftContext) -> torch.Tensor:
        before = context.tensors.get(self)
        states, last = self.gru(states, None if before is None else before.transpose(0, 1).contiguous())
        context.tensors[self] = last.transpose(0, 1)  # batch first, as every tensor of a context
        return states


class DeepFilterNetConvBlock(nn.Module):
    """A convolution over frames and bins that never looks ahead, a 1×1 convolution, a batch norm, an activation.

    The first convolution has as many groups as divide both widths; where it has one, or looks at nothing around, the
    1×1 convolution is left out.
    """

    def __init__(
        self,
        input_channels: int,
        output_channels: int,
        kernel_size: Sequence[int],
        stride: int = 1,
        activation: Callable[[torch.Tensor], torch.Tensor] = F.relu,
    ):
        super().__init__()
        groups = gcd(input_channels, output_channels)
        self.past, self.activation = kernel_size[0] - 1, activation
        self.conv = self._convolution(input_channels, output_channels, tuple(kernel_size), stride, groups)
        is_separable = groups > 1 and self._needs_mixing(kernel_size)
        self.mix = nn.Conv2d(output_channels, output_channels, 1, bias=False) if is_separable else None
        self.norm = nn.BatchNorm2d(output_channels)

    def _convolution(
        self, input_channels: int, output_channels: int, kernel_size: tuple[int, ...], stride: int, groups: int
    ) -> nn.Module:
        return nn.Conv2d(
            input_channels,
            output_channels,
            kernel_size,
            (1, stride),
            (0, kernel_size[1] // 2),
            groups=groups,
            bias=False,
        )

    @staticmethod
    def _needs_mixing(kernel_size: Sequence[int]) -> bool:
        return max(kernel_size) > 1

    def _convolve(self, hidden_states: torch.Tensor) -> torch.Tensor:
        conv = self.conv
        if conv.kernel_size == (1, 1) and conv.groups == conv.in_channels == conv.out_channels:
            return hidden_states * conv.weight[:, 0]  # a gain per channel; on a CPU the convolution loops over them
        return conv(hidden_states)

    def forward(self, hidden_states: torch.Tensor, context: LeftContext) -> torch.Tensor:
        hidden_states = self._convolve(context.extend(self, hidden_states, self.past, dim=2))
        if self.mix is not None:
            hidden_states = self.mix(hidden_states)
        return self.activation(self.norm(hidden_states))


class DeepFilterNetUpsamplingBlock(DeepFilterNetConvBlock):
    """The same with a transposed convolution, which doubles the bins."""

    def __init__(self, channels: int, kernel_size: Sequence[int]):
        super().__init__(channels, channels, kernel_size, stride=2)

    def _convolution(
        self, input_channels: int, output_channels: int, kernel_size: tuple[int, ...], stride: int, groups: int
    ) -> nn.Module:
        return nn.ConvTranspose2d(
            input_channels,
            output_channels,
            kernel_size,
            (1, stride),
            (kernel_size[0] - 1, kernel_size[1] // 2),
            (0, kernel_size[1] // 2),
            groups=groups,
            bias=False,
        )

    @staticmethod
    def _needs_mixing(kernel_size: Sequence[int]) -> bool:
        return True


__all__ = [
    "DeepFilterNetConvBlock",
    "DeepFilterNetGroupedLinear",
    "DeepFilterNetRecurrence",
    "DeepFilterNetSkip",
    "DeepFilterNetUpsamplingBlock",
]
