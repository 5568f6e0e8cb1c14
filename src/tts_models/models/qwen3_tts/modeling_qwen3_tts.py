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
"""Qwen3-TTS: a talker that writes the first code of every frame, a code predictor that writes the others, a codec."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Cache, PreTrainedModel, Qwen3Model
from transformers.activations import ACT2FN
from transformers.utils import ModelOutput, can_return_tuple

from ...language_model_part import LanguageModelEmbeddingsMixin
from ...loading import CompleteCheckpointMixin
from ..qwen3_tts_tokenizer import Qwen3TTSTokenizerModel
from .acceleration_qwen3_tts import restore_layout
from .configuration_qwen3_tts import Qwen3TTSCodePredictorConfig, Qwen3TTSConfig, Qwen3TTSTalkerConfig
from .generation_qwen3_tts import Qwen3TTSGenerationMixin
from .modeling_qwen3_tts_speaker_encoder import Qwen3TTSSpeakerEncoder


CODEC_FOLDER = "speech_tokenizer"
CODE_PREDICTOR_LOSS_WEIGHT = 0.3
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision")


# trf-ignore: TRF057
@dataclass
class Qwen3TTSOutput(ModelOutput):
    """
    What [`Qwen3TTSForConditionalGeneration`] returns.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            `talker_loss` plus 0.3 times `code_predictor_loss`.
        logits (`torch.FloatTensor` of shape `(batch, length, vocab_size)`):
            Scores of the first code of the frame after each position.
        talker_loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            Cross entropy of the first codes and the end.
        code_predictor_loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            Cross entropy of the other codes.
        past_key_values (`Cache`, *optional*):
            Keys and values of the talker.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    talker_loss: torch.FloatTensor | None = None
    code_predictor_loss: torch.FloatTensor | None = None
    past_key_values: Cache | None = None


