"""One token loop read by several streams, and waveforms whose end is not wanted."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from tts_models.streaming.feed import TokenFeed, hold_back


def steps(advanced: list[int]) -> Iterator[SimpleNamespace]:
    """Row 0 has three tokens, row 1 five; the ends come with the last token and after it."""
    for number in range(6):
        advanced.append(number)
        tokens = {row: 10 * row + number for row, count in ((0, 3), (1, 5)) if number < count}
        ended = {0: "length"} if number == 2 else {1: "stop"} if number == 5 else {}
        yield SimpleNamespace(tokens=tokens, ended=ended)


@pytest.mark.parametrize("first", [0, 1])
def test_every_reader_gets_its_tokens(first: int) -> None:
    feed = TokenFeed(steps([]), 2)
    read = {row: list(feed.tokens(row)) for row in (first, 1 - first)}
    assert read == {0: [0, 1, 2], 1: [10, 11, 12, 13, 14]}
    assert feed.ended == {0: "length", 1: "stop"}


def test_the_loop_advances_only_when_a_reader_runs_dry() -> None:
    advanced: list[int] = []
    feed = TokenFeed(steps(advanced), 2)
    zero, one = feed.tokens(0), feed.tokens(1)
    assert next(zero) == 0 and next(one) == 10 and advanced == [0]
    assert next(one) == 11 and advanced == [0, 1] and next(zero) == 1 and advanced == [0, 1]


@pytest.mark.parametrize("samples", [0, 1, 4, 7, 20])
def test_the_end_is_held_back(samples: int) -> None:
    pieces = [torch.arange(3.0), torch.arange(3.0, 4.0), torch.arange(4.0, 10.0)]
    kept = list(hold_back(pieces, samples))
    assert all(len(piece) for piece in kept)
    assert torch.equal(torch.cat([torch.zeros(0), *kept]), torch.arange(10.0)[: max(10 - samples, 0)])
