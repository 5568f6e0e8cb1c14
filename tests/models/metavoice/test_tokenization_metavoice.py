"""The tokenizer that is made of merge ranks, and what is done to a text before it."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.models.metavoice.tiny import PATTERN, tiny_ranks, tiny_tokenizer
from tts_models.models.metavoice.text_metavoice import normalize_text
from tts_models.models.metavoice.tokenization_metavoice import build_tokenizer, byte_characters


END = "<|endoftext|>"


def test_texts_come_back() -> None:
    tokenizer = tiny_tokenizer()
    for text in ("", " ", "Then the others, and on the re-run.", "caf\xe9 \xa35 \xf1\xff\x00", "tabs\tand\nlines  "):
        ids = tokenizer(text).input_ids
        assert ids[-1] == tokenizer.eos_token_id == len(tokenizer) - 1
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert ids[:-1] == tokenizer(text, add_special_tokens=False).input_ids


def test_every_byte_has_a_character() -> None:
    characters = byte_characters()
    assert len(set(characters.values())) == 256 and all(
        each.isprintable() and each != " " for each in characters.values()
    )


def test_a_written_special_token_stays_text(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    for tokenizer in (tiny_tokenizer(), AutoTokenizer.from_pretrained(tmp_path)):
        assert tokenizer(f"a{END}b").input_ids.count(tokenizer.eos_token_id) == 1
        assert tokenizer("Then the").input_ids == tiny_tokenizer()("Then the").input_ids


def test_ranks_that_make_no_tokenizer() -> None:
    ranks = tiny_ranks()
    with pytest.raises(ValueError, match="two tokens of lower rank"):
        build_tokenizer(PATTERN, ranks | {b"xyz": len(ranks)}, {END: len(ranks) + 1})
    with pytest.raises(ValueError, match="1 bytes are missing"):
        build_tokenizer(PATTERN, {token: rank for token, rank in ranks.items() if token != b"q"}, {END: len(ranks)})
    with pytest.raises(ValueError, match="every id once"):
        build_tokenizer(PATTERN, ranks, {END: len(ranks) + 4})
    with pytest.raises(ValueError, match="the end of text alone"):
        build_tokenizer(PATTERN, ranks, {})


def test_normalization() -> None:
    text = " \u201cA\u201d \u2014 it\u2019s\t*new*\u2026 5\u2122 "
    assert normalize_text(text) == '"A" - it\'s new ... 5TM'
    assert normalize_text("\xa0a\xa0b") == "a\xa0b"
    with pytest.raises(ValueError, match=r"U\+4F60.* MetaVoice knows U\+0000 to U\+00FF"):
        normalize_text("ok \u4f60\u597d")
