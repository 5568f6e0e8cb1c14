"""Runs MegaTTS3's cases around the networks: reference recordings, loudness and joining, and the whole chain."""

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from megatts3_parts import (
    convert_duration,
    convert_transformer,
    convert_vae,
    duration_config,
    transformer_config,
)

from tests.common.fill import fill_state_dict
from tests.common.reference import EXACT, Check, ReferenceCase, compare, reference_runner
from tests.models.megatts3.reference_dit_vae import decoder_config, stated_sizes
from tests.models.megatts3.tester import TINY
from tts_models import MegaTTS3Config, MegaTTS3FeatureExtractor, MegaTTS3ForConditionalGeneration, MegaTTS3Voice
from tts_models.audio.loudness import integrated_loudness, match_loudness
from tts_models.models.megatts3.durations_megatts3 import count_frames, expand_durations
from tts_models.streaming.crossfade import CrossFade


RATE, FADE = 24000, 3840


@reference_runner("megatts3", kinds=("prompt_features*",), needs=("inputs.wav",))
def run_prompt_features(case: ReferenceCase) -> Iterator[Check]:
    """Padding, resampling, mel frames and loudness of a reference recording."""
    extractor = MegaTTS3FeatureExtractor()
    padded = extractor.pad_reference(case.input("wav").cpu().numpy())
    yield compare("padded_length", torch.tensor(len(padded)), case.output("padded_length"))
    yield case.check("wav16", extractor.resample_reference(padded), "atol")
    frames = extractor.reference_features(padded)
    yield compare("frames", len(frames), case.spec.get("prompt_max_frame"))
    if case.holds("outputs.mel"):
        yield compare("mel", frames.T, case.output("mel")[:, : len(frames)], case.tolerance("mel", "atol"))
    whole = MegaTTS3FeatureExtractor(frames_multiple=1)
    if case.holds("outputs.wav16"):
        stored = whole.frames_of(case.tensors["outputs.wav16"].to(case.device)).T
        yield compare("mel of the stored wav16", stored, case.output("mel"), 1e-4)
    if case.holds("inputs.noise16"):
        noise = whole.frames_of(case.input("noise16")).T
        yield compare("mel_16k_noise", noise, case.output("mel_16k_noise"), 1e-4)
    loudness = integrated_loudness(padded.astype(np.float64), RATE)
    # Upstream's silence has a loudness of minus infinity.
    loudness = -math.inf if loudness is None else loudness
    yield case.check("loudness", torch.tensor([loudness]), "atol")


@reference_runner("megatts3", kinds=("post_processing*",), needs=("inputs.segment_0",))
def run_post_processing(case: ReferenceCase) -> Iterator[Check]:
    """Loudness of each segment, their cross-fade, and 16-bit samples."""
    target = case.spec["target_loudness"]
    names = sorted(
        (name.removeprefix("inputs.") for name in case.tensors if name.startswith("inputs.segment_")),
        key=lambda name: int(name.removeprefix("segment_")),
    )
    segments = []
    for index, name in enumerate(names):
        samples = match_loudness(case.input(name).cpu().numpy().astype(np.float64), RATE, target)
        segments.append(torch.from_numpy(samples.astype(np.float32)))
        yield case.check(f"normed_{index}", segments[-1], "atol")
    fade = CrossFade(FADE)
    combined = torch.cat([fade.add(segment, segment is segments[-1]) for segment in segments])
    yield case.check("combined", combined, "atol")
    if case.holds("outputs.int16_head"):
        expected = case.output("int16_head")
        # Truncated as upstream does; a sample next to a whole number may fall on either side of it.
        head = (combined[: len(expected)].double() * 32767).to(torch.int16)
        yield compare("int16_head", head.int(), expected.int(), 1.0)


OPTIONS = ("time_step", "p_w", "t_w", "dur_disturb", "dur_alpha")


