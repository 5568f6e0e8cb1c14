"""Runs the cases of Qwen3-TTS: prompts and generation, the code predictor, the speaker encoder, scores, losses."""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from transformers import GenerationConfig, LogitsProcessorList

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tts_models import (
    Qwen3TTSConfig,
    Qwen3TTSFeatureExtractor,
    Qwen3TTSForConditionalGeneration,
    Qwen3TTSSpeakerEncoder,
    Qwen3TTSSpeakerEncoderConfig,
    Qwen3TTSTalker,
)
from tts_models.acceleration.sampling import RowSampler
from tts_models.models.qwen3_tts.decoding_qwen3_tts import FirstCodePicker, FrameDecoding, FrameWriter
from tts_models.models.qwen3_tts.modeling_qwen3_tts import add_speakers
from tts_models.models.qwen3_tts.processing_qwen3_tts import language_row
from tts_models.models.qwen3_tts.prompt_qwen3_tts import PromptBatch, PromptBuilder, PromptRow
from tts_models.models.qwen3_tts.request_qwen3_tts import Qwen3TTSOptions, suppressed_ids
from tts_models.models.qwen3_tts.training_qwen3_tts import training_batch


class RecordedSampler(RowSampler):
    """Draws with recorded uniform numbers: one per draw, or one per draw and row."""

    def __init__(self, uniforms: torch.Tensor) -> None:
        super().__init__([], uniforms.device)
        self.recorded, self.drawn = uniforms.reshape(len(uniforms), -1), 0

    def select(self, index: torch.LongTensor) -> None:
        if self.recorded.shape[1] > 1:
            self.recorded = self.recorded[:, index]

    def _draw(self) -> torch.Tensor:
        self.drawn += 1
        if self.drawn > len(self.recorded):  # a program draws for a whole frame, and the last one ends the speech
            return torch.zeros(self.recorded.shape[1], 1, device=self.device)
        return self.recorded[self.drawn - 1][:, None]


def with_package_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with what upstream's constructors assume where it says nothing; ours assume the released values."""
    talker = {"num_hidden_layers": 20, "hidden_size": 1024, "intermediate_size": 2048, "num_attention_heads": 16}
    talker |= {"num_key_value_heads": 2, "rope_theta": 10000, "num_code_groups": 32, "codec_language_id": {}}
    talker |= {"codec_pad_id": 4196, "codec_bos_id": 4197, "codec_eos_token_id": 4198, "codec_think_id": 4202}
    talker |= {"codec_nothink_id": 4203, "codec_think_bos_id": 4204, "codec_think_eos_id": 4205}
    talker |= config["talker_config"]
    talker.setdefault("head_dim", talker["hidden_size"] // talker["num_attention_heads"])
    predictor = {"rope_theta": 10000, "num_code_groups": 32} | (talker.get("code_predictor_config") or {})
    given = {name: value for name, value in config.items() if value is not None}
    return given | {"talker_config": talker | {"code_predictor_config": predictor}}


def build_model(case: ReferenceCase) -> Qwen3TTSForConditionalGeneration:
    """The case's networks, filled in released names; those that it has no keys for stay as they are, unused."""
    torch.manual_seed(0)
    model = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**with_package_defaults(case.spec["config"])))
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    keys = case.spec["keys"]
    if any(shapes.get(name, list(shape)) != list(shape) for name, shape in keys.items()):
        # The case of released widths lists a small model's shapes and says so in its note; the names are the same.
        keys = shapes
    result = model.load_state_dict(case.state_dict(keys), strict=False)
    assert not result.unexpected_keys, result.unexpected_keys[:3]
    model.config._attn_implementation = "eager"
    return model.eval().to(case.device)


# Prompts and generation


