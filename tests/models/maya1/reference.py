"""Runs Maya1's network cases: logits, constrained generation, sampling, losses, and tokens to audio."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import convert_maya1_to_hf as conversion
import torch
from transformers import LlamaConfig

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tests.models.snac.reference import build_model
from tts_models import Maya1Config, Maya1ForConditionalGeneration, SnacConfig
from tts_models.models.maya1.audio_tokens_maya1 import AudioTokenLayout


# How each recorded greedy run was made, in the port's words.
GREEDY_RUNS: dict[str, dict[str, Any]] = {
    "free": {"constrain_slots": False},
    "audio_only": {"constrain_slots": False, "audio_only": True},
    "audio_only_rep": {
        "constrain_slots": False,
        "audio_only": True,
        "repetition_penalty": 1.1,
        "min_new_tokens": 28,
    },
    "slot": {},
    "slot_rep": {"repetition_penalty": 1.1},
}
# The sampling settings of the published script and of FastMaya1.
SAMPLING = {
    "probs_hub": {"temperature": 0.4, "top_p": 0.9, "repetition_penalty": 1.1},
    "probs_fastmaya": {"temperature": 0.4, "top_k": 40, "top_p": 0.9, "repetition_penalty": 1.4},
}


# Settings that a case's note states for a run, in words: the port's name and how it is found.
STATED = {
    "repetition_penalty": (float, r"penalty[ =:]+(\d+(?:\.\d+)?)"),
    "min_new_tokens": (int, r"min_new_tokens[ =:]+(\d+)"),
    "temperature": (float, r"temperature[ =:]+(\d+(?:\.\d+)?)"),
    "top_k": (int, r"top_k[ =:]+(\d+)"),
    "top_p": (float, r"top_p[ =:]+(\d+(?:\.\d+)?)"),
}
# More positions than any case fills: upstream's `generate` warns past the model's own number and goes on.
NO_LIMIT = 1 << 20


def stated_settings(case: ReferenceCase, run: str) -> dict[str, float | int]:
    """What the note says after `<run>:`, up to the end of that clause; nothing where it does not mention the run."""
    clause = re.search(rf"\b{run}:(.*?)(?:;|\.\s|$)", case.spec.get("note", ""), re.DOTALL)
    found = {name: re.search(pattern, clause[1]) for name, (_, pattern) in STATED.items()} if clause else {}
    return {name: STATED[name][0](match[1]) for name, match in found.items() if match}


TOKEN_NAMES = (
    "bos",
    "eot",
    "start_of_speech",
    "end_of_speech",
    "start_of_human",
    "end_of_human",
    "start_of_ai",
    "pad",
)


def language_model_of(case: ReferenceCase) -> Maya1ForConditionalGeneration:
    """The case's language model, filled in released names, with a tiny codec beside it."""
    ids = case.spec["token_ids"]
    text_config = LlamaConfig(**case.spec["config"])
    codec_config = SnacConfig(encoder_hidden_size=2, decoder_hidden_size=16, codebook_size=ids["codebook_size"])
    config = Maya1Config(
        text_config=text_config,
        codec_config=codec_config,
        audio_token_offset=ids["audio_token_offset"],
        end_of_ai_token_id=None,
        **{f"{name}_token_id": ids[name] for name in TOKEN_NAMES if name in ids},
    )
    torch.manual_seed(0)
    model = Maya1ForConditionalGeneration(config)
    filled = case.state_dict()
    plan = conversion.plan_language_model({n: tuple(t.shape) for n, t in filled.items()}, text_config)
    model.load_state_dict({plan[name]: tensor for name, tensor in filled.items() if plan[name]}, strict=False)
    model.tie_weights()
    # For the token budget only: the language model keeps its own configuration, which its rotary table reads.
    model.config.text_config = copy.deepcopy(model.config.text_config)
    model.config.text_config.max_position_embeddings = model.generation_config.max_length = NO_LIMIT
    return model.eval().to(case.device)


