"""Loudness against numbers of `pyloudnorm` 0.1.1, and its edges."""

import numpy as np
import pytest

from tts_models.audio.loudness import (
    clipped_loudness,
    compress_loudness,
    integrated_loudness,
    match_loudness,
    normalize_loudness,
)


# Rate, seconds, LUFS.
PYLOUDNORM = [
    (24000, 5.3, -19.582806),
    (24000, 0.41, -18.00741),
    (16000, 7.77, -19.617632),
    (48000, 2.0, -19.195036),
]


def signal(rate: int, seconds: float) -> np.ndarray:
    times = np.arange(int(rate * seconds)) / rate
    tone = 0.2 * np.sin(2 * np.pi * 180 * times) * (np.sin(2 * np.pi * 0.7 * times) > 0)
    return (tone + 0.01 * np.random.default_rng(0).standard_normal(len(times))).astype(np.float32)


@pytest.mark.parametrize("rate, seconds, lufs", PYLOUDNORM)
def test_loudness(rate: int, seconds: float, lufs: float) -> None:
    assert integrated_loudness(signal(rate, seconds), rate) == pytest.approx(lufs, abs=1e-5)


def test_what_has_no_loudness_is_left_alone() -> None:
    for samples in (signal(24000, 0.3), np.zeros(24000, np.float32)):
        assert integrated_loudness(samples, 24000) is None
        assert normalize_loudness(samples, 24000, -27.0) is samples


def test_normalized_sound_has_the_loudness() -> None:
    normalized = normalize_loudness(signal(24000, 3.0), 24000, -27.0)
    assert normalized.dtype == np.float32
    assert integrated_loudness(normalized, 24000) == pytest.approx(-27.0, abs=1e-4)


def test_matched_loudness_stays_in_range() -> None:
    rate = 24000
    tone = np.sin(2 * np.pi * 300 * np.arange(rate) / rate) * 0.1
    quiet = match_loudness(tone, rate, -30.0)
    assert abs(integrated_loudness(quiet, rate) + 30.0) < 1e-3 and quiet.dtype == np.float32
    loud = match_loudness(tone, rate, 0.0)
    assert abs(np.abs(loud).max() - 0.95) < 1e-6
    for samples in (tone[:1000], np.zeros(rate), np.zeros(0)):
        assert match_loudness(samples, rate, -3.0) is samples
    assert np.abs(match_loudness(100 * tone[:1000], rate, None)).max() <= 0.95 + 1e-6


def test_clipping_makes_loud_sound_count_less() -> None:
    quiet, loud = signal(24000, 3.0), 20 * signal(24000, 3.0)
    assert clipped_loudness(quiet, 24000) == pytest.approx(integrated_loudness(quiet, 24000), abs=0.2)
    assert clipped_loudness(loud, 24000) < integrated_loudness(loud, 24000) - 3
    assert clipped_loudness(signal(24000, 0.39), 24000) is None
    assert clipped_loudness(np.zeros(24000, np.float32), 24000) is None


def test_compressed_sound_is_as_loud_as_asked_and_below_one() -> None:
    for scale in (0.1, 1.0, 30.0):
        compressed = compress_loudness(scale * signal(24000, 3.0), 24000)
        assert compressed.dtype == np.float32 and np.abs(compressed).max() <= 1.0
        if scale <= 1:
            assert integrated_loudness(compressed, 24000) == pytest.approx(-14.0, abs=1.0)


def test_quiet_and_short_sound_is_not_compressed() -> None:
    for samples in (1e-3 * signal(24000, 3.0), signal(24000, 0.3), np.zeros(0, np.float32), np.zeros(9, np.float32)):
        assert np.array_equal(compress_loudness(samples, 24000), samples)
    assert compress_loudness(3 * signal(24000, 0.3), 24000).max() <= 1.0
