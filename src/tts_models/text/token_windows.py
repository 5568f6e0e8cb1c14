"""Cuts text into windows of a number of tokens, as the engine FlashTTS does."""

import re
import unicodedata
from collections.abc import Callable

from .chinese import contains_chinese


_SENTENCE_END = re.compile(r"(?<=[。？！；;.!?：:])")
_TRAILING_COMMAS = re.compile(r"[，,、]+$")
_ENDS = "。？！；：、.?!;"
# In order: each is replaced before the next is looked for.
_REPLACED = (
    ("\n", ""),
    ("²", "平方"),
    ("³", "立方"),
    (".", "。"),
    (" - ", "，"),
    *((mark, "") for mark in "（）【】`"),
)


def is_only_punctuation(text: str) -> bool:
    """Whether `text` holds nothing but punctuation and symbols, or nothing at all; a blank is neither."""
    return all(unicodedata.category(character)[0] in "PS" for character in text)


def tidy_chinese(text: str) -> str:
    """Chinese text without brackets and line breaks, with ² and ³ as words, ending in a mark; other text unchanged."""
    if not contains_chinese(text):
        return text
    for mark, replacement in _REPLACED:
        text = text.replace(mark, replacement)
    text = _TRAILING_COMMAS.sub("。", text.replace("——", " "))
    return text if text[-1] in _ENDS else f"{text}。"


def split_by_tokens(
    text: str,
    count_tokens: Callable[[str], int],
    window_size: int = 50,
    length_threshold: int = 50,
    split: Callable[[str], list[str]] | None = None,
) -> list[str]:
    """`text` in parts of at most `window_size` tokens where its sentences allow it.

    The rules, quirks included, are those of FlashTTS: a sentence ends after any of 。？！；;.!?：: (so inside 3.5 as
    well), one longer than the window stays whole, and parts of nothing but punctuation are left out.

    Args:
        text: Text to speak.
        count_tokens: The number of tokens of a text.
        window_size: Tokens up to which sentences are joined; 0 joins none.
        length_threshold: A text of at most so many tokens is not split; 0 splits every text.
        split: Splits into sentences instead.

    Raises:
        ValueError: `window_size` or `length_threshold` is negative.
    """
    for name, value in (("window_size", window_size), ("length_threshold", length_threshold)):
        if value < 0:
            raise ValueError(f"`{name}` must be at least 0; got {value}.")
    text = tidy_chinese(text.strip())
    if count_tokens(text) <= length_threshold:
        return [text]
    joiner = "" if contains_chinese(text) else " "
    sentences = _SENTENCE_END.split(text) if split is None else split(text)
    parts, current, size = [], "", 0
    for sentence in (each.strip() for each in sentences if each.strip()):
        length = count_tokens(sentence)
        if length > window_size:
            parts += [current, sentence]
            current, size = "", 0
        elif size + length > window_size:
            parts.append(current)
            current, size = sentence, length
        else:
            current, size = current + joiner + sentence, size + length
    return [part for part in [*parts, current] if not is_only_punctuation(part)]


__all__ = ["is_only_punctuation", "split_by_tokens", "tidy_chinese"]
