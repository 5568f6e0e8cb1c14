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
"""SNAC: a multi-scale neural audio codec (Siuzdak et al., 2024; upstream package `snac`)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedAudioTokenizerBase
from transformers.models.dac.modeling_dac import Snake1d
from transformers.utils import ModelOutput, can_return_tuple

from ...acceleration.attention import eager_attention_forward
from ...loading import CompleteCheckpointMixin
from ...streaming.generators import RowGenerators, resolve_row_generators
from ...weight_norm import apply_weight_norm, remove_weight_norm
from .configuration_snac import SnacConfig
from .streaming_snac import SnacDecoderStream, draw_decoder_noise


# trf-ignore: TRF057
@dataclass
class SnacEncoderOutput(ModelOutput):
    r"""
    Output of [`SnacModel.encode`].

    audio_codes (`tuple(torch.LongTensor)` of shape `(batch, frames * codes_per_frame)` each):
        Codebook indices, one tensor per quantizer, coarsest first.
    quantized_representation (`torch.FloatTensor` of shape `(batch, hidden_size, latent_steps)`):
        Sum of the quantizers' outputs, what the decoder takes.
    code_lengths (`tuple(torch.LongTensor)` of shape `(batch,)` each):
        Valid codes per row and quantizer; the rest is zero.
    latents (`torch.FloatTensor` of shape `(batch, hidden_size, latent_steps)`):
        Output of the encoder before quantization.
    commitment_loss, codebook_loss (`torch.FloatTensor` of shape `()`):
        Losses of the quantizers, summed over the levels.
    """

    audio_codes: tuple[torch.LongTensor, ...] | None = None
    quantized_representation: torch.FloatTensor | None = None
    code_lengths: tuple[torch.LongTensor, ...] | None = None
    latents: torch.FloatTensor | None = None
    commitment_loss: torch.FloatTensor | None = None
    codebook_loss: torch.FloatTensor | None = None


# trf-ignore: TRF057
@dataclass
class SnacDecoderOutput(ModelOutput):
    r"""
    Output of [`SnacModel.decode`].

    audio_values (`torch.FloatTensor` of shape `(batch, samples)`): Waveform in (-1, 1), zero-padded after a row's end.
    audio_lengths (`torch.LongTensor` of shape `(batch,)`): Valid samples per row.
    """

    audio_values: torch.FloatTensor | None = None
    audio_lengths: torch.LongTensor | None = None


# trf-ignore: TRF057
@dataclass
class SnacOutput(ModelOutput):
    r"""
    Output of [`SnacModel`].

    loss (`torch.FloatTensor` of shape `()`): Weighted sum of the quantizers' commitment and codebook losses.
    audio_values (`torch.FloatTensor` of shape `(batch, samples)`): Reconstruction, as long as the input.
    audio_codes (`tuple(torch.LongTensor)`): As in [`SnacEncoderOutput`].
    commitment_loss, codebook_loss (`torch.FloatTensor` of shape `()`): The two parts of the loss, unweighted.
    """

    loss: torch.FloatTensor | None = None
    audio_values: torch.FloatTensor | None = None
    audio_codes: tuple[torch.LongTensor, ...] | None = None
    commitment_loss: torch.FloatTensor | None = None
    codebook_loss: torch.FloatTensor | None = None


class SnacResidualUnit(nn.Module):
    """Snake, dilated convolution, Snake, pointwise convolution, added to the input."""

    def __init__(self, channels: int, dilation: int, groups: int):
        super().__init__()
        self.snake1 = Snake1d(channels)
        self.conv1 = nn.Conv1d(channels, channels, 7, padding=3 * dilation, dilation=dilation, groups=groups)
        self.snake2 = Snake1d(channels)
        self.conv2 = nn.Conv1d(channels, channels, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.conv2(self.snake2(self.conv1(self.snake1(hidden_states))))


class SnacEncoderBlock(nn.Module):
    """Three residual units, then a strided convolution that doubles the channels."""

    def __init__(self, config: SnacConfig, channels: int, stride: int):
        super().__init__()
        # CODEPATH: depthwise in the released 24, 32 and 44.1 kHz codecs, dense in codecs trained without.
        groups = channels if config.depthwise else 1
        self.res_unit1 = SnacResidualUnit(channels, dilation=1, groups=groups)
        self.res_unit2 = SnacResidualUnit(channels, dilation=3, groups=groups)
        self.res_unit3 = SnacResidualUnit(channels, dilation=9, groups=groups)
        self.snake1 = Snake1d(channels)
        self.conv1 = nn.Conv1d(channels, 2 * channels, 2 * stride, stride=stride, padding=math.ceil(stride / 2))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.res_unit3(self.res_unit2(self.res_unit1(hidden_states)))
        return self.conv1(self.snake1(hidden_states))


class SnacNoiseBlock(nn.Module):
    """Adds noise, one value per time step for all channels, scaled by a linear map of the activations."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Conv1d(channels, channels, 1, bias=False)

    def forward(self, hidden_states: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return hidden_states + noise * self.linear(hidden_states)


class SnacDecoderBlock(nn.Module):
    """Transposed convolution that halves the channels, noise, then three residual units."""

    def __init__(self, config: SnacConfig, channels: int, stride: int):
        super().__init__()
        out_channels = channels // 2
        # CODEPATH: depthwise in the released 24, 32 and 44.1 kHz codecs, dense in codecs trained without.
        groups = out_channels if config.depthwise else 1
        self.snake1 = Snake1d(channels)
        self.conv_t1 = nn.ConvTranspose1d(
            channels,
            out_channels,
            2 * stride,
            stride=stride,
            padding=math.ceil(stride / 2),
            output_padding=stride % 2,
        )
        # CODEPATH: noise in the released 24, 32 and 44.1 kHz codecs, none in codecs trained without.
        self.noise = SnacNoiseBlock(out_channels) if config.use_noise else None
        self.res_unit1 = SnacResidualUnit(out_channels, dilation=1, groups=groups)
        self.res_unit2 = SnacResidualUnit(out_channels, dilation=3, groups=groups)
        self.res_unit3 = SnacResidualUnit(out_channels, dilation=9, groups=groups)

    def forward(self, hidden_states: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        hidden_states = self.conv_t1(self.snake1(hidden_states))
        if self.noise is not None and noise is not None:
            hidden_states = self.noise(hidden_states, noise)
        return self.res_unit3(self.res_unit2(self.res_unit1(hidden_states)))


def rotate_half(hidden_states: torch.Tensor) -> torch.Tensor:
    first, second = hidden_states.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


class SnacLocalAttention(nn.Module):
    """Self-attention inside non-overlapping windows, with rotary positions that restart in every window."""

    head_dim = 64

    def __init__(self, config: SnacConfig, channels: int):
        super().__init__()
        self.config = config
        self.window_size = config.attention_window_size
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.norm = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.to_out = nn.Linear(channels, channels, bias=False)

    def rotary_embedding(self, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        exponents = torch.arange(0, self.head_dim, 2, device=device, dtype=torch.float32) / self.head_dim
        positions = torch.arange(self.window_size, device=device, dtype=torch.float32)
        angles = torch.outer(positions, 1.0 / 10000**exponents).repeat(1, 2)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        batch_size, channels, steps = hidden_states.shape
        if steps % self.window_size:
            raise ValueError(
                f"The local attention works on whole windows: the number of latent steps must be a multiple of "
                f"`attention_window_size={self.window_size}`, got {steps}."
            )
        windows = self.norm(hidden_states.transpose(1, 2)).reshape(-1, self.window_size, channels)
        shape = (*windows.shape[:2], -1, self.head_dim)
        query, key, value = (part.view(shape).transpose(1, 2) for part in self.to_qkv(windows).chunk(3, dim=-1))
        cos, sin = self.rotary_embedding(query.device, query.dtype)
        query = query * cos + rotate_half(query) * sin
        key = key * cos + rotate_half(key) * sin
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention_interface(self, query, key, value, None, scaling=self.scaling, is_causal=False)
        output = self.to_out(output.reshape(batch_size, steps, channels))
        return hidden_states + output.transpose(1, 2)


class SnacEncoder(nn.Module):
    """Waveform (batch, 1, samples) to latents (batch, hidden_size, samples / hop_length)."""

    def __init__(self, config: SnacConfig):
        super().__init__()
        channels = [config.encoder_hidden_size * 2**i for i in range(len(config.downsampling_ratios) + 1)]
        self.conv1 = nn.Conv1d(1, channels[0], 7, padding=3)
        self.block = nn.ModuleList(
            SnacEncoderBlock(config, width, stride)
            for width, stride in zip(channels, config.downsampling_ratios, strict=False)
        )
        # CODEPATH: attention in the released 32 and 44.1 kHz codecs, none in the 24 kHz codec.
        self.attention = SnacLocalAttention(config, channels[-1]) if config.attention_window_size else None
        # CODEPATH: depthwise in the released 24, 32 and 44.1 kHz codecs, dense in codecs trained without.
        groups = math.gcd(channels[-1], config.hidden_size) if config.depthwise else 1
        self.conv2 = nn.Conv1d(channels[-1], config.hidden_size, 7, padding=3, groups=groups)

    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        hidden_states = self.conv1(input_values)
        for block in self.block:
            hidden_states = block(hidden_states)
        if self.attention is not None:
            hidden_states = self.attention(hidden_states)
        return self.conv2(hidden_states)


class SnacDecoder(nn.Module):
    """Latents (batch, hidden_size, steps) to waveform (batch, 1, steps * hop_length) in (-1, 1)."""

    def __init__(self, config: SnacConfig):
        super().__init__()
        width = config.decoder_hidden_size
        # CODEPATH: depthwise in the released 24, 32 and 44.1 kHz codecs, dense in codecs trained without.
        if config.depthwise:
            self.conv1 = nn.Conv1d(config.hidden_size, config.hidden_size, 7, padding=3, groups=config.hidden_size)
            self.conv_pointwise = nn.Conv1d(config.hidden_size, width, 1)
        else:
            self.conv1 = nn.Conv1d(config.hidden_size, width, 7, padding=3)
            self.conv_pointwise = None
        # CODEPATH: attention in the released 32 and 44.1 kHz codecs, none in the 24 kHz codec.
        self.attention = SnacLocalAttention(config, width) if config.attention_window_size else None
        self.block = nn.ModuleList(
            SnacDecoderBlock(config, width // 2**i, stride) for i, stride in enumerate(config.upsampling_ratios)
        )
        width = width // 2 ** len(config.upsampling_ratios)
        self.snake1 = Snake1d(width)
        self.conv2 = nn.Conv1d(width, 1, 7, padding=3)

    def forward(self, hidden_states: torch.Tensor, noise: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
        hidden_states = self.conv1(hidden_states)
        if self.conv_pointwise is not None:
            hidden_states = self.conv_pointwise(hidden_states)
        if self.attention is not None:
            hidden_states = self.attention(hidden_states)
        for i, block in enumerate(self.block):
            hidden_states = block(hidden_states, None if noise is None else noise[i])
        return torch.tanh(self.conv2(self.snake1(hidden_states)))


class SnacVectorQuantizer(nn.Module):
    """One residual level: nearest codebook row of the L2-normalised projection, one code per `stride` latent steps."""

    def __init__(self, config: SnacConfig, stride: int):
        super().__init__()
        self.stride = stride
        self.in_proj = nn.Conv1d(config.hidden_size, config.codebook_dim, 1)
        self.out_proj = nn.Conv1d(config.codebook_dim, config.hidden_size, 1)
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)

    def nearest_codes(self, projected: torch.Tensor) -> torch.LongTensor:
        """Indices (batch, steps) of the codebook rows nearest to `projected` (batch, codebook_dim, steps)."""
        vectors = F.normalize(projected.transpose(1, 2).reshape(-1, projected.shape[1]))
        rows = F.normalize(self.codebook.weight)
        # The order of the terms fixes the rounding, and with it the choice between near ties, to upstream's.
        distances = vectors.pow(2).sum(1, keepdim=True) - 2 * vectors @ rows.t() + rows.pow(2).sum(1, keepdim=True).t()
        return (-distances).max(1)[1].view(projected.shape[0], -1)

    def decode_codes(self, codes: torch.LongTensor) -> torch.Tensor:
        """Latents (batch, hidden_size, codes * stride) of the indices (batch, codes)."""
        return self.out_proj(self.codebook(codes).transpose(1, 2)).repeat_interleave(self.stride, dim=-1)

    def forward(
        self, hidden_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.LongTensor, torch.Tensor, torch.Tensor]:
        if self.stride > 1:
            hidden_states = F.avg_pool1d(hidden_states, self.stride, self.stride)
        projected = self.in_proj(hidden_states)
        codes = self.nearest_codes(projected)
        quantized = self.codebook(codes).transpose(1, 2)
        commitment_loss = F.mse_loss(projected, quantized.detach())
        codebook_loss = F.mse_loss(quantized, projected.detach())
        # Straight-through estimator: the gradient passes the rounding as if it were the identity.
        quantized = self.out_proj(projected + (quantized - projected).detach())
        return quantized.repeat_interleave(self.stride, dim=-1), codes, commitment_loss, codebook_loss


class SnacResidualVectorQuantizer(nn.Module):
    """Quantizers at different rates, each working on what the ones before it left."""

    def __init__(self, config: SnacConfig):
        super().__init__()
        self.quantizers = nn.ModuleList(SnacVectorQuantizer(config, stride) for stride in config.vq_strides)

    def forward(
        self, latents: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.LongTensor, ...], torch.Tensor, torch.Tensor]:
        residual, quantized, codes, losses = latents, torch.zeros_like(latents), [], []
        for quantizer in self.quantizers:
            level, level_codes, *level_losses = quantizer(residual)
            quantized, residual = quantized + level, residual - level
            codes.append(level_codes)
            losses.append(torch.stack(level_losses))
        commitment_loss, codebook_loss = torch.stack(losses).sum(0)
        return quantized, tuple(codes), commitment_loss, codebook_loss

    def from_codes(self, audio_codes: Sequence[torch.LongTensor]) -> torch.Tensor:
        if audio_codes[0].shape[-1] == 0:  # convolutions refuse an empty signal
            bias = self.quantizers[0].out_proj.bias
            return bias.new_zeros(audio_codes[0].shape[0], bias.shape[0], 0)
        levels = [quantizer.decode_codes(codes) for quantizer, codes in zip(self.quantizers, audio_codes, strict=True)]
        return torch.stack(levels).sum(0)


class SnacPreTrainedModel(CompleteCheckpointMixin, PreTrainedAudioTokenizerBase):
    """Base class: configuration, initialisation and weight normalisation shared by SNAC models."""

    config: SnacConfig
    config_class = SnacConfig
    conversion_script = "convert_snac_to_hf.py"
    base_model_prefix = "snac"
    main_input_name = "input_values"
    input_modalities = "audio"
    _no_split_modules = ["SnacResidualUnit"]
    _supports_sdpa = True
    _supports_flash_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.ConvTranspose1d):
            module.reset_parameters()
        elif isinstance(module, nn.Conv1d):
            # Variance-preserving: a codec is deep and its convolutions are narrow, a fixed small deviation fades out.
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Snake1d):
            init.ones_(module.alpha)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, mean=0.0, std=1.0)

    def apply_weight_norm(self) -> None:
        """Split every convolution's weight into magnitude and direction, the form that upstream trains."""
        apply_weight_norm(self.modules())

    def remove_weight_norm(self) -> None:
        """Fuse magnitude and direction back into plain weights, the form that is stored."""
        remove_weight_norm(self.modules())


