"""Runs the cases of multi-band diffusion: the network of a band, the whole way from codes to sound, and loudness."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import metavoice_parts as conversion
import numpy as np
import torch

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tests.models.metavoice.reference_codec import CODEC_DEFAULTS, build_codec
from tts_models.audio.band_split import mel_edges, split_bands
from tts_models.audio.loudness import clipped_loudness, compress_loudness
from tts_models.models.metavoice.modeling_metavoice_diffusion import MetaVoiceMultiBandDiffusion


def build_diffusion(
    bands: list[Mapping[str, Any]], sampling_rate: int, **overrides: Any
) -> MetaVoiceMultiBandDiffusion:
    """The networks with weights in upstream's names, converted as the released file is."""
    config, weights = conversion.convert_bands(bands, sampling_rate)
    for name, value in overrides.items():
        setattr(config, name, value)
    with torch.device("meta"):  # networks of released size take long to initialise
        model = MetaVoiceMultiBandDiffusion(config)
    model.load_state_dict(weights, assign=True)
    return model.eval()


@reference_runner("metavoice", kinds=("mbd_unet_*",), needs=("inputs.noisy", "config", "keys"))
def run_unet(case: ReferenceCase) -> Iterator[Check]:
    """The noise that one network estimates, at one step for all rows and at a step of each row's own."""
    upstream, settings = case.state_dict(), case.spec["config"]
    band = {"model_state": upstream, "processor_state": {}, "cfg": {"diffusion_unet": settings["diffusion_unet"]}}
    schedule = {"num_steps": settings.get("num_steps", len(upstream["embedding.weight"]))}
    band["cfg"]["schedule"] = schedule
    unet = build_diffusion([band], 24000).bands[0].unet.to(case.device)
    noisy, call = case.input("noisy").float(), case.spec.get("call", {})
    condition = case.input("condition").float() if case.holds("inputs.condition") else None
    for step in (int(name.rpartition("_")[2]) for name in case.tensors if name.startswith("outputs.step_")):
        steps = torch.full((len(noisy),), step, device=case.device)
        yield case.check(f"step_{step}", unet(noisy, steps, condition), "step_*")
    if case.holds("outputs.per_row"):
        steps = torch.tensor(call["per_row_steps"], device=case.device)
        yield case.check("per_row", unet(noisy, steps, condition))


@reference_runner("metavoice", kinds=("mbd_*",), needs=("inputs.codes", "inputs.noise", "config", "keys"))
def run_diffusion(case: ReferenceCase) -> Iterator[Check]:
    """Codes to latent and EnCodec's sound, then to the sum of the bands and the equalised sound."""
    config, keys = case.spec["config"], case.spec["keys"]
    rate = (CODEC_DEFAULTS | config["codec"])["sample_rate"]
    codec = build_codec(config["codec"], codec_state(case, keys["codec"])).to(case.device)
    codes = case.input("codes").long()
    latents = codec.quantizer.decode(codes.transpose(0, 1))
    plain = codec.decode(codes[None], [None]).audio_values
    yield case.check("latent", latents)
    yield case.check("encodec_audio", plain)
    for bands, expected in case.spec.get("mel_cutoffs", {}).items():
        yield compare(f"edges of {bands} bands", mel_edges(int(bands), rate), expected, 1e-2)
    model = diffusion_of(case).to(case.device)
    noise = case.input("noise")[:, :, 0].unflatten(0, (len(model.bands), -1))
    output = model(latents, plain[:, 0], noise=noise, steps=case.spec.get("call", {}).get("step_list"))
    yield case.check("diffused", output.diffused[:, None])
    yield case.check("audio", equalized_together(model, output.diffused, plain[:, 0])[:, None])
    if len(codes) == 1 and case.holds("outputs.audio"):
        yield compare("audio of one row", output.waveform[:, None], case.output("audio"), case.tolerance("audio"))


def equalized_together(
    model: MetaVoiceMultiBandDiffusion, diffused: torch.Tensor, plain: torch.Tensor
) -> torch.Tensor:
    """Sound by upstream's equaliser, which takes one factor per band for a batch where ours takes one per row."""
    bands, rate = model.config.equalizer_bands, model.config.sampling_rate
    made, wanted = (split_bands(audio, bands, rate) for audio in (diffused, plain))
    factor = wanted.std((1, 2), keepdim=True) / made.std((1, 2), keepdim=True)
    return (made * factor).sum(0)


def codec_state(case: ReferenceCase, keys: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """EnCodec's weights, filled by their own names; those that the case stores are stored under `codec.`."""
    stored = {name.removeprefix("weights.codec."): tensor for name, tensor in case.tensors.items()}
    return {name: stored.get(name, tensor) for name, tensor in case.state_dict(keys).items()}


def diffusion_of(case: ReferenceCase) -> MetaVoiceMultiBandDiffusion:
    """The networks of all bands of a case."""
    config, bands = case.spec["config"], []
    processors = config.get("processors", [None] * sum(name.isdigit() for name in case.spec["keys"]))
    for index, processor in enumerate(processors):
        prefix = f"{index}.model_state."
        state = case.state_dict(case.spec["keys"][str(index)])
        sums = f"weights.{index}.processor_state."
        bands.append(
            {
                "model_state": {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)},
                "processor_state": {n.removeprefix(sums): t for n, t in case.tensors.items() if n.startswith(sums)},
                "cfg": {
                    "diffusion_unet": config["diffusion_unet"],
                    "schedule": config.get("schedule", {}),
                    "processor": processor,
                },
            }
        )
    codec = CODEC_DEFAULTS | config["codec"]
    hop = math.prod(codec["ratios"])
    return build_diffusion(
        bands, codec["sample_rate"], hop_length=hop, equalizer_bands=config.get("equaliser_bands", 32)
    )


@reference_runner("metavoice", kinds=("loudness*",), needs=("inputs.waveform", "outputs.loudness|outputs.audio"))
def run_loudness(case: ReferenceCase) -> Iterator[Check]:
    """Loudness and the file that upstream writes."""
    config, rows = case.spec["config"], case.input("waveform").cpu().numpy()
    rate = config["sample_rate"]
    measured = [clipped_loudness(row, rate) for row in rows]
    yield case.check("loudness", torch.tensor([-200.0 if value is None else value for value in measured]))
    target, floor = -config.get("loudness_headroom_db", 14), config.get("energy_floor", 2e-3)
    written = [compress_loudness(row, rate, target, floor) for row in rows]
    if not config.get("compressor", "tanh"):  # the same without the hyperbolic tangent, then clipped
        written = []
        for row, loudness in zip(rows, measured, strict=True):
            is_quiet = loudness is None or np.sqrt(np.mean(np.square(row, dtype=np.float64))) < floor
            gain = 1.0 if is_quiet else 10 ** ((target - loudness) / 20)
            written.append(np.clip(row * np.float32(gain), -1.0, 1.0))
    yield case.check("audio", torch.stack([torch.from_numpy(row) for row in written]))