def candidates(case: ReferenceCase, model: Qwen3TTSForConditionalGeneration, row: int) -> Iterator[PromptRow]:
    """Every prompt of one row; first those that the case's description mentions, which states choices in prose."""

    def optional(name: str) -> torch.Tensor | None:
        return case.input(f"{name}.{row}") if case.holds(f"inputs.{name}.{row}") else None

    def flat(name: str) -> torch.Tensor | None:
        value = optional(name)
        return None if value is None else value.flatten()

    codec, prose = model.config.talker_config, f"{case.spec.get('what', '')} {case.spec.get('note', '')}".lower()

    def first(names: list[Any], text: Callable[[Any], str] = str) -> list[Any]:
        return sorted(names, key=lambda name: text(name).lower() not in prose)

    speakers = first([*codec.spk_id, None])
    languages = first(["auto", *codec.codec_language_id])
    modes = first([True, False], lambda mode: f"non_streaming_mode={mode}")
    in_context = (True, False) if case.holds(f"inputs.ref_code.{row}") else (False,)
    voiced = (True, False) if case.holds(f"inputs.ref_spk_embedding.{row}") else (False,)
    choices = itertools.product(in_context, voiced, modes, speakers, languages)
    for has_codes, has_voice, mode, speaker, language in choices:
        yield PromptRow(
            input_ids=flat("input_ids"),
            instruct_ids=flat("instruct_ids"),
            reference_ids=flat("ref_ids"),
            reference_codes=optional("ref_code") if has_codes else None,
            speaker_embedding=flat("ref_spk_embedding") if has_voice else None,
            speaker_id=None if speaker is None else codec.spk_id[speaker],
            language_id=language_row(language, speaker, codec.codec_language_id, codec.spk_is_dialect),
            non_streaming_mode=mode,
        )


def find_prompt(case: ReferenceCase, model: Qwen3TTSForConditionalGeneration, row: int) -> PromptRow:
    """The first prompt that is the recorded one, or else the closest; the caller compares it."""
    if not case.holds("outputs.prefill_embeds"):
        return next(candidates(case, model, row))
    expected = case.tensors["outputs.prefill_embeds"][row]
    expected = expected[expected.any(-1)].to(case.device)  # the padding is zeros
    builder, best = PromptBuilder(model), (float("inf"), None)
    for prompt in candidates(case, model, row):
        embeds = builder.build(prompt)[0]
        error = (embeds - expected).abs().max().item() if embeds.shape == expected.shape else 1e9
        best = min(best, (error, prompt), key=lambda pair: pair[0])
        if error <= float_tolerance(case):
            break
    return best[1]


def generation_options(case: ReferenceCase) -> dict[str, Any]:
    """The recorded call as keywords; the suppressed ids are the model's own rule, described in prose."""
    options = {name: value for name, value in case.spec["call"].items() if name != "suppress_tokens"}
    if case.holds("inputs.uniforms"):
        options.setdefault("subtalker_dosample", True)  # upstream's default, whatever `do_sample` is
    if options.get("eos_token_id") is not None:
        codec = Qwen3TTSConfig(**case.spec["config"])
        options["suppress_tokens"] = suppressed_ids(codec, [codec.talker_config.codec_eos_token_id])
    return options


@reference_runner("qwen3_tts", kinds=("talker_gen_*",), needs=("call", "inputs.input_ids.0"))
def run_generation(case: ReferenceCase) -> Iterator[Check]:
    """Prompt rows, positions, scores of the first steps, codes and hidden states of greedy or recorded sampling."""
    model = build_model(case)
    batch_size = len(case.inputs("input_ids"))
    rows = [find_prompt(case, model, row) for row in range(batch_size)]
    prompts = PromptBuilder(model).batch(rows)
    yield from check_prompts(case, prompts)
    decoding = frame_decoding(case, model, prompts)
    codes, hidden, logits = collect(decoding, model, batch_size)
    if case.holds("outputs.logits_first_steps"):
        yield check_first_logits(case, logits)
    for row in range(batch_size):
        for name, values, tolerance in (("codes", codes, "exact"), ("hidden", hidden, float_tolerance(case))):
            expected = case.output(f"{name}.{row}")
            if expected is not None:
                actual = torch.stack(values[row]) if values[row] else expected.new_zeros(0, *expected.shape[1:])
                yield compare(f"{name}.{row}", actual, expected, tolerance)
    if case.holds("outputs.talker_tokens"):
        tokens = case.output("talker_tokens")
        end = model.config.talker_config.codec_eos_token_id
        padded = [(row + [end] * tokens.shape[1])[: tokens.shape[1]] for row in decoding.picked]
        yield compare("talker_tokens", torch.tensor(padded), tokens)


def check_first_logits(case: ReferenceCase, logits: list[tuple[list[int], torch.Tensor]]) -> Check:
    """Raw scores of the first steps; what upstream computes for a row after its end is never used, nor run by ours."""
    expected = case.output("logits_first_steps")
    actual = expected.clone()
    for step, (rows, scores) in enumerate(logits[: expected.shape[1]]):
        actual[rows, step] = scores.cpu()
    return compare("logits_first_steps", actual[:, : len(logits)], expected, float_tolerance(case))


