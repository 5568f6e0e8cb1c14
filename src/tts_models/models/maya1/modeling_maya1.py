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
"""Maya1: a Llama whose vocabulary holds SNAC codes, and the SNAC decoder that makes them audible."""

from typing import Any

import torch
from transformers import Cache, LlamaForCausalLM, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from ...language_model_part import LanguageModelEmbeddingsMixin
from ...loading import CompleteCheckpointMixin
from ..snac import SnacModel
from .configuration_maya1 import Maya1Config
from .generation_maya1 import Maya1GenerationMixin
from .loss_maya1 import slot_constrained_loss


# trf-ignore: TRF057
class Maya1PreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """What every Maya1 network shares: configuration class, attention kinds, what stays in float32."""

    config_class = Maya1Config
    config: Maya1Config
    conversion_script = "convert_maya1_to_hf.py"
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("text",)
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    # Half precision saves nothing worth having in the small codec and is audible in its periodic activations.
    _keep_in_fp32_modules_strict = ["codec_model"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True


# trf-ignore: TRF057
class Maya1ForConditionalGeneration(LanguageModelEmbeddingsMixin, Maya1PreTrainedModel, Maya1GenerationMixin):
    """
    The Maya1 text-to-speech model: `language_model` (`LlamaForCausalLM`) writes the codes of `codec_model`
    (`SnacModel`). [`~Maya1GenerationMixin.generate`] speaks, [`~Maya1GenerationMixin.generate_stream`] speaks while it
    generates, and [`~Maya1ForConditionalGeneration.forward`] with `labels` is the training loss of the language model.

    The codec is frozen: only the language model trains.
    """

    language_model_name = "language_model"

    def __init__(self, config: Maya1Config) -> None:
        super().__init__(config)
        self.language_model = LlamaForCausalLM._from_config(config.text_config)
        self.codec_model = SnacModel._from_config(config.codec_config)
        self.codec_model.requires_grad_(False)
        self.generation_config = self._default_generation_config()
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, with the codec frozen; a folder that lacks weights is refused.

        Raises:
            ValueError: the folder is another model's (upstream's is a plain Llama), or misses weights of the language
                model or of the codec, which would otherwise be silently random.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.codec_model.requires_grad_(False)
        return loaded

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        constrain_slots: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        r"""
        Next-token logits of the language model, and its loss.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Prompt ids and audio ids, as [`Maya1Processor`] builds them.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding.
            position_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Position of each token.
            past_key_values (`Cache`, *optional*):
                Keys and values of earlier tokens.
            inputs_embeds (`torch.FloatTensor` of shape `(batch, length, hidden_size)`, *optional*):
                Embeddings instead of `input_ids`.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                The ids to predict, aligned with `input_ids` (shifted inside); -100 is left out of the loss.
            use_cache (`bool`, *optional*):
                Whether to return `past_key_values`.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                How many of the last positions get logits; 0 is all.
            constrain_slots (`bool`, *optional*, defaults to `False`):
                With `labels`: whether each is scored among the ids that its slot allows. There are no logits then.

        Returns:
            `CausalLMOutputWithPast` with `loss` (scalar, when `labels` are given) and `logits`
            `(batch, length, vocab_size)`.

        Raises:
            ValueError: with `constrain_slots`, a label that is not one of the speech.
        """
        if constrain_slots and labels is not None:
            return self._forward_constrained(
                labels,
                num_items=kwargs.pop("num_items_in_batch", None),
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                inputs_embeds=inputs_embeds,
                use_cache=use_cache,
                **kwargs,
            )
        return self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def _forward_constrained(
        self, labels: torch.LongTensor, num_items: int | torch.Tensor | None, **inputs: Any
    ) -> CausalLMOutputWithPast:
        mask = inputs["attention_mask"]
        if mask is not None and mask.dim() == 2 and bool((mask.diff(dim=1) <= 0).all()):
            # Padding on the right is behind all that counts: without a mask, attention kernels skip half of the work.
            inputs["attention_mask"] = None
        outputs = self.language_model.model(**inputs)
        loss = slot_constrained_loss(
            outputs.last_hidden_state,
            self.get_output_embeddings().weight,
            labels,
            self.config.audio_token_layout,
            self.config.marker_ids,
            num_items,
        )
        return CausalLMOutputWithPast(loss=loss, past_key_values=outputs.past_key_values)


__all__ = ["Maya1ForConditionalGeneration", "Maya1PreTrainedModel"]
