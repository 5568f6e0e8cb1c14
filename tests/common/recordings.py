"""Recordings made of numbers."""

import numpy as np


def noisy_tone(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """A tone with noise, float32 `(samples,)`; another seed makes another tone.

    Args:
        seconds: Its length.
        rate: Samples per second.
        seed: Of the tone and the noise.
    """
    generator = np.random.default_rng(seed)
    times = np.arange(int(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (120 + 40 * seed) * times) + 0.05 * generator.standard_normal(len(times))
    return tone.astype(np.float32)
