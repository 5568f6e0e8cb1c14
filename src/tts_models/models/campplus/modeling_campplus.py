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
"""CAM++: a speaker encoder of densely connected, context-gated convolutions (Wang et al., 2023; 3D-Speaker)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple

from ...audio.lengths import frame_lengths, length_mask
from ...audio.mel import kaldi_filter_bank
from ...audio.mel_features import check_waveforms
from ...loading import CompleteCheckpointMixin
from .configuration_campplus import CAMPPlusConfig


MIN_FRAMES = 3  # two steps after the strided convolution, the fewest that have a standard deviation


# trf-ignore: TRF057
@dataclass
class CAMPPlusOutput(ModelOutput):
    r"""
    Output of [`CAMPPlusModel`].

    embeddings (`torch.FloatTensor` of shape `(batch, embedding_size)`): Speaker vectors, of no particular length.
    """

    embeddings: torch.FloatTensor | None = None


@dataclass
class ValidSteps:
    """Which steps of a batch are signal.

    Attributes:
        lengths (`torch.LongTensor` of shape `(batch,)`): Valid steps per row.
        mask (`torch.BoolTensor` of shape `(batch, 1, steps)`, *optional*): The same; `None` where nothing is padding.
    """

    lengths: torch.Tensor
    mask: torch.Tensor | None

    @classmethod
    def of(cls, lengths: torch.Tensor, steps: int, is_padded: bool) -> "ValidSteps":
        """From lengths, for a signal of so many steps."""
        mask = length_mask(lengths, steps)[:, None] if is_padded else None
        return cls(lengths, mask)

    def keep(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Zeros in place of padding, in (batch, channels, steps) or (batch, channels, bands, steps)."""
        if self.mask is None:
            return hidden_states
        return hidden_states * (self.mask if hidden_states.dim() == 3 else self.mask[:, None])

    def mean(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Mean over time of (batch, channels, steps) that hold zeros in the padding: (batch, channels, 1)."""
        return hidden_states.sum(-1, keepdim=True) / self.lengths[:, None, None]

    def segment_means(self, hidden_states: torch.Tensor, size: int) -> torch.Tensor:
        """Means of consecutive segments, repeated over their steps; the last one averages what it has."""
        steps = hidden_states.shape[-1]
        segments = F.pad(hidden_states, (0, -steps % size)).unflatten(-1, (-1, size)).sum(-1)
        starts = torch.arange(0, steps, size, device=self.lengths.device)
        counts = (self.lengths[:, None] - starts).clamp(1, size)
        return (segments / counts[:, None]).repeat_interleave(size, dim=-1)[..., :steps]


class CAMPPlusResidualBlock(nn.Module):
    """Two convolutions over bands and time, added to the input; the first may halve the bands."""

    def __init__(self, config: CAMPPlusConfig, stride: int):
        super().__init__()
        channels, eps = config.head_channels, config.batch_norm_eps
        self.conv1 = nn.Conv2d(channels, channels, 3, stride=(stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=eps)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, eps=eps)
        self.has_shortcut = stride != 1
        if self.has_shortcut:
            self.shortcut_conv = nn.Conv2d(channels, channels, 1, stride=(stride, 1), bias=False)
            self.shortcut_bn = nn.BatchNorm2d(channels, eps=eps)

    def forward(self, hidden_states: torch.Tensor, valid: ValidSteps) -> torch.Tensor:
        branch = valid.keep(F.relu(self.bn1(self.conv1(hidden_states))))
        if self.has_shortcut:
            hidden_states = self.shortcut_bn(self.shortcut_conv(hidden_states))
        return valid.keep(F.relu(self.bn2(self.conv2(branch)) + hidden_states))


class CAMPPlusHead(nn.Module):
    """Frames (batch, bands, frames) to (batch, head_channels * bands / 8, frames)."""

    def __init__(self, config: CAMPPlusConfig):
        super().__init__()
        channels, eps = config.head_channels, config.batch_norm_eps
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=eps)
        strides = ([2] + [1] * (config.head_layers - 1)) * 2
        self.blocks = nn.ModuleList(CAMPPlusResidualBlock(config, stride) for stride in strides)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=(2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels, eps=eps)

    def forward(self, frames: torch.Tensor, valid: ValidSteps) -> torch.Tensor:
        hidden_states = valid.keep(F.relu(self.bn1(self.conv1(valid.keep(frames)[:, None]))))
        for block in self.blocks:
            hidden_states = block(hidden_states, valid)
        return valid.keep(F.relu(self.bn2(self.conv2(hidden_states))).flatten(1, 2))


class CAMPPlusGatedConvolution(nn.Module):
    """A convolution whose output is gated by the mean over the utterance and over the segment around each step."""

    def __init__(self, config: CAMPPlusConfig, dilation: int):
        super().__init__()
        self.segment_size = config.segment_size
        channels, padding = config.bottleneck_factor * config.growth_rate, config.kernel_size // 2 * dilation
        self.convolution = nn.Conv1d(
            channels, config.growth_rate, config.kernel_size, padding=padding, dilation=dilation, bias=False
        )
        self.squeeze = nn.Conv1d(channels, channels // 2, 1)
        self.excite = nn.Conv1d(channels // 2, config.growth_rate, 1)

    def forward(self, hidden_states: torch.Tensor, valid: ValidSteps) -> torch.Tensor:
        context = valid.mean(hidden_states) + valid.segment_means(hidden_states, self.segment_size)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(context.to(hidden_states.dtype)))))
        return self.convolution(hidden_states) * gate


class CAMPPlusDenseLayer(nn.Module):
    """Bottleneck and gated convolution; the caller appends the output to the input."""

    def __init__(self, config: CAMPPlusConfig, channels: int, dilation: int):
        super().__init__()
        bottleneck = config.bottleneck_factor * config.growth_rate
        self.bn1 = nn.BatchNorm1d(channels, eps=config.batch_norm_eps)
        self.bottleneck = nn.Conv1d(channels, bottleneck, 1, bias=False)
        self.bn2 = nn.BatchNorm1d(bottleneck, eps=config.batch_norm_eps)
        self.gated_convolution = CAMPPlusGatedConvolution(config, dilation)

    def forward(self, hidden_states: torch.Tensor, valid: ValidSteps) -> torch.Tensor:
        hidden_states = self.bottleneck(F.relu(self.bn1(hidden_states)))
        return self.gated_convolution(valid.keep(F.relu(self.bn2(hidden_states))), valid)


class CAMPPlusDenseBlock(nn.Module):
    """Densely connected layers, then a transition that halves the channels."""

    def __init__(self, config: CAMPPlusConfig, channels: int, num_layers: int, dilation: int):
        super().__init__()
        self.layers = nn.ModuleList(
            CAMPPlusDenseLayer(config, channels + index * config.growth_rate, dilation) for index in range(num_layers)
        )
        channels += num_layers * config.growth_rate
        self.bn = nn.BatchNorm1d(channels, eps=config.batch_norm_eps)
        self.transition = nn.Conv1d(channels, channels // 2, 1, bias=False)
        self.out_channels = channels // 2

    def forward(self, hidden_states: torch.Tensor, valid: ValidSteps) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = torch.cat([hidden_states, layer(hidden_states, valid)], dim=1)
        return self.transition(F.relu(self.bn(hidden_states)))


# trf-ignore: TRF057
class CAMPPlusPreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """Base class: configuration and initialisation shared by CAM++ models."""

    config: CAMPPlusConfig
    config_class = CAMPPlusConfig
    conversion_script = "convert_s3gen_to_hf.py"
    base_model_prefix = "campplus"
    main_input_name = "input_features"
    # There is no attention: inside a larger model, whatever is asked of the other parts suits.
    _supports_sdpa = True
    _supports_flash_attn = True
    input_modalities = "audio"
    _no_split_modules = ["CAMPPlusDenseLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            # Variance-preserving: the network is deep, a fixed small deviation fades out.
            init.kaiming_normal_(module.weight)


# trf-ignore: TRF057
class CAMPPlusModel(CAMPPlusPreTrainedModel):
    r"""
    CAM++ speaker encoder: frames of a recording to one vector that says who speaks.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import CAMPPlusConfig, CAMPPlusModel

    >>> config = CAMPPlusConfig(growth_rate=4, initial_channels=16, block_layers=[2, 2, 2])
    >>> model = CAMPPlusModel(config).eval()
    >>> model.embed([0.1 * torch.randn(16000), 0.1 * torch.randn(8000)]).shape
    torch.Size([2, 192])
    ```
    """

    def __init__(self, config: CAMPPlusConfig):
        super().__init__(config)
        self.head = CAMPPlusHead(config)
        channels = config.initial_channels
        self.conv = nn.Conv1d(
            config.head_channels * (config.num_mel_bins // 8), channels, 5, stride=2, padding=2, bias=False
        )
        self.bn = nn.BatchNorm1d(channels, eps=config.batch_norm_eps)
        blocks = []
        for num_layers, dilation in zip(config.block_layers, config.block_dilations, strict=True):
            blocks.append(CAMPPlusDenseBlock(config, channels, num_layers, dilation))
            channels = blocks[-1].out_channels
        self.blocks = nn.ModuleList(blocks)
        self.output_bn = nn.BatchNorm1d(channels, eps=config.batch_norm_eps)
        self.projection = nn.Conv1d(2 * channels, config.embedding_size, 1, bias=False)
        self.projection_bn = nn.BatchNorm1d(config.embedding_size, eps=config.batch_norm_eps, affine=False)
        self.post_init()

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor,
        lengths: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> CAMPPlusOutput:
        r"""
        Speaker vectors of filter-bank frames.

        Args:
            input_features (`torch.FloatTensor` of shape `(batch, frames, num_mel_bins)`):
                Frames of [`CAMPPlusFeatureExtractor`], padded on the right.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Valid frames per row. What comes after changes nothing; without lengths, as upstream, every frame
                counts, zeros of the padding too.
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*):
                1 for frames, 0 for right padding; another way to say `lengths`.

        Raises:
            ValueError: a wrong shape, or a row of fewer than 3 frames.
        """
        lengths = self._check(input_features, lengths, attention_mask)
        steps = input_features.shape[1]
        is_padded = int(lengths.min()) < steps
        frames = input_features.transpose(1, 2).to(self.head.conv1.weight.dtype)
        hidden_states = self.head(frames, ValidSteps.of(lengths, steps, is_padded))
        hidden_states = F.relu(self.bn(self.conv(hidden_states)))
        valid = ValidSteps.of((lengths + 1) // 2, hidden_states.shape[-1], is_padded)
        for block in self.blocks:
            hidden_states = block(hidden_states, valid)
        hidden_states = valid.keep(F.relu(self.output_bn(hidden_states)))
        statistics = self._statistics(hidden_states, valid)
        return CAMPPlusOutput(embeddings=self.projection_bn(self.projection(statistics).squeeze(-1)))

    @torch.no_grad()
    def embed(self, waveforms: Sequence[torch.Tensor]) -> torch.Tensor:
        r"""
        Speaker vectors of recordings, features included.

        Args:
            waveforms (`list[torch.Tensor]`): Mono recordings `(samples,)` at `config.sampling_rate` in [-1, 1], of any
                lengths; arrays are taken too.

        Returns:
            `torch.Tensor` of shape `(batch, embedding_size)`; a row does not depend on the others.

        Raises:
            ValueError: a recording is shorter than 720 samples (45 ms), not mono, or not finite.
        """
        rate, bands = self.config.sampling_rate, self.config.num_mel_bins
        rows = [
            kaldi_filter_bank(samples.to(self.device), sampling_rate=rate, bands=bands)
            for samples in check_waveforms(waveforms)
        ]
        features = nn.utils.rnn.pad_sequence([frames - frames.mean(0) for frames in rows], batch_first=True)
        return self(features, torch.tensor([len(frames) for frames in rows], device=self.device)).embeddings

    @staticmethod
    def _statistics(hidden_states: torch.Tensor, valid: ValidSteps) -> torch.Tensor:
        """Mean and unbiased standard deviation over time, (batch, 2 * channels, 1)."""
        mean = valid.mean(hidden_states)
        squares = valid.keep((hidden_states - mean).pow(2)).sum(-1, keepdim=True)
        # The floor keeps the gradient of a constant channel finite.
        deviation = (squares / (valid.lengths[:, None, None] - 1)).clamp(min=1e-20).sqrt()
        return torch.cat([mean, deviation], dim=1).to(hidden_states.dtype)

    def _check(
        self, input_features: torch.Tensor, lengths: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> torch.LongTensor:
        bands = self.config.num_mel_bins
        if input_features.dim() != 3 or input_features.shape[2] != bands or input_features.shape[1] < MIN_FRAMES:
            raise ValueError(
                f"`input_features` must have shape (batch, frames, {bands}) with at least {MIN_FRAMES} frames, got "
                f"{tuple(input_features.shape)}."
            )
        return frame_lengths(input_features, input_features.shape[1], lengths, attention_mask, minimum=MIN_FRAMES)


__all__ = ["CAMPPlusModel", "CAMPPlusOutput", "CAMPPlusPreTrainedModel"]
