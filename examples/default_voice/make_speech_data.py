"""Make the synthetic speech that the default voice is trained on.

The sentences are the usage examples of WordNet 3.0 (Debian package `wordnet-base`), the speech is made by `flite`
(Debian package `flite`, voices slt and rms), mono, 16 kHz. Each sentence is spoken by one voice. Sentences of the
intelligibility benchmark are left out. `--words` adds short utterances of random words (Debian package `scowl`), from
which a model learns soonest which sound belongs to which symbol. The same seed gives the same files.

    apt-get install flite wordnet-base
    python examples/default_voice/make_speech_data.py --output data/default_voice --sentences 20000

Writes `OUTPUT/audio/<number>.wav` and `OUTPUT/metadata.csv` with lines `file|text|voice description`.
"""

import argparse
import csv
import random
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


VOICES = {"slt": ("female", "her", "woman", "lady", "girl"), "rms": ("male", "his", "man", "gentleman", "boy")}
"""flite voice to the words that describe it: adjective, possessive, nouns."""
QUALITIES = "clear calm warm bright soft friendly natural neutral pleasant serious gentle lively".split()
AGES = "20s 30s 40s 50s".split()
DESCRIPTION_STYLES = 3
HELD_OUT = Path(__file__).parents[2] / "benchmarks" / "intelligibility_sentences.txt"
EXAMPLE = re.compile(r'"([^"]+)"')
PLAIN = re.compile(r"[A-Za-z][A-Za-z' ,]*[?!.]?")


def normalise(sentence: str) -> str:
    """Lower case, letters and apostrophes only: what two sentences are compared by."""
    return " ".join(re.sub(r"[^a-z' ]", " ", sentence.lower()).split())


def wordnet_examples(folder: Path) -> Iterator[str]:
    """Yield the quoted usage examples of a WordNet database folder, cut at clauses, as sentences."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            _, _, gloss = line.partition(" | ")
            for example in EXAMPLE.findall(gloss):
                example = " ".join(example.replace("--", ",").split()).strip(" ,")
                if PLAIN.fullmatch(example):
                    example = example[0].upper() + example[1:]
                    yield example if example[-1] in ".?!" else example + "."


def select_sentences(folder: Path, count: int, shortest: int, longest: int, seed: int) -> list[str]:
    """`count` distinct sentences of `shortest` to `longest` characters, shuffled by `seed`, none of them held out."""
    held_out = {normalise(line) for line in HELD_OUT.read_text(encoding="utf-8").splitlines()}
    unique = {normalise(text): text for text in wordnet_examples(folder) if shortest <= len(text) <= longest}
    sentences = sorted(text for key, text in unique.items() if key not in held_out)
    random.Random(seed).shuffle(sentences)
    return sentences[:count]


def select_words(folder: Path, count: int, seed: int) -> list[str]:
    """`count` utterances of one to three common words of the SCOWL lists, in random order."""
    lists = [folder / f"english-words.{size}" for size in (10, 20, 35)]
    words = sorted({word for path in lists for word in path.read_text(encoding="latin-1").split() if word.isalpha()})
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.choice([1, 1, 2, 3]))).capitalize() + "." for _ in range(count)]


def describe(voice: str, style: int, rng: random.Random) -> str:
    """A description of a flite voice, in one of `DESCRIPTION_STYLES` shapes."""
    adjective, possessive, *nouns = VOICES[voice]
    quality, age = rng.choice(QUALITIES), rng.choice(AGES)
    accent = rng.choice(["American accent", "neutral accent", f"{quality} American accent"])
    if style == 0:
        return rng.choice([f"{adjective.capitalize()} voice.", f"{adjective.capitalize()} voice, {accent}."])
    if style == 1:
        return f"A {rng.choice(['', 'young ', 'friendly '])}{rng.choice(nouns)} with a {quality} voice."
    if rng.random() < 0.7:
        return f"{adjective.capitalize()}, in {possessive} {age}, {accent}."
    pitch, pace = rng.choice(["Low", "Normal", "High"]), rng.choice(["slow", "conversational", "fast"])
    first = f"Realistic {adjective} voice in the {age} age with american accent."
    return f"{first} {pitch} pitch, {quality} timbre, {pace} pacing."


def speak(text: str, voice: str, path: Path) -> None:
    """Speak `text` with a voice of flite into the wav file `path`."""
    subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder with data.noun …")
    parser.add_argument("--sentences", type=int, default=20000)
    parser.add_argument("--words", type=int, default=0, help="further utterances of one to three random words")
    parser.add_argument("--scowl", type=Path, default=Path("/usr/share/dict/scowl"))
    parser.add_argument("--shortest", type=int, default=12, help="characters")
    parser.add_argument("--longest", type=int, default=60, help="characters")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    sentences = select_sentences(args.wordnet, args.sentences, args.shortest, args.longest, args.seed)
    words = select_words(args.scowl, args.words, args.seed) if args.words else []
    names = [f"audio/{n:05d}.wav" for n in range(len(sentences))] + [f"audio/w{n:05d}.wav" for n in range(len(words))]
    (args.output / "audio").mkdir(parents=True, exist_ok=True)
    rng = random.Random(args.seed + 1)
    rows, jobs = [], []
    for number, (name, text) in enumerate(zip(names, sentences + words, strict=True)):
        voice = rng.choice(sorted(VOICES))
        rows.append((name, text, describe(voice, rng.randrange(DESCRIPTION_STYLES), random.Random(number))))
        if not (args.output / name).exists():
            jobs.append((text, voice, args.output / name))
    with (args.output / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="|", lineterminator="\n").writerows(rows)
    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(lambda job: speak(*job), jobs))
    print(f"{len(rows)} sentences in {args.output}")


if __name__ == "__main__":
    main()
