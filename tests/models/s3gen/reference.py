"""Runs the reference cases of S3Gen's flow: upstream's names and numbers in, the port's numbers out."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import convert_s3gen_to_hf as conversion
import torch

from tests.common.reference import Check, ReferenceCase, compare, compare_rows, reference_runner
from tts_models.audio.sinc_resample import sinc_resample
from tts_models.models.s3gen.chunks_s3gen import S3GenChunks
from tts_models.models.s3gen.configuration_s3gen import S3GenConfig
from tts_models.models.s3gen.modeling_s3gen import S3GenModel
from tts_models.models.s3gen.modeling_s3gen_flow import S3GenFlow
from tts_models.models.s3gen.modeling_s3gen_layers import relative_positions
from tts_models.models.s3gen.reference_s3gen import cut_at_marks, drop_invalid_tokens, make_prompt
from tts_models.models.s3gen.streaming_s3gen import S3GenFlowStream
from tts_models.models.s3gen.training_s3gen import TrainingDraws


# Upstream's name -> ours; the rest of the flow has no other name.
ENCODER_FIELDS = {
    "hidden_size": ("token_embed_dim", "encoder_output_size"),
    "heads": ("encoder_attention_heads",),
    "ffn": ("encoder_linear_units",),
    "blocks": ("encoder_num_blocks",),
    "up_blocks": ("encoder_num_up_blocks",),
    "pre_lookahead_len": ("pre_lookahead_len",),
    "up_stride": ("token_mel_ratio",),
}
ESTIMATOR_FIELDS = {
    "in_channels": "decoder_in_channels",
    "out_channels": "decoder_out_channels",
    "channels": "decoder_channels",
    "n_blocks": "decoder_n_blocks",
    "num_mid_blocks": "decoder_num_mid_blocks",
    "num_heads": "decoder_num_heads",
    "attention_head_dim": "decoder_attention_head_dim",
    "act_fn": "decoder_act_fn",
}
# Upstream's activations that have another name in transformers.
ACTIVATIONS = {"gelu-approximate": "gelu_pytorch_tanh", "geglu-approximate": "quick_gelu"}
FLOW_FIELDS = {
    "t_scheduler": "cfm_t_scheduler",
    "inference_cfg_rate": "cfm_inference_cfg_rate",
    "sigma_min": "cfm_sigma_min",
    "training_cfg_rate": "cfm_training_cfg_rate",
}


def make_config(case: ReferenceCase) -> S3GenConfig:
    """The configuration of a case; the released one where the case states none."""
    upstream = case.spec.get("config", {})
    encoder = upstream.get("encoder", upstream if "hidden_size" in upstream else {})
    estimator = upstream.get("estimator", upstream if "in_channels" in upstream else {})
    fields: dict[str, Any] = {
        ours: encoder[name] for name, many in ENCODER_FIELDS.items() if name in encoder for ours in many
    }
    fields |= {ours: estimator[name] for name, ours in ESTIMATOR_FIELDS.items() if name in estimator}
    fields |= {ours: upstream["cfm"][name] for name, ours in FLOW_FIELDS.items() if name in upstream.get("cfm", {})}
    if "out_channels" in estimator:
        fields["mel_bins"] = estimator["out_channels"]
    if "act_fn" in estimator:
        fields["decoder_act_fn"] = ACTIVATIONS.get(estimator["act_fn"], estimator["act_fn"])
    names = {"vocab_size": "vocab_size", "spk_embed_dim": "speaker_embed_dim"}
    fields |= {ours: upstream[name] for name, ours in names.items() if name in upstream}
    fields["meanflow"] = any(name.endswith("time_embed_mixer.weight") for name in case.spec["keys"])
    fields["hop_length"] = 24000 // (25 * encoder.get("up_stride", 2))
    if "stream" in upstream:
        fields["chunk_size"] = upstream["stream"]["chunk_tokens"]
    return S3GenConfig(**fields)


def make_flow(case: ReferenceCase) -> S3GenFlow:
    """The flow with the weights that the case has; of a part that it lacks, random ones."""
    torch.manual_seed(0)
    flow = S3GenFlow(make_config(case)).eval()
    names = flow.state_dict()
    given = {name.removeprefix("flow."): tensor for name, tensor in case.state_dict().items()}
    given = {
        name: tensor
        for name, tensor in given.items()
        if not name.startswith(("tokenizer.", "speaker_encoder.", "mel2wav."))
    }
    unexpected = sorted(set(given) - set(names))
    whole_parts = {
        part for part in ("encoder.", "decoder.", "input_embedding.") if any(n.startswith(part) for n in given)
    }
    missing = sorted(n for n in names if n.startswith(tuple(whole_parts)) and n not in given)
    if unexpected or (missing and not case.holds("inputs.pos_emb")):
        raise ValueError(f"{case.name}: unexpected {unexpected[:3]}, missing {missing[:3]}")
    flow.load_state_dict(given, strict=False)
    return flow.to(case.device)


def frames(tensor: torch.Tensor) -> torch.Tensor:
    """(batch, channels, frames) to (batch, frames, channels) and back."""
    return tensor.transpose(1, 2)


def score_bias(mask: torch.Tensor) -> torch.Tensor:
    """What the estimator adds to its scores for upstream's mask (batch, 1, frames) of ones and zeros."""
    return torch.zeros_like(mask)[:, None].masked_fill(mask[:, None] == 0, -1e10)


