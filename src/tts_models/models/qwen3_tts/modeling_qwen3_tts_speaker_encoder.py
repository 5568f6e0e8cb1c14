# Copyright 2026 The tts_models authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The speaker encoder of Qwen3-TTS: an ECAPA-TDNN without normalisation layers, from log-mel frames to one vector."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple

from ...loading import CompleteCheckpointMixin
from .configuration_qwen3_tts import Qwen3TTSSpeakerEncoderConfig


# trf-ignore: TRF057
@dataclass
class Qwen3TTSSpeakerEncoderOutput(ModelOutput):
    """
    What [`Qwen3TTSSpeakerEncoder`] returns.

    Args:
        speaker_embeddings (`torch.FloatTensor` of shape `(batch, enc_dim)`):
            One vector per recording, not normalised.
    """

    speaker_embeddings: torch.FloatTensor | None = None


# trf-ignore: TRF057
class Qwen3TTSSpeakerEncoder(CompleteCheckpointMixin, PreTrainedModel):
    """
    The voice of a recording as one vector that the talker takes for an input row.

    There is no mask over time: rows of one batch must be equally long; encode recordings of different lengths one by
    one.
    """

    config_class = Qwen3TTSSpeakerEncoderConfig
    config: Qwen3TTSSpeakerEncoderConfig
    conversion_script = "convert_qwen3_tts_to_hf.py"
    main_input_name = "input_features"
    input_modalities = ("audio",)

    def __init__(self, config: Qwen3TTSSpeakerEncoderConfig) -> None:
        super().__init__(config)
        channels, kernels, dilations = config.enc_channels, config.enc_kernel_sizes, config.enc_dilations
        first = Qwen3TTSTimeDelayLayer(config.mel_dim, channels[0], kernels[0], dilations[0])
        rest = [
            Qwen3TTSSpeakerBlock(config, channels[i - 1], channels[i], kernels[i], dilations[i])
            for i in range(1, len(channels) - 1)
        ]
        self.blocks = nn.ModuleList([first, *rest])
        self.mfa = Qwen3TTSTimeDelayLayer(sum(channels[1:-1]), channels[-1], kernels[-1], dilations[-1])
        self.asp = Qwen3TTSAttentivePooling(channels[-1], config.enc_attention_channels)
        self.fc = nn.Conv1d(2 * channels[-1], config.enc_dim, kernel_size=1)
        self.post_init()

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(self, input_features: torch.FloatTensor, **kwargs: Any) -> Qwen3TTSSpeakerEncoderOutput:
        r"""
        Args:
            input_features (`torch.FloatTensor` of shape `(batch, frames, mel_dim)`):
                Log-mel frames, as [`Qwen3TTSFeatureExtractor`] makes them.

        Raises:
            ValueError: too few frames for the reflected edges of the convolutions, or another number of bands.
        """
        self._check_features(input_features)
        hidden_states = input_features.to(self.dtype).transpose(1, 2)
        outputs = []
        for block in self.blocks:
            hidden_states = block(hidden_states)
            outputs.append(hidden_states)
        pooled = self.asp(self.mfa(torch.cat(outputs[1:], dim=1)))
        return Qwen3TTSSpeakerEncoderOutput(speaker_embeddings=self.fc(pooled).squeeze(-1))

    def _check_features(self, input_features: torch.Tensor) -> None:
        if input_features.dim() != 3 or input_features.shape[-1] != self.config.mel_dim:
            raise ValueError(
                f"`input_features` must have the shape (batch, frames, {self.config.mel_dim}); "
                f"got {tuple(input_features.shape)}."
            )
        if input_features.shape[1] < self.min_frames:
            raise ValueError(
                f"`input_features` holds {input_features.shape[1]} frames; a recording needs at least "
                f"{self.min_frames}."
            )

    @property
    def min_frames(self) -> int:
        """The fewest frames that every layer can reflect at its edges."""
        layers = zip(self.config.enc_kernel_sizes, self.config.enc_dilations, strict=True)
        return max((kernel - 1) * dilation // 2 for kernel, dilation in layers) + 1


class Qwen3TTSSpeakerBlock(nn.Module):
    """Pointwise layer, Res2Net, pointwise layer, squeeze-and-excitation, residual."""

    def __init__(
        self, config: Qwen3TTSSpeakerEncoderConfig, in_channels: int, out_channels: int, kernel: int, dilation: int
    ) -> None:
        super().__init__()
        self.tdnn1 = Qwen3TTSTimeDelayLayer(in_channels, out_channels)
        self.res2net_block = Qwen3TTSRes2NetBlock(out_channels, config.enc_res2net_scale, kernel, dilation)
        self.tdnn2 = Qwen3TTSTimeDelayLayer(out_channels, out_channels)
        self.se_block = Qwen3TTSSqueezeExcitation(out_channels, config.enc_se_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        branch = self.tdnn2(self.res2net_block(self.tdnn1(hidden_states)))
        return hidden_states + self.se_block(branch)


class Qwen3TTSRes2NetBlock(nn.Module):
    """Groups of channels, each layer seeing its own group and the result of the group before."""

    def __init__(self, channels: int, scale: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.scale = scale
        width = channels // scale
        self.blocks = nn.ModuleList([Qwen3TTSTimeDelayLayer(width, width, kernel, dilation) for _ in range(scale - 1)])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        first, *groups = hidden_states.chunk(self.scale, dim=1)
        outputs = [first]
        for index, (layer, group) in enumerate(zip(self.blocks, groups, strict=True)):
            outputs.append(layer(group if index == 0 else group + outputs[-1]))
        return torch.cat(outputs, dim=1)


class Qwen3TTSSqueezeExcitation(nn.Module):
    """Weighs every channel by what its mean over time says."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, bottleneck, kernel_size=1)
        self.conv2 = nn.Conv1d(bottleneck, channels, kernel_size=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        mean = hidden_states.mean(dim=-1, keepdim=True)
        return hidden_states * torch.sigmoid(self.conv2(torch.relu(self.conv1(mean))))


class Qwen3TTSAttentivePooling(nn.Module):
    """Mean and deviation over time, each channel weighing the frames by itself."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.tdnn = Qwen3TTSTimeDelayLayer(3 * channels, bottleneck)
        self.conv = nn.Conv1d(bottleneck, channels, kernel_size=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch, channels, frames)` to `(batch, 2 * channels, 1)`."""
        uniform = torch.full_like(hidden_states[:, :1], 1 / hidden_states.shape[-1])
        statistics = torch.cat(self._statistics(hidden_states, uniform), dim=1).expand(-1, -1, hidden_states.shape[-1])
        scores = self.conv(torch.tanh(self.tdnn(torch.cat([hidden_states, statistics], dim=1))))
        return torch.cat(self._statistics(hidden_states, scores.softmax(dim=-1)), dim=1)

    @staticmethod
    def _statistics(hidden_states: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = (weights * hidden_states).sum(dim=-1, keepdim=True)
        variance = (weights * (hidden_states - mean).pow(2)).sum(dim=-1, keepdim=True)
        return mean, variance.clamp(min=1e-12).sqrt()


class Qwen3TTSTimeDelayLayer(nn.Module):
    """A convolution over time with reflected edges, and a ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel, dilation=dilation)
        total = (kernel - 1) * dilation
        self.padding = (total // 2, total - total // 2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(F.pad(hidden_states, self.padding, mode="reflect")))


__all__ = ["Qwen3TTSSpeakerEncoder", "Qwen3TTSSpeakerEncoderOutput"]
