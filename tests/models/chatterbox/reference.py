"""Runs the cases of Chatterbox: T3's conditioning, generation and loss, the voice encoder, the alignment rule."""

from collections.abc import Iterator
from typing import Any

import convert_chatterbox_to_hf as conversion
import torch
from torch.nn import functional as F
from transformers import GenerationConfig

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tests.models.qwen3_tts.reference import RecordedSampler
from tts_models.acceleration.sampling import RowSampler
from tts_models.models.chatterbox import (
    ChatterboxFeatureExtractor,
    ChatterboxT3Config,
    ChatterboxT3Model,
    ChatterboxVoiceEncoder,
)
from tts_models.models.chatterbox.alignment_chatterbox import AlignmentEndRule, AlignmentTracker
from tts_models.models.chatterbox.decoding_chatterbox import T3Prompt, TokenDecoding, build_prompt, score_processors


# T3

# What upstream's configuration and generation assume where a case says nothing.
UPSTREAM_CONFIG: dict[str, Any] = {
    "start_text_token": 255,
    "stop_text_token": 0,
    "text_tokens_dict_size": 704,
    "start_speech_token": 6561,
    "stop_speech_token": 6562,
    "speech_tokens_dict_size": 8194,
    "speech_cond_prompt_len": 150,
    "speaker_embed_size": 256,
    "use_perceiver_resampler": True,
    "emotion_adv": True,
}
UPSTREAM_ARGUMENTS: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.2}
LLAMA_ARGUMENTS: dict[str, Any] = {"min_p": 0.05, "cfg_weight": 0.5}
TURBO_ARGUMENTS: dict[str, Any] = {"top_k": 1000, "max_gen_len": 1000}
MULTILINGUAL_TEXT_IDS = 2454


def t3_config(case: ReferenceCase) -> ChatterboxT3Config:
    """The case's configuration; a case of released size has none, its sizes are read off the keys."""
    with torch.device("meta"):
        shapes = {name: torch.empty(shape) for name, shape in case.spec["keys"].items()}
    is_gpt2 = "tfmr.wpe.weight" in shapes
    if "config" not in case.spec:
        return conversion.t3_config(shapes, (None, None) if is_gpt2 else (255, 0), 6561)
    given = UPSTREAM_CONFIG | case.spec["config"]
    positions = {name: shapes.get(f"{name}_pos_emb.emb.weight") for name in ("text", "speech")}
    rooms = {f"max_{name}_positions": None if rows is None else len(rows) for name, rows in positions.items()}
    perceiver = given.get("perceiver") or {}
    return ChatterboxT3Config(
        backbone_config=given["backbone"] | {"vocab_size": 1},
        text_vocab_size=given["text_tokens_dict_size"],
        start_text_token_id=None if is_gpt2 else given["start_text_token"],
        stop_text_token_id=None if is_gpt2 else given["stop_text_token"],
        speech_vocab_size=given["speech_tokens_dict_size"],
        num_speech_codes=max(min(given["start_speech_token"], given["stop_speech_token"]), 1),
        start_speech_token_id=given["start_speech_token"],
        stop_speech_token_id=given["stop_speech_token"],
        num_start_tokens=1 if is_gpt2 else 2,
        prompt_length=given["speech_cond_prompt_len"],
        speaker_embed_size=given["speaker_embed_size"],
        use_perceiver=given["use_perceiver_resampler"],
        perceiver_queries=perceiver.get("queries", 32),
        perceiver_heads=perceiver.get("heads", 4),
        use_emotion=given["emotion_adv"],
        speech_head_bias="speech_head.bias" in shapes,
        **rooms,
    )


def build_t3(case: ReferenceCase) -> ChatterboxT3Model:
    """The case's T3, filled in upstream's names and converted."""
    with torch.device("meta"):
        model = ChatterboxT3Model(t3_config(case))
    weights = conversion.convert_t3(case.state_dict())
    model.load_state_dict(weights, strict=True, assign=True)
    materialize_buffers(model)
    return model.eval().to(case.device)


def materialize_buffers(model: ChatterboxT3Model) -> None:
    """Give the tables that are computed, not stored, their values."""
    backbone = model.backbone
    if hasattr(backbone, "rotary_emb"):
        backbone.rotary_emb = type(backbone.rotary_emb)(backbone.config)
    for module in backbone.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta and name == "bias":
                size = buffer.shape[-1]
                module.register_buffer(name, torch.ones(size, size).tril().bool()[None, None], persistent=False)
            elif buffer.is_meta and name == "masked_bias":
                module.register_buffer(name, torch.tensor(-1e4), persistent=False)


