"""Runs the cases of Qwen3-TTS: prompts and generation, the code predictor, the speaker encoder, scores, losses."""

import itertools
import re
from collections.abc import Iterator
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
)
from tts_models.acceleration.sampling import RowSampler
from tts_models.models.qwen3_tts.decoding_qwen3_tts import FirstCodePicker, FrameDecoding, FrameWriter
from tts_models.models.qwen3_tts.modeling_qwen3_tts import add_speakers
from tts_models.models.qwen3_tts.processing_qwen3_tts import language_row
from tts_models.models.qwen3_tts.prompt_qwen3_tts import PromptBatch, PromptBuilder, PromptRow
from tts_models.models.qwen3_tts.request_qwen3_tts import Qwen3TTSOptions
from tts_models.models.qwen3_tts.training_qwen3_tts import training_batch


class RecordedSampler(RowSampler):
    """Draws with recorded uniform numbers, one row."""

    def __init__(self, uniforms: torch.Tensor) -> None:
        super().__init__([torch.Generator()], uniforms.device)
        self.recorded = iter(uniforms.tolist())

    def _draw(self) -> torch.Tensor:
        return torch.tensor([[next(self.recorded, 0.0)]], device=self.device)


def build_model(case: ReferenceCase) -> Qwen3TTSForConditionalGeneration:
    """The case's networks, filled in released names; those that it has no keys for stay as they are, unused."""
    torch.manual_seed(0)
    model = Qwen3TTSForConditionalGeneration(Qwen3TTSConfig(**case.spec["config"]))
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
    """Every prompt of one row that the case's description allows: it states speakers, languages and mode in prose."""

    def optional(name: str) -> torch.Tensor | None:
        return case.input(f"{name}.{row}") if case.holds(f"inputs.{name}.{row}") else None

    def flat(name: str) -> torch.Tensor | None:
        ids = optional(name)
        return None if ids is None else ids.flatten()

    codec, prose = model.config.talker_config, f"{case.spec['what']} {case.spec.get('note', '')}".lower()

    def mentioned(names: list[str]) -> list[str]:
        return [name for name in names if name.lower() in prose] or names

    speakers = mentioned(list(codec.spk_id)) if codec.spk_id else [None]
    languages = mentioned(["auto", *(name for name in codec.codec_language_id if "dialect" not in name)])
    modes = [mode for mode in (True, False) if f"non_streaming_mode={mode}".lower() in prose] or [True, False]
    for speaker, language, mode in itertools.product(speakers, languages, modes):
        yield PromptRow(
            input_ids=flat("input_ids"),
            instruct_ids=flat("instruct_ids"),
            reference_ids=flat("ref_ids"),
            reference_codes=optional("ref_code"),
            speaker_embedding=optional("ref_spk_embedding"),
            speaker_id=None if speaker is None else codec.spk_id[speaker],
            language_id=language_row(language, speaker, codec.codec_language_id, codec.spk_is_dialect),
            non_streaming_mode=mode,
        )


def find_prompt(case: ReferenceCase, model: Qwen3TTSForConditionalGeneration, row: int) -> PromptRow:
    """The allowed prompt that comes closest to the recorded one; the caller compares it."""
    expected = case.tensors["outputs.prefill_embeds"][row]
    expected = expected[case.tensors["outputs.prefill_mask"][row].bool()].to(case.device)
    builder, best = PromptBuilder(model), (float("inf"), None)
    for prompt in candidates(case, model, row):
        embeds = builder.build(prompt)[0]
        error = (embeds - expected).abs().max().item() if embeds.shape == expected.shape else 1e9
        best = min(best, (error, prompt), key=lambda pair: pair[0])
    return best[1]


def generation_options(case: ReferenceCase) -> dict[str, Any]:
    """The recorded call as keywords; the suppressed ids are the model's own rule, described in prose."""
    return {name: value for name, value in case.spec["call"].items() if name != "suppress_tokens"}


@reference_runner("qwen3_tts", kinds=("talker_gen_*",), needs=("call", "inputs.input_ids.0", "outputs.prefill_embeds"))
def run_generation(case: ReferenceCase) -> Iterator[Check]:
    """Prompt rows, positions, scores of the first steps, codes and hidden states of greedy or recorded sampling."""
    model = build_model(case)
    batch_size = len(case.tensors["outputs.prefill_mask"])
    rows = [find_prompt(case, model, row) for row in range(batch_size)]
    prompts = PromptBuilder(model).batch(rows)
    yield from check_prompts(case, prompts)
    decoding = frame_decoding(case, model, prompts)
    codes, hidden, logits = collect(decoding, model, batch_size)
    expected = case.output("logits_first_steps")
    yield compare("logits_first_steps", torch.stack(logits[: expected.shape[1]], 1), expected, float_tolerance(case))
    for row in range(batch_size):
        yield case.check(f"codes.{row}", torch.stack(codes[row]), "codes")
        yield compare(f"hidden.{row}", torch.stack(hidden[row]), case.output(f"hidden.{row}"), float_tolerance(case))
    if case.holds("outputs.talker_tokens"):
        tokens = case.output("talker_tokens")
        end = model.config.talker_config.codec_eos_token_id
        padded = [(row + [end] * tokens.shape[1])[: tokens.shape[1]] for row in decoding.picked]
        yield compare("talker_tokens", torch.tensor(padded), tokens)


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
    yield compare("step_position_ids", mask.sum(-1, keepdim=True) + torch.arange(steps.shape[1]), steps)


