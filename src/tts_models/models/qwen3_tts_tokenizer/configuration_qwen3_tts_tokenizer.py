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
"""Qwen3-TTS tokenizer (12 Hz) model configuration."""

import math

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Mimi's, whatever the frame rate: only the kernel follows that.
DOWNSAMPLE_STRIDE = 2


# trf-ignore: TRF057
@strict
class Qwen3TTSTokenizerEncoderConfig(PreTrainedConfig):
    r"""
    Configuration of the encoder of a [`Qwen3TTSTokenizerModel`], which is that of Mimi: a strided convolution network,
    a causal transformer, a strided convolution and a split residual quantizer. The fields mean what they mean in
    [`~transformers.MimiConfig`]; the defaults are those of the released codec.

    Args:
        sampling_rate (`int`, defaults to 24000): Sampling rate of the audio, in Hz.
        frame_rate (`float`, *optional*): Codes of each quantizer per second; what the strides make of `sampling_rate`
            when absent, 12.5 for the defaults.
        audio_channels (`int`, defaults to 1): Channels of the audio.
        num_filters (`int`, defaults to 64): Channels after the first convolution; doubled by each block.
        upsampling_ratios (`list[int]`, defaults to `[8, 6, 5, 4]`): Strides of the blocks, last block first.
        kernel_size, residual_kernel_size, last_kernel_size (`int`, defaults to 7, 3 and 3): Kernels.
        num_residual_layers (`int`, defaults to 1): Residual units per block.
        dilation_growth_rate (`int`, defaults to 2): Factor of the dilation from one residual unit to the next.
        compress (`int`, defaults to 2): Factor by which a residual unit narrows its channels.
        use_causal_conv (`bool`, defaults to `True`): Whether no convolution looks ahead.
        use_conv_shortcut (`bool`, defaults to `False`): Whether a residual unit's shortcut has a convolution.
        pad_mode (`str`, defaults to `"constant"`): How the convolutions pad.
        hidden_size (`int`, defaults to 512): Channels of the latent, and width of the transformer.
        intermediate_size (`int`, defaults to 2048): Width of the transformer's feed-forward layers.
        num_hidden_layers (`int`, defaults to 8): Transformer layers.
        num_attention_heads (`int`, defaults to 8): Attention heads.
        num_key_value_heads (`int`, defaults to 8): Key and value heads.
        head_dim (`int`, *optional*): Dimension of a head; `hidden_size // num_attention_heads` when absent.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the feed-forward layers.
        norm_eps (`float`, defaults to 1e-5): Epsilon of the layer norms.
        layer_scale_initial_scale (`float`, defaults to 0.01): First value of the layer scales.
        attention_bias (`bool`, defaults to `False`): Whether the attention's projections have a bias.
        attention_dropout (`float`, defaults to 0.0): Dropout of the attention weights in training.
        max_position_embeddings (`int`, defaults to 8000): Positions that the released codec was made for.
        rope_parameters (`dict`, *optional*): Rotary embedding; base 10000 when absent.
        sliding_window (`int`, defaults to 250): Steps that a step sees, itself included, where
            `encoder_use_sliding_window` is set.
        initializer_range (`float`, defaults to 0.02): Standard deviation of freshly initialised linear layers.
        num_quantizers (`int`, defaults to 32): Codebooks, semantic ones included.
        num_semantic_quantizers (`int`, defaults to 1): Codebooks of the semantic branch.
        codebook_size (`int`, defaults to 2048): Entries per codebook.
        codebook_dim (`int`, defaults to 256): Dimension of a codebook entry. Where it is `hidden_size`, the latent is
            quantized as it is, without projections.
    """

    model_type = "qwen3_tts_tokenizer_encoder"
    base_config_key = "encoder_config"

    sampling_rate: int = 24000
    frame_rate: float | int | None = None
    audio_channels: int = 1
    num_filters: int = 64
    upsampling_ratios: list[int] | tuple[int, ...] = (8, 6, 5, 4)
    kernel_size: int = 7
    residual_kernel_size: int = 3
    last_kernel_size: int = 3
    num_residual_layers: int = 1
    dilation_growth_rate: int = 2
    compress: int = 2
    use_causal_conv: bool = True
    use_conv_shortcut: bool = False
    pad_mode: str = "constant"
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_key_value_heads: int = 8
    head_dim: int | None = None
    hidden_act: str = "gelu"
    norm_eps: float = 1e-5
    layer_scale_initial_scale: float = 0.01
    attention_bias: bool = False
    attention_dropout: float | int = 0.0
    max_position_embeddings: int = 8000
    rope_parameters: RopeParameters | dict | None = None
    sliding_window: int = 250
    initializer_range: float = 0.02
    num_quantizers: int = 32
    num_semantic_quantizers: int = 1
    codebook_size: int = 2048
    codebook_dim: int = 256

    def __post_init__(self, **kwargs):
        self.upsampling_ratios = list(self.upsampling_ratios)
        # Mimi's configuration saves its frame rate under this name.
        self.frame_rate = kwargs.pop("_frame_rate", None) or self.frame_rate
        if self.frame_rate is None:
            self.frame_rate = self.sampling_rate / self.samples_per_frame
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)

    @property
    def downsample_kernel_size(self) -> int:
        """Kernel of the convolution between transformer and quantizer."""
        steps_per_second = math.ceil(self.sampling_rate / math.prod(self.upsampling_ratios))
        return 2 * int(steps_per_second / self.frame_rate)

    @property
    def samples_per_frame(self) -> int:
        """Samples per code."""
        return math.prod(self.upsampling_ratios) * DOWNSAMPLE_STRIDE


