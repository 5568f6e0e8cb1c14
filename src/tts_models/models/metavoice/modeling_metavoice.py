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
"""MetaVoice: two stages that write EnCodec's codes, the speaker encoder, and what makes sound of the codes."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import EncodecModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from ...language_model_part import LanguageModelEmbeddingsMixin
from ..deepfilternet import DeepFilterNetModel
from .configuration_metavoice import MetaVoiceConfig
from .generation_metavoice import MetaVoiceGenerationMixin
from .modeling_metavoice_diffusion import MetaVoiceMultiBandDiffusion
from .modeling_metavoice_first_stage import MetaVoiceFirstStageForCausalLM, MetaVoicePreTrainedModel
from .modeling_metavoice_second_stage import MetaVoiceSecondStageModel
from .modeling_metavoice_speaker_encoder import MetaVoiceSpeakerEncoder


_FROZEN = ("second_stage", "speaker_encoder", "codec_model", "diffusion", "enhancer")
_UNQUANTIZED = (*_FROZEN, "first_stage.lm_head", "first_stage.model.speaker_projection")


# trf-ignore: TRF057
class MetaVoiceForConditionalGeneration(
    LanguageModelEmbeddingsMixin, MetaVoicePreTrainedModel, MetaVoiceGenerationMixin
):
    """
    The MetaVoice text-to-speech model: `first_stage` writes two codes a frame from text and a speaker vector,
    `second_stage` fills in the other six, `codec_model` (EnCodec) makes sound of them. `speaker_encoder` turns a
    recording into the vector. Two parts are optional: `diffusion` makes better sound than EnCodec, `enhancer` cleans
    it up. [`~MetaVoiceGenerationMixin.generate`] speaks, [`~MetaVoiceGenerationMixin.generate_stream`] speaks while it
    generates, and `forward` with `labels` is the training loss of the first stage.

    All parts but the first stage are frozen, and stay in float32.
    """

    language_model_name = "first_stage"

    # The first stage picks ids in any precision; what hears and makes sound loses audible detail in half the bits.
    _keep_in_fp32_modules_strict = list(_FROZEN)

    def __init__(self, config: MetaVoiceConfig) -> None:
        super().__init__(config)
        self.first_stage = MetaVoiceFirstStageForCausalLM._from_config(config.first_stage_config)
        self.second_stage = MetaVoiceSecondStageModel._from_config(config.second_stage_config)
        self.speaker_encoder = MetaVoiceSpeakerEncoder._from_config(config.speaker_encoder_config)
        # Without attention; the library's class refuses any kind but this when one is asked for.
        self.codec_model = EncodecModel._from_config(config.codec_config, attn_implementation="eager")
        self.diffusion = self.enhancer = None
        # CODEPATH: a checkpoint may come without the diffusion, whose weights are not for commercial use.
        if config.diffusion_config is not None:
            self.diffusion = MetaVoiceMultiBandDiffusion._from_config(config.diffusion_config)
        # CODEPATH: a checkpoint may come without the enhancer, which is a release of its own.
        if config.enhancer_config is not None:
            self.enhancer = DeepFilterNetModel._from_config(config.enhancer_config)
        self._freeze_parts()
        self.generation_config = self._default_generation_config()
        self.post_init()

    def _frozen_parts(self) -> list[nn.Module]:
        return [part for name in _FROZEN if (part := getattr(self, name)) is not None]

    def _freeze_parts(self) -> None:
        for part in self._frozen_parts():
            part.requires_grad_(False)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, with the parts that do not train frozen.

        A `quantization_config` reaches the first stage only.

        Raises:
            ValueError: the folder misses weights of a part, which would otherwise be silently random, or 4-bit
                quantisation is asked for on a machine without a CUDA device.
        """
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = limit_quantization(kwargs["quantization_config"])
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._freeze_parts()
        return loaded

    def train(self, mode: bool = True) -> "MetaVoiceForConditionalGeneration":
        """As the parent's; the frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def enable_fast_steps(
        self,
        int8: bool = False,
        use_compile: bool = False,
        use_cuda_graphs: bool | None = None,
        pack_weights: bool = False,
    ) -> "MetaVoiceForConditionalGeneration":
        """See [`~MetaVoiceFirstStageForCausalLM.enable_fast_steps`]."""
        self.first_stage.enable_fast_steps(int8, use_compile, use_cuda_graphs, pack_weights)
        return self

    def disable_fast_steps(self) -> "MetaVoiceForConditionalGeneration":
        """Undo [`~MetaVoiceForConditionalGeneration.enable_fast_steps`]."""
        self.first_stage.disable_fast_steps()
        return self

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        speaker_embeddings: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        shift_labels: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        r"""
        Scores of the id after each position, and the training loss of the first stage.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                First-stage ids of text and audio.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens, 0 for padding.
            speaker_embeddings (`torch.FloatTensor` of shape `(batch, speaker_embed_size)`, *optional*):
                The speaker; a row of zeros, like `None`, is no speaker.
            labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Ids aligned with `input_ids` (shifted inside); -100 is left out of the loss.
            shift_labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Instead of `labels`: the id that follows each position.
            kwargs:
                The other arguments of [`MetaVoiceFirstStageForCausalLM.forward`].

        Raises:
            ValueError: inputs are missing, or there are more positions than the model has.
        """
        return self.first_stage(
            input_ids=input_ids,
            attention_mask=attention_mask,
            speaker_embeddings=speaker_embeddings,
            labels=labels,
            shift_labels=shift_labels,
            return_dict=True,
            **kwargs,
        )


def limit_quantization(quantization_config: Any) -> Any:
    """A copy that leaves all parts but the first stage alone, and of that the head and what reads the speaker.

    Raises:
        ValueError: 4-bit weights on a machine where no GPU could compute with them.
    """
    kind = type(getattr(quantization_config, "quant_type", None)).__name__
    if "Int4" in kind and not torch.cuda.is_available():
        raise ValueError(
            f"`quantization_config` asks for {kind}: 4-bit weights need a CUDA device, and this machine has none. "
            "Int8WeightOnlyConfig works on the CPU."
        )
    limited = copy.copy(quantization_config)
    if hasattr(limited, "modules_to_not_convert"):
        limited.modules_to_not_convert = [*(limited.modules_to_not_convert or []), *_UNQUANTIZED]
    return limited


__all__ = ["MetaVoiceForConditionalGeneration"]
