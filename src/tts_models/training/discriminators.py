"""Waveform discriminators for adversarial codec training (Kong et al., 2020: HiFi-GAN) and their losses."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


Features = list[torch.Tensor]
"""Activations of every layer of one discriminator, its scores last."""


class PeriodDiscriminator(nn.Module):
    """Judges the waveform folded into rows of `period` samples, so that it sees the samples of one phase together."""

    def __init__(self, period: int, channels: Sequence[int] = (16, 64, 128, 256)):
        super().__init__()
        self.period = period
        widths = [1, *channels]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0)))
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.scores = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, audio: torch.Tensor) -> Features:
        """Features of waveforms (batch, samples)."""
        padded = F.pad(audio[:, None], (0, -audio.shape[-1] % self.period), mode="reflect")
        hidden_states = padded.unflatten(-1, (-1, self.period))
        features = []
        for layer in self.layers:
            hidden_states = F.leaky_relu(layer(hidden_states), 0.1)
            features.append(hidden_states)
        return [*features, self.scores(hidden_states)]


class ScaleDiscriminator(nn.Module):
    """Judges the waveform averaged over `pooling` samples with grouped, strided convolutions."""

    def __init__(self, pooling: int, channels: Sequence[int] = (16, 64, 128, 256)):
        super().__init__()
        self.pooling = pooling
        widths = [1, *channels]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(a, b, 15, 4 if a > 1 else 1, padding=7, groups=min(a, 4)))
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.scores = weight_norm(nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, audio: torch.Tensor) -> Features:
        """Features of waveforms (batch, samples)."""
        hidden_states = F.avg_pool1d(audio[:, None], self.pooling) if self.pooling > 1 else audio[:, None]
        features = []
        for layer in self.layers:
            hidden_states = F.leaky_relu(layer(hidden_states), 0.1)
            features.append(hidden_states)
        return [*features, self.scores(hidden_states)]


class WaveformDiscriminator(nn.Module):
    r"""
    Several period and scale discriminators.

    Args:
        periods (`tuple[int]`): One period discriminator each.
        poolings (`tuple[int]`): One scale discriminator each.
    """

    def __init__(self, periods: Sequence[int] = (2, 3, 5, 7, 11), poolings: Sequence[int] = (1, 2, 4)):
        super().__init__()
        self.discriminators = nn.ModuleList(
            [PeriodDiscriminator(period) for period in periods] + [ScaleDiscriminator(pool) for pool in poolings]
        )

    def forward(self, audio: torch.Tensor) -> list[Features]:
        """Features of waveforms (batch, samples), one list per discriminator."""
        return [discriminator(audio) for discriminator in self.discriminators]

    def discriminator_loss(self, generated: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Least-squares loss that pushes the scores of `target` to 1 and of `generated` to 0; a scalar."""
        losses = [
            (real[-1] - 1).square().mean() + fake[-1].square().mean()
            for real, fake in zip(self(target), self(generated.detach()), strict=True)
        ]
        return torch.stack(losses).mean()

    def generator_loss(
        self, generated: torch.Tensor, target: torch.Tensor, feature_weight: float = 2.0
    ) -> torch.Tensor:
        """Least-squares adversarial loss plus `feature_weight` times the L1 distance of the features; a scalar."""
        fakes = self(generated)
        with torch.no_grad():
            reals = self(target)
        adversarial = torch.stack([(fake[-1] - 1).square().mean() for fake in fakes]).mean()
        distances = [
            F.l1_loss(fake, real)
            for fake_features, real_features in zip(fakes, reals, strict=True)
            for fake, real in zip(fake_features[:-1], real_features[:-1], strict=True)
        ]
        return adversarial + feature_weight * torch.stack(distances).mean()
