"""Dialogue with a role before each line: `<role:Anna,speed:high>Hello! <role:Ben>Good evening.`"""

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass


logger = logging.getLogger(__name__)

LEVELS = ("very_low", "low", "moderate", "high", "very_high")
_ROLE = re.compile(r"<role:([^,>]+)(?:,pitch:([^,>]+))?(?:,speed:([^,>]+))?>")
# From these numbers on, a speed or pitch has the level; 1 is moderate.
_LEVEL_STARTS = (("very_high", 3.0), ("high", 2.0), ("moderate", 1.0))


@dataclass(frozen=True)
class DialogueLine:
    """
    A line of a dialogue.

    Args:
        name (`str`): Who speaks.
        text (`str`): What is said, stripped and not empty.
        pitch (`str`, *optional*): One of `LEVELS`; empty where the role's pitch is written with blanks only.
        speed (`str`, *optional*): One of `LEVELS`, or empty in the same way.
    """

    name: str
    text: str
    pitch: str | None = None
    speed: str | None = None


def parse_dialogue(text: str, speakers: Collection[str]) -> list[DialogueLine]:
    """The lines of a dialogue, in order.

    A role is `<role:Name>`, `<role:Name,pitch:high>`, `<role:Name,speed:low>` or both, pitch first. What stands before
    the first role and empty lines are left out; so are, with a warning, the lines of speakers that are not known, and
    levels that are none of `LEVELS`.

    Args:
        text: The dialogue.
        speakers: Known names; upper and lower case differ.
    """
    _, *pieces = _ROLE.split(text)
    lines = []
    for name, pitch, speed, spoken in zip(*(pieces[place::4] for place in range(4)), strict=True):
        name, spoken = name.strip(), spoken.strip()
        if name not in speakers:
            logger.warning("The dialogue names %r, who is none of %s: the line is left out.", name, sorted(speakers))
        elif spoken:
            lines.append(DialogueLine(name, spoken, _level("pitch", pitch), _level("speed", speed)))
    return lines


def _level(attribute: str, value: str | None) -> str | None:
    if value is None:
        return None
    value = value.strip()
    if value and value not in LEVELS:
        logger.warning("`%s` must be one of %s; got %r, which is left out.", attribute, ", ".join(LEVELS), value)
        return None
    return value


def level_of(factor: float) -> str:
    """The level of a speed or pitch given as a number: 1 is moderate, 0.5 very low, 3 very high."""
    for level, start in _LEVEL_STARTS:
        if factor >= start:
            return level
    return "very_low" if factor <= 0.5 else "low"


__all__ = ["LEVELS", "DialogueLine", "level_of", "parse_dialogue"]
