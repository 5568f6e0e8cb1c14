"""Tiny HiFTNet vocoders for the common suite."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tests.common.model_tester import Inputs, ModelTester
from tts_models import HiFTNetConfig, HiFTNetModel


# A frame has 24 samples: 4 * 3 upsampled, times a hop of 2.
TINY = {
    "in_channels": 8,
    "base_channels": 16,
    "nb_harmonics": 2,
    "sampling_rate": 2400,
    "upsample_rates": [4, 3],
    "upsample_kernel_sizes": [8, 5],
    "istft_n_fft": 8,
    "istft_hop_len": 2,
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 2]],
    "source_resblock_kernel_sizes": [3, 5],
    "source_resblock_dilation_sizes": [[1, 2], [1]],
    "f0_predictor_in_channels": 8,
    "f0_predictor_cond_channels": 8,
    "f0_predictor_layers": 2,
}
HOP = 24


def row_generators(batch_size: int) -> list[torch.Generator]:
    """Fresh generators, one per row, the same at every call."""
    return [torch.Generator().manual_seed(row) for row in range(batch_size)]


class Tester(ModelTester):
    """HiFTNet for the common suite."""

    config_class = HiFTNetConfig
    model_class = HiFTNetModel
    padding_sides = ("right",)

    def config(self, **overrides: Any) -> HiFTNetConfig:
        return HiFTNetConfig(**(TINY | overrides))

    def model(self, **overrides: Any) -> HiFTNetModel:
        model = super().model(**overrides)
        with torch.no_grad():
            model.f0_predictor.classifier.weight.normal_(0, 3)
            model.f0_predictor.classifier.bias.fill_(20.0)  # near the threshold: some frames are voiced, some not
        return model

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        return {
            "input_features": torch.randn(batch_size, TINY["in_channels"], 9, generator=generator),
            "phase": torch.randn(batch_size, 3, 1, generator=generator),
            "noise": torch.randn(batch_size, 3, 9 * HOP, generator=generator),
        }

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths, inputs = (9, 5, 1), self.inputs(batch_size=3)
        mask = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
        alone = [
            {
                "input_features": inputs["input_features"][row : row + 1, :, :length].clone(),
                "phase": inputs["phase"][row : row + 1],
                "noise": inputs["noise"][row : row + 1, :, : length * HOP],
            }
            for row, length in enumerate(lengths)
        ]
        for row, length in enumerate(lengths):
            inputs["input_features"][row, :, length:] = 7.0  # what stands in the padding must not matter
        return inputs | {"attention_mask": mask}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        mask = inputs.get("attention_mask")
        frames = inputs["input_features"].shape[-1] if mask is None else int(mask[row].sum())
        return [output.waveform[row, : frames * HOP], output.source[row, :, : frames * HOP], output.f0[row, :frames]]

    def training_inputs(self) -> Inputs:
        return self.inputs()

    def loss(self, model: HiFTNetModel) -> torch.Tensor:
        output = model(**self.training_inputs())
        target = 0.3 * torch.sin(0.3 * torch.arange(output.waveform.shape[-1]))
        return (output.waveform - target).pow(2).mean() + ((output.f0 - 100) / 100).pow(2).mean()

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"upsample_rates": []},
            {"upsample_kernel_sizes": [8]},
            {"upsample_kernel_sizes": [8, 4]},
            {"base_channels": 3},
            {"istft_n_fft": 7},
            {"istft_n_fft": 2},
            {"istft_hop_len": 0},
            {"resblock_kernel_sizes": [3, 4]},
            {"resblock_dilation_sizes": [[1]]},
            {"source_resblock_kernel_sizes": [3], "source_resblock_dilation_sizes": [[1]]},
            {"nb_harmonics": "some"},
        ]

    def invalid_calls(self, model: HiFTNetModel) -> dict[str, tuple[Callable[[], Any], str]]:
        inputs = self.inputs()
        mel, phase, noise = (inputs[name] for name in ("input_features", "phase", "noise"))
        return {
            "bands of another model": (lambda: model(mel[:, :4]), "input_features"),
            "no frames": (lambda: model(mel[..., :0]), "input_features"),
            "an empty row": (lambda: model(mel, torch.tensor([9, 0])), "lengths"),
            "a length too large": (lambda: model(mel, torch.tensor([9, 10])), "1 … 9"),
            "mask of another length": (lambda: model(mel, attention_mask=torch.ones(2, 4)), "attention_mask"),
            "noise of another length": (lambda: model(mel, noise=noise[..., :-1]), "noise"),
            "phases of another batch": (lambda: model(mel, phase=phase[:1]), "phase"),
            "generators of another batch": (lambda: model(mel, generator=row_generators(3)), "generator"),
            "a cached source that is too long": (lambda: model.inference(mel, torch.zeros(2, 1, 217)), "cache_source"),
            "a negative context": (lambda: model.stream(context_frames=-1), "context_frames"),
            "a stream's phases of another batch": (lambda: model.stream(1, phase=phase), "phase"),
            "a stream's frames of another batch": (lambda: model.stream(1).push(mel), "input_features"),
        }

    def streams(self, model: HiFTNetModel) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        frames = 40
        mel = torch.randn(2, TINY["in_channels"], frames, generator=torch.Generator().manual_seed(5))
        offline = model(mel, generator=row_generators(2)).waveform
        for plan in ([1] * frames, [frames], [5, 0, 25, 10]):
            yield f"chunks {plan}", offline, stream(model, mel, plan, row_generators(2))


def stream(
    model: HiFTNetModel,
    mel: torch.Tensor,
    plan: Sequence[int],
    generator: list[torch.Generator] | None,
    context_frames: int | None = None,
) -> torch.Tensor:
    """Streams frames in chunks of so many; returns everything that came out. (batch, samples)"""
    vocoder = model.stream(mel.shape[0], generator=generator, context_frames=context_frames)
    pieces = [vocoder.push(piece) for piece in mel.split(list(plan), dim=-1)]
    return torch.cat([*pieces, vocoder.flush()], dim=1)
