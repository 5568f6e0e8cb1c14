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
"""MegaTTS3's duration model: phones and tones in, the length of each phone out, one after the other."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.utils import ModelOutput, can_return_tuple

from ...acceleration.attention import eager_attention_forward
from ...acceleration.programs import KeptPrograms
from .configuration_megatts3 import MegaTTS3DurationConfig
from .modeling_megatts3_base import MegaTTS3PreTrainedModel, check_ids
from .modeling_megatts3_text_encoder import MegaTTS3TextEmbedding, MegaTTS3TextEncoder, sinusoid_positions
from .sampling_megatts3_duration import DurationLoop, MegaTTS3DurationPrompt, check_sampling


class KeyValueStore(Protocol):
    """What the layers need of a cache; a `Cache` of the library has it."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in states `(batch, heads, new, head_dim)`; returns all states."""


# trf-ignore: TRF057
@dataclass
class MegaTTS3DurationOutput(ModelOutput):
    """
    What [`MegaTTS3DurationModel`] returns.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            Mean squared error of the tokens, or their cross entropy where the head classifies.
        logits (`torch.FloatTensor` of shape `(batch, length, 1)` or `(batch, length, num_durations + 1)`):
            The duration token of each phone as one number (positive, not rounded), or scores of all tokens.
        past_key_values (`Cache`, *optional*):
            Keys (rotated) and values of the decoder.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    past_key_values: Cache | None = None


class MegaTTS3DurationAttention(nn.Module):
    """Self-attention with rotary positions, without biases."""

    is_causal = True
    num_key_value_groups = 1

    def __init__(self, config: MegaTTS3DurationConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: KeyValueStore | None,
    ) -> torch.Tensor:
        heads = self.qkv_proj(hidden_states).unflatten(-1, (3, -1, self.head_dim))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        queries, keys = apply_rotary_pos_emb(queries, keys, *position_embeddings)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)
        # The loop's room of fixed size needs its mask, which flash attention does not take.
        is_loop = past_key_values is not None and not isinstance(past_key_values, Cache)
        implementation = "sdpa" if is_loop else self.config._attn_implementation
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        attended, _ = attend(
            self,
            queries,
            keys,
            values,
            attention_mask,
            dropout=self.config.dropout if self.training else 0.0,
            scaling=self.scaling,
        )
        return self.o_proj(attended.reshape(hidden_states.shape))


class MegaTTS3DurationLayer(GradientCheckpointingLayer):
    """Attention and feed-forward layer, each normalised before."""

    def __init__(self, config: MegaTTS3DurationConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = MegaTTS3DurationAttention(config, layer_idx)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout, self.norm_first = config.dropout, config.norm_first

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: KeyValueStore | None = None,
    ) -> torch.Tensor:
        normed = self.self_attn_layer_norm(hidden_states) if self.norm_first else hidden_states
        attended = self.self_attn(normed, position_embeddings, attention_mask, past_key_values)
        hidden_states = hidden_states + F.dropout(attended, self.dropout, self.training)
        # CODEPATH: the released checkpoint normalises first; upstream's class can also do so after.
        if not self.norm_first:
            hidden_states = self.self_attn_layer_norm(hidden_states)
            transformed = self.fc2(F.gelu(self.fc1(hidden_states)))
            return self.final_layer_norm(hidden_states + F.dropout(transformed, self.dropout, self.training))
        transformed = self.fc2(F.gelu(self.fc1(self.final_layer_norm(hidden_states))))
        return hidden_states + F.dropout(transformed, self.dropout, self.training)


# trf-ignore: TRF057
class MegaTTS3DurationModel(MegaTTS3PreTrainedModel):
    """
    Gives every phone a length. A duration token is the length in frames of 10 ms plus one; each depends on the phones
    and tones of its piece of text and on the tokens before it. [`~MegaTTS3DurationModel.prompt`] reads a reference's,
    [`~MegaTTS3DurationModel.predict`] writes a text's, and `forward` with `labels` is the training loss.
    """

    config_class = MegaTTS3DurationConfig
    config: MegaTTS3DurationConfig
    input_modalities = ("text",)
    _no_split_modules = ["MegaTTS3DurationLayer", "MegaTTS3TextLayer"]

    def __init__(self, config: MegaTTS3DurationConfig) -> None:
        super().__init__(config)
        # CODEPATH: the released checkpoint has an encoder; upstream's class can also read embeddings alone.
        encoder_class = MegaTTS3TextEncoder if config.use_text_encoder else MegaTTS3TextEmbedding
        self.text_encoder = encoder_class(config.text_encoder_config)
        self.text_projection = nn.Linear(config.text_encoder_config.hidden_size, config.hidden_size)
        self.duration_embedding = nn.Embedding(config.num_durations + 2, config.hidden_size)
        self.layers = nn.ModuleList(MegaTTS3DurationLayer(config, index) for index in range(config.num_hidden_layers))
        # CODEPATH: the released checkpoint has a last norm; without norms in front the layers end in one each.
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm_first else nn.Identity()
        # CODEPATH: the released model regresses; upstream's class can also be trained to classify.
        self.head = nn.Linear(config.hidden_size, 1 if self.is_regression else config.num_durations + 1)
        self._programs: KeptPrograms | None = None
        self.post_init()

    @property
    def is_regression(self) -> bool:
        """Whether the head gives one number per phone."""
        return self.config.head_type == "regression"

    def get_input_embeddings(self) -> nn.Module:
        return self.duration_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.duration_embedding = value

    def encode_text(self, phone_ids: torch.LongTensor, tone_ids: torch.LongTensor) -> torch.Tensor:
        """What the decoder reads of phones and tones: `(batch, length)` each, to `(batch, length, hidden_size)`.

        The rows of phone 0, padding on the right, are of no use.

        Raises:
            ValueError: the ids do not fit each other, the tables, or the positions.
        """
        if phone_ids.dim() == 2 and phone_ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(
                f"`phone_ids` may hold {self.config.max_position_embeddings} phones; it has {phone_ids.shape[1]}."
            )
        return self.text_projection(self.text_encoder(phone_ids, tone_ids))

    def rotation(self, positions: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines `(batch, length, head_dim)` of positions `(batch, length)`, in the model's dtype."""
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
        angles = positions[..., None].float() * self.config.rope_theta ** (-steps / head_dim)
        angles = torch.cat([angles, angles], dim=-1)
        dtype = self.head.weight.dtype
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def embed(
        self, text_states: torch.Tensor, duration_ids: torch.LongTensor, first: torch.Tensor | int = 0
    ) -> torch.Tensor:
        """The decoder's input.

        Args:
            text_states: `(batch, length, hidden_size)` of `encode_text`.
            duration_ids: int64 `(batch, length)`, the token before each phone.
            first: Index of the first of them in its piece of text.
        """
        embeds = text_states + self.duration_embedding(duration_ids)
        # CODEPATH: a checkpoint's configuration says whether it was trained with absolute positions.
        if self.config.use_position_embedding:
            positions = torch.arange(1, duration_ids.shape[1] + 1, device=duration_ids.device) + first
            embeds = embeds + sinusoid_positions(positions, embeds.shape[-1]).to(embeds)
        return embeds

    def decode(
        self,
        hidden_states: torch.Tensor,
        positions: torch.LongTensor,
        attention_mask: torch.Tensor | None,
        past_key_values: KeyValueStore | None = None,
    ) -> torch.Tensor:
        """The decoder's output; the arguments are inputs, rotary positions `(batch, length)`, a mask and a cache."""
        position_embeddings = self.rotation(positions)
        for layer in self.layers:
            hidden_states = layer(hidden_states, position_embeddings, attention_mask, past_key_values)
        logits = self.head(self.norm(hidden_states))
        return F.softplus(logits) if self.is_regression else logits

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        phone_ids: torch.LongTensor,
        tone_ids: torch.LongTensor,
        duration_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> MegaTTS3DurationOutput:
        r"""
        The duration token of each phone given those before it, and the training loss.

        Args:
            phone_ids (`torch.LongTensor` of shape `(batch, length)`):
                Phones, padded on the right with 0.
            tone_ids (`torch.LongTensor` of shape `(batch, length)`):
                Their tones.
            duration_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                The token before each phone, the first of them `config.begin_token_id`; made from `labels` by default.
            past_key_values (`Cache`, *optional*):
                An empty cache to fill; [`~MegaTTS3DurationModel.predict`] continues it.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                The token of each phone: its frames plus one, 1…`config.num_durations`. Padding and -100 are left out
                of the loss.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`.

        Returns:
            [`MegaTTS3DurationOutput`].

        Raises:
            ValueError: an input is missing or does not fit.
        """
        if duration_ids is None:
            duration_ids = self._tokens_before(labels)
        for name, ids in (("duration_ids", duration_ids), ("labels", labels)):
            if ids is not None and ids.shape != phone_ids.shape:
                raise ValueError(
                    f"`{name}` must have the shape of `phone_ids` {tuple(phone_ids.shape)}; got {tuple(ids.shape)}."
                )
        check_ids("duration_ids", duration_ids, self.config.num_durations + 2)
        if past_key_values is None and use_cache:
            past_key_values = DynamicCache()
        hidden_states = self.embed(self.encode_text(phone_ids, tone_ids), duration_ids)
        positions = torch.arange(phone_ids.shape[1], device=phone_ids.device).expand(phone_ids.shape)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=(phone_ids > 0).long(),
            past_key_values=past_key_values,
            position_ids=positions,
        )
        logits = self.decode(hidden_states, positions, mask, past_key_values)
        loss = None if labels is None else self._loss(logits, labels.masked_fill(phone_ids <= 0, -100))
        return MegaTTS3DurationOutput(loss=loss, logits=logits, past_key_values=past_key_values)

    def _tokens_before(self, tokens: torch.LongTensor | None) -> torch.LongTensor:
        """The tokens before each of `(batch, length)`."""
        if tokens is None:
            raise ValueError("`duration_ids` is missing: it or `labels` is needed.")
        start = tokens.new_full((tokens.shape[0], 1), self.config.begin_token_id)
        return torch.cat([start, tokens[:, :-1].clamp(min=0)], dim=1)

    def _loss(self, logits: torch.Tensor, labels: torch.LongTensor) -> torch.Tensor:
        if not self.is_regression:
            return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)
        is_counted = labels != -100
        errors = (logits[..., 0].float() - labels.to(logits.device)).square()
        return (errors * is_counted).sum() / is_counted.sum().clamp(min=1)

    @torch.no_grad()
    def prompt(
        self, phone_ids: torch.LongTensor, tone_ids: torch.LongTensor, durations: torch.LongTensor
    ) -> MegaTTS3DurationPrompt:
        """References as [`~MegaTTS3DurationModel.predict`] reads them; one can be used for many texts.

        Args:
            phone_ids: int64 `(batch, length)`, padded on the right with 0.
            tone_ids: int64 `(batch, length)`.
            durations: int64 `(batch, length)`, frames of each phone; more than the model tells apart are the most.

        Raises:
            ValueError: a reference has no phones, or the inputs do not fit each other.
        """
        lengths = (phone_ids > 0).sum(-1)
        if durations.shape != phone_ids.shape:
            raise ValueError(
                f"`durations` must have the shape of `phone_ids` {tuple(phone_ids.shape)}; got "
                f"{tuple(durations.shape)}."
            )
        if phone_ids.device.type == "cpu" and not bool(lengths.all()):
            raise ValueError("`phone_ids` has a row without any phone.")
        tokens = durations.long().clamp(0, self.config.num_durations - 1) + 1
        output = self(phone_ids, tone_ids, self._tokens_before(tokens), use_cache=True, return_dict=True)
        return MegaTTS3DurationPrompt(
            keys=torch.stack([layer.keys for layer in output.past_key_values.layers]),
            values=torch.stack([layer.values for layer in output.past_key_values.layers]),
            lengths=lengths,
            last_tokens=tokens.gather(1, (lengths - 1)[:, None])[:, 0],
        )

    @torch.no_grad()
    def predict(
        self,
        prompt: MegaTTS3DurationPrompt | None,
        phone_ids: torch.LongTensor,
        tone_ids: torch.LongTensor,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 0,
        generator: torch.Generator | None = None,
    ) -> torch.LongTensor:
        """Duration tokens of texts, after their references.

        Args:
            prompt: One reference per row; without any, the speaker is the model's choice. It is left as it is.
            phone_ids: int64 `(batch, length)`, padded on the right with 0.
            tone_ids: int64 `(batch, length)`.
            do_sample: Whether to draw tokens, where the head classifies.
            temperature: Flattens (above 1) or sharpens (below 1) the scores of a draw.
            top_k: How many of the best scores a draw chooses from; 0 for all.
            generator: Of the draws.

        Returns:
            int64 `(batch, length)`: frames plus one, 0 on padding. The first may be 0 elsewhere too.

        Raises:
            ValueError: the inputs do not fit each other, or sampling is asked of a model that regresses.
        """
        if do_sample:
            check_sampling(self.is_regression, temperature, top_k)
        if prompt is not None and len(prompt.lengths) != len(phone_ids):
            raise ValueError(f"`prompt` has {len(prompt.lengths)} rows, `phone_ids` {len(phone_ids)}.")
        text_states, (batch_size, steps) = self.encode_text(phone_ids, tone_ids), phone_ids.shape
        room = steps if prompt is None else steps + prompt.keys.shape[3]
        if self._programs is None or do_sample:
            loop = DurationLoop(self, batch_size, room)
            loop.load(prompt, text_states)
            tokens = loop.run(steps, (temperature, top_k, generator) if do_sample else None)
        else:
            with self._programs.lock:
                loop = self._programs.get(partial(DurationLoop.recorded, self), self.head.weight, batch_size, room)
                loop.load(prompt, text_states)
                tokens = loop.run(steps)
        return tokens * (phone_ids > 0)

    def use_cuda_graphs(self, bucket_phones: int | None = 128) -> "MegaTTS3DurationModel":
        """Launch every step of [`~MegaTTS3DurationModel.predict`] as one CUDA graph.

        It is recorded once per batch size and length bucket. On other devices only the buckets are used.

        Args:
            bucket_phones (`int`, *optional*, defaults to 128):
                Phones (of reference and text together) that lengths are rounded up to; `None` ends it.

        Returns:
            The model itself.

        Raises:
            ValueError: `bucket_phones` is not positive.
        """
        if bucket_phones is not None and bucket_phones < 1:
            raise ValueError(f"`bucket_phones` must be at least 1 or `None`; got {bucket_phones}.")
        self._programs = None if bucket_phones is None else KeptPrograms(bucket_phones)
        return self


__all__ = ["MegaTTS3DurationModel", "MegaTTS3DurationOutput"]
