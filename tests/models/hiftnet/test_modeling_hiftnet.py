"""What is particular to HiFTNet."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from tests.common.comparing import assert_close
from tests.models.hiftnet.tester import HOP, Tester, row_generators, stream
from tts_models import HiFTNetConfig, HiFTNetFeatureExtractor, HiFTNetModel
from tts_models.acceleration.fast_convolution import FastConv1d
from tts_models.models.hiftnet.source_hiftnet import HiFTNetSource, SourceDraws, draw_noise


@pytest.fixture(autouse=True)
def no_gradients() -> None:
    """Nothing here trains."""
    with torch.no_grad():
        yield


@pytest.fixture
def model() -> HiFTNetModel:
    """A tiny vocoder."""
    return Tester().model()


def random_mel(batch_size: int, frames: int) -> torch.Tensor:
    """Seeded frames of the tiny vocoder."""
    return torch.randn(batch_size, 8, frames, generator=torch.Generator().manual_seed(2))


# Source


def quiet_source(sampling_rate: int = 2400) -> HiFTNetSource:
    """A source without noise where it is voiced."""
    return HiFTNetSource(Tester().config(sampling_rate=sampling_rate, nsf_sigma=0.0))


def test_harmonics_are_multiples_of_the_pitch() -> None:
    source, frames = quiet_source(), 20
    draws = SourceDraws(torch.zeros(1, 3, 1), torch.randn(1, 3, frames * HOP))
    sines, _ = source.harmonics(torch.full((1, frames), 100.0), draws)
    time = torch.arange(1, frames * HOP + 1, dtype=torch.float64) / 2400
    for index in range(3):
        expected = 0.1 * torch.sin(2 * math.pi * 100 * (index + 1) * time)
        assert_close(sines[0, index], expected, 1e-5, f"harmonic {index}")


def test_unvoiced_frames_are_noise() -> None:
    """The threshold itself is unvoiced."""
    source, noise = quiet_source(), torch.randn(1, 3, 3 * HOP)
    sines, _ = source.harmonics(torch.tensor([[10.0, 100.0, 0.0]]), SourceDraws(torch.zeros(1, 3, 1), noise))
    voiced = slice(HOP, 2 * HOP)
    assert_close(sines[..., :HOP], noise[..., :HOP] / 30, 1e-6)
    assert_close(sines[..., 2 * HOP :], noise[..., 2 * HOP :] / 30, 1e-6)
    assert (sines[..., voiced] - noise[..., voiced] / 30).abs().max() > 0.01


def test_phase_does_not_drift() -> None:
    """After a minute of audio the phase is still that of the frequency (summed in float32 it would not be)."""
    source, frames = quiet_source(24000), 3000
    _, cycles = source.harmonics(
        torch.full((1, frames), 123.0), SourceDraws(torch.zeros(1, 3, 1), torch.zeros(1, 3, frames * HOP))
    )
    expected = (123.0 * frames * HOP / 24000 * torch.arange(1, 4)) % 1
    assert ((cycles[0] - expected + 0.5) % 1 - 0.5).abs().max() < 1e-3


def test_noise_of_a_prefix_is_the_prefix_of_the_noise() -> None:
    config = Tester().config()
    whole = draw_noise(config, 2, 7, row_generators(2), torch.device("cpu"))
    generators = row_generators(2)
    pieces = [draw_noise(config, 2, frames, generators, torch.device("cpu")) for frames in (3, 0, 4)]
    assert torch.equal(torch.cat(pieces, dim=-1), whole)


def test_generators_decide_the_waveform(model: HiFTNetModel) -> None:
    mel = random_mel(3, 6)
    together = model(mel, generator=row_generators(3)).waveform
    assert torch.equal(together, model(mel, generator=row_generators(3)).waveform)
    reordered = model(mel.flip(0), generator=row_generators(3)[::-1]).waveform
    assert_close(reordered.flip(0), together, 1e-5)
    one, again = (model(mel, generator=torch.Generator().manual_seed(3)).waveform for _ in range(2))
    assert torch.equal(one, again) and not torch.equal(one, together)


def test_global_seed_decides_without_generators(model: HiFTNetModel) -> None:
    torch.manual_seed(0)
    one = model(random_mel(1, 4)).waveform
    torch.manual_seed(0)
    assert torch.equal(one, model(random_mel(1, 4)).waveform)


# Inference


def test_inference_is_forward(model: HiFTNetModel) -> None:
    inputs = Tester().inputs()
    waveform, source = model.inference(inputs["input_features"], phase=inputs["phase"], noise=inputs["noise"])
    output = model(**inputs)
    assert torch.equal(waveform, output.waveform) and torch.equal(source, output.source)
    assert waveform.shape == (2, 9 * HOP) and source.shape == (2, 1, 9 * HOP)
    assert waveform.abs().max() <= model.config.audio_limit


def test_cached_source_takes_the_place_of_the_beginning(model: HiFTNetModel) -> None:
    mel, cache = random_mel(1, 6), 0.1 * torch.randn(1, 1, 2 * HOP)
    waveform, source = model.inference(mel, cache_source=cache, generator=row_generators(1))
    plain, generated = model.inference(mel, cache_source=torch.zeros(1, 1, 0), generator=row_generators(1))
    assert torch.equal(source[..., : 2 * HOP], cache)
    assert torch.equal(source[..., 2 * HOP :], generated[..., 2 * HOP :])
    assert not torch.equal(waveform, plain)


def test_batch_of_different_lengths_equals_single_rows(model: HiFTNetModel) -> None:
    mel, lengths = random_mel(3, 30), torch.tensor([30, 17, 2])
    waveform, source = model.inference(mel, lengths=lengths, generator=row_generators(3))
    for row, length in enumerate(lengths.tolist()):
        end = length * HOP
        alone = model.decode(mel[row : row + 1, :, :length], source[row : row + 1, :, :end])
        assert_close(waveform[row : row + 1, :end], alone, 1e-6)
        assert not waveform[row, end:].any()


@pytest.mark.parametrize(("n_fft", "hop"), [(8, 2), (10, 4), (6, 4), (18, 8)])
def test_spectrum_and_its_inverse(n_fft: int, hop: int) -> None:
    spectrum_layer = Tester().model(istft_n_fft=n_fft, istft_hop_len=hop).spectrum
    signal = torch.randn(2, 8 * HOP)
    real, imaginary = spectrum_layer(signal, None).chunk(2, dim=1)
    spectrum = torch.complex(real, imaginary)
    expected = torch.stft(signal, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)
    assert_close(real, expected.real, 1e-5)
    assert_close(imaginary, expected.imag, 1e-5)
    assert_close(spectrum_layer.inverse(spectrum.abs(), spectrum.angle(), None), signal, 1e-5)


def test_widths_are_rounded_down() -> None:
    model = Tester().model(base_channels=19)
    assert [layer.out_channels for layer in model.upsampler] == [9, 4]
    assert model(random_mel(1, 3), generator=row_generators(1)).waveform.shape == (1, 3 * HOP)


# Streams


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"upsample_rates": [8, 8], "upsample_kernel_sizes": [16, 16]},
        {"istft_n_fft": 10, "istft_hop_len": 4},
    ],
)
def test_stream_is_the_offline_waveform(overrides: dict) -> None:
    model = Tester().model(**overrides)
    mel = random_mel(2, 45)
    offline = model(mel, generator=row_generators(2)).waveform
    for plan in ([1] * 45, [20, 25], [40, 5]):
        assert_close(stream(model, mel, plan, row_generators(2)), offline, 1e-5, str(plan))


def test_less_context_is_wrong_by_little(model: HiFTNetModel) -> None:
    mel = random_mel(1, 40)
    offline = model(mel, generator=row_generators(1)).waveform
    errors = [
        (stream(model, mel, [10] * 4, row_generators(1), context) - offline).abs().max().item()
        for context in (0, 2, model.config.context_frames)
    ]
    assert errors[0] > errors[1] > 1e-5 > errors[2]


def test_look_ahead_is_all_that_is_held_back(model: HiFTNetModel) -> None:
    vocoder, mel = model.stream(), random_mel(1, 30)
    assert vocoder.look_ahead_frames == model.config.look_ahead_frames
    for frame in range(30):
        vocoder.push(mel[..., frame : frame + 1])
        assert vocoder.frames_out == max(frame + 1 - vocoder.look_ahead_frames, 0)
        assert vocoder.mel.shape[-1] <= 2 * vocoder.look_ahead_frames + 1
    assert vocoder.flush().shape == (1, vocoder.look_ahead_frames * HOP)


def test_stream_shorter_than_the_look_ahead(model: HiFTNetModel) -> None:
    mel = random_mel(1, 2)
    offline = model(mel, generator=row_generators(1)).waveform
    assert_close(stream(model, mel, [1, 1], row_generators(1)), offline, 1e-6)


def test_flushed_stream_takes_no_more(model: HiFTNetModel) -> None:
    vocoder = model.stream()
    assert vocoder.flush().shape == (1, 0)
    with pytest.raises(ValueError, match="flushed"):
        vocoder.push(random_mel(1, 1))


def test_context_of_the_released_vocoder() -> None:
    assert HiFTNetConfig().context_frames == 15 and HiFTNetConfig().look_ahead_frames == 20


# Weights and features


def test_weight_norm_changes_nothing(model: HiFTNetModel) -> None:
    inputs = Tester().inputs()
    before, names = model(**inputs).waveform, set(model.state_dict())
    model.apply_weight_norm()
    assert_close(model(**inputs).waveform, before, 1e-5)
    assert "upsampler.0.parametrizations.weight.original0" in model.state_dict()
    assert "source_downs.0.weight" in model.state_dict()
    model.remove_weight_norm()
    assert set(model.state_dict()) == names
    assert_close(model(**inputs).waveform, before, 1e-5)


def test_pitch_stays_in_single_precision(model: HiFTNetModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    half = HiFTNetModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.conv_pre.weight.dtype == torch.bfloat16
    assert half.f0_predictor.classifier.weight.dtype == half.harmonic_source.linear.weight.dtype == torch.float32
    inputs = Tester().inputs()
    output, expected = half(**inputs), model(**inputs)
    assert output.waveform.dtype == torch.float32 and torch.equal(output.f0, expected.f0)
    assert_close(output.waveform, expected.waveform, 0.05)


def test_feature_extractor_round_trip(tmp_path: Path) -> None:
    extractor = HiFTNetFeatureExtractor()
    extractor.save_pretrained(tmp_path)
    Tester().config().save_pretrained(tmp_path)
    reloaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(reloaded) is HiFTNetFeatureExtractor and reloaded.to_dict() == extractor.to_dict()
    audio = [np.random.default_rng(0).uniform(-0.5, 0.5, size).astype(np.float32) for size in (4800, 961)]
    inputs = reloaded(audio, sampling_rate=24000)
    assert inputs["input_features"].shape == (2, 80, 10) and inputs["attention_mask"].sum(-1).tolist() == [10, 2]
    with pytest.raises(ValueError, match="raw_audio.*720"):
        reloaded(np.zeros(720, np.float32), sampling_rate=24000)


@torch.no_grad()
def test_fast_convolutions_change_nothing() -> None:
    model, mel = Tester().model(base_channels=64, resblock_kernel_sizes=[3, 7]), random_mel(2, 12)
    expected = model(mel, generator=row_generators(2)).waveform
    model.use_fast_convolutions()
    assert sum(module.fast is not None for module in model.modules() if isinstance(module, FastConv1d)) == 4
    assert_close(model(mel, generator=row_generators(2)).waveform, expected, 1e-4)


@pytest.mark.gpu
def test_cuda(model: HiFTNetModel) -> None:
    torch.backends.cudnn.allow_tf32 = False
    mel = random_mel(2, 30)
    expected = model(mel, generator=row_generators(2)).waveform
    model = model.cuda()
    assert_close(model(mel.cuda(), generator=row_generators(2)).waveform.cpu(), expected, 1e-4)
    assert_close(stream(model, mel.cuda(), [10, 20], row_generators(2)).cpu(), expected, 1e-4)
