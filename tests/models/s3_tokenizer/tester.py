"""Tiny S3 tokenizers for the common suite."""

from collections.abc import Callable
from typing import Any

import torch

from tests.common.model_tester import Inputs, ModelTester
from tts_models import S3TokenizerConfig, S3TokenizerModel


# Windows of 64 frames every 48, so that short signals need several.
TINY = {
    "num_mel_bins": 8,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "memory_kernel_size": 5,
    "num_digits": 4,
    "window_frames": 64,
    "window_overlap_frames": 16,
}


class Tester(ModelTester):
    """S3 tokenizers for the common suite."""

    config_class = S3TokenizerConfig
    model_class = S3TokenizerModel
    attn_implementations = ("eager", "sdpa")
    padding_sides = ("right",)

    def config(self, **overrides: Any) -> S3TokenizerConfig:
        return S3TokenizerConfig(**(TINY | overrides))

    def model(self, **overrides: Any) -> S3TokenizerModel:
        # Larger weights than freshly initialised ones, so that tokens differ from each other.
        return super().model(**({"initializer_range": 0.3} | overrides))

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        return {"input_features": torch.randn(batch_size, TINY["num_mel_bins"], 40, generator=generator)}

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths, generator = (130, 40, 23), torch.Generator().manual_seed(2)
        features = torch.randn(3, TINY["num_mel_bins"], max(lengths), generator=generator)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        alone = [{"input_features": features[row : row + 1, :, :n].clone()} for row, n in enumerate(lengths)]
        features[1:, :, 40:] = 7.0  # what stands in the padding must not matter
        return {"input_features": features, "attention_mask": mask}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        length = int(output.speech_token_lengths[row])
        return [part[row, :length] for part in (output.speech_tokens, output.latents, output.last_hidden_state)]

    def training_inputs(self) -> Inputs:
        return self.inputs()

    def loss(self, model: S3TokenizerModel) -> torch.Tensor:
        latents = model(**self.training_inputs()).latents
        return (latents - 0.5 * torch.sign(torch.arange(latents.shape[-1]) - 1.5)).pow(2).mean()

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"hidden_size": 18},
            {"memory_kernel_size": 4},
            {"window_overlap_frames": 4},
            {"window_overlap_frames": 64},
            {"window_frames": 60},
            {"num_digits": "many"},
        ]

    def invalid_calls(self, model: S3TokenizerModel) -> dict[str, tuple[Callable[[], Any], str]]:
        features = self.inputs()["input_features"]
        left = torch.ones(2, 40)
        left[:, 0] = 0
        return {
            "bands of another model": (lambda: model(features[:, :4]), "input_features"),
            "no batch": (lambda: model(features[0]), "input_features"),
            "no frames": (lambda: model(features[..., :0]), "input_features"),
            "an empty row": (lambda: model(features, torch.tensor([40, 0])), "feature_lengths"),
            "a length too large": (lambda: model(features, torch.tensor([40, 41])), "1 … 40"),
            "lengths of another batch": (lambda: model(features, torch.tensor([40])), "feature_lengths"),
            "padding on the left": (lambda: model(features, attention_mask=left), "attention_mask.*right"),
            "mask of another length": (lambda: model(features, attention_mask=torch.ones(2, 9)), "attention_mask"),
            "a recording that is too short": (lambda: model.tokenize([torch.zeros(200)]), "200"),
            "an empty recording": (lambda: model.tokenize([torch.zeros(0)]), "empty"),
            "stereo": (lambda: model.tokenize([torch.zeros(2, 8000)]), "mono"),
            "not a number": (lambda: model.tokenize([torch.full((800,), torch.nan)]), "(?i)nan"),
            "no tokens": (lambda: model.tokenize([torch.zeros(800)], max_len=0), "max_len"),
        }
