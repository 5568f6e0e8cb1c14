"""The Qwen3-TTS tokenizer beyond the common suite: lengths, the exact stream, precision, released folders."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from tests.common.comparing import assert_close
from tests.models.qwen3_tts_tokenizer.tester import (
    SAMPLES_PER_FRAME,
    TINY_DECODER,
    TINY_ENCODER,
    Tester,
    padded,
    random_codes,
    stream,
)
from tts_models import (
    Qwen3TTSTokenizerConfig,
    Qwen3TTSTokenizerDecoder,
    Qwen3TTSTokenizerDecoderStream,
    Qwen3TTSTokenizerEncoder,
    Qwen3TTSTokenizerModel,
)


RELEASED = Path(__file__).parents[2] / "fixtures" / "qwen3_tts_tokenizer" / "released.json"
ATOL = 1e-5


@pytest.fixture
def codec() -> Qwen3TTSTokenizerModel:
    """A tiny codec."""
    return Tester().model()


@pytest.fixture(autouse=True)
def without_gradients() -> None:
    """The tests here only look at outputs."""
    torch.set_grad_enabled(False)
    yield
    torch.set_grad_enabled(True)


# Configuration


def test_defaults_are_those_of_the_released_codec() -> None:
    config = Qwen3TTSTokenizerConfig()
    assert (config.frame_rate, config.num_codebooks, config.codebook_size) == (12.5, 16, 2048)
    assert config.sampling_rate == 24000 and config.samples_per_frame == 1920
    assert config.encoder_config.samples_per_frame == config.decoder_config.samples_per_frame == 1920
    released = json.loads(RELEASED.read_text())["config"]
    for part in ("encoder_config", "decoder_config"):
        ours = getattr(config, part).to_dict() | {"rope_theta": 10000}
        assert {name: ours[name] for name in released[part] if name in ours} == {
            name: value for name, value in released[part].items() if name in ours
        }


def test_rotary_base_and_frame_rate_are_read_in_upstreams_spelling() -> None:
    encoder = TINY_ENCODER | {"rope_theta": 500.0, "_frame_rate": 100.0}
    encoder.pop("frame_rate")
    config = Tester().config(encoder_config=encoder)
    assert config.encoder_config.rope_parameters["rope_theta"] == 500.0
    assert config.encoder_config.frame_rate == 100.0


def test_frame_rate_and_head_dimension_follow_from_the_other_settings() -> None:
    encoder = {name: value for name, value in TINY_ENCODER.items() if name not in ("frame_rate", "head_dim")}
    config = Tester().config(encoder_config=encoder | {"num_attention_heads": 4, "num_key_value_heads": 4})
    assert config.encoder_config.frame_rate == 2400 / SAMPLES_PER_FRAME and config.encoder_config.head_dim == 4
    assert config.encoder_config.downsample_kernel_size == 4


def test_sampling_rate_between_two_frame_rates_is_rounded_up_as_by_mimi() -> None:
    # 2395 / 12 = 199.6 steps a second: the kernel is that of 200.
    config = Tester().config(encoder_config=TINY_ENCODER | {"sampling_rate": 2395})
    assert config.encoder_config.downsample_kernel_size == 4


@pytest.mark.parametrize("rate", ["encode_downsample_rate", "decode_upsample_rate"])
def test_rate_that_contradicts_the_strides_is_taken_with_a_warning(rate: str, caplog: Any) -> None:
    logging.getLogger("transformers").addHandler(caplog.handler)
    config = Tester().config(**{rate: 25})
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert getattr(config, rate) == 25 and config.samples_per_frame == SAMPLES_PER_FRAME
    assert f"`{rate}` is 25" in caplog.text


# Encoding


@pytest.mark.parametrize("samples", [1, 23, 24, 25, 100, 240])
def test_frames_of_every_length(codec: Qwen3TTSTokenizerModel, samples: int) -> None:
    audio, frames = torch.randn(1, samples), -(-samples // SAMPLES_PER_FRAME)
    encoded = codec.encode(audio)
    assert encoded.audio_codes.shape == (1, frames, 4) and encoded.audio_codes.dtype == torch.long
    assert encoded.code_lengths.tolist() == [frames]
    assert codec.decode(encoded.audio_codes).audio_values.shape == (1, frames * SAMPLES_PER_FRAME)
    assert codec(audio).audio_values.shape == (1, samples)


def test_batch_of_unequal_rows_is_encoded_as_each_alone(codec: Qwen3TTSTokenizerModel) -> None:
    inputs, alone = Tester().ragged_inputs("right")
    encoded = codec.encode(**inputs)
    for row, single in enumerate(alone):
        expected, frames = codec.encode(**single), int(encoded.code_lengths[row])
        assert torch.equal(encoded.audio_codes[row, :frames], expected.audio_codes[0])
        assert (encoded.audio_codes[row, frames:] == -1).all()
        assert_close(encoded.latents[row, :, :frames], expected.latents[0], ATOL)


def test_rows_of_a_codec_that_looks_ahead_do_not_hear_the_padding() -> None:
    model = Tester().model(encoder_config=TINY_ENCODER | {"use_causal_conv": False})
    audio, mask = 3 * torch.randn(2, 240), torch.ones(2, 240, dtype=torch.long)
    mask[1, 96:] = 0
    assert_close(model.encode(audio, mask).latents[1:, :, :4], model.encode(audio[1:, :96]).latents, ATOL)


@pytest.mark.parametrize(("rate", "frames"), [(48, 5), (50, 4), (7, 9)])
def test_stated_rate_decides_how_many_frames_are_kept(codec: Qwen3TTSTokenizerModel, rate: int, frames: int) -> None:
    audio = 3 * torch.randn(1, 200)
    whole = codec.encode(audio)
    other = Tester().model(encode_downsample_rate=rate)
    other.load_state_dict(codec.state_dict())
    kept = other.encode(audio)
    assert kept.code_lengths.tolist() == [frames]
    assert torch.equal(kept.audio_codes, whole.audio_codes[:, :frames])


def test_latents_as_wide_as_the_entries_are_quantized_without_projections() -> None:
    model = Tester().model(encoder_config=TINY_ENCODER | {"codebook_dim": 16})
    assert not any("input_proj" in name or "output_proj" in name for name in model.encoder.quantizer.state_dict())
    encoded = model.encode(3 * torch.randn(1, 100))
    book = model.encoder.quantizer.semantic_residual_vector_quantizer.layers[0].codebook.embed_sum
    nearest = torch.cdist(encoded.latents[0].T, book).argmin(-1)
    assert torch.equal(encoded.audio_codes[0, :, 0], nearest)


def test_fewer_codebooks_than_semantic_ones_can_be_kept() -> None:
    encoder = TINY_ENCODER | {"num_semantic_quantizers": 3}
    model = Tester().model(encoder_config=encoder)
    fewer = Tester().model(
        encoder_config=encoder,
        decoder_config=TINY_DECODER | {"num_quantizers": 2},
        encoder_valid_num_quantizers=2,
    )
    fewer.encoder.load_state_dict(model.encoder.state_dict())
    audio = 3 * torch.randn(1, 100)
    assert torch.equal(fewer.encode(audio).audio_codes, model.encode(audio).audio_codes[..., :2])


def test_padding_does_not_count_in_the_loss(codec: Qwen3TTSTokenizerModel) -> None:
    audio, mask = 3 * torch.randn(1, 240), torch.zeros(1, 240, dtype=torch.long)
    mask[:, :96] = 1
    assert_close(codec.encode(audio, mask).commitment_loss, codec.encode(audio[:, :96]).commitment_loss, ATOL)


def test_sliding_window_changes_only_what_lies_beyond_it() -> None:
    plain, windowed = Tester().model(), Tester().model(encoder_use_sliding_window=True)
    windowed.load_state_dict(plain.state_dict())
    audio = 3 * torch.randn(1, 12 * SAMPLES_PER_FRAME)
    expected, latents = plain.encode(audio).latents, windowed.encode(audio).latents
    # The window of 6 steps is 3 frames.
    assert_close(latents[..., :3], expected[..., :3], ATOL)
    assert (latents - expected)[..., 4:].abs().max() > 1e-3


# Decoding


def test_padded_batch_is_decoded_as_each_row_alone(codec: Qwen3TTSTokenizerModel) -> None:
    lengths, codes = [9, 0, 4], random_codes(3, 9)
    output = codec.decode(padded(codes, lengths))
    assert output.audio_lengths.tolist() == [SAMPLES_PER_FRAME * length for length in lengths]
    for row, length in enumerate(lengths):
        samples = length * SAMPLES_PER_FRAME
        expected = codec.decode(codes[row : row + 1, :length]).audio_values[0]
        assert_close(output.audio_values[row, :samples], expected, ATOL)
        assert not output.audio_values[row, samples:].any()


def test_encoder_with_fewer_codebooks_than_are_kept_gives_all_of_them() -> None:
    model = Tester().model(encoder_config=TINY_ENCODER | {"num_quantizers": 4}, encoder_valid_num_quantizers=16)
    codes = model.encode(3 * torch.randn(1, 100)).audio_codes
    assert codes.shape == (1, 5, 4) and model.decode(codes).audio_values.shape == (1, 120)


@pytest.mark.parametrize("rate", [10, 100])
def test_stated_rate_decides_the_length_of_decoded_rows(codec: Qwen3TTSTokenizerModel, rate: int) -> None:
    other = Tester().model(decode_upsample_rate=rate)
    other.load_state_dict(codec.state_dict())
    codes = padded(random_codes(2, 9), [9, 4])
    output = other.decode(codes)
    assert output.audio_lengths.tolist() == [min(length * rate, 9 * SAMPLES_PER_FRAME) for length in (9, 4)]
    samples = min(rate, SAMPLES_PER_FRAME) * 4
    assert_close(output.audio_values[:, :samples], codec.decode(codes).audio_values[:, :samples], ATOL)


def test_odd_widths_lose_a_channel_per_block() -> None:
    model = Tester().model(decoder_config=TINY_DECODER | {"decoder_dim": 15})
    codes = random_codes(1, 12)
    assert_close(stream(model, codes, [5, 7]), model.decode(codes).audio_values, ATOL)
    assert model.decoder.decoder[-1].conv.in_channels == 3


def test_no_frames_are_no_samples(codec: Qwen3TTSTokenizerModel) -> None:
    empty = random_codes(2, 0)
    assert codec.decode(empty).audio_values.shape == (2, 0)
    assert codec.chunked_decode(empty).audio_values.shape == (2, 0)
    assert codec.decoder_stream(2).push(empty).shape == (2, 0)


@pytest.mark.parametrize("chunk_frames", [1, 7, 30])
def test_chunks_of_decode_are_exact(codec: Qwen3TTSTokenizerModel, chunk_frames: int) -> None:
    codes = padded(random_codes(2, 30), [30, 13])
    expected = codec.decode(codes).audio_values
    assert_close(codec.decode(codes, chunk_frames=chunk_frames).audio_values, expected, ATOL)


def test_chunked_decode_is_not_exact(codec: Qwen3TTSTokenizerModel) -> None:
    codes = random_codes(1, 30)
    expected = codec.decode(codes).audio_values
    chunked = codec.chunked_decode(codes, chunk_size=10, left_context_size=2).audio_values
    assert_close(chunked[:, : 10 * SAMPLES_PER_FRAME], expected[:, : 10 * SAMPLES_PER_FRAME], ATOL)
    assert (chunked - expected).abs().max() > 1e-3
    assert_close(codec.chunked_decode(codes).audio_values, expected, ATOL)


# Streams


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("chunks", [[1] * 40, [40], [1, 2, 4, 8, 12, 13], [0, 9, 0, 31]])
def test_stream_is_the_offline_waveform(chunks: list[int], implementation: str) -> None:
    codec = Tester().model()
    codec.set_attn_implementation(implementation)
    codes = random_codes(2, 40)
    assert_close(stream(codec, codes, chunks), codec.decode(codes).audio_values, ATOL)


def test_every_push_gives_the_samples_of_its_frames(codec: Qwen3TTSTokenizerModel) -> None:
    decoder = codec.decoder_stream(3)
    for frames in (1, 5, 0, 2):
        assert decoder.push(random_codes(3, frames)).shape == (3, frames * SAMPLES_PER_FRAME)
    assert decoder.frames.tolist() == [8, 8, 8]


def test_memory_of_a_stream_stops_growing(codec: Qwen3TTSTokenizerModel) -> None:
    decoder, sizes = codec.decoder_stream(), []
    for _ in range(3):
        decoder.push(random_codes(1, 20))
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in decoder.context.tensors.values()))
    assert sizes[0] == sizes[1] == sizes[2] > 0


def test_reference_codes_go_before(codec: Qwen3TTSTokenizerModel) -> None:
    codes = random_codes(1, 20)
    expected = codec.decode(codes).audio_values[:, 12 * SAMPLES_PER_FRAME :]
    warm = codec.decoder_stream(reference_codes=codes[:, :12])
    first, second = warm.copy(), warm.copy()
    assert_close(first.push(codes[:, 12:]), expected, ATOL)
    assert_close(second.push(codes[:, 12:]), expected, ATOL)
    assert warm.frames.tolist() == [12] and first.frames.tolist() == [20]


def test_rows_leave_and_join_streams(codec: Qwen3TTSTokenizerModel) -> None:
    """Row 1 ends, then a stream that has seen less, and one that has seen nothing, come in."""
    codes = random_codes(5, 20)
    together = codec.decoder_stream(3)
    heard = {row: [audio] for row, audio in enumerate(together.push(codes[:3, :6]))}
    rest = together.select_rows(torch.tensor([2, 0]))
    late = codec.decoder_stream()
    heard[3] = [late.push(codes[3:4, :2])[0]]
    joined = Qwen3TTSTokenizerDecoderStream.join([rest, late, codec.decoder_stream()])
    assert joined.frames.tolist() == [6, 6, 2, 0]
    starts = {2: 6, 0: 6, 3: 2, 4: 0}
    for step in range(14):
        frames = torch.stack([codes[row, start + step] for row, start in starts.items()])[:, None]
        for row, audio in zip(starts, joined.push(frames), strict=True):
            heard.setdefault(row, []).append(audio)
    for row, ended in {0: 20, 1: 6, 2: 20, 3: 16, 4: 14}.items():
        expected = codec.decode(codes[row : row + 1, :ended]).audio_values[0]
        assert_close(torch.cat(heard[row]), expected, ATOL, f"row {row}")


def test_rows_of_a_warm_stream_are_repeated(codec: Qwen3TTSTokenizerModel) -> None:
    codes = random_codes(2, 15)
    prefix = codes[:1, :9].expand(2, -1, -1)
    warm = codec.decoder_stream(reference_codes=prefix[:1]).select_rows(torch.tensor([0, 0]))
    expected = codec.decode(torch.cat([prefix, codes], dim=1)).audio_values[:, 9 * SAMPLES_PER_FRAME :]
    assert_close(warm.push(codes), expected, ATOL)


def test_streams_of_different_codecs_do_not_join(codec: Qwen3TTSTokenizerModel) -> None:
    with pytest.raises(ValueError, match="one codec"):
        Qwen3TTSTokenizerDecoderStream.join([codec.decoder_stream(), Tester().model().decoder_stream()])


# Parts


@pytest.mark.parametrize("implementation", [None, "eager", "sdpa"])
def test_parts_follow_the_attention_of_the_whole(implementation: str | None) -> None:
    codec = Qwen3TTSTokenizerModel(Tester().config())
    if implementation is not None:
        codec.set_attn_implementation(implementation)
    parts = (codec.config, codec.encoder.encoder_transformer.config, codec.decoder.pre_transformer.config)
    assert {part._attn_implementation for part in parts} == {implementation or "sdpa"}


def test_parts_load_alone(codec: Qwen3TTSTokenizerModel, tmp_path: Path) -> None:
    codec.decoder.save_pretrained(tmp_path / "decoder")
    codec.encoder.save_pretrained(tmp_path / "encoder")
    codes, audio = random_codes(1, 7), torch.randn(1, 1, 96)
    decoder = Qwen3TTSTokenizerDecoder.from_pretrained(tmp_path / "decoder")
    assert torch.equal(decoder(codes), codec.decode(codes).audio_values)
    encoder = Qwen3TTSTokenizerEncoder.from_pretrained(tmp_path / "encoder")
    assert torch.equal(encoder(audio), codec.encode(audio).latents)


# Precision and devices


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float64, 1e-5)])
def test_other_precisions_decode(codec: Qwen3TTSTokenizerModel, dtype: torch.dtype, tolerance: float) -> None:
    codes = random_codes(1, 20)
    expected = codec.decode(codes).audio_values
    codec = codec.to(dtype)
    audio = codec.decode(codes).audio_values
    assert audio.dtype == dtype
    assert_close(audio.float(), expected, tolerance)
    streamed = stream(codec, codes, [3, 1, 16])
    assert streamed.dtype == dtype
    assert_close(streamed.float(), expected, tolerance)


def test_half_precision_keeps_the_codebooks(codec: Qwen3TTSTokenizerModel, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    half = Qwen3TTSTokenizerModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.decoder.pre_conv.conv.weight.dtype == torch.bfloat16
    books = {name: tensor for name, tensor in half.state_dict().items() if "codebook." in name}
    assert books and {tensor.dtype for tensor in books.values()} == {torch.float32}
    assert half.encode(torch.randn(1, 50).bfloat16()).audio_codes.shape == (1, 3, 4)


@pytest.mark.gpu
def test_cuda_equals_cpu(codec: Qwen3TTSTokenizerModel) -> None:
    codes, audio = random_codes(2, 20), 3 * torch.randn(2, 240)
    expected, expected_codes = codec.decode(codes).audio_values, codec.encode(audio).audio_codes
    torch.backends.cudnn.allow_tf32 = False
    codec = codec.cuda()
    assert_close(codec.decode(codes.cuda()).audio_values.cpu(), expected, 1e-4)
    assert_close(stream(codec, codes.cuda(), [1] * 20).cpu(), expected, 1e-4)
    assert torch.equal(codec.encode(audio.cuda()).audio_codes.cpu(), expected_codes)


# Training


@torch.enable_grad()
def test_losses_reach_their_parts(codec: Qwen3TTSTokenizerModel) -> None:
    output = codec.train()(**Tester().inputs())
    assert output.loss.item() == pytest.approx(codec.config.commitment_loss_weight * output.commitment_loss.item())
    output.loss.backward(retain_graph=True)
    assert codec.encoder.encoder.layers[0].conv.weight.grad.any()
    assert codec.decoder.pre_conv.conv.weight.grad is None
    output.audio_values.sum().backward()
    assert codec.decoder.pre_conv.conv.weight.grad.any()


# Released folders


def write_released(codec: Qwen3TTSTokenizerModel, folder: Path) -> None:
    """A folder as published: upstream's configuration layout, and weights in its names."""
    codec.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["Qwen3TTSTokenizerV2Model"]
    for part in ("encoder_config", "decoder_config"):
        del config[part]["model_type"], config[part]["rope_parameters"]
        config[part]["rope_theta"] = 10000.0
    (folder / "config.json").write_text(json.dumps(config))


def test_released_folder_loads_as_it_is(codec: Qwen3TTSTokenizerModel, tmp_path: Path) -> None:
    write_released(codec, tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is Qwen3TTSTokenizerConfig
    loaded, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is Qwen3TTSTokenizerModel
    assert not info["missing_keys"] and not info["unexpected_keys"]
    codes = random_codes(1, 5)
    assert torch.equal(loaded.decode(codes).audio_values, codec.decode(codes).audio_values)


def test_mimis_training_flag_may_be_absent(codec: Qwen3TTSTokenizerModel, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith("initialized")}
    assert len(kept) == len(weights) - 6
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    Qwen3TTSTokenizerModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "decoder.quantizer.rvq_rest.vq.layers.1._codebook.embedding_sum",
        "encoder.quantizer.acoustic_residual_vector_quantizer.layers.0.codebook.embed_sum",
        "decoder.decoder.1.block.0.alpha",
        "encoder.downsample.conv.weight",
    ],
)
def test_missing_weight_is_refused(codec: Qwen3TTSTokenizerModel, name: str, tmp_path: Path) -> None:
    codec.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="convert_qwen3_tts_tokenizer_to_hf.py"):
        Qwen3TTSTokenizerModel.from_pretrained(tmp_path)
