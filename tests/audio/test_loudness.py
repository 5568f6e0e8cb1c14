"""Loudness against numbers of `pyloudnorm` 0.1.1, and its edges."""

import numpy as np
import pytest

from tts_models.audio.loudness import integrated_loudness, match_loudness, normalize_loudness


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
