"""Random generators of a batch: one per row, so that what a row draws does not depend on the others."""

from collections.abc import Sequence

import torch


RowGenerators = torch.Generator | Sequence[torch.Generator] | None


def resolve_row_generators(generator: RowGenerators, batch_size: int) -> list[torch.Generator] | None:
    """One generator per row: those given, or rows seeded in order from a single one (on the CPU).

    Raises:
        ValueError: if a list does not hold `batch_size` generators.
    """
    if generator is None:
        return None
    if isinstance(generator, torch.Generator):
        if batch_size == 1:
            return [generator]
        seeds = torch.randint(2**62, (batch_size,), generator=generator, device=generator.device).tolist()
        return [torch.Generator().manual_seed(seed) for seed in seeds]
    if len(generator) != batch_size:
        raise ValueError(f"`generator` must hold one generator per row ({batch_size}), got {len(generator)}.")
    return list(generator)


__all__ = ["RowGenerators", "resolve_row_generators"]
