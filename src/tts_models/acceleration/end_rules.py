"""What a round of a token loop brought, and when the rows of a batch end."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class TokenStep:
    """What one round of the loop brought.

    Args:
        tokens: The new id of each row that got one; no row gets its end.
        ended: Rows that are complete after this round, and why (`"stop"` or `"length"`).
    """

    tokens: dict[int, int]
    ended: dict[int, str] = field(default_factory=dict)


class EndRules:
    """When rows end.

    Args:
        end_token_id: Ends a row.
        limits: The most ids of each row, the end included.

    Attributes:
        picked: The ids so far, one list per row, the end included.
    """

    def __init__(self, end_token_id: int, limits: Sequence[int]) -> None:
        self.end_token_id, self.limits = end_token_id, list(limits)
        self.picked: list[list[int]] = [[] for _ in self.limits]

    def take(self, rows: Sequence[int], tokens: Sequence[int]) -> TokenStep:
        """Sort the new ids of `rows` into speech and ends."""
        step = TokenStep({})
        for row, token in zip(rows, tokens, strict=True):
            self.picked[row].append(token)
            if token == self.end_token_id:
                step.ended[row] = "stop"
                continue
            step.tokens[row] = token
            if len(self.picked[row]) >= self.limits[row]:
                step.ended[row] = "length"
        return step


__all__ = ["EndRules", "TokenStep"]
