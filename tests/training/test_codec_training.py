"""The parts of codec training, on tiny codecs and synthetic tones."""

import numpy as np
import pytest
import torch

from tts_models.audio import save_audio
from tts_models.models.snac import SnacConfig, SnacModel
from tts_models.training.audio_dataset import AudioCropDataset, find_audio_files, read_metadata
from tts_models.training.codec import CodebookRefresher, SpectrogramPretraining, WaveformTraining, widen_decoder
from tts_models.training.discriminators import WaveformDiscriminator
from tts_models.training.spectral_losses import LogMelSpectrogram, MultiScaleSpectralLoss, waveform_loss


def tiny_codec(**options) -> SnacModel:
    config = SnacConfig(
        sampling_rate=16000,
        encoder_hidden_size=4,
        downsampling_ratios=[4, 4, 4],
        decoder_hidden_size=32,
        codebook_size=16,
        vq_strides=[2, 1],
        **options,
    )
    return SnacModel(config)


def tones(batch_size: int = 2, samples: int = 4096) -> torch.Tensor:
    time = torch.arange(samples) / 16000
    return torch.stack([0.5 * torch.sin(2 * torch.pi * 220 * (row + 1) * time) for row in range(batch_size)])[:, None]


def test_spectral_loss_is_zero_for_equal_and_grows_with_distance() -> None:
    loss, audio = MultiScaleSpectralLoss(16000), tones()[:, 0]
    near, far = loss(0.9 * audio, audio), loss(torch.randn_like(audio), audio)
    assert loss(audio, audio) < 1e-6 < near < far


def test_log_mel_peaks_at_the_band_of_the_tone() -> None:
    mel = LogMelSpectrogram(16000, 1024, 256, 80)
    low, high = (mel(tones(8)[row]).mean(-1).argmax() for row in (0, 7))
    assert low < high


@pytest.mark.parametrize("train_encoder", [True, False])
def test_waveform_training_reaches_the_parameters_it_should(train_encoder: bool) -> None:
    network = WaveformTraining(tiny_codec(), train_encoder=train_encoder)
    network(tones(), discriminator=WaveformDiscriminator(periods=(2,), poolings=(1,))).loss.backward()
    model = network.model
    assert all(p.grad is not None for p in model.decoder.parameters())
    assert all((p.grad is not None) == train_encoder for p in model.encoder.parameters())


def test_spectrogram_pretraining_learns() -> None:
    network = SpectrogramPretraining(tiny_codec(), width=32)
    parameters = [p for name, p in network.named_parameters() if "decoder" not in name]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    for step in range(30):
        loss = network(tones(), quantize=step >= 10).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[9] < 0.8 * losses[0]
    assert all(p.grad is None for p in network.model.decoder.parameters())


@pytest.mark.parametrize("options", [{}, {"depthwise": False, "use_noise": False}])
def test_wider_decoder_decodes_as_before_and_learns(options: dict) -> None:
    model = tiny_codec(**options)
    wider = widen_decoder(model, 64)
    codes = model.encode(tones()).audio_codes
    assert all(torch.equal(one, other) for one, other in zip(codes, wider.encode(tones()).audio_codes, strict=True))
    before, after = (
        each.decode(codes, generator=torch.Generator().manual_seed(0)).audio_values for each in (model, wider)
    )
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-5)
    WaveformTraining(wider, train_encoder=False)(tones()).loss.backward()
    assert wider.decoder.conv2.weight.grad[:, wider.decoder.conv2.in_channels // 2 :].abs().min() > 0


def test_widening_errors_name_the_argument() -> None:
    model = tiny_codec()
    for size in (32, 60):
        with pytest.raises(ValueError, match=f"`decoder_hidden_size`.*{size}"):
            widen_decoder(model, size)
    model.config.attention_window_size = 4
    with pytest.raises(ValueError, match="`attention_window_size"):
        widen_decoder(model, 64)


def test_refresher_moves_unused_codes_to_the_inputs() -> None:
    model = tiny_codec()
    refresher = CodebookRefresher(model, interval=1)
    before = model.quantizer.quantizers[0].codebook.weight.clone()
    latents = model.encode(tones(8)).latents
    refresher.step()
    moved = (model.quantizer.quantizers[0].codebook.weight != before).any(1)
    assert refresher.last_usage[0] == pytest.approx(1 - moved.float().mean().item())
    assert moved.any() and latents.isfinite().all()


def test_discriminators_can_tell_and_be_fooled() -> None:
    discriminator, audio = WaveformDiscriminator(periods=(2, 3), poolings=(1, 2)), tones()[:, 0]
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    noise = 0.1 * torch.randn_like(audio)
    first = discriminator.discriminator_loss(noise, audio)
    for _ in range(10):
        loss = discriminator.discriminator_loss(noise, audio)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < first
    assert discriminator.generator_loss(audio, audio) < discriminator.generator_loss(noise, audio)


def test_crops_are_reproducible_and_padded(tmp_path) -> None:
    save_audio(tmp_path / "short.wav", 0.5 * np.ones(100, dtype=np.float32), 16000)
    dataset = AudioCropDataset(find_audio_files(tmp_path), 16000, crop_samples=256, length=4, seed=1)
    crop = dataset[2]["input_values"]
    assert crop.shape == (1, 256) and (crop != 0).sum() == 100
    assert torch.equal(crop, dataset[2]["input_values"])
    with pytest.raises(ValueError, match="folder"):
        find_audio_files(tmp_path / "nothing")


@pytest.mark.parametrize("samples", [1000, 100])
def test_crops_start_on_the_grid(tmp_path, samples: int) -> None:
    save_audio(tmp_path / "ramp.wav", np.arange(1, samples + 1, dtype=np.float32) / 2048, 16000)
    dataset = AudioCropDataset(find_audio_files(tmp_path), 16000, 256, length=20, grid_samples=32)
    starts = set()
    for number in range(20):
        crop = (dataset[number]["input_values"][0] * 2048).round().int()
        starts.add(int(crop[0] - 1 if samples > 256 else -(crop != 0).int().argmax()))
    assert len(starts) > 3 and all(start % 32 == 0 for start in starts)


def test_waveform_loss_compares_samples() -> None:
    audio = tones()[:, 0]
    assert waveform_loss(audio, audio) == 0
    assert waveform_loss(0 * audio, audio) == pytest.approx(1.0, abs=1e-3)
    assert waveform_loss(-audio, audio) == pytest.approx(2.0, abs=1e-3)
    assert waveform_loss(audio.roll(20, 1), audio) > waveform_loss(audio.roll(2, 1), audio)


def test_waveform_weight_adds_the_samples_distance() -> None:
    torch.manual_seed(0)
    codec, audio = tiny_codec(), tones()
    plain, weighted = (
        WaveformTraining(codec, waveform_weight=weight)(audio, None).loss.item() for weight in (0.0, 2.0)
    )
    assert weighted > plain + 0.5


@pytest.mark.parametrize("line", ["missing.wav|Hello.", "a.wav", "a.wav| |x", "a.wav|b|c|d"])
def test_metadata_errors_name_the_line(tmp_path, line: str) -> None:
    save_audio(tmp_path / "a.wav", np.zeros(100, dtype=np.float32), 16000)
    (tmp_path / "metadata.csv").write_text(f"audio_files|captions\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        read_metadata(tmp_path / "metadata.csv")
