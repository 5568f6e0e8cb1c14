"""Runs the reference cases of MegaTTS3's diffusion transformer and of its WaveVAE."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from megatts3_parts import convert_transformer, convert_vae, has_encoder, transformer_config, vae_config

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tts_models import MegaTTS3VAEConfig
from tts_models.audio.lengths import length_mask
from tts_models.models.megatts3.flow_megatts3 import FlowNoise, guidance_weights, sway_times
from tts_models.models.megatts3.modeling_megatts3_transformer import (
    CONDITIONS,
    MegaTTS3Conditions,
    MegaTTS3TransformerModel,
    rotary_angles,
)
from tts_models.models.megatts3.modeling_megatts3_vae import MegaTTS3VAEDecoderOutput, MegaTTS3VAEModel


def stated_sizes(upstream: dict[str, Any]) -> dict[str, Any]:
    """Of the transformer's sizes those that its weights do not tell, where upstream's configuration does."""
    names = {"encoder_n_heads": "num_attention_heads", "max_seq_len": "max_position_embeddings"}
    return {ours: upstream[theirs] for theirs, ours in names.items() if theirs in upstream}


def make_transformer(case: ReferenceCase) -> MegaTTS3TransformerModel:
    """The transformer of a case with its weights."""
    weights = case.state_dict()
    model = MegaTTS3TransformerModel(transformer_config(weights, **stated_sizes(case.spec["config"]))).eval()
    model.load_state_dict(convert_transformer(weights))
    return model.to(case.device)


def close(case: ReferenceCase, name: str, actual: torch.Tensor, axis: int = -1) -> Check:
    """Compares within the case's tolerance; of large tensors the first channels are stored."""
    expected = case.output(name)
    if expected is None:
        return None
    return compare(name, actual.narrow(axis, 0, expected.shape[axis]), expected, case.tolerance(name, "atol"))


def joined(case: ReferenceCase) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Phones, tones and frame map of prompt and text together."""
    phones, tones = (torch.cat([case.input(f"{n}_ref"), case.input(f"{n}_pred")], dim=1) for n in ("ph", "tone"))
    frame_map = torch.cat([case.input("mel2ph_ref"), case.input("mel2ph_pred") + case.input("ph_ref").shape[1]], dim=1)
    return phones, tones, frame_map[:, : frame_map.shape[1] // 8 * 8]


def check_preparation(
    case: ReferenceCase, model: MegaTTS3TransformerModel, prompt: torch.Tensor, in_prompt: torch.Tensor
) -> Iterator[Check]:
    """What the three conditions are made of."""
    config, (phones, tones, frame_map) = model.config, joined(case)
    absent = torch.ones_like(phones)
    tones = model.clean_tones(tones)
    rows = {
        "dit_phone": (phones, phones, absent * config.dropped_phone_id),
        "dit_tone": (tones, tones, absent * config.dropped_tone_id),
        "dit_dur": (frame_map,) * CONDITIONS,
        "dit_lat_ctx": (prompt * in_prompt, 0 * prompt, 0 * prompt),
        "dit_ctx_mask": (in_prompt,) * CONDITIONS,
    }
    for name, conditions in rows.items():
        yield compare(name, torch.cat(conditions), case.output(name))


def check_masks(case: ReferenceCase, model: MegaTTS3TransformerModel) -> Iterator[Check]:
    """The layers alone, with upstream's two kinds of mask: True for what is seen, or numbers added to the scores."""
    inputs, mask = case.input("encoder_states"), case.input("encoder_mask")[:, None, None]
    shared = (*model.modulations(case.input("timestep")), rotary_angles(model.config, inputs.shape[1], inputs.device))
    for name, given in (("encoder_bool_mask", mask > 0), ("encoder_float_mask", mask)):
        yield close(case, name, model.out_proj(model.hidden_velocity(inputs, *shared, given)))


