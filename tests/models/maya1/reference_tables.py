"""Runs Maya1's reference tables and prompts: released tensors, unpacking, published windows, prompt ids."""

from collections.abc import Iterator
from typing import Any

import convert_maya1_to_hf as conversion
from transformers import PreTrainedTokenizerFast

from tests.common.fill import parse_shape
from tests.common.reference import Check, ReferenceCase, compare, compare_rows, reference_runner
from tests.models.snac.reference_tables import SPEECH_RATES, narrow_codec, random_codes
from tts_models import Maya1Config, Maya1Processor, SnacFeatureExtractor
from tts_models.models.maya1.audio_tokens_maya1 import AudioTokenLayout
from tts_models.models.maya1.processing_maya1 import MAX_VOICE_CHARACTERS
from tts_models.text import clean_text


STRIDES = (4, 2, 1)


@reference_runner("maya1", kinds=("code_unpacking*",), needs=("layout", "cases"), table=True)
def run_code_unpacking(case: ReferenceCase) -> Iterator[Check]:
    """The published reading of token streams, and what a reading that checks the slots makes of them.

    `fastapi_extracted` and `orpheus_running_index_codes` are faults of other scripts that the port does not offer.
    """
    offset, codebook_size = case.spec["layout"]["offset"], case.spec["layout"]["codebook_size"]
    # The end of speech is `<custom_token_2>`, the first code `<custom_token_10>`.
    layout = AudioTokenLayout(offset, codebook_size, STRIDES, end_id=offset - 8)
    streams = {stream["name"]: stream for stream in case.spec["cases"]}
    read = {name: layout.unpack(stream["token_ids"], "upstream") for name, stream in streams.items()}
    yield compare_rows("levels", {n: levels for n, (levels, _) in read.items()}, _column(streams, "levels"))
    direct = {name: value for name, value in _column(streams, "unpacked_directly").items() if value is not None}
    unfiltered = {name: unpack_directly(layout, streams[name]["token_ids"]) for name in direct}
    yield compare_rows("unpacked_directly", unfiltered, direct)
    audio_ids = {name: extract_audio_ids(layout, stream["token_ids"]) for name, stream in streams.items()}
    yield compare_rows("extracted", audio_ids, _column(streams, "extracted"))
    slots = {name: [layout.slot_of(token) for token in ids] for name, ids in audio_ids.items()}
    yield compare_rows("slot_of_each_extracted", slots, _column(streams, "slot_of_each_extracted"))
    accepted = {name: is_accepted(layout, stream["token_ids"]) for name, stream in streams.items()}
    yield compare_rows("frame_aligned", accepted, _column(streams, "frame_aligned"))
    yield compare_rows("leading_aligned_frames", *leading_frames(layout, streams))


def _column(streams: dict[str, dict[str, Any]], field: str) -> dict[str, Any]:
    return {name: stream[field] for name, stream in streams.items()}


def extract_audio_ids(layout: AudioTokenLayout, token_ids: list[int]) -> list[int]:
    """The audio ids before the end of speech."""
    end = token_ids.index(layout.end_id) if layout.end_id in token_ids else len(token_ids)
    return [token for token in token_ids[:end] if layout.slot_of(token) is not None]


def unpack_directly(layout: AudioTokenLayout, token_ids: list[int]) -> list[list[int]]:
    """The published unpacking without the published filter before it: every id by its position, but for a last end."""
    ids = token_ids[:-1] if token_ids[-1:] == [layout.end_id] else token_ids
    codes, size = [(token - layout.offset) % layout.codebook_size for token in ids], layout.slots_per_frame
    return layout.split_frames(codes[start : start + size] for start in range(0, len(codes) - size + 1, size))


def is_accepted(layout: AudioTokenLayout, token_ids: list[int]) -> bool:
    """Whether the strict reading finds nothing wrong with a stream."""
    try:
        layout.unpack(token_ids, "strict")
    except ValueError:
        return False
    return True