def generated_ids(
    model: Maya1ForConditionalGeneration, case: ReferenceCase, steps: int, **options: Any
) -> torch.Tensor:
    """New ids `(batch, steps)` of a greedy run; what follows a row's end is padding."""
    prompts = case.input("input_ids")
    options = {"repetition_penalty": 1.0, "min_new_tokens": 0} | options
    # Under the slot constraint the port generates whole frames; what is over is cut off.
    frame = model.config.slots_per_frame if options.get("constrain_slots", True) else 1
    output = model.generate(
        input_ids=prompts,
        attention_mask=prompt_mask(model, case),
        do_sample=False,
        max_new_tokens=-(-steps // frame) * frame,
        seed=0,
        **options,
    )
    new_ids = output.sequences[:, prompts.shape[1] :][:, :steps]
    return torch.nn.functional.pad(new_ids, (0, steps - new_ids.shape[1]), value=model.config.pad_token_id)


def prompt_mask(model: Maya1ForConditionalGeneration, case: ReferenceCase) -> torch.Tensor:
    """The recorded mask, else all that is not padding."""
    if case.holds("inputs.attention_mask"):
        return case.input("attention_mask")
    return (case.input("input_ids") != model.config.pad_token_id).long()


def sampling_probabilities(
    model: Maya1ForConditionalGeneration, context: torch.Tensor, logits: torch.Tensor, **options: Any
) -> torch.Tensor:
    """The distribution over the whole vocabulary that `generate` draws the next id from, without a constraint."""
    options = {"do_sample": True, "min_new_tokens": 0, "top_k": 0} | options
    config = model._resolve_generation_config(None, options)
    processors = model._get_logits_processor(config, context.shape[1], device=context.device)
    return processors(context, logits).softmax(-1)


@reference_runner("maya1", kinds=("lm_*",), needs=("token_ids", "inputs.input_ids"))
def run_language_model(case: ReferenceCase) -> Iterator[Check]:
    """Logits of a left-padded batch, greedy runs under every constraint, sampling distributions, losses."""
    model = language_model_of(case)
    prompts, mask = case.input("input_ids"), prompt_mask(model, case)
    if case.holds("outputs.logits_last"):
        yield case.check("logits_last", model(input_ids=prompts, attention_mask=mask).logits[:, -1], "logits")
    for name, options in GREEDY_RUNS.items():
        if case.holds(f"outputs.{name}"):
            stated = stated_settings(case, name)
            if stated:
                options = {key: value for key, value in options.items() if key not in STATED} | stated
            expected = case.output(name)
            yield compare(name, generated_ids(model, case, expected.shape[1], **options), expected)
    if case.holds("inputs.sampling_context"):
        yield from check_sampling(model, case)
    if case.holds("inputs.train_ids"):
        train = {"input_ids": case.input("train_ids"), "attention_mask": case.input("train_mask")}
        if case.holds("outputs.loss_audio"):
            yield case.check("loss_audio", model(**train, labels=case.input("train_labels")).loss, "loss")
        everything = train["input_ids"].masked_fill(train["attention_mask"] == 0, -100)
        if case.holds("outputs.loss_all"):
            yield case.check("loss_all", model(**train, labels=everything).loss, "loss")


def check_sampling(model: Maya1ForConditionalGeneration, case: ReferenceCase) -> Iterator[Check]:
    """Logits after some audio ids, and what the sampling settings make of them."""
    context = case.input("sampling_context")
    mask = (context != model.config.pad_token_id).long()
    logits = model(input_ids=context, attention_mask=mask).logits[:, -1]
    if case.holds("outputs.sampling_logits"):
        yield case.check("sampling_logits", logits, "logits")
    recorded = [n.removeprefix("outputs.") for n in case.tensors if n.startswith("outputs.probs_")]
    for name in recorded:
        options = stated_settings(case, name) or SAMPLING.get(name)
        if options is not None:
            options = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0} | options
            yield case.check(name, sampling_probabilities(model, context, logits, **options), "probs")


# The scales that every SNAC case states. The speech cases were computed with them too, but do not say so.
CODEC_WEIGHT_SCALE = [
    [r"\.block\.\d+\.block\.3\.parametrizations\.weight\.original0$", 0.3],
    [r"\.linear\.parametrizations\.weight\.original0$", 0.25],
    [r"^decoder\.model\.\d+\.parametrizations\.weight\.original0$", 0.5],
]


@reference_runner("maya1", kinds=("speech_*",), needs=("snac_config", "rows"))
def run_speech(case: ReferenceCase) -> Iterator[Check]:
    """Token rows to audio: each row alone, as a stream's length, and all rows of different length in one batch."""
    case.spec.setdefault("weight_scale", CODEC_WEIGHT_SCALE)
    codec = build_model(case, case.spec["snac_config"], case.spec["snac_keys"])
    config, rows = codec.config, case.spec["rows"]
    layout = AudioTokenLayout(50, config.codebook_size, tuple(config.vq_strides), end_id=42)
    read = [layout.unpack([*layout.pack(row["levels"]), layout.end_id], "strict")[0] for row in rows]
    yield compare("levels", read, [row["levels"] for row in rows])
    yield compare("frames", [len(levels[0]) for levels in read], [row["frames"] for row in rows])
    if "lookahead_samples" in case.spec:
        yield compare("look-ahead in samples", codec.decoder_stream().look_ahead, case.spec["lookahead_samples"])
    codes = [tuple(torch.tensor([level], dtype=torch.long, device=case.device) for level in levels) for levels in read]
    alone = [codec.decode(c, noise=case.inputs(f"noise.{i}") or None).audio_values[0] for i, c in enumerate(codes)]
    yield compare("samples", [len(audio) for audio in alone], [row["samples"] for row in rows])
    spoken = [index for index, row in enumerate(rows) if row["samples"]]
    for index in spoken:
        yield case.check(f"audio.{index}", alone[index], "audio")
    batched = decode_batch(case, codec, codes)
    for index in spoken:
        audio = batched.audio_values[index, : rows[index]["samples"]]
        yield compare(f"audio.{index}, batched", audio, case.output(f"audio.{index}"), case.tolerance("audio"))
    yield compare("samples, batched", batched.audio_lengths.tolist(), [row["samples"] for row in rows])


def decode_batch(case: ReferenceCase, codec: torch.nn.Module, codes: list[tuple[torch.Tensor, ...]]) -> object:
    """Decodes rows of different length at once, codes and noise padded with what must not matter."""
    levels = [_padded([row[level] for row in codes], 0) for level in range(len(codes[0]))]
    noise = [case.inputs(f"noise.{index}") for index in range(len(codes))]
    blocks = max(map(len, noise))
    empty = torch.zeros(1, 1, 0, device=case.device)
    padded = [_padded([row[block] if row else empty for row in noise], 9.0) for block in range(blocks)]
    lengths = torch.tensor([row[0].shape[1] for row in codes], device=case.device)
    return codec.decode(tuple(levels), noise=padded or None, frame_lengths=lengths)


def _padded(rows: list[torch.Tensor], value: float) -> torch.Tensor:
    longest = max(row.shape[-1] for row in rows)
    return torch.cat([torch.nn.functional.pad(row, (0, longest - row.shape[-1]), value=value) for row in rows])
