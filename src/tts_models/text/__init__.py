"""Text handling that every speaking model shares: cleaning, splitting into parts that one pass can speak, tags."""

from .cleaning import clean_text
from .splitting import split_sentences, split_text
from .tags import find_tags, map_outside_tags, neutralize_tokens


__all__ = ["clean_text", "find_tags", "map_outside_tags", "neutralize_tokens", "split_sentences", "split_text"]