def float_tolerance(case: ReferenceCase) -> float:
    """The stated tolerance of real numbers; the sampled case states none."""
    return float(case.spec["tolerance"].get("float", 2e-5))


def check_prompts(case: ReferenceCase, prompts: PromptBatch) -> Iterator[Check]:
    """Prompt rows, mask, positions (at padding upstream's value is never seen) and the rows for the frames."""
    tolerance, mask = float_tolerance(case), prompts.attention_mask.cpu()
    yield compare("prefill_embeds", prompts.inputs_embeds, case.output("prefill_embeds"), tolerance)
    yield compare("prefill_mask", mask, case.output("prefill_mask"))
    yield compare("trailing_text_hidden", prompts.trailing, case.output("trailing_text_hidden"), tolerance)
    yield compare("tts_pad_embed", prompts.pad_row[None, None], case.output("tts_pad_embed"), tolerance)
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    yield compare("prefill_position_ids", positions, case.output("prefill_position_ids"))
    steps = case.output("step_position_ids")
    if steps is not None:
        yield compare("step_position_ids", mask.sum(-1, keepdim=True) + torch.arange(steps.shape[1]), steps)


def frame_decoding(
    case: ReferenceCase, model: Qwen3TTSForConditionalGeneration, prompts: PromptBatch
) -> FrameDecoding:
    """The loop that `generate` runs, with recorded draws where the case has them."""
    config, _ = model._resolve_generation_config(None, generation_options(case))
    samplers = [RowSampler(None, model.device)] * 2
    if case.holds("inputs.uniforms"):
        recorded, greedy = RecordedSampler(case.input("uniforms")), samplers[0]
        samplers = [recorded if drawn else greedy for drawn in (config.do_sample, config.subtalker_dosample)]
    limits = [config.max_new_tokens] * len(prompts.inputs_embeds)
    return model._decode_frames(prompts, config, Qwen3TTSOptions(), samplers, limits)


def collect(
    decoding: FrameDecoding, model: Qwen3TTSForConditionalGeneration, batch_size: int
) -> tuple[list[list[torch.Tensor]], list[list[torch.Tensor]], list[tuple[list[int], torch.Tensor]]]:
    """Codes and hidden states of each row; rows and raw scores of every step, the one that ends a row included."""
    codes: list[list[torch.Tensor]] = [[] for _ in range(batch_size)]
    hidden: list[list[torch.Tensor]] = [[] for _ in range(batch_size)]
    logits: list[tuple[list[int], torch.Tensor]] = []
    head = getattr(decoding, "codec_head", None)  # a recorded program has none to ask: its frames' states tell

    def recorded(states: torch.Tensor) -> torch.Tensor:
        logits.append((list(decoding.rows), head(states)))
        return logits[-1][1]

    if head is not None:
        decoding.codec_head = recorded
    for step in decoding:
        for place, row in enumerate(step.rows):
            codes[row].append(step.codes[place].cpu())
            hidden[row].append(step.hidden_states[place].cpu())
        if head is None and step.rows:
            logits.append((list(step.rows), model.talker.codec_head(step.hidden_states)))
    return codes, hidden, logits


# The code predictor


@reference_runner("qwen3_tts", kinds=("code_predictor_*",), needs=("inputs.past_hidden", "inputs.first_code"))
def run_code_predictor(case: ReferenceCase) -> Iterator[Check]:
    """Greedy codes and their scores, the sum of the frame's rows, and the scores and losses of known frames."""
    model = build_model(case)
    talker, none = model.talker, LogitsProcessorList()
    hidden, first = case.input("past_hidden")[:, 0], case.input("first_code")[:, 0]
    writer = FrameWriter(talker.code_predictor, none, RowSampler(None, model.device))
    codes, embeds, scores = writer.write(hidden, talker.embed_codec(first))
    yield case.check("codes", codes, "codes")
    yield case.check("step_logits", torch.stack(scores, 1), "float")
    yield case.check("frame_embedding", embeds, "float")
    if case.holds("inputs.teacher_codes"):
        yield from check_known_frames(case, talker, hidden)


