"""Runs the tables of MegaTTS3 and of the engine around it: texts, phones, durations, splitting, roles."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from tests.common.reference import Check, ReferenceCase, compare_rows, reference_runner
from tts_models import MegaTTS3Config
from tts_models.models.megatts3.durations_megatts3 import (
    apply_duration_rules,
    count_frames,
    expand_durations,
    read_alignment,
)
from tts_models.models.megatts3.phones_megatts3 import PhoneTable, phones_of_tokens, tokens_of_phones
from tts_models.models.megatts3.processing_megatts3 import g2p_prompt
from tts_models.models.megatts3.text_megatts3 import chunk_chinese, chunk_english
from tts_models.text import contains_chinese, normalize_text, parse_dialogue, split_by_tokens
from tts_models.text.dialogue import level_of
from tts_models.text.token_windows import is_only_punctuation, tidy_chinese


FAMILY = "megatts3"
table_runner = lambda kinds, needs: reference_runner(FAMILY, kinds=kinds, needs=needs, table=True)  # noqa: E731


def numbered(rows: list[Any], run: Callable[[Any], Any], expected: Callable[[Any], Any]) -> tuple[dict, dict]:
    """What `run` makes of each row, and what is expected of it."""
    return (
        {str(index): run(row) for index, row in enumerate(rows)},
        {str(index): expected(row) for index, row in enumerate(rows)},
    )


# Texts


def by_upstreams_rules(text: str, language: str) -> str:
    """Upstream's rules came compiled with its normaliser's defaults, whatever upstream asked of them.

    Raises:
        ImportError: they are not installed; the plain fallback is not upstream's.
    """
    if not any(map(importlib.util.find_spec, ("tn", "wetext"))):
        raise ImportError("WeTextProcessing, or at least the extra `text`, is needed for this table")
    return normalize_text(text, language, remove_erhua=True, remove_interjections=True)


@table_runner(("text_normalize*",), ("zh",))
@table_runner(("text_normalize*",), ("en",))
def run_normalization(case: ReferenceCase) -> Iterator[Check]:
    """Texts as words; which language upstream's random detector named is no concern of ours."""
    for language in (each for each in ("zh", "en") if each in case.spec):
        read = partial(by_upstreams_rules, language=language)
        rows = numbered(case.spec[language], lambda row, by=read: by(row[0]), lambda row: row[1])
        yield compare_rows(language, *rows)


@table_runner(("text_chunks*",), ("rows",))
def run_chunks(case: ReferenceCase) -> Iterator[Check]:
    """The chunkers, and normaliser and chunker together. `zh_v1` is a chunker that upstream does not use."""
    chunkers = {
        "zh": chunk_chinese,
        "zh_small": lambda text: chunk_chinese(text, limit=12, look_ahead=6),
        "en": chunk_english,
        "en_small": lambda text: chunk_english(text, max_bytes=40),
    }
    for name, chunk in chunkers.items():
        rows = [row for row in case.spec["rows"] if name in row]
        yield compare_rows(name, *numbered(rows, lambda row, by=chunk: by(row["text"]), lambda row, of=name: row[of]))
    if "frontend" not in case.spec:
        return
    # Upstream's detector took some Chinese for English; by our rule that cannot happen.
    rows = [row for row in case.spec["frontend"] if not (row["language"] == "en" and contains_chinese(row["text"]))]
    yield compare_rows("frontend", *numbered(rows, frontend, lambda row: row["segments"]))


def frontend(row: dict[str, Any]) -> list[str]:
    """Normaliser and chunker together."""
    language, chunk = ("en", chunk_english) if row["language"] == "en" else ("zh", chunk_chinese)
    return chunk(by_upstreams_rules(row["text"], language))


@table_runner(("engine_split_text*",), ("rows",))
@table_runner(("engine_split_text*",), ("rows", "text_normalize"))
def run_splitting(case: ReferenceCase) -> Iterator[Check]:
    """The engine's splitting by tokens, and the steps it is made of."""
    yield compare_rows("segments", *numbered(case.spec["rows"], split_row, lambda row: row["segments"]))
    custom = case.spec.get("custom_split_fn", [])
    yield compare_rows("custom split", *numbered(custom, split_row, lambda row: row["segments"]))
    steps = {
        "text_normalize": tidy_chinese,
        "contains_chinese": contains_chinese,
        "is_only_punctuation": is_only_punctuation,
    }
    for name, step in steps.items():
        rows = case.spec.get(name, [])
        yield compare_rows(name, *numbered(rows, lambda row, by=step: by(row[0]), lambda row: row[1]))


