"""When a stream hands out its next chunk: a small one first, for latency, then larger ones, for throughput."""

from dataclasses import dataclass, field


@dataclass
class EmitSchedule:
    """Counts frames and says when a chunk is due.

    The first chunk takes `first` frames. The next ones double from a single frame up to `steady` frames, so that the
    listener never waits longer than what is already playing.

    Args:
        first: Frames of the first chunk.
        steady: Frames of the later chunks, once they have grown.
        due: Frames of the next chunk; kept up to date.

    Raises:
        ValueError: a size below one frame.
    """

    first: int
    steady: int
    due: int = field(init=False)
    _next: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        for name in ("first", "steady"):
            if getattr(self, name) < 1:
                raise ValueError(f"A chunk has at least one frame; `{name}` is {getattr(self, name)}.")
        self.due = self.first

    def is_due(self, frames: int) -> bool:
        """Whether `frames` waiting frames make a chunk; if so the next one is planned."""
        if frames < self.due:
            return False
        self.due = min(self._next, self.steady)
        self._next = min(2 * self._next, self.steady)
        return True


@dataclass
class TwoPhaseSchedule:
    """Counts frames and says when a chunk is due: every `steady` frames, at the start every `first` frames.

    A chunk holds all the frames that wait for it, also where the interval changes.

    Args:
        steady: Frames between chunks.
        first: Frames between chunks at the start; 0 for no such phase.
        first_until: The first frame, counted from 1, that is no longer the start.

    Raises:
        ValueError: `steady` is below one frame, or another number is negative.
    """

    steady: int
    first: int = 0
    first_until: int = 0
    _frames: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.steady < 1:
            raise ValueError(f"A chunk has at least one frame; `emit_every_frames` is {self.steady}.")
        for name, value in (("first_chunk_emit_every", self.first), ("first_chunk_frames", self.first_until)):
            if value < 0:
                raise ValueError(f"`{name}` must not be negative; got {value}.")

    def is_due(self, frames: int) -> bool:
        """Whether `frames` waiting frames make a chunk; call it once per frame."""
        self._frames += 1
        is_start = self.first > 0 and self._frames < self.first_until
        return frames >= (self.first if is_start else self.steady)


__all__ = ["EmitSchedule", "TwoPhaseSchedule"]