@torch.no_grad()
def velocity(flow: S3GenFlow, case: ReferenceCase, time: torch.Tensor, end: torch.Tensor | None) -> torch.Tensor:
    """The estimator as upstream calls it: (batch, mel_bins, frames), zero where masked."""
    estimator, mask = flow.decoder.estimator, case.input("mask")
    x, mu, cond = (frames(case.input(name)) for name in ("x", "mu", "cond"))
    speaker = case.input("spks")[:, None].expand(-1, x.shape[1], -1)
    joined = torch.cat([x, mu, speaker, cond], dim=-1)
    return frames(estimator(joined, estimator.shifts(time, end), score_bias(mask))) * mask


@reference_runner("s3gen", kinds=("estimator_*",), needs=("inputs.x", "inputs.spks", "outputs.velocity"))
def run_estimator(case: ReferenceCase) -> Iterator[Check]:
    """One evaluation of the estimator, and the sinusoids of the time."""
    flow = make_flow(case)
    end = case.input("r") if case.holds("inputs.r") else None
    yield case.check("velocity", velocity(flow, case, case.input("t"), end))
    if case.holds("outputs.time_features"):
        yield case.check("time_features", flow.decoder.estimator.time_mlp.features(case.input("t")), "velocity")


@reference_runner("s3gen", kinds=("flow_encoder_*",), needs=("inputs.xs", "outputs.hidden"))
@torch.no_grad()
def run_encoder(case: ReferenceCase) -> Iterator[Check]:
    """A padded batch as upstream encodes it, its mask, and the look-ahead alone."""
    encoder = make_flow(case).encoder
    inputs = case.input("xs")
    everything = torch.full(inputs.shape[:1], inputs.shape[1], device=inputs.device)
    lengths = case.input("xs_lens") if case.holds("inputs.xs_lens") else everything
    padding_mask = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
    encoder.mask_padding = False
    hidden_states = encoder(inputs, padding_mask)
    mask = padding_mask.repeat_interleave(encoder.stride, 1)[:, None].float().cpu()
    yield compare("mask", mask, case.output("mask"))
    expected = frames(mask) * case.output("hidden")
    yield compare("hidden", frames(mask) * hidden_states.cpu(), expected, case.tolerance("hidden"))
    yield case.check("pre_lookahead", encoder.pre_lookahead_layer(inputs), "hidden")


@reference_runner("s3gen", kinds=("flow_encoder_layer*",), needs=("inputs.x", "inputs.pos_emb", "outputs.hidden"))
@torch.no_grad()
def run_encoder_layer(case: ReferenceCase) -> Iterator[Check]:
    """One layer on small inputs, which shows the epsilon of its norms."""
    layer, inputs = make_flow(case).encoder.encoders[0], case.input("x")
    steps = inputs.shape[1]
    rows = relative_positions(steps - 1, 1 - steps, inputs.shape[2], inputs.dtype, inputs.device)
    yield compare("pos_emb", rows[None], case.input("pos_emb"), 1e-5)
    yield case.check("hidden", layer(inputs, None))


