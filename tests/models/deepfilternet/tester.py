"""Tiny DeepFilterNets for the common suite."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.common.model_tester import Inputs, ModelTester
from tts_models import DeepFilterNetConfig, DeepFilterNetModel


# Windows of 40 samples every 20, eight bands over 21 bins; frames of the past and of the future everywhere.
TINY = {
    "sampling_rate": 2000,
    "fft_length": 40,
    "hop_length": 20,
    "num_erb_bands": 8,
    "min_erb_bins": 1,
    "num_df_bins": 8,
    "df_order": 3,
    "df_lookahead": 1,
    "conv_lookahead": 2,
    "hidden_channels": 8,
    "pathway_kernel_size": 2,
    "erb_hidden_size": 16,
    "df_hidden_size": 16,
    "encoder_linear_groups": 4,
    "linear_groups": 4,
}


def noise(batch_size: int, samples: int, seed: int = 1) -> torch.Tensor:
    """Seeded noise (batch, samples)."""
    return 0.1 * torch.randn(batch_size, samples, generator=torch.Generator().manual_seed(seed))


class Tester(ModelTester):
    """DeepFilterNet for the common suite."""

    config_class = DeepFilterNetConfig
    model_class = DeepFilterNetModel
    padding_sides = ("right",)

    def config(self, **overrides: Any) -> DeepFilterNetConfig:
        return DeepFilterNetConfig(**(TINY | overrides))

    def inputs(self, batch_size: int = 2) -> Inputs:
        return {"input_values": noise(batch_size, 217)[:, None]}

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths, samples = (217, 100, 1), noise(3, 217)
        alone = [{"input_values": samples[row : row + 1, None, :length].clone()} for row, length in enumerate(lengths)]
        mask = (torch.arange(217) < torch.tensor(lengths)[:, None]).long()
        padded = torch.where(mask.bool(), samples, 7.0)  # what stands in the padding must not matter
        return {"input_values": padded[:, None], "padding_mask": mask}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        mask = inputs.get("padding_mask")
        samples = inputs["input_values"].shape[-1] if mask is None else int(mask[row].sum())
        frames = (samples + TINY["fft_length"]) // TINY["hop_length"]
        per_frame = [output.gains, output.coefficients, output.snr]
        return [output.waveform[row, :samples], *(values[row, :frames] for values in per_frame)]

    def training_inputs(self) -> Inputs:
        samples = noise(2, 1200)
        return {"input_values": samples, "labels": 0.5 * samples + 0.1 * torch.sin(0.3 * torch.arange(1200))}

    def loss(self, model: DeepFilterNetModel) -> torch.Tensor:
        # Upstream adds the distance of the estimated signal-to-noise ratio from the true one, which needs the noise.
        output = model(**self.training_inputs())
        return output.loss + 1e-3 * (output.snr - 3.0).square().mean()

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"fft_length": 50},
            {"fft_length": 20},
            {"num_erb_bands": 12},
            {"min_erb_bins": 4},
            {"num_df_bins": 7},
            {"num_df_bins": 24},
            {"df_lookahead": 3},
            {"conv_lookahead": -1},
            {"norm_seconds": 0},
            {"conv_kernel_size": [1, 2]},
            {"conv_kernel_size": [3]},
            {"upsampling_kernel_size": [1, 5]},
            {"pathway_kernel_size": 0},
            {"df_skip": "some"},
            {"df_skip": "identity", "df_hidden_size": 32},
            {"encoder_skip": "identity", "concat_encoder": True},
            {"linear_groups": 5},
            {"erb_num_layers": 1},
            {"hidden_channels": "many"},
        ]

    def invalid_calls(self, model: DeepFilterNetModel) -> dict[str, tuple[Callable[[], Any], str]]:
        samples = noise(2, 100)
        flushed = model.stream(2)
        flushed.flush()
        return {
            "no samples": (lambda: model(samples[:, :0]), "input_values"),
            "two channels": (lambda: model(torch.zeros(1, 2, 100)), "input_values"),
            "one dimension": (lambda: model(samples[0]), "input_values"),
            "an empty row": (lambda: model(samples, torch.tensor([100, 0])), "1 … 100"),
            "a length too large": (lambda: model(samples, torch.tensor([100, 101])), "lengths"),
            "a mask of another length": (lambda: model(samples, padding_mask=torch.ones(2, 4)), "attention_mask|mask"),
            "a negative limit": (lambda: model(samples, atten_lim_db=-3.0), "atten_lim_db"),
            "labels of another length": (lambda: model(samples, labels=samples[:, :-1]), "labels"),
            "an unknown rate": (lambda: model.enhance(samples, 0), "(?i)orig|rate"),
            "a stream's unknown rate": (lambda: model.stream(1, sampling_rate=-1), "(?i)orig|rate"),
            "a stream without rows": (lambda: model.stream(0), "batch_size"),
            "a stream's negative limit": (lambda: model.stream(1, atten_lim_db=-1.0), "atten_lim_db"),
            "a stream's samples of another batch": (lambda: model.stream(1).push(samples), "samples"),
            "a flushed stream": (lambda: flushed.push(samples), "flushed"),
        }

    def streams(self, model: DeepFilterNetModel) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        samples = noise(2, 333, seed=5)
        for limit in (None, 6.0):
            offline = model(samples, atten_lim_db=limit).waveform
            for plan in ([333], [1] * 333, [0, 19, 1, 20, 93, 200]):
                yield f"chunks {plan}, limit {limit}", offline, stream(model, samples, plan, limit)
        offline, _ = model.enhance(samples, 1000)
        for plan in ([333], [0, 1, 2, 330]):
            yield f"chunks {plan} of half the rate", offline, stream(model, samples, plan, sampling_rate=1000)


def stream(
    model: DeepFilterNetModel, samples: torch.Tensor, plan: list[int], *arguments: Any, **options: Any
) -> torch.Tensor:
    """Streams samples in pieces of so many; returns everything that came out. (batch, samples)"""
    enhancer = model.stream(len(samples), *arguments, **options)
    pieces = [enhancer.push(piece) for piece in samples.split(plan, dim=-1)]
    return torch.cat([*pieces, enhancer.flush()], dim=-1)