def frame_decoding(
    case: ReferenceCase, model: Qwen3TTSForConditionalGeneration, prompts: PromptBatch
) -> FrameDecoding:
    """The loop that `generate` runs, with recorded draws where the case has them."""
    config, _ = model._resolve_generation_config(None, generation_options(case))
    samplers = [RowSampler(None, model.device)] * 2
    if case.holds("inputs.uniforms"):
        samplers = [RecordedSampler(case.input("uniforms"))] * 2
    limits = [config.max_new_tokens] * len(prompts.inputs_embeds)
    return model._decode_frames(prompts, config, Qwen3TTSOptions(), samplers, limits)


def collect(
    decoding: FrameDecoding, model: Qwen3TTSForConditionalGeneration, batch_size: int
) -> tuple[list[list[torch.Tensor]], list[list[torch.Tensor]], list[torch.Tensor]]:
    """Codes and hidden states of each row, and the raw scores of every step that all rows took part in."""
    codes: list[list[torch.Tensor]] = [[] for _ in range(batch_size)]
    hidden: list[list[torch.Tensor]] = [[] for _ in range(batch_size)]
    logits = []
    for step in decoding:
        for place, row in enumerate(step.rows):
            codes[row].append(step.codes[place].cpu())
            hidden[row].append(step.hidden_states[place].cpu())
        if len(step.rows) == batch_size:
            logits.append(model.talker.codec_head(step.hidden_states).cpu())
    return codes, hidden, logits


# The code predictor


@reference_runner("qwen3_tts", kinds=("code_predictor_*",), needs=("inputs.past_hidden", "outputs.step_logits"))
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
    teacher = case.input("teacher_codes")
    logits = talker.code_predictor(hidden, talker.embed_codec(teacher[:, 0]), teacher[:, 1:]).logits
    yield case.check("teacher_logits", logits, "float")
    # As a batch of two positions: the state before the frame (and, for the shipped loss, at it), and the frame.
    frames = torch.stack([torch.full_like(teacher, -1), teacher], 1)
    states = torch.stack([hidden, hidden], 1)
    labels = torch.full(frames.shape[:2], -100, device=model.device)
    for name, loss_type in (("aligned_loss", "aligned"), ("upstream_loss", "shipped")):
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


@reference_runner("qwen3_tts", kinds=("speaker_encoder_*",), needs=("inputs.waveform", "outputs.mel"))
def run_speaker_encoder(case: ReferenceCase) -> Iterator[Check]:
    """Log-mel frames of a waveform; the vectors of all of them, of a few, and of a batch."""
    encoder = build_speaker_encoder(case)
    waveform = case.input("waveform").cpu()
    extractor = Qwen3TTSFeatureExtractor(feature_size=case.spec["config"]["mel_dim"])
    mel = extractor(waveform, sampling_rate=24000)["input_features"]
    yield case.check("mel", mel, "mel")
    mel = case.tensors["outputs.mel"].to(case.device)
    batch = torch.cat([mel[:, :60], mel[:, 60:120].flip(1)])
    for name, features in (("embedding", mel), ("embedding_short", mel[:, :20]), ("embedding_batch", batch)):
        if case.holds(f"outputs.{name}"):
            yield case.check(name, encoder(features).speaker_embeddings, "float")


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
        config = Qwen3TTSConfig(talker_config={"vocab_size": scores.shape[1], "num_hidden_layers": 1})
        model = Qwen3TTSForConditionalGeneration(config)
    settings = {"processed": {"do_sample": False}} | {
        name: {"do_sample": True} | sampling_settings(text) for name, text in case.spec["settings"].items()
    }
    penalty = float(re.search(r"repetition penalty ([0-9.]+)", case.spec["rule"])[1])
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


@reference_runner("qwen3_tts", kinds=("sft_loss*",), needs=("inputs.codec_ids", "outputs.aligned.total"))
def run_training_loss(case: ReferenceCase) -> Iterator[Check]:
    """The layout of a batch, and both losses of it: the right ones and those of upstream's script."""
    model = build_model(case)
    text_ids, codes = case.inputs("text_ids"), case.inputs("audio_codes")
    batch = training_batch(
        model.config, [ids.flatten().tolist() for ids in text_ids], list(codes), case.input("speaker_embeddings")
    )
    yield compare("labels", batch["labels"], case.input("labels").cpu())
    yield compare("attention_mask", batch["attention_mask"], case.input("attention_mask").cpu())
    batch = {name: value.to(case.device) for name, value in batch.items()}
    embeds = model.talker.embed(batch["input_ids"], batch["codec_ids"])
    embeds = add_speakers(embeds, batch["speaker_embeddings"], batch["speaker_positions"])
    yield case.check("aligned.input_embeddings", embeds, "float")
    for loss_type in ("aligned", "shipped"):
        output = model(**batch, loss_type=loss_type)
        yield case.check(f"{loss_type}.talker_loss", output.talker_loss[None], "float")
        yield case.check(f"{loss_type}.predictor_loss", output.code_predictor_loss[None], "float")
        yield case.check(f"{loss_type}.total", output.loss[None], "float")
        if loss_type == "aligned":
            is_frame = batch["codec_ids"][:, 1:, 1] >= 0
            yield case.check("aligned.logits_frames", output.logits[:, :-1][is_frame], "float")