@reference_runner("s3gen", kinds=("flow_encoder_*",), needs=("inputs.token", "outputs.mu", "outputs.hidden"))
@torch.no_grad()
def run_token_encoder(case: ReferenceCase) -> Iterator[Check]:
    """Embedding, encoder (of which a large case keeps every n-th channel) and projection."""
    flow, tokens = make_flow(case), case.input("token")
    hidden_states = flow.encoder(flow.input_embedding(tokens))
    expected = case.output("hidden")
    yield case.check("hidden", hidden_states[..., :: hidden_states.shape[-1] // expected.shape[-1]])
    lengths = torch.tensor([tokens.shape[1]] * len(tokens), device=tokens.device)
    yield case.check("mu", flow.encode(tokens, lengths)[0])


@reference_runner("s3gen", kinds=("cfm_*",), needs=("inputs.mu", "inputs.z", "inputs.spks"))
@torch.no_grad()
def run_solver(case: ReferenceCase) -> Iterator[Check]:
    """The solver with recorded noise, by number of steps."""
    decoder = make_flow(case).decoder
    mask = case.input("mask")
    inputs = (frames(case.input("z")), frames(case.input("mu")), case.input("spks"), frames(case.input("cond")))
    for name in [n.removeprefix("outputs.") for n in sorted(case.tensors) if n.startswith("outputs.")]:
        kind, _, steps = name.rpartition("_")
        plan = decoder.plan(int(steps), None, mask.device)
        if kind == "t_span":
            yield case.check(name, plan.times, "mel")
            continue
        # Upstream's velocity is zero in the padding.
        solved = frames(decoder(*inputs, plan, score_bias(mask)))
        solved = torch.where(mask == 0, case.input("z"), solved)
        yield case.check(name, solved, "mel")


def tiny_parts() -> dict[str, Any]:
    """Configurations of the parts around a flow whose case says nothing of them."""
    return {
        "tokenizer_config": {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
        },
        "speaker_encoder_config": {"growth_rate": 4, "initial_channels": 16, "block_layers": [1, 1, 1]},
        "vocoder_config": {"base_channels": 16, "f0_predictor_cond_channels": 8},
    }


def make_model(case: ReferenceCase) -> S3GenModel:
    """A model around the flow of a case, which pads its batches as upstream does."""
    model = S3GenModel(S3GenConfig(**(make_config(case).to_dict() | tiny_parts())))
    model.flow.load_state_dict(make_flow(case).state_dict())
    model.flow.encoder.mask_padding = False
    return model.eval().to(case.device)


def reference_of(case: ReferenceCase) -> dict[str, torch.Tensor]:
    """The reference voice of a case."""
    dimensions = {"prompt_token": 2, "prompt_token_len": 1, "prompt_feat": 3, "embedding": 2}
    reference = {name: case.input(name) for name in dimensions if case.holds(f"inputs.{name}")}
    # Upstream adds the dimension of the batch where it is missing, and repeats one voice for all rows.
    reference = {name: value[(None,) * (dimensions[name] - value.dim())] for name, value in reference.items()}
    rows = max(len(tensor) for tensor in reference.values())
    return {name: value.expand(rows, *value.shape[1:]) for name, value in reference.items()}


def steps_of(case: ReferenceCase) -> int | None:
    """Euler steps, which a case states in words; `None` for the model's default."""
    if case.holds("n_timesteps"):
        return case.spec["n_timesteps"]
    words = case.spec["what"]
    stated = re.search(r"n_timesteps\s*=\s*(\d+)", words) or re.search(r"(\d+) (?:[\w-]+ )?steps?\b", words)
    return int(stated[1]) if stated else None


FLOW_INPUTS = ("inputs.token", "inputs.prompt_token", "inputs.prompt_feat", "inputs.embedding", "inputs.z")


@reference_runner("s3gen", kinds=("flow_inference_*", "flow_meanflow_*"), needs=(*FLOW_INPUTS, "outputs.mel"))
def run_flow(case: ReferenceCase) -> Iterator[Check]:
    """Tokens after a prompt to mel frames, a batch compared inside each row's length."""
    model, tokens = make_model(case), case.input("token")
    lengths = case.input("token_len") if case.holds("inputs.token_len") else None
    mel = model(
        tokens,
        ref_dict=reference_of(case),
        speech_token_lens=lengths,
        noise=case.input("z"),
        num_flow_steps=steps_of(case),
        finalize=True,
    )
    expected = case.output("mel")
    for row, length in enumerate([tokens.shape[1]] * len(tokens) if lengths is None else lengths.tolist()):
        valid = model.config.token_mel_ratio * length
        yield compare(f"mel.{row}", mel[row, :, :valid], expected[row, :, :valid], case.tolerance("mel"))


@reference_runner(
    "s3gen", kinds=("flow_finalize_*",), needs=(*FLOW_INPUTS, "outputs.mel_partial", "outputs.mel_final")
)
def run_finalize(case: ReferenceCase) -> Iterator[Check]:
    """Tokens that are not all there yet, then all of them, with full attention."""
    model, tokens, reference = make_model(case), case.input("token"), reference_of(case)
    # The last tokens given are only looked ahead at.
    known = case.output("mel_partial").shape[-1] // model.config.token_mel_ratio + model.config.pre_lookahead_len
    options = {"ref_dict": reference, "noise": case.input("z"), "num_flow_steps": steps_of(case)}
    first = model(tokens[:, :known], finalize=False, **options)
    final = model(tokens, finalize=True, **options)
    yield case.check("mel_partial", first, "mel")
    yield case.check("mel_final", final, "mel")
    difference = (final[..., : first.shape[-1]] - first).abs().max()
    yield case.check("prefix_difference", difference, "mel")


class RecordedNoise:
    """Noise by absolute frame from a tensor (1, mel_bins, frames)."""

    def __init__(self, noise: torch.Tensor):
        self.frames = noise[0].T

    def between(self, start: int, stop: int) -> torch.Tensor:
        """The frames `start … stop`."""
        return self.frames[start:stop]


@reference_runner("s3gen", kinds=("flow_stream_*",), needs=(*FLOW_INPUTS, "outputs.mel_offline_chunked", "calls"))
@torch.no_grad()
def run_flow_stream(case: ReferenceCase) -> Iterator[Check]:
    """The stream call by call, and one call over everything with the chunks' attention and with full attention."""
    model, tokens, reference, noise = make_model(case), case.input("token"), reference_of(case), case.input("z")
    chunks = S3GenChunks(case.spec["config"]["stream"]["chunk_tokens"], first=None)
    prompt = make_prompt(reference, model.config, model.device)
    plan = model.flow.decoder.plan(steps_of(case), None, model.device)
    flow_stream = S3GenFlowStream(model.flow, prompt, plan, chunks)
    ratio, start = model.config.token_mel_ratio, 0
    for number, call in enumerate(case.spec["calls"]):
        given = tokens[:, start : call["tokens_given"]]
        yield compare(f"offset of call {number}", ratio * call["token_offset"], ratio * flow_stream.tokens_out)
        piece = flow_stream.push(given, RecordedNoise(noise), is_final=call["finalize"])
        yield case.check(f"chunk{number}", piece, "mel")
        start = call["tokens_given"]
    for name, divided in (("mel_offline_chunked", chunks), ("mel_offline_full", None)):
        mel = model(
            tokens, ref_dict=reference, noise=noise, num_flow_steps=steps_of(case), finalize=True, chunks=divided
        )
        yield case.check(name, mel, "mel")
    joined = torch.cat([prompt.tokens, tokens], dim=1)
    hidden_states = model.flow.encoder(model.flow.input_embedding(joined), chunk_mask=chunks.mask(prompt.lengths))
    yield case.check("encoder_hidden_chunked", hidden_states, "mel")


@reference_runner("s3gen", kinds=("flow_loss_*",), needs=("inputs.speech_feat", "inputs.t_uniform", "outputs.loss"))
@torch.no_grad()
def run_loss(case: ReferenceCase) -> Iterator[Check]:
    """The training loss with the recorded draws."""
    model, time = make_model(case), case.input("t_uniform").flatten()
    # Upstream draws nothing where no row is to lose its conditions.
    is_drawn = case.holds("inputs.cfg_uniform") and model.config.cfm_training_cfg_rate > 0
    draws = TrainingDraws(
        time=time,
        noise=frames(case.input("z")),
        keep=case.input("cfg_uniform") > model.config.cfm_training_cfg_rate if is_drawn else torch.ones_like(time) > 0,
        prompt_frames=case.input("cond_prefix"),
    )
    output = model(
        case.input("speech_token").clamp(min=0),
        speech_token_lens=case.input("speech_token_len"),
        labels=case.input("speech_feat"),
        speaker_embedding=case.input("embedding"),
        training_draws=draws,
    )
    yield case.check("loss", output.loss)


@reference_runner("s3gen", kinds=("drop_invalid_tokens*",), needs=("rows",), table=True)
def run_drop_invalid_tokens(case: ReferenceCase) -> Iterator[Check]:
    """Ids of a language model to speech tokens, in the two ways upstream has; we drop ids beyond the marks in both."""
    ways = {"between_markers": cut_at_marks, "below_6561": partial(drop_invalid_tokens, between_marks=False)}
    for column, way in ways.items():
        expected = {str(row["input"]): row[column] for row in case.spec["rows"]}
        actual = {str(row["input"]): way(torch.tensor(row["input"]).long()).tolist() for row in case.spec["rows"]}
        yield compare_rows(column, actual, expected)


def whole_model(case: ReferenceCase) -> S3GenModel:
    """The released model with the weights of a case."""
    counters = {name: torch.tensor(0) for name in case.spec["keys"] if name.endswith("num_batches_tracked")}
    return conversion.load_s3gen(case.state_dict() | counters).to(case.device)


@reference_runner("s3gen", kinds=("embed_ref_*",), needs=("inputs.wav24", "outputs.a_prompt_feat"))
def run_embed_ref(case: ReferenceCase) -> Iterator[Check]:
    """Two references: at the model's rate, and at 22.05 kHz with an odd number of mel frames."""
    model = whole_model(case)
    rates = {"a": ("wav24", 24000), "b": ("wav22", 22050)}
    for name, (wav, rate) in rates.items():
        if not case.holds(f"inputs.{wav}"):
            continue
        reference = model.embed_ref(case.input(wav), rate)
        yield case.check(f"{name}_prompt_feat", reference["prompt_feat"], "prompt_feat")
        yield case.check(f"{name}_embedding", reference["embedding"], "embedding")
        yield case.check(f"{name}_prompt_token", reference["prompt_token"], "prompt_token")
        yield compare(f"{name} length", reference["prompt_token_len"], case.output(f"{name}_prompt_token_len"))
    tolerance = 1e-5
    for output, wav, rate, target in (
        ("a_resampled_16k", "wav24", 24000, 16000),
        ("b_resampled_24k", "wav22", 22050, 24000),
    ):
        expected = case.output(f"{output}_first_2000")
        if expected is not None:
            yield compare(output, sinc_resample(case.input(wav), rate, target)[:2000], expected, tolerance)


@reference_runner("s3gen", kinds=("s3gen_*_full",), needs=("inputs.speech_tokens", "inputs.phase", "outputs.wav"))
@torch.no_grad()
def run_whole(case: ReferenceCase) -> Iterator[Check]:
    """Tokens to mel, mel and stored source to waveform, and everything end to end."""
    model, vocoder_draws = whole_model(case), {name: case.input(name) for name in ("noise", "phase")}
    mel = model(
        case.input("speech_tokens"),
        ref_dict=reference_of(case),
        noise=case.input("z"),
        num_flow_steps=steps_of(case),
        finalize=True,
    )
    yield case.check("mel", mel)
    fade = model.fade_in(case.device)

    def faded(waveform: torch.Tensor) -> torch.Tensor:
        return torch.cat([waveform[:, : len(fade)] * fade, waveform[:, len(fade) :]], dim=1)

    stored = {
        name: case.tensors[f"outputs.{name}"].to(case.device)
        for name in ("mel", "source")
        if case.holds(f"outputs.{name}")
    }
    if len(stored) == 2 and "wav_from_stored_source_and_mel" in case.spec["tolerance"]:
        waveform = faded(model.mel2wav.decode(stored["mel"], stored["source"]))
        tolerance = case.tolerance("wav_from_stored_source_and_mel")
        yield compare("wav from stored source", waveform, case.output("wav"), tolerance)
    waveform, source = model.mel2wav.inference(mel, **vocoder_draws)
    yield case.check("source", source)
    yield case.check("wav", faded(waveform))
    if case.holds("outputs.f0"):
        yield case.check("f0", model.mel2wav.f0_predictor(stored.get("mel", mel)), "source")
    if case.holds("outputs.trim_fade"):
        yield compare("trim_fade", fade, case.output("trim_fade"), 1e-6)
