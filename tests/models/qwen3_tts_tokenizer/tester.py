"""Tiny Qwen3-TTS tokenizers for the common suite."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tests.common.model_tester import Inputs, ModelTester
from tts_models import Qwen3TTSTokenizerConfig, Qwen3TTSTokenizerModel


# A frame has 24 samples: 4 * 3 * 2 in the encoder, 2 * 4 * 3 in the decoder.
TINY_ENCODER = {
    "num_filters": 4,
    "upsampling_ratios": [4, 3],
    "sampling_rate": 2400,
    "frame_rate": 100.0,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 6,
    "num_quantizers": 6,
    "codebook_size": 32,
    "codebook_dim": 8,
    "layer_scale_initial_scale": 0.5,
}
TINY_DECODER = {
    "codebook_size": 32,
    "codebook_dim": 16,
    "num_quantizers": 4,
    "latent_dim": 24,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "sliding_window": 5,
    "decoder_dim": 16,
    "upsampling_ratios": [2],
    "upsample_rates": [4, 3],
    "layer_scale_initial_scale": 0.5,
}
TINY = {
    "encoder_config": TINY_ENCODER,
    "decoder_config": TINY_DECODER,
    "encoder_valid_num_quantizers": 4,
    "input_sample_rate": 2400,
    "output_sample_rate": 2400,
    "encode_downsample_rate": 24,
    "decode_upsample_rate": 24,
}
SAMPLES_PER_FRAME = 24


def random_codes(batch_size: int, frames: int, seed: int = 0, num_codebooks: int = 4) -> torch.LongTensor:
    """Seeded codes (batch_size, frames, num_codebooks)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(TINY_DECODER["codebook_size"], (batch_size, frames, num_codebooks), generator=generator)


def padded(codes: torch.LongTensor, lengths: Sequence[int]) -> torch.LongTensor:
    """The codes with -1 after each row's length."""
    is_padding = torch.arange(codes.shape[1]) >= torch.tensor(lengths)[:, None]
    return codes.masked_fill(is_padding[..., None], -1)


def stream(model: Qwen3TTSTokenizerModel, codes: torch.LongTensor, chunks: Sequence[int]) -> torch.Tensor:
    """Streams codes in chunks of so many frames; returns everything that came out. (batch, samples)"""
    decoder = model.decoder_stream(codes.shape[0])
    return torch.cat([decoder.push(piece) for piece in codes.split(list(chunks), dim=1)], dim=1)


