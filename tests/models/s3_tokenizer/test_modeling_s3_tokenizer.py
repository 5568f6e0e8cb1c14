"""What is particular to the S3 tokenizer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from tests.common.comparing import assert_close
from tests.models.s3_tokenizer.tester import Tester
from tts_models import S3TokenizerConfig, S3TokenizerFeatureExtractor, S3TokenizerModel


pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def no_gradients() -> None:
    """Nothing here trains."""
    torch.set_grad_enabled(False)
    yield
    torch.set_grad_enabled(True)


@pytest.fixture
def model() -> S3TokenizerModel:
    """A tiny tokenizer with the released windows."""
    return Tester().model(window_frames=3000, window_overlap_frames=400)


def recordings(*lengths: int) -> list[torch.Tensor]:
    """Seeded noise of so many samples."""
    generator = torch.Generator().manual_seed(3)
    return [0.1 * torch.randn(length, generator=generator) for length in lengths]


def test_batch_equals_single_recordings(model: S3TokenizerModel) -> None:
    waveforms = recordings(16000, 4800, 201, 9999)
    tokens, lengths = model.tokenize(waveforms)
    assert tokens.dtype == lengths.dtype == torch.int64
    assert lengths.tolist() == [25, 8, 1, 16]
    for row, waveform in enumerate(waveforms):
        alone, length = model.tokenize([waveform])
        assert torch.equal(alone[0], tokens[row, : int(length)])
        assert not tokens[row, int(length) :].any()


def test_recordings_are_taken_in_any_form(model: S3TokenizerModel) -> None:
    (waveform,) = recordings(3200)
    expected, _ = model.tokenize([waveform])
    for form in (waveform, waveform[None], waveform.numpy(), [waveform.numpy()], [waveform[None]]):
        assert torch.equal(model.tokenize(form)[0], expected)


def test_max_len_looks_at_no_more(model: S3TokenizerModel) -> None:
    """The states see what is there, so a cut recording has other tokens than the cut tokens of a whole one."""
    waveforms = recordings(16000, 3200)
    tokens, lengths = model.tokenize(waveforms, max_len=6)
    assert tokens.shape == (2, 6) and lengths.tolist() == [6, 5]
    features = S3TokenizerFeatureExtractor(feature_size=8)(waveforms)["input_features"]
    assert torch.equal(model(features[:1, :, :24]).speech_tokens[0], tokens[0])


def test_silence_has_tokens(model: S3TokenizerModel) -> None:
    tokens, lengths = model.tokenize([torch.zeros(6400)])
    assert lengths.tolist() == [10] and int(tokens.min()) >= 0 and int(tokens.max()) < 3**4


def test_tokens_are_the_digits_of_the_latents(model: S3TokenizerModel) -> None:
    output = model(**Tester().inputs())
    digits = output.latents.round().long() + 1
    assert torch.equal((digits * torch.tensor([1, 3, 9, 27])).sum(-1), output.speech_tokens)
    assert output.speech_tokens.unique().numel() > 5


@pytest.mark.parametrize(("frames", "lost"), [(112, 0), (120, 0), (144, 0), (100, 2), (104, 2)])
def test_windows_join_to_one_sequence(frames: int, lost: int) -> None:
    """Windows of 64 frames every 48. Where the end lies in an overlap, upstream's extra window loses tokens."""
    features = torch.randn(1, 8, frames, generator=torch.Generator().manual_seed(0))
    windowed, complete = Tester().model(), Tester().model(complete_tail=True)
    assert windowed(features).speech_token_lengths.item() == frames // 4 - lost
    assert complete(features).speech_token_lengths.item() == frames // 4
    first = windowed(features[..., :64]).speech_tokens
    for model in (windowed, complete):
        assert torch.equal(model(features).speech_tokens[:, :14], first[:, :14])


def test_many_windows_are_encoded_in_batches() -> None:
    features = torch.randn(1, 8, 48 * 11, generator=torch.Generator().manual_seed(0))
    model = Tester().model(complete_tail=True)
    output = model(features)
    assert output.speech_token_lengths.item() == 132
    middle = model(features[..., 48 * 4 : 48 * 4 + 64])
    assert_close(output.latents[0, 50:62], middle.latents[0, 2:14], 1e-5)


def test_released_configuration_has_the_released_ids() -> None:
    config = S3TokenizerConfig()
    assert (config.vocab_size, config.token_rate, config.frames_per_token) == (6561, 25.0, 4)


def test_feature_extractor_round_trip(model: S3TokenizerModel, tmp_path: Path) -> None:
    extractor = S3TokenizerFeatureExtractor(feature_size=8)
    extractor.save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    reloaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(reloaded) is S3TokenizerFeatureExtractor and reloaded.to_dict() == extractor.to_dict()
    waveforms = recordings(3200, 1600)
    inputs = reloaded([waveform.numpy() for waveform in waveforms], sampling_rate=16000)
    assert inputs["input_features"].shape == (2, 8, 20) and inputs["attention_mask"].sum(-1).tolist() == [20, 10]
    assert torch.equal(model(**inputs).speech_tokens, model.tokenize(waveforms)[0])


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.zeros(100, np.float32), 16000, "raw_audio.*100 samples"),
        (np.zeros(800, np.float32), 8000, "16000.*8000"),
        (np.zeros((2, 800), np.float32)[None], 16000, "mono"),
        ([np.zeros(800), np.zeros(0)], 16000, r"raw_audio\[1\]"),
    ],
)
def test_feature_extractor_refuses(audio: object, rate: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        S3TokenizerFeatureExtractor()(audio, sampling_rate=rate)
    with pytest.raises(ValueError, match="return_tensors"):
        S3TokenizerFeatureExtractor()(np.zeros(800), return_tensors="np")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cuda(model: S3TokenizerModel, dtype: torch.dtype) -> None:
    waveforms = recordings(16000, 4800)
    expected, _ = model.tokenize(waveforms)
    tokens, _ = model.to("cuda", dtype).tokenize(waveforms)
    assert (tokens.cpu() == expected).float().mean() > (0.9 if dtype == torch.float32 else 0.5)
