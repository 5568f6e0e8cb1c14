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
"""Chatterbox: T3 writes speech tokens from text and a voice, S3Gen makes them audible, an LSTM tells voices apart."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Cache, GPT2Model, LlamaModel, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward
from transformers.utils import ModelOutput, can_return_tuple

from ...audio.speaker_windows import SpeakerWindowsMixin
from ...language_model_part import LanguageModelEmbeddingsMixin
from ...loading import CompleteCheckpointMixin
from ..s3gen import S3GenModel
from .configuration_chatterbox import ChatterboxConfig, ChatterboxT3Config, ChatterboxVoiceEncoderConfig
from .generation_chatterbox import ChatterboxGenerationMixin


DEFAULT_EXAGGERATION = 0.5


# trf-ignore: TRF057
@dataclass
class ChatterboxOutput(ModelOutput):
    """
    What [`ChatterboxT3Model`] and [`ChatterboxForConditionalGeneration`] return.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            `speech_loss`, plus `text_loss` where there are `text_labels`.
        logits (`torch.FloatTensor` of shape `(batch, speech_length, speech_vocab_size)`):
            Scores of the speech token after each position.
        text_logits (`torch.FloatTensor` of shape `(batch, text_length, text_vocab_size)`, *optional*):
            Scores of the text token after each position.
        speech_loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            Cross entropy of the speech tokens.
        text_loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `text_labels`):
            Cross entropy of the text tokens.
        past_key_values (`Cache`, *optional*):
            Keys and values of the backbone.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    text_logits: torch.FloatTensor | None = None
    speech_loss: torch.FloatTensor | None = None
    text_loss: torch.FloatTensor | None = None
    past_key_values: Cache | None = None


# trf-ignore: TRF057
@dataclass
class ChatterboxVoiceEncoderOutput(ModelOutput):
    """
    What [`ChatterboxVoiceEncoder`] returns.

    Args:
        speaker_embeddings (`torch.FloatTensor` of shape `(batch, speaker_embed_size)`):
            One vector of length 1 per recording.
    """

    speaker_embeddings: torch.FloatTensor | None = None


# trf-ignore: TRF057
class ChatterboxPreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """What the networks of Chatterbox share: attention kinds, what stays in float32, no silently random weights."""

    config_class = ChatterboxConfig
    config: ChatterboxConfig
    conversion_script = "convert_chatterbox_to_hf.py"
    base_model_prefix = "model"
    main_input_name = "input_ids"
    # The losses are means: `Trainer` divides them by its accumulation steps.
    accepts_loss_kwargs = False
    input_modalities = ("text", "audio")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    # Token ids are picked by T3 in any precision; what makes and hears sound loses audible detail in half the bits.
    _keep_in_fp32_modules_strict = ["s3gen", "voice_encoder"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ChatterboxPerceiver):
            bound = (3.0 / module.query.shape[1]) ** 0.5
            init.uniform_(module.query, -bound, bound)


