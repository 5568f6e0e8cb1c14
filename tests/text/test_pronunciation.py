"""Words to phonemes: the lexicon, its rules and its file."""

import pytest

from tts_models.text.numbers import spell_out_numbers
from tts_models.text.pronunciation import PHONEMES, PronunciationLexicon


@pytest.fixture
def lexicon() -> PronunciationLexicon:
    words = {"the": "dh ax", "cat": "k ae t", "dog": "d ao g", "horse": "hh ao r s", "isn't": "ih z ax n t"}
    words |= {"one": "w ah n", "two": "t uw", "apple": "ae p ax l", "bathe": "b ey dh ax"}
    rules = {("", "a", ""): "ae", ("", "b", ""): "b", ("", "e", ""): "eh", ("", "e", "#"): "", ("", "t", ""): "t"}
    return PronunciationLexicon(words, rules)


@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("The cat.", "{dh}{ax} {k}{ae}{t}."),
        ("THE  CAT ,  the dog!", "{dh}{ax} {k}{ae}{t}, {dh}{ax} {d}{ao}{g}!"),
        ("cat's dog's horse's", "{k}{ae}{t}{s} {d}{ao}{g}{z} {hh}{ao}{r}{s}{ax}{z}"),
        ("the apple, the, apple", "{dh}{iy} {ae}{p}{ax}{l}, {dh}{ax}, {ae}{p}{ax}{l}"),
        ("bathe apple {dh}{ax} apple", "{b}{ey}{dh}{ax} {ae}{p}{ax}{l} {dh}{ax} {ae}{p}{ax}{l}"),
        ("isn’t", "{ih}{z}{ax}{n}{t}"),
        ("2", "{t}{uw}"),
        ("the-cat; dog", "{dh}{ax} {k}{ae}{t}, {d}{ao}{g}"),
        ("bate", "{b}{ae}{t}"),
        ("BBC", "{b}{iy}{b}{iy}{s}{iy}"),
        ("báte", "{b}{ae}{t}"),
        ("<laugh> the {k}{ae}{t}", "<laugh> {dh}{ax} {k}{ae}{t}"),
    ],
)
def test_phonemize(lexicon: PronunciationLexicon, text: str, phonemes: str) -> None:
    assert lexicon.phonemize(text) == phonemes


def test_file_round_trip_gives_the_same_bytes(lexicon: PronunciationLexicon, tmp_path) -> None:
    lexicon.save(tmp_path / "one.txt.gz")
    loaded = PronunciationLexicon.from_file(tmp_path / "one.txt.gz")
    loaded.save(tmp_path / "two.txt.gz")
    assert (loaded.words, loaded.rules) == (lexicon.words, lexicon.rules)
    assert (tmp_path / "one.txt.gz").read_bytes() == (tmp_path / "two.txt.gz").read_bytes()


def test_a_file_that_is_no_lexicon_is_refused(tmp_path) -> None:
    (tmp_path / "lexicon.txt.gz").write_text("the dh ax")
    with pytest.raises(ValueError, match="lexicon"):
        PronunciationLexicon.from_file(tmp_path / "lexicon.txt.gz")


def test_shipped_lexicon_knows_everyday_words_and_guesses_others() -> None:
    from tts_models import DEFAULT_VOICE

    lexicon = PronunciationLexicon.from_file(DEFAULT_VOICE / "lexicon.txt.gz")
    assert len(lexicon.words) > 50_000
    assert lexicon.pronounce("hello") == ["hh", "ax", "l", "ow"]
    assert lexicon.pronounce("blorting") and set(lexicon.pronounce("blorting")) <= set(PHONEMES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("7 cats", "seven cats"),
        ("the 3rd", "the third"),
        ("1,250", "one thousand two hundred and fifty"),
        ("2.5", "two point five"),
        ("20%", "twenty percent"),
        ("$5", "five dollars"),
        ("in 7, 8", "in seven, eight"),
        ("none", "none"),
    ],
)
def test_numbers(text: str, words: str) -> None:
    assert spell_out_numbers(text) == words
