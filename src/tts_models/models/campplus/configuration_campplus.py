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
"""CAM++ model configuration."""

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig


# trf-ignore: TRF057
@strict
class CAMPPlusConfig(PreTrainedConfig):
    r"""
    Configuration of a [`CAMPPlusModel`]. The defaults are those of the released encoder.

    Args:
        sampling_rate (`int`, defaults to 16000): Sampling rate of the audio, in Hz.
        num_mel_bins (`int`, defaults to 80): Mel bands, a multiple of 8.
        embedding_size (`int`, defaults to 192): Size of the speaker vector.
        head_channels (`int`, defaults to 32): Channels of the two-dimensional convolutions.
        head_layers (`int`, defaults to 2): Residual blocks in each of the head's two stages.
        initial_channels (`int`, defaults to 128): Channels entering the dense blocks.
        growth_rate (`int`, defaults to 32): Channels that a dense layer adds.
        bottleneck_factor (`int`, defaults to 4): Channels inside a dense layer, as a multiple of `growth_rate`.
        block_layers (`list[int]`, defaults to `[12, 24, 16]`): Dense layers of each block.
        block_dilations (`list[int]`, defaults to `[1, 2, 2]`): Dilation of each block's convolutions.
        kernel_size (`int`, defaults to 3): Kernel of the dense layers' convolutions, an odd number.
        segment_size (`int`, defaults to 100): Steps (of 20 ms) over which the gates' local context is averaged.
        batch_norm_eps (`float`, defaults to 1e-5): Epsilon of the norms.

    Example:

    ```python
    >>> from tts_models import CAMPPlusConfig, CAMPPlusModel

    >>> model = CAMPPlusModel(CAMPPlusConfig(growth_rate=4, initial_channels=16, block_layers=[2, 2, 2]))
    >>> model.config.embedding_size
    192
    ```
    """

    model_type = "campplus"

    sampling_rate: int = 16000
    num_mel_bins: int = 80
    embedding_size: int = 192
    head_channels: int = 32
    head_layers: int = 2
    initial_channels: int = 128
    growth_rate: int = 32
    bottleneck_factor: int = 4
    block_layers: list[int] | tuple[int, ...] = (12, 24, 16)
    block_dilations: list[int] | tuple[int, ...] = (1, 2, 2)
    kernel_size: int = 3
    segment_size: int = 100
    batch_norm_eps: float = 1e-5

    def __post_init__(self, **kwargs):
        self.block_layers = list(self.block_layers)
        self.block_dilations = list(self.block_dilations)
        super().__post_init__(**kwargs)
        if self.num_mel_bins < 8 or self.num_mel_bins % 8:
            raise ValueError(f"`num_mel_bins` must be a multiple of 8, got {self.num_mel_bins}.")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd, got {self.kernel_size}.")
        if not self.block_layers or len(self.block_layers) != len(self.block_dilations):
            raise ValueError(
                f"`block_layers` and `block_dilations` must list as many blocks, got {self.block_layers} and "
                f"{self.block_dilations}."
            )


__all__ = ["CAMPPlusConfig"]
