"""Splitting into bands, and cutting silence."""

import pytest
import torch

from tests.common.comparing import assert_close
from tts_models.audio.band_split import mel_edges, split_bands
from tts_models.audio.trimming import voice_bounds


def noise(*shape: int) -> torch.Tensor:
    """Seeded noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_edges_are_even_on_the_mel_scale() -> None:
    edges = torch.tensor(mel_edges(8, 24000))
    # As `julius` 0.2.8 has them.
    expected = [305.6254, 744.6893, 1375.4516, 2281.6098, 3583.4041, 5453.5714, 8140.2669]
    assert_close(edges, torch.tensor(expected), 1e-2)


@pytest.mark.parametrize("bands, samples", [(1, 10), (2, 1), (8, 3000), (32, 4000)])
def test_bands_add_up(bands: int, samples: int) -> None:
    waveforms = noise(2, samples)
    split = split_bands(waveforms, bands, 24000)
    assert split.shape == (bands, 2, samples)
    assert_close(split.sum(0), waveforms, 1e-4)


def test_a_tone_is_in_its_band() -> None:
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(24000) / 24000)[None]
    power = split_bands(tone, 8, 24000).square().mean((1, 2))
    assert power.argmax() == 2 and power[2] > 0.95 * power.sum()


def test_rows_do_not_know_of_each_other() -> None:
    waveforms = noise(3, 500)
    assert_close(split_bands(waveforms, 4, 24000)[:, 1], split_bands(waveforms[1:2], 4, 24000)[:, 0], 1e-6)


def test_bad_input_is_refused() -> None:
    for waveforms, bands in ((noise(2, 0), 4), (noise(10), 4), (noise(1, 10), 0)):
        with pytest.raises(ValueError, match="samples"):
            split_bands(waveforms, bands, 24000)


def test_silence_before_and_after_the_voice() -> None:
    samples = torch.cat([1e-4 * noise(8000), noise(9000), 1e-4 * noise(12000)])
    start, end = voice_bounds(samples, 20.0)
    assert 8000 - 1536 < start <= 8000 and 17000 <= end < 17000 + 1536
    assert voice_bounds(torch.zeros(5000), 20.0) == (0, 5000)
    assert voice_bounds(noise(3), 20.0) == (0, 3)
