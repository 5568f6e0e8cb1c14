"""Band-limited resampling on the device, as torchaudio's `Resample` does by default."""

import math
from functools import lru_cache

import torch
from torch.nn import functional as F

from .checks import check_sampling_rate
from .convert import resample


ZERO_CROSSINGS = 6
ROLL_OFF = 0.99
# Rates without a common factor need a filter per output phase; beyond this many taps another method is cheaper.
MAX_TAPS = 2**24


@lru_cache(maxsize=8)
def _filters(orig: int, target: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """Hann-windowed sinc filters `(target, 1, taps)` of reduced rates, one per output phase, and their reach."""
    cut_off = min(orig, target) * ROLL_OFF
    reach = math.ceil(ZERO_CROSSINGS * orig / cut_off)
    taps = torch.arange(-reach, reach + orig, dtype=torch.float64)[None, None] / orig
    phases = torch.arange(0, -target, -1, dtype=torch.float64)[:, None, None] / target
    times = ((phases + taps) * cut_off).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = torch.cos(times * math.pi / ZERO_CROSSINGS / 2) ** 2
    filters = torch.sinc(times) * window * (cut_off / orig)
    return filters.to(device, torch.float32), reach


def sinc_resample(samples: torch.Tensor, orig: int, target: int) -> torch.Tensor:
    """Resamples float32 `(…, samples)` to `(…, ceil(samples * target / orig))`.

    Filters and result are those of `torchaudio.transforms.Resample(orig, target)`, which released models of several
    families heard their references through. Rates with hardly a common factor go through `tts_models.audio.resample`.

    Raises:
        ValueError: a rate is not a whole number of Hz in 1…768,000.
    """
    orig, target = check_sampling_rate(orig, "orig"), check_sampling_rate(target, "target")
    if orig == target:
        return samples
    divisor = math.gcd(orig, target)
    orig, target = orig // divisor, target // divisor
    if target * (orig + 2 * ZERO_CROSSINGS * max(orig / target, 1)) > MAX_TAPS:
        rows = [resample(row, orig, target) for row in samples.reshape(-1, samples.shape[-1])]
        joined = torch.stack([torch.from_numpy(row) for row in rows]).to(samples.device)
        return joined.reshape(*samples.shape[:-1], -1)
    filters, reach = _filters(orig, target, samples.device)
    rows = F.pad(samples.reshape(-1, 1, samples.shape[-1]), (reach, reach + orig))
    resampled = F.conv1d(rows, filters, stride=orig).transpose(1, 2).flatten(1)
    length = math.ceil(target * samples.shape[-1] / orig)
    return resampled[:, :length].reshape(*samples.shape[:-1], length)


__all__ = ["sinc_resample"]
