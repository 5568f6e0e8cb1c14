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
"""What is done to a text before it is tokenized."""

import re


# Typographic characters that the tokenizer's bytes do not cover, and what stands for them.
_REPLACEMENTS = str.maketrans(
    {
        **dict.fromkeys("\u1fef\u1ffd\u1ffe\u2018\u2019\u2032\u2035\u00b4", "'"),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015", "-"),
        **dict.fromkeys("\u201c\u201d\u201f\u2033\u2036", '"'),
        "\u2016": "||",
        "\u201a": ",",
        "\u201b": "`",
        "\u201e": ",,",
        "\u2024": ".",
        "\u2025": "..",
        "\u2026": "...",
        # Upstream keys the trade-mark sign by its hexadecimal number read as a decimal one, and so refuses it.
        "\u2122": "TM",
    }
)
_FIRST_UNKNOWN = 0x100


def normalize_text(text: str) -> str:
    """`text` in the characters that MetaVoice knows, those below U+0100, with single spaces.

    Raises:
        ValueError: there are other characters left; the message names them.
    """
    text = text.translate(_REPLACEMENTS)
    unknown = sorted({character for character in text if ord(character) >= _FIRST_UNKNOWN})
    if unknown:
        listed = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in unknown[:5])
        raise ValueError(f"`text` holds {listed}{' …' if len(unknown) > 5 else ''}; MetaVoice knows U+0000 to U+00FF.")
    return re.sub(r"\s\s+", " ", re.sub(r"[\t\n\r*]", " ", text).strip())


__all__ = ["normalize_text"]
