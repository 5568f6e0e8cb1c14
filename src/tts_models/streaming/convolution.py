"""State that lets convolutions run over a signal in pieces and give exactly what one pass over the whole would.

A symmetric convolution zero-pads its input on both sides. Run over pieces, it starts with those zeros in its buffer,
lags its input by the right padding, and receives the right zeros with the last piece: `forward(pieces, is_final)`.
All states hold tensors of shape (batch, channels, time) and accept pieces of any length, zero included.
"""

import torch
from torch import nn
from torch.nn import functional as F


def pointwise(convolution: nn.Conv1d, hidden_states: torch.Tensor) -> torch.Tensor:
    """Apply a kernel-1 convolution to a piece that may be empty, which `nn.Conv1d` refuses."""
    if hidden_states.shape[-1] == 0:
        return hidden_states.new_zeros(hidden_states.shape[0], convolution.out_channels, 0)
    return convolution(hidden_states)


class StreamingConv1d:
    """Runs a stride-1 `nn.Conv1d` with symmetric zero padding piece by piece.

    Args:
        convolution: The layer, `padding = dilation * (kernel_size - 1) // 2`.
        batch_size: Rows of every piece.
    """

    def __init__(self, convolution: nn.Conv1d, batch_size: int):
        self.convolution = convolution
        self.padding = convolution.padding[0]
        self.context = convolution.dilation[0] * (convolution.kernel_size[0] - 1)
        weight = convolution.weight
        self.buffer = weight.new_zeros(batch_size, convolution.in_channels, self.padding)

    def __call__(self, hidden_states: torch.Tensor, is_final: bool = False) -> torch.Tensor:
        hidden_states = torch.cat([self.buffer, hidden_states], dim=-1)
        if is_final:
            hidden_states = F.pad(hidden_states, (0, self.padding))
        keep = min(self.context, hidden_states.shape[-1])
        self.buffer = hidden_states[..., hidden_states.shape[-1] - keep :]
        if hidden_states.shape[-1] <= self.context:
            return hidden_states.new_zeros(hidden_states.shape[0], self.convolution.out_channels, 0)
        layer = self.convolution
        return F.conv1d(hidden_states, layer.weight, layer.bias, 1, 0, layer.dilation, layer.groups)

    def select_rows(self, index: torch.Tensor) -> None:
        self.buffer = self.buffer.index_select(0, index)


class StreamingConvTranspose1d:
    """Runs an `nn.ConvTranspose1d` with kernel `2 * stride` piece by piece, by overlap-add.

    `n` input steps give `n * stride` output steps, the first `padding` of which come with the next piece's.
    """

    def __init__(self, convolution: nn.ConvTranspose1d, batch_size: int):
        self.convolution = convolution
        self.stride = convolution.stride[0]
        self.padding = convolution.padding[0]
        self.to_drop = self.padding
        self.tail = convolution.weight.new_zeros(batch_size, convolution.out_channels, self.stride)

    def __call__(self, hidden_states: torch.Tensor, is_final: bool = False) -> torch.Tensor:
        layer = self.convolution
        output = self.tail
        if hidden_states.shape[-1] > 0:
            output = F.conv_transpose1d(hidden_states, layer.weight, None, self.stride, groups=layer.groups)
            output = torch.cat([output[..., : self.stride] + self.tail, output[..., self.stride :]], dim=-1)
            self.tail = output[..., -self.stride :]
        # What is left in the tail after the last piece reaches `padding` steps into the signal.
        end = output.shape[-1] - self.stride + (self.padding if is_final else 0)
        start = min(self.to_drop, end)
        self.to_drop -= start
        output = output[..., start:end]
        return output if layer.bias is None else output + layer.bias[:, None]

    def select_rows(self, index: torch.Tensor) -> None:
        self.tail = self.tail.index_select(0, index)


class DelayLine:
    """A queue along the time axis: what went in first comes out first, as many steps as asked for."""

    def __init__(self, buffer: torch.Tensor):
        self.buffer = buffer

    def push(self, hidden_states: torch.Tensor) -> None:
        self.buffer = torch.cat([self.buffer, hidden_states], dim=-1)

    def pop(self, steps: int) -> torch.Tensor:
        output, self.buffer = self.buffer[..., :steps], self.buffer[..., steps:]
        return output

    def select_rows(self, index: torch.Tensor) -> None:
        self.buffer = self.buffer.index_select(0, index)
