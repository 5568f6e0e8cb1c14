"""Cutting the silence before and after a voice."""

import torch
from torch.nn import functional as F


_WINDOW, _HOP = 2048, 512
LEAST_POWER = 1e-10


def voice_bounds(samples: torch.Tensor, decibels: float) -> tuple[int, int]:
    """First sample of `samples` `(samples,)` that is not silence, and the one after the last, as `librosa` finds them.

    Args:
        samples: float32.
        decibels: What is so much quieter than the loudest window (2048 samples, every 512) counts as silence.
    """
    edge = _WINDOW // 2
    power = F.pad(samples, (edge, edge)).unfold(0, _WINDOW, _HOP).pow(2).mean(-1)
    levels = 10 * power.clamp(min=LEAST_POWER).log10()
    loud = (levels - levels.max() > -decibels).nonzero().flatten()
    return int(loud[0]) * _HOP, min(len(samples), (int(loud[-1]) + 1) * _HOP)


__all__ = ["LEAST_POWER", "voice_bounds"]
