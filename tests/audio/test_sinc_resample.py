"""Resampling on the device: the signal below both half rates comes through, lengths are rounded up."""

import math

import pytest
import torch

from tts_models.audio.sinc_resample import SincResampleStream, sinc_resample


@pytest.mark.parametrize(
    ("orig", "target"), [(8000, 24000), (22050, 24000), (44100, 16000), (48000, 24000), (96000, 16000), (44099, 24000)]
)
def test_a_tone_keeps_its_frequency(orig: int, target: int) -> None:
    samples = torch.sin(2 * math.pi * 440 * torch.arange(orig // 4) / orig)
    resampled = sinc_resample(samples.expand(2, -1), orig, target)
    assert resampled.shape[0] == 2 and abs(resampled.shape[1] - target / 4) <= 2
    expected = torch.sin(2 * math.pi * 440 * torch.arange(resampled.shape[1]) / target)
    middle = slice(200, resampled.shape[1] - 200)
    assert (resampled[1, middle] - expected[middle]).abs().max() < 5e-3


def test_what_the_target_cannot_hold_is_taken_out() -> None:
    samples = torch.sin(2 * math.pi * 10000 * torch.arange(12000) / 48000)
    assert sinc_resample(samples, 48000, 16000)[200:-200].abs().max() < 1e-2


def test_equal_rates_and_lengths() -> None:
    samples = torch.ones(7)
    assert sinc_resample(samples, 24000, 24000) is samples
    assert sinc_resample(samples, 24000, 16000).shape == (5,)  # 14 / 3, rounded up
    with pytest.raises(ValueError, match="orig"):
        sinc_resample(samples, 0, 16000)


@pytest.mark.parametrize(("orig", "target"), [(24000, 48000), (48000, 24000), (22050, 24000), (16000, 16000)])
@pytest.mark.parametrize("size", [1, 50, 333, 5000])
def test_pieces_equal_the_whole(orig: int, target: int, size: int) -> None:
    samples = torch.randn(2, 1001, generator=torch.Generator().manual_seed(0))
    stream = SincResampleStream(orig, target)
    pieces = [stream.push(piece) for piece in samples.split(size, dim=1)]
    if orig != target:
        pieces.append(stream.flush())
    torch.testing.assert_close(torch.cat(pieces, dim=1), sinc_resample(samples, orig, target), atol=1e-6, rtol=1e-6)
