"""Runs the tables of Chatterbox: punctuation and preparation of texts, tensors of released checkpoints."""

from collections.abc import Iterator

import convert_chatterbox_to_hf as conversion
import torch
from checkpoint_tools import ConversionError, account_for, state_shapes

from tests.common.reference import Check, ReferenceCase, compare, compare_rows, reference_runner
from tts_models import ChatterboxT3Model, ChatterboxVoiceEncoder
from tts_models.models.chatterbox.text_chatterbox import (
    LANGUAGES,
    korean_letters,
    normalize_punctuation,
    prepare_multilingual,
)


NUM_CODES = 6561


@reference_runner("chatterbox_t3", kinds=("text*",), needs=("punc_norm", "languages"), table=True)
def run_text(case: ReferenceCase) -> Iterator[Check]:
    """Punctuation of the three variants, letters of the multilingual one, and its languages."""
    entries = case.spec["punc_norm"]
    for variant in ("english", "turbo", "multilingual"):
        expected = {entry["text"]: entry[variant] for entry in entries}
        actual = {text: normalize_punctuation(text, variant) for text in expected}
        yield compare_rows(f"punc_norm {variant}", actual, expected)
    prepared = case.spec["multilingual_preprocess"]
    steps = {
        "lower_nfkd": lambda text: prepare_multilingual(text, None),
        "korean": korean_letters,
        "korean_after_preprocess": lambda text: korean_letters(prepare_multilingual(text, None)),
    }
    for name, step in steps.items():
        expected = {entry["text"]: entry[name] for entry in prepared}
        yield compare_rows(name, {text: step(text) for text in expected}, expected)
    names = {code: name.lower() for code, name in case.spec["languages"].items()}
    yield compare("languages", dict(LANGUAGES), names)


@reference_runner("chatterbox_t3", kinds=("released*",), needs=("t3_cfg.safetensors", "ve.safetensors"), table=True)
def run_released(case: ReferenceCase) -> Iterator[Check]:
    """Every tensor of every variant has its place, with its shape, or is on the list of unused ones."""
    actual, expected = {}, {}
    for name, table in case.spec.items():
        tensors = {key: entry for key, entry in table.items() if key != "_note"}
        if tensors:
            actual[name], expected[name] = place_all(name, tensors), "all placed"
    yield compare_rows("released", actual, expected)


def place_all(file: str, tensors: dict[str, tuple[str, list[int]]]) -> str:
    """Converts one file's names and shapes; says what is wrong, or that all is placed."""
    with torch.device("meta"):
        upstream = {name: torch.empty(shape) for name, (_, shape) in tensors.items()}
        try:
            if file.startswith("ve"):
                model = ChatterboxVoiceEncoder(conversion.voice_encoder_config(upstream))
                converted, unused = conversion.convert_voice_encoder(upstream), conversion.UNUSED_VOICE_ENCODER
            else:
                ends = (None, None) if "tfmr.wpe.weight" in upstream else (255, 0)
                model = ChatterboxT3Model(conversion.t3_config(upstream, ends, NUM_CODES))
                converted, unused = conversion.convert_t3(upstream), conversion.UNUSED_T3
            account_for({name: tensor.shape for name, tensor in converted.items()}, state_shapes(model))
        except (ConversionError, ValueError) as error:
            return str(error)
    is_whole = len(converted) + len(unused & set(upstream)) == len(upstream)
    return "all placed" if is_whole else "some left out"
