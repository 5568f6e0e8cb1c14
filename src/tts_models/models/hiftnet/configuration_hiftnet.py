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
"""HiFTNet model configuration."""

import math

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig


# trf-ignore: TRF057
@strict
class HiFTNetConfig(PreTrainedConfig):
    r"""
    Configuration of a [`HiFTNetModel`]. The defaults are those of the released 24 kHz vocoder of S3Gen.

    Args:
        in_channels (`int`, defaults to 80): Mel bands.
        base_channels (`int`, defaults to 512): Channels before the first upsampling; halved (rounded down) by each.
        nb_harmonics (`int`, defaults to 8): Overtones of the source.
        sampling_rate (`int`, defaults to 24000): Sampling rate of the audio, in Hz.
        nsf_alpha (`float`, defaults to 0.1): Amplitude of the source's sines; its unvoiced noise has a third.
        nsf_sigma (`float`, defaults to 0.003): Standard deviation of the source's noise where voiced.
        nsf_voiced_threshold (`float`, defaults to 10): Fundamental frequency above which a frame is voiced, in Hz.
        upsample_rates (`list[int]`, defaults to `[8, 5, 3]`): Stride of each upsampling.
        upsample_kernel_sizes (`list[int]`, defaults to `[16, 11, 7]`): Kernel of each upsampling.
        istft_n_fft (`int`, defaults to 16): Samples of a window of the closing inverse Fourier transform, even.
        istft_hop_len (`int`, defaults to 4): Samples between its windows, fewer than `istft_n_fft`.
        resblock_kernel_sizes (`list[int]`, defaults to `[3, 7, 11]`): Kernels of the residual blocks of every stage.
        resblock_dilation_sizes (`list[list[int]]`, defaults to three times `[1, 3, 5]`): Dilations of each.
        source_resblock_kernel_sizes (`list[int]`, defaults to `[7, 7, 11]`): Kernel of each stage's source block.
        source_resblock_dilation_sizes (`list[list[int]]`, defaults to three times `[1, 3, 5]`): Dilations of each.
        lrelu_slope (`float`, defaults to 0.1): Slope of the leaky ReLU before each upsampling.
        audio_limit (`float`, defaults to 0.99): Largest absolute sample.
        f0_predictor_in_channels (`int`, defaults to 80): Mel bands that the pitch predictor takes.
        f0_predictor_cond_channels (`int`, defaults to 512): Width of the pitch predictor.
        f0_predictor_layers (`int`, defaults to 5): Convolutions of the pitch predictor.
        mel_fft_length (`int`, defaults to 1920): Samples of a window of the mel features.
        mel_max_frequency (`float`, defaults to 8000.0): Upper edge of the mel bands, in Hz.
        initializer_range (`float`, defaults to 0.01): Standard deviation of freshly initialised upsamplings.

    Example:

    ```python
    >>> from tts_models import HiFTNetConfig

    >>> config = HiFTNetConfig()
    >>> config.hop_length, config.context_frames, config.look_ahead_frames
    (480, 15, 20)
    ```
    """

    model_type = "hiftnet"

    in_channels: int = 80
    base_channels: int = 512
    nb_harmonics: int = 8
    sampling_rate: int = 24000
    nsf_alpha: float = 0.1
    nsf_sigma: float = 0.003
    nsf_voiced_threshold: float | int = 10
    upsample_rates: list[int] | tuple[int, ...] = (8, 5, 3)
    upsample_kernel_sizes: list[int] | tuple[int, ...] = (16, 11, 7)
    istft_n_fft: int = 16
    istft_hop_len: int = 4
    resblock_kernel_sizes: list[int] | tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: list | tuple = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernel_sizes: list[int] | tuple[int, ...] = (7, 7, 11)
    source_resblock_dilation_sizes: list | tuple = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    lrelu_slope: float = 0.1
    audio_limit: float = 0.99
    f0_predictor_in_channels: int = 80
    f0_predictor_cond_channels: int = 512
    f0_predictor_layers: int = 5
    mel_fft_length: int = 1920
    mel_max_frequency: float | int = 8000.0
    initializer_range: float = 0.01

    def __post_init__(self, **kwargs):
        for name in (
            "upsample_rates",
            "upsample_kernel_sizes",
            "resblock_kernel_sizes",
            "source_resblock_kernel_sizes",
        ):
            setattr(self, name, list(getattr(self, name)))
        for name in ("resblock_dilation_sizes", "source_resblock_dilation_sizes"):
            setattr(self, name, [list(dilations) for dilations in getattr(self, name)])
        super().__post_init__(**kwargs)
        self._check_stages()
        self._check_residual_blocks()

    def _check_stages(self) -> None:
        rates, kernels = self.upsample_rates, self.upsample_kernel_sizes
        fits = len(rates) == len(kernels) and all(
            k >= u and (k - u) % 2 == 0 for u, k in zip(rates, kernels, strict=False)
        )
        if not rates or not fits:
            raise ValueError(
                "`upsample_kernel_sizes` must hold a kernel per stride of `upsample_rates`, larger by an even number, "
                f"got {kernels} for {rates}."
            )
        if self.base_channels < 2 ** len(rates):
            raise ValueError(
                f"`base_channels` must be at least {2 ** len(rates)} (halved by each upsampling), got "
                f"{self.base_channels}."
            )
        # A window begins with zero: without overlap, its first sample would have no weight.
        if self.istft_n_fft % 2 or not 0 < self.istft_hop_len < self.istft_n_fft:
            raise ValueError(
                f"`istft_n_fft` must be even and larger than `istft_hop_len={self.istft_hop_len}`, which must be "
                f"positive, got {self.istft_n_fft}."
            )

    def _check_residual_blocks(self) -> None:
        pairs = {
            "resblock": (self.resblock_kernel_sizes, self.resblock_dilation_sizes, None),
            "source_resblock": (
                self.source_resblock_kernel_sizes,
                self.source_resblock_dilation_sizes,
                len(self.upsample_rates),
            ),
        }
        for name, (kernels, dilations, count) in pairs.items():
            if not kernels or len(kernels) != len(dilations) or any(kernel % 2 == 0 for kernel in kernels):
                raise ValueError(
                    f"`{name}_kernel_sizes` must list odd kernels, one per entry of `{name}_dilation_sizes`, got "
                    f"{kernels} and {dilations}."
                )
            if count is not None and len(kernels) != count:
                raise ValueError(
                    f"`{name}_kernel_sizes` must list {count} kernels, one per upsampling, got {kernels}."
                )

    @property
    def hop_length(self) -> int:
        """Samples per mel frame."""
        return math.prod(self.upsample_rates) * self.istft_hop_len

    @property
    def source_strides(self) -> list[int]:
        """Steps of the source's spectrum per step of each stage."""
        return [math.prod(self.upsample_rates[stage + 1 :]) for stage in range(len(self.upsample_rates))]

    @property
    def context_frames(self) -> int:
        """Frames on each side beyond which nothing reaches a frame's samples, given the source."""

        def reach(kernel: int, dilations: list[int]) -> int:
            return sum((kernel - 1) // 2 * (dilation + 1) for dilation in dilations)

        blocks = max(map(reach, self.resblock_kernel_sizes, self.resblock_dilation_sizes))
        frames, furthest_source, rate = 3.0, 0.0, 1
        for stage, (stride, kernel) in enumerate(zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True)):
            frames += (kernel - stride) / 2 / stride / rate + 1 / (rate * stride)
            rate *= stride
            source = reach(self.source_resblock_kernel_sizes[stage], self.source_resblock_dilation_sizes[stage])
            # A strided convolution of the spectrum sees one step of this stage, a window two of its own steps.
            entering = source / rate + 1 / rate + (self.istft_n_fft / self.istft_hop_len / 2) / self._steps_per_frame
            furthest_source = max(furthest_source, entering) + blocks / rate
            frames += blocks / rate
        closing = (3 + self.istft_n_fft / self.istft_hop_len) / rate
        return math.ceil(max(frames, furthest_source) + closing)

    @property
    def _steps_per_frame(self) -> int:
        return math.prod(self.upsample_rates)

    @property
    def look_ahead_frames(self) -> int:
        """Frames after a frame that an exact stream waits for: the pitch predictor's reach and `context_frames`."""
        return self.context_frames + self.f0_predictor_layers


__all__ = ["HiFTNetConfig"]
