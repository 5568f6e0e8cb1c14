"""Make the pronunciation lexicon of the default voice from word lists, through flite's own lexicon and rules.

    apt-get install flite scowl wordnet-base
    python examples/default_voice/make_lexicon.py --output lexicon.txt.gz

Words: SCOWL (Debian package `scowl`) up to size 50 without possessives, and all words of the training sentences.
"""

import argparse
import collections
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from make_speech_data import wordnet_examples

from tts_models.text.pronunciation import CONTEXT, PHONEMES, PronunciationLexicon


WORD = re.compile(r"[a-z']+")
SILENT_LIMIT = 3
"""Phonemes that one letter may stand for ("x" is two, "u" in "usual" is two)."""


def read_words(scowl: Path, wordnet: Path) -> list[str]:
    words = {word for text in wordnet_examples(wordnet) for word in WORD.findall(text.lower())}
    for size in (10, 20, 35, 40, 50):
        for kind in ("words", "contractions", "upper", "proper-names"):
            for dialect in ("english", "american"):
                path = scowl / f"{dialect}-{kind}.{size}"
                if path.exists():
                    words.update(path.read_text(encoding="latin-1").lower().split())
    # Possessives follow a rule, see `PronunciationLexicon.pronounce`.
    return sorted(word for word in words if WORD.fullmatch(word) and word.strip("'") and not word.endswith("'s"))


def transcribe(words: list[str], voice: str) -> list[list[str]]:
    """Phonemes of each word: one call for all, and one call a word where the pauses do not separate as many."""
    command = ["flite", "-voice", voice, "-ps", "-t", ", ".join(words), "none"]
    result = subprocess.run(command, capture_output=True, check=True)
    groups = [group.split() for group in result.stdout.decode().split("pau") if group.split()]
    if len(groups) == len(words):
        return groups
    if len(words) == 1:
        return [[phoneme for group in groups for phoneme in group]]
    return [transcription for word in words for transcription in transcribe([word], voice)]


def transcribe_all(words: list[str], voice: str, workers: int) -> dict[str, list[str]]:
    batches = [words[i : i + 40] for i in range(0, len(words), 40)]
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda batch: zip(batch, transcribe(batch, voice), strict=True), batches)
        return {word: phonemes for batch in results for word, phonemes in batch}


def align(word: str, phonemes: list[str], scores: dict) -> list[tuple[str, tuple[str, ...]]]:
    """The most likely split of a word's phonemes over its letters, none to three a letter."""
    best = {(0, 0): (0.0, None)}
    for i, letter in enumerate(word):
        for j in range(len(phonemes) + 1):
            if (i, j) not in best:
                continue
            for count in range(min(SILENT_LIMIT, len(phonemes) - j) + 1):
                score = best[i, j][0] + scores[letter, tuple(phonemes[j : j + count])]
                if (i + 1, j + count) not in best or score > best[i + 1, j + count][0]:
                    best[i + 1, j + count] = (score, j)
    if (len(word), len(phonemes)) not in best:
        return []
    pairs, j = [], len(phonemes)
    for i in range(len(word), 0, -1):
        start = best[i, j][1]
        pairs.append((word[i - 1], tuple(phonemes[start:j])))
        j = start
    return pairs[::-1]


def learn_alignments(lexicon: dict[str, str], rounds: int = 5) -> list[list[tuple[str, tuple[str, ...]]]]:
    import math

    scores = collections.defaultdict(lambda: -8.0)
    for (letter, phoneme), value in {("b", "b"): 0, ("d", "d"): 0, ("f", "f"): 0, ("k", "k"): 0, ("l", "l"): 0,
                                     ("m", "m"): 0, ("n", "n"): 0, ("p", "p"): 0, ("r", "r"): 0, ("s", "s"): 0,
                                     ("t", "t"): 0, ("v", "v"): 0, ("z", "z"): 0}.items():  # fmt: skip
        scores[letter, (phoneme,)] = value
    aligned = []
    for _ in range(rounds):
        aligned = [align(word, phonemes.split(), scores) for word, phonemes in lexicon.items()]
        counts = collections.Counter(pair for pairs in aligned for pair in pairs)
        totals = collections.Counter()
        for (letter, _chunk), count in counts.items():
            totals[letter] += count
        scores = collections.defaultdict(lambda: -20.0)
        for (letter, chunk), count in counts.items():
            scores[letter, chunk] = math.log(count / totals[letter])
    return aligned


def learn_rules(lexicon: dict[str, str], most: int) -> dict[tuple[str, str, str], str]:
    """Letter-to-sound rules: widen the context of a letter wherever the narrower rule is often wrong."""
    words = {word: phonemes for word, phonemes in lexicon.items() if "'" not in word}
    tables = [collections.defaultdict(collections.Counter) for _ in range(2 * CONTEXT + 1)]
    for pairs in learn_alignments(words):
        padded = "#" * CONTEXT + "".join(letter for letter, _ in pairs) + "#" * CONTEXT
        for i, (letter, chunk) in enumerate(pairs):
            centre = i + CONTEXT
            for width, table in enumerate(tables):
                left, right = width // 2, width - width // 2
                table[padded[centre - left : centre], letter, padded[centre + 1 : centre + 1 + right]][chunk] += 1
    rules, gains = {}, {}
    for width, table in enumerate(tables):
        for (left, letter, right), counts in table.items():
            chunk, count = counts.most_common(1)[0]
            narrower = tables[width - 1].get((left[len(left) - (width - 1) // 2 :], letter, right[: width // 2]), {})
            usual = max(narrower, key=narrower.get) if narrower else None
            if usual != chunk:
                rules[left, letter, right] = " ".join(chunk)
                gains[left, letter, right] = count - counts.get(usual, 0) if usual else 10**9
    kept = sorted(rules, key=lambda key: -gains[key])[:most]
    return {key: rules[key] for key in kept if gains[key] > 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scowl", type=Path, default=Path("/usr/share/dict/scowl"))
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--rules", type=int, default=20000, help="letter-to-sound rules kept at most")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    words = read_words(args.scowl, args.wordnet)
    # The small diphone voice is several times faster, but has no "ah" of its own: it says "aa".
    transcriptions = transcribe_all(words, "kal", args.workers)
    doubtful = [word for word, phonemes in transcriptions.items() if "aa" in phonemes]
    transcriptions |= transcribe_all(doubtful, "slt", args.workers)
    lexicon = {
        word: " ".join(phonemes)
        for word, phonemes in transcriptions.items()
        if phonemes and set(phonemes) <= set(PHONEMES)
    }
    lexicon["a"] = "ax"  # alone, flite reads it as the letter; in a sentence it is the article
    PronunciationLexicon(lexicon, learn_rules(lexicon, args.rules)).save(args.output)
    print(f"{len(lexicon)} words in {args.output}")


if __name__ == "__main__":
    main()