def leading_frames(
    layout: AudioTokenLayout, streams: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The frames before the first misplaced token: as the resynchronising reading gives them, and as published."""
    actual, expected = {}, {}
    for name, stream in streams.items():
        frames = stream["leading_aligned_frames"]
        sizes = [frames * layout.codes_per_frame(level) for level in range(layout.num_levels)]
        levels, info = layout.unpack(stream["token_ids"], "resync")
        actual[name] = [level[:size] for level, size in zip(levels, sizes, strict=True)]
        expected[name] = [level[:size] for level, size in zip(stream["levels"], sizes, strict=True)]
        if info.frames < frames:
            actual[name] = f"{info.frames} frames"
    return actual, expected


@reference_runner("maya1", kinds=("published_streaming_windows*",), needs=("rows",), table=True)
def run_published_windows(case: ReferenceCase) -> Iterator[Check]:
    """What the published sliding windows play, and that the exact stream plays every sample."""
    codec = narrow_codec(SPEECH_RATES)
    rows = {row["tokens"]: row for row in case.spec["rows"]}
    for scheme, kept in (("hub_and_orpheus", 1), ("maya1_fastapi", 2)):
        expected = {tokens: row[scheme] for tokens, row in rows.items()}
        size = codec.config.samples_per_frame
        yield compare_rows(scheme, {tokens: sliding_windows(tokens, kept, size) for tokens in rows}, expected)
    for scheme, name in (("hub_and_orpheus", "frames_lost_hub"), ("maya1_fastapi", "frames_lost_fastapi")):
        lost = {t: sorted(set(range(t // 7)) - set(row[scheme]["frames_heard"])) for t, row in rows.items()}
        yield compare_rows(name, lost, {tokens: row[name] for tokens, row in rows.items()})
    streamed = {}
    for tokens in rows:
        stream = codec.decoder_stream(noise_scale=0.0)
        stream.push(random_codes(codec.config, tokens // codec.config.tokens_per_frame))
        stream.flush()
        streamed[tokens] = stream.samples_out
    expected = {tokens: row["full_decode_samples"] for tokens, row in rows.items()}
    yield compare_rows("samples of the exact stream", streamed, expected)


def sliding_windows(tokens: int, kept: int, samples_per_frame: int, frame: int = 7, window: int = 4) -> dict[str, Any]:
    """The published scheme: at every whole frame, decode the last four and play the one numbered `kept` of them."""
    ends = range(window * frame, tokens + 1, frame)
    heard = [end // frame - window + kept for end in ends]
    return {
        "windows": [[end - window * frame, end] for end in ends],
        "kept_samples_of_window": [kept * samples_per_frame, (kept + 1) * samples_per_frame],
        "frames_heard": heard,
        "samples": len(heard) * samples_per_frame,
    }


def load_processor(case: ReferenceCase, **options: Any) -> Maya1Processor:
    """A processor on the tokenizer beside the case."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(case.path / "tokenizer.json"))
    return Maya1Processor(tokenizer, SnacFeatureExtractor(), codebook_size=case.spec["codebook_size"], **options)


def spoken_prompts(processor: Maya1Processor, rows: dict[str, dict[str, Any]], verbatim: bool) -> dict[str, list[int]]:
    """The ids of every row's prompt, padding removed, by the row's name."""
    texts, voices = [row["text"] for row in rows.values()], [row["description"] for row in rows.values()]
    batch = processor(text=texts, voice=voices, verbatim=verbatim, split_long_text=False)
    prompts = zip(rows, batch["input_ids"], batch["attention_mask"], strict=True)
    return {name: ids[mask.bool()].tolist() for name, ids, mask in prompts}


def is_speakable(row: dict[str, Any]) -> bool:
    """Whether the default path takes a row at all: it refuses an empty text or voice, and a far too long voice."""
    text, voice = row["text"], row["description"]
    return any(map(str.isalnum, text)) and bool(voice.strip()) and len(voice) <= MAX_VOICE_CHARACTERS


def is_plain(row: dict[str, Any]) -> bool:
    """Whether the default path has nothing to clean in a row."""
    fields = (row["text"], row["description"])
    return all(clean_text(field) == field and any(map(str.isalnum, field)) for field in fields)


@reference_runner("maya1", kinds=("prompt_ids*",), needs=("rows", "special_ids", "audio_token_offset"))
def run_prompt_ids(case: ReferenceCase) -> Iterator[Check]:
    """Prompts exactly as published where asked for; by default the same for plain text, and never an injected id."""
    rows = {f"row {index}": row for index, row in enumerate(case.spec["rows"])}
    processor = load_processor(case)
    tokens = {token: processor.tokenizer.convert_tokens_to_ids(token) for token in case.spec["special_ids"]}
    yield compare_rows("special_ids", tokens, case.spec["special_ids"])
    yield compare("audio_token_offset", processor.audio_token_layout.offset, case.spec["audio_token_offset"])
    yield compare_rows("served_ids", spoken_prompts(processor, rows, verbatim=True), _column(rows, "served_ids"))
    single = spoken_prompts(load_processor(case, prepend_bos=False), rows, verbatim=True)
    yield compare_rows("ids_without_leading_bos", single, _column(rows, "ids_without_leading_bos"))
    bodies = {name: ids[2:-4] for name, ids in single.items()}
    yield compare_rows("body_ids", bodies, _column(rows, "body_ids"))
    strings = {name: processor.tokenizer.decode(ids) for name, ids in single.items()}
    yield compare_rows("prompt_string", strings, _column(rows, "prompt_string"))
    yield from check_default_prompts(processor, rows, tokens)


def check_default_prompts(
    processor: Maya1Processor, rows: dict[str, dict[str, Any]], tokens: dict[str, int]
) -> Iterator[Check]:
    """Without `verbatim`: plain rows give the served ids, rows with control tokens in their text give none of them."""
    vocabulary = processor.tokenizer.get_added_vocab()
    forbidden = (set(tokens) | set(vocabulary)) - set(processor.emotion_tags)
    rows = {name: row for name, row in rows.items() if is_speakable(row)}
    injecting = {
        name: row
        for name, row in rows.items()
        if any(token in field for token in forbidden for field in (row["text"], row["description"]))
    }
    plain = {name: row for name, row in rows.items() if name not in injecting and is_plain(row)}
    if plain:
        served = spoken_prompts(processor, plain, verbatim=False)
        yield compare_rows("served_ids by default", served, _column(plain, "served_ids"))
    if injecting:
        control_ids = {vocabulary[token] for token in forbidden if token in vocabulary}
        spoken = spoken_prompts(processor, injecting, verbatim=False)
        injected = {name: control_ids.intersection(ids[3:-4]) for name, ids in spoken.items()}
        yield compare_rows("injected control ids", injected, dict.fromkeys(injected, set()))


@reference_runner("maya1", kinds=("released*",), table=True)
def run_released(case: ReferenceCase) -> Iterator[Check]:
    """Every released tensor finds its place in the port, with and without the optional head."""
    text_config = Maya1Config().text_config
    optional = {name: parse_shape(entry)[1] for name, entry in case.spec.get("_optional", {}).items()}
    for file, tensors in case.spec.items():
        if file.startswith("_"):
            continue
        shapes = {name: parse_shape(entry)[1] for name, entry in tensors.items()}
        for label, present in (("tensors", shapes), ("tensors with the head", shapes | optional)):
            mapped = conversion.plan_language_model(present, text_config)
            yield compare(f"{file.split('/')[-2]}: {label}", len(mapped), len(present))
