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
"""The speaker encoder of MetaVoice: an LSTM over windows of mel frames (GE2E, Wan et al., 2018)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.utils import ModelOutput, can_return_tuple

from ...audio.lengths import frame_lengths
from ...audio.speaker_windows import SpeakerWindowsMixin
from .configuration_metavoice import MetaVoiceSpeakerEncoderConfig
from .modeling_metavoice_first_stage import MetaVoicePreTrainedModel


# trf-ignore: TRF057
@dataclass
class MetaVoiceSpeakerEncoderOutput(ModelOutput):
    r"""
    Output of [`MetaVoiceSpeakerEncoder`].

    speaker_embeddings (`torch.FloatTensor` of shape `(batch, speaker_embed_size)`):
        One vector of length 1 per recording; no entry is negative.
    """

    speaker_embeddings: torch.FloatTensor | None = None


# trf-ignore: TRF057
class MetaVoiceSpeakerEncoder(SpeakerWindowsMixin, MetaVoicePreTrainedModel):
    """
    Tells speakers apart: an LSTM hears windows of 1.6 s, whose vectors are averaged and normalised.
    [`MetaVoiceFeatureExtractor`] makes the frames.
    """

    config_class = MetaVoiceSpeakerEncoderConfig
    config: MetaVoiceSpeakerEncoderConfig
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = False

    def __init__(self, config: MetaVoiceSpeakerEncoderConfig) -> None:
        super().__init__(config)
        self.lstm = nn.LSTM(config.num_mel_bins, config.hidden_size, config.num_hidden_layers, batch_first=True)
        self.projection = nn.Linear(config.hidden_size, config.speaker_embed_size)
        self.post_init()

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self, input_features: torch.FloatTensor, attention_mask: torch.LongTensor | None = None, **kwargs: Any
    ) -> MetaVoiceSpeakerEncoderOutput:
        r"""
        One vector per recording.

        Args:
            input_features (`torch.FloatTensor` of shape `(batch, frames, num_mel_bins)`):
                Mel power of whole windows, without a logarithm.
            attention_mask (`torch.LongTensor` of shape `(batch, frames)`, *optional*):
                1 for frames, 0 for padding on the right.

        Raises:
            ValueError: the features do not have the encoder's shape, or a recording has less than a window.
        """
        bands, least = self.config.num_mel_bins, self.config.window_frames
        if input_features.dim() != 3 or input_features.shape[-1] != bands or input_features.shape[1] < least:
            raise ValueError(
                f"`input_features` must have the shape (batch, frames, {bands}) with at least {least} frames; got "
                f"{tuple(input_features.shape)}."
            )
        lengths = frame_lengths(input_features, input_features.shape[1], None, attention_mask, minimum=least)
        windows = self._windows(input_features, lengths)
        return MetaVoiceSpeakerEncoderOutput(speaker_embeddings=self.embed_recordings(windows))

    def _windows(self, input_features: torch.Tensor, lengths: torch.LongTensor) -> list[torch.Tensor]:
        """Of every recording its windows `(windows, window_frames, num_mel_bins)`."""
        size, step = self.config.window_frames, self.config.frame_step
        return [
            row[:length].unfold(0, size, step).transpose(1, 2)
            for row, length in zip(input_features, lengths.tolist(), strict=True)
        ]


def average_embeddings(embeddings: torch.Tensor) -> torch.Tensor:
    """The voice of several recordings of one speaker, `(recordings, width)` to `(width,)` of length 1.

    Raises:
        ValueError: there is no recording, or the vectors are not finite.
    """
    if embeddings.dim() != 2 or not embeddings.shape[0] or not embeddings.isfinite().all():
        raise ValueError(
            "`embeddings` must be finite and have the shape (recordings, width) with at least one recording; got "
            f"{tuple(embeddings.shape)}."
        )
    return F.normalize(embeddings.float().mean(0), dim=-1)


__all__ = ["MetaVoiceSpeakerEncoder", "MetaVoiceSpeakerEncoderOutput", "average_embeddings"]
