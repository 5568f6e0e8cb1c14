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
"""DeepFilterNet model configuration."""

import math

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig


SKIPS = ("none", "identity", "groupedlinear")


# trf-ignore: TRF057
@strict
class DeepFilterNetConfig(PreTrainedConfig):
    r"""
    Configuration of a [`DeepFilterNetModel`]. The defaults are those of the released DeepFilterNet3.

    Args:
        sampling_rate (`int`, *optional*, defaults to 48000): Sampling rate of the audio, in Hz.
        fft_length (`int`, *optional*, defaults to 960): Samples of a window.
        hop_length (`int`, *optional*, defaults to 480): Samples between windows; divides `fft_length`.
        num_erb_bands (`int`, *optional*, defaults to 32): Bands of the gains, as wide as hearing resolves; a multiple
            of 8.
        min_erb_bins (`int`, *optional*, defaults to 2): Fewest bins of a band.
        num_df_bins (`int`, *optional*, defaults to 96): Lowest bins, which are filtered over time; an even number.
            Where they leave less than two bins to the gains, there are none, and the bin above them is silent.
        df_order (`int`, *optional*, defaults to 5): Taps of their filters.
        df_lookahead (`int`, *optional*, defaults to 2): Frames of the taps that lie in the future.
        conv_lookahead (`int`, *optional*, defaults to 2): Frames that the network hears ahead.
        norm_seconds (`float`, *optional*, defaults to 1.0): Time constant by which the features' level is followed.
        hidden_channels (`int`, *optional*, defaults to 64): Channels of the convolutions.
        input_kernel_size (`list[int]`, *optional*, defaults to `[3, 3]`): First convolutions, frames and bins.
        conv_kernel_size (`list[int]`, *optional*, defaults to `[1, 3]`): The other convolutions.
        upsampling_kernel_size (`list[int]`, *optional*, defaults to `[1, 3]`): The decoder's transposed convolutions.
        pathway_kernel_size (`int`, *optional*, defaults to 5): Frames of the convolution that shortens the way to the
            filters.
        erb_hidden_size (`int`, *optional*, defaults to 256): Width of the recurrent layers of encoder and gains.
        erb_num_layers (`int`, *optional*, defaults to 3): Recurrent layers of both, the first the encoder's.
        df_hidden_size (`int`, *optional*, defaults to 256): Width of the recurrent layers of the filters.
        df_num_layers (`int`, *optional*, defaults to 2): Their layers.
        encoder_linear_groups (`int`, *optional*, defaults to 32): Groups of the encoder's joining projection.
        linear_groups (`int`, *optional*, defaults to 16): Groups of the other projections.
        df_linear_groups (`int`, *optional*, defaults to 8): Groups of the projection into the filters' recurrence.
        encoder_skip (`str`, *optional*, defaults to `"none"`): What joins the encoder's recurrence from its input:
            `"none"`, `"identity"` or `"groupedlinear"`.
        erb_skip (`str`, *optional*, defaults to `"none"`): The same for the gains.
        df_skip (`str`, *optional*, defaults to `"groupedlinear"`): The same for the filters.
        concat_encoder (`bool`, *optional*, defaults to `False`): The encoder's two branches stand side by side instead
            of being added.
        min_snr (`float`, *optional*, defaults to -15.0): Least estimated signal-to-noise ratio, in dB.
        max_snr (`float`, *optional*, defaults to 35.0): Largest, in dB.
        drop_noise_frames (`bool`, *optional*, defaults to `False`): Frames whose estimated signal-to-noise ratio is
            -10 dB or less are silent, and what makes gains and filters never hears them.
        post_filter (`bool`, *optional*, defaults to `False`): Quiet what is very noisy a little more.
        post_filter_beta (`float`, *optional*, defaults to 0.02): By how much.
        initializer_range (`float`, *optional*, defaults to 0.02): Unused; layers begin as torch makes them.

    Example:

    ```python
    >>> from tts_models import DeepFilterNetConfig

    >>> config = DeepFilterNetConfig()
    >>> config.num_bins, config.latency_samples
    (481, 1440)
    ```
    """

    model_type = "deepfilternet"

    sampling_rate: int = 48000
    fft_length: int = 960
    hop_length: int = 480
    num_erb_bands: int = 32
    min_erb_bins: int = 2
    num_df_bins: int = 96
    df_order: int = 5
    df_lookahead: int = 2
    conv_lookahead: int = 2
    norm_seconds: float | int = 1.0
    hidden_channels: int = 64
    input_kernel_size: list[int] | tuple[int, ...] = (3, 3)
    conv_kernel_size: list[int] | tuple[int, ...] = (1, 3)
    upsampling_kernel_size: list[int] | tuple[int, ...] = (1, 3)
    pathway_kernel_size: int = 5
    erb_hidden_size: int = 256
    erb_num_layers: int = 3
    df_hidden_size: int = 256
    df_num_layers: int = 2
    encoder_linear_groups: int = 32
    linear_groups: int = 16
    df_linear_groups: int = 8
    encoder_skip: str = "none"
    erb_skip: str = "none"
    df_skip: str = "groupedlinear"
    concat_encoder: bool = False
    min_snr: float | int = -15.0
    max_snr: float | int = 35.0
    drop_noise_frames: bool = False
    post_filter: bool = False
    post_filter_beta: float = 0.02
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        for name in ("input_kernel_size", "conv_kernel_size", "upsampling_kernel_size"):
            setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)
        self._check_signal()
        self._check_kernels()
        self._check_projections()

    def _check_signal(self) -> None:
        if self.hop_length < 1 or self.fft_length % self.hop_length or self.fft_length < 2 * self.hop_length:
            raise ValueError(
                f"`fft_length` must be a multiple of `hop_length={self.hop_length}`, at least twice it, got "
                f"{self.fft_length}."
            )
        if self.num_erb_bands < 8 or self.num_erb_bands % 8:
            raise ValueError(f"`num_erb_bands` must be a multiple of 8, got {self.num_erb_bands}.")
        if self.num_erb_bands * self.min_erb_bins > self.num_bins:
            raise ValueError(
                f"`num_erb_bands={self.num_erb_bands}` of `min_erb_bins={self.min_erb_bins}` are more than the "
                f"{self.num_bins} bins that there are."
            )
        if not 0 < self.num_df_bins <= self.num_bins or self.num_df_bins % 2:
            raise ValueError(f"`num_df_bins` must be even and in 2 … {self.num_bins}, got {self.num_df_bins}.")
        if not 0 <= self.df_lookahead < self.df_order:
            raise ValueError(f"`df_lookahead` must lie in 0 … {self.df_order - 1}, got {self.df_lookahead}.")
        if self.conv_lookahead < 0:
            raise ValueError(f"`conv_lookahead` must not be negative, got {self.conv_lookahead}.")
        if self.norm_seconds <= 0:
            raise ValueError(f"`norm_seconds` must be positive, got {self.norm_seconds}.")

    def _check_kernels(self) -> None:
        for name in ("input_kernel_size", "conv_kernel_size", "upsampling_kernel_size"):
            kernel = getattr(self, name)
            if len(kernel) != 2 or min(kernel) < 1 or kernel[1] % 2 == 0:
                raise ValueError(f"`{name}` must hold frames and an odd number of bins, got {kernel}.")
        if self.upsampling_kernel_size[1] != 3:
            raise ValueError(
                f"`upsampling_kernel_size` must span 3 bins, which doubles them, got {self.upsampling_kernel_size}."
            )
        if self.pathway_kernel_size < 1:
            raise ValueError(f"`pathway_kernel_size` must be at least 1, got {self.pathway_kernel_size}.")

    def _check_projections(self) -> None:
        for name in ("encoder_skip", "erb_skip", "df_skip"):
            if getattr(self, name) not in SKIPS:
                raise ValueError(f"`{name}` must be one of {', '.join(SKIPS)}, got {getattr(self, name)!r}.")
        if self.df_skip == "identity" and self.embedding_size != self.df_hidden_size:
            raise ValueError(
                f"`df_skip='identity'` needs `df_hidden_size` {self.embedding_size}, got {self.df_hidden_size}."
            )
        if self.encoder_skip == "identity" and self.concat_encoder:
            raise ValueError("`encoder_skip` must not be 'identity' with `concat_encoder`: the widths differ.")
        joined = self.hidden_channels * self.num_df_bins // 2
        sizes = {
            "encoder_linear_groups": (joined, self.embedding_size),
            "linear_groups": (
                self.embedding_size,
                self.erb_hidden_size,
                self.df_hidden_size,
                self.num_df_bins * self.df_order * 2,
            ),
            "df_linear_groups": (self.embedding_size, self.df_hidden_size),
        }
        for name, widths in sizes.items():
            groups = getattr(self, name)
            if groups < 1 or any(width % groups for width in widths):
                raise ValueError(f"`{name}` must divide {', '.join(map(str, widths))}, got {groups}.")
        if self.erb_num_layers < 2 or self.df_num_layers < 1:
            raise ValueError(
                f"`erb_num_layers` must be at least 2 and `df_num_layers` at least 1, got {self.erb_num_layers} and "
                f"{self.df_num_layers}."
            )

    @property
    def num_bins(self) -> int:
        """Bins of a spectrum."""
        return self.fft_length // 2 + 1

    @property
    def has_gains(self) -> bool:
        """Whether the bins above the filtered ones are two or more: upstream leaves the gains out for less."""
        return self.num_df_bins + 1 < self.num_bins

    @property
    def embedding_size(self) -> int:
        """Width of what the encoder hands to the decoders."""
        return self.hidden_channels * self.num_erb_bands // 4

    @property
    def norm_decay(self) -> float:
        """What a frame keeps of the running level; rounded to as many digits as leave it below 1."""
        decay, digits = math.exp(-self.hop_length / self.sampling_rate / self.norm_seconds), 3
        while round(decay, digits) >= 1.0:
            digits += 1
        return round(decay, digits)

    @property
    def lookahead(self) -> int:
        """Frames after a frame that must be known before it can be made."""
        return max(self.conv_lookahead, self.df_lookahead)

    @property
    def latency_samples(self) -> int:
        """Samples that a stream holds back: the window's overlap and the frames heard ahead."""
        return self.fft_length - self.hop_length + self.lookahead * self.hop_length


__all__ = ["DeepFilterNetConfig"]
