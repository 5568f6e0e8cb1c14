"""The left context of causal layers."""

import torch

from tts_models.streaming.context import LeftContext


def test_pieces_see_what_came_before() -> None:
    context, signal = LeftContext(1), torch.arange(6.0)[None, None]
    pieces = [context.extend("layer", piece, 2) for piece in signal.split([1, 0, 3, 2], dim=-1)]
    assert [piece[0, 0].tolist() for piece in pieces] == [[0, 0, 0], [0, 0], [0, 0, 1, 2, 3], [2, 3, 4, 5]]


def test_layers_are_apart_and_any_axis_is_time() -> None:
    context = LeftContext(2)
    context.extend("one", torch.ones(2, 3, 4), 1, dim=1)
    extended = context.extend("other", torch.ones(2, 3, 4), 5)
    assert context.tensors["one"].shape == (2, 1, 4) and extended.shape == (2, 3, 9)
    assert not extended[..., :5].any()


def test_a_layer_that_does_not_look_back_keeps_nothing() -> None:
    context, piece = LeftContext(1), torch.ones(1, 1, 3)
    assert context.extend("layer", piece, 0) is piece and not context.tensors


def test_copies_and_rows_are_independent() -> None:
    context = LeftContext(2)
    context.extend("layer", torch.tensor([[[1.0]], [[2.0]]]), 1)
    context.steps = torch.tensor([3, 4])
    copy, second = context.copy(), context.select_rows(torch.tensor([1]))
    copy.extend("layer", torch.zeros(2, 1, 1), 1)
    copy.steps += 1
    assert context.tensors["layer"].flatten().tolist() == [1, 2] and context.steps.tolist() == [3, 4]
    assert second.tensors["layer"].flatten().tolist() == [2] and second.steps.tolist() == [4]


def test_join_fills_fresh_rows_with_zeros() -> None:
    seen, fresh = LeftContext(1), LeftContext(2)
    seen.extend("layer", torch.ones(1, 1, 3), 2)
    seen.steps += 3
    joined = LeftContext.join([fresh, seen])
    assert joined.tensors["layer"].sum(-1).flatten().tolist() == [0, 0, 2]
    assert joined.steps.tolist() == [0, 0, 3] and joined.batch_size == 3
