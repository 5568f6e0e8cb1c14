"""Convolutions over time with fewer multiplications: several outputs and taps at once (Toom, 1963; Winograd, 1980).

Four outputs of four taps take 16 products directly and 7 at suitable points; longer kernels are sums of such pieces,
which share what is computed of the input. For the CPU, where convolutions run at the speed of matrix products: half of
the work is saved, for twice the memory of the weights and an error of some 1e-6.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F


# Outputs per tile, which is also the number of taps per piece of a kernel.
TILE = 4
# Where the polynomials are multiplied, beside infinity.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5)
# Columns of a block, so that what is between two steps stays in the cache.
_BLOCK = 2048


def _without(points: list[float], index: int) -> torch.Tensor:
    """Coefficients, lowest first, of the polynomial whose zeros are the points but one."""
    coefficients = torch.ones(1, dtype=torch.float64)
    for other, point in enumerate(points):
        if other != index:
            coefficients = F.pad(coefficients, (1, 0)) - point * F.pad(coefficients, (0, 1))
    return coefficients


def transforms(tile: int = TILE, points: Iterable[float] = _POINTS) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Matrices of the input `(n, n)`, the kernel `(n, tile)` and the output `(tile, n)`, with `n = 2 tile - 1`.

    `output @ ((kernel @ taps) * (input @ values))` are `tile` neighbouring sums of `tile` products, float64.
    """
    points = list(points)
    size = 2 * tile - 1
    powers = torch.tensor([[point**power for power in range(tile)] for point in points], dtype=torch.float64)
    at_infinity = F.one_hot(torch.tensor([tile - 1]), tile).double()
    values = torch.stack(
        [F.pad(_without(points, index), (0, 1)) for index in range(size - 1)] + [_without(points, -1)]
    )
    scales = torch.tensor([math.prod(p - q for q in points if q != p) for p in points], dtype=torch.float64)
    taps = torch.cat([powers / scales[:, None], at_infinity])
    return values, taps, torch.cat([powers, at_infinity]).T


class FastConvolution:
    """What `convolution` computes, with fewer multiplications: `(batch, in, steps)` to `(batch, out, steps)`.

    It holds weights of its own: make it anew when those of the convolution have changed.

    Args:
        convolution: Of stride 1 and one group, padded with zeros or not at all.
    """

    def __init__(self, convolution: nn.Conv1d) -> None:
        (kernel,), (self.dilation,), (self.padding,) = (
            convolution.kernel_size,
            convolution.dilation,
            convolution.padding,
        )
        self.pieces = -(-kernel // TILE)
        self.reach = (kernel - 1) * self.dilation
        values, taps, self.output = transforms()
        dtype = convolution.weight.dtype
        padded = F.pad(convolution.weight.detach().double(), (0, self.pieces * TILE - kernel))
        weights = torch.einsum("pt,oist->spoi", taps.to(padded.device), padded.unflatten(2, (self.pieces, TILE)))
        self.weights = weights.to(dtype).contiguous()
        self.output = self.output.to(self.weights)
        # A tile's values are its own and the first of the next tile.
        self.own, self.next = (part.to(self.weights).contiguous() for part in values.split([TILE, TILE - 1], dim=1))
        self.bias = None if convolution.bias is None else convolution.bias.detach()

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """`(batch, out, steps)`."""
        batch_size, channels, length = states.shape
        steps = length + 2 * self.padding - self.reach
        # Steps at a distance of the dilation follow one another, in as many rows; each ends with an empty piece.
        tiles = -(-steps // (TILE * self.dilation))
        columns = tiles + self.pieces
        missing = columns * TILE * self.dilation - length - self.padding
        arranged = F.pad(states, (self.padding, missing)).view(batch_size, channels, columns, TILE, self.dilation)
        arranged = arranged.permute(3, 1, 0, 4, 2).reshape(TILE, channels, -1)
        total = arranged.shape[2] - self.pieces
        blocks = [self._block(arranged, start, min(_BLOCK, total - start)) for start in range(0, total, _BLOCK)]
        result = F.pad(torch.cat(blocks, dim=2), (0, self.pieces))
        result = result.view(TILE, -1, batch_size, self.dilation, columns)[..., :tiles]
        result = result.permute(2, 1, 4, 0, 3).reshape(batch_size, -1, tiles * TILE * self.dilation)[..., :steps]
        return result if self.bias is None else result + self.bias[:, None]

    def _block(self, arranged: torch.Tensor, start: int, width: int) -> torch.Tensor:
        """Sums `(TILE, out, width)` of the tiles from `start` on."""
        channels, last = arranged.shape[1], start + width + self.pieces - 1
        own = arranged[:, :, start:last].reshape(TILE, -1)
        following = arranged[: TILE - 1, :, start + 1 : last + 1].reshape(TILE - 1, -1)
        values = torch.addmm(self.own @ own, self.next, following).view(-1, channels, last - start)
        products = torch.bmm(self.weights[0], values[:, :, :width])
        for piece in range(1, self.pieces):
            products.baddbmm_(self.weights[piece], values[:, :, piece : piece + width])
        return (self.output @ products.flatten(1)).view(TILE, -1, width)


class FastConv1d(nn.Conv1d):
    """A convolution that can be computed with fewer multiplications: see [`use_fast_convolutions`]."""

    fast: FastConvolution | None = None
    _made_from: tuple[int, int] | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`(batch, in, steps)` to `(batch, out, steps)`; for gradients, and for weights that have changed, plainly."""
        if self.fast is None or torch.is_grad_enabled() or self._weights() != self._made_from:
            return super().forward(input)
        return self.fast(input)

    def use_fast(self, enabled: bool) -> None:
        """Compute it with the weights of now in fewer multiplications, or plainly."""
        self.fast = FastConvolution(self) if enabled else None
        self._made_from = self._weights() if enabled else None

    def _weights(self) -> tuple[int, int]:
        weight = self.weight
        return weight.data_ptr(), weight._version


def use_fast_convolutions(module: nn.Module, enabled: bool = True, min_kernel: int = 7, min_channels: int = 32) -> int:
    """Compute those convolutions of a module with fewer multiplications for which it is faster; returns how many.

    Args:
        module: Its [`FastConv1d`]s are meant.
        enabled: `False` to compute them plainly again.
        min_kernel, min_channels: Smaller kernels, and fewer channels, are not worth it.

    Raises:
        ValueError: the module is not on the CPU, or has another dtype than float32.
    """
    chosen = [
        each
        for each in module.modules()
        if isinstance(each, FastConv1d)
        and each.kernel_size[0] >= min_kernel
        and min(each.in_channels, each.out_channels) >= min_channels
    ]
    for each in chosen:
        if enabled and (each.weight.device.type != "cpu" or each.weight.dtype != torch.float32):
            raise ValueError(
                f"`module` must be in float32 on the CPU, where this is faster; got {each.weight.dtype} on "
                f"{each.weight.device}."
            )
        each.use_fast(enabled)
    return len(chosen)


__all__ = ["FastConv1d", "FastConvolution", "use_fast_convolutions"]