# trf-ignore: TRF057
class Qwen3TTSPreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """What the networks of Qwen3-TTS share: attention kinds, what stays in float32, no silently random weights."""

    config_class = Qwen3TTSConfig
    config: Qwen3TTSConfig
    conversion_script = "convert_qwen3_tts_to_hf.py"
    base_model_prefix = "model"
    main_input_name = "input_ids"
    # The losses are means: `Trainer` divides them by its accumulation steps.
    accepts_loss_kwargs = False
    input_modalities = ("text", "audio")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    # The codec is a sixth of the weights, and its periodic activations lose audible precision in half the bits.
    _keep_in_fp32_modules_strict = ["speech_tokenizer"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True


# trf-ignore: TRF057
class Qwen3TTSForConditionalGeneration(LanguageModelEmbeddingsMixin, Qwen3TTSPreTrainedModel, Qwen3TTSGenerationMixin):
    """
    The Qwen3-TTS text-to-speech model: `talker` (with its `code_predictor`) writes the codes of `speech_tokenizer`;
    `speaker_encoder`, where there is one, turns a recording into a voice. [`~Qwen3TTSGenerationMixin.generate`]
    speaks, [`~Qwen3TTSGenerationMixin.generate_stream`] speaks while it generates, and `forward` with `labels` is the
    training loss of talker and code predictor.

    The codec and the speaker encoder are frozen. A released folder, with the codec in a sub-folder, loads as it is.
    """

    language_model_name = "talker"

    def __init__(self, config: Qwen3TTSConfig) -> None:
        super().__init__(config)
        self.talker = Qwen3TTSTalker._from_config(config.talker_config)
        self.speaker_encoder = None
        # CODEPATH: the Base checkpoints have a speaker encoder; CustomVoice and VoiceDesign have none.
        if config.speaker_encoder_config is not None:
            self.speaker_encoder = Qwen3TTSSpeakerEncoder._from_config(config.speaker_encoder_config)
        self.speech_tokenizer = None
        # CODEPATH: converted checkpoints hold their codec; released ones have it in a sub-folder (`from_pretrained`).
        if config.speech_tokenizer_config is not None:
            self.speech_tokenizer = Qwen3TTSTokenizerModel._from_config(config.speech_tokenizer_config)
        self._freeze_parts()
        self.generation_config = self._default_generation_config()
        self.post_init()

    def _freeze_parts(self) -> None:
        for part in (self.speaker_encoder, self.speech_tokenizer):
            if part is not None:
                part.requires_grad_(False)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, also for a folder as released, whose codec lies in a sub-folder.

        Raises:
            ValueError: the folder misses weights of a part, which would otherwise be silently random, or has no codec.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.speech_tokenizer is None:
            hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
            model.attach_codec(cls._released_codec(pretrained_model_name_or_path, hub))
        model._freeze_parts()
        model._complete_generation_config()
        return loaded

    @classmethod
    def _released_codec(cls, name: Any, hub: dict[str, Any]) -> Qwen3TTSTokenizerModel:
        try:
            return Qwen3TTSTokenizerModel.from_pretrained(name, subfolder=CODEC_FOLDER, dtype=torch.float32, **hub)
        except OSError as error:
            raise ValueError(
                f"{name} holds no codec: neither in its weights nor in the sub-folder `{CODEC_FOLDER}`. Join the two "
                f"with `conversion_scripts/{cls.conversion_script}`."
            ) from error

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As `PreTrainedModel.save_pretrained`; weights that the fast loops had joined are parted first."""
        if self._optimizer is not None:
            restore_layout(self.talker)
        super().save_pretrained(*args, **kwargs)

    def attach_codec(self, codec: Qwen3TTSTokenizerModel) -> None:
        """Speak through `codec` from now on, and save it with the model."""
        self.config.update({"speech_tokenizer_config": codec.config})
        self.speech_tokenizer = codec.to(self.device).requires_grad_(False).eval()

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        codec_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        speaker_embeddings: torch.FloatTensor | None = None,
        speaker_positions: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        loss_type: str = "aligned",
        **kwargs: Any,
    ) -> Qwen3TTSOutput:
        r"""
        Scores of the first codes, and the training loss.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                The text channel; -1 where a position has no text.
            codec_ids (`torch.LongTensor` of shape `(batch, length, num_code_groups)`, *optional*):
                The codec channel: a row of the codec table in the first column, and the other codes where the position
                is a frame; -1 where there is none.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for positions, 0 for padding on either side.
            position_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Counted from the first position that is not padding by default.
            past_key_values (`Cache`, *optional*):
                Keys and values of earlier positions.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, length, hidden_size)`, *optional*):
                The sum of both channels, instead of `input_ids` and `codec_ids`; only `codec_ids` is still needed for
                a loss.
            speaker_embeddings (`torch.FloatTensor` of shape `(batch, hidden_size)`, *optional*):
                A voice for each row, added at `speaker_positions`.
            speaker_positions (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Position of the voice in each row; -1 for none.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                First codes and the end, aligned with the positions (shifted inside); -100 is left out of the loss.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`.
            loss_type (`str`, *optional*, defaults to `"aligned"`):
                `"shipped"` computes the loss of upstream's training script with its known misalignments, for
                comparison only.

        Returns:
            [`Qwen3TTSOutput`].

        Raises:
            ValueError: no input, a position that holds nothing, or an unknown `loss_type`.
        """
        if loss_type not in LOSS_TYPES:
            raise ValueError(f"`loss_type` must be one of {', '.join(LOSS_TYPES)}; got {loss_type!r}.")
        if inputs_embeds is None:
            project = labels is None or loss_type == "aligned"
            inputs_embeds = self.talker.embed(input_ids, codec_ids, project=project)
            inputs_embeds = add_speakers(inputs_embeds, speaker_embeddings, speaker_positions)
        if position_ids is None and attention_mask is not None and past_key_values is None:
            position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        outputs = self.talker.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        output = Qwen3TTSOutput(
            logits=self.talker.codec_head(outputs.last_hidden_state), past_key_values=outputs.past_key_values
        )
        if labels is not None:
            output.talker_loss, output.code_predictor_loss = self.talker.losses(
                outputs.last_hidden_state, output.logits, codec_ids, labels, loss_type
            )
            output.loss = output.talker_loss + CODE_PREDICTOR_LOSS_WEIGHT * output.code_predictor_loss
        return output


LOSS_TYPES = ("aligned", "shipped")


def add_speakers(
    inputs_embeds: torch.Tensor, speaker_embeddings: torch.Tensor | None, positions: torch.LongTensor | None
) -> torch.Tensor:
    """`inputs_embeds` with each row's voice at its position; see [`Qwen3TTSForConditionalGeneration.forward`]."""
    if speaker_embeddings is None:
        return inputs_embeds
    if positions is None or positions.shape != speaker_embeddings.shape[:1]:
        found = None if positions is None else tuple(positions.shape)
        raise ValueError(
            f"`speaker_positions` must hold one position for each of the {len(speaker_embeddings)} rows of "
            f"`speaker_embeddings`; got {found}."
        )
    here = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device) == positions[:, None]
    return inputs_embeds + here[..., None] * speaker_embeddings[:, None].to(inputs_embeds)


