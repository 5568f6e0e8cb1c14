"""What is particular to multi-band diffusion."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.common.comparing import assert_close
from tts_models.audio.band_split import split_bands
from tts_models.models.metavoice.configuration_metavoice import MetaVoiceMultiBandDiffusionConfig
from tts_models.models.metavoice.modeling_metavoice_diffusion import MetaVoiceMultiBandDiffusion, transitions


HOP = 20
BAND = {"hidden_size": 8, "depth": 2, "growth": 2.0, "num_train_steps": 50}


def tiny_diffusion(**overrides: Any) -> MetaVoiceMultiBandDiffusion:
    """Two bands, the second with a processor; 4 steps."""
    torch.manual_seed(0)
    arguments = {
        "band_configs": [BAND, BAND | {"processor_bands": 3, "processor_power": 0.5}],
        "codec_hidden_size": 4,
        "sampling_rate": 2000,
        "hop_length": HOP,
        "num_inference_steps": 4,
        "equalizer_bands": 4,
    }
    model = MetaVoiceMultiBandDiffusion(MetaVoiceMultiBandDiffusionConfig(**(arguments | overrides))).eval()
    for band in model.bands:
        if band.processor is not None:
            band.processor.deviation.fill_(0.25)
    return model


def inputs(batch_size: int = 2, frames: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and reference audio."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch_size, 4, frames, generator=generator)
    return latents, 0.1 * torch.randn(batch_size, frames * HOP, generator=generator)


def row_generators(batch_size: int) -> list[torch.Generator]:
    """Fresh generators, one per row, the same at every call."""
    return [torch.Generator().manual_seed(row) for row in range(batch_size)]


def test_steps_of_the_release() -> None:
    config = MetaVoiceMultiBandDiffusionConfig(band_configs=[{"hidden_size": 8, "depth": 1}])
    model = MetaVoiceMultiBandDiffusion(config)
    assert model.default_steps() == [*range(999, 0, -50), 0]
    for count in (1, 7, 999):
        steps = model.default_steps(count)
        assert len(steps) == count + 1 and steps[0] == 999 and steps[-1] == 0
    for count in (0, 1000):
        with pytest.raises(ValueError, match="num_inference_steps"):
            model.default_steps(count)


def test_way_from_noise_to_sound() -> None:
    """A network that knows the noise leads to the sound, whatever is added on the way."""
    band = {"beta_start": 1e-5, "beta_end": 2.9e-2, "beta_exponent": 7.5, "num_train_steps": 1000}
    way = transitions(band, [*range(999, 0, -50), 0])
    betas = torch.linspace(1e-5 ** (1 / 7.5), 2.9e-2 ** (1 / 7.5), 1000, dtype=torch.float64) ** 7.5
    remaining = (1 - betas).cumprod(0)
    torch.manual_seed(0)
    sound = torch.randn(1000, dtype=torch.float64) * 0.3
    current = torch.randn(1000, dtype=torch.float64)
    assert len(way) == 20 and way[-1].deviation == 0
    for transition in way:
        kept = remaining[transition.step]
        estimate = (current - kept.sqrt() * sound) / (1 - kept).sqrt()
        current = (current - transition.noise_share * estimate) / transition.scale
        current = current + transition.deviation * torch.randn(1000, dtype=torch.float64)
    assert (current - sound).abs().max() < 0.05


def test_equaliser_gives_the_deviation_of_the_reference() -> None:
    model = tiny_diffusion()
    made, wanted = inputs(2, 60)[1], inputs(2, 60)[1].flip(0)
    wanted = torch.cat([wanted[:1], 9 * wanted[1:]]) + 0.5 * torch.sin(0.02 * torch.arange(1200))
    # Neighbouring bands overlap, so what they add up to is close to what each was given.
    equalised = split_bands(model.equalize(made, wanted), 4, 2000).std(-1)
    assert (equalised / split_bands(wanted, 4, 2000).std(-1) - 1).abs().max() < 0.4
    assert torch.equal(model.equalize(torch.zeros(1, 100), made[:1, :100]), torch.zeros(1, 100))


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"use_lstm": True},
        {"use_transformer": True},
        {"use_transformer": True, "use_cross_attention": True},
        {"use_lstm": True, "use_condition": False},
    ],
)
def test_rows_of_different_lengths_equal_single_rows(kind: dict) -> None:
    model = tiny_diffusion(band_configs=[BAND | {"depth": 2, "growth": 4.0} | kind])
    latents, reference = inputs(3, 8)
    lengths = torch.tensor([8, 3, 8])
    together = model(latents, reference, lengths=lengths, generator=row_generators(3))
    for row, frames in enumerate(lengths.tolist()):
        end = frames * HOP
        alone = model(
            latents[row : row + 1, :, :frames],
            reference[row : row + 1, :end],
            generator=torch.Generator().manual_seed(row),
        )
        assert_close(together.waveform[row : row + 1, :end], alone.waveform, 1e-4)
        assert not together.waveform[row, end:].any() and not together.diffused[row, end:].any()


def test_noise_and_generators_decide_the_sound() -> None:
    model, (latents, reference) = tiny_diffusion(), inputs()
    one, again = (model(latents, reference, generator=row_generators(2)).waveform for _ in range(2))
    assert torch.equal(one, again)
    other = model(latents, reference, generator=torch.Generator().manual_seed(5)).waveform
    assert not torch.equal(one, other)
    noise = torch.randn(2, 4, 2, 6 * HOP)
    given, same = (model(latents, reference, noise=noise).waveform for _ in range(2))
    assert torch.equal(given, same)
    torch.manual_seed(3)
    free = model(latents, reference).waveform
    torch.manual_seed(3)
    assert torch.equal(free, model(latents, reference).waveform)


def test_recorded_noise_is_what_generators_draw() -> None:
    model, (latents, reference) = tiny_diffusion(), inputs()
    expected = model(latents, reference, generator=row_generators(2)).waveform
    draws = [[torch.randn(6 * HOP, generator=generator) for _ in range(8)] for generator in row_generators(2)]
    noise = torch.stack([torch.stack(row) for row in draws], dim=1).unflatten(0, (2, 4))
    assert_close(model(latents, reference, noise=noise).waveform, expected, 1e-6)


def test_what_a_band_hears_of_the_latent() -> None:
    noisy, steps = torch.randn(1, 1, 6 * HOP), torch.tensor([7])
    latents = inputs(1)[0]
    changed = latents.clone()
    changed[..., 1] += 1.0
    transformer = {"growth": 4.0, "use_transformer": True}
    heard = []
    for kind in (transformer, transformer | {"use_cross_attention": True}, {"use_condition": False}):
        unet = tiny_diffusion(band_configs=[BAND | kind]).bands[0].unet
        # What attends to the latent does not add it: frames of another rate are heard as they are.
        heard.append(
            [
                not torch.allclose(unet(noisy, steps, each), unet(noisy, steps, latents))
                for each in (changed, latents.repeat_interleave(2, -1))
            ]
        )
    assert heard == [[True, False], [True, True], [False, False]]


@pytest.mark.parametrize("attends", [False, True])
def test_attention_implementations_agree(attends: bool, tmp_path: Path) -> None:
    kind = {"growth": 4.0, "use_transformer": True, "use_cross_attention": attends}
    model = tiny_diffusion(band_configs=[BAND | kind])
    model.save_pretrained(tmp_path)
    latents, reference = inputs()
    sounds = []
    for name in ("eager", "sdpa"):
        loaded = MetaVoiceMultiBandDiffusion.from_pretrained(tmp_path, attn_implementation=name)
        sounds.append(loaded(latents, reference, generator=row_generators(2)).waveform)
    assert_close(*sounds, 1e-4)


def test_save_load_round_trip(tmp_path: Path) -> None:
    model, (latents, reference) = tiny_diffusion(), inputs()
    model.save_pretrained(tmp_path)
    reloaded = MetaVoiceMultiBandDiffusion.from_pretrained(tmp_path)
    assert reloaded.config.band_configs == model.config.band_configs
    sounds = [each(latents, reference, generator=row_generators(2)).waveform for each in (model, reloaded)]
    assert_close(*sounds, 1e-5)
    half = MetaVoiceMultiBandDiffusion.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half(latents, reference, generator=row_generators(2)).waveform.isfinite().all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"latents": torch.zeros(2, 5, 6)}, "latents"),
        ({"latents": torch.zeros(2, 4, 0)}, "latents"),
        ({"reference_audio": torch.zeros(2, 119)}, "reference_audio"),
        ({"lengths": torch.tensor([6, 7])}, "lengths"),
        ({"noise": torch.zeros(2, 3, 2, 120)}, "noise"),
        ({"generator": row_generators(3)}, "generator"),
        ({"steps": [10, 20]}, "steps"),
        ({"steps": [50, 0]}, "steps"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
    ],
)
def test_bad_input_is_refused(arguments: dict, message: str) -> None:
    latents, reference = inputs()
    with pytest.raises(ValueError, match=message):
        tiny_diffusion()(**({"latents": latents, "reference_audio": reference} | arguments))


@pytest.mark.gpu
def test_cuda() -> None:
    torch.backends.cudnn.allow_tf32 = False
    model, (latents, reference) = tiny_diffusion(), inputs()
    expected = model(latents, reference, generator=row_generators(2)).waveform
    sound = model.cuda()(latents.cuda(), reference.cuda(), generator=row_generators(2)).waveform
    assert_close(sound.cpu(), expected, 1e-3)
