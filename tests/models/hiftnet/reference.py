"""Runs HiFTNet's reference cases: upstream's names in, pitch, source and waveform out; and the 24 kHz mel."""

import re
from collections.abc import Iterator
from typing import Any

import s3gen_parts as conversion
import torch

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tts_models import HiFTNetConfig, HiFTNetModel, HiFTNetStream
from tts_models.audio.mel import log_mel_spectrogram
from tts_models.models.hiftnet.modeling_hiftnet import HiFTNetF0Predictor
from tts_models.models.hiftnet.source_hiftnet import HiFTNetSource, SourceDraws


# Upstream's constructor arguments in the port's words, where they differ.
CONFIG_NAMES = {"f0_cond_channels": "f0_predictor_cond_channels", "cond_channels": "f0_predictor_cond_channels"}


# What upstream's constructor assumes where a case says nothing; our configuration assumes the released vocoder.
UPSTREAM_DEFAULTS: dict[str, Any] = {
    "sampling_rate": 22050,
    "upsample_rates": [8, 8],
    "upsample_kernel_sizes": [16, 16],
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "source_resblock_kernel_sizes": [7, 11],
    "source_resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
}


def convert_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Upstream's constructor arguments, with its defaults, as those of [`HiFTNetConfig`]."""
    arguments = {CONFIG_NAMES.get(name, name): value for name, value in (UPSTREAM_DEFAULTS | given).items()}
    istft = arguments.pop("istft_params", None)
    if istft:
        arguments |= {"istft_n_fft": istft["n_fft"], "istft_hop_len": istft["hop_len"]}
    # Upstream makes as many blocks as both lists have entries for, and one of the source per upsampling.
    limits = {"resblock": None, "source_resblock": len(arguments["upsample_rates"])}
    for name, limit in limits.items():
        kernels, dilations = f"{name}_kernel_sizes", f"{name}_dilation_sizes"
        count = min(len(arguments[kernels]), len(arguments[dilations]))
        arguments |= {each: arguments[each][:count][:limit] for each in (kernels, dilations)}
    return arguments


def build_model(case: ReferenceCase) -> HiFTNetModel:
    """The vocoder of a case: filled in upstream's names, then converted as a released checkpoint is."""
    upstream = case.state_dict()
    upstream = conversion.part_of(upstream, "mel2wav.") or upstream
    base_channels, in_channels, _ = upstream["conv_pre.parametrizations.weight.original1"].shape
    sizes = {
        "in_channels": in_channels,
        "base_channels": base_channels,
        "f0_predictor_in_channels": upstream["f0_predictor.condnet.0.parametrizations.weight.original1"].shape[1],
        "f0_predictor_cond_channels": upstream["f0_predictor.condnet.0.bias"].shape[0],
        "f0_predictor_layers": conversion.count_of(upstream, r"f0_predictor\.condnet\.(\d+)\."),
    }
    model = HiFTNetModel(HiFTNetConfig(**(sizes | convert_arguments(case.spec.get("config", {})))))
    model.load_state_dict(conversion.convert_vocoder(upstream))
    return model.eval().to(case.device)


def check_relative(case: ReferenceCase, name: str, actual: torch.Tensor) -> Check:
    """Compares by a tolerance such as `rtol 1e-4 + 1e-2 Hz`, relative to the largest entry."""
    stated, expected = str(case.spec["tolerance"][name]), case.output(name)
    relative = re.search(r"rtol ([\d.e-]+)", stated)
    if relative is None:
        return case.check(name, actual)
    absolute = re.search(r"\+ ([\d.e-]+)", stated)
    tolerance = float(relative[1]) * expected.abs().max().item() + float(absolute[1] if absolute else 0)
    return compare(name, actual, expected, tolerance)


@reference_runner("s3gen", kinds=("mel_24k*",), needs=("inputs.wav", "outputs.mel"))
def run_mel(case: ReferenceCase) -> Iterator[Check]:
    """Mel frames of a batch, and of the beginning of its first row, whose length the case does not state."""
    samples = torch.atleast_2d(case.input("wav"))
    yield case.check("mel", log_mel_spectrogram(samples))
    if case.holds("outputs.mel_1d"):
        expected = case.output("mel_1d")
        # The end of the prefix moves its last frames only; it is the one that explains them.
        lengths = range(480 * expected.shape[-1], min(480 * (expected.shape[-1] + 1), samples.shape[-1] + 1))
        prefixes = (log_mel_spectrogram(samples[:1, :length]).cpu() for length in lengths)
        closest = min(prefixes, key=lambda mel: (mel - expected).abs().max())
        yield case.check("mel_1d", closest, "mel")


@reference_runner("s3gen", kinds=("f0_predictor_*",), needs=("inputs.mel", "outputs.f0"))
def run_f0_predictor(case: ReferenceCase) -> Iterator[Check]:
    """Mel frames to pitch."""
    weights = conversion.part_of(conversion.convert_vocoder(case.state_dict()), "f0_predictor.")
    layers = conversion.count_of(weights, r"layers\.(\d+)\.")
    width, bands, _ = weights["layers.0.weight"].shape
    predictor = HiFTNetF0Predictor(
        HiFTNetConfig(f0_predictor_in_channels=bands, f0_predictor_cond_channels=width, f0_predictor_layers=layers)
    )
    predictor.load_state_dict(weights)
    yield check_relative(case, "f0", predictor.eval().to(case.device)(case.input("mel")))