def check_known_frames(case: ReferenceCase, talker: Qwen3TTSTalker, hidden: torch.Tensor) -> Iterator[Check | None]:
    """Scores of all codes at once, and both losses of them."""
    teacher = case.input("teacher_codes")
    logits = talker.code_predictor(hidden, talker.embed_codec(teacher[:, 0]), teacher[:, 1:]).logits
    yield case.check("teacher_logits", logits, "float")
    # As a batch of two positions: the state before the frame (and, for the shipped loss, at it), and the frame.
    frames = torch.stack([torch.full_like(teacher, -1), teacher], 1)
    states = torch.stack([hidden, hidden], 1)
    labels = torch.full(frames.shape[:2], -100, device=case.device)
    for name, loss_type in (("aligned_loss", "aligned"), ("upstream_loss", "shipped")):
        if not case.holds(f"outputs.{name}"):
            continue
        loss = talker.losses(states, talker.codec_head(states), frames, labels, loss_type)[1]
        yield case.check(name, loss[None], "float")


# The speaker encoder


def build_speaker_encoder(case: ReferenceCase, **overrides: Any) -> Qwen3TTSSpeakerEncoder:
    """The case's encoder; the full case names only what differs from the released defaults."""
    fields = Qwen3TTSSpeakerEncoderConfig().to_dict()
    given = {name: value for name, value in case.spec["config"].items() if name in fields}
    encoder = Qwen3TTSSpeakerEncoder(Qwen3TTSSpeakerEncoderConfig(**given | overrides))
    prefix = "speaker_encoder."
    shapes = {f"{prefix}{name}": list(value.shape) for name, value in encoder.state_dict().items()}
    assert set(shapes) == set(case.spec["keys"])
    filled = case.state_dict(shapes)
    encoder.load_state_dict({name.removeprefix(prefix): value for name, value in filled.items()})
    return encoder.eval().to(case.device)


@reference_runner("qwen3_tts", kinds=("speaker_encoder_*",), needs=("inputs.waveform",))
@reference_runner("qwen3_tts", kinds=("speaker_encoder_*",), needs=("inputs.mel", "outputs.embedding"))
def run_speaker_encoder(case: ReferenceCase) -> Iterator[Check]:
    """Log-mel frames of a waveform; the vectors of all of them, of a few, and of a batch."""
    encoder = build_speaker_encoder(case)
    mel = case.tensors.get("outputs.mel", case.tensors.get("inputs.mel"))
    if case.holds("inputs.waveform"):
        extractor = Qwen3TTSFeatureExtractor(feature_size=encoder.config.mel_dim)
        waveforms = torch.atleast_2d(case.input("waveform").cpu())
        heard = torch.stack([extractor.frames_of(samples) for samples in waveforms])
        yield case.check("mel", heard, "mel")
        mel = heard if mel is None else mel
    mel = mel.to(case.device)
    parts = {
        "embedding": lambda: mel,
        "embedding_short": lambda: mel[:, :20],
        "embedding_batch": lambda: torch.cat([mel[:, :60], mel[:, 60:120].flip(1)]),
    }
    for name, features in parts.items():
        if case.holds(f"outputs.{name}"):
            yield case.check(name, encoder(features()).speaker_embeddings, "float")


@reference_runner("qwen3_tts", kinds=("speaker_encoder_full*",), needs=("inputs.mel",))
def run_speaker_encoder_full(case: ReferenceCase) -> Iterator[Check]:
    """The vectors of released size, for each width that the case holds."""
    prefix = "outputs.embedding_"
    for width in sorted(int(name.removeprefix(prefix)) for name in case.tensors if name.startswith(prefix)):
        encoder = build_speaker_encoder(case, enc_dim=width)
        yield case.check(f"embedding_{width}", encoder(case.input("mel")).speaker_embeddings, "float")


# Scores


