"""Removes what cannot be spoken and never was meant to be: control characters, invisible marks, runs of blanks."""

import re
import unicodedata


_BLANKS = re.compile(r"\s+")
# Zero-width joiners shape letters in several scripts, so they stay; other format characters are invisible.
_KEPT_FORMAT_CHARACTERS = "\u200c\u200d"


def is_invisible(character: str) -> bool:
    """Whether `character` is a control, format, private or unassigned code point and not white space."""
    if character.isspace() or character in _KEPT_FORMAT_CHARACTERS:
        return False
    return unicodedata.category(character).startswith("C")


def clean_text(text: str) -> str:
    """`text` without invisible characters, blanks collapsed to single spaces, stripped.

    Letters, punctuation and quotes are left as they are.
    """
    visible = text if text.isprintable() else "".join(c for c in text if not is_invisible(c))
    return _BLANKS.sub(" ", visible).strip()


__all__ = ["clean_text", "is_invisible"]