def exaggeration(case: ReferenceCase) -> torch.Tensor | None:
    """The case's degrees of exaggeration, where it has any."""
    return case.input("emotion_adv").flatten() if case.holds("inputs.emotion_adv") else None


def voice_rows(case: ReferenceCase, t3: ChatterboxT3Model) -> torch.Tensor:
    """What T3 reads of the case's voices, `(batch, length, hidden_size)`."""
    speaker = case.input("speaker_emb").reshape(-1, t3.config.speaker_embed_size)
    return t3.embed_voice(speaker, voice_prompt(case), exaggeration(case))[0]


def voice_prompt(case: ReferenceCase) -> torch.Tensor | None:
    """The speech tokens of the voice, `None` where it has none."""
    name = "cond_prompt_speech_tokens"
    return case.input(name) if case.holds(f"inputs.{name}") else None


def for_rows(tensor: torch.Tensor | None, rows: int) -> torch.Tensor | None:
    """One voice for all rows, as upstream spreads it."""
    return tensor if tensor is None else tensor.expand(rows, *tensor.shape[1:])


def prompt_of(case: ReferenceCase, t3: ChatterboxT3Model, voice: torch.Tensor, is_guided: bool) -> T3Prompt:
    """What T3 reads of the case before it speaks; one voice may serve several texts."""
    texts = torch.atleast_2d(case.input("text_tokens"))
    return build_prompt(t3, list(for_rows(voice, len(texts))), list(texts), is_guided=is_guided)


@reference_runner("chatterbox_t3", kinds=("t3_conditioning*",), needs=("inputs.speaker_emb",))
def run_conditioning(case: ReferenceCase) -> Iterator[Check]:
    """The rows of a voice, and the prompt with and without its text, up to the first start of speech."""
    t3 = build_t3(case)
    voice = voice_rows(case, t3)
    yield case.check("cond", voice, "cond")
    if not case.holds("outputs.embeds"):
        return
    is_guided = len(case.output("embeds")) > len(torch.atleast_2d(case.input("text_tokens")))
    prompt = prompt_of(case, t3, voice, is_guided)
    repeated = t3.config.num_start_tokens - 1
    yield case.check("embeds", prompt.inputs_embeds[:, : prompt.inputs_embeds.shape[1] - repeated], "embeds")


class Recorder(RowSampler):
    """Passes scores on to a sampler and keeps the probabilities of the first and the last step."""

    def __init__(self, sampler: RowSampler) -> None:
        super().__init__(None, sampler.device)
        self.sampler, self.first, self.last = sampler, None, None

    def __call__(self, scores: torch.Tensor) -> torch.LongTensor:
        self.last = scores.softmax(-1)
        self.first = self.last if self.first is None else self.first
        return self.sampler(scores)


def end_rules(case: ReferenceCase, t3: ChatterboxT3Model, prompt: T3Prompt) -> list[AlignmentEndRule]:
    """The alignment rule, which upstream's 0.1.7 applies to models with the multilingual table of text ids."""
    is_watched = t3.config.text_vocab_size == MULTILINGUAL_TEXT_IDS and "0.1.7" in case.spec.get("upstream", "0.1.7")
    if not is_watched:
        return []
    t3.backbone.set_attn_implementation("eager")
    marks = t3.config.start_speech_token_id, t3.config.stop_speech_token_id
    return [AlignmentEndRule(prompt.text_starts, prompt.text_lengths, *marks)]


