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
"""MegaTTS3's aligner: a network built like Whisper that writes the phones of a recording and where each ends."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, EncoderDecoderCache, GenerationConfig, GenerationMixin
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.whisper.modeling_whisper import WhisperDecoderLayer, WhisperEncoderLayer
from transformers.utils import can_return_tuple

from ...audio.lengths import frame_lengths, length_mask
from .configuration_megatts3 import MegaTTS3AlignerConfig
from .modeling_megatts3_base import MegaTTS3PreTrainedModel, check_ids
from .modeling_megatts3_text_encoder import sinusoid_positions


class MegaTTS3AlignerEncoder(nn.Module):
    """Mel frames to half as many states. A row's states do not depend on its padding."""

    main_input_name = "input_features"

    def __init__(self, config: MegaTTS3AlignerConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.hidden_size, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.hidden_size, config.hidden_size, kernel_size=3, stride=2, padding=1)
        self.layers = nn.ModuleList(WhisperEncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.hidden_size)

    def embed(self, input_features: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
        """The convolutions, and positions: `(batch, bands, frames)` to `(batch, ceil(frames / 2), hidden_size)`.

        Args:
            input_features: Mel frames.
            frame_mask: bool `(batch, frames)`; padding is kept from the frames beside it.
        """
        hidden_states = input_features.to(self.conv1.weight)
        if frame_mask is not None:
            hidden_states = hidden_states * frame_mask[:, None]
        hidden_states = F.gelu(self.conv1(hidden_states))
        if frame_mask is not None:
            hidden_states = hidden_states * frame_mask[:, None]
        hidden_states = F.gelu(self.conv2(hidden_states)).transpose(1, 2)
        positions = torch.arange(hidden_states.shape[1], device=hidden_states.device)
        return hidden_states + sinusoid_positions(positions, hidden_states.shape[-1]).to(hidden_states)

    def encode(self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The layers, over `(batch, steps, hidden_size)`; `mask` `(batch, steps)` is false or 0 on padding."""
        bias = create_bidirectional_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, bias)
        return self.layer_norm(hidden_states)

    # trf-ignore: TRF057
    def forward(
        self, input_features: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutput:
        """States of `(batch, num_mel_bins, frames)`, with an `attention_mask` `(batch, frames)`."""
        bands, most = self.config.num_mel_bins, 2 * self.config.max_source_positions
        if input_features.dim() != 3 or input_features.shape[1] != bands or not 1 <= input_features.shape[2] <= most:
            raise ValueError(
                f"`input_features` must have the shape (batch, {bands}, frames) with at most {most} frames; got "
                f"{tuple(input_features.shape)}."
            )
        if attention_mask is None:
            return BaseModelOutput(last_hidden_state=self.encode(self.embed(input_features)))
        frame_mask = attention_mask.bool()
        hidden_states = self.embed(input_features, frame_mask)
        return BaseModelOutput(last_hidden_state=self.encode(hidden_states, frame_mask[:, ::2]))


class MegaTTS3AlignerDecoder(nn.Module):
    """Tokens and the encoder's states to states from which the next tokens are read."""

    def __init__(self, config: MegaTTS3AlignerConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_target_positions, config.hidden_size)
        self.layers = nn.ModuleList(WhisperDecoderLayer(config, index) for index in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        input_ids: torch.LongTensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
    ) -> torch.Tensor:
        """States `(batch, length, hidden_size)`; see [`MegaTTS3AlignerForConditionalGeneration.forward`]."""
        known, most = 0, self.config.max_target_positions
        if past_key_values is not None:
            known = past_key_values.get_seq_length()
        if input_ids.shape[1] > most:
            raise ValueError(f"`decoder_input_ids` has {input_ids.shape[1]} positions; the model has {most}.")
        positions = torch.arange(input_ids.shape[1], device=input_ids.device) + known
        hidden_states = self.embed_tokens(input_ids) + self.embed_positions(positions)
        causal = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=positions[None],
        )
        crossing = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=encoder_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                attention_mask=causal,
                encoder_hidden_states=encoder_hidden_states,
                encoder_attention_mask=crossing,
                past_key_values=past_key_values,
            )
        return self.layer_norm(hidden_states)


