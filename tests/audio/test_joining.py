"""Parts of a text become one waveform."""

import pytest
import torch

from tts_models.audio.joining import QuietJoiner, quiet_place


RATE = 8000


def spoken(seconds: float, silence: tuple[float, float] = (0.05, 0.05), seed: int = 0) -> torch.Tensor:
    """Noise between two stretches of near silence."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(int(seconds * RATE), generator=generator).clamp(-3, 3) / 6
    for place in (slice(0, int(silence[0] * RATE)), slice(len(noise) - int(silence[1] * RATE), None)):
        noise[place] *= 1e-3
    return noise


def join(parts: list[torch.Tensor], size: int) -> torch.Tensor:
    joiner, out = QuietJoiner(RATE), []
    for part in parts:
        out += [joiner.add(piece) for piece in part.split(size)] + [joiner.end_part()]
    return torch.cat([*out, joiner.finish()])


@pytest.mark.parametrize("size", [1, 37, 1000, 100_000])
def test_pieces_do_not_matter(size: int) -> None:
    parts = [spoken(0.5, seed=0), spoken(0.7, seed=1), spoken(0.1, seed=2), spoken(0.4, seed=3)]
    torch.testing.assert_close(join(parts, size), join(parts, 777), atol=1e-7, rtol=0)


def test_one_part_stays_as_it_is() -> None:
    part = spoken(0.5)
    assert torch.equal(join([part], 100), part)


def test_no_speech_is_lost() -> None:
    """A part that is loud to its very end keeps all but the cross-fade."""
    parts = [spoken(0.5, silence=(0.0, 0.0), seed=seed) for seed in (0, 1)]
    joined = join(parts, 64)
    fade = QuietJoiner(RATE).fade
    assert len(joined) == sum(map(len, parts)) - fade
    assert torch.equal(joined[: len(parts[0]) - fade], parts[0][:-fade])
    assert torch.equal(joined[len(parts[0]) :], parts[1][fade:])


def test_the_join_is_quiet() -> None:
    joined = join([spoken(0.5, seed=0), spoken(0.5, seed=1)], 100)
    heard = (joined.abs() > 0.01).nonzero().flatten()
    gaps = heard.diff()
    middle = int(heard[gaps.argmax()]) + int(gaps.max()) // 2
    assert abs(middle - 4000) < 400 and 200 < gaps.max() < 1000


def test_short_and_empty_parts() -> None:
    parts = [spoken(0.3), torch.zeros(0), spoken(0.3)[:3], torch.zeros(0), spoken(0.3)[:1], spoken(0.2)]
    assert join(parts, 50).isfinite().all()
    assert len(join([torch.zeros(0)], 50)) == len(join([], 50)) == 0


def test_quietest_place_lies_before_the_sound() -> None:
    samples = torch.cat([torch.full((40,), 0.001), torch.full((40,), 0.0), torch.ones(100), torch.zeros(100)])
    assert 40 <= quiet_place(samples, 20, 1.0) <= 60
    assert quiet_place(torch.ones(50), 20, 1.0) == 0


def test_wrong_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="fade_seconds"):
        QuietJoiner(RATE, search_seconds=0.01, fade_seconds=0.02)
