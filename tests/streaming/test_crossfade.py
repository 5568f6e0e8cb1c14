"""Segments that fade into each other."""

import numpy as np
import torch

from tts_models.streaming.crossfade import CrossFade


def segments(*lengths: int) -> list[torch.Tensor]:
    return [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in lengths]


def joined(parts: list[torch.Tensor], overlap: int) -> torch.Tensor:
    fade = CrossFade(overlap)
    return torch.cat([fade.add(part, number + 1 == len(parts)) for number, part in enumerate(parts)])


def test_halves_of_a_window_are_mixed() -> None:
    one, two, three = parts = segments(100, 64, 51)
    window = torch.from_numpy(np.hanning(20)).float()
    faded = [before[-10:] * window[10:] + after[:10] * window[:10] for before, after in ((one, two), (two, three))]
    expected = torch.cat([one[:-10], faded[0], two[10:-10], faded[1], three[10:]])
    assert torch.allclose(joined(parts, 10), expected, atol=1e-6)


def test_equal_sounds_stay_equal() -> None:
    sound = joined([torch.ones(900)] * 3, 400)
    assert len(sound) == 1900 and torch.allclose(sound, torch.ones(1900), atol=1e-2)


def test_nothing_is_handed_out_that_changes_later() -> None:
    fade, (one, two) = CrossFade(30), segments(80, 70)
    assert torch.equal(fade.add(one), one[:50]) and len(fade.add(two, is_last=True)) == 70
    assert torch.equal(fade.add(one, is_last=True), one)


def test_short_segments_are_faded_over_what_there_is() -> None:
    assert len(joined(segments(100, 7, 0, 100), 30)) == 100 + 7 - 7 + 100 - 30
    assert joined(segments(5), 30).shape == (5,) and joined([torch.zeros(0)], 30).shape == (0,)
