"""Angle-bracket tags in the text of a speaking model: which are known, which are control tokens in disguise."""

import re
from collections.abc import Callable, Collection
from functools import lru_cache


_TAG = re.compile(r"<[A-Za-z][\w -]*>")
_BRACKETED = re.compile(r"<[^<>]*>")


def find_tags(text: str) -> list[str]:
    """Every `<name>` of `text`, in order."""
    return _TAG.findall(text)


def neutralize_tokens(text: str, tokens: Collection[str]) -> str:
    """`text` with every occurrence of `tokens` broken by a blank after its first character.

    The words stay readable, but a tokenizer can no longer take them for its special tokens.

    Args:
        text: Text that must stay text.
        tokens: The tokens' strings, such as `<|eot_id|>`; a set makes thousands of them cheap.
    """
    text = _BRACKETED.sub(lambda match: _broken(match[0]) if match[0] in tokens else match[0], text)
    for token in _unbracketed(frozenset(tokens)):
        text = text.replace(token, _broken(token))
    return text


@lru_cache(maxsize=16)
def _unbracketed(tokens: frozenset[str]) -> tuple[str, ...]:
    """The tokens that are not a single `<…>`; found once, as a vocabulary holds tens of thousands of the others."""
    return tuple(sorted(token for token in tokens if not _BRACKETED.fullmatch(token)))


def _broken(token: str) -> str:
    return f"{token[0]} {token[1:]}"


def map_outside_tags(text: str, tags: Collection[str], function: Callable[[str], str]) -> str:
    """`text` with `function` applied to everything but the `tags`, which stay as they are, joined by single blanks."""
    pieces: list[str] = []
    position = 0
    for match in _TAG.finditer(text):
        if match[0] in tags:
            pieces += [function(text[position : match.start()].strip()), match[0]]
            position = match.end()
    pieces.append(function(text[position:].strip()))
    return " ".join(piece for piece in pieces if piece)


__all__ = ["find_tags", "map_outside_tags", "neutralize_tokens"]
