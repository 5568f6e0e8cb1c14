"""SNAC beyond the common suite: noise, streams, weight norm, lengths."""

import json
from pathlib import Path

import pytest
import torch

from tests.common.comparing import assert_close
from tests.models.snac.tester import Tester, random_codes, row_generators, stream
from tts_models import SnacConfig, SnacModel


@pytest.fixture
def codec() -> SnacModel:
    """A tiny codec without attention."""
    return Tester().model(attention_window_size=None)


@pytest.fixture(autouse=True)
def without_gradients() -> None:
    """The tests here only look at outputs."""
    torch.set_grad_enabled(False)
    yield
    torch.set_grad_enabled(True)


# Configuration


def test_derived_sizes_of_the_released_codecs() -> None:
    speech = SnacConfig()
    assert (speech.hop_length, speech.samples_per_frame, speech.tokens_per_frame) == (512, 2048, 7)
    assert (speech.hidden_size, speech.num_codebooks, speech.pad_to_multiple_of) == (768, 3, 2048)
    music = SnacConfig(
        sampling_rate=44100,
        encoder_hidden_size=64,
        downsampling_ratios=[2, 3, 8, 8],
        decoder_hidden_size=1536,
        attention_window_size=32,
        vq_strides=[8, 4, 2, 1],
    )
    assert music.upsampling_ratios == [8, 8, 3, 2]
    assert (music.hop_length, music.samples_per_frame, music.tokens_per_frame) == (384, 3072, 15)
    assert (music.hidden_size, music.pad_to_multiple_of) == (1024, 12288)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"downsampling_ratios": [2, 1]}, "downsampling_ratios.*at least 2"),
        ({"upsampling_ratios": []}, "upsampling_ratios.*at least 2"),
        ({"upsampling_ratios": [4, 8, 8]}, "hop length 512"),
        ({"vq_strides": [3, 2]}, "vq_strides"),
        ({"decoder_hidden_size": 15}, "at least 16"),
    ],
)
def test_impossible_configuration_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SnacConfig(**options)


# Lengths


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (95, 1), (96, 1), (97, 2), (960, 10)])
def test_input_is_padded_to_whole_frames(codec: SnacModel, samples: int, frames: int) -> None:
    audio = torch.rand(1, 1, samples) - 0.5
    encoded = codec.encode(audio)
    assert [codes.shape[1] for codes in encoded.audio_codes] == [frames, 2 * frames, 4 * frames]
    assert [lengths.tolist() for lengths in encoded.code_lengths] == [[frames], [2 * frames], [4 * frames]]
    assert codec.decode(encoded.audio_codes).audio_values.shape == (1, 96 * frames)
    assert codec(audio).audio_values.shape == (1, samples)


def test_attention_pads_to_whole_windows() -> None:
    codec = Tester().model(attention_window_size=8)
    encoded = codec.encode(torch.zeros(1, 1, 100))
    assert [codes.shape[1] for codes in encoded.audio_codes] == [2, 4, 8]


def test_batch_of_unequal_rows_is_encoded_as_each_alone(codec: SnacModel) -> None:
    lengths = (500, 96, 301)
    audio = torch.rand(3, 1, 500) - 0.5
    mask = (torch.arange(500) < torch.tensor(lengths)[:, None]).long()
    encoded = codec.encode(audio, padding_mask=mask)
    for row, length in enumerate(lengths):
        alone = codec.encode(audio[row : row + 1, :, :length])
        for level, codes in enumerate(alone.audio_codes):
            assert encoded.code_lengths[level][row] == codes.shape[1]
            assert torch.equal(encoded.audio_codes[level][row : row + 1, : codes.shape[1]], codes)


def test_batch_of_unequal_rows_is_decoded_as_each_alone(codec: SnacModel) -> None:
    frames, codes = [6, 0, 2], random_codes(codec.config, 3, 6)
    output = codec.decode(codes, frame_lengths=torch.tensor(frames), generator=row_generators(3))
    assert output.audio_lengths.tolist() == [96 * count for count in frames]
    for row, count in enumerate(frames):
        assert not output.audio_values[row, 96 * count :].any()
        if count:
            alone = tuple(level[row : row + 1, : count * n] for level, n in zip(codes, (1, 2, 4), strict=True))
            expected = codec.decode(alone, generator=row_generators(3)[row]).audio_values[0]
            assert_close(output.audio_values[row, : 96 * count], expected, 1e-6)


def test_no_frames_are_no_samples(codec: SnacModel) -> None:
    codes = tuple(torch.zeros(2, 0, dtype=torch.long) for _ in range(3))
    assert codec.decode(codes).audio_values.shape == (2, 0)


# Noise