# trf-ignore: TRF057
class ChatterboxForConditionalGeneration(
    LanguageModelEmbeddingsMixin, ChatterboxPreTrainedModel, ChatterboxGenerationMixin
):
    """
    The Chatterbox text-to-speech model: `t3` writes the speech tokens that `s3gen` makes audible; `voice_encoder`,
    with parts of `s3gen`, turns a recording into a voice. [`~ChatterboxGenerationMixin.generate`] speaks,
    [`~ChatterboxGenerationMixin.generate_stream`] speaks while it generates, and `forward` with `labels` is the
    training loss of T3.

    `voice_encoder` and `s3gen` are frozen.
    """

    language_model_name = "t3"

    def __init__(self, config: ChatterboxConfig) -> None:
        super().__init__(config)
        self.t3 = ChatterboxT3Model._from_config(config.t3_config)
        self.voice_encoder = ChatterboxVoiceEncoder._from_config(config.voice_encoder_config)
        self.s3gen = S3GenModel._from_config(config.s3gen_config)
        self._freeze_parts()
        self.generation_config = self._default_generation_config()
        self.post_init()

    def _freeze_parts(self) -> None:
        for part in (self.voice_encoder, self.s3gen):
            part.requires_grad_(False)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, with the parts that do not train frozen.

        Raises:
            ValueError: the folder misses weights of a part, which would otherwise be silently random.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._freeze_parts()
        return loaded

    def train(self, mode: bool = True) -> "ChatterboxForConditionalGeneration":
        """As the parent's; the frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in (self.voice_encoder, self.s3gen):
            part.eval()
        return self

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        speech_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> ChatterboxOutput:
        r"""
        Scores of the speech tokens, and the training loss.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, text_length)`, *optional*):
                Text ids, with the ids that stand around a text.
            attention_mask (`torch.Tensor` of shape `(batch, text_length)`, *optional*):
                1 for text, 0 for padding.
            speech_ids (`torch.LongTensor` of shape `(batch, speech_length)`, *optional*):
                Speech tokens, with their start.
            labels (`torch.LongTensor` of shape `(batch, speech_length)`, *optional*):
                Speech tokens aligned with `speech_ids` (shifted inside); -100 is left out of the loss.
            kwargs:
                The other arguments of [`ChatterboxT3Model.forward`].

        Returns:
            [`ChatterboxOutput`].

        Raises:
            ValueError: an input is missing, or a text or its speech has more positions than the model.
        """
        return self.t3(
            input_ids=input_ids,
            attention_mask=attention_mask,
            speech_ids=speech_ids,
            labels=labels,
            return_dict=True,
            **kwargs,
        )


# trf-ignore: TRF057
class ChatterboxT3Model(ChatterboxPreTrainedModel):
    """
    T3, the language model from text to speech tokens. It reads [voice | text | speech so far]; the voice is a speaker
    vector, speech tokens of the reference and, for guided models, a degree of exaggeration.
    """

    config_class = ChatterboxT3Config
    config: ChatterboxT3Config

    def __init__(self, config: ChatterboxT3Config) -> None:
        super().__init__(config)
        width = config.hidden_size
        backbones = {"llama": ChatterboxLlamaModel, "gpt2": ChatterboxGPT2Model}
        self.backbone = backbones[config.backbone_config.model_type]._from_config(config.backbone_config)
        self.conditioning = ChatterboxConditioning(config)
        self.text_embedding = nn.Embedding(config.text_vocab_size, width)
        self.speech_embedding = nn.Embedding(config.speech_vocab_size, width)
        self.text_position_embedding = self.speech_position_embedding = None
        # CODEPATH: the Llama models add learned positions to the backbone's own; Turbo and Nano do not.
        if config.max_text_positions is not None:
            self.text_position_embedding = nn.Embedding(config.max_text_positions, width)
            self.speech_position_embedding = nn.Embedding(config.max_speech_positions, width)
        self.text_head = nn.Linear(width, config.text_vocab_size, bias=False)
        self.speech_head = nn.Linear(width, config.speech_vocab_size, bias=config.speech_head_bias)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_embedding = value

    def get_output_embeddings(self) -> nn.Module:
        return self.speech_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.speech_head = new_embeddings

    def embed_text(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        drop_text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Rows of a text `(batch, length, hidden_size)`.

        Args:
            input_ids: int64 `(batch, length)`.
            attention_mask: `(batch, length)`, 0 for padding, which does not count as a position.
            drop_text: bool `(batch,)`; such rows keep their positions only, as guidance needs it.
        """
        embeds = self.text_embedding(input_ids)
        if drop_text is not None:
            embeds = embeds.masked_fill(drop_text.to(embeds.device)[:, None, None].bool(), 0.0)
        if self.text_position_embedding is None:
            return embeds
        return embeds + self.text_position_embedding(
            _positions("input_ids", input_ids, attention_mask, self.text_room)
        )

    def embed_speech(
        self,
        speech_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        positions: torch.LongTensor | None = None,
    ) -> torch.Tensor:
        """Rows of speech tokens `(batch, length, hidden_size)`.

        Args:
            speech_ids: int64 `(batch, length)`.
            attention_mask: `(batch, length)`, 0 for padding, which does not count as a position.
            positions: int64 `(batch, length)`, where they do not begin at 0.
        """
        embeds = self.speech_embedding(speech_ids)
        if self.speech_position_embedding is None:
            return embeds
        if positions is None:
            positions = _positions("speech_ids", speech_ids, attention_mask, self.speech_room)
        return embeds + self.speech_position_embedding(positions)

    @property
    def text_room(self) -> int | None:
        """The most text ids, with those around a text; `None` where only the context limits them."""
        return self.config.max_text_positions

    @property
    def speech_room(self) -> int | None:
        """The most speech positions; `None` where only the context limits them."""
        return self.config.max_speech_positions

    def embed_voice(
        self,
        speaker_embeddings: torch.Tensor,
        prompt_tokens: torch.LongTensor | None = None,
        exaggeration: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows that stand before a text.

        Args:
            speaker_embeddings: `(batch, speaker_embed_size)`.
            prompt_tokens: int64 `(batch, length)`, speech tokens of the reference; -1 for padding.
            exaggeration: `(batch,)`; 0.5 by default. Only guided models take it.

        Returns:
            The rows `(batch, length, hidden_size)`, and int64 `(batch, length)`, 0 where a row is padding.
        """
        prompt, mask, bias = None, None, None
        if prompt_tokens is not None and prompt_tokens.shape[1]:
            mask = (prompt_tokens >= 0).long()
            prompt = self.embed_speech(prompt_tokens.clamp(min=0), mask)
            bias = self.conditioning.attention_bias(prompt, mask)
        if exaggeration is None:
            exaggeration = speaker_embeddings.new_full(speaker_embeddings.shape[:1], DEFAULT_EXAGGERATION)
        return self.conditioning(speaker_embeddings, prompt, mask, bias, exaggeration)

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        speech_ids: torch.LongTensor | None = None,
        speech_attention_mask: torch.Tensor | None = None,
        speaker_embeddings: torch.FloatTensor | None = None,
        prompt_tokens: torch.LongTensor | None = None,
        exaggeration: torch.FloatTensor | None = None,
        drop_text: torch.BoolTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        labels: torch.LongTensor | None = None,
        text_labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> ChatterboxOutput:
        r"""
        Scores of the text and speech tokens after each position, and the training loss.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, text_length)`, *optional*):
                Text ids, with the ids that stand around a text.
            attention_mask (`torch.Tensor` of shape `(batch, text_length)`, *optional*):
                1 for text, 0 for padding on either side; with `inputs_embeds`, over all positions.
            speech_ids (`torch.LongTensor` of shape `(batch, speech_length)`, *optional*):
                Speech tokens, with their start.
            speech_attention_mask (`torch.Tensor` of shape `(batch, speech_length)`, *optional*):
                1 for speech, 0 for padding.
            speaker_embeddings (`torch.FloatTensor` of shape `(batch, speaker_embed_size)`, *optional*):
                The voice.
            prompt_tokens (`torch.LongTensor` of shape `(batch, prompt_length)`, *optional*):
                Speech tokens of the voice's reference, -1 for padding.
            exaggeration (`torch.FloatTensor` of shape `(batch,)`, *optional*):
                0.5 by default. Only guided models take it.
            drop_text (`torch.BoolTensor` of shape `(batch,)`, *optional*):
                Rows whose text is left out; training some so keeps the model fit for guidance.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, length, hidden_size)`, *optional*):
                The rows themselves, instead of all the above; every position is then scored as speech.
            position_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Positions of the backbone; counted without the padding by default.
            past_key_values (`Cache`, *optional*):
                Keys and values of earlier positions.
            labels (`torch.LongTensor` of shape `(batch, speech_length)`, *optional*):
                Speech tokens aligned with `speech_ids` (shifted inside); -100 is left out of the loss.
            text_labels (`torch.LongTensor` of shape `(batch, text_length)`, *optional*):
                The same for the text.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`.

        Returns:
            [`ChatterboxOutput`].

        Raises:
            ValueError: an input is missing, or a text or its speech has more positions than the model.
        """
        first_text = first_speech = 0
        if inputs_embeds is None:
            _check_given(input_ids=input_ids, speech_ids=speech_ids, speaker_embeddings=speaker_embeddings)
            voice, voice_mask = self.embed_voice(speaker_embeddings, prompt_tokens, exaggeration)
            text = self.embed_text(input_ids, attention_mask, drop_text)
            speech = self.embed_speech(speech_ids, speech_attention_mask)
            inputs_embeds = torch.cat([voice, text, speech], dim=1)
            masks = [voice_mask, _mask_like(input_ids, attention_mask), _mask_like(speech_ids, speech_attention_mask)]
            attention_mask = torch.cat([mask.to(inputs_embeds.device).long() for mask in masks], dim=1)
            first_text, first_speech = voice.shape[1], voice.shape[1] + text.shape[1]
        if position_ids is None and attention_mask is not None and past_key_values is None:
            position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        outputs = self.backbone(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        states = outputs.last_hidden_state
        output = ChatterboxOutput(
            logits=self.speech_head(states[:, first_speech:]), past_key_values=outputs.past_key_values
        )
        if first_speech:
            output.text_logits = self.text_head(states[:, first_text:first_speech])
        return self._with_losses(output, labels, text_labels)

    @staticmethod
    def _with_losses(
        output: ChatterboxOutput, labels: torch.LongTensor | None, text_labels: torch.LongTensor | None
    ) -> ChatterboxOutput:
        if labels is not None:
            output.loss = output.speech_loss = _next_token_loss(output.logits, labels)
        if text_labels is not None:
            output.text_loss = _next_token_loss(output.text_logits, text_labels)
            output.loss = output.text_loss if output.loss is None else output.loss + output.text_loss
        return output


def _check_given(**inputs: torch.Tensor | None) -> None:
    missing = [f"`{name}`" for name, value in inputs.items() if value is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: all of them are needed, or `inputs_embeds`.")


def _mask_like(ids: torch.LongTensor, mask: torch.Tensor | None) -> torch.Tensor:
    return torch.ones_like(ids) if mask is None else mask


def _positions(
    name: str, ids: torch.LongTensor, attention_mask: torch.Tensor | None, room: int | None
) -> torch.LongTensor:
    """Positions `(batch, length)` counted without padding."""
    if room is not None and ids.shape[1] > room:
        raise ValueError(f"`{name}` has {ids.shape[1]} positions; the model has {room}: split the text.")
    if attention_mask is None:
        return torch.arange(ids.shape[1], device=ids.device)[None]
    return (attention_mask.to(ids.device).cumsum(-1) - 1).clamp(min=0)


def _next_token_loss(logits: torch.Tensor, labels: torch.LongTensor) -> torch.Tensor:
    """Mean cross entropy of the label after each position, in float32."""
    targets = labels[:, 1:].to(logits.device).flatten()
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), targets, ignore_index=-100)


# trf-ignore: TRF057
class ChatterboxLlamaModel(LlamaModel):
    """`LlamaModel` without a table of its own. Takes `inputs_embeds`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        del self.embed_tokens
        self.post_init()

    def get_input_embeddings(self) -> nn.Module | None:
        return None