def split_row(row: dict[str, Any]) -> list[str]:
    """Splits as the row says."""
    counters = {"characters": len, "whitespace": lambda text: len(text.split())}
    count = counters.get(row["tokenizer"]) or implied_counter(row)
    named = re.search(r"split\((['\"])(.+?)\1\)", row.get("split_fn", ""))
    split = (lambda text: text.split(named[2])) if named else None
    return split_by_tokens(row["text"], count, row["window_size"], row["length_threshold"], split)


def implied_counter(row: dict[str, Any]) -> Callable[[str], int]:
    """Token counts that the recorded segments imply: the released vocabulary is not in the repository.

    Each segment fills its window with one token for all but the first of its sentences. One sentence was too long for
    it where the next segment has a leading blank, or where it lacks that itself with nothing joined before it; to a
    window of no tokens every sentence is. The count of the whole text is recorded.
    """
    whole, total = tidy_chinese(row["text"].strip()), row["tokens_after_normalize"]
    if total <= row["length_threshold"]:
        return lambda text: total
    counts = {whole: [total]}
    segments, begins = row["segments"], True
    for index, segment in enumerate(segments):
        sentences = [each.strip() for each in re.split(r"(?<=[。？！；;.!?：:])", segment) if each.strip()]
        follows = segments[index + 1] if index + 1 < len(segments) else ""
        needs_room = follows.startswith(" ") or (begins and not segment.startswith(" ")) or not row["window_size"]
        begins = is_long = len(sentences) == 1 and needs_room
        sizes = [row["window_size"] + is_long - len(sentences) + 1, *[1] * (len(sentences) - 1)]
        for sentence, size in zip(sentences, sizes, strict=True):
            counts.setdefault(sentence, []).append(total if sentence == whole else size)
    return lambda text: counts[text].pop(0) if counts.get(text) else 1


@table_runner(("engine_roles*",), ("rows",))
@table_runner(("engine_roles*",), ("rows", "openai_speed_pitch_labels"))
def run_roles(case: ReferenceCase) -> Iterator[Check]:
    """Dialogues with roles, and the levels of numbers."""
    yield compare_rows("roles", *numbered(case.spec["rows"], dialogue, lambda row: row["segments"]))
    labels = case.spec.get("openai_speed_pitch_labels", [])
    yield compare_rows("levels", *numbered(labels, lambda row: level_of(row[0]), lambda row: row[1]))


def dialogue(row: dict[str, Any]) -> list[dict[str, str | None]]:
    """The lines as dictionaries."""
    return [vars(line) for line in parse_dialogue(row["text"], row["speakers"])]


# Phones


@table_runner(("dict*",), ("phone_to_id", "tone_to_id"))
def run_dictionary(case: ReferenceCase) -> Iterator[Check]:
    """The table of symbols."""
    table = PhoneTable()
    yield compare_rows("phones", table.phone_ids, case.spec["phone_to_id"])
    yield compare_rows("tones", table.tone_ids, case.spec["tone_to_id"])


@table_runner(("tone_conversion*",), ("token_phone_tone",))
def run_tone_conversion(case: ReferenceCase) -> Iterator[Check]:
    """Tokens of toned phones to phones and tones."""
    rows = case.spec["token_phone_tone"]
    yield compare_rows("tokens", *numbered(rows, lambda row: pairs([row[0]])[0], lambda row: (row[1], row[2])))
    # Token 200 is what no phone has.
    back = [row for row in rows if row[1] >= 3]
    yield compare_rows("back", *numbered(back, lambda row: tokens([row[1]], [row[2]])[0], lambda row: row[0]))


@table_runner(("phone_tone_tables*",), ("rows",))
def run_phone_tones(case: ReferenceCase) -> Iterator[Check]:
    """Phones and tones to tokens and back."""
    rows = case.spec["rows"]
    yield compare_rows(
        "tokens",
        *numbered(
            rows,
            lambda row: [798, *tokens(row["phone"], row["tone"]), 799],
            lambda row: row["lm_tokens_with_bos_eos"],
        ),
    )
    yield compare_rows(
        "back",
        *numbered(
            rows,
            lambda row: pairs(row["lm_tokens_with_bos_eos"][1:-1]),
            lambda row: list(zip(row["back_phone"], row["back_tone"], strict=True)),
        ),
    )


def pairs(written: list[int]) -> list[tuple[int, int]]:
    """Phones and tones of tokens."""
    phones, tones = phones_of_tokens(torch.tensor(written))
    return list(zip(phones.tolist(), tones.tolist(), strict=True))


def tokens(phones: list[int], tones: list[int]) -> list[int]:
    """Tokens of phones and tones."""
    return tokens_of_phones(torch.tensor(phones), torch.tensor(tones)).tolist()


