"""Texts spelt as a synthesizer spoke them: which phonemes, and when each ends."""

import re
from difflib import SequenceMatcher

from tts_models.text.pronunciation import PronunciationLexicon


PHONEME = re.compile(r"\{([a-z]+)\}")


def parse_segments(segments: str) -> list[tuple[str, float]]:
    """Phonemes and their ends in seconds from what `flite -psdur` prints, `pau:0.220 hh:0.274 …`, without pauses."""
    pairs = (segment.rpartition(":") for segment in segments.split())
    return [(phoneme, float(end)) for phoneme, _, end in pairs if phoneme != "pau"]


def spell_as_spoken(text: str, segments: str, lexicon: PronunciationLexicon) -> tuple[str, list[float]]:
    """
    The phonemes in braces that were really spoken, with the text's words and punctuation, and the end of each.

    A lexicon says how a word sounds alone; in a sentence flite may reduce it or link it to the next. A model that
    learns from what was spoken learns one sound for each symbol.
    """
    spoken = parse_segments(segments)
    words = lexicon.phonemize(text).split()
    expected = [(phoneme, number) for number, word in enumerate(words) for phoneme in PHONEME.findall(word)]
    matcher = SequenceMatcher(None, [phoneme for phoneme, _ in expected], [phoneme for phoneme, _ in spoken], False)
    spelt: list[str] = [""] * len(words)
    for _, start, end, spoken_start, spoken_end in matcher.get_opcodes():
        for i in range(spoken_start, spoken_end):
            place = start + (i - spoken_start) * (end - start) // (spoken_end - spoken_start)
            number = expected[min(place, len(expected) - 1)][1]
            spelt[number] += f"{{{spoken[i][0]}}}"
    words = [phonemes + PHONEME.sub("", word) for phonemes, word in zip(spelt, words, strict=True)]
    return " ".join(word for word in words if word), [end for _, end in spoken]
