"""Tiny CAM++ encoders for the common suite."""

from collections.abc import Callable
from typing import Any

import torch

from tests.common.model_tester import Inputs, ModelTester
from tts_models import CAMPPlusConfig, CAMPPlusModel


TINY = {
    "num_mel_bins": 16,
    "embedding_size": 8,
    "head_channels": 4,
    "initial_channels": 8,
    "growth_rate": 4,
    "bottleneck_factor": 2,
    "block_layers": [2, 2],
    "block_dilations": [1, 2],
    "segment_size": 10,
}


class Tester(ModelTester):
    """CAM++ for the common suite."""

    config_class = CAMPPlusConfig
    model_class = CAMPPlusModel
    padding_sides = ("right",)

    def config(self, **overrides: Any) -> CAMPPlusConfig:
        return CAMPPlusConfig(**(TINY | overrides))

    def inputs(self, batch_size: int = 2) -> Inputs:
        generator = torch.Generator().manual_seed(1)
        return {"input_features": torch.randn(batch_size, 45, TINY["num_mel_bins"], generator=generator)}

    def ragged_inputs(self, padding_side: str) -> tuple[Inputs, list[Inputs]]:
        lengths = (45, 30, 11, 3)
        features = self.inputs(batch_size=len(lengths))["input_features"]
        mask = (torch.arange(45) < torch.tensor(lengths)[:, None]).long()
        alone = [{"input_features": features[row : row + 1, :n].clone()} for row, n in enumerate(lengths)]
        features[mask == 0] = 7.0  # what stands in the padding must not matter
        return {"input_features": features, "attention_mask": mask}, alone

    def valid(self, output: Any, inputs: Inputs, row: int) -> list[torch.Tensor]:
        return [output.embeddings[row]]

    def training_inputs(self) -> Inputs:
        return self.inputs(batch_size=6)

    def loss(self, model: CAMPPlusModel) -> torch.Tensor:
        """Pulls the vectors of pairs of recordings towards targets, as a classifier of speakers would."""
        embeddings = model(**self.training_inputs()).embeddings
        targets = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(4))
        return (embeddings - targets).pow(2).mean()

    def invalid_configs(self) -> list[Inputs]:
        return [
            {"num_mel_bins": 20},
            {"kernel_size": 4},
            {"block_layers": [2, 2, 2]},
            {"block_layers": [], "block_dilations": []},
            {"growth_rate": "large"},
        ]

    def invalid_calls(self, model: CAMPPlusModel) -> dict[str, tuple[Callable[[], Any], str]]:
        features = self.inputs()["input_features"]
        return {
            "bands of another model": (lambda: model(features[..., :8]), "input_features"),
            "too few frames": (lambda: model(features[:, :2]), "at least 3 frames"),
            "a row that is too short": (lambda: model(features, torch.tensor([45, 2])), "lengths.*3 … 45"),
            "a length too large": (lambda: model(features, torch.tensor([45, 46])), "lengths"),
            "lengths of another batch": (lambda: model(features, torch.tensor([45])), "lengths"),
            "mask of another length": (lambda: model(features, attention_mask=torch.ones(2, 9)), "attention_mask"),
            "a recording that is too short": (lambda: model.embed([torch.zeros(399)]), "399"),
            "a recording of two frames": (lambda: model.embed([torch.zeros(600)]), "at least 3 frames"),
            "stereo": (lambda: model.embed([torch.zeros(2, 8000)]), "mono"),
            "infinite": (lambda: model.embed([torch.full((8000,), torch.inf)]), "(?i)inf"),
        }
