"""The feature extractor of SNAC."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from tests.models.snac.tester import Tester
from tts_models import SnacFeatureExtractor


@pytest.fixture
def extractor() -> SnacFeatureExtractor:
    """An extractor for frames of 96 samples at 8 kHz."""
    return SnacFeatureExtractor(sampling_rate=8000, hop_length=24, pad_to_multiple_of=96)


def test_batch_is_padded_with_a_mask(extractor: SnacFeatureExtractor) -> None:
    audio = [np.ones(100), np.ones(30, dtype=np.float32)]
    inputs = extractor(audio, sampling_rate=8000, return_tensors="pt")
    assert inputs["input_values"].dtype == torch.float32 and inputs["input_values"].shape == (2, 1, 192)
    assert inputs["padding_mask"].shape == (2, 192) and inputs["padding_mask"].sum(-1).tolist() == [100, 30]
    assert torch.equal(inputs["input_values"][:, 0], inputs["padding_mask"].float())


@pytest.mark.parametrize(
    "audio", [np.ones(5), [1.0] * 5, torch.ones(5), [np.ones(5)], np.ones((1, 5)), torch.ones(1, 5)]
)
def test_single_waveforms_are_taken_in_any_form(extractor: SnacFeatureExtractor, audio: object) -> None:
    inputs = extractor(audio, sampling_rate=8000, return_tensors="np")
    assert inputs["input_values"].shape == (1, 1, 96)
    assert inputs["padding_mask"].sum() == 5


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0), "raw_audio"),
        ([], "raw_audio"),
        ([np.zeros(5), np.zeros(0)], r"raw_audio\[1\]"),
        ([np.zeros((2, 5))], r"raw_audio\[0\].*mono"),
        (np.array([0.0, np.nan]), "(?i)nan"),
        (np.array([0.0, np.inf]), "(?i)inf"),
    ],
)
def test_bad_audio_is_refused(extractor: SnacFeatureExtractor, audio: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extractor(audio, sampling_rate=8000)


def test_another_sampling_rate_is_refused(extractor: SnacFeatureExtractor) -> None:
    with pytest.raises(ValueError, match="8000.*44100"):
        extractor(np.zeros(100), sampling_rate=44100)


def test_round_trip(extractor: SnacFeatureExtractor, tmp_path: Path) -> None:
    extractor.save_pretrained(tmp_path)
    Tester().config().save_pretrained(tmp_path)
    reloaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(reloaded) is SnacFeatureExtractor
    assert reloaded.to_dict() == extractor.to_dict()


def test_model_takes_what_it_makes(extractor: SnacFeatureExtractor) -> None:
    codec = Tester().model(attention_window_size=None)
    generator = np.random.default_rng(0)
    audio = [generator.uniform(-0.5, 0.5, size) for size in (300, 96)]
    with torch.no_grad():
        encoded = codec.encode(**extractor(audio, sampling_rate=8000, return_tensors="pt"))
    assert [lengths.tolist() for lengths in encoded.code_lengths] == [[4, 1], [8, 2], [16, 4]]