# trf-ignore: TRF057
@strict
class Qwen3TTSTokenizerDecoderConfig(PreTrainedConfig):
    r"""
    Configuration of the decoder of a [`Qwen3TTSTokenizerModel`]. The defaults are those of the released codec.

    Args:
        codebook_size (`int`, defaults to 2048): Entries per codebook.
        codebook_dim (`int`, defaults to 512): Channels of the dequantized codes; the codebooks have half of it.
        num_quantizers (`int`, defaults to 16): Codebooks, the first of which has a branch of its own.
        latent_dim (`int`, defaults to 1024): Channels between the codes and the convolution stack.
        hidden_size (`int`, defaults to 512): Width of the transformer.
        intermediate_size (`int`, defaults to 1024): Width of the transformer's feed-forward layers.
        num_hidden_layers (`int`, defaults to 8): Transformer layers.
        num_attention_heads (`int`, defaults to 16): Attention heads.
        num_key_value_heads (`int`, defaults to 16): Key and value heads.
        head_dim (`int`, defaults to 64): Dimension of a head.
        hidden_act (`str`, defaults to `"silu"`): Activation of the feed-forward layers.
        rms_norm_eps (`float`, defaults to 1e-5): Epsilon of the norms.
        layer_scale_initial_scale (`float`, defaults to 0.01): First value of the layer scales.
        attention_bias (`bool`, defaults to `False`): Whether the attention's projections have a bias.
        attention_dropout (`float`, defaults to 0.0): Dropout of the attention weights in training.
        max_position_embeddings (`int`, defaults to 8000): Positions that the released codec was made for.
        rope_parameters (`dict`, *optional*): Rotary embedding; base 10000 when absent.
        sliding_window (`int`, defaults to 72): Frames that a frame sees in every layer, itself included.
        initializer_range (`float`, defaults to 0.02): Standard deviation of freshly initialised linear layers.
        upsampling_ratios (`list[int]`, defaults to `[2, 2]`): Strides of the ConvNeXt stages.
        decoder_dim (`int`, defaults to 1536): Channels entering the convolution stack; halved by each block, an odd
            one left out.
        upsample_rates (`list[int]`, defaults to `[8, 5, 4, 3]`): Strides of the convolution stack's blocks.
    """

    model_type = "qwen3_tts_tokenizer_decoder"
    base_config_key = "decoder_config"

    codebook_size: int = 2048
    codebook_dim: int = 512
    num_quantizers: int = 16
    latent_dim: int = 1024
    hidden_size: int = 512
    intermediate_size: int = 1024
    num_hidden_layers: int = 8
    num_attention_heads: int = 16
    num_key_value_heads: int = 16
    head_dim: int = 64
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-5
    layer_scale_initial_scale: float = 0.01
    attention_bias: bool = False
    attention_dropout: float | int = 0.0
    max_position_embeddings: int = 8000
    rope_parameters: RopeParameters | dict | None = None
    sliding_window: int = 72
    initializer_range: float = 0.02
    upsampling_ratios: list[int] | tuple[int, ...] = (2, 2)
    decoder_dim: int = 1536
    upsample_rates: list[int] | tuple[int, ...] = (8, 5, 4, 3)

    def __post_init__(self, **kwargs):
        self.upsampling_ratios = list(self.upsampling_ratios)
        self.upsample_rates = list(self.upsample_rates)
        super().__post_init__(**kwargs)
        if self.decoder_dim < 2 ** len(self.upsample_rates):
            raise ValueError(
                f"`decoder_dim` must be at least {2 ** len(self.upsample_rates)} (halved by each block), "
                f"got {self.decoder_dim}."
            )

    @property
    def samples_per_frame(self) -> int:
        """Samples per frame of codes."""
        return math.prod(self.upsampling_ratios) * math.prod(self.upsample_rates)


