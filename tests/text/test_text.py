"""Cleaning, splitting and tags of text that will be spoken."""

import random
import string

import pytest

from tts_models.text import clean_text, find_tags, map_outside_tags, neutralize_tokens, split_sentences, split_text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a \t b\n\nc ", "a b c"),
        ("a\u200bb\u00adc\ufeff\x00d", "abcd"),
        ("naïve café, 你好 “quoted”", "naïve café, 你好 “quoted”"),
        ("\u0646\u200c\u0645", "\u0646\u200c\u0645"),  # a joiner that shapes letters stays
        ("\ud800a", "a"),  # a lone surrogate
        ("", ""),
    ],
)
def test_clean_text(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four…", ["One.", "Two!", "Three?", "Four…"]),
        ("Dr. Smith met Mr. J. R. Brown. They spoke.", ["Dr. Smith met Mr. J. R. Brown.", "They spoke."]),
        ("It costs 3.50 dollars. Fine.", ["It costs 3.50 dollars.", "Fine."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("First paragraph\n\nSecond one", ["First paragraph", "Second one"]),
        ("今日は。元気ですか？はい", ["今日は。", "元気ですか？", "はい"]),
        ("Fine. <laugh> That was good. <sigh>", ["Fine.", "<laugh> That was good. <sigh>"]),
        ("", []),
    ],
)
def test_split_sentences(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@pytest.mark.parametrize("max_characters", [1, 7, 40, 280])
def test_parts_hold_all_of_the_text_in_order(max_characters: int) -> None:
    generator = random.Random(max_characters)
    words = ["<laugh>", "and,", "stop.", "Really?", "well…", "“quoted”", "a" * 30, "it's", "3.5", "Dr.", "—", "<sigh>"]
    for _ in range(50):
        text = " ".join(generator.choices(words, k=generator.randint(1, 60)))
        parts = split_text(text, max_characters)
        assert "".join("".join(parts).split()) == "".join(text.split())
        for part in parts:
            assert len(part) <= max_characters or part in ("<laugh>", "<sigh>") or "<" in part
            assert part.count("<") == part.count(">")


def test_parts_end_at_sentences_where_they_can() -> None:
    text = "The first sentence is here. The second one is here. The third one."
    assert split_text(text, 55) == ["The first sentence is here. The second one is here.", "The third one."]
    long_sentence = "This clause is long enough, this one is as well, and so is the last"
    assert split_text(long_sentence, 50)[0] == "This clause is long enough, this one is as well,"


def test_splitting_terminates_quickly_on_anything() -> None:
    generator = random.Random(0)
    characters = string.printable + "…。？<>“”\u200b"
    for text in (
        "<" * 20_000,
        "." * 20_000,
        "a" * 20_000,
        "<a " * 7_000,
        "".join(generator.choices(characters, k=20_000)),
    ):
        assert all(part for part in split_text(text, 100))
    assert split_text("   ", 10) == []
    with pytest.raises(ValueError, match="max_characters"):
        split_text("a", 0)


def test_tokens_are_neutralized_and_stay_readable() -> None:
    tokens = {"<|eot_id|>", "<custom_token_4>"}
    broken = neutralize_tokens("a <|eot_id|> b <custom_token_4><laugh>", tokens)
    assert not any(token in broken for token in tokens)
    assert "eot_id" in broken and "<laugh>" in broken
    nested = neutralize_tokens("<custom_<custom_token_4>token_4>", tokens)
    assert "<custom_token_4>" not in nested


def test_tags() -> None:
    assert find_tags("a <laugh> b <not a tag? c> <sigh>") == ["<laugh>", "<sigh>"]
    assert map_outside_tags("one <laugh> two", ["<laugh>"], str.upper) == "ONE <laugh> TWO"