class RecordedModel(MegaTTS3ForConditionalGeneration):
    """A model whose random numbers are those of a case."""

    case: ReferenceCase

    def _uniforms(self, request: Any, text: int, number: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        names = [f"seg{number}_uniform_{name}" for name in ("choice", "ratio")]
        if not request.config.dur_disturb and not all(self.case.holds(f"inputs.{name}") for name in names):
            return None
        return tuple(self.case.input(name)[0] for name in names)

    def _flow_noise(self, request: Any, places: list[int]) -> dict[str, torch.Tensor]:
        (place,) = places
        return {
            "initial_noise": self.case.input(f"seg{place}_noise_init"),
            "step_noise": self.case.input(f"seg{place}_noise_steps").transpose(0, 1),
        }


def part_weights(case: ReferenceCase, part: str) -> dict[str, torch.Tensor]:
    """Parameters of one part: filled by its own names, but scaled and stored by names that begin with the part's."""
    filled = fill_state_dict(case.spec["keys"][part])
    for pattern, factor in case.spec.get("weight_scale", ()):
        for name in filled:
            if re.search(pattern, f"{part}.{name}"):
                filled[name] = filled[name] * factor
    stored = f"weights.{part}."
    return filled | {name.removeprefix(stored): t for name, t in case.tensors.items() if name.startswith(stored)}


def build_model(case: ReferenceCase) -> RecordedModel:
    """The case's duration model, transformer and WaveVAE's decoder in one model; the other parts are not asked."""
    given = case.spec["configs"]
    weights = {part: part_weights(case, part) for part in case.spec["keys"]}
    decoder = {name: t for name, t in weights["wavvae"].items() if not name.startswith("encoder.")}
    config = MegaTTS3Config(
        aligner_config=TINY["aligner_config"],
        g2p_config=TINY["g2p_config"],
        g2p_first_phone_id=TINY["g2p_first_phone_id"],
        duration_config=duration_config(
            weights["duration"], use_position_embedding=given["duration"].get("use_pos_embed", False)
        ).to_dict(),
        transformer_config=transformer_config(weights["dit"], **stated_sizes(given["dit"])).to_dict(),
        vae_config=decoder_config(decoder, given["wavvae"]).to_dict(),
    )
    model = RecordedModel(config).eval()
    model.duration.load_state_dict(convert_duration(weights["duration"]))
    model.transformer.load_state_dict(convert_transformer(weights["dit"]))
    model.vae.load_state_dict(convert_vae(decoder))
    model.case = case
    return model.to(case.device)


@reference_runner("megatts3", kinds=("pipeline*",), needs=("inputs.ph_ref", "inputs.seg0_phone"))
def run_pipeline(case: ReferenceCase) -> Iterator[Check]:
    """Phones of some segments to one waveform: durations, latents, sound, loudness, cross-fade."""
    model, given = build_model(case), case.spec["call_args"]
    phones = case.input("ph_ref")[0]
    voice = MegaTTS3Voice(
        phones,
        case.input("tone_ref")[0],
        count_frames(case.input("mel2ph_ref"), len(phones))[0],
        case.input("vae_latent")[0],
        torch.tensor(given["loudness_prompt"]),
    )
    longest = model.config.duration_config.num_durations - 1
    yield compare("ctx_dur_tokens", voice.durations[None].clamp(max=longest) + 1, case.output("ctx_dur_tokens"))
    count = given.get("segments") or sum(
        re.fullmatch(r"inputs\.seg\d+_phone", name) is not None for name in case.tensors
    )
    rows = {
        name: torch.nn.utils.rnn.pad_sequence(
            [case.input(f"seg{number}_{source}")[0] for number in range(count)], batch_first=True
        )
        for name, source in (("phone_ids", "phone"), ("tone_ids", "tone"))
    }
    inputs = {
        **rows,
        "part_counts": torch.tensor([count]),
        "prompt_phones": voice.phone_ids[None],
        "prompt_tones": voice.tone_ids[None],
        "prompt_durations": voice.durations[None],
        "prompt_latents": voice.latents[None],
        "prompt_loudness": voice.loudness[None],
        **{name: given[name] for name in OPTIONS if name in given},
    }
    request = model._prepare_request(None, None, dict(inputs))
    for number in range(count):
        (part,) = model._speak_parts(request, [number])
        frame_map = expand_durations(part.durations[None])
        yield compare(f"seg{number}_mel2ph", frame_map, case.output(f"seg{number}_mel2ph"), EXACT)
        latents = torch.cat([voice.latents, part.latents])[None]
        yield case.check(f"seg{number}_latents", latents, "atol")
        yield case.check(f"seg{number}_wav", part.audio, "atol")
    if case.holds("outputs.wav"):
        spoken = model.generate(**inputs, parts_per_batch=1)
        yield case.check("wav", spoken.audio[0], "atol")
        streamed = torch.cat([chunk.audio[0] for chunk in model.generate_stream(**inputs)])
        yield compare("wav as a stream", streamed, case.output("wav"), case.tolerance("wav", "atol"))
