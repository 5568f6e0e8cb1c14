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
"""An end rule for the multilingual model: what T3's attention says about how far it has read.

Three attention heads of the released multilingual model follow the text while it is spoken. The rule watches them: the
end may not come before the last words, and must come when the model lingers, repeats itself or goes back afterwards.
Upstream ran it up to version 0.1.7; the newest checkpoint does without, so here it is off unless asked for.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import LogitsProcessor


WATCHED_HEADS = ((12, 15), (13, 11), (9, 2))
"""Layer and head of the released multilingual model."""
_FORCED = 2.0**15
_LONG_TAIL = _REPETITION = 5.0


class AlignmentTracker:
    """The position of one row in its text, from attention seen step by step.

    Args:
        text_length: Text positions.
        stop_token_id: Id of the end.

    Attributes:
        position: The text position that is being spoken.
        started: Whether speech follows the text yet.
        complete: Whether the end of the text was reached.
    """

    def __init__(self, text_length: int, stop_token_id: int) -> None:
        self.text_length, self.stop_token_id = text_length, stop_token_id
        self.position, self.started, self.complete = 0, False, False
        self._steps = 0
        self._last_rows = torch.zeros(0, text_length)
        self._first_columns = 0.0
        self._tail = torch.zeros(min(3, text_length))
        self._repeated = 0.0
        self._tokens: list[int] = []

    def __call__(self, attention: torch.Tensor, logits: torch.Tensor, token: int | None) -> torch.Tensor:
        """The scores with the end ruled out or forced.

        Args:
            attention: Of the positions since the last call over the text, float `(positions, text_length)`.
            logits: Scores of the next token, `(vocab_size,)`.
            token: The token before it.
        """
        attention = attention.clone().float().cpu()
        attention[:, self._steps + 1 :] = 0  # what lies ahead of the frame count is not followed yet
        self._steps += 1
        aligned = self._follow(attention)
        self._tokens = self._tokens[-2:] + ([] if token is None else [token])
        repeats_token = len(self._tokens) >= 3 and self._tokens[-1] == self._tokens[-2]
        if bool(self._tail.max() >= _LONG_TAIL) or self._repeated > _REPETITION or repeats_token:
            forced = torch.full_like(logits, -_FORCED)
            forced[self.stop_token_id] = _FORCED
            return forced
        if aligned < self.text_length - 3 and self.text_length > 5:
            logits = logits.clone()
            logits[self.stop_token_id] = -_FORCED
        return logits

    def _follow(self, attention: torch.Tensor) -> int:
        """Take new rows in; returns the column that the newest one looks at."""
        was_complete = self.complete
        self._last_rows = torch.cat([self._last_rows, attention])[-2:]
        self._first_columns = max(self._first_columns, float(attention[:, :4].max()))
        aligned = int(attention[-1].argmax())
        if -4 < aligned - self.position < 7:
            self.position = aligned
        is_false_start = bool(self._last_rows[:, -2:].max() > 0.1) or self._first_columns < 0.5
        self.started = self.started or not is_false_start
        self.complete = self.complete or self.position >= self.text_length - 3
        if was_complete:
            self._tail += attention[:, -3:].sum(0)
            if self.text_length > 5:
                self._repeated += float(attention[:, :-5].max(1).values.sum())
        return aligned


class AlignmentEndRule(LogitsProcessor):
    """[`AlignmentTracker`] for every row of a decoding batch, fed by hooks on the watched attention layers.

    The loop attaches it to the backbone and detaches it at its end.

    Args:
        text_starts: Position of the first text id of each row, padding counted.
        text_lengths: Text positions of each row.
        start_token_id: The token before the first one.
        stop_token_id: Id of the end.
        heads: Layer and head of the heads to watch.
    """

    def __init__(
        self,
        text_starts: Sequence[int],
        text_lengths: Sequence[int],
        start_token_id: int,
        stop_token_id: int,
        heads: Sequence[tuple[int, int]] = WATCHED_HEADS,
    ) -> None:
        self.slices = [slice(start, start + length) for start, length in zip(text_starts, text_lengths, strict=True)]
        self.trackers = [AlignmentTracker(length, stop_token_id) for length in text_lengths]
        self.start_token_id, self.heads = start_token_id, list(heads)
        self._seen: dict[int, torch.Tensor] = {}
        self._hooks: list[Any] = []

    def attach(self, backbone: nn.Module) -> None:
        """Watch the heads of T3's Llama, which must have eager attention: the others do not give their weights away.

        Raises:
            ValueError: another attention implementation, or a head that the backbone does not have.
        """
        check_alignment(backbone, self.heads)
        self._hooks = [
            backbone.layers[layer].self_attn.register_forward_hook(self._keep(place, head))
            for place, (layer, head) in enumerate(self.heads)
        ]

    def detach(self) -> None:
        """Take the hooks off the model."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, place: int, head: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._seen[place] = output[1][: len(self.trackers), head].float()

        return hook

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        attention = torch.stack([self._seen[place] for place in range(len(self.heads))]).mean(0).cpu()
        rows = []
        for row, (tracker, text) in enumerate(zip(self.trackers, self.slices, strict=True)):
            # The prompt's own rows are not speech: the first call sees them, the later ones a single row each.
            new = attention[row, text.stop :] if attention.shape[1] > 1 else attention[row]
            token = int(input_ids[row, -1]) if input_ids.shape[1] else self.start_token_id
            rows.append(tracker(new[:, text], scores[row], token))
        return torch.stack(rows)

    def select(self, index: torch.LongTensor) -> None:
        """Go on with the rows `index` (int64) only."""
        kept = index.tolist()
        self.trackers = [self.trackers[row] for row in kept]
        self.slices = [self.slices[row] for row in kept]


def check_alignment(backbone: nn.Module, heads: Sequence[tuple[int, int]] = WATCHED_HEADS) -> None:
    """Whether [`AlignmentEndRule`] can watch `heads` of `backbone`.

    Raises:
        ValueError: it cannot.
    """
    config = backbone.config
    if config.model_type != "llama":
        raise ValueError("`alignment_rule` needs a Llama backbone: Turbo and Nano were not trained to align.")
    if config._attn_implementation != "eager":
        raise ValueError(
            f"`alignment_rule` needs the attention weights, which {config._attn_implementation!r} does not give: load "
            "the model with `attn_implementation='eager'`."
        )
    missing = [
        (layer, head)
        for layer, head in heads
        if not (0 <= layer < config.num_hidden_layers and 0 <= head < config.num_attention_heads)
    ]
    if missing:
        raise ValueError(
            f"`alignment_heads` {missing} do not exist: the backbone has {config.num_hidden_layers} layers of "
            f"{config.num_attention_heads} heads."
        )


__all__ = ["WATCHED_HEADS", "AlignmentEndRule", "AlignmentTracker"]