# trf-ignore: TRF057
class Qwen3TTSTalker(Qwen3TTSPreTrainedModel):
    """The language model over frames: text and codes are summed at every position, the head scores first codes."""

    config_class = Qwen3TTSTalkerConfig
    config: Qwen3TTSTalkerConfig

    def __init__(self, config: Qwen3TTSTalkerConfig) -> None:
        super().__init__(config)
        self.model = Qwen3TTSTalkerModel(config)
        self.text_projection = Qwen3TTSTextProjection(config)
        self.codec_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.code_predictor = Qwen3TTSCodePredictor._from_config(config.code_predictor_config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.codec_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.codec_head = new_embeddings

    def embed_text(self, text_ids: torch.LongTensor) -> torch.Tensor:
        """Text ids of any shape to rows `(*shape, hidden_size)`."""
        return self.text_projection(self.model.text_embedding(text_ids))

    def embed_codec(self, codec_ids: torch.LongTensor) -> torch.Tensor:
        """Rows of the codec table, `(*shape, hidden_size)`."""
        return self.model.codec_embedding(codec_ids)

    def embed_frames(self, codes: torch.LongTensor) -> torch.Tensor:
        """Whole frames `(*shape, num_code_groups)` to the sums of their codes' rows, `(*shape, hidden_size)`."""
        tables = self.code_predictor.model.codec_embedding
        rows = (table(codes[..., group + 1]) for group, table in enumerate(tables))
        return sum(rows, self.embed_codec(codes[..., 0]))

    def embed(
        self, input_ids: torch.LongTensor | None, codec_ids: torch.LongTensor | None, project: bool = True
    ) -> torch.Tensor:
        """Both channels summed, `(batch, length, hidden_size)`; see [`Qwen3TTSForConditionalGeneration.forward`].

        Args:
            input_ids: `(batch, length)`, -1 for none.
            codec_ids: `(batch, length, num_code_groups)`, -1 for none.
            project: Whether the text rows are projected, as they must be; upstream's training script leaves it out.
        """
        if input_ids is None and codec_ids is None:
            raise ValueError("`input_ids`, `codec_ids` or `inputs_embeds` is needed.")
        embeds = []
        if input_ids is not None:
            text = self.model.text_embedding(input_ids.clamp(min=0))
            embeds.append((self.text_projection(text) if project else text) * (input_ids >= 0)[..., None])
        if codec_ids is not None:
            if codec_ids.dim() != 3 or codec_ids.shape[-1] != self.config.num_code_groups:
                raise ValueError(
                    f"`codec_ids` must have the shape (batch, length, {self.config.num_code_groups}); "
                    f"got {tuple(codec_ids.shape)}."
                )
            tables = [self.model.codec_embedding, *self.code_predictor.model.codec_embedding]
            for table, ids in zip(tables, codec_ids.unbind(-1), strict=True):
                embeds.append(table(ids.clamp(min=0)) * (ids >= 0)[..., None])
        return sum(embeds[1:], embeds[0])

    def losses(
        self,
        hidden_states: torch.Tensor,
        logits: torch.Tensor,
        codec_ids: torch.LongTensor,
        labels: torch.LongTensor,
        loss_type: str = "aligned",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses of talker and code predictor.

        Position `j` predicts the first code at `j + 1`, and the predictor writes a frame from the state before it. The
        `"shipped"` losses predict one frame further on, from the frame's own state.
        """
        is_aligned = loss_type == "aligned"
        shift = 1 if is_aligned else 2
        talker_loss = _cross_entropy(logits[:, :-shift], labels[:, shift:])
        # In the shipped recipe the last position has no state: its batch is one position shorter.
        is_frame = codec_ids[:, 1:, 1] >= 0
        states = (hidden_states[:, :-1] if is_aligned else hidden_states[:, 1:])[is_frame]
        codes = codec_ids[:, 1:][is_frame]
        if len(codes) == 0:
            return talker_loss, talker_loss.new_zeros(())
        code_logits = self.code_predictor(states, self.embed_codec(codes[:, 0]), codes[:, 1:]).logits
        if is_aligned:
            return talker_loss, _cross_entropy(code_logits, codes[:, 1:])
        return talker_loss, _cross_entropy(code_logits[:, :-1], codes[:, 2:])


def _cross_entropy(logits: torch.Tensor, labels: torch.LongTensor) -> torch.Tensor:
    """Mean over the labels that are not -100, in float32."""
    return F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), ignore_index=-100)


# trf-ignore: TRF057
class Qwen3TTSTalkerModel(Qwen3Model):
    """`Qwen3Model` with two tables, for text and for codes, in the place of its own. Takes `inputs_embeds`."""

    config_class = Qwen3TTSTalkerConfig
    config: Qwen3TTSTalkerConfig

    def __init__(self, config: Qwen3TTSTalkerConfig) -> None:
        super().__init__(config)
        del self.embed_tokens
        self.codec_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.text_embedding = nn.Embedding(config.text_vocab_size, config.text_hidden_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.codec_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.codec_embedding = value


class Qwen3TTSTextProjection(nn.Module):
    """Rows of the text table to the talker's width."""

    def __init__(self, config: Qwen3TTSTalkerConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.text_hidden_size, config.text_hidden_size)
        self.linear_fc2 = nn.Linear(config.text_hidden_size, config.hidden_size)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.linear_fc2(self.act_fn(self.linear_fc1(hidden_states)))


# trf-ignore: TRF057
@dataclass
class Qwen3TTSCodePredictorOutput(ModelOutput):
    """
    What [`Qwen3TTSCodePredictor`] returns.

    Args:
        logits (`torch.FloatTensor` of shape `(frames, num_code_groups - 1, vocab_size)`):
            Scores of the codes after the first.
    """

    logits: torch.FloatTensor | None = None


# trf-ignore: TRF057
class Qwen3TTSCodePredictor(Qwen3TTSPreTrainedModel):
    """Writes the codes of a frame after the first, one by one, each with a table and a head of its own."""

    config_class = Qwen3TTSCodePredictorConfig
    config: Qwen3TTSCodePredictorConfig

    def __init__(self, config: Qwen3TTSCodePredictorConfig) -> None:
        super().__init__(config)
        groups = config.num_code_groups - 1
        self.model = Qwen3TTSCodePredictorModel(config)
        self.lm_head = nn.ModuleList(
            [nn.Linear(config.hidden_size, config.vocab_size, bias=False) for _ in range(groups)]
        )
        self.small_to_mtp_projection = nn.Identity()
        # CODEPATH: the 1.7B checkpoints have a wider talker; in the 0.6B ones the widths agree.
        if config.talker_hidden_size != config.hidden_size:
            self.small_to_mtp_projection = nn.Linear(config.talker_hidden_size, config.hidden_size)
        self.post_init()

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        hidden_states: torch.FloatTensor,
        first_embeds: torch.FloatTensor,
        codes: torch.LongTensor,
        **kwargs: Any,
    ) -> Qwen3TTSCodePredictorOutput:
        r"""
        Scores of all codes of known frames at once.

        Args:
            hidden_states (`torch.FloatTensor` of shape `(frames, talker_hidden_size)`):
                The talker's state before each frame.
            first_embeds (`torch.FloatTensor` of shape `(frames, talker_hidden_size)`):
                The talker's row of each first code.
            codes (`torch.LongTensor` of shape `(frames, num_code_groups - 1)`):
                The codes after the first; the last one is not read.
        """
        rows = [table(codes[:, group]) for group, table in enumerate(self.model.codec_embedding[:-1])]
        embeds = self.small_to_mtp_projection(torch.stack([hidden_states, first_embeds, *rows], dim=1))
        states = self.model(inputs_embeds=embeds, use_cache=False, **kwargs).last_hidden_state[:, 1:]
        logits = [head(states[:, group]) for group, head in enumerate(self.lm_head)]
        return Qwen3TTSCodePredictorOutput(logits=torch.stack(logits, dim=1))


# trf-ignore: TRF057
class Qwen3TTSCodePredictorModel(Qwen3Model):
    """`Qwen3Model` with one table per code group after the first in the place of its own. Takes `inputs_embeds`."""

    config_class = Qwen3TTSCodePredictorConfig
    config: Qwen3TTSCodePredictorConfig

    def __init__(self, config: Qwen3TTSCodePredictorConfig) -> None:
        super().__init__(config)
        del self.embed_tokens
        self.codec_embedding = nn.ModuleList(
            [nn.Embedding(config.vocab_size, config.talker_hidden_size) for _ in range(config.num_code_groups - 1)]
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.codec_embedding[0]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.codec_embedding[0] = value


__all__ = [
    "Qwen3TTSCodePredictor",
    "Qwen3TTSCodePredictorModel",
    "Qwen3TTSCodePredictorOutput",
    "Qwen3TTSForConditionalGeneration",
    "Qwen3TTSOutput",
    "Qwen3TTSPreTrainedModel",
    "Qwen3TTSTalker",
    "Qwen3TTSTalkerModel",
]
