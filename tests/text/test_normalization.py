"""Numbers and dates as words, with and without the rules of the extra."""

import pytest

from tts_models.text import normalization, normalize_text
from tts_models.text.chinese import read_digits, read_integer


@pytest.fixture
def without_rules(monkeypatch):
    monkeypatch.setattr(normalization, "_original_normalizer", lambda language: None)
    monkeypatch.setattr(normalization, "_wetext_normalizer", lambda *options: None)
    normalization._warn_of_plain_rules.cache_clear()


@pytest.fixture
def without_original(monkeypatch):
    monkeypatch.setattr(normalization, "_original_normalizer", lambda language: None)


def rules(language: str, function):
    """A stand-in for the extra that changes texts by `function`."""
    return lambda to, *options: function if to == language else None


def test_chinese_numbers() -> None:
    numbers = {
        "0": "零",
        "10": "十",
        "17": "十七",
        "20": "二十",
        "101": "一百零一",
        "110": "一百一十",
        "1001": "一千零一",
        "10000": "一万",
        "10010": "一万零一十",
        "100100": "十万零一百",
        "105000000": "一亿零五百万",
        "007": "七",
    }
    assert {digits: read_integer(digits) for digits in numbers} == numbers
    assert read_digits("2024") == "二零二四" and len(read_integer("1" * 17)) == 17


def test_plain_rules_say_what_they_leave(without_rules, caplog) -> None:
    assert normalize_text("Ａ３.５％，70。", "zh") == "A百分之三点五,七十."
    assert normalize_text("60%，3.5。", "zh") == "百分之六十,三点五."
    assert normalize_text("The 2nd of 3, $4.50.", "en") == "The second of three, four point five zero dollars."
    assert caplog.text.count("telephone") == 1


def test_other_languages_are_refused() -> None:
    with pytest.raises(ValueError, match="language"):
        normalize_text("Bonjour.", "fr")


def test_chinese_ends_keep_their_blanks(without_original, monkeypatch) -> None:
    monkeypatch.setattr(normalization, "_wetext_normalizer", rules("zh", str.upper))
    assert normalize_text(" a好 ", "zh") == " A好 " and normalize_text("  ", "zh") == "  "


def test_english_is_corrected(without_original, monkeypatch) -> None:
    said = {
        "1234 in it, 1990s": "thousand two hundred thirty four in it, nineties",
        "1990": "nineteen ninety",
        "1234 in it, nineteen nineties": "thousand two hundred thirty four of may, nineteen nineties",
    }
    monkeypatch.setattr(normalization, "_wetext_normalizer", rules("en", said.__getitem__))
    expected = "one thousand two hundred and thirty four of may , nineteen nineties"
    assert normalize_text(" 1,234  in it, 1990s", "en") == expected


def test_failing_rules_leave_the_rest(without_original, monkeypatch) -> None:
    def fail(text: str) -> str:
        assert text.isascii() and "!" not in text
        return text.replace("3", "three")

    monkeypatch.setattr(normalization, "_wetext_normalizer", rules("en", fail))
    assert normalize_text("好 3 a 好3! 好3", "en") == "好 three a 好3! 好three"


def test_original_rules_come_first() -> None:
    pytest.importorskip("tn")
    assert normalize_text('He said "hi" to 2,500 at 10km/h', "en").startswith('He said "hi" to two thousand five')
    as_upstream = {"remove_erhua": True, "remove_interjections": True}
    assert normalize_text("玩儿啊，x+y=10。", "zh", **as_upstream) == "玩,x加y等于十."
    assert normalize_text("玩儿啊。", "zh") == "玩儿啊."
    assert normalize_text("\n9", "en") == "\nnine"


def test_rules_of_the_extra(without_original) -> None:
    pytest.importorskip("wetext")
    assert normalize_text('He said "hi".', "en") == 'He said "hi".'
    assert normalize_text("第3名，1/3。", "zh") == "第三名,三分之一."
    assert normalize_text("It costs £1,234.56!", "en").startswith("It costs one thousand two hundred and thirty four")
    assert normalize_text("The 1990s", "en") == "The nineteen nineties"
    assert normalize_text("好啊", "zh") == "好啊" and normalize_text("好啊", "zh", remove_interjections=True) == "好"
