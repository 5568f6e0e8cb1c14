"""Runs the tables of Qwen3-TTS: prompts as strings and ids, emission schedules, tensors of released checkpoints."""

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace

import convert_qwen3_tts_to_hf as conversion

from tests.common.reference import Check, ReferenceCase, compare_rows, reference_runner
from tts_models import Qwen3TTSConfig
from tts_models.models.qwen3_tts.processing_qwen3_tts import (
    INSTRUCT_TURN,
    REFERENCE_TURN,
    SPEECH_TURN,
    Qwen3TTSProcessor,
)
from tts_models.streaming.schedule import TwoPhaseSchedule


# Kind of a prompt -> its turn, and the ids before and after the text that the talker leaves out.
TURNS = {"assistant": (SPEECH_TURN, 3, 5), "reference": (REFERENCE_TURN, 3, 2), "instruct": (INSTRUCT_TURN, 0, 0)}


class RecordedTokenizer:
    """Looks ids up by the whole string: the released vocabulary is not in the repository."""

    def __init__(self, ids: dict[str, list[int]]) -> None:
        self.ids = ids

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self.ids[text]}


@reference_runner("qwen3_tts", kinds=("prompts*",), needs=("cases",), table=True)
def run_prompts(case: ReferenceCase) -> Iterator[Check]:
    """The processor writes the recorded string, whose ids hold the spoken text where the talker looks for it."""
    entries = case.spec["cases"]
    tokenizer = RecordedTokenizer({entry["prompt"]: entry["input_ids"] for entry in entries})
    processor = SimpleNamespace(tokenizer=tokenizer, _control_tokens=frozenset({"<|im_start|>", "<|im_end|>"}))
    actual, expected = {}, {}
    for index, entry in enumerate(entries):
        turn, head, tail = TURNS[entry["kind"]]
        ids = Qwen3TTSProcessor.turn_ids(processor, turn, entry["text"])
        actual[str(index)] = ids, ids[head : len(ids) - tail]
        expected[str(index)] = entry["input_ids"], entry.get("spoken_ids", entry["input_ids"])
    yield compare_rows("prompts", actual, expected)


@reference_runner("qwen3_tts", kinds=("streaming_schedule*",), needs=("cases",), table=True)
def run_schedule(case: ReferenceCase) -> Iterator[Check]:
    """After which frames a chunk is due, and its samples; ours never drops any."""
    actual, expected = {}, {}
    for index, entry in enumerate(case.spec["cases"]):
        settings = entry["settings"]
        schedule = TwoPhaseSchedule(
            settings["emit_every_frames"], settings["first_chunk_emit_every"], settings["first_chunk_frames"]
        )
        after, sent = [], 0
        for frame in range(1, entry["frames"] + 1):
            if schedule.is_due(frame - sent) or frame == entry["frames"]:
                after.append(frame)
                sent = frame
        actual[str(index)] = after, [1920 * (end - start) for start, end in pairwise([0, *after])]
        expected[str(index)] = entry["after_frames"], entry["frame_samples"]
    yield compare_rows("schedule", actual, expected)


@reference_runner("qwen3_tts", kinds=("released*",), needs=("_configs", "_totals"), table=True)
def run_released(case: ReferenceCase) -> Iterator[Check]:
    """Every tensor of the five released models has its place, with its shape, and none is left over."""
    tables = {name: table for name, table in case.spec.items() if name.endswith("/model.safetensors")}
    actual = {}
    for name, table in tables.items():
        folder = name.removesuffix("/model.safetensors")
        config = Qwen3TTSConfig.from_dict(case.spec["_configs"][f"{folder}/config.json"])
        try:
            plan = conversion.plan_model({key: tuple(shape) for key, (_, shape) in table.items()}, config)
        except conversion.ConversionError as error:
            actual[name] = str(error)
            continue
        actual[name] = len(plan)
    yield compare_rows("released tensors", actual, {name: len(table) for name, table in tables.items()})
