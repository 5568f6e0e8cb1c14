"""Runs the reference cases of S3Gen's flow: upstream's names and numbers in, the port's numbers out."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tts_models.models.s3gen.chunks_s3gen import ChunkMask
from tts_models.models.s3gen.configuration_s3gen import S3GenConfig
from tts_models.models.s3gen.modeling_s3gen_flow import S3GenFlow
from tts_models.models.s3gen.modeling_s3gen_layers import relative_positions


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
    "meanflow": "meanflow",
}
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
    if "vocab_size" in upstream:
        fields |= {"vocab_size": upstream["vocab_size"], "speaker_embed_dim": upstream["spk_embed_dim"]}
    if "meanflow" in upstream or "meanflow" in case.kind:
        fields["meanflow"] = True
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
    if unexpected or (missing and "layer" not in case.kind):
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
    inputs, lengths, mask = case.input("xs"), case.input("xs_lens"), case.output("mask")
    padding_mask = torch.arange(inputs.shape[1], device=inputs.device) < lengths[:, None]
    encoder.mask_padding = False
    hidden_states = encoder(inputs, padding_mask)
    yield compare("mask", padding_mask.repeat_interleave(encoder.stride, 1)[:, None].float(), mask)
    expected = frames(mask) * case.output("hidden")
    yield compare("hidden", frames(mask) * hidden_states.cpu(), expected, case.tolerance("hidden"))
    yield case.check("pre_lookahead", encoder.pre_lookahead_layer(inputs), "hidden")


@reference_runner("s3gen", kinds=("flow_encoder_layer*",), needs=("inputs.x", "inputs.pos_emb", "outputs.hidden"))
@torch.no_grad()
def run_encoder_layer(case: ReferenceCase) -> Iterator[Check]:
    """One layer on small inputs, which shows the epsilon of its norms."""
    layer, inputs = make_flow(case).encoder.encoders[0], case.input("x")
    steps = inputs.shape[1]
    rows = relative_positions(steps - 1, 1 - steps, inputs.shape[2], inputs)
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