@reference_runner("s3gen", kinds=("nsf_source_*",), needs=("inputs.f0", "inputs.phase", "outputs.source"))
def run_source(case: ReferenceCase) -> Iterator[Check]:
    """Pitch to source, with recorded phases and noise."""
    config = HiFTNetConfig(**convert_arguments(case.spec.get("config", {})))
    source = HiFTNetSource(config)
    source.load_state_dict(conversion.part_of(conversion.convert_vocoder(case.state_dict()), "harmonic_source."))
    source, f0 = source.to(case.device), case.input("f0")
    draws = SourceDraws(case.input("phase"), case.input("noise"))
    for name in sorted(case.tensors):
        match = re.fullmatch(r"outputs\.(sine(?:_every_(\d+)th)?)", name)
        if match:
            yield case.check(match[1], source.harmonics(f0, draws)[0][..., :: int(match[2] or 1)], "sine")
    if case.holds("outputs.uv_per_frame"):
        yield compare("uv_per_frame", (f0 > config.nsf_voiced_threshold).float(), case.output("uv_per_frame"), 0.0)
    yield case.check("source", source(f0, draws)[0])


@reference_runner("s3gen", kinds=("hift_decode_*",), needs=("inputs.mel", "inputs.source", "outputs.wav"))
def run_decode(case: ReferenceCase) -> Iterator[Check]:
    """Mel frames and source to waveform, and the source's spectrum."""
    model, source = build_model(case), case.input("source")
    yield case.check("wav", model.decode(case.input("mel"), source))
    real, imaginary = model.spectrum(source[:, 0], None).chunk(2, dim=1)
    for name in sorted(case.tensors):
        match = re.fullmatch(r"outputs\.(stft_(real|imag)(?:_every_(\d+)th)?)", name)
        if match:
            spectrum = real if match[2] == "real" else imaginary
            yield case.check(match[1], spectrum[..., :: int(match[3] or 1)], "stft")


@reference_runner("s3gen", kinds=("hift_*",), needs=("inputs.mel", "inputs.phase", "inputs.noise", "outputs.wav"))
def run_inference(case: ReferenceCase) -> Iterator[Check]:
    """Mel frames to waveform with recorded phases and noise: end to end, from the stored source, and streamed."""
    model, mel = build_model(case), case.input("mel")
    cache = case.input("cache_source") if case.holds("inputs.cache_source") else None
    phase, noise = case.input("phase"), case.input("noise")
    waveform, source = model.inference(mel, cache, phase=phase, noise=noise)
    if case.holds("outputs.f0"):
        yield check_relative(case, "f0", model.f0_predictor(mel))
    yield case.check("source", source)
    yield case.check("wav", waveform)
    if case.holds("outputs.source") and "wav_from_stored_source" in case.spec["tolerance"]:
        stored = model.decode(mel, case.output("source").to(case.device))
        yield compare("wav from stored source", stored, case.output("wav"), case.tolerance("wav_from_stored_source"))
    if "windowed_vs_offline" in case.spec["tolerance"]:
        f0 = model.f0_predictor(mel)
        # Rounding of the pitch is summed up in the phase, so the windows are compared at equal pitch first.
        for label, pitch, tolerance in (
            ("stream vs offline, same pitch", f0, case.tolerance("windowed_vs_offline")),
            ("stream vs offline", None, 1e-4),
        ):
            stream = RecordedStream(model, phase, noise, pitch)
            pieces = [stream.push(piece) for piece in mel.split(14, dim=-1)]
            yield compare(label, torch.cat([*pieces, stream.flush()], dim=1), waveform, tolerance)


class RecordedStream(HiFTNetStream):
    """A stream that takes its noise, and its pitch if given, from recorded values, as parity with upstream needs."""

    def __init__(self, model: HiFTNetModel, phase: torch.Tensor, noise: torch.Tensor, f0: torch.Tensor | None):
        super().__init__(model, phase.shape[0], phase)
        self.recorded, self.f0 = noise, f0

    def _predict_f0(self, end: int) -> torch.Tensor:
        return super()._predict_f0(end) if self.f0 is None else self.f0[:, self.source_frames : end]

    def _draw_noise(self, frames: int) -> torch.Tensor:
        size = frames * self.model.config.hop_length
        drawn, self.recorded = self.recorded[..., :size], self.recorded[..., size:]
        return drawn


@reference_runner("s3gen", kinds=("hift_stream_*",), needs=("inputs.mel", "inputs.noise0", "outputs.speech0"))
def run_cross_faded_stream(case: ReferenceCase) -> Iterator[Check]:
    """CosyVoice's way to stream with `inference(cache_source=…)`: cached frames, source and audio, a cross-fade."""
    model, mel, start = build_model(case), case.input("mel"), 0
    frames, hop = case.spec["mel_cache_len"], model.config.hop_length
    overlap = frames * hop
    fade = torch.hamming_window(2 * overlap, periodic=False, device=case.device)
    ends = case.spec["chunk_ends_in_frames"]
    old_mel, old_source, old_speech = mel[..., :0], mel.new_zeros(1, 1, 0), None
    for call, end in enumerate(ends):
        piece = torch.cat([old_mel, mel[..., start:end]], dim=-1)
        draws = {"phase": case.input(f"phase{call}"), "noise": case.input(f"noise{call}")}
        speech, source = model.inference(piece, old_source, **draws)
        if old_speech is not None:
            faded = speech[:, :overlap] * fade[:overlap] + old_speech * fade[overlap:]
            speech = torch.cat([faded, speech[:, overlap:]], dim=-1)
        old_mel, old_source, old_speech = piece[..., -frames:], source[..., -overlap:], speech[:, -overlap:]
        is_last = call == len(ends) - 1
        yield case.check(f"speech{call}", speech if is_last else speech[:, :-overlap], "speech")
        start = end
