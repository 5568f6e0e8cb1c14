"""What a part of a long text goes on from."""

import torch

from tts_models.models.metavoice.context_metavoice import TextHistory
from tts_models.models.metavoice.request_metavoice import MetaVoicePart


def part(number: int, ids: int = 10) -> MetaVoicePart:
    return MetaVoicePart(0, number, [number] * ids, [100 + number] * ids)


def codes(frames: int) -> torch.LongTensor:
    return torch.arange(4)[:, None].expand(4, frames)


def test_the_first_part_stands_alone() -> None:
    text, before = TextHistory(200, 100, 2).before(part(0))
    assert text == [0] * 10 and before.shape == (2, 0)


def test_texts_and_codes_stand_before_a_part() -> None:
    history = TextHistory(200, 100, 2)
    history.add(part(0), codes(12), "stop")
    text, before = history.before(part(1))
    assert text == [0] * 10 + [101] * 10
    assert before.tolist() == [[0] * 12, [1] * 12]


def test_as_many_parts_as_fit() -> None:
    """Two parts of 12 frames stand before a third, of which 18 are expected; or one of them does."""
    history = TextHistory(200, 200, 2)
    for number in range(2):
        history.add(part(number), codes(12), "stop")
    text, before = history.before(part(2))
    assert text == [0] * 10 + [101] * 10 + [102] * 10 and before.shape[1] == 24
    history = TextHistory(100, 200, 2)
    for number in range(2):
        history.add(part(number), codes(12), "stop")
    text, before = history.before(part(2))
    # The first of what stands before begins the text.
    assert text == [1] * 10 + [102] * 10 and before.shape[1] == 12


def test_room_of_the_second_stage() -> None:
    history = TextHistory(1000, 40, 2)
    history.add(part(0), codes(12), "stop")
    assert history.before(part(1))[0] == [1] * 10


def test_nothing_goes_on_from_what_was_cut_or_silent() -> None:
    for frames, reason in ((12, "length"), (0, "stop")):
        history = TextHistory(200, 100, 2)
        history.add(part(0), codes(12), "stop")
        history.add(part(1), codes(frames), reason)
        assert history.before(part(2))[0] == [2] * 10
    history.add(part(3), None, "stop")
    assert not history.spoken


def test_parts_can_be_independent() -> None:
    history = TextHistory(200, 100, 2, is_used=False)
    history.add(part(0), codes(12), "stop")
    assert history.before(part(1))[0] == [1] * 10
