"""Keys and values of a stream: all of them, or the last ones, whatever the pieces."""

import pytest
import torch

from tts_models.streaming.history import History


def pieces(sizes: list[int]) -> list[torch.Tensor]:
    """Keys (1, heads, steps, channels), numbered by step."""
    steps = torch.arange(sum(sizes), dtype=torch.float32)[None, None, :, None].expand(1, 2, -1, 3)
    return list(steps.split(sizes, dim=2))


@pytest.mark.parametrize("limit", [None, 4, 9])
def test_every_layer_keeps_its_past(limit: int | None) -> None:
    sizes, history, seen = [3, 1, 7, 2, 5, 1], History(1, limit), 0
    for piece in pieces(sizes):
        new = piece.shape[2]
        for layer, sign in (("one", 1), ("two", -1)):
            keys, values = history.append(layer, sign * piece, 10 * piece)
            first = 0 if limit is None else max(seen - limit, 0)
            expected = torch.arange(first, seen + new, dtype=torch.float32)
            assert torch.equal(keys[0, 1, :, 2], sign * expected)
            assert torch.equal(values[0, 0, :, 0], 10 * expected)
        seen += new


def test_limits_of_single_layers() -> None:
    history = History(1, None, {"short": 2})
    for piece in pieces([4, 4]):
        lengths = {layer: history.append(layer, piece, piece)[0].shape[2] for layer in ("short", "long")}
    assert lengths == {"short": 6, "long": 8}


def test_a_copy_goes_its_own_way() -> None:
    first, second, third = pieces([3, 2, 2])
    history = History(1)
    history.append("layer", first, first)
    history.extend("convolution", torch.ones(1, 4, 2), 3)
    other = history.copy()
    assert torch.equal(history.append("layer", second, second)[0], torch.cat([first, second], dim=2))
    assert torch.equal(other.append("layer", third, third)[0], torch.cat([first, third], dim=2))
    extended = [kept.extend("convolution", torch.zeros(1, 4, 1), 3) for kept in (history, other)]
    assert torch.equal(*extended) and extended[0].sum() == 8
    assert history.num_bytes == other.num_bytes > 0


def test_tables_are_made_ahead() -> None:
    history, made = History(1), []
    for size in (3, 5, 6, 7, 12):
        table = history.table("positions", size, lambda room: made.append(room) or torch.zeros(room))
        assert len(table) >= size
    assert made == [3, 6, 12]
