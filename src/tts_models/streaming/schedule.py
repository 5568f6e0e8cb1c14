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


__all__ = ["EmitSchedule"]
