"""Waveforms of the parts of a text joined to one, where both are quiet."""

import torch
from torch.nn import functional as F


# A place is quiet when it is this much below the loudest sample so far (-34 dB).
_QUIET = 0.02


class QuietJoiner:
    """Joins parts that come in pieces of any size; what comes out does not depend on where the pieces begin.

    The end of a part and the beginning of the next are cross-faded at their quietest places, which are searched only
    where nothing is spoken any more, or yet: no sound is lost. The end of a part waits until the next has begun.

    Args:
        sampling_rate: Rate in Hz.
        search_seconds: How far from its end, or its beginning, a part is searched.
        fade_seconds: Length of the cross-fade.

    Raises:
        ValueError: `fade_seconds` is not positive, or `search_seconds` is shorter.
    """

    def __init__(self, sampling_rate: int, search_seconds: float = 0.15, fade_seconds: float = 0.01) -> None:
        if not 0 < fade_seconds <= search_seconds:
            raise ValueError(
                "`fade_seconds` must be positive and at most `search_seconds`; "
                f"got {fade_seconds} and {search_seconds}."
            )
        self.search = round(search_seconds * sampling_rate)
        self.fade = max(round(fade_seconds * sampling_rate), 1)
        self.peak = 0.0
        self._nothing = torch.zeros(0)
        self._before: torch.Tensor | None = None
        self._held: torch.Tensor | None = None

    def add(self, piece: torch.Tensor, is_last: bool = False) -> torch.Tensor:
        """More samples `(n,)` of the part; returns those `(m,)` that are ready.

        Args:
            piece: The samples.
            is_last: Whether no part follows this one, so that nothing needs to wait.
        """
        self._nothing = piece[:0]
        if not len(piece):
            return piece
        held = piece if self._held is None else torch.cat([self._held, piece])
        if self._before is not None and len(held) < self.search:
            self._held = held
            return piece[:0]
        held = self._joined(held)
        ready = len(held) if is_last else max(len(held) - self.search, 0)
        self._held = held[ready:] if ready < len(held) else None
        return held[:ready]

    def end_part(self) -> torch.Tensor:
        """The part is complete: the next samples belong to another one. Returns what is ready."""
        if self._held is None:
            return self._nothing
        held, self._held = self._joined(self._held), None
        start = max(len(held) - self.search, 0)
        self._before = held[start:]
        return held[:start]

    def finish(self) -> torch.Tensor:
        """All parts are complete: returns the rest `(m,)`."""
        ready = self.end_part()
        rest, self._before = self._before, None
        return ready if rest is None else torch.cat([ready, rest])

    def _joined(self, after: torch.Tensor) -> torch.Tensor:
        """The end of the part before, faded into the samples `after`."""
        # Of the first `search` samples alone, so that the size of the pieces does not matter.
        head = after[: self.search]
        if self._before is None:
            self.peak = max(self.peak, float(after.abs().max()))
            return after
        before, self._before = self._before, None
        self.peak = max(self.peak, float(head.abs().max()))
        fade = min(self.fade, len(before), len(head))
        leave = quiet_place(before.flip(0), fade, self.peak)
        enter = quiet_place(head, fade, self.peak)
        end = len(before) - leave
        ramp = (torch.arange(fade, device=after.device, dtype=after.dtype) + 0.5) / max(fade, 1)
        mixed = before[end - fade : end] * (1 - ramp) + after[enter : enter + fade] * ramp
        self.peak = max(self.peak, float(after.abs().max()))
        return torch.cat([before[: end - fade], mixed, after[enter + fade :]])


def quiet_place(samples: torch.Tensor, width: int, peak: float) -> int:
    """Where the quietest `width` samples begin before anything is heard; 0 where something is heard at once.

    Args:
        samples: `(n,)`, at least `width`.
        width: How many samples count together.
        peak: The loudest sample that the quiet is compared with.
    """
    if width == 0:
        return 0
    step = max(width // 4, 1)
    power = F.avg_pool1d(samples.float().square()[None, None], width, step)[0, 0]
    heard = (power > (_QUIET * peak) ** 2).nonzero()
    quiet = power[: int(heard[0])] if len(heard) else power
    return step * int(quiet.argmin()) if len(quiet) else 0


__all__ = ["QuietJoiner", "quiet_place"]
