"""Runs MegaTTS3's cases of the aligner, the duration model, and the list of released tensors."""

import math
import re
from collections.abc import Iterator

import convert_megatts3_to_hf as conversion
import megatts3_parts as parts
import torch
from checkpoint_tools import ConversionError, account_for, state_shapes
from transformers import Qwen2ForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tests.common.reference import Check, ReferenceCase, compare, compare_rows, reference_runner
from tts_models import (
    MegaTTS3AlignerForConditionalGeneration,
    MegaTTS3Config,
    MegaTTS3DurationModel,
    MegaTTS3TransformerModel,
    MegaTTS3VAEModel,
)
from tts_models.models.megatts3.sampling_megatts3_duration import DurationLoop, MegaTTS3DurationPrompt


# The aligner


def build_aligner(case: ReferenceCase) -> MegaTTS3AlignerForConditionalGeneration:
    """The case's aligner, filled in upstream's names and converted."""
    upstream, given = case.state_dict(), case.spec["config"]
    names = {
        "n_head": ("encoder_attention_heads", "decoder_attention_heads"),
        "n_audio_ctx": ("max_source_positions",),
    }
    sizes = {ours: given[theirs] for theirs, each in names.items() if theirs in given for ours in each}
    config = parts.aligner_config(upstream, **sizes)
    model = MegaTTS3AlignerForConditionalGeneration(config).eval().to(case.device)
    model.load_state_dict(parts.convert_aligner(upstream), strict=True)
    return model


@reference_runner("megatts3", kinds=("aligner*",), needs=("inputs.mel", "keys"))
def run_aligner(case: ReferenceCase) -> Iterator[Check]:
    """States with and without a mask, scores of given tokens, and the likeliest tokens step by step."""
    model = build_aligner(case)
    mel = case.input("mel")

    def check(name: str, actual: torch.Tensor) -> Check | None:
        return case.check(name, actual, "atol")

    features = model.encoder(mel).last_hidden_state
    yield check("audio_features", features)
    # Upstream hides padding from attention only, not from the convolutions; its mask is as wide as the longest row.
    if case.holds("outputs.audio_features_masked"):
        lengths = case.input("mel_lengths").to(mel.device) // 2
        mask = torch.arange(int(lengths.max()), device=mel.device) < lengths[:, None]
        mask = mask.expand(-1, features.shape[1])
        yield check("audio_features_masked", model.encoder.encode(model.encoder.embed(mel), mask))
    if case.holds("outputs.logits"):
        expected = case.tensors["outputs.logits"]
        logits = model(encoder_outputs=(features,), decoder_input_ids=case.input("tokens")).logits
        yield check("logits", logits[..., : expected.shape[-1]])
    if case.holds("outputs.greedy_tokens"):
        yield from check_greedy(case, model, mel, features)


def check_greedy(
    case: ReferenceCase, model: MegaTTS3AlignerForConditionalGeneration, mel: torch.Tensor, features: torch.Tensor
) -> Iterator[Check | None]:
    """The likeliest tokens of the first rows, and the scores of each step."""
    greedy, end = case.output("greedy_tokens"), model.config.eos_token_id
    # Upstream may use the last position too, and a case may go on behind the end.
    expected = [row[: row.index(end) + 1] if end in row else row for row in greedy.tolist()]
    steps = min(max(map(len, expected)), model.config.max_target_positions) - 1
    expected = [row[: steps + 1] for row in expected]
    written = model.align(mel[: len(expected)], max_new_tokens=steps)
    tokens = [
        [model.config.decoder_start_token_id, *row, *([end] if len(row) < steps else [])][: len(known)]
        for row, known in zip(written, expected, strict=True)
    ]
    yield compare("greedy_tokens", tokens, expected)
    if case.holds("outputs.greedy_logits"):
        fed = greedy[:, :-1].to(mel.device)
        scores = model(encoder_outputs=(features[: len(fed)],), decoder_input_ids=fed).logits
        width = case.tensors["outputs.greedy_logits"].shape[-1]
        yield case.check("greedy_logits", scores[..., :width], "atol")
        yield compare("greedy_tokens of the scores", scores.argmax(-1), greedy[:, 1:])


# The duration model


def build_duration(case: ReferenceCase) -> MegaTTS3DurationModel:
    """The case's duration model, filled in upstream's names and converted."""
    upstream = case.state_dict()
    has_positions = case.spec["config"].get("use_pos_embed", False)
    config = parts.duration_config(upstream, use_position_embedding=has_positions)
    model = MegaTTS3DurationModel(config).eval().to(case.device)
    model.load_state_dict(parts.convert_duration(upstream), strict=True)
    return model


class Recorder(DurationLoop):
    """A loop that keeps its scores."""

    def read(self) -> torch.Tensor:
        scores = super().read()
        self.scores = [*getattr(self, "scores", []), scores]
        return scores


def unrotated(model: MegaTTS3DurationModel, keys: torch.Tensor) -> torch.Tensor:
    """Keys `(batch, heads, length, head_dim)` before the rotary positions 0, 1, …, as upstream caches them."""
    cos, sin = model.rotation(torch.arange(keys.shape[2], device=keys.device)[None])
    return apply_rotary_pos_emb(keys, keys, cos, -sin)[0]


