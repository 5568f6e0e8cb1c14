"""Make the synthetic speech that the default voice is trained on.

The sentences are the usage examples of WordNet 3.0 (Debian package `wordnet-base`), the speech is made by `flite`
(Debian package `flite`, voices slt and rms), mono, 16 kHz, and brought to one constant pitch per voice (see
`tts_models.training.constant_pitch`). Each sentence is spoken by one voice. Sentences of the intelligibility
benchmark are left out. The same seed gives the same files.

    apt-get install flite wordnet-base
    python examples/default_voice/make_speech_data.py --lexicon lexicon.txt.gz --output data/default_voice

Writes `OUTPUT/audio/<number>.wav`; `OUTPUT/metadata.csv` with lines `file|text|voice description`, where the text is
spelt in the phonemes that flite spoke; and `OUTPUT/phoneme_ends.csv` with lines `file|seconds seconds …`, the end of
every phoneme.
"""

import argparse
import csv
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import soundfile
from spelling import spell_as_spoken

from tts_models.text.pronunciation import PronunciationLexicon
from tts_models.training.constant_pitch import FLITE_VOICES, SAMPLING_RATE, resynthesise


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


def speak(text: str, voice: str, path: Path) -> str:
    """Speak `text` with a voice of flite, at a constant pitch, into the wav file `path`.

    Returns the phonemes and their ends, as `flite -psdur` prints them.
    """
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice, "-psdur", "-t", text, "-o", file.name]
        segments = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        audio, _ = soundfile.read(file.name, dtype="float32")
    soundfile.write(path, resynthesise(audio, **FLITE_VOICES[voice]), SAMPLING_RATE)
    return segments


def write_table(path: Path, rows: list[tuple[str, ...]]) -> None:
    """Write rows with columns separated by `|`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="|", lineterminator="\n").writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--lexicon", type=Path, required=True, help="made by make_lexicon.py")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder with data.noun …")
    parser.add_argument("--sentences", type=int, default=11050)
    parser.add_argument("--first", type=int, default=0, help="leave out so many sentences: they are known already")
    parser.add_argument("--female_share", type=float, help="of sentences for the female voice; default: about half")
    parser.add_argument("--shortest", type=int, default=12, help="characters")
    parser.add_argument("--longest", type=int, default=60, help="characters")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    count = args.first + args.sentences
    sentences = select_sentences(args.wordnet, count, args.shortest, args.longest, args.seed)[args.first :]
    lexicon = PronunciationLexicon.from_file(args.lexicon)
    names = [f"audio/{args.first + number:05d}.wav" for number in range(len(sentences))]
    (args.output / "audio").mkdir(parents=True, exist_ok=True)
    rng = random.Random(args.seed + args.first + 1)

    def draw_voice() -> str:
        if args.female_share is None:
            return rng.choice(sorted(VOICES))
        return "slt" if rng.random() < args.female_share else "rms"

    speakers = [(draw_voice(), rng.randrange(DESCRIPTION_STYLES)) for _ in sentences]
    paths = [args.output / name for name in names]
    with ProcessPoolExecutor(args.workers) as pool:
        spoken = list(pool.map(speak, sentences, [voice for voice, _ in speakers], paths, chunksize=16))
    metadata, ends = [], []
    for number, (voice, style) in enumerate(speakers):
        text, times = spell_as_spoken(sentences[number], spoken[number], lexicon)
        metadata.append((names[number], text, describe(voice, style, random.Random(args.first + number))))
        ends.append((names[number], " ".join(f"{time:.3f}" for time in times)))
    write_table(args.output / "metadata.csv", metadata)
    write_table(args.output / "phoneme_ends.csv", ends)
    print(f"{len(sentences)} sentences in {args.output}")


if __name__ == "__main__":
    main()
