"""Speech brought to a constant pitch keeps its length, loudness and envelope, and its phase follows the clock."""

import numpy as np
import pytest

from tts_models.training.constant_pitch import FRAME, HOP, resynthesise, spectral_envelope


RATE = 16000


def vowel(pitch: float, seconds: float = 0.5) -> np.ndarray:
    """Harmonics of `pitch` Hz under a formant at 700 Hz."""
    time, harmonics = np.arange(int(seconds * RATE)) / RATE, np.arange(1, int(6000 / pitch))[:, None]
    weights = 1 / (1 + ((harmonics * pitch - 700) / 200) ** 2)
    return (0.1 * (weights * np.sin(2 * np.pi * harmonics * pitch * time)).sum(0)).astype(np.float32)


@pytest.mark.parametrize("period", [80, 160])
def test_voiced_sound_repeats_with_the_period_wherever_it_starts(period: int) -> None:
    audio = np.concatenate([np.zeros(333, np.float32), vowel(137.0)])
    output = resynthesise(audio, period, order=40)
    assert output.dtype == np.float32 and len(output) % FRAME == 0 and 0 <= len(output) - len(audio) < FRAME
    middle = output[3200:6400]
    assert np.abs(middle[period:] - middle[:-period]).max() < 0.05 * np.abs(middle).max()
    # Pulses start at multiples of the period: the response's first and largest swing follows them.
    peaks = np.abs(middle.reshape(-1, period)).argmax(1)
    assert (peaks < period // 3).all()
    assert 0.4 < middle.std() / audio[3200:6400].std() < 2.5


def test_noise_repeats_with_the_frame() -> None:
    audio = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    middle = resynthesise(audio, 80, order=40)[1920:5760].reshape(-1, FRAME)
    similarity = np.corrcoef(middle)
    assert similarity[0, 1:].min() > 0.5
    assert 0.5 < middle.std() / audio.std() < 2.0


def test_silence_stays_silent() -> None:
    assert np.abs(resynthesise(np.zeros(4000, np.float32), 80, order=40)).max() < 1e-3


def test_envelope_passes_over_the_harmonics() -> None:
    frames = np.lib.stride_tricks.sliding_window_view(vowel(200.0), FRAME)[::HOP] * np.hanning(FRAME)
    envelope = spectral_envelope(frames, order=40)
    spectrum = np.log(np.abs(np.fft.rfft(frames, 1024)) + 1e-5)
    at_700 = slice(40, 50)
    assert np.abs(envelope[5:-5, at_700].max(1) - spectrum[5:-5, at_700].max(1)).max() < 0.7


@pytest.mark.parametrize(
    "audio, period, order, message",
    [
        (np.zeros(100), 100, 40, "`pitch_period`"),
        (np.zeros(100), 320, 40, "`pitch_period`"),
        (np.zeros(100), 80, 81, "`order`"),
        (np.zeros((2, 100)), 80, 40, "`audio`"),
        (np.zeros(0), 80, 40, "`audio`"),
    ],
)
def test_bad_arguments(audio: np.ndarray, period: int, order: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resynthesise(audio, period, order)
