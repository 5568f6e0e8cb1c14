"""What is particular to MetaVoice's speaker encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.common.comparing import assert_close
from tts_models.models.metavoice.configuration_metavoice import MetaVoiceSpeakerEncoderConfig
from tts_models.models.metavoice.feature_extraction_metavoice import MetaVoiceFeatureExtractor
from tts_models.models.metavoice.modeling_metavoice_speaker_encoder import (
    MetaVoiceSpeakerEncoder,
    average_embeddings,
)


RATE = 16000


@pytest.fixture
def encoder() -> MetaVoiceSpeakerEncoder:
    """A tiny encoder."""
    torch.manual_seed(0)
    config = MetaVoiceSpeakerEncoderConfig(
        hidden_size=8, num_hidden_layers=2, speaker_embed_size=6, initializer_range=0.5
    )
    return MetaVoiceSpeakerEncoder(config).eval()


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Something that hums louder and quieter."""
    times = np.arange(round(seconds * RATE)) / RATE
    hum = np.sin(2 * np.pi * (100 + 40 * seed) * times) * (1.2 + np.sin(2 * np.pi * times))
    return (0.2 * hum + 0.02 * np.random.default_rng(seed).standard_normal(len(times))).astype(np.float32)


@torch.no_grad()
def embed(encoder: MetaVoiceSpeakerEncoder, *recordings: np.ndarray) -> torch.Tensor:
    """The vectors of some recordings, in one batch."""
    inputs = MetaVoiceFeatureExtractor()(list(recordings), sampling_rate=RATE)
    return encoder(**inputs).speaker_embeddings


@pytest.mark.parametrize("seconds, windows", [(0.025, 1), (1.0, 1), (1.96, 1), (1.97, 2), (30.0, 38), (200.0, 259)])
def test_recordings_of_every_length(seconds: float, windows: int) -> None:
    extractor, samples = MetaVoiceFeatureExtractor(trim_decibels=None), round(seconds * RATE)
    assert len(extractor.window_starts(samples)) == windows
    frames = extractor(voice(seconds), sampling_rate=RATE)["input_features"]
    assert frames.shape == (1, 160 + 77 * (windows - 1), 40)


def test_vectors_have_length_one(encoder: MetaVoiceSpeakerEncoder) -> None:
    vectors = embed(encoder, voice(1.0), voice(5.0, seed=1))
    assert vectors.shape == (2, 6) and (vectors >= 0).all()
    assert_close(vectors.norm(dim=-1), torch.ones(2), 1e-6)


def test_batch_equals_single_recordings(encoder: MetaVoiceSpeakerEncoder) -> None:
    recordings = [voice(0.5), voice(4.0, seed=1), voice(2.2, seed=2)]
    together = embed(encoder, *recordings)
    for row, recording in enumerate(recordings):
        assert_close(together[row : row + 1], embed(encoder, recording), 1e-6)


def test_silence_around_the_voice_is_cut(encoder: MetaVoiceSpeakerEncoder) -> None:
    extractor, samples = MetaVoiceFeatureExtractor(), voice(3.0)
    silence = np.zeros(512 * 20, np.float32)
    surrounded = np.concatenate([silence, samples, silence])
    start, end = extractor.voice_bounds(torch.from_numpy(surrounded))
    assert abs(start - len(silence)) <= 1536 and abs(end - len(silence) - len(samples)) <= 1536
    kept = MetaVoiceFeatureExtractor(trim_decibels=None)(surrounded[start:end], sampling_rate=RATE)
    with torch.no_grad():
        assert_close(embed(encoder, surrounded), encoder(**kept).speaker_embeddings, 1e-6)


def test_louder_recordings_are_other_recordings() -> None:
    """Power without a logarithm: the level is heard."""
    extractor = MetaVoiceFeatureExtractor()
    quiet, loud = (extractor(level * voice(1.0), sampling_rate=RATE)["input_features"] for level in (0.5, 1.0))
    assert_close(loud, 4 * quiet, 1e-3)


def test_average_of_recordings() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert_close(average_embeddings(vectors), torch.full((2,), 0.5**0.5), 1e-6)
    for wrong in (torch.zeros(0, 2), torch.zeros(2), torch.tensor([[float("nan"), 1.0]])):
        with pytest.raises(ValueError, match="embeddings"):
            average_embeddings(wrong)


@pytest.mark.parametrize(
    "recording, message",
    [
        (np.zeros(RATE, np.float32), "silent"),
        (np.zeros(0, np.float32), "raw_audio"),
        (voice(0.02), "400"),
        (np.full(RATE, np.nan, np.float32), "(?i)nan|finite"),
        (np.zeros((2, RATE), np.float32)[None], "raw_audio"),
    ],
)
def test_bad_recordings_are_refused(recording: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetaVoiceFeatureExtractor()(recording, sampling_rate=RATE)


def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="16000"):
        MetaVoiceFeatureExtractor()(voice(1.0), sampling_rate=24000)


def test_bad_features_are_refused(encoder: MetaVoiceSpeakerEncoder) -> None:
    for shape in ((1, 160, 39), (1, 159, 40), (160, 40)):
        with pytest.raises(ValueError, match="input_features"):
            encoder(torch.zeros(shape))
    with pytest.raises(ValueError, match="160"):
        encoder(torch.zeros(2, 200, 40), attention_mask=(torch.arange(200) < torch.tensor([[200], [100]])).long())


def test_round_trips(encoder: MetaVoiceSpeakerEncoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    extractor = MetaVoiceFeatureExtractor(trim_decibels=30.0)
    extractor.save_pretrained(tmp_path)
    assert MetaVoiceFeatureExtractor.from_pretrained(tmp_path).to_dict() == extractor.to_dict()
    reloaded = MetaVoiceSpeakerEncoder.from_pretrained(tmp_path)
    assert_close(embed(reloaded, voice(2.0)), embed(encoder, voice(2.0)), 1e-6)


@pytest.mark.gpu
def test_cuda(encoder: MetaVoiceSpeakerEncoder) -> None:
    inputs = MetaVoiceFeatureExtractor()([voice(1.0), voice(4.0)], sampling_rate=RATE)
    expected = encoder(**inputs).speaker_embeddings
    assert_close(encoder.cuda()(**inputs.to("cuda")).speaker_embeddings.cpu(), expected, 1e-4)
