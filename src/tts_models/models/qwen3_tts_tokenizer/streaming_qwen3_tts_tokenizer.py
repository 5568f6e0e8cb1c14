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
"""Exact streaming decoder of the Qwen3-TTS tokenizer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...streaming.context import LeftContext


if TYPE_CHECKING:
    from .modeling_qwen3_tts_tokenizer import Qwen3TTSTokenizerModel


class Qwen3TTSTokenizerDecoderStream:
    r"""
    Decodes frames of codes as they arrive; everything it returns, joined, is what `Qwen3TTSTokenizerModel.decode`
    returns for all of them.

    The decoder is causal: every push of `n` frames gives their `n * samples_per_frame` samples, without latency,
    overlap or cross-fade, and a stream may be of any length. A stream holds tensors that are never written to, so a
    copy is cheap: warm one with the codes of a reference voice, and continue copies of it.

    Args:
        model ([`Qwen3TTSTokenizerModel`]): The codec.
        context (`LeftContext`): What its layers have seen.
    """

    def __init__(self, model: "Qwen3TTSTokenizerModel", context: LeftContext):
        self.model, self.context = model, context

    @property
    def batch_size(self) -> int:
        """Rows decoded together."""
        return self.context.batch_size

    @property
    def frames(self) -> torch.LongTensor:
        """Frames that each row has decoded, `(batch,)` on the CPU."""
        return self.context.steps

    @torch.no_grad()
    def push(self, audio_codes: torch.LongTensor) -> torch.Tensor:
        """Decode the next frames; returns their samples `(batch, frames * samples_per_frame)`.

        Args:
            audio_codes (`torch.LongTensor` of shape `(batch, frames, num_codebooks)`): Codes without padding, as many
                frames for every row, possibly none. Rows that have ended leave by `select_rows`.

        Raises:
            ValueError: if the codes are malformed or their batch differs.
        """
        self.model.check_codes(audio_codes, allow_padding=False)
        if audio_codes.shape[0] != self.batch_size:
            raise ValueError(f"`audio_codes` must hold {self.batch_size} rows, got {audio_codes.shape[0]}.")
        return self.model.decode_piece(audio_codes, self.context)

    def copy(self) -> "Qwen3TTSTokenizerDecoderStream":
        """A stream that goes on from here; this one is left as it is."""
        return type(self)(self.model, self.context.copy())

    def select_rows(self, index: torch.LongTensor) -> "Qwen3TTSTokenizerDecoderStream":
        """A stream that goes on with the rows `index` (int64; repeated ones too); this one is left as it is."""
        return type(self)(self.model, self.context.select_rows(index))

    @classmethod
    def join(cls, streams: Sequence["Qwen3TTSTokenizerDecoderStream"]) -> "Qwen3TTSTokenizerDecoderStream":
        """One stream with the rows of several of the same codec, which may have decoded different numbers of frames.

        Raises:
            ValueError: if there is no stream, or they belong to different codecs.
        """
        if not streams or any(stream.model is not streams[0].model for stream in streams):
            raise ValueError(f"`streams` must hold streams of one codec, at least one, got {len(streams)}.")
        return cls(streams[0].model, LeftContext.join([stream.context for stream in streams]))


__all__ = ["Qwen3TTSTokenizerDecoderStream"]
