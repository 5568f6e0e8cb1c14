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
"""MegaTTS3: text to phones, phones to durations, both with a reference to latents, latents to a waveform."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen2ForCausalLM
from transformers.utils import ModelOutput, can_return_tuple

from ...acceleration.programs import KeptPrograms
from ...language_model_part import LanguageModelEmbeddingsMixin
from .configuration_megatts3 import MegaTTS3Config
from .generation_megatts3 import MegaTTS3GenerationMixin
from .modeling_megatts3_aligner import MegaTTS3AlignerForConditionalGeneration
from .modeling_megatts3_base import MegaTTS3PreTrainedModel
from .modeling_megatts3_duration import MegaTTS3DurationModel
from .modeling_megatts3_transformer import MegaTTS3TransformerModel
from .modeling_megatts3_vae import MegaTTS3VAEModel


# Tokens to which the room of the recorded grapheme-to-phoneme loop is rounded up.
G2P_BUCKET = 256


# trf-ignore: TRF057
@dataclass
class MegaTTS3Output(ModelOutput):
    """
    What [`MegaTTS3ForConditionalGeneration`] returns.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*):
            The sum of the losses below.
        transformer_loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            Mean squared error of the diffusion transformer's velocity.
        duration_loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `duration_labels`):
            Of the duration model.
        g2p_loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `g2p_labels`):
            Cross entropy of the grapheme-to-phoneme model.
        aligner_loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `aligner_labels`):
            Cross entropy of the aligner.
        duration_logits (`torch.FloatTensor` of shape `(batch, phones, 1 or num_durations + 1)`, *optional*):
            The duration token of each phone, or scores of all tokens.
        g2p_logits (`torch.FloatTensor` of shape `(batch, length, vocab_size)`, *optional*):
            Scores of the token after each position.
        aligner_logits (`torch.FloatTensor` of shape `(batch, length, vocab_size)`, *optional*):
            Scores of each of `aligner_labels`.
    """

    loss: torch.FloatTensor | None = None
    transformer_loss: torch.FloatTensor | None = None
    duration_loss: torch.FloatTensor | None = None
    g2p_loss: torch.FloatTensor | None = None
    aligner_loss: torch.FloatTensor | None = None
    duration_logits: torch.FloatTensor | None = None
    g2p_logits: torch.FloatTensor | None = None
    aligner_logits: torch.FloatTensor | None = None


# trf-ignore: TRF057
class MegaTTS3ForConditionalGeneration(LanguageModelEmbeddingsMixin, MegaTTS3PreTrainedModel, MegaTTS3GenerationMixin):
    """
    The MegaTTS3 text-to-speech model. `aligner` finds the phones of a reference, `g2p` (a `Qwen2ForCausalLM`) writes
    those of a text, `duration` gives them lengths, `transformer` makes latents of them in the voice of the reference,
    and `vae` makes these audible. [`~MegaTTS3GenerationMixin.generate`] speaks,
    [`~MegaTTS3GenerationMixin.generate_stream`] speaks part by part, and `forward` is the training loss.

    `vae` is frozen. Whether it can encode depends on the checkpoint: see [`MegaTTS3VAEModel`].
    """

    language_model_name = "g2p"

    # Durations and times are rounded to frames, and half the bits of a waveform can be heard.
    _keep_in_fp32_modules_strict = ["aligner", "duration", "vae"]

    def __init__(self, config: MegaTTS3Config) -> None:
        super().__init__(config)
        self.aligner = MegaTTS3AlignerForConditionalGeneration._from_config(config.aligner_config)
        self.g2p = Qwen2ForCausalLM._from_config(config.g2p_config)
        self.duration = MegaTTS3DurationModel._from_config(config.duration_config)
        self.transformer = MegaTTS3TransformerModel._from_config(config.transformer_config)
        self.vae = MegaTTS3VAEModel._from_config(config.vae_config)
        self.vae.requires_grad_(False)
        self.generation_config = self._default_generation_config()
        self._g2p_programs: KeptPrograms | None = None
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, with the VAE frozen.

        Raises:
            ValueError: the folder misses weights of a part, which would otherwise be silently random.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.vae.requires_grad_(False)
        return loaded

    def train(self, mode: bool = True) -> "MegaTTS3ForConditionalGeneration":
        """As the parent's; the VAE stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def use_cuda_graphs(self, enabled: bool = True) -> "MegaTTS3ForConditionalGeneration":
        """Launch every phone, every duration, and every solution of the diffusion as one CUDA graph each.

        They are recorded at first use, per batch size and rounded length. Call it again when weights or adapters have
        changed. On other devices nothing is recorded, and the results are the same.

        Args:
            enabled: Whether to do so; `False` ends it.

        Returns:
            The model itself.
        """
        for part in (self.duration, self.transformer):
            if enabled:
                part.use_cuda_graphs()
            else:
                part.use_cuda_graphs(None)
        self._g2p_programs = KeptPrograms(G2P_BUCKET) if enabled else None
        return self

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        g2p_labels: torch.LongTensor | None = None,
        phone_ids: torch.LongTensor | None = None,
        tone_ids: torch.LongTensor | None = None,
        duration_ids: torch.LongTensor | None = None,
        duration_labels: torch.LongTensor | None = None,
        frame_map: torch.LongTensor | None = None,
        labels: torch.FloatTensor | None = None,
        input_features: torch.FloatTensor | None = None,
        features_mask: torch.LongTensor | None = None,
        aligner_labels: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> MegaTTS3Output:
        r"""
        The networks that learn, each where its inputs are given, and the sum of their losses.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                For `g2p`: a text between its marks, then phone tokens.
            attention_mask (`torch.Tensor` of shape `(batch, length)`, *optional*):
                1 for tokens of `input_ids`, 0 for padding.
            g2p_labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                Those of `input_ids` that `g2p` is to write (shifted inside); -100 is left out of the loss.
            phone_ids, tone_ids (`torch.LongTensor` of shape `(batch, phones)`, *optional*):
                For `duration` and `transformer`: what is said, padded on the right with 0.
            duration_ids (`torch.LongTensor` of shape `(batch, phones)`, *optional*):
                For `duration`: the duration token before each phone; made from `duration_labels` by default.
            duration_labels (`torch.LongTensor` of shape `(batch, phones)`, *optional*):
                For `duration`: frames of each phone plus one; -100 is left out of the loss.
            frame_map (`torch.LongTensor` of shape `(batch, frames)`, *optional*):
                For `transformer`: which phone (from 1 on) each frame of 10 ms belongs to; 0 is padding.
            labels (`torch.FloatTensor` of shape `(batch, steps, latent_dim)`, *optional*):
                For `transformer`: the latents of the recording.
            input_features (`torch.FloatTensor` of shape `(batch, num_mel_bins, frames)`, *optional*):
                For `aligner`: mel frames of the recording.
            features_mask (`torch.LongTensor` of shape `(batch, frames)`, *optional*):
                1 for mel frames, 0 for padding.
            aligner_labels (`torch.LongTensor` of shape `(batch, length)`, *optional*):
                For `aligner`: phone and time tokens in turn, and their end; -100 is left out of the loss.
            kwargs:
                With `labels`, the other arguments of [`MegaTTS3TransformerModel.forward`], such as `lengths`.

        Returns:
            [`MegaTTS3Output`].

        Raises:
            ValueError: nothing to compute is given, or the inputs of a network do not fit.
        """
        output = MegaTTS3Output()
        if labels is not None:
            _check_given("labels", phone_ids=phone_ids, tone_ids=tone_ids, frame_map=frame_map)
            trained = self.transformer(phone_ids, tone_ids, frame_map, labels=labels, return_dict=True, **kwargs)
            output.transformer_loss = trained.loss
        if duration_ids is not None or duration_labels is not None:
            _check_given("duration_labels", phone_ids=phone_ids, tone_ids=tone_ids)
            lengths = self.duration(phone_ids, tone_ids, duration_ids, labels=duration_labels, return_dict=True)
            output.duration_loss, output.duration_logits = lengths.loss, lengths.logits
        if input_ids is not None:
            written = self.g2p(
                input_ids=input_ids,
                attention_mask=attention_mask,
                labels=g2p_labels,
                use_cache=False,
                return_dict=True,
            )
            output.g2p_loss, output.g2p_logits = written.loss, written.logits
        if aligner_labels is not None:
            _check_given("aligner_labels", input_features=input_features)
            aligned = self.aligner(input_features, features_mask, labels=aligner_labels, return_dict=True)
            output.aligner_loss, output.aligner_logits = aligned.loss, aligned.logits
        return _with_sum(output)


def _check_given(because: str, **inputs: torch.Tensor | None) -> None:
    missing = [f"`{name}`" for name, value in inputs.items() if value is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: `{because}` cannot be used without.")


def _with_sum(output: MegaTTS3Output) -> MegaTTS3Output:
    if not output.keys():
        raise ValueError(
            "Nothing to compute: give `labels`, `duration_labels`, `input_ids` or `aligner_labels`. Speech comes from "
            "`generate`."
        )
    losses = [value for name, value in output.items() if name.endswith("_loss")]
    if losses:
        output.loss = torch.stack([loss.float() for loss in losses]).sum()
    return output


__all__ = ["MegaTTS3ForConditionalGeneration", "MegaTTS3Output"]
