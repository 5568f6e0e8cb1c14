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
"""MetaVoice's second stage: a small network that fills in the codes of all frames at once."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_metavoice import MetaVoiceSecondStageConfig
from .layers_metavoice import MetaVoiceDecoderLayer, MetaVoiceIdentityRotation, make_norm
from .modeling_metavoice_first_stage import MetaVoicePreTrainedModel


# trf-ignore: TRF057
@dataclass
class MetaVoiceSecondStageOutput(ModelOutput):
    """
    What [`MetaVoiceSecondStageModel`] returns.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
            Mean over the codebooks of the mean cross entropy.
        logits (`torch.FloatTensor` of shape `(batch, target_codebooks, length, max(target_vocab_sizes))`):
            Scores of the code of each predicted codebook at each position; minus infinity for codes that only a larger
            codebook has.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None


class MetaVoiceSecondStageLayer(MetaVoiceDecoderLayer):
    """A block whose positions all see one another."""

    def __init__(self, config: MetaVoiceSecondStageConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.self_attn.is_causal = False


# trf-ignore: TRF057
class MetaVoiceSecondStageModel(MetaVoicePreTrainedModel):
    """
    Predicts the codes of the later codebooks from text and those of the first ones. Every position sees every other
    one, padding included: give it exactly `max_position_embeddings` positions, as it was trained.
    [`complete_codes`] lays them out and picks from the scores.
    """

    config_class = MetaVoiceSecondStageConfig
    config: MetaVoiceSecondStageConfig
    _no_split_modules = ["MetaVoiceSecondStageLayer"]
    # The loss is a mean: `Trainer` has to divide it by its accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, config: MetaVoiceSecondStageConfig) -> None:
        super().__init__(config)
        width, layers = config.hidden_size, range(config.num_hidden_layers)
        self.embed_tokens = nn.ModuleList([nn.Embedding(size, width) for size in config.vocab_sizes])
        self.embed_positions = nn.Embedding(config.max_position_embeddings, width)
        self.speaker_projection = nn.Linear(config.speaker_embed_size, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([MetaVoiceSecondStageLayer(config, layer) for layer in layers])
        self.norm = make_norm(config)
        self.heads = nn.ModuleList([nn.Linear(width, size, bias=False) for size in config.target_vocab_sizes])
        self.rotary_emb = MetaVoiceIdentityRotation(config.head_dim)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens[0]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embed_tokens[0] = value

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor,
        speaker_embeddings: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> MetaVoiceSecondStageOutput:
        r"""
        Scores of the codes at all positions, and the training loss.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, input_codebooks, length)`):
                Text and codes, see [`second_stage_ids`].
            speaker_embeddings (`torch.FloatTensor` of shape `(batch, speaker_embed_size)`, *optional*):
                The speaker.
            labels (`torch.LongTensor` of shape `(batch, target_codebooks, length)`, *optional*):
                Codes, or the padding; -100 is left out of the loss.

        Raises:
            ValueError: `input_ids` has another number of codebooks, or more positions than the model.
        """
        tables, room = self.embed_tokens, self.config.max_position_embeddings
        if input_ids.dim() != 3 or input_ids.shape[1] != len(tables) or input_ids.shape[2] > room:
            raise ValueError(
                f"`input_ids` must have the shape (batch, {len(tables)}, at most {room}); "
                f"got {tuple(input_ids.shape)}."
            )
        states = sum(table(ids) for table, ids in zip(tables, input_ids.unbind(1), strict=True))
        states = states + self.embed_positions.weight[: input_ids.shape[2]]
        if speaker_embeddings is not None:
            states = states + self.speaker_projection(speaker_embeddings.to(states))[:, None]
        states, rotation = self.dropout(states), self.rotary_emb(states)
        for layer in self.layers:
            states = layer(states, position_embeddings=rotation, attention_mask=None, **kwargs)
        states = self.norm(states)
        logits = self._scores(states)
        loss = None
        if labels is not None:
            # The mean of the codebooks' means: they may have different numbers of labels.
            sizes, labels = self.config.target_vocab_sizes, labels.to(logits.device)
            codebooks = zip(logits.float().unbind(1), labels.unbind(1), sizes, strict=True)
            losses = [
                F.cross_entropy(scores[..., :size].flatten(0, 1), codes.flatten()) for scores, codes, size in codebooks
            ]
            loss = torch.stack(losses).mean()
        return MetaVoiceSecondStageOutput(loss=loss, logits=logits)

    def _scores(self, states: torch.Tensor) -> torch.Tensor:
        """Scores `(batch, target_codebooks, length, choices)`, as many choices as the largest codebook has."""
        scores = [head(states) for head in self.heads]
        choices = max(self.config.target_vocab_sizes)
        return torch.stack([F.pad(each, (0, choices - each.shape[-1]), value=-float("inf")) for each in scores], dim=1)


__all__ = ["MetaVoiceSecondStageModel", "MetaVoiceSecondStageOutput"]
