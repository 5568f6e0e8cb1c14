"""Text handling that every speaking model shares: cleaning, normalising, splitting into parts, tags, dialogues."""

from .chinese import contains_chinese
from .cleaning import clean_text
from .dialogue import DialogueLine, parse_dialogue
from .normalization import normalize_text
from .splitting import split_sentences, split_text
from .tags import find_tags, map_outside_tags, neutralize_tokens
from .token_windows import split_by_tokens


__all__ = [
    "DialogueLine",
    "clean_text",
    "contains_chinese",
    "find_tags",
    "map_outside_tags",
    "neutralize_tokens",
    "normalize_text",
    "parse_dialogue",
    "split_by_tokens",
    "split_sentences",
    "split_text",
]
