"""Convolutions with fewer multiplications compute what the plain ones do."""

import pytest
import torch
from torch import nn

from tts_models.acceleration.fast_convolution import (
    FastConv1d,
    FastConvolution,
    transforms,
    use_fast_convolutions,
)


def test_transforms_multiply_four_taps_at_seven_points() -> None:
    values, taps, output = transforms()
    kernel, signal = torch.randn(4, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    expected = torch.stack([kernel @ signal[start : start + 4] for start in range(4)])
    torch.testing.assert_close(output @ ((taps @ kernel) * (values @ signal)), expected)


@pytest.mark.parametrize("steps", [1, 7, 64, 301])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (7, 3), (11, 5), (1, 1), (5, 2)])
@torch.no_grad()
def test_equals_the_convolution(kernel: int, dilation: int, steps: int) -> None:
    torch.manual_seed(0)
    padding = kernel // 2 * dilation if steps < 300 else 0
    convolution = nn.Conv1d(6, 5, kernel, padding=padding, dilation=dilation, bias=dilation > 1)
    states = torch.randn(2, 6, steps)
    torch.testing.assert_close(FastConvolution(convolution)(states), convolution(states), atol=1e-5, rtol=0)


@torch.no_grad()
def test_blocks_join() -> None:
    convolution, states = nn.Conv1d(2, 3, 7, padding=3), torch.randn(1, 2, 4 * 2048 + 50)
    torch.testing.assert_close(FastConvolution(convolution)(states), convolution(states), atol=1e-5, rtol=0)


def test_only_weights_of_now_are_used() -> None:
    module = nn.Sequential(FastConv1d(4, 4, 7, padding=3), FastConv1d(4, 4, 3, padding=1))
    states = torch.randn(1, 4, 20)
    expected = module(states)
    assert use_fast_convolutions(module, min_channels=4) == 1
    assert module[0].fast is not None and module[1].fast is None
    with torch.no_grad():
        torch.testing.assert_close(module(states), expected, atol=1e-5, rtol=0)
        module[0].weight.mul_(2)
        changed = module(states)
    use_fast_convolutions(module, enabled=False, min_channels=4)
    assert module[0].fast is None and torch.equal(module(states), changed)
    use_fast_convolutions(module, min_channels=4)
    module(states).sum().backward()
    assert module[0].weight.grad.any()


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="bfloat16"):
        use_fast_convolutions(FastConv1d(32, 32, 7).bfloat16())
