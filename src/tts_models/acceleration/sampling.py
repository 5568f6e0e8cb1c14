"""Drawing one token per row so that a row's draws never depend on the other rows."""

from collections.abc import Sequence

import torch


_BLOCK = 256


class RowSampler:
    """Picks a token per row: the best one, or a draw from the row's own source of randomness.

    Every draw inverts the cumulative distribution at one uniform number; a row's numbers come from its generator in
    blocks of fixed size, so they are the same alone and in any batch, on every device.

    Args:
        generators: One CPU generator per row, or `None` for the best token every time.
        device: Where the scores are.
    """

    def __init__(self, generators: Sequence[torch.Generator] | None, device: torch.device) -> None:
        self.generators = None if generators is None else list(generators)
        self.device = device
        self._uniforms = torch.empty(0)
        self._next = _BLOCK

    def __call__(self, scores: torch.Tensor) -> torch.LongTensor:
        """The picked index `(batch,)` of `scores` `(batch, choices)`: log-probabilities up to a constant, or -inf."""
        return pick(scores, None if self.generators is None else self._draw())

    def draw(self, count: int) -> torch.Tensor:
        """The uniform numbers of the next `count` picks, `(batch, count)`; zeros where nothing is drawn."""
        if self.generators is None:
            return torch.zeros(1, count, device=self.device)
        return torch.cat([self._draw() for _ in range(count)], dim=1)

    def select(self, index: torch.LongTensor) -> None:
        """Go on with the rows `index` (int64) only."""
        if self.generators is not None:
            self.generators = [self.generators[row] for row in index.tolist()]
            self._uniforms = self._uniforms[index] if len(self._uniforms) else self._uniforms

    def _draw(self) -> torch.Tensor:
        """One uniform number in [0, 1) per row, `(batch, 1)`."""
        if self._next == _BLOCK:
            rows = [torch.rand(_BLOCK, generator=generator) for generator in self.generators]
            self._uniforms, self._next = torch.stack(rows).to(self.device), 0
        self._next += 1
        return self._uniforms[:, self._next - 1 : self._next]


def pick(scores: torch.Tensor, uniforms: torch.Tensor | None) -> torch.LongTensor:
    """The index `(batch,)` that `uniforms` `(batch, 1)` pick from `scores` `(batch, choices)`; the best without any.

    Nothing is read back from the device.
    """
    if uniforms is None:
        return scores.argmax(-1)
    cumulative = scores.softmax(-1).cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding must not reach the total itself: choices of zero probability may stand at the end.
    point = torch.minimum(uniforms * total, total * (1 - 1e-6))
    return torch.searchsorted(cumulative, point, right=True).squeeze(-1)


__all__ = ["RowSampler", "pick"]
