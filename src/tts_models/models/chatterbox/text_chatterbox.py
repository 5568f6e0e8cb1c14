# Copyright 2026 The tts_models authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Text of Chatterbox: punctuation as the models were trained with, and the multilingual model's steps by language.

Some languages need a package of their own. Without it their step is left out, with a warning: the text is then spoken
from its letters alone.
"""

import importlib
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from transformers.utils import logging


logger = logging.get_logger(__name__)

EMPTY_TEXT = "You need to add some text for me to talk."
LANGUAGES = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "he": "hebrew",
    "hi": "hindi",
    "it": "italian",
    "ja": "japanese",
    "ko": "korean",
    "ms": "malay",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ru": "russian",
    "sv": "swedish",
    "sw": "swahili",
    "tr": "turkish",
    "zh": "chinese",
}
"""Languages of the multilingual model: ISO code to name."""

# In this order: what one makes, the next may change.
_REPLACED = (
    ("...", ", "),
    ("…", ", "),
    (":", ","),
    (" - ", ", "),
    (";", ", "),
    ("—", "-"),
    ("–", "-"),
    (" ,", ","),
    ("“", '"'),
    ("”", '"'),
    ("‘", "'"),
    ("’", "'"),
)
_KEPT_BY_TURBO = ("...", " - ", ";")
_ENDS = (".", "!", "?", "-", ",")
_WIDE_ENDS = ("、", "，", "。", "？", "！")


def normalize_punctuation(text: str, variant: str = "english") -> str:
    """A text with the punctuation that the models know: a capital at the start, plain quotes and dashes, an end.

    Args:
        text: Any text; an empty one becomes a sentence that asks for one, as upstream has it.
        variant: `"english"`, `"multilingual"` (full-width ends count too) or `"turbo"` (fewer replacements).
    """
    if not text:
        return EMPTY_TEXT
    if text[0].islower():
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())
    for old, new in _REPLACED:
        if variant != "turbo" or old not in _KEPT_BY_TURBO:
            text = text.replace(old, new)
    text = text.rstrip(" ")
    ends = _ENDS + _WIDE_ENDS if variant == "multilingual" else _ENDS
    return text if text.endswith(ends) else f"{text}."


def language_code(language: str) -> str:
    """The ISO code of a language of the multilingual model.

    Args:
        language: A name or a code such as `"en"` or `"zh-CN"`, in any case.

    Raises:
        ValueError: an unknown language.
    """
    name = str(language).strip().lower()
    code = name.partition("-")[0].partition("_")[0]
    codes = {each: code for code, each in LANGUAGES.items()}
    if code in LANGUAGES:
        return code
    if name not in codes:
        known = ", ".join(f"{code} ({each})" for code, each in LANGUAGES.items())
        raise ValueError(f"`language` must be one of {known}; got {language!r}.")
    return codes[name]


def prepare_multilingual(text: str, language: str | None, cangjie: Mapping[str, str] | None = None) -> str:
    """A text as the multilingual tokenizer reads it, blanks still blanks.

    Args:
        text: Text with its punctuation normalised.
        language: ISO code; `None` leaves the language's step and mark out.
        cangjie: Characters to their codes, for Chinese (see [`cangjie_codes`]).
    """
    text = unicodedata.normalize("NFKD", text.lower())
    if language is None:
        return text
    if language == "zh":
        text = chinese_codes(text, cangjie)
    elif language in _STEPS:
        text = _STEPS[language](text)
    return f"[{language}]{text}"


@lru_cache(maxsize=8)
def _load(package: str, attribute: str, language: str) -> Any:
    """`attribute` of an optional package, `None` with a warning where it is missing."""
    try:
        return getattr(importlib.import_module(package), attribute)
    except ImportError:
        name = package.partition(".")[0]
        logger.warning(
            f"{language} text is spoken without its usual preparation, as the package {name!r} is not installed."
        )
        return None


@lru_cache(maxsize=8)
def _instance(package: str, attribute: str, language: str) -> Any:
    """An object of an optional package's class, built once; `None` where the package is missing."""
    factory = _load(package, attribute, language)
    return None if factory is None else factory()


def korean_letters(text: str) -> str:
    """Hangul syllables as their letters (Jamo)."""
    return "".join(map(_jamo, text)).strip()


def _jamo(character: str) -> str:
    place = ord(character) - 0xAC00
    if not 0 <= place <= 0xD7AF - 0xAC00:
        return character
    first, rest = divmod(place, 21 * 28)
    middle, last = divmod(rest, 28)
    return chr(0x1100 + first) + chr(0x1161 + middle) + (chr(0x11A7 + last) if last else "")


def _japanese(text: str) -> str:
    """Kanji as hiragana; words read with a leading は or へ get a blank before them."""
    converter = _instance("pykakasi", "kakasi", "Japanese")
    if converter is None:
        return text
    words = []
    for word in converter.convert(text):
        original, reading = word["orig"], word["hira"]
        if not any("\u4e00" <= character <= "\u9fff" for character in original):
            words.append(original)
        else:
            words.append(f" {reading}" if reading[:1] in ("は", "へ") else reading)
    return unicodedata.normalize("NFKD", "".join(words))


def _hebrew(text: str) -> str:
    """With vowel points."""
    dicta = _instance("dicta_onnx", "Dicta", "Hebrew")
    return text if dicta is None else dicta.add_diacritics(text)


def _russian(text: str) -> str:
    """With stress marks."""
    stresser = _instance("russian_text_stresser.text_stresser", "RussianTextStresser", "Russian")
    return text if stresser is None else stresser.stress_text(text)


_STEPS: dict[str, Callable[[str], str]] = {
    "ja": _japanese,
    "he": _hebrew,
    "ko": korean_letters,
    "ru": _russian,
}


def cangjie_codes(entries: list[str]) -> dict[str, str]:
    """Characters to Cangjie codes; those that share one are numbered.

    Args:
        entries: Lines of the released table, character and code with a tab between them.
    """
    codes: dict[str, str] = {}
    shared: dict[str, list[str]] = {}
    for entry in entries:
        character, code = entry.split("\t")[:2]
        codes[character] = code
        shared.setdefault(code, []).append(character)
    places = {character: shared[code].index(character) for character, code in codes.items()}
    return {
        character: code + (str(places[character]) if places[character] else "") for character, code in codes.items()
    }


def chinese_codes(text: str, cangjie: Mapping[str, str] | None) -> str:
    """Chinese characters as Cangjie tokens, with blanks between words.

    Args:
        text: The text.
        cangjie: Characters to codes; without it the characters stay.
    """
    segmenter = _instance("spacy_pkuseg", "pkuseg", "Chinese")
    if segmenter is not None:
        text = " ".join(segmenter.cut(text))
    if not cangjie:
        logger.warning_once("The processor has no Cangjie table: Chinese characters are read as they are.")
        return text
    return "".join(_cangjie_tokens(character, cangjie) for character in text)


def _cangjie_tokens(character: str, cangjie: Mapping[str, str]) -> str:
    if unicodedata.category(character) != "Lo" or character not in cangjie:
        return character
    return "".join(f"[cj_{letter}]" for letter in cangjie[character]) + "[cj_.]"


__all__ = [
    "EMPTY_TEXT",
    "LANGUAGES",
    "cangjie_codes",
    "chinese_codes",
    "korean_letters",
    "language_code",
    "normalize_punctuation",
    "prepare_multilingual",
]
