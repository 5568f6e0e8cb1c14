"""Splitting by numbers of tokens."""

import pytest

from tts_models.text import split_by_tokens
from tts_models.text.token_windows import is_only_punctuation, tidy_chinese


def words(text: str) -> int:
    return len(text.split())


def test_sentences_are_joined_up_to_the_window() -> None:
    text = "One two. Three four five. Six. " + "long " * 7 + "end. !? Last one."
    assert split_by_tokens(text, words, window_size=5, length_threshold=3) == [
        " One two. Three four five.",
        "Six.",
        ("long " * 7 + "end."),
        " ! ? Last one.",
    ]


def test_short_texts_stay_whole() -> None:
    assert split_by_tokens(" One. Two. ", words) == ["One. Two."]
    assert split_by_tokens("好", len) == ["好。"]


def test_chinese_is_tidied_and_joined_without_blanks() -> None:
    assert tidy_chinese("（三）10²\n米 - 好——吗，,") == "三10平方米，好 吗。"
    assert split_by_tokens("一二。三四。五六。", len, window_size=6, length_threshold=4) == ["一二。三四。", "五六。"]


def test_own_splitter_and_punctuation() -> None:
    assert split_by_tokens("a-b-…-c", len, 1, 1, split=lambda text: text.split("-")) == [" a", "b", "c"]
    assert is_only_punctuation("") and is_only_punctuation("。$+") and not is_only_punctuation("— ")


def test_windows_of_nothing_split_everything() -> None:
    text = "Yes. No."
    assert split_by_tokens(text, words, length_threshold=0) == [" Yes. No."]
    assert split_by_tokens(text, words, window_size=0, length_threshold=0) == ["Yes.", "No."]


@pytest.mark.parametrize("name", ["window_size", "length_threshold"])
def test_windows_must_not_be_negative(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        split_by_tokens("a", len, **{name: -1})