def generate(case: ReferenceCase, t3: ChatterboxT3Model, voice: torch.Tensor) -> tuple[list[list[int]], Recorder]:
    """The tokens that the case's arguments give, a list per text, and what was seen on the way."""
    is_turbo = t3.backbone.config.model_type == "gpt2"
    arguments = UPSTREAM_ARGUMENTS | (TURBO_ARGUMENTS if is_turbo else LLAMA_ARGUMENTS) | case.spec["arguments"]
    limit = arguments["max_gen_len"] + 1 if is_turbo else arguments["max_new_tokens"]
    weight = arguments.get("cfg_weight", 0.0)
    if is_turbo and not arguments["temperature"]:
        arguments["temperature"] = 1.0  # upstream leaves the scaling out
    # Upstream takes more arguments, of generation in transformers, and does nothing with them.
    used = {name: arguments.get(name, 0) for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")}
    config = GenerationConfig(**used, do_sample=True)
    prompt = prompt_of(case, t3, voice, is_guided=weight > 0)
    sampler = RowSampler(None, t3.device)
    if case.holds("inputs.uniforms"):
        sampler = RecordedSampler(case.input("uniforms"))
    recorder = Recorder(sampler)
    processors = score_processors(config, is_turbo, end_rules(case, t3, prompt))
    limits = [limit] * len(prompt.text_lengths)
    decoding = TokenDecoding(t3, prompt, processors, recorder, limits, weight, penalize_start=not is_turbo)
    for _ in decoding:
        pass
    stop = t3.config.stop_speech_token_id
    return [row[:-1] if is_turbo and row[-1] == stop else row for row in decoding.picked], recorder


@reference_runner("chatterbox_t3", kinds=("t3_*",), needs=("arguments", "inputs.speaker_emb", "outputs.tokens"))
def run_generation(case: ReferenceCase) -> Iterator[Check]:
    """Tokens of greedy or recorded sampling, with the probabilities of the first and the last step."""
    t3 = build_t3(case)
    voice = voice_rows(case, t3)
    if case.holds("outputs.cond"):
        expected = case.output("cond")  # a case of released size keeps every fourth column
        stride = voice.shape[-1] // expected.shape[-1]
        yield compare("cond", voice[..., ::stride], expected, case.tolerance("cond"))
    if case.holds("outputs.embeds"):
        prompt = prompt_of(case, t3, voice, is_guided=False)
        yield compare("embeds", prompt.inputs_embeds, case.output("embeds"), case.tolerance("embeds", "probs"))
    tokens, recorder = generate(case, t3, voice)
    yield case.check("tokens", torch.tensor(tokens), "tokens")
    for name in ("first", "last"):
        if case.holds(f"outputs.probs_{name}"):
            yield case.check(f"probs_{name}", getattr(recorder, name), "probs")
    if case.holds("outputs.probs_first_top50"):
        values, ids = recorder.first.topk(50)
        yield case.check("probs_first_top50", values, "probs")
        # What the filters left out is all zero: its order is nobody's choice.
        kept = case.tensors["outputs.probs_first_top50"] > 0
        expected = case.output("ids_first_top50")
        yield compare("ids_first_top50", ids.cpu()[kept], expected[kept])


@reference_runner(
    "chatterbox_t3", kinds=("t3_forward_loss*",), needs=("inputs.text_token_lens", "inputs.speech_token_lens")
)
def run_loss(case: ReferenceCase) -> Iterator[Check]:
    """Scores of a padded batch, and the cross entropies over them, shifted and, as upstream's code has it, not."""
    t3 = build_t3(case)
    labels, inputs = {}, {}
    for name in ("text", "speech"):
        ids = case.input(f"{name}_tokens")
        lengths = case.input(f"{name}_token_lens")
        is_padding = torch.arange(ids.shape[1], device=ids.device) >= lengths[:, None]
        inputs[name], labels[name] = ids, ids.masked_fill(is_padding, -100)
    # Upstream masks no padding: without a mask, every position counts.
    output = t3(
        input_ids=inputs["text"],
        speech_ids=inputs["speech"],
        speaker_embeddings=for_rows(
            case.input("speaker_emb").reshape(-1, t3.config.speaker_embed_size), len(inputs["text"])
        ),
        prompt_tokens=for_rows(voice_prompt(case), len(inputs["text"])),
        exaggeration=for_rows(exaggeration(case), len(inputs["text"])),
        labels=labels["speech"],
        text_labels=labels["text"],
    )
    if case.holds("outputs.next_text") and case.holds("outputs.next_speech"):
        both = case.output("next_text") + case.output("next_speech")
        yield compare("loss", output.loss, both, case.tolerance("loss"))
    # Beyond the lengths upstream scores a state of zeros.
    nothing = torch.zeros(t3.config.hidden_size, device=t3.device)
    scores = {}
    for name, head, given in (("text", t3.text_head, output.text_logits), ("speech", t3.speech_head, output.logits)):
        scores[name] = torch.where((labels[name] >= 0)[..., None], given, head(nothing))
    losses = {"text": output.text_loss, "speech": output.speech_loss}
    for name in ("text", "speech"):
        yield case.check(f"{name}_logits", scores[name], "logits")
        yield case.check(f"next_{name}", losses[name], "loss")
        unshifted = F.cross_entropy(scores[name].transpose(1, 2), labels[name], ignore_index=-100)
        yield case.check(f"same_{name}", unshifted, "loss")


# The voice encoder


@reference_runner("chatterbox_t3", kinds=("voice_encoder*",), needs=("inputs.wav0", "outputs.embeds"))
def run_voice_encoder(case: ReferenceCase) -> Iterator[Check]:
    """Bounds of the voice, mel frames, windows, and the vectors of recordings and of their speaker."""
    upstream = case.state_dict()
    config = conversion.voice_encoder_config(upstream)
    encoder = ChatterboxVoiceEncoder(config).eval().to(case.device)
    encoder.load_state_dict(conversion.convert_voice_encoder(upstream), strict=True)
    extractor, whole = ChatterboxFeatureExtractor(), ChatterboxFeatureExtractor(trim_decibels=None)
    count = sum(name.startswith("inputs.wav") for name in case.tensors)
    recordings = [case.input(f"wav{number}").cpu() for number in range(count)]
    bounds = [list(extractor.trim_bounds(each)) for each in recordings]
    yield compare("trim_bounds", bounds, case.spec.get("trim_bounds"))
    expected = case.spec.get("windows", [])
    yield compare("windows", [[frames, *window_sizes(encoder, frames)] for frames, _, _ in expected], expected)
    yield compare("frame_step", config.frame_step, case.spec.get("frame_step_rate_1.3"))
    for number, recording in enumerate(recordings):
        if case.holds(f"outputs.mel{number}"):
            yield check_mel(case, f"mel{number}", extractor.mel(recording))

    def embed(features: Any) -> torch.Tensor:
        batch = {name: value.to(case.device) for name, value in features.items()}
        return encoder(**batch).speaker_embeddings

    embeds = embed(extractor(recordings))
    yield case.check("embeds", embeds, "embeds")
    yield case.check("embeds_without_trim", embed(whole(recordings)), "embeds")
    yield case.check("speaker", F.normalize(embeds.mean(0), dim=-1), "embeds")
    encoder.config.windows_per_second = None
    yield case.check("embeds_rate_none", embed(extractor(recordings)), "embeds")


def window_sizes(encoder: ChatterboxVoiceEncoder, frames: int) -> tuple[int, int]:
    """Windows of a recording, and the frames that they cover."""
    count = encoder.count_windows(frames)
    return count, encoder.config.window_frames + encoder.config.frame_step * (count - 1)


def check_mel(case: ReferenceCase, name: str, mel: torch.Tensor) -> Check:
    """Frames against those of the case, which keeps the first bands or frames; the tolerance is mostly relative."""
    expected = case.output(name)
    actual = mel.cpu()[: expected.shape[0], : expected.shape[1]]
    allowed = 1e-4 * expected.abs() + 1e-6
    excess = ((actual - expected).abs() / allowed).max().item()
    return compare(name, torch.tensor(excess).clamp(min=1.0), torch.tensor(1.0), 1e-9)


# The alignment rule


@reference_runner("chatterbox_t3", kinds=("alignment*",), needs=("text_len", "len_cond", "first_rows"))
def run_alignment(case: ReferenceCase) -> Iterator[Check]:
    """Scores and state after every step, on attention rows made as the case says."""
    text, start = case.spec["text_len"], case.spec["len_cond"]
    paths = [name.removeprefix("inputs.").removesuffix("_path") for name in case.tensors if name.endswith("_path")]
    for path in sorted(paths):
        tracker = AlignmentTracker(text, case.spec["eos_idx"])
        scores, states = [], []
        steps = zip(case.input(f"{path}_path").tolist(), case.input(f"{path}_tokens").tolist(), strict=True)
        for step, (column, token) in enumerate(steps):
            rows = torch.full((case.spec["first_rows"] if step == 0 else 1, case.spec["first_rows"] + step), 0.01)
            rows[-1, start + column] = 0.9
            if step == 0:
                rows[-2, start] = 0.8
                rows = rows[start + text :]
            attention = rows[:, start : start + text]
            scores.append(tracker(attention, torch.zeros(case.spec["vocab"]), token))
            states.append([tracker.position, int(tracker.started), int(tracker.complete)])
        yield case.check(f"{path}_logits", torch.stack(scores), "logits")
        yield case.check(f"{path}_position_started_complete", torch.tensor(states), "logits")
