"""Dates, numbers, money and units of Chinese and English text as words, by the rules of WeTextProcessing."""

import logging
import re
from collections.abc import Callable
from functools import lru_cache

from .chinese import spell_out_chinese_numbers
from .numbers import spell_out_numbers


logger = logging.getLogger(__name__)

LANGUAGES = ("en", "zh")
# How the rules say that they have no reading of a text.
_FAILURES = (AssertionError, RuntimeError, ValueError)
# What the rules of the package `wetext` read otherwise than WeTextProcessing's for English.
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SMALL_NUMBERS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
).split()
_DATE_COMMA = re.compile(
    r"(?<= of )(january|february|march|april|may|june|july|august|september|october|november|december),(?= )"
)
_ASCII_RUN = re.compile(r"[\x20-\x7e]+")
_DECADE = re.compile(r"\b(1[1-9]\d0|20\d0)s\b")
_THOUSAND = re.compile(r"(\w+ )?\bthousand\b")
_HUNDREDS = re.compile(rf"\bhundred (?=(?:{'|'.join(_SMALL_NUMBERS)})\b)")
_FULL_WIDTH = {0xFF01 + offset: 0x21 + offset for offset in range(94)} | {0x3000: 0x20, 0x3002: 0x2E}


@lru_cache(maxsize=2)
def _original_normalizer(language: str) -> Callable[[str], str] | None:
    """The rules of WeTextProcessing itself as it comes, `None` where it is not installed."""
    try:
        if language == "en":
            from tn.english.normalizer import Normalizer
        else:
            from tn.chinese.normalizer import Normalizer
    except ImportError:
        return None
    # It tells of every file it opens, through a logger of its own.
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        return Normalizer(overwrite_cache=False).normalize
    finally:
        logging.disable(disabled)


@lru_cache(maxsize=8)
def _wetext_normalizer(language: str, remove_erhua: bool, remove_interjections: bool) -> Callable[[str], str] | None:
    """The rules of `wetext`, `None` where it is not installed."""
    try:
        from wetext import Normalizer
    except ImportError:
        return None
    if language == "en":
        return Normalizer(lang="en", operator="tn").normalize
    return Normalizer(
        lang="zh",
        operator="tn",
        full_to_half=True,
        remove_erhua=remove_erhua,
        remove_interjections=remove_interjections,
    ).normalize


def normalize_text(text: str, language: str, remove_erhua: bool = False, remove_interjections: bool = False) -> str:
    """`text` with dates, times, numbers, money and units as words.

    The rules are WeTextProcessing's: its own where it is installed (for Chinese only with `remove_erhua` and
    `remove_interjections`, which it comes with), else those of the light package `wetext` (the extra `text`), which
    reads some things otherwise. Without both, only whole numbers, decimals and per cents (in English also ordinals and
    $, £, €) are spelled out, and a warning says so once.

    Args:
        text: Any text.
        language: `"zh"`, which also turns full-width punctuation into half-width, or `"en"`.
        remove_erhua: Whether 儿 at the end of Chinese words is left out.
        remove_interjections: Whether Chinese interjections such as 啊 are left out.

    Raises:
        ValueError: another language.
    """
    if language not in LANGUAGES:
        raise ValueError(f"`language` must be one of {', '.join(LANGUAGES)}; got {language!r}.")
    original = _original_normalizer(language) if language == "en" or (remove_erhua and remove_interjections) else None
    if original is not None:
        return _by_rules(original, text)
    normalize = _wetext_normalizer(language, remove_erhua, remove_interjections)
    if normalize is None:
        return _normalize_plainly(text, language)
    spoken = text.strip()
    if language == "zh":
        start = text.index(spoken)
        return text[:start] + _by_rules(normalize, spoken) + text[start + len(spoken) :] if spoken else text
    plain = _DECADE.sub(lambda match: _plural(normalize(match[1])), " ".join(_THOUSANDS.sub("", spoken).split()))
    return _correct_english(spoken, _by_rules(normalize, plain))


def _by_rules(normalize: Callable[[str], str], text: str) -> str:
    """`normalize(text)`; where the rules fail on a mixture of scripts, the ASCII runs of it are normalised alone."""
    try:
        return normalize(text).replace('\\"', '"')
    except _FAILURES:
        return _ASCII_RUN.sub(lambda match: _leniently(normalize, match[0]), text)


def _leniently(normalize: Callable[[str], str], text: str) -> str:
    """As [`_by_rules`], for one run of ASCII: left as it is where the rules fail."""
    spoken = text.strip()
    try:
        return text.replace(spoken, normalize(spoken)) if spoken else text
    except _FAILURES:
        return text


def _plural(words: str) -> str:
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def _correct_english(text: str, spoken: str) -> str:
    """What `wetext` says of English `text`, with what WeTextProcessing says otherwise."""
    if "thousand" not in text.lower():
        spoken = _THOUSAND.sub(_with_count, spoken)
    return _DATE_COMMA.sub(r"\1 ,", _HUNDREDS.sub("hundred and ", spoken))


def _with_count(match: re.Match) -> str:
    """A thousand with how many; `wetext` leaves out the one."""
    before = match[1] or ""
    return match[0] if before.strip() in ("hundred", *_SMALL_NUMBERS) else f"{before}one thousand"


def _normalize_plainly(text: str, language: str) -> str:
    if any(character.isdigit() for character in text):
        _warn_of_plain_rules()
    return spell_out_numbers(text) if language == "en" else spell_out_chinese_numbers(text.translate(_FULL_WIDTH))


@lru_cache(maxsize=1)
def _warn_of_plain_rules() -> None:
    logger.warning(
        "The package `wetext` is not installed (the extra `text`): numbers are spelled out, but dates, times, "
        "telephone numbers, fractions, units and abbreviations are left as they are written."
    )


__all__ = ["LANGUAGES", "normalize_text"]