class RecordedTokenizer:
    """Looks ids up by the text: the released vocabulary is not in the repository."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.texts = {text: ids[1:-2] for text, ids in spec["rows"]}
        self.special = {
            "<BOT>": spec["bot"],
            "<BOS>": spec["bos"],
            "<Reserved_TTS_0>": spec["speech_start"],
        }

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        begin, end = "<BOT>", "<BOS>"
        assert text.startswith(begin) and text.endswith(end) and not add_special_tokens
        ids = self.texts[text.removeprefix(begin).removesuffix(end)]
        return {"input_ids": [self.special[begin], *ids, self.special[end]]}

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.special[token]


@table_runner(("g2p_prompts*",), ("rows", "speech_start"))
def run_prompts(case: ReferenceCase) -> Iterator[Check]:
    """What the grapheme-to-phoneme model reads; the ids of the ends are the configuration's."""
    tokenizer, config = RecordedTokenizer(case.spec), MegaTTS3Config()
    rows = case.spec["rows"]
    yield compare_rows("prompts", *numbered(rows, lambda row: g2p_prompt(tokenizer, row[0]), lambda row: row[1]))
    ids = {"speech_start": config.g2p_first_phone_id, "eos": config.g2p_end_token_id}
    yield compare_rows("ids", ids, {name: case.spec[name] for name in ids})


@table_runner(("g2p_postprocess*",), ("rows",))
@table_runner(("g2p_postprocess*",), ("rows", "generate_args"))
def run_postprocess(case: ReferenceCase) -> Iterator[Check]:
    """Phones of what the grapheme-to-phoneme model wrote; the last id is left out only where it is the end."""
    config = MegaTTS3Config()

    def read(row: dict[str, Any]) -> list[tuple[int, int]]:
        written = [*row["prompt_ids"][-1:], *row["generated_ids"]]
        cut = written[-1] != config.g2p_end_token_id
        written = written if cut else written[:-1]
        spoken = pairs([token - config.g2p_first_phone_id for token in written])
        # Where the room was used up before the end, upstream leaves out the last phone and we keep it.
        return spoken[:-1] if cut else spoken

    rows = case.spec["rows"]
    yield compare_rows("phones", *numbered(rows, read, lambda row: list(zip(row["phone"], row["tone"], strict=True))))


# Durations


@table_runner(("length_regulator*",), ("rows",))
def run_length_regulator(case: ReferenceCase) -> Iterator[Check]:
    """Durations to frame maps."""
    rows = case.spec["rows"]
    yield compare_rows(
        "frame maps",
        *numbered(rows, regulate, lambda r: r["mel2token"]),
    )


def regulate(row: dict[str, Any]) -> list[list[int]]:
    """The frame map of a row."""
    durations = (torch.tensor(row["dur"]).float() * row.get("alpha", 1.0)).round()
    if row.get("dur_padding") is not None:
        durations = durations * (1 - torch.tensor(row["dur_padding"]).float())
    return expand_durations(durations).tolist()


@table_runner(("align_tables*",), ("rows",))
def run_alignment(case: ReferenceCase) -> Iterator[Check]:
    """The aligner's answers to phones, tones and durations."""

    def read(row: dict[str, Any]) -> list[list[int]]:
        frames = row["mel_frames_of_prompt_before_rounding"] // 8 * 8
        phones, tones, durations = read_alignment(row["aligner_tokens"][1:-1], frames)
        frame_map = expand_durations(durations[None])
        assert torch.equal(count_frames(frame_map, len(phones))[0], durations)
        return [phones.tolist(), tones.tolist(), durations.tolist(), frame_map[0].tolist(), frames]

    names = ("phone", "tone", "durations_from_mel2ph", "mel2ph", "prompt_max_frame")
    rows = case.spec["rows"]
    yield compare_rows("alignments", *numbered(rows, read, lambda row: [row[name] for name in names]))


@table_runner(("duration_rules*",), ("rows",))
def run_duration_rules(case: ReferenceCase) -> Iterator[Check]:
    """Tokens of the duration model to durations and frame maps."""

    def apply(row: dict[str, Any]) -> tuple[list[int], list[int]]:
        durations = apply_duration_rules(
            torch.tensor(row["duration_tokens"]),
            torch.tensor(row["phone"]),
            row["is_first"],
            row["is_final"],
            row["dur_alpha"],
            row["dur_disturb"],
            (torch.tensor(row["uniform_choice"]), torch.tensor(row["uniform_ratio"])),
        )
        return durations.tolist(), expand_durations(durations[None])[0].tolist()

    rows = case.spec["rows"]
    yield compare_rows("durations", *numbered(rows, apply, lambda row: (row["final_durations"], row["mel2ph"])))
