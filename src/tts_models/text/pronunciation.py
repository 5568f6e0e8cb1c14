r"""Pronunciation of English text from a lexicon: words become ARPAbet symbols in braces, `{hh}{ax}{l}{ow}`.

The symbols are those of the CMU pronouncing dictionary without stress, in lower case, plus `ax` (schwa). In braces
they cannot be confused with letters, a tokenizer holds each as one token, and a user can spell out a word:
`I live in {w}{uh}{s}{t}{er}.`
"""

import gzip
import re
import unicodedata
from pathlib import Path

from ..files import written_whole
from .numbers import spell_out_numbers


PHONEMES = (
    "aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh".split()
)
_PHONEME = re.compile(rf"\{{(?:{'|'.join(PHONEMES)})\}}")
_TOKEN = re.compile(rf"(?:{_PHONEME.pattern})+|<[a-z_]+>|[a-z']+|[^a-z']")
_THE = re.compile(r"\{the\}(?P<vowel> (?=\{[aeiou]))?")
_PUNCTUATION = {";": ",", ":": ",", "–": ",", "—": ",", "…": ".", "(": ",", ")": ","}
_LETTERS = {
    "a": "ey", "b": "b iy", "c": "s iy", "d": "d iy", "e": "iy", "f": "eh f", "g": "jh iy", "h": "ey ch", "i": "ay",
    "j": "jh ey", "k": "k ey", "l": "eh l", "m": "eh m", "n": "eh n", "o": "ow", "p": "p iy", "q": "k y uw",
    "r": "aa r", "s": "eh s", "t": "t iy", "u": "y uw", "v": "v iy", "w": "d ah b ax l y uw", "x": "eh k s",
    "y": "w ay", "z": "z iy",
}  # fmt: skip
CONTEXT = 3
"""Letters on each side that a letter-to-sound rule may look at."""


class PronunciationLexicon:
    r"""
    A word list with pronunciations, and letter-to-sound rules for the words that are not in it.

    The file is gzip-compressed UTF-8 text: lines `word phoneme phoneme …`, an empty line, then the rules, lines
    `left letter right phoneme …` (`-` for an empty context, no phoneme for a silent letter). Of the rules that fit a
    letter in its word, the one with the longest context decides.

    Args:
        words (`dict[str, str]`): Lower-case word to its phonemes, separated by spaces.
        rules (`dict[tuple[str, str, str], str]`): Left context, letter and right context to phonemes.
    """

    def __init__(self, words: dict[str, str], rules: dict[tuple[str, str, str], str]):
        self.words, self.rules = words, rules

    @classmethod
    def from_file(cls, path: str | Path) -> "PronunciationLexicon":
        """Read a lexicon file.

        Raises:
            ValueError: if the file is not a lexicon.
        """
        try:
            words, _, rules = gzip.decompress(Path(path).read_bytes()).decode("utf-8").partition("\n\n")
        except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a pronunciation lexicon (gzip-compressed text).") from error
        entries = (line.partition(" ") for line in words.splitlines())
        split_rules = (line.split(" ", 3) for line in rules.splitlines())
        return cls(
            {word: phonemes for word, _, phonemes in entries},
            {(left.strip("-"), letter, right.strip("-")): phonemes for left, letter, right, phonemes in split_rules},
        )

    def save(self, path: str | Path) -> None:
        """Write the lexicon file; the same lexicon gives the same bytes."""
        words = "\n".join(f"{word} {phonemes}" for word, phonemes in sorted(self.words.items()))
        rules = "\n".join(
            f"{left or '-'} {letter} {right or '-'} {phonemes}"
            for (left, letter, right), phonemes in sorted(self.rules.items())
        )
        with written_whole(path) as temporary:
            temporary.write_bytes(gzip.compress(f"{words}\n\n{rules}".encode(), compresslevel=9, mtime=0))

    def phonemize(self, text: str) -> str:
        """Text with every word replaced by its phonemes, "the" before a vowel by that of "thee". Words stay separated
        by one space; commas, full stops, question and exclamation marks, `<tags>` and phonemes already in braces
        stay; other characters are dropped."""
        pieces = []
        letters = unicodedata.normalize("NFKD", spell_out_numbers(text).replace("’", "'").replace("-", " "))
        letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
        for token in _TOKEN.findall(letters.lower()):
            if _PHONEME.match(token) or token[0] == "<":
                pieces.append(token)
            elif token[0] == "'" or token[0].isalpha():
                pieces.append("{the}" if token == "the" else self._in_braces(token))
            else:
                pieces.append(_PUNCTUATION.get(token, token if token in ",.?!" else " "))
        phonemized = re.sub(r"\s+", " ", "".join(pieces)).strip()
        phonemized = _THE.sub(lambda the: "{dh}{iy} " if the["vowel"] else self._in_braces("the"), phonemized)
        return re.sub(r" (?=[,.?!])", "", phonemized)

    def _in_braces(self, word: str) -> str:
        return "".join(f"{{{phoneme}}}" for phoneme in self.pronounce(word))

    def pronounce(self, word: str) -> list[str]:
        """Phonemes of one lower-case word."""
        word = word.strip("'") if word not in self.words else word
        if word in self.words:
            return self.words[word].split()
        stem, _, ending = word.rpartition("'")
        if ending == "s" and stem:
            return self.pronounce(stem) + self._plural(self.pronounce(stem)[-1:])
        word = word.replace("'", "")
        if not re.search("[aeiouy]", word):
            return " ".join(_LETTERS.get(letter, "") for letter in word).split()
        return " ".join(self._letter_to_sound(word, i) for i in range(len(word))).split()

    @staticmethod
    def _plural(last: list[str]) -> list[str]:
        if last and last[0] in ("s", "z", "sh", "zh", "ch", "jh"):
            return ["ax", "z"]
        return ["s"] if last and last[0] in ("p", "t", "k", "f", "th") else ["z"]

    def _letter_to_sound(self, word: str, position: int) -> str:
        padded = f"{'#' * CONTEXT}{word}{'#' * CONTEXT}"
        centre = position + CONTEXT
        for width in range(2 * CONTEXT, -1, -1):
            left, right = width // 2, width - width // 2
            key = (padded[centre - left : centre], padded[centre], padded[centre + 1 : centre + 1 + right])
            if key in self.rules:
                return self.rules[key]
        return ""
