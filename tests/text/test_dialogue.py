"""Dialogues with roles, and levels of speed and pitch."""

from tts_models.text import DialogueLine, parse_dialogue
from tts_models.text.dialogue import level_of


def test_lines_belong_to_their_roles(caplog) -> None:
    text = "Before. <role:Anna>Hello!<role: Ben ,pitch:high,speed:low> Good\nevening. <role:Carl>Skipped.<role:Anna> "
    assert parse_dialogue(text, ["Anna", "Ben"]) == [
        DialogueLine("Anna", "Hello!"),
        DialogueLine("Ben", "Good\nevening.", "high", "low"),
    ]
    assert "Carl" in caplog.text


def test_levels_that_do_not_exist_are_left_out(caplog) -> None:
    assert parse_dialogue("<role:A,pitch:loud,speed:high>x", ["A"]) == [DialogueLine("A", "x", None, "high")]
    assert "loud" in caplog.text


def test_a_blank_level_is_empty_and_a_missing_one_none() -> None:
    assert parse_dialogue("<role:A,pitch: ,speed:\t>x<role:A,speed: low >y", ["A"]) == [
        DialogueLine("A", "x", "", ""),
        DialogueLine("A", "y", None, "low"),
    ]


def test_what_is_no_tag_stays_text() -> None:
    assert parse_dialogue("<role:A>1 < 2 <role:A,speed:low,pitch:high> 3", ["A"])[0].text.endswith("> 3")
    assert parse_dialogue("no tags", ["A"]) == parse_dialogue("", []) == []


def test_levels_of_numbers() -> None:
    assert [level_of(value) for value in (0.1, 0.5, 0.9, 1.0, 2.0, 3.5)] == [
        "very_low",
        "very_low",
        "low",
        "moderate",
        "high",
        "very_high",
    ]
