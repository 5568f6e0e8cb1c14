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
"""SNAC model configuration."""

import math

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig


# trf-ignore: TRF057
@strict
class SnacConfig(PreTrainedConfig):
    r"""
    Configuration of a [`SnacModel`], the multi-scale neural audio codec of the `snac` package. The defaults are those
    of the released 24 kHz speech codec.

    Args:
        sampling_rate (`int`, defaults to 24000): Sampling rate of the audio, in Hz.
        encoder_hidden_size (`int`, defaults to 48): Channels after the first encoder convolution; doubled by each
            block.
        downsampling_ratios (`list[int]`, defaults to `[2, 4, 8, 8]`): Stride of each encoder block.
        decoder_hidden_size (`int`, defaults to 1024): Channels entering the decoder blocks; halved by each block,
            rounded down.
        upsampling_ratios (`list[int]`, *optional*): Stride of each decoder block. Defaults to `downsampling_ratios`
            reversed.
        hidden_size (`int`, *optional*): Channels of the latent. Defaults to
            `encoder_hidden_size * 2 ** len(downsampling_ratios)`.
        attention_window_size (`int`, *optional*): Latent steps per window of the local attention on both sides of the
            quantizer (32 in the released 32 and 44.1 kHz codecs). `None` leaves the attention out.
        codebook_size (`int`, defaults to 4096): Entries per codebook.
        codebook_dim (`int`, defaults to 8): Dimension of a codebook entry.
        vq_strides (`list[int]`, defaults to `[4, 2, 1]`): Latent steps per code of each quantizer, coarsest first.
            Each divides the first, and the last is 1 in every released codec.
        use_noise (`bool`, defaults to `True`): Whether every decoder block adds noise scaled by its own activations.
        depthwise (`bool`, defaults to `True`): Whether the residual units use depthwise convolutions.
        initializer_range (`float`, defaults to 0.02): Standard deviation of freshly initialised convolutions.
        commitment_loss_weight (`float`, defaults to 0.25): Weight of the commitment loss in `SnacOutput.loss`.
        codebook_loss_weight (`float`, defaults to 1.0): Weight of the codebook loss in `SnacOutput.loss`.

    Example:

    ```python
    >>> from tts_models import SnacConfig, SnacModel

    >>> model = SnacModel(SnacConfig())
    >>> model.config.hop_length, model.config.samples_per_frame, model.config.tokens_per_frame
    (512, 2048, 7)
    ```
    """

    model_type = "snac"

    sampling_rate: int = 24000
    encoder_hidden_size: int = 48
    downsampling_ratios: list[int] | tuple[int, ...] = (2, 4, 8, 8)
    decoder_hidden_size: int = 1024
    upsampling_ratios: list[int] | tuple[int, ...] | None = None
    hidden_size: int | None = None
    attention_window_size: int | None = None
    codebook_size: int = 4096
    codebook_dim: int = 8
    vq_strides: list[int] | tuple[int, ...] = (4, 2, 1)
    use_noise: bool = True
    depthwise: bool = True
    initializer_range: float = 0.02
    commitment_loss_weight: float = 0.25
    codebook_loss_weight: float = 1.0

    def __post_init__(self, **kwargs):
        self.downsampling_ratios = list(self.downsampling_ratios)
        self.vq_strides = list(self.vq_strides)
        if self.upsampling_ratios is None:
            self.upsampling_ratios = self.downsampling_ratios[::-1]
        self.upsampling_ratios = list(self.upsampling_ratios)
        if self.hidden_size is None:
            self.hidden_size = self.encoder_hidden_size * 2 ** len(self.downsampling_ratios)
        super().__post_init__(**kwargs)
        self._check_ratios()

    def _check_ratios(self) -> None:
        for name in ("downsampling_ratios", "upsampling_ratios"):
            ratios = getattr(self, name)
            if not ratios or min(ratios) < 2:  # a stride of 1 would lengthen the signal by a sample
                raise ValueError(f"`{name}` must list strides of at least 2, got {ratios}.")
        if math.prod(self.upsampling_ratios) != self.hop_length:
            raise ValueError(
                f"`upsampling_ratios` must multiply to the hop length {self.hop_length} of `downsampling_ratios`, "
                f"got {self.upsampling_ratios}."
            )
        strides = self.vq_strides
        if not strides or min(strides) < 1 or any(strides[0] % stride for stride in strides):
            raise ValueError(f"`vq_strides` must list strides that each divide the first, got {strides}.")
        if self.decoder_hidden_size < 2 ** len(self.upsampling_ratios):
            raise ValueError(
                f"`decoder_hidden_size` must be at least {2 ** len(self.upsampling_ratios)} (halved and rounded down "
                f"by each decoder block), got {self.decoder_hidden_size}."
            )

    @property
    def hop_length(self) -> int:
        """Samples per latent step."""
        return math.prod(self.downsampling_ratios)

    @property
    def num_codebooks(self) -> int:
        """Number of residual quantizers."""
        return len(self.vq_strides)

    @property
    def samples_per_frame(self) -> int:
        """Samples per frame, a frame being one code of the coarsest quantizer."""
        return self.hop_length * self.vq_strides[0]

    @property
    def tokens_per_frame(self) -> int:
        """Codes of all quantizers in one frame (7 for strides `[4, 2, 1]`)."""
        return sum(self.vq_strides[0] // stride for stride in self.vq_strides)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sampling_rate / self.samples_per_frame

    @property
    def pad_to_multiple_of(self) -> int:
        """Number of samples that an encoder input must be a multiple of."""
        return self.hop_length * math.lcm(self.vq_strides[0], self.attention_window_size or 1)


__all__ = ["SnacConfig"]
