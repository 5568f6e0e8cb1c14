"""Runs CAM++'s reference cases: upstream's names in, frames and speaker vectors out."""

from collections.abc import Iterator

import s3gen_parts as conversion
import torch

from tests.common.reference import Check, ReferenceCase, compare, reference_runner
from tts_models import CAMPPlusFeatureExtractor, CAMPPlusModel
from tts_models.models.campplus.modeling_campplus import ValidSteps


def build_model(case: ReferenceCase) -> CAMPPlusModel:
    """The encoder of a case: filled in upstream's names, then converted as a released checkpoint is."""
    upstream = case.state_dict()
    upstream = conversion.part_of(upstream, "speaker_encoder.") or upstream
    model = CAMPPlusModel(conversion.speaker_encoder_config(upstream))
    model.load_state_dict(conversion.convert_speaker_encoder(upstream))
    return model.eval().to(case.device)


@reference_runner("s3gen", kinds=("campplus_segments_*",), needs=("inputs.fbank", "outputs.embedding"))
def run_frames(case: ReferenceCase) -> Iterator[Check]:
    """Frames to speaker vectors."""
    yield case.check("embedding", build_model(case)(case.input("fbank")).embeddings)


@reference_runner("s3gen", kinds=("campplus_*",), needs=("inputs.wav", "outputs.embedding"))
def run_recording(case: ReferenceCase) -> Iterator[Check]:
    """One recording to its speaker vector."""
    yield case.check("embedding", build_model(case).embed(list(torch.atleast_2d(case.input("wav")))))


@reference_runner("s3gen", kinds=("campplus_*",), needs=("inputs.wav0", "outputs.fbank", "outputs.embedding"))
def run_batch(case: ReferenceCase) -> Iterator[Check]:
    """Recordings of different lengths: with the padding that upstream lets through, and each as if alone."""
    model = build_model(case)
    count = sum(name.startswith("inputs.wav") for name in case.tensors)
    waveforms = [case.input(f"wav{index}") for index in range(count)]
    features = CAMPPlusFeatureExtractor(feature_size=model.config.num_mel_bins)(waveforms)
    yield case.check("fbank", features["input_features"])
    if "feature_lengths" in case.spec:
        yield compare("feature lengths", features["attention_mask"].sum(-1).tolist(), case.spec["feature_lengths"])
    frames = features["input_features"].to(case.device)
    yield case.check("embedding", model(frames).embeddings)
    if case.holds("outputs.head"):
        expected = case.output("head")
        steps = torch.full((count,), frames.shape[1], device=case.device)
        head = model.head(frames.transpose(1, 2), ValidSteps(steps, None))
        actual = head[:, :: head.shape[1] // expected.shape[1]]
        yield case.check("head", actual, "head", "embedding")
    together = model.embed(waveforms)
    for row, waveform in enumerate(waveforms):
        if case.holds(f"outputs.embedding_row{row}"):
            yield case.check(f"embedding_row{row}", model.embed([waveform]), "embedding")
            expected = case.output(f"embedding_row{row}")
            yield compare(
                f"embedding_row{row} in a batch", together[row : row + 1], expected, case.tolerance("embedding")
            )
