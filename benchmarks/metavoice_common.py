"""What both sides of `metavoice.py` share: sizes, weights, the prompt. Imports neither package."""

from collections.abc import Iterable

import torch
from seeded_weights import fill


RELEASED = {"layers": 24, "width": 2048, "heads": 16, "inner": 5632}
VOCABULARY, POSITIONS, SPEAKER = 2562, 2048, 256
TOKENS_PER_SECOND = 150
GUIDANCE, TOP_P = 3.0, 0.95
# No token has this id, so that every run writes as many as it was asked for.
NO_END = 9999


def fused(name: str, parts: Iterable[tuple[str, int]], width: int) -> torch.Tensor:
    """The weights of several linear layers `(rows, width)` below each other, each seeded by its own name."""
    filled = []
    for part, rows in parts:
        values = torch.empty(rows, width)
        fill(name.format(part), values)
        filled.append(values)
    return torch.cat(filled)


def prompt_ids() -> torch.LongTensor:
    """A text of 30 ids and its end."""
    ids = torch.randint(2049, 2561, (31,), generator=torch.Generator().manual_seed(0))
    ids[-1] = 2561
    return ids


def speaker_embedding() -> torch.Tensor:
    """A voice, `(1, 256)`."""
    values = torch.rand(1, SPEAKER, generator=torch.Generator().manual_seed(1))
    return values / values.norm()
