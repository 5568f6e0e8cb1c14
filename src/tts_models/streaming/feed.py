"""One token loop for many rows, read by one stream per row: whoever runs dry advances the loop for all."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol


class RowStep(Protocol):
    """A round of a token loop: `tokens` by row, and the rows that `ended` with it, with the reason."""

    tokens: dict[int, Any]
    ended: dict[int, str]


class TokenFeed:
    """Tokens of the rows of a running loop.

    The rows advance together, so a row that is read first leaves the tokens of the others waiting for them.

    Args:
        steps: The loop.
        rows: How many rows there are.

    Attributes:
        ended: Rows that are complete, and why.
    """

    def __init__(self, steps: Iterable[RowStep], rows: int) -> None:
        self._steps = iter(steps)
        self._waiting: list[deque[Any]] = [deque() for _ in range(rows)]
        self.ended: dict[int, str] = {}

    def tokens(self, row: int) -> Iterator[Any]:
        """The tokens of one row, as they come."""
        waiting = self._waiting[row]
        while waiting or row not in self.ended:
            if waiting:
                yield waiting.popleft()
            else:
                self._advance()

    def _advance(self) -> None:
        step = next(self._steps)
        for row, token in step.tokens.items():
            self._waiting[row].append(token)
        self.ended |= step.ended


def take_turns(pieces: dict[int, Iterator[Any]]) -> Iterator[tuple[int, Any | None]]:
    """The next piece of each row in turn, with its row, until none has more; `None` where a row has ended.

    Args:
        pieces: The pieces of each row, none of them `None`.
    """
    speaking = dict(pieces)
    while speaking:
        for row in list(speaking):
            piece = next(speaking[row], None)
            if piece is None:
                del speaking[row]
            yield row, piece


def hold_back(pieces: Iterable[Any], samples: int) -> Iterator[Any]:
    """Pieces of a waveform `(samples,)` with its last `samples` left out.

    Args:
        pieces: 1-D tensors.
        samples: How many samples at the end are not wanted.
    """
    if samples == 0:
        yield from pieces
        return
    import torch

    held = None
    for piece in pieces:
        held = piece if held is None else torch.cat([held, piece])
        ready = held[: max(len(held) - samples, 0)]
        if len(ready):
            yield ready
        held = held[len(ready) :]


__all__ = ["TokenFeed", "hold_back", "take_turns"]
