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
"""S3 tokenizer version 2: speech to 25 discrete tokens a second (CosyVoice 2; upstream package `s3tokenizer`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.utils import ModelOutput, can_return_tuple

from ...acceleration.attention import eager_attention_forward
from ...audio.lengths import frame_lengths, length_mask
from ...audio.mel import whisper_log_mel
from ...audio.mel_features import check_waveforms
from ...loading import CompleteCheckpointMixin
from .configuration_s3_tokenizer import S3TokenizerConfig


# The bound of a digit before rounding, as upstream's graph stores it: just below 1, so that no digit reaches 1.5.
DIGIT_BOUND = 0.9990000128746033
# Windows of a long utterance that are encoded together.
WINDOWS_PER_BATCH = 8


# trf-ignore: TRF057
@dataclass
class S3TokenizerOutput(ModelOutput):
    r"""
    Output of [`S3TokenizerModel`].

    speech_tokens (`torch.LongTensor` of shape `(batch, tokens)`):
        Token ids in 0 … 6560, 0 after a row's end.
    speech_token_lengths (`torch.LongTensor` of shape `(batch,)`):
        Valid tokens per row.
    latents (`torch.FloatTensor` of shape `(batch, tokens, num_digits)`):
        The quantizer's input in (-1, 1): rounded, plus 1, it is a token's digits to base 3. Gradients flow through it.
    last_hidden_state (`torch.FloatTensor` of shape `(batch, tokens, hidden_size)`):
        Output of the last layer.
    """

    speech_tokens: torch.LongTensor | None = None
    speech_token_lengths: torch.LongTensor | None = None
    latents: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None


def halved(lengths: torch.Tensor) -> torch.Tensor:
    """Output lengths of a convolution of kernel 3, stride 2 and padding 1."""
    return (lengths - 1).div(2, rounding_mode="floor") + 1


class S3TokenizerAttention(nn.Module):
    """Self-attention with rotary positions, plus a memory: a depthwise convolution over the values of all heads."""

    def __init__(self, config: S3TokenizerConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.memory = nn.Conv1d(
            config.hidden_size,
            config.hidden_size,
            config.memory_kernel_size,
            padding=config.memory_kernel_size // 2,
            groups=config.hidden_size,
            bias=False,
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        valid: torch.Tensor,
    ) -> torch.Tensor:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        value = self.v_proj(hidden_states)
        query, key = self.q_proj(hidden_states), self.k_proj(hidden_states)
        query, key = (states.view(shape).transpose(1, 2) for states in (query, key))
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention_interface(
            self,
            query,
            key,
            value.view(shape).transpose(1, 2),
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
        )
        value = value * valid
        memory = (self.memory(value.transpose(1, 2)).transpose(1, 2) + value) * valid
        return self.out_proj(output.reshape(hidden_states.shape)) + memory


class S3TokenizerLayer(GradientCheckpointingLayer):
    """Attention and feed-forward layer, each normalised before."""

    def __init__(self, config: S3TokenizerConfig):
        super().__init__()
        self.self_attn = S3TokenizerAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        valid: torch.Tensor,
    ) -> torch.Tensor:
        attended = self.self_attn(self.self_attn_layer_norm(hidden_states), position_embeddings, attention_mask, valid)
        hidden_states = hidden_states + attended
        return hidden_states + self.fc2(self.activation_fn(self.fc1(self.final_layer_norm(hidden_states))))


class S3TokenizerEncoder(nn.Module):
    """Mel frames (batch, num_mel_bins, frames) to states (batch, tokens, hidden_size), four frames a token."""

    def __init__(self, config: S3TokenizerConfig):
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.hidden_size, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(config.hidden_size, config.hidden_size, 3, stride=2, padding=1)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.layers = nn.ModuleList(S3TokenizerLayer(config) for _ in range(config.num_hidden_layers))
        self.rotary_emb = LlamaRotaryEmbedding(config)

    def forward(self, input_features: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden_states = input_features.to(self.conv1.weight.dtype)
        for convolution in (self.conv1, self.conv2):
            mask = length_mask(lengths, hidden_states.shape[-1])[:, None]
            hidden_states = self.activation_fn(convolution(hidden_states * mask))
            lengths = halved(lengths)
        hidden_states = hidden_states.transpose(1, 2)
        valid = length_mask(lengths, hidden_states.shape[1])
        attention_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=valid
        )
        positions = torch.arange(hidden_states.shape[1], device=hidden_states.device)[None]
        position_embeddings = self.rotary_emb(hidden_states, positions)
        for layer in self.layers:
            hidden_states = layer(hidden_states, position_embeddings, attention_mask, valid[..., None])
        return hidden_states, lengths


class S3TokenizerQuantizer(nn.Module):
    """Finite scalar quantizer: a few bounded dimensions, each rounded to one of three digits."""

    def __init__(self, config: S3TokenizerConfig):
        super().__init__()
        self.project_down = nn.Linear(config.hidden_size, config.num_digits)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.LongTensor, torch.Tensor]:
        """Tokens (batch, tokens) and what was rounded (batch, tokens, num_digits), float32."""
        latents = self.project_down(hidden_states).float().tanh() * DIGIT_BOUND
        digits = latents.detach().round().long() + 1
        return (digits * 3 ** torch.arange(digits.shape[-1], device=digits.device)).sum(-1), latents


# trf-ignore: TRF057
class S3TokenizerPreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """Base class: configuration and initialisation shared by S3 tokenizers."""

    config: S3TokenizerConfig
    config_class = S3TokenizerConfig
    conversion_script = "convert_s3gen_to_hf.py"
    base_model_prefix = "s3_tokenizer"
    main_input_name = "input_features"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["S3TokenizerLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True


# trf-ignore: TRF057
class S3TokenizerModel(S3TokenizerPreTrainedModel):
    r"""
    Turns 16 kHz speech into semantic tokens, 25 a second, ids 0 … 6560. There is no decoder: S3Gen turns tokens back
    into speech.

    Utterances above `config.window_frames` (30 s) are encoded in overlapping windows whose inner halves are joined.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import S3TokenizerConfig, S3TokenizerModel

    >>> model = S3TokenizerModel(
    ...     S3TokenizerConfig(hidden_size=32, num_attention_heads=2, intermediate_size=64, num_hidden_layers=1)
    ... ).eval()
    >>> tokens, lengths = model.tokenize([0.1 * torch.randn(16000), 0.1 * torch.randn(8000)])
    >>> tokens.shape, lengths.tolist()
    (torch.Size([2, 25]), [25, 13])
    ```
    """

    def __init__(self, config: S3TokenizerConfig):
        super().__init__(config)
        self.encoder = S3TokenizerEncoder(config)
        self.quantizer = S3TokenizerQuantizer(config)
        self.post_init()

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor,
        feature_lengths: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> S3TokenizerOutput:
        r"""
        Tokens of log-mel frames.

        Args:
            input_features (`torch.FloatTensor` of shape `(batch, num_mel_bins, frames)`):
                Frames of [`S3TokenizerFeatureExtractor`], padded on the right.
            feature_lengths (`torch.LongTensor` of shape `(batch,)`, *optional*): Valid frames per row.
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*):
                1 for frames, 0 for right padding; another way to say `feature_lengths`.

        Raises:
            ValueError: a wrong shape, a row without frames, or padding that is not on the right.
        """
        lengths = self._lengths(input_features, feature_lengths, attention_mask)
        # CODEPATH: windows for utterances above 30 s, in the released tokenizer.
        if int(lengths.max()) <= self.config.window_frames:
            hidden_states, lengths = self.encoder(input_features[..., : int(lengths.max())], lengths)
        else:
            hidden_states, lengths = self._encode_windows(input_features, lengths)
        tokens, latents = self.quantizer(hidden_states)
        return S3TokenizerOutput(
            speech_tokens=tokens * length_mask(lengths, tokens.shape[1]),
            speech_token_lengths=lengths,
            latents=latents,
            last_hidden_state=hidden_states,
        )

    @torch.no_grad()
    def tokenize(
        self, waveforms: Sequence[torch.Tensor], max_len: int | None = None
    ) -> tuple[torch.LongTensor, torch.LongTensor]:
        r"""
        Tokens of recordings, features included.

        Args:
            waveforms (`list[torch.Tensor]`): Mono recordings `(samples,)` at `config.sampling_rate` in [-1, 1], of any
                lengths; arrays are taken too.
            max_len (`int`, *optional*): Tokens to keep of each; the audio after them is not looked at.

        Returns:
            `speech_tokens` int64 `(batch, tokens)`, 0 after a row's end, and `speech_token_lengths` int64 `(batch,)`.

        Raises:
            ValueError: a recording is shorter than 201 samples, not mono, or not finite, or `max_len` is not positive.
        """
        if max_len is not None and max_len < 1:
            raise ValueError(f"`max_len` must be at least 1 token, got {max_len}.")
        frames = [self._log_mel(samples.to(self.device)) for samples in check_waveforms(waveforms)]
        if max_len is not None:
            frames = [rows[: self.config.frames_per_token * max_len] for rows in frames]
        features = nn.utils.rnn.pad_sequence(frames, batch_first=True).transpose(1, 2)
        output = self(features, torch.tensor([len(rows) for rows in frames], device=self.device))
        return output.speech_tokens, output.speech_token_lengths

    def _log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        config = self.config
        return whisper_log_mel(
            samples,
            sampling_rate=config.sampling_rate,
            fft_length=config.fft_length,
            hop_length=config.hop_length,
            bands=config.num_mel_bins,
        ).T

    def _lengths(self, input_features: Any, feature_lengths: Any, attention_mask: Any) -> torch.LongTensor:
        bands = self.config.num_mel_bins
        if input_features.dim() != 3 or input_features.shape[1] != bands or input_features.shape[2] == 0:
            raise ValueError(
                f"`input_features` must have shape (batch, {bands}, frames) with at least one frame, got "
                f"{tuple(input_features.shape)}."
            )
        return frame_lengths(
            input_features, input_features.shape[-1], feature_lengths, attention_mask, "feature_lengths"
        )

    def _windows_of(self, length: int) -> list[tuple[int, int]]:
        """First and last frame (exclusive) of the windows of an utterance."""
        size = self.config.window_frames
        if length <= size:
            return [(0, length)]
        windows = [
            (start, min(start + size, length)) for start in range(0, length, size - self.config.window_overlap_frames)
        ]
        # CODEPATH: off in the released tokenizer, whose windows are upstream's.
        if self.config.complete_tail:
            first_at_end = next(index for index, (_, end) in enumerate(windows) if end == length)
            windows = windows[: first_at_end + 1]
        return windows

    def _encode_windows(
        self, input_features: torch.Tensor, lengths: torch.LongTensor
    ) -> tuple[torch.Tensor, torch.LongTensor]:
        """As the encoder, windows of all rows in batches."""
        windows = [self._windows_of(length) for length in lengths.tolist()]
        pieces = [input_features[row, :, a:b].T for row, spans in enumerate(windows) for a, b in spans]
        encoded: list[torch.Tensor] = []
        for start in range(0, len(pieces), WINDOWS_PER_BATCH):
            batch = pieces[start : start + WINDOWS_PER_BATCH]
            batch_lengths = torch.tensor([len(piece) for piece in batch], device=input_features.device)
            padded = nn.utils.rnn.pad_sequence(batch, batch_first=True).transpose(1, 2)
            states, token_lengths = self.encoder(padded, batch_lengths)
            encoded += [row[:length] for row, length in zip(states, token_lengths.tolist(), strict=True)]
        remaining = iter(encoded)
        rows = [self._join([next(remaining) for _ in spans]) for spans in windows]
        token_lengths = torch.tensor([len(row) for row in rows], device=input_features.device)
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), token_lengths

    def _join(self, windows: list[torch.Tensor]) -> torch.Tensor:
        """One sequence (tokens, …) of overlapping ones: each gives up half of the overlap at its inner borders."""
        border = self.config.window_overlap_frames // self.config.frames_per_token // 2
        last = len(windows) - 1
        return torch.cat(
            [
                window[border if index else 0 : len(window) - border if index < last else None]
                for index, window in enumerate(windows)
            ]
        )


__all__ = ["S3TokenizerModel", "S3TokenizerOutput", "S3TokenizerPreTrainedModel"]