# trf-ignore: TRF057
class ChatterboxGPT2Model(GPT2Model):
    """`GPT2Model` without a table of its own. Takes `inputs_embeds`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        del self.wte
        self.post_init()

    def get_input_embeddings(self) -> nn.Module | None:
        return None


class ChatterboxConditioning(nn.Module):
    """What T3 reads of a voice: speaker, prompt (summed up by the perceiver, where there is one), emotion."""

    def __init__(self, config: ChatterboxT3Config) -> None:
        super().__init__()
        self.speaker_projection = nn.Linear(config.speaker_embed_size, config.hidden_size)
        self.perceiver = self.emotion_projection = None
        # CODEPATH: the English and multilingual checkpoints have a perceiver; Turbo and Nano read the prompt itself.
        if config.use_perceiver:
            self.perceiver = ChatterboxPerceiver(config)
        # CODEPATH: the English and multilingual checkpoints take exaggeration; Turbo and Nano do not.
        if config.use_emotion:
            self.emotion_projection = nn.Linear(1, config.hidden_size, bias=False)

    def attention_bias(self, prompt: torch.Tensor, prompt_mask: torch.LongTensor) -> torch.Tensor | None:
        """What the perceiver needs to pass over the padding of `prompt` `(batch, length, hidden_size)`."""
        if self.perceiver is None:
            return None
        return create_bidirectional_mask(
            config=self.perceiver.attention.config,
            inputs_embeds=self.perceiver.query.expand(len(prompt), -1, -1),
            attention_mask=prompt_mask,
            encoder_hidden_states=prompt,
        )

    def forward(
        self,
        speaker_embeddings: torch.Tensor,
        prompt: torch.Tensor | None,
        prompt_mask: torch.Tensor | None,
        attention_bias: torch.Tensor | None,
        exaggeration: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See [`ChatterboxT3Model.embed_voice`]; `prompt` is `(batch, length, hidden_size)`, with mask and bias."""
        weight = self.speaker_projection.weight
        rows = [self.speaker_projection(speaker_embeddings.to(weight))[:, None]]
        masks = [torch.ones_like(rows[0][..., 0], dtype=torch.long)]
        if prompt is not None:
            if self.perceiver is not None:
                prompt = self.perceiver(prompt, attention_bias)
                prompt_mask = torch.ones_like(prompt[..., 0], dtype=torch.long)
            rows.append(prompt)
            masks.append(prompt_mask)
        if self.emotion_projection is not None:
            rows.append(self.emotion_projection(exaggeration.to(weight)[:, None])[:, None])
            masks.append(torch.ones_like(masks[0]))
        return torch.cat(rows, dim=1), torch.cat(masks, dim=1)


