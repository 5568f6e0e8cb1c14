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
def _filters(orig: int, target: int, zero_crossings: int, device: torch.device) -> tuple[torch.Tensor, int]:
    """Hann-windowed sinc filters `(target, 1, taps)` of reduced rates, one per output phase, and their reach."""
    cut_off = min(orig, target) * ROLL_OFF
    reach = math.ceil(zero_crossings * orig / cut_off)
    taps = torch.arange(-reach, reach + orig, dtype=torch.float64)[None, None] / orig
    phases = torch.arange(0, -target, -1, dtype=torch.float64)[:, None, None] / target
    times = ((phases + taps) * cut_off).clamp(-zero_crossings, zero_crossings)
    window = torch.cos(times * math.pi / zero_crossings / 2) ** 2
    filters = torch.sinc(times) * window * (cut_off / orig)
    return filters.to(device, torch.float32), reach


def sinc_resample(samples: torch.Tensor, orig: int, target: int, zero_crossings: int = ZERO_CROSSINGS) -> torch.Tensor:
    """Resamples float32 `(…, samples)` to `(…, ceil(samples * target / orig))`.

    Filters and result are those of `torchaudio.transforms.Resample(orig, target)`, which released models of several
    families heard their references through; `zero_crossings` is its `lowpass_filter_width`. Rates with hardly a common
    factor go through `tts_models.audio.resample`.

    Raises:
        ValueError: a rate is not a whole number of Hz in 1…768,000.
    """
    orig, target = check_sampling_rate(orig, "orig"), check_sampling_rate(target, "target")
    if orig == target:
        return samples
    divisor = math.gcd(orig, target)
    orig, target = orig // divisor, target // divisor
    if target * (orig + 2 * zero_crossings * max(orig / target, 1)) > MAX_TAPS:
        rows = [resample(row, orig, target) for row in samples.reshape(-1, samples.shape[-1])]
        joined = torch.stack([torch.from_numpy(row) for row in rows]).to(samples.device)
        return joined.reshape(*samples.shape[:-1], -1)
    filters, reach = _filters(orig, target, zero_crossings, samples.device)
    rows = F.pad(samples.reshape(-1, 1, samples.shape[-1]), (reach, reach + orig))
    resampled = F.conv1d(rows, filters, stride=orig).transpose(1, 2).flatten(1)
    length = math.ceil(target * samples.shape[-1] / orig)
    return resampled[:, :length].reshape(*samples.shape[:-1], length)


class SincResampleStream:
    """Resamples samples as they arrive; what it returns, joined, is [`sinc_resample`] of all of them.

    It hears a few samples ahead: about `zero_crossings` periods of the lower rate.

    Args:
        orig: Rate of what comes in, in Hz.
        target: Rate of what goes out, in Hz.
        zero_crossings: As of [`sinc_resample`].

    Raises:
        ValueError: a rate is not a whole number of Hz in 1…768,000.
    """

    def __init__(self, orig: int, target: int, zero_crossings: int = ZERO_CROSSINGS) -> None:
        self.zero_crossings = zero_crossings
        orig, target = check_sampling_rate(orig, "orig"), check_sampling_rate(target, "target")
        divisor = math.gcd(orig, target)
        self.orig, self.target = orig // divisor, target // divisor
        self.samples_in = self.samples_out = 0
        self._waiting: torch.Tensor | None = None

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples `(batch, m)` that are ready after more samples `(batch, n)`, float32."""
        if self.orig == self.target:
            return samples
        self.samples_in += samples.shape[-1]
        filters, reach = _filters(self.orig, self.target, self.zero_crossings, samples.device)
        before = F.pad(samples, (reach, 0)) if self._waiting is None else torch.cat([self._waiting, samples], dim=-1)
        steps = max((before.shape[-1] - filters.shape[-1]) // self.orig + 1, 0)
        self._waiting = before[..., steps * self.orig :]
        if steps == 0:
            return before[..., :0]
        resampled = F.conv1d(before[:, None], filters, stride=self.orig)[..., :steps].transpose(1, 2).flatten(1)
        self.samples_out += resampled.shape[-1]
        return resampled

    def flush(self) -> torch.Tensor:
        """The rest `(batch, m)`."""
        if self._waiting is None:
            raise ValueError("`flush` needs a stream that samples were pushed to.")
        _, reach = _filters(self.orig, self.target, self.zero_crossings, self._waiting.device)
        missing = math.ceil(self.target * self.samples_in / self.orig) - self.samples_out
        samples_in = self.samples_in
        rest = self.push(F.pad(self._waiting[..., :0], (0, reach + self.orig)))
        self.samples_in = samples_in
        return rest[..., :missing]


__all__ = ["SincResampleStream", "sinc_resample"]
