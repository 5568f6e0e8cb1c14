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
"""Exact streaming of HiFTNet: the source is made once per frame, the waveform in windows with context."""

from typing import TYPE_CHECKING

import torch

from .source_hiftnet import SourceDraws, draw_noise, draw_phase


if TYPE_CHECKING:
    from .modeling_hiftnet import HiFTNetModel


class HiFTNetStream:
    r"""
    Vocodes frames as they arrive; the concatenation of everything it returns is `HiFTNetModel.forward`'s waveform for
    all frames and generators of the same seeds.

    A frame's samples come out once `look_ahead_frames` more frames have arrived, or with `flush`. The context on both
    sides is decoded along with every piece (30 frames in the released vocoder), so pieces of 50 frames and more cost
    little extra.

    Args:
        model ([`HiFTNetModel`]): The vocoder.
        batch_size (`int`): Rows of every piece.
        phase (`torch.FloatTensor` of shape `(batch, nb_harmonics + 1, 1)`, *optional*): First phases.
        generators (`list[torch.Generator]`, *optional*): Source of the phases and the noise of each row.
        context_frames (`int`, *optional*): Frames of context on each side.

    Attributes:
        frames_in (`int`): Frames pushed so far.
        frames_out (`int`): Frames whose samples have come out.
    """

    def __init__(
        self,
        model: "HiFTNetModel",
        batch_size: int = 1,
        phase: torch.Tensor | None = None,
        generators: list[torch.Generator] | None = None,
        context_frames: int | None = None,
    ):
        config, weight = model.config, model.conv_pre.weight
        if context_frames is not None and context_frames < 0:
            raise ValueError(f"`context_frames` must not be negative, got {context_frames}.")
        self.model, self.batch_size, self.generators = model, batch_size, generators
        self.context = config.context_frames if context_frames is None else context_frames
        self.f0_context = config.f0_predictor_layers
        self.phase = draw_phase(config, batch_size, generators, weight.device) if phase is None else phase
        if self.phase.shape != (batch_size, config.nb_harmonics + 1, 1):
            raise ValueError(
                f"`phase` must have shape {(batch_size, config.nb_harmonics + 1, 1)}, got {tuple(self.phase.shape)}."
            )
        self.cycles: torch.Tensor | None = None
        # Frames and source from `start` on; what lies before is no longer needed.
        self.start = 0
        self.mel = weight.new_zeros(batch_size, config.in_channels, 0, dtype=torch.float32)
        self.source = weight.new_zeros(batch_size, 1, 0)
        self.frames_in = self.frames_out = self.source_frames = 0
        self.is_flushed = False

    @property
    def look_ahead_frames(self) -> int:
        """Frames after a frame that must have arrived before its samples come out."""
        return self.context + self.f0_context

    @torch.no_grad()
    def push(self, input_features: torch.Tensor) -> torch.Tensor:
        """Vocode the next frames; returns the samples `(batch, n)` that are complete, possibly none.

        Args:
            input_features (`torch.FloatTensor` of shape `(batch, in_channels, frames)`): Mel frames, possibly none.

        Raises:
            ValueError: a wrong shape, or the stream is already flushed.
        """
        if self.is_flushed:
            raise ValueError("The stream is flushed: start another one with `HiFTNetModel.stream`.")
        if input_features.dim() != 3 or input_features.shape[:2] != self.mel.shape[:2]:
            raise ValueError(
                f"`input_features` must have shape {(*self.mel.shape[:2], 'frames')}, got "
                f"{tuple(input_features.shape)}."
            )
        self.frames_in += input_features.shape[-1]
        self.mel = torch.cat([self.mel, input_features.to(self.mel)], dim=-1)
        return self._run(is_final=False)

    @torch.no_grad()
    def flush(self) -> torch.Tensor:
        """Return the remaining samples `(batch, n)` and close the stream."""
        self.is_flushed = True
        return self._run(is_final=True)

    def _run(self, is_final: bool) -> torch.Tensor:
        self._extend_source(self.frames_in if is_final else self.frames_in - self.f0_context)
        samples = self._decode(self.source_frames if is_final else self.source_frames - self.context)
        self._forget()
        return samples

    def _extend_source(self, end: int) -> None:
        """Pitch and source of the frames up to `end`."""
        if end <= self.source_frames:
            return
        f0 = self._predict_f0(end)
        source, self.cycles = self.model.harmonic_source(
            f0, SourceDraws(self.phase, self._draw_noise(f0.shape[-1])), self.cycles
        )
        self.source = torch.cat([self.source, source.to(self.source)], dim=-1)
        self.source_frames = end

    def _predict_f0(self, end: int) -> torch.Tensor:
        first = max(self.source_frames - self.f0_context, self.start)
        f0 = self.model.f0_predictor(self.mel[..., first - self.start : end + self.f0_context - self.start])
        return f0[:, self.source_frames - first : end - first]

    def _draw_noise(self, frames: int) -> torch.Tensor:
        return draw_noise(self.model.config, self.batch_size, frames, self.generators, self.phase.device)

    def _decode(self, end: int) -> torch.Tensor:
        """Samples of the frames up to `end`."""
        if end <= self.frames_out:
            return self.mel.new_zeros(self.batch_size, 0)
        hop = self.model.config.hop_length
        first = max(self.frames_out - self.context, self.start)
        last = min(end + self.context, self.source_frames)
        window = slice(first - self.start, last - self.start)
        waveform = self.model.decode(self.mel[..., window], self.source[..., window.start * hop : window.stop * hop])
        waveform = waveform[:, (self.frames_out - first) * hop : (end - first) * hop]
        self.frames_out = end
        return waveform

    def _forget(self) -> None:
        needed = max(min(self.frames_out - self.context, self.source_frames - self.f0_context), self.start)
        self.mel = self.mel[..., needed - self.start :].clone()
        self.source = self.source[..., (needed - self.start) * self.model.config.hop_length :].clone()
        self.start = needed


__all__ = ["HiFTNetStream"]
