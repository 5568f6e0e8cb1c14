"""EnCodec in pieces is EnCodec at once."""

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from tts_models.streaming.encodec import EncodecDecoderStream, decode_ragged


TINY = {
    "num_filters": 4,
    "hidden_size": 8,
    "codebook_size": 16,
    "codebook_dim": 8,
    "upsampling_ratios": [4, 3],
    "num_lstm_layers": 2,
    "num_residual_layers": 2,
    "sampling_rate": 900,
    "target_bandwidths": [2.25],
}


def make_codec(**overrides: object) -> EncodecModel:
    torch.manual_seed(0)
    codec = EncodecModel(EncodecConfig(**TINY | overrides)).eval()
    for layer in codec.quantizer.layers:
        layer.codebook.embed.normal_()
    return codec


def make_codes(frames: int, batch_size: int = 1, levels: int = 3) -> torch.LongTensor:
    return torch.randint(16, (batch_size, levels, frames), generator=torch.Generator().manual_seed(frames))


@torch.no_grad()
def decode(codec: EncodecModel, codes: torch.LongTensor) -> torch.Tensor:
    return codec.decode(codes[None], [None]).audio_values[:, 0]


@pytest.mark.parametrize("overrides", [{}, {"use_conv_shortcut": False}, {"pad_mode": "constant"}])
@pytest.mark.parametrize("pieces", [[40], [1] * 40, [9, 0, 13, 1, 17], [3, 2, 2, 33]])
def test_pieces_equal_the_whole(pieces: list[int], overrides: dict[str, object]) -> None:
    codec, codes = make_codec(**overrides), make_codes(40, batch_size=2)
    stream = EncodecDecoderStream(codec, batch_size=2)
    parts = [stream.push(piece) for piece in codes.split(pieces, dim=-1)] + [stream.flush()]
    torch.testing.assert_close(torch.cat(parts, dim=1), decode(codec, codes), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("frames", range(1, 9))
def test_few_frames(frames: int) -> None:
    codec, codes = make_codec(), make_codes(frames)
    stream = EncodecDecoderStream(codec)
    assert stream.first_frames == 7
    parts = [stream.push(codes), stream.flush(), stream.flush()]
    assert bool(parts[0].numel()) == (frames >= 7)
    torch.testing.assert_close(torch.cat(parts, dim=1), decode(codec, codes), atol=1e-6, rtol=1e-5)


def test_nothing_gives_nothing() -> None:
    stream = EncodecDecoderStream(make_codec())
    assert stream.push(make_codes(0)).shape == stream.flush().shape == (1, 0)


@pytest.mark.parametrize("piece_frames", [1500, 10])
def test_a_row_does_not_hear_the_others(piece_frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_models.streaming.encodec._PIECE_FRAMES", piece_frames)
    codec = make_codec()
    rows = [make_codes(frames)[0] for frames in (12, 0, 3, 30)]
    for row, waveform in zip(rows, decode_ragged(codec, rows), strict=True):
        expected = decode(codec, row[None])[0] if row.shape[-1] else torch.zeros(0)
        torch.testing.assert_close(waveform, expected, atol=1e-6, rtol=1e-5)


def test_work_does_not_grow() -> None:
    """The state has a fixed size, whatever has gone before."""
    stream = EncodecDecoderStream(make_codec())
    sizes = []
    for _ in range(4):
        stream.push(make_codes(11))
        sizes.append(sum(layer.before.numel() for layer in stream._layers if hasattr(layer, "before")))
    assert len(set(sizes)) == 1


def test_48_khz_model_is_refused() -> None:
    with pytest.raises(ValueError, match="causal"):
        EncodecDecoderStream(make_codec(use_causal_conv=False, norm_type="time_group_norm"))
