"""Mel features, and the lengths of padded batches."""

import math

import pytest
import torch

from tts_models.audio.lengths import frame_lengths, length_mask
from tts_models.audio.mel import kaldi_filter_bank, log_mel_spectrogram, mel_filters, whisper_log_mel
from tts_models.audio.mel_features import check_waveforms


def tone(frequency: float, rate: int, seconds: float = 0.5) -> torch.Tensor:
    """A sine of amplitude 0.5."""
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(int(seconds * rate)) / rate)


def test_frames_per_second() -> None:
    assert log_mel_spectrogram(torch.zeros(2, 24000)).shape == (2, 80, 50)
    assert log_mel_spectrogram(torch.zeros(1919)).shape == (80, 3)
    assert whisper_log_mel(torch.zeros(16000)).shape == (128, 100)
    assert kaldi_filter_bank(torch.zeros(16000)).shape == (98, 80)


def test_a_tone_is_loudest_in_its_band() -> None:
    filters = mel_filters(1920, 80, 0.0, 8000.0, 24000)
    band = int(filters[:, round(1000 / 24000 * 1920)].argmax())
    mel = log_mel_spectrogram(tone(1000, 24000))
    assert (mel[:, 2:-2].argmax(0) == band).all()
    assert (whisper_log_mel(tone(1000, 16000))[:, 5:-5].argmax(0).float().std()) == 0
    kaldi = kaldi_filter_bank(tone(1000, 16000))
    mel_of = [1127 * math.log(1 + hertz / 700) for hertz in (20, 1000, 8000)]
    expected = (mel_of[1] - mel_of[0]) / (mel_of[2] - mel_of[0]) * 81 - 1
    assert (kaldi.argmax(1) - expected).abs().max() <= 1


def test_the_level_moves_kaldi_and_not_whisper() -> None:
    samples = tone(440, 16000) + 0.1 * torch.randn(8000)
    louder, quiet = kaldi_filter_bank(2 * samples), kaldi_filter_bank(samples)
    assert torch.allclose(louder, quiet + math.log(4), atol=1e-3)
    # Whisper's floor hangs on the maximum; above it a factor is a shift.
    assert torch.allclose(whisper_log_mel(2 * samples), whisper_log_mel(samples) + math.log10(4) / 4, atol=1e-3)


def test_rows_share_the_maximum_that_whispers_floor_hangs_on() -> None:
    loud, quiet = tone(440, 16000), 1e-5 * tone(3000, 16000)
    together = whisper_log_mel(torch.stack([loud, quiet]))
    assert torch.allclose(together[0], whisper_log_mel(loud), atol=1e-5)
    # The quiet row lies below the loud one's floor.
    assert torch.allclose(together[1], together[0].min().expand_as(together[1])), together[1].aminmax()


def test_features_have_gradients() -> None:
    samples = tone(300, 24000).requires_grad_()
    (log_mel_spectrogram(samples).sum() + whisper_log_mel(samples).sum() + kaldi_filter_bank(samples).sum()).backward()
    assert samples.grad.isfinite().all() and samples.grad.any()


@pytest.mark.parametrize(
    ("feature", "length"), [(log_mel_spectrogram, 720), (whisper_log_mel, 200), (kaldi_filter_bank, 399)]
)
def test_too_short(feature: object, length: int) -> None:
    with pytest.raises(ValueError, match=rf"samples.*{length}"):
        feature(torch.zeros(length))
    feature(torch.zeros(length + 1))


def test_waveforms_in_any_form() -> None:
    for form in (torch.ones(5), [torch.ones(5)], torch.ones(1, 5), [1.0] * 5, [[1.0] * 5]):
        (waveform,) = check_waveforms(form)
        assert torch.equal(waveform, torch.ones(5))
    assert [len(waveform) for waveform in check_waveforms([torch.ones(5), torch.ones(3).numpy()])] == [5, 3]
    with pytest.raises(ValueError, match=r"`waveforms\[1\]` is empty"):
        check_waveforms([torch.ones(5), torch.ones(0)])
    with pytest.raises(ValueError, match="`waveforms` is empty"):
        check_waveforms([])


def test_lengths_from_a_mask() -> None:
    features = torch.zeros(2, 4, 5)
    mask = length_mask(torch.tensor([5, 2]), 5)
    assert mask.sum(1).tolist() == [5, 2]
    assert frame_lengths(features, 5, None, mask.long()).tolist() == [5, 2]
    assert frame_lengths(features, 5, [3, 1], None).tolist() == [3, 1]
    assert frame_lengths(features, 5, None, None).tolist() == [5, 5]
    with pytest.raises(ValueError, match="on the right"):
        frame_lengths(features, 5, None, mask.flip(1))
    with pytest.raises(ValueError, match="`frames` must hold 2 numbers in 2 … 5"):
        frame_lengths(features, 5, [1, 5], None, "frames", minimum=2)