def test_noise_scale_zero_is_deterministic(codec: SnacModel) -> None:
    codes = random_codes(codec.config, 2, 4)
    silent = codec.decode(codes, noise_scale=0.0).audio_values
    assert torch.equal(silent, codec.decode(codes, noise_scale=0.0).audio_values)
    assert not torch.equal(silent, codec.decode(codes).audio_values)


def test_generator_decides_the_noise_of_its_row_alone(codec: SnacModel) -> None:
    codes = random_codes(codec.config, 3, 4)
    batched = codec.decode(codes, generator=row_generators(3)).audio_values
    reordered = codec.decode(tuple(level.flip(0) for level in codes), generator=row_generators(3)[::-1]).audio_values
    assert_close(reordered.flip(0), batched, 1e-6)
    for row, generator in enumerate(row_generators(3)):
        alone = codec.decode(tuple(level[row : row + 1] for level in codes), generator=generator).audio_values
        assert_close(alone[0], batched[row], 1e-6)


def test_one_generator_seeds_every_row(codec: SnacModel) -> None:
    codes = tuple(level.expand(2, -1) for level in random_codes(codec.config, 1, 4))
    one, again = (codec.decode(codes, generator=torch.Generator().manual_seed(3)).audio_values for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one[0], one[1])


def test_noise_of_a_prefix_is_the_prefix_of_the_noise(codec: SnacModel) -> None:
    """An utterance that goes on changes nothing that lies further back than the receptive field."""
    codes = random_codes(codec.config, 1, 30)
    whole = codec.decode(codes, generator=row_generators(1)).audio_values
    prefix = tuple(level[:, : 20 * n] for level, n in zip(codes, (1, 2, 4), strict=True))
    short = codec.decode(prefix, generator=row_generators(1)).audio_values
    safe = 20 * 96 - codec.decoder_stream().look_ahead
    assert_close(short[:, :safe], whole[:, :safe], 1e-6)


def test_given_noise_is_used(codec: SnacModel) -> None:
    codes = random_codes(codec.config, 1, 2)
    noise = [torch.zeros(1, 1, 8 * size) for size in (4, 12, 24)]
    assert_close(
        codec.decode(codes, noise=noise).audio_values, codec.decode(codes, noise_scale=0.0).audio_values, 1e-6
    )


def test_codec_without_noise_needs_no_generator() -> None:
    codec = Tester().model(use_noise=False, attention_window_size=None)
    codes = random_codes(codec.config, 2, 3)
    assert torch.equal(codec.decode(codes).audio_values, codec.decode(codes, generator=row_generators(2)).audio_values)


# Streams


@pytest.mark.parametrize("vq_strides", [[4, 2, 1], [2, 1], [1], [8, 4, 2, 1]])
@pytest.mark.parametrize("overrides", [{}, {"use_noise": False}, {"depthwise": False}, {"attention_window_size": 8}])
def test_stream_is_the_offline_waveform(vq_strides: list[int], overrides: dict) -> None:
    codec = Tester().model(**({"attention_window_size": None, "vq_strides": vq_strides} | overrides))
    codes, generator = random_codes(codec.config, 2, 16), torch.Generator().manual_seed(0)
    sizes = torch.randint(0, 6, (16,), generator=generator).tolist()
    chunks = [min(size, max(16 - sum(sizes[:i]), 0)) for i, size in enumerate(sizes)]
    chunks.append(16 - sum(chunks))
    offline = codec.decode(codes, generator=row_generators(2)).audio_values
    for plan in ([1] * 16, [16], chunks):
        assert_close(stream(codec, codes, plan, row_generators(2)), offline, 1e-5, str(plan))


def test_odd_strides_stream_too() -> None:
    codec = Tester().model(downsampling_ratios=[3, 5], upsampling_ratios=[5, 3], attention_window_size=None)
    codes = random_codes(codec.config, 1, 12)
    offline = codec.decode(codes, generator=row_generators(1)).audio_values
    assert_close(stream(codec, codes, [1] * 12, row_generators(1)), offline, 1e-5)


def test_look_ahead_is_all_that_is_held_back(codec: SnacModel) -> None:
    decoder, codes = codec.decoder_stream(), random_codes(codec.config, 1, 12)
    assert decoder.look_ahead == 443
    for frame in range(12):
        piece = tuple(level[:, frame * n : (frame + 1) * n] for level, n in zip(codes, (1, 2, 4), strict=True))
        decoder.push(piece)
        assert decoder.samples_out == max(96 * (frame + 1) - decoder.look_ahead, 0)
    assert decoder.flush().shape == (1, decoder.look_ahead)
    assert decoder.samples_out == 12 * 96


