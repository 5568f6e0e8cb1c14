"""Comparing the outputs of two forward passes."""

from collections.abc import Iterable

import torch
from transformers.utils import ModelOutput


def tensors_in(output: ModelOutput) -> dict[str, torch.Tensor]:
    """The tensors of a model's output by name; tuples are numbered, caches and other objects left out."""
    found: dict[str, torch.Tensor] = {}
    for name, value in output.items():
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, tuple):
            found.update({f"{name}.{i}": item for i, item in enumerate(value) if isinstance(item, torch.Tensor)})
    return found


def assert_outputs_equal(actual: ModelOutput, expected: ModelOutput, atol: float = 0.0) -> None:
    """Every tensor of `expected` is in `actual` and equal to `atol`; integers exactly."""
    actual_tensors, expected_tensors = tensors_in(actual), tensors_in(expected)
    assert actual_tensors.keys() == expected_tensors.keys()
    assert expected_tensors, "the output holds no tensor"
    for name, tensor in expected_tensors.items():
        assert_close(actual_tensors[name], tensor, atol, name)


def assert_all_close(actual: Iterable[torch.Tensor], expected: Iterable[torch.Tensor], atol: float) -> None:
    """Pairwise [`assert_close`]."""
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert_close(one, other, atol, f"tensor {index}")


def assert_close(actual: torch.Tensor, expected: torch.Tensor, atol: float, name: str = "tensor") -> None:
    """Same shape, no NaN, and no entry further apart than `atol`; integers exactly."""
    assert actual.shape == expected.shape, f"{name}: {tuple(actual.shape)} instead of {tuple(expected.shape)}"
    if not expected.is_floating_point():
        atol = 0.0
    difference = (actual.double() - expected.double()).abs()
    largest = difference.max().item() if difference.numel() else 0.0
    assert largest <= atol, f"{name} differs by {largest:.3g}, allowed is {atol:.3g}"