class Tester(ModelTester):
    """The Qwen3-TTS tokenizer for the common suite."""

    config_class = Qwen3TTSTokenizerConfig
    model_class = Qwen3TTSTokenizerModel
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("right",)
    # Part of the checkpoint, but neither encoding nor decoding has a use for them.
    untrained_parameters = frozenset(
        {
            "encoder.quantizer.semantic_residual_vector_quantizer.output_proj.weight",
            "encoder.quantizer.acoustic_residual_vector_quantizer.output_proj.weight",
            "decoder.quantizer.rvq_first.input_proj.weight",
            "decoder.quantizer.rvq_rest.input_proj.weight",
        }
    )

    def config(self, **overrides: Any) -> Qwen3TTSTokenizerConfig:
        return Qwen3TTSTokenizerConfig(**(TINY | overrides))

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        return {"input_values": 3 * torch.randn(batch_size, 1, 130, generator=generator)}

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths = (130, 96, 61, 24)
        audio = self.inputs(batch_size=len(lengths))["input_values"].clone()
        mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            audio[row, :, length:] = 7.0  # what stands in the padding must not matter
            mask[row, :length] = 1
        alone = [{"input_values": audio[row : row + 1, :, :length]} for row, length in enumerate(lengths)]
        return {"input_values": audio, "padding_mask": mask}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        mask = inputs.get("padding_mask")
        samples = inputs["input_values"].shape[-1] if mask is None else int(mask[row].sum())
        frames = -(-samples // SAMPLES_PER_FRAME)
        return [output.audio_codes[row, :frames], output.audio_values[row, :samples]]

    def training_inputs(self) -> Inputs:
        return self.inputs()

    def loss(self, model: Qwen3TTSTokenizerModel) -> torch.Tensor:
        inputs = self.training_inputs()
        output = model(**inputs)
        return output.loss + (output.audio_values - inputs["input_values"][:, 0]).pow(2).mean()

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"encode_downsample_rate": 0},
            {"decode_upsample_rate": -24},
            {"encoder_valid_num_quantizers": 3},
            {"encoder_config": TINY_ENCODER | {"num_quantizers": 3}},
            {"decoder_config": TINY_DECODER | {"decoder_dim": 3}},
            {"decoder_config": TINY_DECODER | {"codebook_size": 16}},
            {"encoder_use_sliding_window": "sometimes"},
        ]

    def invalid_calls(self, model: Qwen3TTSTokenizerModel) -> dict[str, tuple[Callable[[], Any], str]]:
        codes = random_codes(1, 4)
        hole, half_a_frame = codes.clone(), codes.clone()
        hole[:, 1], half_a_frame[:, -1, 0] = -1, -1
        left_padded = torch.tensor([[0.0] * 12 + [1.0] * 12])
        return {
            "stereo": (lambda: model.encode(torch.zeros(1, 2, 24)), "input_values"),
            "one axis": (lambda: model.encode(torch.zeros(24)), "input_values"),
            "no samples": (lambda: model.encode(torch.zeros(1, 1, 0)), "input_values"),
            "no rows": (lambda: model.encode(torch.zeros(0, 1, 24)), "input_values"),
            "NaN": (lambda: model.encode(torch.full((1, 1, 24), torch.nan)), "NaN"),
            "infinity": (lambda: model.encode(torch.full((1, 1, 24), torch.inf)), "infinity"),
            "empty row": (lambda: model.encode(torch.zeros(1, 1, 24), torch.zeros(1, 24)), "padding_mask"),
            "mask of another length": (lambda: model.encode(torch.zeros(1, 1, 24), torch.ones(1, 9)), "padding_mask"),
            "left padding": (lambda: model.encode(torch.zeros(1, 1, 24), left_padded), "padding_mask"),
            "codes of wrong rank": (lambda: model.decode(codes[0]), r"\(batch, frames, 4\)"),
            "codes without rows": (lambda: model.decode(codes[:0]), "at least one row"),
            "too few codebooks": (lambda: model.decode(codes[..., :3]), r"\(batch, frames, 4\).*\(1, 4, 3\)"),
            "code out of range": (lambda: model.decode(codes + 32), "-1 … 31"),
            "negative code": (lambda: model.decode(codes - 40), "-1 … 31"),
            "codes that are not integers": (lambda: model.decode(codes.float()), "integers"),
            "padding between frames": (lambda: model.decode(hole), "whole frames"),
            "half a frame of padding": (lambda: model.decode(half_a_frame), "whole frames"),
            "no frames per chunk": (lambda: model.decode(codes, chunk_frames=0), "chunk_frames"),
            "no frames per inexact chunk": (lambda: model.chunked_decode(codes, chunk_size=0), "chunk_size"),
            "negative context": (lambda: model.chunked_decode(codes, left_context_size=-1), "left_context_size"),
            "stream without rows": (lambda: model.decoder_stream(0), "batch_size"),
            "stream of another batch": (lambda: model.decoder_stream(2).push(codes), "2 rows"),
            "reference of another batch": (lambda: model.decoder_stream(2, reference_codes=codes), "2 rows"),
            "padding in a stream": (lambda: model.decoder_stream().push(padded(codes, [2])), "0 … 31"),
            "no streams to join": (lambda: model.decoder_stream().join([]), "at least one"),
        }

    def streams(self, model: Qwen3TTSTokenizerModel) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        frames = 17  # several times the attention's window
        codes = random_codes(2, frames)
        offline = model.decode(codes).audio_values
        for chunks in ([1] * frames, [frames], [5, 0, 1, 11], [2, 8, 4, 3]):
            yield f"chunks {chunks}", offline, stream(model, codes, chunks)
