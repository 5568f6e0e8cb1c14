"""What `generate` of the speaking models checks the same way: ids, tensors with a row per text, parts of texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch


Part = TypeVar("Part")


def check_input_ids(input_ids: Any, axes: str = "batch, length") -> torch.LongTensor:
    """Ids as they came.

    Args:
        input_ids: A 2-D tensor.
        axes: Their names in the error.

    Raises:
        ValueError: no 2-D tensor, or an empty one.
    """
    if not isinstance(input_ids, torch.Tensor) or input_ids.dim() != 2 or 0 in input_ids.shape:
        found = tuple(input_ids.shape) if isinstance(input_ids, torch.Tensor) else type(input_ids).__name__
        raise ValueError(f"`input_ids` must be a tensor ({axes}) that is not empty; got {found}.")
    return input_ids


def check_row_tensors(
    tensors: Mapping[str, Any], axes: Mapping[str, int], rows: Callable[[str], int], device: torch.device
) -> dict[str, torch.Tensor]:
    """The tensors that were given, on `device`.

    Args:
        tensors: By name; `None` for those that were not given.
        axes: Number of axes of every known tensor.
        rows: Number of rows that the tensor of a name must have.
        device: Where they go.

    Raises:
        ValueError: a tensor has another number of axes or of rows, or is unknown.
    """
    unknown = sorted(set(tensors) - set(axes))
    if unknown:
        raise ValueError(f"Unknown inputs {unknown}; known are {sorted(axes)}.")
    checked = {}
    for name, value in tensors.items():
        if value is None:
            continue
        value = torch.as_tensor(value)
        if value.dim() != axes[name] or len(value) != rows(name):
            raise ValueError(
                f"`{name}` must have {axes[name]} axes and {rows(name)} rows; got the shape {tuple(value.shape)}."
            )
        checked[name] = value.to(device)
    return checked


def check_part_counts(part_counts: Any, rows: int) -> list[int]:
    """Parts of each text as a list; one each when not given.

    Raises:
        ValueError: they do not add up to `rows`.
    """
    counts = [1] * rows if part_counts is None else torch.as_tensor(part_counts).flatten().tolist()
    if sum(counts) != rows or min(counts) < 1:
        raise ValueError(f"`part_counts` {counts} must be positive and add up to the {rows} rows of `input_ids`.")
    return counts


def check_parts_per_batch(parts_per_batch: int) -> None:
    """
    Raises:
        ValueError: it is below 1.
    """
    if parts_per_batch < 1:
        raise ValueError(f"`parts_per_batch` must be at least 1; got {parts_per_batch}.")


def in_batches(parts: Sequence[Part], parts_per_batch: int) -> list[Sequence[Part]]:
    """The parts in their order, in groups of at most `parts_per_batch`."""
    return [parts[start : start + parts_per_batch] for start in range(0, len(parts), parts_per_batch)]


class PartsOfTexts:
    """A request whose texts are spoken in parts.

    Attributes:
        part_counts: Parts of each text.
    """

    part_counts: list[int]

    @property
    def parts(self) -> list[tuple[int, int]]:
        """`(text, part of the text)` of every part."""
        return [(text, part) for text, count in enumerate(self.part_counts) for part in range(count)]


__all__ = [
    "PartsOfTexts",
    "check_input_ids",
    "check_part_counts",
    "check_parts_per_batch",
    "check_row_tensors",
    "in_batches",
]
