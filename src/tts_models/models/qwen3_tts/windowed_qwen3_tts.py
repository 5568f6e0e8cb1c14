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
"""Streaming by decoding a window of frames anew for every chunk, as upstream's forks do: for comparison only."""

from collections.abc import Sequence

import torch

from ..qwen3_tts_tokenizer import Qwen3TTSTokenizerModel


class WindowedStream:
    """A codec stream that knows only the last frames, so that it is close to the exact one but not equal to it.

    Neighbouring chunks are cross-faded where they show the same moments: every chunk holds its last samples back until
    the next one has decoded them again. Nothing is lost or heard twice; the sound as a whole is as long as the exact
    one, with its first and last samples faded.

    Args:
        codec: The codec.
        references: Codes `(frames, num_code_groups)` that each row goes on from, or `None`.
        window: Frames decoded at once, unless a chunk has more.
        overlap: Samples of a cross-fade.

    Raises:
        ValueError: the window is below one frame, or the overlap is negative or longer than a frame.
    """

    def __init__(
        self,
        codec: Qwen3TTSTokenizerModel,
        references: Sequence[torch.LongTensor | None],
        window: int,
        overlap: int = 0,
    ) -> None:
        check_window(codec, window, overlap)
        self.codec, self.window, self.overlap = codec, window, overlap
        empty = torch.empty(0, codec.config.num_codebooks, dtype=torch.long, device=codec.device)
        self.known = [empty if codes is None else codes[-window:] for codes in references]
        self.held: list[torch.Tensor | None] = [None] * len(references)
        rise = torch.hann_window(2 * overlap, periodic=False, device=codec.device)[:overlap]
        self.rise, self.fall = rise, rise.flip(0)

    @property
    def batch_size(self) -> int:
        """Rows decoded together."""
        return len(self.known)

    def push(self, codes: torch.LongTensor) -> torch.Tensor:
        """Decode the next frames `(batch, frames, num_code_groups)`; returns `(batch, samples)`.

        The first piece is shorter than its frames by the overlap, which the next one, or `flush`, makes up for.
        """
        return torch.stack([self._push_row(row, new) for row, new in enumerate(codes)])

    def _push_row(self, row: int, new: torch.LongTensor) -> torch.Tensor:
        known = torch.cat([self.known[row], new])
        known = known[-max(self.window, len(new) + 1) :]
        samples = self.codec.decode(known[None]).audio_values.reshape(-1).float()
        overlap, fresh = self.overlap, len(new) * self.codec.config.samples_per_frame
        self.known[row] = known[-self.window :]
        if overlap == 0:
            return samples[-fresh:]
        held, piece = self.held[row], samples[-fresh:].clone()
        if held is None:
            piece[:overlap] *= self.rise
        else:
            again = samples[-fresh - overlap : -fresh]
            piece = torch.cat([held * (1 - self.rise) + again * self.rise, piece])
        self.held[row] = piece[-overlap:]
        return piece[:-overlap]

    def flush(self) -> torch.Tensor:
        """The samples that are still held back, faded out, `(batch, samples)`; the stream ends."""
        tails = [torch.zeros(0, device=self.codec.device) if each is None else each * self.fall for each in self.held]
        return torch.stack(tails)

    def select_rows(self, index: torch.LongTensor) -> "WindowedStream":
        """A stream that goes on with the rows `index` (int64); this one is left as it is."""
        selected = WindowedStream(self.codec, [self.known[row] for row in index.tolist()], self.window, self.overlap)
        selected.held = [self.held[row] for row in index.tolist()]
        return selected


def check_window(codec: Qwen3TTSTokenizerModel, window: int, overlap: int) -> None:
    """Raises the `ValueError` of [`WindowedStream`]."""
    if window < 1:
        raise ValueError(f"`decode_window_frames` must be at least 1; got {window}.")
    longest = codec.config.samples_per_frame
    if not 0 <= overlap <= longest:
        raise ValueError(f"`overlap_samples` must lie in 0…{longest}, the samples of a frame; got {overlap}.")


__all__ = ["WindowedStream", "check_window"]