class ChatterboxPerceiver(nn.Module):
    """Sums a prompt of any length up in a fixed number of rows, by one block of attention used twice."""

    def __init__(self, config: ChatterboxT3Config) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, config.perceiver_queries, config.hidden_size))
        self.attention = ChatterboxPerceiverAttention(config)

    def forward(self, hidden_states: torch.Tensor, attention_bias: torch.Tensor | None = None) -> torch.Tensor:
        """`(batch, length, hidden_size)` and the bias of its padding to `(batch, perceiver_queries, hidden_size)`."""
        queries = self.query.expand(hidden_states.shape[0], -1, -1)
        summary = self.attention(queries, hidden_states, attention_bias)
        return self.attention(summary, summary)


class ChatterboxPerceiverAttention(nn.Module):
    """Multi-head attention over normalised inputs, both by the same norm, added to the queries."""

    is_causal = False
    num_key_value_groups = 1

    def __init__(self, config: ChatterboxT3Config) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        self.heads, self.head_dim = config.perceiver_heads, width // config.perceiver_heads
        self.scaling, self.dropout = self.head_dim**-0.5, config.perceiver_dropout
        self.norm = nn.LayerNorm(width)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, queries: torch.Tensor, hidden_states: torch.Tensor, attention_bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        normed = self.norm(hidden_states)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended, _ = attend(
            self,
            self._split(self.q_proj(self.norm(queries))),
            self._split(self.k_proj(normed)),
            self._split(self.v_proj(normed)),
            attention_bias,
            dropout=self.dropout if self.training else 0.0,
            scaling=self.scaling,
            is_causal=False,
        )
        return queries + self.out_proj(attended.flatten(-2))

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """`(batch, length, hidden_size)` to `(batch, heads, length, head_dim)`."""
        return states.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)


