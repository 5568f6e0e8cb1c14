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
"""Texts for MegaTTS3: which language, cut into parts that it can speak, as upstream cuts them."""

import re

from ...text import contains_chinese, split_text
from ...text.chinese import count_chinese


LANGUAGES = {"en": "en", "english": "en", "zh": "zh", "chinese": "zh", "mandarin": "zh"}
_SENTENCE_END = re.compile(r"(?<=[;:,.!?])\s+|(?<=[；：，。！？])")
# Marks at which Chinese text is cut, the best first.
_MARKS = ("。.！!？?", "，,；;：", "、…—-~～")
_FULL_WIDTH = str.maketrans(".,!?;:", "。，！？；：")


def language_code(language: str | None, text: str) -> str:
    """`"en"` or `"zh"`: as given, else Chinese if there is a Chinese character in the text.

    Args:
        language: Name or ISO code, also with a region (`"zh-CN"`), or `None`.
        text: What is to be said.

    Raises:
        ValueError: another language.
    """
    if language is None:
        return "zh" if contains_chinese(text) else "en"
    code = LANGUAGES.get(re.split("[-_]", language.lower())[0])
    if code is None:
        raise ValueError(f"`language` must be one of {', '.join(LANGUAGES)}; got {language!r}.")
    return code


def chunk_english(text: str, max_bytes: int = 130) -> list[str]:
    """Parts of English text, cut after punctuation.

    Args:
        text: Normalised text.
        max_bytes: UTF-8 bytes up to which sentences and clauses are joined; a longer one stays whole.
    """
    parts, current = [], ""
    for sentence in _SENTENCE_END.split(text):
        # A blank follows what ends in ASCII.
        spaced = f"{sentence} " if sentence and ord(sentence[-1]) < 128 else sentence
        if len(f"{current}{sentence}".encode()) <= max_bytes:
            current += spaced
        else:
            parts += [current.strip()] if current else []
            current = spaced
    return [*parts, current.strip()] if current else parts


def chunk_chinese(text: str, limit: int = 60, look_ahead: int = 30) -> list[str]:
    """Parts of Chinese text, cut at the best mark near `limit` Chinese characters; its marks become full-width.

    Args:
        text: Normalised text.
        limit: Chinese characters after which a mark is looked for.
        look_ahead: How far ahead of that a mark is looked for, before the part itself is searched backwards.
    """
    parts, start, place = [], 0, 0
    count = 0
    while place < len(text):
        count += contains_chinese(text[place])
        if count >= limit:
            cut = _find_cut(text, start, place, look_ahead)
            parts.append(text[start:cut])
            start, place = cut, max(place, cut - 1)
            count = count_chinese(text[start : place + 1])
        place += 1
    parts += [text[start:]] if start < len(text) else []
    return [part.translate(_FULL_WIDTH) for part in parts]


def _find_cut(text: str, start: int, place: int, look_ahead: int) -> int:
    """Where the part `text[start:]` ends, of which `text[place]` is the last character within the limit."""
    ahead = range(place + 1, place + min(look_ahead, len(text) - place))
    back = range(place, start - 1, -1)
    for marks in _MARKS:
        for positions in (ahead, back):
            for position in positions:
                if text[position] in marks:
                    return position + 1
    return place + 1


def split_parts(text: str, language: str, max_characters: int = 400) -> list[str]:
    """Parts of a normalised text that hold something to say.

    Args:
        text: Normalised text.
        language: `"en"` or `"zh"`.
        max_characters: A part that is longer, as text without punctuation is, is cut between words or inside them.
            Upstream leaves it whole, and its models go astray.
    """
    chunks = chunk_chinese(text) if language == "zh" else chunk_english(text)
    parts = []
    for chunk in chunks:
        parts += [chunk] if len(chunk) <= max_characters else split_text(chunk, max_characters)
    return [part for part in parts if any(character.isalnum() for character in part)]


__all__ = ["chunk_chinese", "chunk_english", "language_code", "split_parts"]
