"""Runs the cases of MetaVoice's speaker encoder: mel frames, windows, silence at the ends, trained weights."""

import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from typing import Any

import metavoice_parts as conversion
import torch

from tests.common.reference import Check, ReferenceCase, compare, compare_rows, reference_runner
from tts_models.models.metavoice.feature_extraction_metavoice import MetaVoiceFeatureExtractor
from tts_models.models.metavoice.modeling_metavoice_speaker_encoder import MetaVoiceSpeakerEncoder


RATES = {"rate": "windows_per_second", "min_coverage": "min_coverage"}


def build_encoder(upstream: Mapping[str, torch.Tensor]) -> MetaVoiceSpeakerEncoder:
    """The encoder with weights in upstream's names."""
    config, weights = conversion.convert_speaker_encoder(upstream)
    encoder = MetaVoiceSpeakerEncoder(config)
    encoder.load_state_dict(weights)
    return encoder.eval()


def embed(
    encoder: MetaVoiceSpeakerEncoder, extractor: MetaVoiceFeatureExtractor, samples: torch.Tensor
) -> torch.Tensor:
    """A recording's vector."""
    # Past the checks, which refuse silence and what is shorter than a frame: upstream does not.
    frames = extractor.frames_of(samples.cpu())[None].to(encoder.device)
    return encoder(frames).speaker_embeddings[0]


@reference_runner(
    "metavoice",
    kinds=("speaker_encoder",),
    needs=("inputs.waveform", "outputs.mel|outputs.partials|outputs.embedding", "keys", "weight_scale"),
)
def run_encoder(case: ReferenceCase) -> Iterator[Check]:
    """Mel frames, the vector of every window, and their mean; nothing is trimmed."""
    encoder = build_encoder(case.state_dict()).to(case.device)
    call = case.spec.get("call", {})
    options = {ours: call[name] for name, ours in RATES.items() if name in call}
    extractor = MetaVoiceFeatureExtractor(feature_size=encoder.config.num_mel_bins, trim_decibels=None, **options)
    encoder.config.windows_per_second = float(extractor.windows_per_second)
    samples = case.input("waveform").cpu().float()
    if case.holds("outputs.mel"):
        expected = case.output("mel")
        share = float(re.match(r"[\d.e-]+", str(case.spec["tolerance"]["mel"]))[0])
        yield compare("mel", extractor.mel(samples), expected, share * expected.abs().max().item())
    yield from compare_slices(case.spec.get("slices"), extractor, len(samples))
    frames = extractor.frames_of(samples).to(case.device)
    windows = frames.unfold(0, encoder.config.window_frames, encoder.config.frame_step).transpose(1, 2)
    yield case.check("partials", encoder.embed_windows(windows))
    yield case.check("embedding", embed(encoder, extractor, samples))


def compare_slices(
    expected: list[list[int]] | None, extractor: MetaVoiceFeatureExtractor, samples: int
) -> Iterator[Check]:
    """First and last sample of every window, where the case states them."""
    if expected is not None:
        yield compare("slices", slices(extractor, samples, extractor.hop_length), expected)


def slices(extractor: MetaVoiceFeatureExtractor, samples: int, unit: int) -> list[list[int]]:
    """Begin and end of every window, in units of so many samples' worth a frame."""
    size = extractor.window_frames
    return [[start * unit, (start + size) * unit] for start in extractor.window_starts(samples)]


@reference_runner("metavoice", kinds=("speaker_encoder_*",), needs=("inputs.waveform_0", "weights"))
def run_recordings(case: ReferenceCase) -> Iterator[Check]:
    """Recordings with silence at their ends, alone and in one batch."""
    upstream = case.state_dict() if case.spec["weights"] == "fill" else packaged_weights(case.spec["weights"])
    names = sorted(
        (name for name in case.tensors if name.startswith("inputs.waveform_")),
        key=lambda name: int(name.split("_")[-1]),
    )
    if upstream is None:
        for index in range(len(names)):
            case.output(f"embedding_{index}")
        yield Check("(skipped: no package carries the weights)", 0.0, 0.0, 0.0, True)
        return
    encoder = build_encoder(upstream).to(case.device)
    extractor = MetaVoiceFeatureExtractor(feature_size=encoder.config.num_mel_bins)
    recordings = [case.tensors[name].float() for name in names]
    # Recordings that ours refuses (silence, less than a frame) take no part in the batch.
    heard = [index for index, samples in enumerate(recordings) if is_heard(extractor, samples)]
    together = {}
    if heard:
        inputs = extractor([recordings[index] for index in heard], sampling_rate=16000).to(case.device)
        together = dict(zip(heard, encoder(**inputs).speaker_embeddings, strict=True))
    trims = [extractor.voice_bounds(samples) for samples in recordings]
    if "trimmed_to" in case.spec:
        yield compare("trimmed_to", [list(bounds) for bounds in trims], case.spec["trimmed_to"])
    for index, ((start, end), samples) in enumerate(zip(trims, recordings, strict=True)):
        if "slices" in case.spec:
            yield from compare_slices(case.spec["slices"][index], extractor, end - start)
        yield case.check(f"embedding_{index}", embed(encoder, extractor, samples), "embedding_*")
        if index in together:
            yield compare(f"embedding_{index} in a batch", together[index], case.output(f"embedding_{index}"), 2e-4)


def is_heard(extractor: MetaVoiceFeatureExtractor, samples: torch.Tensor) -> bool:
    """Whether ours takes the recording."""
    try:
        extractor.check_recording(samples)
    except ValueError:
        return False
    return True


def packaged_weights(source: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
    """The weights in a file of an installed package, or `None`."""
    try:
        files = importlib.metadata.files(source["package"].partition("==")[0]) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.as_posix() == source["file"]:
            return torch.load(file.locate(), map_location="cpu", weights_only=True)[source["entry"]]
    return None


@reference_runner("metavoice", kinds=("partial_slices",), needs=("rows",), table=True)
def run_slices(case: ReferenceCase) -> Iterator[Check]:
    """Windows of recordings of many lengths."""
    actual, expected = {}, {}
    for index, row in enumerate(case.spec["rows"]):
        given = {ours: row[theirs] for theirs, ours in RATES.items() if theirs in row}
        extractor = MetaVoiceFeatureExtractor(**given)
        name = f"{index}: {row['samples']} samples"
        expected[name] = [row["waveform"], row["mel"]]
        actual[name] = [slices(extractor, row["samples"], unit) for unit in (extractor.hop_length, 1)]
    yield compare_rows("windows", actual, expected)