# trf-ignore: TRF057
class MegaTTS3AlignerForConditionalGeneration(MegaTTS3PreTrainedModel, GenerationMixin):
    """
    Writes what is said in a recording and when: phone and time tokens in turn. `align` gives them, `generate` is the
    library's, and `forward` with `labels` is the training loss.
    """

    config_class = MegaTTS3AlignerConfig
    config: MegaTTS3AlignerConfig
    main_input_name = "input_features"
    input_modalities = ("audio",)
    _no_split_modules = ["WhisperEncoderLayer", "WhisperDecoderLayer"]

    def __init__(self, config: MegaTTS3AlignerConfig) -> None:
        super().__init__(config)
        self.encoder = MegaTTS3AlignerEncoder(config)
        self.decoder = MegaTTS3AlignerDecoder(config)
        self.proj_out = nn.Linear(config.hidden_size, config.vocab_size)
        self.generation_config = GenerationConfig.from_model_config(config)
        self.generation_config.max_new_tokens = config.max_new_tokens
        self.post_init()

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return self.encoder

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.decoder.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        return self.proj_out

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.proj_out = new_embeddings

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_features: torch.FloatTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor] | None = None,
        past_key_values: Cache | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        r"""
        Scores of the token after each position, and the training loss.

        Args:
            input_features (`torch.FloatTensor` of shape `(batch, num_mel_bins, frames)`, *optional*):
                Whisper's logarithmic mel frames of the recording at 16 kHz, 10 ms each.
            attention_mask (`torch.LongTensor` of shape `(batch, frames)`, *optional*):
                1 for frames, 0 for padding on the right.
            decoder_input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Tokens so far; made from `labels` by default.
            decoder_attention_mask (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding.
            encoder_outputs (`BaseModelOutput`, *optional*):
                The states of the recording, instead of `input_features`.
            past_key_values (`Cache`, *optional*):
                Keys and values of earlier tokens and of the recording.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                The token after each position: what is to be written, with its end, without its start. -100 is left
                out of the loss.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`.

        Returns:
            `Seq2SeqLMOutput`.

        Raises:
            ValueError: an input is missing or does not fit the model.
        """
        if encoder_outputs is None:
            if input_features is None:
                raise ValueError("`input_features` is missing: it or `encoder_outputs` is needed.")
            encoder_outputs = self.encoder(input_features, attention_mask)
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("`decoder_input_ids` is missing: it or `labels` is needed.")
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        check_ids("decoder_input_ids", decoder_input_ids, self.config.vocab_size)
        if past_key_values is None and use_cache:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        hidden_states = self.decoder(
            decoder_input_ids,
            encoder_outputs[0],
            decoder_attention_mask,
            None if attention_mask is None else attention_mask[:, ::2].bool(),
            past_key_values,
        )
        logits = self.proj_out(hidden_states)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.float().flatten(0, 1), labels.to(logits.device).flatten(), ignore_index=-100)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=past_key_values,
            encoder_last_hidden_state=encoder_outputs[0],
        )

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.LongTensor:
        """The tokens before each of `labels` `(batch, length)`."""
        start = labels.new_full((labels.shape[0], 1), self.config.decoder_start_token_id)
        return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == -100, self.config.pad_token_id)], dim=1)

    @torch.no_grad()
    def align(
        self,
        input_features: torch.Tensor,
        lengths: torch.LongTensor | None = None,
        max_new_tokens: int | None = None,
    ) -> list[list[int]]:
        """What is said in recordings, and when.

        Args:
            input_features: `(batch, num_mel_bins, frames)`, padded on the right.
            lengths: int64 `(batch,)`, frames of each row; all by default.
            max_new_tokens: Where to stop without an end; as configured by default.

        Returns:
            The tokens of each row without their start and end: a phone token, then a time token, and so on. They are
            the likeliest at each step, and may break that form: what the network writes is not checked here.

        Raises:
            ValueError: the features or lengths do not fit.
        """
        config = self.config
        limit = config.max_new_tokens if max_new_tokens is None else max_new_tokens
        if not 1 <= limit < config.max_target_positions:
            raise ValueError(f"`max_new_tokens` must be in 1…{config.max_target_positions - 1}; got {limit}.")
        mask = None
        if lengths is not None:
            frames = input_features.shape[-1]
            mask = length_mask(frame_lengths(input_features, frames, lengths, None), frames).long()
        rows = self.generate(
            input_features, attention_mask=mask, do_sample=False, num_beams=1, max_new_tokens=limit, use_cache=True
        )
        return [_until(row, config.eos_token_id) for row in rows[:, 1:].tolist()]


def _until(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


__all__ = ["MegaTTS3AlignerForConditionalGeneration"]
