"""Segments of sound that overlap: the end of one fades out while the next fades in."""

from functools import lru_cache

import torch


@lru_cache(maxsize=8)
def _hann(length: int) -> torch.Tensor:
    return torch.hann_window(2 * length, periodic=False, dtype=torch.float64).float()


class CrossFade:
    """Joins segments, handing out what no later segment can change.

    Args:
        overlap: Samples that neighbouring segments share, faded with the halves of a Hann window. A segment with fewer
            samples is faded over what there is.
    """

    def __init__(self, overlap: int) -> None:
        self.overlap = overlap
        self._held: torch.Tensor | None = None

    def add(self, segment: torch.Tensor, is_last: bool = False) -> torch.Tensor:
        """The next samples of the joined sound.

        Args:
            segment: float32 `(samples,)`.
            is_last: Whether no segment follows; otherwise the last `overlap` samples wait for the next one.
        """
        joined = segment if self._held is None else self._join(self._held, segment)
        if is_last:
            self._held = None
            return joined
        ready = max(len(joined) - self.overlap, 0)
        self._held = joined[ready:]
        return joined[:ready]

    def _join(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        shared = min(self.overlap, len(before), len(after))
        window = _hann(shared).to(after.device) if shared else before[:0]
        faded = before[len(before) - shared :] * window[shared:] + after[:shared] * window[:shared]
        return torch.cat([before[: len(before) - shared], faded, after[shared:]])


__all__ = ["CrossFade"]