# trf-ignore: TRF057
@strict
class Qwen3TTSTokenizerConfig(PreTrainedConfig):
    r"""
    Configuration of a [`Qwen3TTSTokenizerModel`], the codec of Qwen3-TTS: 16 codes per frame of 80 ms at 24 kHz. The
    defaults are those of the released `Qwen/Qwen3-TTS-Tokenizer-12Hz`, whose `config.json` has the same layout.

    Args:
        encoder_config (`dict` or [`Qwen3TTSTokenizerEncoderConfig`], *optional*): The encoder.
        decoder_config (`dict` or [`Qwen3TTSTokenizerDecoderConfig`], *optional*): The decoder.
        encoder_valid_num_quantizers (`int`, defaults to 16): Codebooks of the encoder whose codes are kept, if it has
            so many.
        input_sample_rate (`int`, defaults to 24000): Sampling rate of the audio to encode, in Hz.
        output_sample_rate (`int`, defaults to 24000): Sampling rate of the decoded audio, in Hz.
        encode_downsample_rate (`int`, defaults to 1920): Input samples that a frame of codes is kept for. It should be
            the product of the encoder's strides: a larger number drops frames from the end, as in upstream's package.
        decode_upsample_rate (`int`, defaults to 1920): Samples that a frame contributes to a row's length. It should
            be the product of the decoder's strides: with a smaller number rows are cut short, with a larger one they
            reach into the padding, as in upstream's package.
        encoder_use_sliding_window (`bool`, defaults to `False`): Whether the encoder's attention sees
            `encoder_config.sliding_window` steps (10 s) only, as in Mimi. The released codec runs without.
        commitment_loss_weight (`float`, defaults to 0.25): Weight of the commitment loss in
            `Qwen3TTSTokenizerOutput.loss`.

    Example:

    ```python
    >>> from tts_models import Qwen3TTSTokenizerConfig

    >>> config = Qwen3TTSTokenizerConfig()
    >>> config.frame_rate, config.num_codebooks, config.samples_per_frame
    (12.5, 16, 1920)
    ```
    """

    model_type = "qwen3_tts_tokenizer_12hz"
    sub_configs = {
        "encoder_config": Qwen3TTSTokenizerEncoderConfig,
        "decoder_config": Qwen3TTSTokenizerDecoderConfig,
    }

    encoder_config: dict | PreTrainedConfig | None = None
    decoder_config: dict | PreTrainedConfig | None = None
    encoder_valid_num_quantizers: int = 16
    input_sample_rate: int = 24000
    output_sample_rate: int = 24000
    encode_downsample_rate: int = 1920
    decode_upsample_rate: int = 1920
    encoder_use_sliding_window: bool = False
    commitment_loss_weight: float = 0.25

    def __post_init__(self, **kwargs):
        for name, config_class in self.sub_configs.items():
            value = getattr(self, name)
            if not isinstance(value, PreTrainedConfig):
                setattr(self, name, config_class(**(value or {})))
        super().__post_init__(**kwargs)
        self._check_parts()

    def _check_parts(self) -> None:
        encoder, decoder = self.encoder_config, self.decoder_config
        for name, rate, part in (
            ("encode_downsample_rate", self.encode_downsample_rate, encoder),
            ("decode_upsample_rate", self.decode_upsample_rate, decoder),
        ):
            if rate < 1:
                raise ValueError(f"`{name}` must be at least 1, got {rate}.")
            if rate != part.samples_per_frame:
                logger.warning(
                    f"`{name}` is {rate}, but the strides of `{part.base_config_key}` make {part.samples_per_frame} "
                    f"samples per frame: rows will end early or late."
                )
        kept = self.encoder_valid_num_quantizers
        if min(kept, encoder.num_quantizers) != decoder.num_quantizers:
            raise ValueError(
                f"`encoder_valid_num_quantizers` must keep the {decoder.num_quantizers} codebooks of the decoder, "
                f"got {kept} of the encoder's {encoder.num_quantizers}."
            )
        if encoder.codebook_size != decoder.codebook_size:
            raise ValueError(
                f"`codebook_size` must be the same in `encoder_config` and `decoder_config`, "
                f"got {encoder.codebook_size} and {decoder.codebook_size}."
            )

    @property
    def sampling_rate(self) -> int:
        """Sampling rate of the decoded audio, in Hz."""
        return self.output_sample_rate

    @property
    def num_codebooks(self) -> int:
        """Codes per frame."""
        return self.decoder_config.num_quantizers

    @property
    def codebook_size(self) -> int:
        """Entries per codebook."""
        return self.decoder_config.codebook_size

    @property
    def samples_per_frame(self) -> int:
        """Output samples per frame."""
        return self.decoder_config.samples_per_frame

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.output_sample_rate / self.samples_per_frame


__all__ = [
    "DOWNSAMPLE_STRIDE",
    "Qwen3TTSTokenizerConfig",
    "Qwen3TTSTokenizerDecoderConfig",
    "Qwen3TTSTokenizerEncoderConfig",
]