def test_row_leaves_a_stream(codec: SnacModel) -> None:
    """A row that ends early is flushed on its own, and the others go on as if it had never been there."""
    codes = random_codes(codec.config, 3, 10)
    together = codec.decoder_stream(3, generator=row_generators(3))
    start = together.push(tuple(level[:, : 6 * n] for level, n in zip(codes, (1, 2, 4), strict=True)))
    ended, rest = together.select_rows(torch.tensor([1])), together.select_rows(torch.tensor([0, 2]))
    later = rest.push(tuple(level[[0, 2], 6 * n :] for level, n in zip(codes, (1, 2, 4), strict=True)))
    spoken = {1: torch.cat([start[1], ended.flush()[0]])}
    tail = rest.flush()
    spoken |= {row: torch.cat([start[row], later[i], tail[i]]) for i, row in enumerate((0, 2))}
    for row, frames in ((0, 10), (1, 6), (2, 10)):
        alone = tuple(level[row : row + 1, : frames * n] for level, n in zip(codes, (1, 2, 4), strict=True))
        expected = codec.decode(alone, generator=row_generators(3)[row]).audio_values[0]
        assert_close(spoken[row], expected, 1e-5, f"row {row}")


def test_flushed_stream_takes_no_more(codec: SnacModel) -> None:
    decoder = codec.decoder_stream()
    assert decoder.flush().shape == (1, 0)
    with pytest.raises(ValueError, match="flushed"):
        decoder.push(random_codes(codec.config, 1, 1))


def test_stream_refuses_other_codes(codec: SnacModel) -> None:
    decoder = codec.decoder_stream(2)
    with pytest.raises(ValueError, match="2 rows"):
        decoder.push(random_codes(codec.config, 1, 1))
    with pytest.raises(ValueError, match="levels"):
        decoder.push(random_codes(codec.config, 2, 1)[:2])


# Weight norm


def test_weight_norm_changes_nothing_and_is_not_stored(tmp_path: Path) -> None:
    codec, inputs = Tester().model(), Tester().inputs()
    before, names = codec(**inputs).audio_values, set(codec.state_dict())
    codec.apply_weight_norm()
    assert any("original0" in name for name in codec.state_dict())
    assert_close(codec(**inputs).audio_values, before, 1e-6)
    codec.apply_weight_norm()  # a second time does nothing
    codec.remove_weight_norm()
    assert set(codec.state_dict()) == names
    assert_close(codec(**inputs).audio_values, before, 1e-6)


# Training


@torch.enable_grad()
def test_losses_of_the_quantizers() -> None:
    codec = Tester().model(commitment_loss_weight=0.5, codebook_loss_weight=2.0).train()
    output = codec(**Tester().inputs())
    assert output.loss.item() == pytest.approx(0.5 * output.commitment_loss.item() + 2.0 * output.codebook_loss.item())
    output.codebook_loss.backward(retain_graph=True)
    assert codec.quantizer.quantizers[0].codebook.weight.grad.any()
    assert codec.encoder.conv1.weight.grad is None or not codec.encoder.conv1.weight.grad.any()
    codec.zero_grad()
    output.commitment_loss.backward()
    assert codec.encoder.conv1.weight.grad.any()


# Precision and devices


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_decode(codec: SnacModel, dtype: torch.dtype) -> None:
    codes = random_codes(codec.config, 1, 8)
    expected = codec.decode(codes, noise_scale=0.0).audio_values
    audio = codec.to(dtype).decode(codes, noise_scale=0.0).audio_values
    assert audio.dtype == dtype
    assert_close(audio.float(), expected, 0.05 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.gpu
def test_cuda_equals_cpu(codec: SnacModel) -> None:
    codes = random_codes(codec.config, 2, 8)
    expected = codec.decode(codes, generator=row_generators(2)).audio_values
    torch.backends.cudnn.allow_tf32 = False
    codec = codec.cuda()
    codes = tuple(level.cuda() for level in codes)
    assert_close(codec.decode(codes, generator=row_generators(2)).audio_values.cpu(), expected, 1e-4)
    assert_close(stream(codec, codes, [3, 5], row_generators(2)).cpu(), expected, 1e-4)


def test_upstream_folder_is_refused(tmp_path: Path) -> None:
    """A released folder as it is: its configuration reads, but its weights carry other names."""
    (tmp_path / "config.json").write_text(json.dumps({"sampling_rate": 24000, "encoder_dim": 48}))
    torch.save({"encoder.block.0.bias": torch.zeros(48)}, tmp_path / "pytorch_model.bin")
    with pytest.raises((ValueError, OSError), match="convert_snac_to_hf.py|safetensors"):
        SnacModel.from_pretrained(tmp_path)
