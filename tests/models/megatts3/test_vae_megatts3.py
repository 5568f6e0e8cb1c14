"""WaveVAE beyond the common suite: parts of a waveform, checkpoints without an encoder, weight normalisation."""

from pathlib import Path

import pytest
import torch

from tests.models.megatts3.parts import LATENT_DIM, VAETester, generators, seeded
from tts_models.models.megatts3.modeling_megatts3_vae import MegaTTS3VAEModel
from tts_models.training.wave_vae import WaveVAETraining


@pytest.fixture(scope="module")
def model() -> MegaTTS3VAEModel:
    """A tiny model."""
    return VAETester().model()


@torch.no_grad()
def test_the_end_is_decoded_alone(model: MegaTTS3VAEModel) -> None:
    latents = seeded(1, 20, LATENT_DIM)
    whole = model.decode(latents).audio_values
    assert whole.shape == (1, 20 * 960) and whole.std() > 0.01
    context = model.decoder.context_latents
    for start in (0, 1, context, context + 1, 19):
        end = model.decode(latents, first_latent=start)
        assert end.audio_lengths.tolist() == [(20 - start) * 960]
        torch.testing.assert_close(end.audio_values, whole[:, start * 960 :], atol=1e-5, rtol=0)


@torch.no_grad()
def test_context_is_what_a_sample_depends_on(model: MegaTTS3VAEModel) -> None:
    context = model.decoder.context_latents
    latents = seeded(1, 2 * context + 3, LATENT_DIM)
    changed, middle = latents.clone(), slice((context + 1) * 960, (context + 2) * 960)
    changed[:, [0, -1]] += 5
    assert torch.equal(model.decode(changed).audio_values[:, middle], model.decode(latents).audio_values[:, middle])


@torch.no_grad()
def test_ends_of_rows_of_different_lengths(model: MegaTTS3VAEModel) -> None:
    latents, lengths, starts = seeded(3, 20, LATENT_DIM), torch.tensor([20, 13, 4]), torch.tensor([11, 12, 0])
    together = model.decode(latents, lengths, starts)
    for row, (length, start) in enumerate(zip(lengths.tolist(), starts.tolist(), strict=True)):
        alone = model.decode(latents[row : row + 1, :length]).audio_values[0, start * 960 :]
        assert together.audio_lengths[row] == len(alone)
        torch.testing.assert_close(together.audio_values[row, : len(alone)], alone, atol=1e-5, rtol=0)
        assert not together.audio_values[row, len(alone) :].any()


@torch.no_grad()
def test_latents_are_the_mean_or_drawn(model: MegaTTS3VAEModel) -> None:
    waveforms = 0.1 * seeded(2, 1500)
    encoded = model.encode(waveforms)
    assert torch.equal(encoded.latents, encoded.mean)
    one, two = (model.encode(waveforms, sample=True, generator=generators(2)).latents for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, encoded.mean)
    alone = model.encode(waveforms[1:], sample=True, generator=generators(2)[1:]).latents
    torch.testing.assert_close(alone, one[1:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_weight_norm_changes_nothing(model: MegaTTS3VAEModel) -> None:
    latents, stored = seeded(1, 4, LATENT_DIM), set(model.state_dict())
    plain = model.decode(latents).audio_values
    model.apply_weight_norm()
    torch.testing.assert_close(model.decode(latents).audio_values, plain, atol=1e-5, rtol=0)
    assert "decoder.conv_in.parametrizations.weight.original0" in model.state_dict()
    model.remove_weight_norm()
    assert set(model.state_dict()) == stored


def test_checkpoint_without_an_encoder(tmp_path: Path) -> None:
    model = VAETester().model(has_encoder=False)
    model.save_pretrained(tmp_path)
    reloaded = MegaTTS3VAEModel.from_pretrained(tmp_path)
    assert reloaded.encoder is None and not any("encoder" in name.split(".")[0] for name in reloaded.state_dict())
    latents = seeded(1, 3, LATENT_DIM)
    assert torch.equal(reloaded.decode(latents).audio_values, model.decode(latents).audio_values)
    with pytest.raises(ValueError, match=r"\.npy"):
        reloaded.encode(seeded(1, 960))


def test_an_encoder_is_added_and_trained_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VAETester().model(has_encoder=False).add_encoder()
    decoder = {name: p.clone() for name, p in model.decoder.named_parameters()}
    training = WaveVAETraining(model, train_decoder=False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    training(0.1 * seeded(1, 2880)).loss.backward()
    optimizer.step()
    assert model.encoder.layers[0].conv.weight.grad.any() and model.latent_projection.weight.grad.any()
    assert all(torch.equal(p, decoder[name]) for name, p in model.decoder.named_parameters())
    model.save_pretrained(tmp_path)
    assert MegaTTS3VAEModel.from_pretrained(tmp_path).encode(seeded(1, 961)).latents.shape == (1, 2, LATENT_DIM)


def test_decoder_without_a_tanh() -> None:
    model = VAETester().model(use_tanh=False)
    model.decoder.scale.weight.data.fill_(100.0)
    assert model.decode(seeded(1, 4, LATENT_DIM)).audio_values.abs().max() > 1


@torch.no_grad()
@pytest.mark.parametrize("use_tanh", [True, False])
def test_bands_of_rows_of_different_lengths(use_tanh: bool) -> None:
    model = VAETester().model(num_bands=3, use_tanh=use_tanh)
    latents, lengths, starts = seeded(2, 9, LATENT_DIM), torch.tensor([9, 5]), torch.tensor([2, 4])
    together = model.decode(latents, lengths, starts)
    assert together.audio_values.shape == (2, 3, 7 * 960) and together.audio_lengths.tolist() == [7 * 960, 960]
    assert not torch.equal(together.audio_values[:, 0], together.audio_values[:, 1])
    for row, (length, start) in enumerate(zip(lengths.tolist(), starts.tolist(), strict=True)):
        alone = model.decode(latents[row : row + 1, :length]).audio_values[0, :, start * 960 :]
        torch.testing.assert_close(together.audio_values[row, :, : alone.shape[1]], alone, atol=1e-5, rtol=0)
        assert not together.audio_values[row, :, alone.shape[1] :].any()
    assert model(0.1 * seeded(2, 1500)).audio_values.shape == (2, 3, 1500)


def test_encoder_without_an_lstm(tmp_path: Path) -> None:
    model = VAETester().model(encoder_num_lstm_layers=0)
    assert not any("lstm" in name for name in model.state_dict())
    model.save_pretrained(tmp_path)
    reloaded, waveform = MegaTTS3VAEModel.from_pretrained(tmp_path), 0.1 * seeded(1, 1930)
    latents = reloaded.encode(waveform).latents
    assert latents.shape == (1, 3, LATENT_DIM) and torch.equal(latents, model.encode(waveform).latents)


@torch.no_grad()
def test_fast_convolutions_change_nothing() -> None:
    model, latents = VAETester().model(decoder_hidden_size=8), seeded(2, 9, LATENT_DIM)
    expected = model.decode(latents, torch.tensor([9, 4])).audio_values
    model.use_fast_convolutions()
    assert model.decoder.upsamplers[0].conv.fast is not None
    torch.testing.assert_close(model.decode(latents, torch.tensor([9, 4])).audio_values, expected, atol=1e-5, rtol=0)
