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
"""Qwen3-TTS tokenizer, 12 Hz: the neural audio codec of Qwen3-TTS (arXiv 2601.15621; upstream package `qwen-tts`).

The encoder is Mimi's. The decoder is causal from end to end, so one code path runs it offline and in pieces: its
layers take the steps before a piece from a `LeftContext`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import initialization as init
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedAudioTokenizerBase, PreTrainedModel
from transformers.models.mimi.modeling_mimi import (
    MimiConv1d,
    MimiEncoder,
    MimiLayerScale,
    MimiMLP,
    MimiRotaryEmbedding,
    eager_attention_forward,
    rotate_half,
)
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP, Qwen3RMSNorm
from transformers.utils import ModelOutput, can_return_tuple

from ...loading import CompleteCheckpointMixin
from ...streaming.context import LeftContext
from .configuration_qwen3_tts_tokenizer import (
    DOWNSAMPLE_STRIDE,
    Qwen3TTSTokenizerConfig,
    Qwen3TTSTokenizerDecoderConfig,
    Qwen3TTSTokenizerEncoderConfig,
)
from .streaming_qwen3_tts_tokenizer import Qwen3TTSTokenizerDecoderStream


# trf-ignore: TRF057
@dataclass
class Qwen3TTSTokenizerEncoderOutput(ModelOutput):
    r"""
    Output of [`Qwen3TTSTokenizerModel.encode`].

    audio_codes (`torch.LongTensor` of shape `(batch, frames, num_codebooks)`):
        Codebook indices, -1 after a row's end.
    code_lengths (`torch.LongTensor` of shape `(batch,)`):
        Frames per row.
    latents (`torch.FloatTensor` of shape `(batch, hidden_size, frames)`):
        What was quantized, zero after a row's end.
    commitment_loss (`torch.FloatTensor` of shape `()`):
        Mean squared distance of the quantizers' inputs from their codebook entries, over frames and kept codebooks.
    """

    audio_codes: torch.LongTensor | None = None
    code_lengths: torch.LongTensor | None = None
    latents: torch.FloatTensor | None = None
    commitment_loss: torch.FloatTensor | None = None


# trf-ignore: TRF057
@dataclass
class Qwen3TTSTokenizerDecoderOutput(ModelOutput):
    r"""
    Output of [`Qwen3TTSTokenizerModel.decode`].

    audio_values (`torch.FloatTensor` of shape `(batch, samples)`):
        Waveform in [-1, 1], zero after a row's end.
    audio_lengths (`torch.LongTensor` of shape `(batch,)`):
        Valid samples per row.
    """

    audio_values: torch.FloatTensor | None = None
    audio_lengths: torch.LongTensor | None = None


# trf-ignore: TRF057
@dataclass
class Qwen3TTSTokenizerOutput(ModelOutput):
    r"""
    Output of [`Qwen3TTSTokenizerModel`].

    loss (`torch.FloatTensor` of shape `()`):
        Weighted commitment loss.
    audio_values (`torch.FloatTensor` of shape `(batch, samples)`):
        Reconstruction, as long as the input.
    audio_codes (`torch.LongTensor` of shape `(batch, frames, num_codebooks)`):
        As in [`Qwen3TTSTokenizerEncoderOutput`].
    commitment_loss (`torch.FloatTensor` of shape `()`):
        The loss, unweighted.
    """

    loss: torch.FloatTensor | None = None
    audio_values: torch.FloatTensor | None = None
    audio_codes: torch.LongTensor | None = None
    commitment_loss: torch.FloatTensor | None = None


# trf-ignore: TRF057
class Qwen3TTSTokenizerPreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """Base class: configuration and initialisation of the Qwen3-TTS tokenizer and its parts."""

    config: Qwen3TTSTokenizerConfig
    config_class = Qwen3TTSTokenizerConfig
    conversion_script = "convert_qwen3_tts_tokenizer_to_hf.py"
    base_model_prefix = "model"
    main_input_name = "input_values"
    input_modalities = "audio"
    _no_split_modules = [
        "Qwen3TTSTokenizerEncoderLayer",
        "Qwen3TTSTokenizerDecoderLayer",
        "Qwen3TTSTokenizerConvNeXtBlock",
        "Qwen3TTSTokenizerResidualUnit",
        "MimiEncoder",
    ]
    # Books are divided by their counts, which half precision is too coarse for.
    _keep_in_fp32_modules_strict = ["codebook", "_codebook"]
    # A flag of Mimi's training, which nothing here reads.
    _keys_to_ignore_on_load_missing = [r"codebook\.initialized$"]
    _supports_sdpa = True
    _supports_flash_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            # Variance-preserving: a codec is deep, a fixed small deviation would fade out.
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, MimiConv1d):
            self._init_mimi_convolution(module)
        elif isinstance(module, MimiLayerScale):
            init.constant_(module.scale, self.config.layer_scale_initial_scale)
        elif isinstance(module, Qwen3TTSTokenizerConvNeXtBlock):
            init.constant_(module.gamma, self.config.layer_scale_initial_scale)
        elif isinstance(module, Qwen3TTSTokenizerSnakeBeta):
            init.zeros_(module.alpha)
            init.zeros_(module.beta)
        elif isinstance(module, (Qwen3TTSTokenizerEncoderCodebook, Qwen3TTSTokenizerDecoderCodebook)):
            self._init_codebook(module)

    @staticmethod
    def _init_mimi_convolution(module: MimiConv1d) -> None:
        # These sizes are buffers that no checkpoint holds.
        stride = module.conv.stride[0]
        kernel_size = module.conv.dilation[0] * (module.conv.kernel_size[0] - 1) + 1
        init.constant_(module.stride, stride)
        init.constant_(module.kernel_size, kernel_size)
        init.constant_(module.padding_total, kernel_size - stride)

    @staticmethod
    def _init_codebook(module: nn.Module) -> None:
        init.ones_(module.cluster_usage)
        if isinstance(module, Qwen3TTSTokenizerEncoderCodebook):
            init.ones_(module.initialized)
            init.normal_(module.embed_sum, mean=0.0, std=1.0)
        else:
            init.normal_(module.embedding_sum, mean=0.0, std=1.0)


# Causal transformer, of the encoder and of the decoder


def causal_attention_mask(
    hidden_states: torch.Tensor,
    past: int,
    steps_seen: torch.Tensor | None,
    window: int | None,
    implementation: str | None,
) -> torch.Tensor | None:
    """The mask of `past` kept steps and the steps of `hidden_states`, in the form the attention implementation takes.

    A step sees itself and what lies before it, at most `window` steps in all. Of the kept steps, only as many are real
    as the row has seen; flash attention applies everything else itself.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch, steps, channels)`): The steps that ask.
        past (`int`): Kept steps before them.
        steps_seen (`torch.LongTensor` of shape `(batch,)`, *optional*): Steps of each row before these, on the CPU.
        window (`int`, *optional*): Steps that a step sees; `None` for all.
        implementation (`str`, *optional*): Name of the attention implementation.
    """
    steps, device = hidden_states.shape[1], hidden_states.device
    keys = torch.arange(past + steps, device=device)
    is_real = None
    if past and int(steps_seen.min()) < past:
        is_real = keys >= past - steps_seen.to(device)[:, None]
    if implementation is not None and "flash" in implementation:
        return None if is_real is None else is_real.long()
    distance = keys[past:, None] - keys
    mask = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    mask = mask[None, None] if is_real is None else mask & is_real[:, None, None]
    if implementation == "sdpa":
        return mask
    return torch.zeros_like(mask, dtype=hidden_states.dtype).masked_fill(~mask, torch.finfo(hidden_states.dtype).min)


class Qwen3TTSTokenizerAttention(nn.Module):
    """Causal self-attention, limited to a window where there is one.

    In pieces, the keys of the window are kept before they are rotated: positions then count from the window's start,
    which rotary embeddings cannot tell from absolute positions, and a stream may be of any length.
    """

    def __init__(
        self, config: Qwen3TTSTokenizerEncoderConfig | Qwen3TTSTokenizerDecoderConfig, sliding_window: int | None
    ):
        super().__init__()
        self.config = config
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.sliding_window = sliding_window
        self.scaling = config.head_dim**-0.5
        self.is_causal = True
        width, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(width, config.num_attention_heads * config.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * config.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * config.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * config.head_dim, width, bias=bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        context: LeftContext | None = None,
    ) -> torch.Tensor:
        batch_size, steps = hidden_states.shape[:2]
        shape = (batch_size, steps, -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if context is not None:
            key = context.extend((self, "key"), key, self.sliding_window - 1, dim=2)
            value = context.extend((self, "value"), value, self.sliding_window - 1, dim=2)
        cos, sin = position_embeddings
        query = query * cos[:, -steps:] + rotate_half(query) * sin[:, -steps:]
        key = key * cos + rotate_half(key) * sin
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention_interface(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
        )
        return self.o_proj(output.reshape(batch_size, steps, -1))


class Qwen3TTSTokenizerEncoderLayer(nn.Module):
    """Attention and feed-forward layer, each normalised before and scaled per channel after."""

    def __init__(self, config: Qwen3TTSTokenizerEncoderConfig, sliding_window: int | None):
        super().__init__()
        self.self_attn = Qwen3TTSTokenizerAttention(config, sliding_window)
        self.mlp = MimiMLP(config)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.self_attn_layer_scale = MimiLayerScale(config)
        self.mlp_layer_scale = MimiLayerScale(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        context: LeftContext | None = None,
    ) -> torch.Tensor:
        attended = self.self_attn(self.input_layernorm(hidden_states), position_embeddings, attention_mask, context)
        hidden_states = hidden_states + self.self_attn_layer_scale(attended)
        return hidden_states + self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(hidden_states)))


class Qwen3TTSTokenizerDecoderLayer(Qwen3TTSTokenizerEncoderLayer):
    """The same with root-mean-square norms and a gated feed-forward layer."""

    def __init__(self, config: Qwen3TTSTokenizerDecoderConfig, sliding_window: int | None):
        nn.Module.__init__(self)
        self.self_attn = Qwen3TTSTokenizerAttention(config, sliding_window)
        self.mlp = Qwen3MLP(config)
        self.input_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn_layer_scale = MimiLayerScale(config)
        self.mlp_layer_scale = MimiLayerScale(config)


class Qwen3TTSTokenizerTransformer(nn.Module):
    """Layers over (batch, steps, hidden_size)."""

    layer_class = Qwen3TTSTokenizerEncoderLayer

    def __init__(
        self, config: Qwen3TTSTokenizerEncoderConfig | Qwen3TTSTokenizerDecoderConfig, sliding_window: int | None
    ):
        super().__init__()
        self.config = config
        self.sliding_window = sliding_window
        self.layers = nn.ModuleList(self.layer_class(config, sliding_window) for _ in range(config.num_hidden_layers))
        self.rotary_emb = MimiRotaryEmbedding(config)

    def forward(self, hidden_states: torch.Tensor, context: LeftContext | None = None) -> torch.Tensor:
        past = 0 if context is None else self.sliding_window - 1
        steps_seen = None if context is None else context.steps
        mask = causal_attention_mask(
            hidden_states, past, steps_seen, self.sliding_window, self.config._attn_implementation
        )
        positions = torch.arange(past + hidden_states.shape[1], device=hidden_states.device)[None]
        position_embeddings = self.rotary_emb(hidden_states, positions)
        for layer in self.layers:
            hidden_states = layer(hidden_states, position_embeddings, mask, context)
        return hidden_states


# Encoder


class Qwen3TTSTokenizerEncoderCodebook(nn.Module):
    """A codebook, stored as Mimi's training leaves it: sums of the vectors assigned to an entry, and their number."""

    def __init__(self, config: Qwen3TTSTokenizerEncoderConfig):
        super().__init__()
        self.initialized = nn.Buffer(torch.ones(1))
        self.cluster_usage = nn.Buffer(torch.ones(config.codebook_size))
        self.embed_sum = nn.Buffer(torch.zeros(config.codebook_size, config.codebook_dim))

    def forward(self, vectors: torch.Tensor) -> tuple[torch.LongTensor, torch.Tensor]:
        """Indices (batch, steps) of the entries nearest to `vectors` (batch, steps, codebook_dim), and the entries."""
        entries = self.embed_sum.float() / self.cluster_usage.float().clamp(min=1e-5)[:, None]
        flat = vectors.detach().reshape(-1, vectors.shape[-1]).float()
        codes = torch.cdist(flat[None], entries[None])[0].argmin(-1).view(vectors.shape[:-1])
        return codes, F.embedding(codes, entries).to(vectors.dtype)


class Qwen3TTSTokenizerEncoderQuantizerLayer(nn.Module):
    """Holds one codebook."""

    def __init__(self, config: Qwen3TTSTokenizerEncoderConfig):
        super().__init__()
        self.codebook = Qwen3TTSTokenizerEncoderCodebook(config)


class Qwen3TTSTokenizerEncoderBranch(nn.Module):
    """Residual quantizers, in a narrower space where the entries have another dimension than the latents.

    `output_proj` is in the checkpoint; encoding has no use for it.
    """

    def __init__(self, config: Qwen3TTSTokenizerEncoderConfig, num_quantizers: int):
        super().__init__()
        self.layers = nn.ModuleList(Qwen3TTSTokenizerEncoderQuantizerLayer(config) for _ in range(num_quantizers))
        self.input_proj = self.output_proj = nn.Identity()
        # CODEPATH: the released Qwen3-TTS-Tokenizer-12Hz narrows 512 channels to 256; equal widths have no projection.
        if config.codebook_dim != config.hidden_size:
            self.input_proj = nn.Conv1d(config.hidden_size, config.codebook_dim, 1, bias=False)
            self.output_proj = nn.Conv1d(config.codebook_dim, config.hidden_size, 1, bias=False)

    def forward(self, latents: torch.Tensor, num_quantizers: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        residual = self.input_proj(latents).transpose(1, 2)
        codes, distances = [], []
        for layer in self.layers[:num_quantizers]:
            layer_codes, entries = layer.codebook(residual)
            codes.append(layer_codes)
            residual = residual - entries
            distances.append(residual.pow(2).mean(-1))
        return codes, distances


class Qwen3TTSTokenizerEncoderQuantizer(nn.Module):
    """Semantic and acoustic branch; both quantize the same latents."""

    def __init__(self, config: Qwen3TTSTokenizerEncoderConfig):
        super().__init__()
        self.num_semantic_quantizers = config.num_semantic_quantizers
        num_acoustic_quantizers = config.num_quantizers - config.num_semantic_quantizers
        self.semantic_residual_vector_quantizer = Qwen3TTSTokenizerEncoderBranch(
            config, config.num_semantic_quantizers
        )
        self.acoustic_residual_vector_quantizer = Qwen3TTSTokenizerEncoderBranch(config, num_acoustic_quantizers)

    def forward(self, latents: torch.Tensor, num_quantizers: int) -> tuple[torch.LongTensor, torch.Tensor]:
        """Codes of the latents (batch, channels, frames), and mean squared distances of what was quantized.

        Both are (batch, frames, num_quantizers).
        """
        num_semantic = min(num_quantizers, self.num_semantic_quantizers)
        codes, distances = self.semantic_residual_vector_quantizer(latents, num_semantic)
        acoustic = self.acoustic_residual_vector_quantizer(latents, num_quantizers - num_semantic)
        return torch.stack(codes + acoustic[0], dim=-1), torch.stack(distances + acoustic[1], dim=-1)


# trf-ignore: TRF057
class Qwen3TTSTokenizerEncoder(Qwen3TTSTokenizerPreTrainedModel):
    r"""
    The encoder alone: waveform to latents, which `quantizer` turns into codes.

    Args:
        config ([`Qwen3TTSTokenizerEncoderConfig`]): Its configuration.
        use_sliding_window (`bool`): `encoder_use_sliding_window` of the codec.
    """

    config: Qwen3TTSTokenizerEncoderConfig
    config_class = Qwen3TTSTokenizerEncoderConfig

    def __init__(self, config: Qwen3TTSTokenizerEncoderConfig, use_sliding_window: bool = False):
        super().__init__(config)
        self.encoder = MimiEncoder(config)
        window = config.sliding_window if use_sliding_window else None
        self.encoder_transformer = Qwen3TTSTokenizerTransformer(config, window)
        self.downsample = MimiConv1d(
            config,
            config.hidden_size,
            config.hidden_size,
            kernel_size=config.downsample_kernel_size,
            stride=DOWNSAMPLE_STRIDE,
            bias=False,
            pad_mode="replicate",
        )
        self.quantizer = Qwen3TTSTokenizerEncoderQuantizer(config)
        self.post_init()

    # trf-ignore: TRF057
    def forward(self, input_values: torch.Tensor) -> torch.Tensor:
        """Latents `(batch, hidden_size, frames)` of the waveforms `(batch, 1, samples)`."""
        hidden_states = self.encoder(input_values).transpose(1, 2)
        return self.downsample(self.encoder_transformer(hidden_states).transpose(1, 2))


# Decoder


class Qwen3TTSTokenizerCausalConv1d(nn.Module):
    """Convolution that looks back only."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, dilation=dilation, groups=groups)
        self.look_back = dilation * (kernel_size - 1)

    def forward(self, hidden_states: torch.Tensor, context: LeftContext | None = None) -> torch.Tensor:
        if context is None:
            return self.conv(F.pad(hidden_states, (self.look_back, 0)))
        return self.conv(context.extend(self, hidden_states, self.look_back))


class Qwen3TTSTokenizerCausalConvTranspose1d(nn.Module):
    """Transposed convolution, `stride` steps per input step: what reaches past the last input is cut off."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int):
        super().__init__()
        self.conv = nn.ConvTranspose1d(in_channels, out_channels, kernel_size, stride)
        self.stride = stride
        self.look_back = math.ceil(kernel_size / stride) - 1

    def forward(self, hidden_states: torch.Tensor, context: LeftContext | None = None) -> torch.Tensor:
        steps, look_back = hidden_states.shape[-1], 0
        if context is not None:
            hidden_states, look_back = context.extend(self, hidden_states, self.look_back), self.look_back
        return self.conv(hidden_states)[..., look_back * self.stride : (look_back + steps) * self.stride]


class Qwen3TTSTokenizerSnakeBeta(nn.Module):
    """x + sin²(αx) / β, with the logarithms of α and β learnt per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return hidden_states + torch.sin(hidden_states * alpha).pow(2) / (beta + 1e-9)


class Qwen3TTSTokenizerDecoderCodebook(nn.Module):
    """A codebook, stored as sums of the vectors assigned to an entry, and their number."""

    def __init__(self, config: Qwen3TTSTokenizerDecoderConfig):
        super().__init__()
        self.cluster_usage = nn.Buffer(torch.ones(config.codebook_size))
        self.embedding_sum = nn.Buffer(torch.zeros(config.codebook_size, config.codebook_dim // 2))

    def forward(self, codes: torch.LongTensor) -> torch.Tensor:
        # Only the entries asked for are divided: in a stream that is one row of each book.
        usage = F.embedding(codes, self.cluster_usage.float()[:, None])
        return F.embedding(codes, self.embedding_sum).float() / usage.clamp(min=1e-5)


class Qwen3TTSTokenizerDecoderQuantizerLayer(nn.Module):
    """Holds one codebook."""

    def __init__(self, config: Qwen3TTSTokenizerDecoderConfig):
        super().__init__()
        self._codebook = Qwen3TTSTokenizerDecoderCodebook(config)


class Qwen3TTSTokenizerDecoderBranch(nn.Module):
    """Sum of codebook entries, projected. `input_proj` is part of the checkpoint; decoding has no use for it."""

    def __init__(self, config: Qwen3TTSTokenizerDecoderConfig, num_quantizers: int):
        super().__init__()
        self.input_proj = nn.Conv1d(config.codebook_dim, config.codebook_dim // 2, 1, bias=False)
        self.output_proj = nn.Conv1d(config.codebook_dim // 2, config.codebook_dim, 1, bias=False)
        layers = nn.ModuleList(Qwen3TTSTokenizerDecoderQuantizerLayer(config) for _ in range(num_quantizers))
        self.vq = nn.ModuleDict({"layers": layers})

    def forward(self, codes: torch.LongTensor) -> torch.Tensor:
        entries = [layer._codebook(codes[..., index]) for index, layer in enumerate(self.vq["layers"])]
        return self.output_proj(torch.stack(entries).sum(0).to(self.output_proj.weight.dtype).transpose(1, 2))


class Qwen3TTSTokenizerDecoderQuantizer(nn.Module):
    """Codes (batch, frames, num_quantizers) to (batch, codebook_dim, frames): the first codebook and the others."""

    def __init__(self, config: Qwen3TTSTokenizerDecoderConfig):
        super().__init__()
        self.rvq_first = Qwen3TTSTokenizerDecoderBranch(config, 1)
        self.rvq_rest = Qwen3TTSTokenizerDecoderBranch(config, config.num_quantizers - 1)

    def forward(self, codes: torch.LongTensor) -> torch.Tensor:
        return self.rvq_first(codes[..., :1]) + self.rvq_rest(codes[..., 1:])


class Qwen3TTSTokenizerDecoderTransformer(Qwen3TTSTokenizerTransformer):
    """Sliding-window transformer between two projections: (batch, frames, latent_dim) in and out."""

    layer_class = Qwen3TTSTokenizerDecoderLayer

    def __init__(self, config: Qwen3TTSTokenizerDecoderConfig):
        super().__init__(config, config.sliding_window)
        self.input_proj = nn.Linear(config.latent_dim, config.hidden_size)
        self.norm = Qwen3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.output_proj = nn.Linear(config.hidden_size, config.latent_dim)

    def forward(self, hidden_states: torch.Tensor, context: LeftContext | None = None) -> torch.Tensor:
        return self.output_proj(self.norm(super().forward(self.input_proj(hidden_states), context)))


class Qwen3TTSTokenizerConvNeXtBlock(nn.Module):
    """Depthwise causal convolution, then a feed-forward layer per step, added to the input."""

    def __init__(self, config: Qwen3TTSTokenizerDecoderConfig):
        super().__init__()
        channels = config.latent_dim
        self.dwconv = Qwen3TTSTokenizerCausalConv1d(channels, channels, 7, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), config.layer_scale_initial_scale))

    def forward(self, hidden_states: torch.Tensor, context: LeftContext | None = None) -> torch.Tensor:
        branch = self.norm(self.dwconv(hidden_states, context).transpose(1, 2))
        branch = self.gamma * self.pwconv2(F.gelu(self.pwconv1(branch)))
        return hidden_states + branch.transpose(1, 2)


class Qwen3TTSTokenizerResidualUnit(nn.Module):
    """Snake, dilated convolution, Snake, pointwise convolution, added to the input."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.act1 = Qwen3TTSTokenizerSnakeBeta(channels)
        self.conv1 = Qwen3TTSTokenizerCausalConv1d(channels, channels, 7, dilation=dilation)
        self.act2 = Qwen3TTSTokenizerSnakeBeta(channels)
        self.conv2 = Qwen3TTSTokenizerCausalConv1d(channels, channels, 1)

    def forward(self, hidden_states: torch.Tensor, context: LeftContext | None = None) -> torch.Tensor:
        branch = self.conv1(self.act1(hidden_states), context)
        return hidden_states + self.conv2(self.act2(branch), context)


class Qwen3TTSTokenizerDecoderBlock(nn.Module):
    """Snake, transposed convolution that halves the channels, three residual units."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.block = nn.ModuleList(
            [
                Qwen3TTSTokenizerSnakeBeta(channels),
                Qwen3TTSTokenizerCausalConvTranspose1d(channels, channels // 2, 2 * stride, stride),
                *(Qwen3TTSTokenizerResidualUnit(channels // 2, dilation) for dilation in (1, 3, 9)),
            ]
        )

    def forward(self, hidden_states: torch.Tensor, context: LeftContext | None = None) -> torch.Tensor:
        activation, *layers = self.block
        hidden_states = activation(hidden_states)
        for layer in layers:
            hidden_states = layer(hidden_states, context)
        return hidden_states


# trf-ignore: TRF057
class Qwen3TTSTokenizerDecoder(Qwen3TTSTokenizerPreTrainedModel):
    """The decoder alone: codes to waveform, whole or in pieces."""

    config: Qwen3TTSTokenizerDecoderConfig
    config_class = Qwen3TTSTokenizerDecoderConfig
    main_input_name = "audio_codes"

    def __init__(self, config: Qwen3TTSTokenizerDecoderConfig):
        super().__init__(config)
        self.quantizer = Qwen3TTSTokenizerDecoderQuantizer(config)
        self.pre_conv = Qwen3TTSTokenizerCausalConv1d(config.codebook_dim, config.latent_dim, 3)
        self.pre_transformer = Qwen3TTSTokenizerDecoderTransformer(config)
        self.upsample = nn.ModuleList(
            nn.ModuleList(
                [
                    Qwen3TTSTokenizerCausalConvTranspose1d(config.latent_dim, config.latent_dim, stride, stride),
                    Qwen3TTSTokenizerConvNeXtBlock(config),
                ]
            )
            for stride in config.upsampling_ratios
        )
        widths = [config.decoder_dim // 2**i for i in range(len(config.upsample_rates) + 1)]
        self.decoder = nn.ModuleList(
            [
                Qwen3TTSTokenizerCausalConv1d(config.latent_dim, widths[0], 7),
                *(map(Qwen3TTSTokenizerDecoderBlock, widths, config.upsample_rates)),
                Qwen3TTSTokenizerSnakeBeta(widths[-1]),
                Qwen3TTSTokenizerCausalConv1d(widths[-1], 1, 7),
            ]
        )
        self.post_init()

    # trf-ignore: TRF057
    def forward(self, audio_codes: torch.LongTensor, context: LeftContext | None = None) -> torch.Tensor:
        """Waveform `(batch, frames * samples_per_frame)` in [-1, 1] of the codes `(batch, frames, num_quantizers)`.

        With `context` they are the next piece of a signal, whose past it keeps. There must be at least one frame.
        """
        hidden_states = self.pre_conv(self.quantizer(audio_codes), context).transpose(1, 2)
        hidden_states = self.pre_transformer(hidden_states, context).transpose(1, 2)
        for transposed_convolution, convnext in self.upsample:
            hidden_states = convnext(transposed_convolution(hidden_states, context), context)
        first, *blocks, activation, last = self.decoder
        hidden_states = first(hidden_states, context)
        for block in blocks:
            hidden_states = block(hidden_states, context)
        audio = last(activation(hidden_states), context).clamp(-1, 1)[:, 0]
        if context is not None:
            context.steps = context.steps + audio_codes.shape[1]
        return audio


# The codec


# trf-ignore: TRF057
class Qwen3TTSTokenizerModel(Qwen3TTSTokenizerPreTrainedModel, PreTrainedAudioTokenizerBase):
    r"""
    The codec of Qwen3-TTS: 24 kHz waveform → 16 codes per frame of 80 ms → waveform.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import Qwen3TTSTokenizerConfig, Qwen3TTSTokenizerModel

    >>> encoder = {"num_filters": 4, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    >>> decoder = {"decoder_dim": 64, "latent_dim": 16, "hidden_size": 16, "num_hidden_layers": 1}
    >>> config = Qwen3TTSTokenizerConfig(encoder_config=encoder, decoder_config=decoder)
    >>> model = Qwen3TTSTokenizerModel(config).eval()
    >>> codes = model.encode(torch.zeros(1, 1, 5000)).audio_codes
    >>> codes.shape, model.decode(codes).audio_values.shape
    (torch.Size([1, 3, 16]), torch.Size([1, 5760]))
    ```
    """

    def __init__(self, config: Qwen3TTSTokenizerConfig):
        super().__init__(config)
        self.encoder = Qwen3TTSTokenizerEncoder(config.encoder_config, config.encoder_use_sliding_window)
        self.decoder = Qwen3TTSTokenizerDecoder(config.decoder_config)
        self.post_init()

    @can_return_tuple
    def encode(
        self, input_values: torch.Tensor, padding_mask: torch.Tensor | None = None
    ) -> Qwen3TTSTokenizerEncoderOutput:
        r"""
        Encode waveforms. Each row is encoded as if alone, so its codes do not depend on the batch.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch, 1, samples)` or `(batch, samples)`): Mono audio at
                `config.input_sample_rate`.
            padding_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*): 1 for audio, 0 for right padding.

        Raises:
            ValueError: if the shapes are wrong, a row is empty or padded on the left, or the audio holds NaN or
                infinity.
        """
        input_values, lengths = self._check_input_values(input_values, padding_mask)
        # The stated rate decides how many frames are kept, of those that the strides make.
        rate = max(self.config.encode_downsample_rate, self.config.encoder_config.samples_per_frame)
        frames = [math.ceil(length / rate) for length in lengths]
        rows_of, codes_of, latents_of, distances_of = [], [], [], []
        for rows in self._rows_encoded_together(lengths):
            latents = self.encoder(input_values[rows, :, : max(lengths[row] for row in rows)])
            codes, distances = self.encoder.quantizer(latents, self.config.encoder_valid_num_quantizers)
            for index, row in enumerate(rows):
                rows_of.append(row)
                codes_of.append(codes[index, : frames[row]])
                latents_of.append(latents[index, :, : frames[row]].transpose(0, 1))
                distances_of.append(distances[index, : frames[row]])
        order = sorted(range(len(rows_of)), key=rows_of.__getitem__)
        return Qwen3TTSTokenizerEncoderOutput(
            audio_codes=pad_sequence([codes_of[i] for i in order], batch_first=True, padding_value=-1),
            code_lengths=torch.tensor(frames, device=input_values.device),
            latents=pad_sequence([latents_of[i] for i in order], batch_first=True).transpose(1, 2),
            commitment_loss=torch.cat(distances_of).mean(),
        )

    @can_return_tuple
    def decode(self, audio_codes: torch.LongTensor, chunk_frames: int = 300) -> Qwen3TTSTokenizerDecoderOutput:
        r"""
        Decode codes of any length, exactly.

        Args:
            audio_codes (`torch.LongTensor` of shape `(batch, frames, num_codebooks)`): Codebook indices; frames of -1
                after a row's end.
            chunk_frames (`int`, defaults to 300): Frames that run through the decoder at once. It bounds the memory
                and changes nothing else: the layers keep what they need between the chunks.

        Raises:
            ValueError: if the codes have another shape or type, lie outside the codebooks, or are padded elsewhere
                than after a row's end; or `chunk_frames` is not positive.
        """
        lengths = self.check_codes(audio_codes)
        self._check_positive("chunk_frames", chunk_frames)
        # A causal decoder does not hear the padding, so any code may stand there.
        pieces = audio_codes.clamp(min=0).split(chunk_frames, dim=1)
        if len(pieces) == 1:
            return self._cut_rows(self.decode_piece(pieces[0]), lengths)
        context = LeftContext(audio_codes.shape[0])
        return self._cut_rows(torch.cat([self.decode_piece(piece, context) for piece in pieces], dim=1), lengths)

    @can_return_tuple
    def chunked_decode(
        self, audio_codes: torch.LongTensor, chunk_size: int = 300, left_context_size: int = 25
    ) -> Qwen3TTSTokenizerDecoderOutput:
        r"""
        Decode in chunks that know only a few frames of what came before: what the `qwen-tts` package does. From the
        second chunk on the audio differs from [`~Qwen3TTSTokenizerModel.decode`], because the attention looks back
        much further; meant for comparisons with that package.

        Args:
            audio_codes (`torch.LongTensor` of shape `(batch, frames, num_codebooks)`): As for `decode`.
            chunk_size (`int`, defaults to 300): New frames per chunk.
            left_context_size (`int`, defaults to 25): Frames decoded again before each chunk.

        Raises:
            ValueError: as for `decode`, or if `chunk_size` is not positive or `left_context_size` negative.
        """
        lengths = self.check_codes(audio_codes)
        self._check_positive("chunk_size", chunk_size)
        if left_context_size < 0:
            raise ValueError(f"`left_context_size` must be 0 or more, got {left_context_size}.")
        codes, pieces = audio_codes.clamp(min=0), []
        for start in range(0, codes.shape[1], chunk_size):
            before = min(start, left_context_size)
            audio = self.decode_piece(codes[:, start - before : start + chunk_size])
            pieces.append(audio[:, before * self.config.samples_per_frame :])
        return self._cut_rows(torch.cat(pieces or [self.decode_piece(codes)], dim=1), lengths)

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(self, input_values: torch.Tensor, padding_mask: torch.Tensor | None = None) -> Qwen3TTSTokenizerOutput:
        r"""
        Encode and decode; the reconstruction is cut to the length of the input.

        `loss` trains the encoder towards its codebooks (commitment loss); the codebooks themselves are fixed. The
        losses on the waveform, which train the decoder, depend on the recipe and live with it, in
        `tts_models.training`. Codes are integers, so no gradient passes from the decoder to the encoder.
        """
        encoded = self.encode(input_values, padding_mask, return_dict=True)
        decoded = self.decode(encoded.audio_codes, return_dict=True)
        return Qwen3TTSTokenizerOutput(
            loss=self.config.commitment_loss_weight * encoded.commitment_loss,
            audio_values=decoded.audio_values[..., : input_values.shape[-1]],
            audio_codes=encoded.audio_codes,
            commitment_loss=encoded.commitment_loss,
        )

    def decoder_stream(
        self, batch_size: int = 1, reference_codes: torch.LongTensor | None = None
    ) -> Qwen3TTSTokenizerDecoderStream:
        r"""
        Start decoding codes that arrive frame by frame: see [`Qwen3TTSTokenizerDecoderStream`].

        Args:
            batch_size (`int`): Rows decoded together.
            reference_codes (`torch.LongTensor` of shape `(batch_size, frames, num_codebooks)`, *optional*): Codes that
                go before, whose audio is discarded: those of a reference voice.

        Raises:
            ValueError: if `batch_size` is not positive or the codes are malformed.
        """
        self._check_positive("batch_size", batch_size)
        stream = Qwen3TTSTokenizerDecoderStream(self, LeftContext(batch_size))
        if reference_codes is not None:
            stream.push(reference_codes)
        return stream

    def decode_piece(self, audio_codes: torch.LongTensor, context: LeftContext | None = None) -> torch.Tensor:
        """Samples of checked codes `(batch, frames, num_codebooks)`, the next ones of `context` where it is given."""
        if audio_codes.shape[1] == 0:  # convolutions refuse an empty signal
            return self.decoder.pre_conv.conv.weight.new_zeros(audio_codes.shape[0], 0)
        return self.decoder(audio_codes, context)

    def check_codes(self, audio_codes: torch.LongTensor, allow_padding: bool = True) -> torch.LongTensor:
        """Frames of each row, `(batch,)`; a `ValueError` unless the codes are valid indices, -1 at most at the end."""
        expected = self.config.num_codebooks
        if audio_codes.ndim != 3 or audio_codes.shape[2] != expected or audio_codes.shape[0] == 0:
            raise ValueError(
                f"`audio_codes` must have shape (batch, frames, {expected}) with at least one row, "
                f"got {tuple(audio_codes.shape)}."
            )
        if audio_codes.is_floating_point() or audio_codes.dtype == torch.bool:
            raise ValueError(f"`audio_codes` must be integers, got {audio_codes.dtype}.")
        lowest = -1 if allow_padding else 0
        if audio_codes.numel() and not lowest <= audio_codes.min() <= audio_codes.max() < self.config.codebook_size:
            raise ValueError(
                f"`audio_codes` must lie in {lowest} … {self.config.codebook_size - 1}, "
                f"got {audio_codes.min().item()} … {audio_codes.max().item()}."
            )
        is_frame = audio_codes >= 0
        lengths = is_frame[..., 0].sum(1)
        expected_frames = torch.arange(audio_codes.shape[1], device=audio_codes.device) < lengths[:, None]
        if not torch.equal(is_frame, expected_frames[..., None].expand_as(is_frame)):
            raise ValueError("`audio_codes` may hold -1 only as whole frames after a row's end, got it elsewhere.")
        return lengths

    def _cut_rows(self, audio_values: torch.Tensor, lengths: torch.LongTensor) -> Qwen3TTSTokenizerDecoderOutput:
        audio_lengths = (lengths * self.config.decode_upsample_rate).clamp(max=audio_values.shape[1])
        is_padding = torch.arange(audio_values.shape[1], device=audio_values.device) >= audio_lengths[:, None]
        return Qwen3TTSTokenizerDecoderOutput(
            audio_values=audio_values.masked_fill(is_padding, 0.0), audio_lengths=audio_lengths
        )

    def _rows_encoded_together(self, lengths: list[int]) -> list[list[int]]:
        # The convolutions fill the last, partial frame in their own way, which zeros in the waveform do not reproduce.
        # Rows that end with a whole frame do not hear the padding, unless the convolutions look ahead.
        config, groups = self.config.encoder_config, {}
        for row, length in enumerate(lengths):
            ends_whole = config.use_causal_conv and length % config.samples_per_frame == 0
            groups.setdefault(0 if ends_whole else length, []).append(row)
        return list(groups.values())

    def _check_input_values(
        self, input_values: torch.Tensor, padding_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[int]]:
        """The audio as (batch, 1, samples), and the samples of each row."""
        if input_values.ndim == 2:
            input_values = input_values[:, None]
        if input_values.ndim != 3 or input_values.shape[1] != 1 or 0 in input_values.shape:
            raise ValueError(
                f"`input_values` must have shape (batch, 1, samples) with at least one row and one sample, "
                f"got {tuple(input_values.shape)}."
            )
        if not input_values.isfinite().all():
            raise ValueError("`input_values` must hold finite values, got NaN or infinity.")
        batch_size, _, samples = input_values.shape
        if padding_mask is None:
            return input_values, [samples] * batch_size
        if padding_mask.shape != (batch_size, samples):
            raise ValueError(
                f"`padding_mask` must have shape {(batch_size, samples)}, got {tuple(padding_mask.shape)}."
            )
        lengths = padding_mask.long().sum(-1)
        expected = torch.arange(samples, device=lengths.device) < lengths[:, None]
        if lengths.min() == 0 or not torch.equal(padding_mask.bool(), expected):
            raise ValueError(
                "`padding_mask` must be 1 for at least one sample of every row and 0 only after its end, "
                "got an empty row or padding elsewhere."
            )
        return input_values, lengths.tolist()

    @staticmethod
    def _check_positive(name: str, value: int) -> None:
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")


__all__ = [
    "Qwen3TTSTokenizerDecoder",
    "Qwen3TTSTokenizerDecoderOutput",
    "Qwen3TTSTokenizerEncoder",
    "Qwen3TTSTokenizerEncoderOutput",
    "Qwen3TTSTokenizerModel",
    "Qwen3TTSTokenizerOutput",
    "Qwen3TTSTokenizerPreTrainedModel",
]
