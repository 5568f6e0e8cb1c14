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
"""Exact streaming of S3Gen: tokens in, waveform out, nothing computed twice."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from ...streaming.history import History
from .chunks_s3gen import FrameNoise, S3GenChunks, split_generators
from .modeling_s3gen_flow import FlowPlan, S3GenFlow
from .reference_s3gen import S3GenPrompt, check_token_range


if TYPE_CHECKING:
    from .modeling_s3gen import S3GenModel


class S3GenFlowStream:
    r"""
    Mel frames of tokens that arrive, chunk by chunk. Joined they are what `S3GenModel.forward` returns with the same
    chunks and noise.

    A chunk is computed once its tokens and the look-ahead have arrived. It attends to itself and, through the keys and
    values kept of every layer (of the estimator for every Euler step), to the chunks before it.

    Args:
        flow (`S3GenFlow`): The flow.
        prompt (`S3GenPrompt`): One voice.
        plan (`FlowPlan`): Times and guidance.
        chunks ([`S3GenChunks`]): How the utterance is divided.
    """

    def __init__(self, flow: S3GenFlow, prompt: S3GenPrompt, plan: FlowPlan, chunks: S3GenChunks):
        self.flow, self.prompt, self.plan = flow, prompt, plan
        self.mask, ratio = chunks.mask(prompt.lengths), flow.config.token_mel_ratio
        frames_left = None if chunks.left is None else ratio * chunks.left
        # The encoder's two rates look equally far back in time.
        self.encoder_history = History(
            1, chunks.left, {layer.self_attn: frames_left for layer in flow.encoder.up_encoders}
        )
        self.step_histories = [History(plan.copies, frames_left) for _ in range(plan.steps)]
        self.speaker = flow.speaker(prompt.embedding)
        self.position = 0
        # Embedded tokens from `position` on.
        self.waiting = self.speaker.new_zeros(1, 0, flow.config.encoder_output_size)
        self._embed(prompt.tokens[:, : prompt.lengths[0]])

    def copy(self) -> "S3GenFlowStream":
        """An independent continuation of the same past."""
        stream = object.__new__(type(self))
        stream.__dict__ = dict(self.__dict__)
        stream.encoder_history = self.encoder_history.copy()
        stream.step_histories = [history.copy() for history in self.step_histories]
        return stream

    @property
    def tokens_out(self) -> int:
        """Tokens, those of the prompt left out, whose mel frames have come out."""
        return max(self.position - self.prompt.lengths[0], 0)

    @property
    def num_bytes(self) -> int:
        """Memory of the kept keys and values."""
        return sum(history.num_bytes for history in [self.encoder_history, *self.step_histories])

    def _embed(self, tokens: torch.Tensor) -> None:
        if tokens.shape[1]:
            embedded = self.flow.encoder.embed(self.flow.input_embedding(tokens))
            self.waiting = torch.cat([self.waiting, embedded], dim=1)

    def push(self, tokens: torch.Tensor, noise: FrameNoise, is_final: bool = False) -> torch.Tensor:
        """Mel frames `(1, mel_bins, frames)` that the next tokens `(1, n)` complete, without those of the prompt."""
        self._embed(tokens)
        frames = []
        while (size := self._next_chunk(is_final)) > 0:
            start = self.flow.config.token_mel_ratio * max(self.prompt.lengths[0] - self.position, 0)
            frames.append(self._run_chunk(size, noise)[:, start:])
        empty = torch.zeros(1, 0, self.flow.config.mel_bins, device=self.waiting.device)
        return torch.cat([empty, *frames], dim=1).transpose(1, 2)

    def _next_chunk(self, is_final: bool) -> int:
        """Tokens of the next chunk, 0 while it is incomplete."""
        size, arrived = self.mask.end_of(self.position) - self.position, self.waiting.shape[1]
        if is_final:
            return min(size, arrived)
        return size if arrived >= size + self.flow.config.pre_lookahead_len else 0

    def _run_chunk(self, size: int, noise: FrameNoise) -> torch.Tensor:
        flow, ratio = self.flow, self.flow.config.token_mel_ratio
        ahead = self.waiting[:, size : size + flow.config.pre_lookahead_len]
        hidden_states = flow.encoder.forward_chunk(self.waiting[:, :size], ahead, self.encoder_history)
        encoded = flow.encoder_proj(hidden_states)
        start, stop = ratio * self.position, ratio * (self.position + size)
        known = self.prompt.features[:, start : min(stop, ratio * self.prompt.lengths[0])].to(encoded)
        condition = nn.functional.pad(known, (0, 0, 0, stop - start - known.shape[1]))
        drawn = noise.between(start, stop)[None].to(encoded.device)
        self.waiting, self.position = self.waiting[:, size:], self.position + size
        return flow.decoder(drawn, encoded, self.speaker, condition, self.plan, None, self.step_histories)


class S3GenStream:
    r"""
    An utterance whose tokens are still being written: `push` them as they come, then `flush`. Everything returned,
    joined, is the waveform of `S3GenModel.inference` with the same chunks and a generator of the same seed.

    A chunk of tokens is spoken once 3 tokens after it have arrived, and the last 20 frames (0.4 s) of what is known
    wait for their context in the vocoder. What the prompt alone decides is computed at the start: start a stream once
    per voice and use copies of it.

    Args:
        model ([`S3GenModel`]): The model.
        prompt (`S3GenPrompt`): One voice.
        plan (`FlowPlan`): Times and guidance.
        chunks ([`S3GenChunks`]): How the utterance is divided.
        generator (`torch.Generator`, *optional*): Source of the noise.

    Attributes:
        tokens_in (`int`): Tokens pushed so far.
        samples_out (`int`): Samples returned so far.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: "S3GenModel",
        prompt: S3GenPrompt,
        plan: FlowPlan,
        chunks: S3GenChunks,
        generator: torch.Generator | None = None,
    ):
        self.model, self.chunks = model, chunks
        self.tokens_in = self.samples_out = 0
        self.is_flushed = False
        self.mel = S3GenFlowStream(model.flow, prompt, plan, chunks)
        self._draw_from(generator)
        self.mel.push(prompt.tokens[:, :0], self.noise)

    def _draw_from(self, generator: torch.Generator | None) -> None:
        (flow_generator,), (vocoder_generator,) = split_generators(generator, 1)
        config, prompt = self.model.config, self.mel.prompt
        self.noise = FrameNoise(config.mel_bins, config.token_mel_ratio * prompt.lengths[0], flow_generator)
        self.vocoder = self.model.mel2wav.stream(generator=[vocoder_generator])

    def copy(self, generator: torch.Generator | None = None) -> "S3GenStream":
        """Another utterance in the same voice, with noise of its own.

        Raises:
            ValueError: if tokens have been pushed already.
        """
        if self.tokens_in or self.is_flushed:
            raise ValueError(f"Only a stream without tokens can be copied, this one has {self.tokens_in}.")
        stream = object.__new__(type(self))
        stream.__dict__ = dict(self.__dict__)
        stream.mel = self.mel.copy()
        stream._draw_from(generator)
        return stream

    @torch.no_grad()
    def push(self, tokens: int | torch.Tensor) -> torch.Tensor:
        """The samples `(1, n)` that the next tokens complete, possibly none.

        Args:
            tokens (`int` or `torch.LongTensor` of shape `()`, `(n,)` or `(1, n)`): Ids 0 … 6560.

        Raises:
            ValueError: ids outside the vocabulary, another shape, or the stream is flushed.
        """
        if self.is_flushed:
            raise ValueError("The stream is flushed: start another one with `S3GenModel.start_stream`.")
        tokens = torch.atleast_2d(torch.as_tensor(tokens, device=self.model.device))
        if tokens.dim() != 2 or tokens.shape[0] != 1:
            raise ValueError(f"`tokens` must have shape (n,) or (1, n), got {tuple(tokens.shape)}.")
        check_token_range(tokens, self.model.config.vocab_size, "tokens")
        self.tokens_in += tokens.shape[1]
        return self._fade(self.vocoder.push(self.mel.push(tokens.long(), self.noise)))

    @torch.no_grad()
    def flush(self) -> torch.Tensor:
        """The remaining samples `(1, n)`; closes the stream."""
        self.is_flushed = True
        if self.tokens_in == 0:
            return self.noise.frames.new_zeros(1, 0, device=self.model.device)
        last = self.mel.push(self.mel.prompt.tokens[:, :0], self.noise, is_final=True)
        piece = self.vocoder.push(last)
        return self._fade(torch.cat([piece, self.vocoder.flush()], dim=1))

    def _fade(self, waveform: torch.Tensor) -> torch.Tensor:
        fade = self.model.fade_in(waveform.device)[self.samples_out :][: waveform.shape[1]]
        self.samples_out += waveform.shape[1]
        if len(fade):
            waveform = torch.cat([waveform[:, : len(fade)] * fade, waveform[:, len(fade) :]], dim=1)
        return waveform.float()


__all__ = ["S3GenStream"]
