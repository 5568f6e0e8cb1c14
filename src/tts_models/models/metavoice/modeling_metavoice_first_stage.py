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
"""MetaVoice's first stage: Llama blocks over learned positions, with the speaker added to every row."""

from typing import Any

import torch
from torch import nn
from transformers import Cache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaModel
from transformers.utils import can_return_tuple

from ...loading import CompleteCheckpointMixin
from .acceleration_metavoice import CachedRunner, FastStepOptions, FastSteps, StepOptimizer, is_in_one_place
from .configuration_metavoice import MetaVoiceConfig, MetaVoiceFirstStageConfig
from .decoding_metavoice_first_stage import FirstStageBatch
from .layers_metavoice import MetaVoiceDecoderLayer, MetaVoiceIdentityRotation, make_norm


# trf-ignore: TRF057
class MetaVoicePreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """What the networks of MetaVoice share: attention kinds, what stays in float32, no silently random weights."""

    config_class = MetaVoiceConfig
    config: MetaVoiceConfig
    conversion_script = "convert_metavoice_to_hf.py"
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("text", "audio")
    supports_gradient_checkpointing = True
    _no_split_modules = ["MetaVoiceDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True


class MetaVoiceFirstStageModel(LlamaModel):
    """
    The network below the head. A row is the sum of the token's embedding, that of its position, and the projection of
    the speaker vector, which is the same at every position.
    """

    config_class = MetaVoiceFirstStageConfig
    config: MetaVoiceFirstStageConfig

    def __init__(self, config: MetaVoiceFirstStageConfig) -> None:
        super().__init__(config)
        width, layers = config.hidden_size, range(config.num_hidden_layers)
        # The end of audio pads too, but is a token like any other: it has a row, and learns.
        self.padding_idx = None
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, width)
        self.speaker_projection = nn.Linear(config.speaker_embed_size, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([MetaVoiceDecoderLayer(config, layer) for layer in layers])
        self.norm = make_norm(config)
        self.rotary_emb = MetaVoiceIdentityRotation(config.head_dim)
        self.post_init()

    def embed_speaker(self, speaker_embeddings: torch.Tensor) -> torch.Tensor:
        """What `(batch, speaker_embed_size)` adds to a row, `(batch, hidden_size)`; nothing for a zero vector."""
        term = self.speaker_projection(speaker_embeddings.to(self.speaker_projection.weight.device, self.dtype))
        # CODEPATH: checkpoints that are trained for guidance, as the released one was, lose the speaker at times.
        if self.training and self.config.speaker_dropout > 0:
            dropped = torch.rand(len(term), 1, device=term.device) < self.config.speaker_dropout
            term = term.masked_fill(dropped, 0.0)
        return term

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        speaker_embeddings: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        r"""
        Hidden states of a sequence.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Ids of text and audio.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding, which does not count as a position.
            position_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Positions; counted without the padding by default.
            past_key_values (`Cache`, *optional*):
                Keys and values of earlier positions.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, length, hidden_size)`, *optional*):
                Rows of the tokens instead of their ids, without position and speaker.
            speaker_embeddings (`torch.FloatTensor` of shape `(batch, speaker_embed_size)`, *optional*):
                The speaker; a row of zeros, like `None`, is no speaker.
                With `config.speaker_start_token_id`, earlier positions in a cache count as lying behind that id.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`.

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds` are given, there are more positions than
                the model has, or a model that tells by the ids which rows hear the speaker is given none.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Exactly one of `input_ids` and `inputs_embeds` must be given.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if position_ids is None:
            position_ids = self._positions(inputs_embeds, attention_mask, past_key_values)
        inputs_embeds = inputs_embeds + self.embed_positions(position_ids)
        if speaker_embeddings is not None:
            is_continued = past_key_values is not None and past_key_values.get_seq_length() > 0
            speaker = self.embed_speaker(speaker_embeddings)[:, None]
            inputs_embeds = inputs_embeds + (speaker if is_continued else self.mask_speaker(speaker, input_ids))
        return super().forward(
            inputs_embeds=self.dropout(inputs_embeds),
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )

    def mask_speaker(self, term: torch.Tensor, input_ids: torch.LongTensor | None) -> torch.Tensor:
        """What `term` `(batch, 1, hidden_size)` adds to each of the rows `(batch, length)` of a beginning.

        Raises:
            ValueError: the rows before `config.speaker_start_token_id` cannot be told without `input_ids`.
        """
        start = self.config.speaker_start_token_id
        # CODEPATH: the released checkpoint hears the speaker on the text too; upstream can train one that does not.
        if start is None:
            return term
        if input_ids is None:
            raise ValueError("`input_ids` must be given, not `inputs_embeds`: they tell which rows hear the speaker.")
        return term * (input_ids == start).cumsum(-1).clamp(max=1)[..., None].to(term.dtype)

    def _positions(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None, past_key_values: Cache | None
    ) -> torch.LongTensor:
        """Positions `(batch or 1, length)` of the new rows, counted without padding."""
        known = 0 if past_key_values is None else past_key_values.get_seq_length()
        length, room = inputs_embeds.shape[1], self.config.max_position_embeddings
        if attention_mask is not None and attention_mask.dim() == 2:
            positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
            needed = attention_mask.shape[1]
        else:
            positions = torch.arange(known, known + length, device=inputs_embeds.device)[None]
            needed = known + length
        if needed > room and int(positions.max()) >= room:
            raise ValueError(f"`input_ids` reaches position {int(positions.max())}; the model has {room}.")
        return positions


# trf-ignore: TRF057
class MetaVoiceFirstStageForCausalLM(MetaVoicePreTrainedModel):
    """
    The language model from text to the codes of EnCodec's first two codebooks, which alternate. It reads
    [text, end of text, codes so far]; [`FirstStageDecoding`] makes it speak.
    """

    config_class = MetaVoiceFirstStageConfig
    config: MetaVoiceFirstStageConfig
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: MetaVoiceFirstStageConfig) -> None:
        super().__init__(config)
        self.model = MetaVoiceFirstStageModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self._optimizer: StepOptimizer | None = None
        self.post_init()

    def enable_fast_steps(
        self,
        int8: bool = False,
        use_compile: bool = False,
        use_cuda_graphs: bool | None = None,
        pack_weights: bool = False,
    ) -> "MetaVoiceFirstStageForCausalLM":
        """Run the steps after a prompt in the way that suits the device.

        The projections that read the same input become one product. What is picked is the same up to rounding, with
        `int8` up to the quantisation.

        Args:
            int8: On the CPU, read weights of 8 bits, which are made of the model's own and kept besides them.
            use_compile: Compile the layers, which then work on fixed shapes.
            use_cuda_graphs: Record a step as one CUDA graph; by default wherever the model is on a CUDA device.
            pack_weights: On the CPU in float32, compute with a second copy of the weights, in the layout of the CPU's
                own library: faster with guidance, or for several rows, for twice the memory.

        Raises:
            ValueError: an option does not fit the model's device, or another option, or the model has other blocks
                than Llama's.
        """
        if use_cuda_graphs is None:
            use_cuda_graphs = self.device.type == "cuda" and not int8
        optimizer = StepOptimizer(FastStepOptions(int8, use_compile, use_cuda_graphs, pack_weights))
        optimizer.steps(self)
        self._optimizer = optimizer
        return self

    def disable_fast_steps(self) -> "MetaVoiceFirstStageForCausalLM":
        """Undo [`~MetaVoiceFirstStageForCausalLM.enable_fast_steps`]."""
        self._optimizer = None
        return self

    def make_runner(self, batch: FirstStageBatch) -> CachedRunner:
        """What takes the steps of a generation: lean ones wherever the model allows it."""
        steps = None
        if self._optimizer is not None:
            steps = self._optimizer.steps(self)
        # CODEPATH: the released checkpoint has Llama's blocks; those of others take the library's layers.
        elif not self.training and self.config.has_llama_blocks and is_in_one_place(self):
            steps = FastSteps(self)
        return CachedRunner(self, batch, steps)

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        speaker_embeddings: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        shift_labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        r"""
        Scores of the token after each position, and the training loss.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Ids of text and audio.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Positions; counted without the padding by default.
            past_key_values (`Cache`, *optional*):
                Keys and values of earlier positions.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, length, hidden_size)`, *optional*):
                Rows of the tokens instead of their ids, without position and speaker.
            speaker_embeddings (`torch.FloatTensor` of shape `(batch, speaker_embed_size)`, *optional*):
                The speaker; a row of zeros, like `None`, is no speaker.
                With `config.speaker_start_token_id`, earlier positions in a cache count as lying behind that id.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Ids aligned with `input_ids` (shifted inside); -100 is left out of the loss.
            shift_labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Instead of `labels`: the id that follows each position.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`.
            num_items_in_batch (`torch.Tensor` or `int`, *optional*):
                What the summed loss is divided by, where it is not the number of labels (`Trainer`).

        Raises:
            ValueError: neither or both of `input_ids` and `inputs_embeds` are given, both kinds of labels are, or
                there are more positions than the model has.
        """
        if labels is not None and shift_labels is not None:
            raise ValueError("Pass either `labels` or `shift_labels`, not both.")
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            speaker_embeddings=speaker_embeddings,
            use_cache=use_cache,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None or shift_labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.vocab_size,
                num_items_in_batch=num_items_in_batch,
                shift_labels=None if shift_labels is None else shift_labels.contiguous(),
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = [
    "MetaVoiceFirstStageForCausalLM",
    "MetaVoiceFirstStageModel",
    "MetaVoicePreTrainedModel",
]
