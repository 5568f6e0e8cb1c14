"""Tiny SNAC codecs for the common suite."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.common.model_tester import Inputs, ModelTester
from tts_models import SnacConfig, SnacModel


TINY = {
    "sampling_rate": 8000,
    "encoder_hidden_size": 4,
    "downsampling_ratios": [2, 3, 4],
    "decoder_hidden_size": 16,
    "upsampling_ratios": [4, 3, 2],
    "codebook_size": 32,
    "codebook_dim": 4,
    "vq_strides": [4, 2, 1],
}
# Local attention has heads of 64 channels, so its layers are wider.
WITH_ATTENTION = {"encoder_hidden_size": 8, "decoder_hidden_size": 64, "attention_window_size": 8}


def random_codes(config: SnacConfig, batch_size: int, frames: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Seeded codes, one tensor per level."""
    generator = torch.Generator().manual_seed(seed)
    per_level = [config.vq_strides[0] // stride for stride in config.vq_strides]
    return tuple(torch.randint(config.codebook_size, (batch_size, frames * n), generator=generator) for n in per_level)


def row_generators(batch_size: int) -> list[torch.Generator]:
    """Fresh generators, one per row, the same at every call."""
    return [torch.Generator().manual_seed(row) for row in range(batch_size)]


class Tester(ModelTester):
    """SNAC for the common suite."""

    config_class = SnacConfig
    model_class = SnacModel
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("right",)

    def config(self, **overrides: Any) -> SnacConfig:
        return SnacConfig(**(TINY | WITH_ATTENTION | overrides))

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        audio = 0.3 * torch.randn(batch_size, 1, 3 * 24 * 8, generator=generator)
        return {"input_values": audio, "noise_scale": 0.0}

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths = (500, 192, 130)
        audio = self.inputs(batch_size=3)["input_values"][..., : max(lengths)].clone()
        mask = torch.zeros(3, max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            audio[row, :, length:] = 7.0  # what stands in the padding must not matter
            mask[row, :length] = 1
        alone = [{"input_values": audio[row : row + 1, :, :n], "noise_scale": 0.0} for row, n in enumerate(lengths)]
        return {"input_values": audio, "padding_mask": mask, "noise_scale": 0.0}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        mask = inputs.get("padding_mask")
        samples = inputs["input_values"].shape[-1] if mask is None else int(mask[row].sum())
        multiple = self.config().pad_to_multiple_of
        steps = -(-samples // multiple) * multiple // self.config().hop_length
        codes = [
            level[row, : steps // stride] for level, stride in zip(output.audio_codes, TINY["vq_strides"], strict=True)
        ]
        return [output.audio_values[row, :samples], *codes]

    def training_inputs(self) -> Inputs:
        return {"input_values": self.inputs()["input_values"], "generator": row_generators(2)}

    def loss(self, model: SnacModel) -> torch.Tensor:
        inputs = self.training_inputs()
        output = model(**inputs)
        return output.loss + (output.audio_values - inputs["input_values"][:, 0]).pow(2).mean()

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"vq_strides": []},
            {"vq_strides": [4, 3]},
            {"upsampling_ratios": [4, 3]},
            {"decoder_hidden_size": 1},
            {"codebook_size": "many"},
        ]

    def invalid_calls(self, model: SnacModel) -> dict[str, tuple[Callable[[], Any], str]]:
        codes = random_codes(model.config, 1, 4)
        too_short = (codes[0], codes[1][:, :-1], codes[2])
        out_of_range = (codes[0] + model.config.codebook_size, *codes[1:])
        return {
            "stereo": (lambda: model.encode(torch.zeros(1, 2, 192)), "input_values"),
            "no samples": (lambda: model.encode(torch.zeros(1, 1, 0)), "input_values"),
            "empty row": (lambda: model.encode(torch.zeros(1, 1, 192), torch.zeros(1, 192)), "padding_mask"),
            "mask of another length": (lambda: model.encode(torch.zeros(1, 1, 192), torch.ones(1, 9)), "padding_mask"),
            "neither codes nor latents": (lambda: model.decode(), "audio_codes"),
            "a level is missing": (lambda: model.decode(codes[:2]), "levels"),
            "a level is too short": (lambda: model.decode(too_short), r"audio_codes\[1\]"),
            "code out of range": (lambda: model.decode(out_of_range), r"audio_codes\[0\].*0 … 31"),
            "negative code": (lambda: model.decode((codes[0] - 99, *codes[1:])), r"audio_codes\[0\]"),
            "codes that are not integers": (lambda: model.decode(tuple(c.float() for c in codes)), "integer"),
            "generators of another batch": (lambda: model.decode(codes, generator=row_generators(3)), "generator"),
            "half an attention window": (lambda: model.decode(random_codes(model.config, 1, 3)), "attention_window"),
        }

    def streams(self, model: SnacModel) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        frames = 12
        codes = random_codes(model.config, 2, frames)
        for chunks in ([1] * frames, [frames], [5, 0, 1, 6], [2, 3, 4, 3]):
            offline = model.decode(codes, generator=row_generators(2)).audio_values
            yield f"chunks {chunks}", offline, stream(model, codes, chunks, row_generators(2))


def stream(
    model: SnacModel, codes: tuple[torch.Tensor, ...], chunks: list[int], generator: list[torch.Generator] | None
) -> torch.Tensor:
    """Streams codes in chunks of so many frames; returns everything that came out. (batch, samples)"""
    decoder = model.decoder_stream(codes[0].shape[0], generator=generator)
    rates = [model.config.vq_strides[0] // stride for stride in model.config.vq_strides]
    pieces, start = [], 0
    for size in chunks:
        piece = tuple(level[:, start * n : (start + size) * n] for level, n in zip(codes, rates, strict=True))
        pieces.append(decoder.push(piece))
        start += size
    return torch.cat([*pieces, decoder.flush()], dim=1)
