"""Runs the reference cases of MegaTTS3's diffusion transformer and of its WaveVAE."""

from collections.abc import Iterator

import torch
from megatts3_parts import convert_transformer, convert_vae, transformer_config, vae_config

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tts_models.audio.lengths import length_mask
from tts_models.models.megatts3.flow_megatts3 import FlowNoise, guidance_weights, sway_times
from tts_models.models.megatts3.modeling_megatts3_transformer import (
    CONDITIONS,
    MegaTTS3Conditions,
    MegaTTS3TransformerModel,
    rotary_angles,
)
from tts_models.models.megatts3.modeling_megatts3_vae import MegaTTS3VAEModel


def make_transformer(case: ReferenceCase) -> MegaTTS3TransformerModel:
    """The transformer of a case with its weights."""
    upstream, weights = case.spec["config"], case.state_dict()
    config = transformer_config(
        weights,
        num_attention_heads=upstream["encoder_n_heads"],
        max_position_embeddings=upstream["max_seq_len"],
    )
    model = MegaTTS3TransformerModel(config).eval()
    model.load_state_dict(convert_transformer(weights))
    return model.to(case.device)


def close(case: ReferenceCase, name: str, actual: torch.Tensor, axis: int = -1) -> Check:
    """Compares with the case's one tolerance; of large tensors the first channels are stored."""
    expected = case.output(name)
    return compare(name, actual.narrow(axis, 0, expected.shape[axis]), expected, case.tolerance("atol"))


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


@reference_runner("megatts3", kinds=("dit_*",), needs=("inputs.mel2ph_ref", "inputs.noise_init", "outputs.solution"))
def run_transformer(case: ReferenceCase) -> Iterator[Check]:
    """Text states, one evaluation with and without guidance, and a solution with the recorded noise."""
    model, arguments = make_transformer(case), case.spec["call_args"]
    phones, tones, frame_map = joined(case)
    steps = torch.tensor([frame_map.shape[1] // model.config.frames_per_latent], device=case.device)
    prompt, prompt_lengths = model.check_prompt(case.input("vae_latent"), None, steps)
    in_prompt = length_mask(prompt_lengths, prompt.shape[1])[..., None].float()
    yield from check_preparation(case, model, prompt, in_prompt)

    phone_rows, tone_rows, map_rows = (case.output(f"dit_{name}").to(case.device) for name in ("phone", "tone", "dur"))
    yield close(case, "ling_states", model.text_encoder(phone_rows, tone_rows))
    text = model.text_states(phone_rows, tone_rows, map_rows, steps.repeat(CONDITIONS))
    yield close(case, "ling_expanded", text)

    conditions = model.guidance_conditions(phones, tones, frame_map, prompt, prompt_lengths, steps)
    rows = MegaTTS3Conditions(
        conditions.states, *(t.repeat(CONDITIONS, 1, *t.shape[2:]) for t in (conditions.target_mask, conditions.valid))
    )
    weights = guidance_weights(arguments["p_w"], arguments["t_w"], 1, case.device)
    yield close(case, "time_embed", model.time_embedding(case.input("timestep")))
    velocity = model.velocity(case.input("x").repeat(CONDITIONS, 1, 1), case.input("timestep"), rows)
    yield close(case, "velocity_rows", velocity)
    yield close(case, "velocity", (weights[:, 0] * velocity).sum(0, keepdim=True))
    if case.holds("inputs.encoder_states"):
        yield from check_masks(case, model)

    times = sway_times(arguments["timesteps"], model.config.sway_coefficient, case.device)
    yield close(case, "t_schedule", times)
    noise = FlowNoise(case.input("noise_init"), case.input("noise_steps").transpose(0, 1))
    for sequential in (False, True):
        yield close(case, "solution", model.solve_conditions(conditions, noise, times, weights, sequential))


def make_vae(case: ReferenceCase) -> MegaTTS3VAEModel:
    """WaveVAE of a case with its weights."""
    upstream, weights = case.spec["config"], case.state_dict()
    config = vae_config(
        weights,
        latent_upsampling_ratio=upstream["latent_upsample"],
        upsampling_ratios=upstream["ratios"],
        encoder_ratios=upstream["downsamples"],
    )
    model = MegaTTS3VAEModel(config).eval()
    model.load_state_dict(convert_vae(weights))
    return model.to(case.device)


@reference_runner("megatts3", kinds=("wavvae_*",), needs=("inputs.latent", "outputs.wav", "outputs.upsampled"))
def run_vae(case: ReferenceCase) -> Iterator[Check]:
    """Latents to the waveform, and back where there is an encoder."""
    model = make_vae(case)
    latents = case.input("latent")
    yield close(case, "upsampled", model.decoder.upsample_latents(latents), axis=1)
    yield close(case, "wav", model.decode(latents).audio_values[:, None])
    # The end of the waveform, decoded without its beginning.
    start = latents.shape[1] // 2
    tail = model.decode(latents, first_latent=start).audio_values[:, None]
    expected = case.output("wav")[..., start * model.config.hop_length :]
    yield compare("wav (end)", tail, expected, case.tolerance("atol"))
    if model.encoder is not None and case.holds("inputs.wav"):
        yield from check_encoder(case, model)


def check_encoder(case: ReferenceCase, model: MegaTTS3VAEModel) -> Iterator[Check]:
    """The waveform to mean, variance and a sample with the recorded noise."""
    waveform = case.input("wav")
    lengths = torch.full((len(waveform),), waveform.shape[1], device=case.device)
    yield close(case, "encoder_states", model.encoder_states(waveform, lengths), axis=1)
    encoded = model.encode(waveform, sample=True, noise=case.input("posterior_noise").transpose(1, 2))
    yield close(case, "mean", encoded.mean.transpose(1, 2))
    yield close(case, "logvar", encoded.log_variance.transpose(1, 2))
    yield close(case, "sampled_latent", encoded.latents)