def run_loop(
    case: ReferenceCase, model: MegaTTS3DurationModel, prompt: MegaTTS3DurationPrompt | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and scores of all steps, of the case's text."""
    phones = case.input("phone")
    loop = Recorder(model, len(phones), phones.shape[1] + (0 if prompt is None else prompt.keys.shape[3]))
    loop.load(prompt, model.encode_text(phones, case.input("tone")))
    return loop.run(phones.shape[1]), torch.stack(loop.scores, dim=1)


@reference_runner("megatts3", kinds=("duration_*",), needs=("inputs.phone_batch", "inputs.tone_batch"))
@reference_runner("megatts3", kinds=("duration_*",), needs=("inputs.phone_prompt", "inputs.tone_prompt"))
@reference_runner("megatts3", kinds=("duration_*",), needs=("inputs.phone", "inputs.tone", "keys"))
def run_duration(case: ReferenceCase) -> Iterator[Check]:
    """Text states of a padded batch, parallel and step-by-step outputs, the cache, with and without a prompt."""
    model = build_duration(case)

    def check(name: str, actual: torch.Tensor) -> Check | None:
        return case.check(name, actual, "atol")

    if case.holds("outputs.ling_states_batch"):
        phones, tones = case.input("phone_batch"), case.input("tone_batch")
        yield check("ling_states_batch", model.encode_text(phones, tones))
    prompts = {"_no_prompt": None}
    if case.holds("inputs.phone_prompt"):
        reference = case.input("phone_prompt"), case.input("tone_prompt")
        if case.holds("inputs.prev_code"):
            given = model(*reference, case.input("prev_code")).logits
            yield check("teacher_forced", given)
            yield check("prompt_step_outputs", given)
        if case.holds("inputs.ctx_duration_tokens"):
            prompts[""] = model.prompt(*reference, case.input("ctx_duration_tokens") - 1)
            yield from check_cache(case, model, prompts[""])
    if not case.holds("inputs.phone"):
        return
    for suffix, prompt in prompts.items():
        tokens, scores = run_loop(case, model, prompt)
        yield check(f"step_outputs{suffix}", scores)
        yield compare(f"durations{suffix}", tokens, case.output(f"durations{suffix}"))


def check_cache(
    case: ReferenceCase, model: MegaTTS3DurationModel, prompt: MegaTTS3DurationPrompt
) -> Iterator[Check | None]:
    """Keys and values of the layers that the case holds."""
    layers = {**{f"layer{index}": index for index in range(len(prompt.keys))}, "last": -1}
    for place, index in layers.items():
        for name, states in (("key", unrotated(model, prompt.keys[index])), ("value", prompt.values[index])):
            yield case.check(f"cache_{name}_{place}", states, "atol")


# The released tensors

CLASSES = {
    "aligner": (MegaTTS3AlignerForConditionalGeneration, parts.aligner_config),
    "duration": (MegaTTS3DurationModel, parts.duration_config),
    "transformer": (MegaTTS3TransformerModel, parts.transformer_config),
    "vae": (MegaTTS3VAEModel, parts.vae_config),
}
NETWORKS = {network: part for part, (_, network) in conversion.FOLDERS.items()}


@reference_runner("megatts3", kinds=("released*",), table=True)
def run_released(case: ReferenceCase) -> Iterator[Check]:
    """Every tensor of every file has its place, with its shape, or is on the list of unused ones."""
    actual, expected = {}, {}
    for name, tensors in case.spec.items():
        if not name.startswith("_"):
            actual[name], expected[name] = place_all(name, tensors), "all placed"
    yield compare_rows("released", actual, expected)
    counts = case.spec.get("_note", {}).get("element_counts", {})
    sizes = {name: sum(math.prod(shape) for _, shape in case.spec[name].values()) for name in counts}
    yield compare_rows("elements", sizes, counts)


def place_all(file: str, tensors: dict[str, tuple[str, list[int]]]) -> str:
    """Converts one file's names and shapes; says what is wrong, or that all is placed."""
    with torch.device("meta"):
        upstream = {name: torch.empty(shape) for name, (_, shape) in tensors.items()}
        try:
            if "state_dict." not in file:
                return place_g2p(upstream)
            part = NETWORKS[file.rpartition(".")[2]]
            model_class, read_config = CLASSES[part]
            model, converted = model_class(read_config(upstream)), parts.PARTS[part][0](upstream)
            account_for({name: tensor.shape for name, tensor in converted.items()}, state_shapes(model))
        except ConversionError as error:
            return str(error)
    unused = [name for name in upstream if re.fullmatch(parts.PARTS[part][1], name)]
    is_decoder_only = part == "vae" and not model.config.has_encoder
    left_out = len(unused) if part != "vae" or is_decoder_only else 0
    fused = sum(name.endswith("weight_g") for name in upstream)
    accounted = len(converted) + left_out + fused
    return "all placed" if accounted == len(upstream) else f"{len(upstream) - accounted} are unaccounted for"


def place_g2p(upstream: dict[str, torch.Tensor]) -> str:
    """The same for the grapheme-to-phoneme model, whose head is its table."""
    model = Qwen2ForCausalLM(MegaTTS3Config().g2p_config)
    account_for({name: tensor.shape for name, tensor in upstream.items()}, state_shapes(model), ("lm_head.weight",))
    return "all placed"