# trf-ignore: TRF057
class ChatterboxVoiceEncoder(SpeakerWindowsMixin, ChatterboxPreTrainedModel):
    """
    Tells speakers apart (a GE2E network): an LSTM over windows of a recording's mel frames, averaged and normalised.
    [`ChatterboxFeatureExtractor`] makes the frames.
    """

    config_class = ChatterboxVoiceEncoderConfig
    config: ChatterboxVoiceEncoderConfig
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = False

    def __init__(self, config: ChatterboxVoiceEncoderConfig) -> None:
        super().__init__(config)
        self.lstm = nn.LSTM(config.num_mel_bins, config.hidden_size, config.num_hidden_layers, batch_first=True)
        self.projection = nn.Linear(config.hidden_size, config.speaker_embed_size)
        self.post_init()

    def count_windows(self, frames: int) -> int:
        """How many windows a recording of `frames` mel frames has."""
        config, step = self.config, self.config.frame_step
        count, rest = divmod(max(frames - config.window_frames + step, 0), step)
        is_covered = (rest + config.window_frames - step) / config.window_frames >= config.min_coverage
        return count + int(count == 0 or is_covered)

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self, input_features: torch.FloatTensor, attention_mask: torch.LongTensor | None = None, **kwargs: Any
    ) -> ChatterboxVoiceEncoderOutput:
        r"""
        One vector per recording.

        Args:
            input_features (`torch.FloatTensor` of shape `(batch, frames, num_mel_bins)`):
                Mel power, without a logarithm.
            attention_mask (`torch.LongTensor` of shape `(batch, frames)`, *optional*):
                1 for frames, 0 for padding on the right.

        Raises:
            ValueError: the features do not have the encoder's shape, or a recording has no frames.
        """
        bands = self.config.num_mel_bins
        if input_features.dim() != 3 or input_features.shape[-1] != bands:
            raise ValueError(
                f"`input_features` must have the shape (batch, frames, {bands}); got {tuple(input_features.shape)}."
            )
        windows = [self._windows(row) for row in self._recordings(input_features, attention_mask)]
        return ChatterboxVoiceEncoderOutput(speaker_embeddings=self.embed_recordings(windows))

    @staticmethod
    def _recordings(features: torch.Tensor, attention_mask: torch.LongTensor | None) -> list[torch.Tensor]:
        """The frames of each recording, without padding."""
        lengths = [features.shape[1]] * len(features)
        if attention_mask is not None:
            lengths = attention_mask.sum(-1).tolist()
        if min(lengths) < 1:
            raise ValueError("`input_features` must hold at least one frame per recording.")
        return [row[:length] for row, length in zip(features, lengths, strict=True)]

    def _windows(self, frames: torch.Tensor) -> torch.Tensor:
        """`(frames, bands)` to overlapping windows `(windows, window_frames, bands)`, the last one padded."""
        size, step, count = self.config.window_frames, self.config.frame_step, self.count_windows(len(frames))
        needed = size + step * (count - 1)
        frames = F.pad(frames, (0, 0, 0, max(needed - len(frames), 0)))[:needed]
        return frames.unfold(0, size, step).transpose(1, 2)


__all__ = [
    "ChatterboxForConditionalGeneration",
    "ChatterboxOutput",
    "ChatterboxPreTrainedModel",
    "ChatterboxT3Model",
    "ChatterboxVoiceEncoder",
    "ChatterboxVoiceEncoderOutput",
]
