"""What is particular to CAM++."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from tests.common.comparing import assert_close
from tests.models.campplus.tester import Tester
from tts_models import CAMPPlusFeatureExtractor, CAMPPlusModel
from tts_models.models.campplus.modeling_campplus import ValidSteps


@pytest.fixture
def model() -> CAMPPlusModel:
    """A tiny encoder."""
    return Tester().model()


def recordings(*lengths: int) -> list[torch.Tensor]:
    """Seeded noise of so many samples."""
    generator = torch.Generator().manual_seed(3)
    return [0.1 * torch.randn(length, generator=generator) for length in lengths]


def test_batch_equals_single_recordings(model: CAMPPlusModel) -> None:
    waveforms = recordings(16000, 4800, 720, 40000)
    together = model.embed(waveforms)
    assert together.shape == (4, 8) and not together.requires_grad
    for row, waveform in enumerate(waveforms):
        assert_close(together[row], model.embed([waveform])[0], 1e-5)


def test_recordings_are_taken_in_any_form(model: CAMPPlusModel) -> None:
    (waveform,) = recordings(3200)
    expected = model.embed([waveform])
    for form in (waveform, waveform[None], waveform.numpy(), [waveform.numpy()], [waveform[None]]):
        assert torch.equal(model.embed(form), expected)


def test_silence_has_a_vector(model: CAMPPlusModel) -> None:
    assert model.embed([torch.zeros(8000)]).isfinite().all()


def test_silence_has_a_gradient(model: CAMPPlusModel) -> None:
    model(torch.zeros(2, 20, 16)).embeddings.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_without_lengths_padding_counts(model: CAMPPlusModel) -> None:
    """As upstream, which has no masks."""
    features = torch.randn(1, 20, 16)
    padded = torch.nn.functional.pad(features, (0, 0, 0, 12))
    with torch.no_grad():
        alone, exact = model(features).embeddings, model(padded, torch.tensor([20])).embeddings
        leaking = model(padded).embeddings
    assert_close(exact, alone, 1e-5)
    assert (leaking - alone).abs().max() > 1e-3


def test_last_segment_averages_what_it_has() -> None:
    steps = torch.arange(1.0, 8.0)[None, None]
    whole = ValidSteps.of(torch.tensor([7]), 7, is_padded=False)
    assert whole.segment_means(steps, 3)[0, 0].tolist() == [2, 2, 2, 5, 5, 5, 7]
    part = ValidSteps.of(torch.tensor([5]), 7, is_padded=True)
    assert part.segment_means(part.keep(steps), 3)[0, 0, :5].tolist() == [2, 2, 2, 4.5, 4.5]


def test_feature_extractor_round_trip(model: CAMPPlusModel, tmp_path: Path) -> None:
    extractor = CAMPPlusFeatureExtractor(feature_size=16)
    extractor.save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    reloaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(reloaded) is CAMPPlusFeatureExtractor and reloaded.to_dict() == extractor.to_dict()
    waveforms = recordings(3200, 1600)
    inputs = reloaded([waveform.numpy() for waveform in waveforms], sampling_rate=16000)
    assert inputs["input_features"].shape == (2, 18, 16) and inputs["attention_mask"].sum(-1).tolist() == [18, 8]
    assert inputs["input_features"][0].mean(0).abs().max() < 1e-4
    with torch.no_grad():
        assert torch.equal(model(**inputs).embeddings, model.embed(waveforms))


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros(719, np.float32), 16000, "raw_audio.*719 samples"),
        (np.zeros(800, np.float32), 24000, "16000.*24000"),
        ([np.zeros(800), np.full(800, np.nan)], 16000, r"raw_audio\[1\].*NaN"),
    ],
)
def test_feature_extractor_refuses(audio: object, rate: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CAMPPlusFeatureExtractor()(audio, sampling_rate=rate)


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-3), (torch.float16, 0.1), (torch.bfloat16, 0.5)])
def test_cuda(model: CAMPPlusModel, dtype: torch.dtype, atol: float) -> None:
    waveforms = recordings(16000, 4800)
    expected = model.embed(waveforms)
    assert_close(model.to("cuda", dtype).embed(waveforms).cpu().float(), expected, atol)