@reference_runner("qwen3_tts", kinds=("logits_processing*",), needs=("inputs.scores", "inputs.history"))
def run_scores(case: ReferenceCase) -> Iterator[Check]:
    """Scores after `n` frames, before and after temperature, top-k and top-p."""
    scores, history = case.input("scores"), case.input("history")
    with torch.device("meta"):
        config = Qwen3TTSConfig(talker_config=scores_config(case, scores.shape[1]))
        model = Qwen3TTSForConditionalGeneration(config)
    settings = {"processed": {"do_sample": False}} | {
        name: {"do_sample": True} | sampling_settings(text) for name, text in case.spec["settings"].items()
    }
    rule = case.spec["rule"]
    penalty = float(re.search(r"repetition penalty ([0-9.]+)", rule)[1])
    least = re.search(r"fewer than (\d+)", rule)
    settings = {name: given | {"min_new_tokens": int(least[1]) if least else 0} for name, given in settings.items()}
    for output in sorted(name for name in case.tensors if name.startswith("outputs.step")):
        step, name = re.fullmatch(r"outputs\.step(\d+)\.(\w+)", output).groups()
        config, _ = model._resolve_generation_config(None, settings[name] | {"repetition_penalty": penalty})
        processors = first_code_processors(model, config, case.device)
        picker = FirstCodePicker(len(scores), processors, RowSampler(None, case.device), penalty)
        picker.history = history[:, : int(step)]
        result = picker.scores(scores)
        if name != "processed":
            yield case.check(f"step{step}.{name}", result.softmax(-1), "float")
            continue
        # The difference of two infinities is no number: where they are is compared apart.
        expected = case.output(f"step{step}.processed")
        yield compare(f"step{step}.suppressed", result.isinf(), expected.isinf())
        finite = result.cpu().masked_fill(result.isinf().cpu(), 0.0)
        yield compare(f"step{step}.processed", finite, expected.masked_fill(expected.isinf(), 0.0), 1e-6)


def scores_config(case: ReferenceCase, size: int) -> dict[str, Any]:
    """A talker of as many scores; its end is the id that `what`, or a `config`, names."""
    config = {"vocab_size": size, "num_hidden_layers": 1, "codec_language_id": {}}
    if size != 3072:
        named = re.search(r"eos (\d+)", case.spec["what"])
        others = ("pad", "bos", "think", "nothink", "think_bos", "think_eos")
        config |= {f"codec_{name}_id": 0 for name in others}
        config |= {"codec_eos_token_id": int(named[1])} if named else {}
        config["code_predictor_config"] = {"vocab_size": max(size - 1024, 1)}
    return config | {name: value for name, value in (case.spec.get("config") or {}).items()}


def first_code_processors(
    model: Qwen3TTSForConditionalGeneration, config: GenerationConfig, device: torch.device
) -> LogitsProcessorList:
    """The processors of a model that has no weights, on a device that has them."""
    with patch.object(type(model), "device", device):
        return model._first_code_processors(config, LogitsProcessorList())


def sampling_settings(text: str) -> dict[str, float]:
    """`"temperature 0.9, top_k 50, top_p 1.0"` as keywords."""
    pairs = (entry.split() for entry in text.split(","))
    return {name: int(value) if name == "top_k" else float(value) for name, value in pairs}


# Training


@reference_runner("qwen3_tts", kinds=("sft_loss*",), needs=("inputs.codec_ids", "inputs.text_ids.0"))
def run_training_loss(case: ReferenceCase) -> Iterator[Check]:
    """The layout of a batch, and both losses of it: the right ones and those of upstream's script."""
    model = build_model(case)
    text_ids, codes = case.inputs("text_ids"), case.inputs("audio_codes")
    voices = case.input("speaker_embeddings") if case.holds("inputs.speaker_embeddings") else None
    batch = training_batch(model.config, [ids.flatten().tolist() for ids in text_ids], list(codes), voices)
    for name in ("labels", "attention_mask"):
        yield compare(name, batch[name], case.tensors.get(f"inputs.{name}"))
    batch = {name: value.to(case.device) for name, value in batch.items()}
    embeds = model.talker.embed(batch["input_ids"], batch["codec_ids"])
    embeds = add_speakers(embeds, batch.get("speaker_embeddings"), batch.get("speaker_positions"))
    yield case.check("aligned.input_embeddings", embeds, "float")
    for loss_type in ("aligned", "shipped"):
        if not any(name.startswith(f"outputs.{loss_type}.") for name in case.tensors):
            continue
        output = model(**batch, loss_type=loss_type)
        yield case.check(f"{loss_type}.talker_loss", output.talker_loss[None], "float")
        yield case.check(f"{loss_type}.predictor_loss", output.code_predictor_loss[None], "float")
        yield case.check(f"{loss_type}.total", output.loss[None], "float")
        if loss_type == "aligned":
            is_frame = batch["codec_ids"][:, 1:, 1] >= 0
            yield case.check("aligned.logits_frames", output.logits[:, :-1][is_frame], "float")