@reference_runner("megatts3", kinds=("dit_*",), needs=("inputs.mel2ph_ref", "inputs.mel2ph_pred", "inputs.vae_latent"))
def run_transformer(case: ReferenceCase) -> Iterator[Check]:
    """Text states, one evaluation with and without guidance, and a solution with the recorded noise."""
    model, arguments = make_transformer(case), case.spec.get("call_args", {})
    phones, tones, frame_map = joined(case)
    steps = torch.tensor([frame_map.shape[1] // model.config.frames_per_latent], device=case.device)
    prompt, prompt_lengths = model.check_prompt(case.input("vae_latent"), None, steps)
    in_prompt = length_mask(prompt_lengths, prompt.shape[1])[..., None].float()
    yield from check_preparation(case, model, prompt, in_prompt)

    absent = torch.ones_like(phones)
    cleaned = model.clean_tones(tones)
    phone_rows = torch.cat([phones, phones, absent * model.config.dropped_phone_id])
    tone_rows = torch.cat([cleaned, cleaned, absent * model.config.dropped_tone_id])
    map_rows = frame_map.repeat(CONDITIONS, 1)
    yield close(case, "ling_states", model.text_encoder(phone_rows, tone_rows))
    text = model.text_states(phone_rows, tone_rows, map_rows, steps.repeat(CONDITIONS))
    yield close(case, "ling_expanded", text)

    conditions = model.guidance_conditions(phones, tones, frame_map, prompt, prompt_lengths, steps)
    rows = MegaTTS3Conditions(
        conditions.states, *(t.repeat(CONDITIONS, 1, *t.shape[2:]) for t in (conditions.target_mask, conditions.valid))
    )
    strengths = (
        arguments.get("p_w", model.config.intelligibility_weight),
        arguments.get("t_w", model.config.similarity_weight),
    )
    weights = guidance_weights(*strengths, 1, case.device)
    if case.holds("inputs.timestep"):
        yield close(case, "time_embed", model.time_embedding(case.input("timestep")))
    if case.holds("inputs.x"):
        velocity = model.velocity(case.input("x").repeat(CONDITIONS, 1, 1), case.input("timestep"), rows)
        yield close(case, "velocity_rows", velocity)
        yield close(case, "velocity", (weights[:, 0] * velocity).sum(0, keepdim=True))
    if case.holds("inputs.encoder_states"):
        yield from check_masks(case, model)

    times = sway_times(
        arguments.get("timesteps", model.config.num_inference_steps), model.config.sway_coefficient, case.device
    )
    yield close(case, "t_schedule", times)
    if not case.holds("inputs.noise_init"):
        return
    noise = FlowNoise(case.input("noise_init"), case.input("noise_steps").transpose(0, 1))
    for sequential in (False, True):
        yield close(case, "solution", model.solve_conditions(conditions, noise, times, weights, sequential))


def new_vae(case: ReferenceCase, config: MegaTTS3VAEConfig, weights: dict[str, torch.Tensor]) -> MegaTTS3VAEModel:
    """WaveVAE with these weights."""
    model = MegaTTS3VAEModel(config).eval()
    model.load_state_dict(convert_vae(weights))
    return model.to(case.device)


def decoder_config(weights: dict[str, torch.Tensor], upstream: dict[str, Any]) -> MegaTTS3VAEConfig:
    """Sizes of WaveVAE by weights and upstream's configuration; the encoder's rate is the decoder's."""
    default = MegaTTS3VAEConfig()
    up = upstream.get("latent_upsample", default.latent_upsampling_ratio)
    ratios = upstream.get("ratios", default.upsampling_ratios)
    return vae_config(weights, latent_upsampling_ratio=up, upsampling_ratios=ratios, encoder_ratios=[up, *ratios])


def make_vae(case: ReferenceCase) -> tuple[MegaTTS3VAEModel, MegaTTS3VAEModel]:
    """WaveVAE of a case with its weights: what decodes, and what encodes."""
    upstream, weights = case.spec["config"], case.state_dict()
    config = decoder_config(weights, upstream)
    down = list(upstream.get("downsamples", MegaTTS3VAEConfig().encoder_ratios))
    is_one = math.prod(down) == config.hop_length
    if is_one or not has_encoder(weights):
        config.encoder_ratios = down if is_one else config.encoder_ratios
        model = new_vae(case, config, weights)
        return model, model
    # Two rates: upstream's halves know nothing of each other, ours are one model.
    decoder_only = {name: tensor for name, tensor in weights.items() if not name.startswith("encoder.")}
    decoder = new_vae(case, decoder_config(decoder_only, upstream), decoder_only)
    config.encoder_ratios, config.latent_upsampling_ratio, config.upsampling_ratios = down, 1, down
    encoder = MegaTTS3VAEModel(config).eval()
    own = {n: t for n, t in convert_vae(weights).items() if n.startswith(("encoder.", "latent_projection."))}
    assert not encoder.load_state_dict(own, strict=False).unexpected_keys
    return decoder, encoder.to(case.device)


@reference_runner("megatts3", kinds=("wavvae_*",), needs=("inputs.latent", "keys"))
@reference_runner("megatts3", kinds=("wavvae_*",), needs=("inputs.wav", "keys"))
def run_vae(case: ReferenceCase) -> Iterator[Check]:
    """Latents to the waveform, and back where there is an encoder."""
    decoder, encoder = make_vae(case)
    if case.holds("inputs.latent"):
        latents = case.input("latent")
        yield close(case, "upsampled", decoder.decoder.upsample_latents(latents), axis=1)
        yield close(case, "wav", waveforms(decoder.decode(latents)))
        expected = case.output("wav")
        if expected is not None:
            # The end of the waveform, decoded without its beginning.
            start = latents.shape[1] // 2
            tail = waveforms(decoder.decode(latents, first_latent=start))
            expected = expected[..., start * decoder.config.hop_length :]
            yield compare("wav (end)", tail, expected, case.tolerance("wav", "atol"))
    if encoder.encoder is not None and case.holds("inputs.wav"):
        yield from check_encoder(case, encoder)


def waveforms(decoded: MegaTTS3VAEDecoderOutput) -> torch.Tensor:
    """What was decoded `(batch, bands, samples)`, as upstream has it also where there is one band."""
    values = decoded.audio_values
    return values[:, None] if values.dim() == 2 else values


def check_encoder(case: ReferenceCase, model: MegaTTS3VAEModel) -> Iterator[Check]:
    """The waveform to mean, variance and a sample with the recorded noise."""
    waveform = case.input("wav")
    lengths = torch.full((len(waveform),), waveform.shape[1], device=case.device)
    yield close(case, "encoder_states", model.encoder_states(waveform, lengths), axis=1)
    if not case.holds("inputs.posterior_noise"):
        encoded = model.encode(waveform)
        yield close(case, "mean", encoded.mean.transpose(1, 2))
        yield close(case, "logvar", encoded.log_variance.transpose(1, 2))
        return
    encoded = model.encode(waveform, sample=True, noise=case.input("posterior_noise").transpose(1, 2))
    yield close(case, "mean", encoded.mean.transpose(1, 2))
    yield close(case, "logvar", encoded.log_variance.transpose(1, 2))
    yield close(case, "sampled_latent", encoded.latents)
