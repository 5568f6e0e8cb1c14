"""What every entry point demands of a waveform."""

from typing import Any

import numpy as np


def check_waveform(audio: Any, name: str = "audio") -> np.ndarray:
    """`audio` as a float32 array of shape (samples,).

    Args:
        audio: Mono samples: an array, a CPU or GPU tensor, or a list. A leading axis of length 1 is dropped. Integers
            of 16 or 32 bits are scaled to [-1, 1].
        name: The argument's name in an error.

    Raises:
        ValueError: `audio` is empty, has several channels or holds NaN or infinite samples.
    """
    if hasattr(audio, "detach"):
        audio = audio.detach().float().cpu().numpy()
    samples = np.asarray(audio)
    if samples.dtype in (np.int16, np.int32):
        samples = samples / float(np.iinfo(samples.dtype).max + 1)
    samples = samples.astype(np.float32, copy=False)
    while samples.ndim > 1 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1:
        raise ValueError(f"`{name}` must be mono, of shape (samples,), got shape {samples.shape}.")
    if samples.size == 0:
        raise ValueError(f"`{name}` is empty: at least one sample is needed.")
    if not np.isfinite(samples).all():
        bad = int(np.count_nonzero(~np.isfinite(samples)))
        raise ValueError(f"`{name}` holds {bad} NaN or infinite of {samples.size} samples: all must be finite.")
    return samples


def check_sampling_rate(sampling_rate: Any, name: str = "sampling_rate") -> int:
    """`sampling_rate` as an int.

    Raises:
        ValueError: it is not a whole number of Hz in 1…768,000.
    """
    if isinstance(sampling_rate, bool) or int(sampling_rate) != sampling_rate or not 1 <= sampling_rate <= 768_000:
        raise ValueError(f"`{name}` must be a whole number of Hz in 1…768000, got {sampling_rate!r}.")
    return int(sampling_rate)


__all__ = ["check_sampling_rate", "check_waveform"]