# trf-ignore: TRF057
class SnacModel(SnacPreTrainedModel):
    r"""
    The SNAC codec: waveform → latents → codes at several rates → latents → waveform.

    The decoder adds noise scaled by its own activations, in evaluation too. `decode` takes the noise itself, or one
    `torch.Generator` per row from which every latent step draws its own values: however an utterance is split or
    batched, a row's generator gives the same waveform. `noise_scale=0` makes the decoder deterministic.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import SnacConfig, SnacModel

    >>> model = SnacModel(SnacConfig(encoder_hidden_size=8, decoder_hidden_size=64, codebook_size=64)).eval()
    >>> codes = model.encode(torch.zeros(1, 1, 4096)).audio_codes
    >>> [tuple(level.shape) for level in codes]
    [(1, 2), (1, 4), (1, 8)]
    >>> model.decode(codes, generator=torch.Generator().manual_seed(0)).audio_values.shape
    torch.Size([1, 4096])
    ```
    """

    def __init__(self, config: SnacConfig):
        super().__init__(config)
        self.encoder = SnacEncoder(config)
        self.quantizer = SnacResidualVectorQuantizer(config)
        self.decoder = SnacDecoder(config)
        self.post_init()

    @can_return_tuple
    def encode(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
    ) -> SnacEncoderOutput:
        r"""
        Encode waveforms. Each row is padded with zeros to the multiple of `config.pad_to_multiple_of` samples that its
        own length asks for and encoded as if alone, so its codes do not depend on the batch.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch, 1, samples)` or `(batch, samples)`): Mono audio at
                `config.sampling_rate`.
            padding_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*): 1 for audio, 0 for right padding.

        Raises:
            ValueError: if the shapes are wrong or a row is empty.
        """
        input_values = self._check_input_values(input_values, padding_mask)
        if padding_mask is None:
            lengths = [input_values.shape[-1]] * input_values.shape[0]
        else:
            lengths = padding_mask.long().sum(-1).tolist()
        multiple = self.config.pad_to_multiple_of
        padded_lengths = [math.ceil(length / multiple) * multiple for length in lengths]
        if min(lengths) == 0:
            raise ValueError("`padding_mask` must leave at least one sample in every row.")
        if len(set(padded_lengths)) == 1:
            output = self._encode_equal_lengths(input_values, padded_lengths[0])
        else:
            output = self._encode_ragged(input_values, lengths, padded_lengths)
        steps = torch.tensor(padded_lengths, device=input_values.device) // self.config.hop_length
        output.code_lengths = tuple(steps // stride for stride in self.config.vq_strides)
        return output

    @can_return_tuple
    def decode(
        self,
        audio_codes: Sequence[torch.LongTensor] | None = None,
        quantized_representation: torch.Tensor | None = None,
        frame_lengths: torch.LongTensor | None = None,
        noise: Sequence[torch.Tensor] | None = None,
        generator: RowGenerators = None,
        noise_scale: float = 1.0,
    ) -> SnacDecoderOutput:
        r"""
        Decode codes, or the quantized latents, into a waveform.

        Args:
            audio_codes (`tuple(torch.LongTensor)`): One `(batch, codes)` tensor per quantizer, coarsest first.
            quantized_representation (`torch.FloatTensor` of shape `(batch, hidden_size, steps)`): Instead of the
                codes.
            frame_lengths (`torch.LongTensor` of shape `(batch,)`, *optional*): Valid frames (codes of the coarsest
                quantizer) per row. Each row is then decoded as if alone; the audio after its end is zero.
            noise (`tuple(torch.FloatTensor)`, *optional*): Standard normal values of every decoder block,
                `(batch, 1, steps of the block)`.
            generator (`torch.Generator` or a list of one per row, *optional*): Source of the noise, see the class.
            noise_scale (`float`): Factor of the noise.

        Raises:
            ValueError: if neither or both inputs are given, a level is missing, its length does not fit the others,
                or a code lies outside the codebook.
        """
        if (audio_codes is None) == (quantized_representation is None):
            raise ValueError("Give exactly one of `audio_codes` and `quantized_representation`.")
        if audio_codes is not None:
            self.check_codes(audio_codes)
            quantized_representation = self.quantizer.from_codes(audio_codes)
        batch_size, _, steps = quantized_representation.shape
        row_steps = self._row_steps(frame_lengths, batch_size, steps)
        generators = resolve_row_generators(generator, batch_size)
        # Rows of equal length share a pass: zero latents are not silence, so a longer row's padding would be heard.
        audio_values = quantized_representation.new_zeros(batch_size, steps * self.config.hop_length)
        for length in sorted(set(row_steps)):
            rows = [row for row, row_length in enumerate(row_steps) if row_length == length]
            if length > 0:
                decoded = self._decode_rows(quantized_representation, rows, length, noise, generators, noise_scale)
                if len(rows) == batch_size and length == steps:
                    audio_values = decoded
                else:
                    audio_values[rows, : decoded.shape[-1]] = decoded
        audio_lengths = torch.tensor(row_steps, device=audio_values.device) * self.config.hop_length
        output = SnacDecoderOutput(audio_values=audio_values, audio_lengths=audio_lengths)
        return output

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        noise: Sequence[torch.Tensor] | None = None,
        generator: RowGenerators = None,
        noise_scale: float = 1.0,
    ) -> SnacOutput:
        r"""
        Encode, quantize and decode; the reconstruction is cut to the length of the input.

        `loss` holds what the quantizers need (commitment and codebook loss). The losses on the waveform depend on the
        training recipe and live with it, in `tts_models.training`.
        """
        encoded = self.encode(input_values, padding_mask, return_dict=True)
        frame_lengths = None if padding_mask is None else encoded.code_lengths[0]
        decoded = self.decode(
            quantized_representation=encoded.quantized_representation,
            frame_lengths=frame_lengths,
            noise=noise,
            generator=generator,
            noise_scale=noise_scale,
            return_dict=True,
        )
        loss = (
            self.config.commitment_loss_weight * encoded.commitment_loss
            + self.config.codebook_loss_weight * encoded.codebook_loss
        )
        output = SnacOutput(
            loss=loss,
            audio_values=decoded.audio_values[..., : input_values.shape[-1]],
            audio_codes=encoded.audio_codes,
            commitment_loss=encoded.commitment_loss,
            codebook_loss=encoded.codebook_loss,
        )
        return output

    def decoder_stream(
        self, batch_size: int = 1, generator: RowGenerators = None, noise_scale: float = 1.0
    ) -> SnacDecoderStream:
        r"""
        Start decoding codes that arrive frame by frame: see [`SnacDecoderStream`].

        Args:
            batch_size (`int`): Rows decoded together.
            generator (`torch.Generator` or a list of one per row, *optional*): Source of the noise, as in `decode`.
            noise_scale (`float`): Factor of the noise.
        """
        return SnacDecoderStream(self, batch_size, resolve_row_generators(generator, batch_size), noise_scale)

    def check_codes(self, audio_codes: Sequence[torch.LongTensor]) -> None:
        """Raise a `ValueError` unless the codes have one tensor per quantizer, fitting lengths and valid indices."""
        strides = self.config.vq_strides
        if len(audio_codes) != len(strides):
            raise ValueError(f"`audio_codes` must hold {len(strides)} levels, got {len(audio_codes)}.")
        frames = audio_codes[0].shape[-1]
        for level, (codes, stride) in enumerate(zip(audio_codes, strides, strict=True)):
            expected = (audio_codes[0].shape[0], frames * strides[0] // stride)
            if codes.is_floating_point() or tuple(codes.shape) != expected:
                raise ValueError(
                    f"`audio_codes[{level}]` must be an integer tensor of shape {expected} (vq stride {stride}, "
                    f"{frames} "
                    f"frames), got {codes.dtype} of shape {tuple(codes.shape)}."
                )
            if codes.numel() and not 0 <= codes.min() <= codes.max() < self.config.codebook_size:
                raise ValueError(
                    f"`audio_codes[{level}]` must lie in 0 … {self.config.codebook_size - 1}, "
                    f"got {codes.min().item()} … {codes.max().item()}."
                )

    def _check_input_values(self, input_values: torch.Tensor, padding_mask: torch.Tensor | None) -> torch.Tensor:
        if input_values.ndim == 2:
            input_values = input_values[:, None]
        if input_values.ndim != 3 or input_values.shape[1] != 1 or input_values.shape[2] == 0:
            raise ValueError(
                f"`input_values` must have shape (batch, 1, samples) with at least one sample, "
                f"got {tuple(input_values.shape)}."
            )
        if padding_mask is not None and padding_mask.shape != (input_values.shape[0], input_values.shape[2]):
            raise ValueError(
                f"`padding_mask` must have shape {(input_values.shape[0], input_values.shape[2])}, "
                f"got {tuple(padding_mask.shape)}."
            )
        return input_values

    def _encode_equal_lengths(self, input_values: torch.Tensor, padded_length: int) -> SnacEncoderOutput:
        input_values = input_values[..., :padded_length]
        latents = self.encoder(F.pad(input_values, (0, padded_length - input_values.shape[-1])))
        quantized, codes, commitment_loss, codebook_loss = self.quantizer(latents)
        return SnacEncoderOutput(
            audio_codes=codes,
            quantized_representation=quantized,
            latents=latents,
            commitment_loss=commitment_loss,
            codebook_loss=codebook_loss,
        )

    def _encode_ragged(
        self, input_values: torch.Tensor, lengths: list[int], padded_lengths: list[int]
    ) -> SnacEncoderOutput:
        rows = [
            self._encode_equal_lengths(input_values[i : i + 1, :, :length], padded)
            for i, (length, padded) in enumerate(zip(lengths, padded_lengths, strict=True))
        ]
        weights = input_values.new_tensor(padded_lengths) / sum(padded_lengths)

        def join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
            longest = max(part.shape[-1] for part in parts)
            return torch.cat([F.pad(part, (0, longest - part.shape[-1])) for part in parts])

        return SnacEncoderOutput(
            audio_codes=tuple(join(level) for level in zip(*[row.audio_codes for row in rows], strict=True)),
            quantized_representation=join([row.quantized_representation for row in rows]),
            latents=join([row.latents for row in rows]),
            commitment_loss=(torch.stack([row.commitment_loss for row in rows]) * weights).sum(),
            codebook_loss=(torch.stack([row.codebook_loss for row in rows]) * weights).sum(),
        )

    def _row_steps(self, frame_lengths: torch.LongTensor | None, batch_size: int, steps: int) -> list[int]:
        if frame_lengths is None:
            return [steps] * batch_size
        frames = steps // self.config.vq_strides[0]
        lengths = torch.as_tensor(frame_lengths).tolist()
        if len(lengths) != batch_size or not all(0 <= length <= frames for length in lengths):
            raise ValueError(f"`frame_lengths` must hold {batch_size} numbers in 0 … {frames}, got {lengths}.")
        return [length * self.config.vq_strides[0] for length in lengths]

    def _decode_rows(
        self,
        quantized_representation: torch.Tensor,
        rows: list[int],
        steps: int,
        noise: Sequence[torch.Tensor] | None,
        generators: list[torch.Generator] | None,
        noise_scale: float,
    ) -> torch.Tensor:
        latents = quantized_representation[rows, :, :steps]
        ratios = self.config.upsampling_ratios
        # CODEPATH: noise in the released 24, 32 and 44.1 kHz codecs, none in codecs trained without.
        if not self.config.use_noise or noise_scale == 0:
            noise = None
        elif noise is None:
            row_generators = None if generators is None else [generators[row] for row in rows]
            noise = draw_decoder_noise(latents, ratios, row_generators)
        else:
            noise = [block[rows, :, : steps * math.prod(ratios[: i + 1])] for i, block in enumerate(noise)]
        if noise is not None and noise_scale != 1:
            noise = [block * noise_scale for block in noise]
        return self.decoder(latents, noise).squeeze(1)


__all__ = ["SnacModel", "SnacPreTrainedModel", "SnacEncoderOutput", "SnacDecoderOutput", "SnacOutput"]
