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
"""The loop in which MegaTTS3's duration model writes one token after the other: fixed shapes, nothing read back."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from ...acceleration.cuda_graph import CapturedCall
from ...acceleration.kv_cache import SlotLayer


if TYPE_CHECKING:
    from .modeling_megatts3_duration import MegaTTS3DurationModel


@dataclass
class MegaTTS3DurationPrompt:
    """
    References as the duration model has read them.

    Args:
        keys, values (`torch.Tensor` of shape `(layers, batch, heads, length, head_dim)`):
            Of the decoder, the keys rotated.
        lengths (`torch.LongTensor` of shape `(batch,)`):
            Phones of each reference.
        last_tokens (`torch.LongTensor` of shape `(batch,)`):
            The duration token of the last phone, which is not yet among the keys' inputs.
    """

    keys: torch.Tensor
    values: torch.Tensor
    lengths: torch.LongTensor
    last_tokens: torch.LongTensor

    def select_rows(self, rows: torch.LongTensor | list[int]) -> "MegaTTS3DurationPrompt":
        """The references `rows`, in that order; a row may be named several times."""
        rows = torch.as_tensor(rows, device=self.lengths.device)
        return MegaTTS3DurationPrompt(
            self.keys[:, rows], self.values[:, rows], self.lengths[rows], self.last_tokens[rows]
        )

    def to(self, *args: torch.device | str | torch.dtype) -> "MegaTTS3DurationPrompt":
        """On another device; a dtype only changes keys and values."""
        moved = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            kept = [each for each in args if tensor.is_floating_point() or not isinstance(each, torch.dtype)]
            moved[field.name] = tensor.to(*kept) if kept else tensor
        return MegaTTS3DurationPrompt(**moved)


class SlotCache:
    """Keys and values of every layer in room that never changes; see `SlotLayer`."""

    def __init__(self, layers: list[SlotLayer]) -> None:
        self.layers = layers

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new states to their slots; returns the whole room."""
        return self.layers[layer_idx].update(key_states, value_states)


Draw = tuple[float, int, torch.Generator | None]


class DurationLoop:
    """Writes the tokens of a batch, in tensors that keep their shape and place.

    All rows take as many steps as the longest text has phones, and nothing is read back from the device.

    Args:
        model: The duration model.
        batch_size: Rows.
        room: The most phones of reference and text together.
    """

    def __init__(self, model: "MegaTTS3DurationModel", batch_size: int, room: int) -> None:
        config, weight = model.config, model.head.weight
        self.model, self.room = model, room
        self.device, self.dtype = weight.device, weight.dtype
        heads = config.num_attention_heads
        shape = (batch_size, heads, room, config.hidden_size // heads)
        layers = [SlotLayer(shape, self.dtype, self.device) for _ in range(config.num_hidden_layers)]
        for layer in layers:
            layer.slots = layers[0].slots
        self.cache, self.slot = SlotCache(layers), layers[0].slots
        self.step = torch.zeros(1, dtype=torch.long, device=self.device)
        self.positions = torch.zeros(batch_size, 1, dtype=torch.long, device=self.device)
        self.tokens = torch.zeros(batch_size, room + 1, dtype=torch.long, device=self.device)
        self.text_states = torch.zeros(batch_size, room, config.hidden_size, dtype=self.dtype, device=self.device)
        self.mask = torch.zeros(batch_size, 1, 1, room, dtype=self.dtype, device=self.device)
        self.least = torch.ones(room, dtype=torch.long, device=self.device)
        # Upstream allows nothing to last no time but the first phone.
        self.least[0] = 0
        self.advance: Callable[[], None] = self._advance

    @classmethod
    def recorded(cls, model: "MegaTTS3DurationModel", batch_size: int, room: int) -> "DurationLoop":
        """A loop whose step is recorded as a CUDA graph, where there is CUDA."""
        loop = cls(model, batch_size, room)
        if loop.device.type == "cuda":
            loop.advance = CapturedCall(loop._advance, loop.device)
        return loop

    def load(self, prompt: MegaTTS3DurationPrompt | None, text_states: torch.Tensor) -> None:
        """Begin with other texts.

        Args:
            prompt: One reference per row, or `None`.
            text_states: `(batch, length, hidden_size)` of the texts.
        """
        known = 0 if prompt is None else prompt.keys.shape[3]
        self.step.zero_()
        self.slot.fill_(known)
        self.positions.zero_()
        self.tokens.fill_(self.model.config.begin_token_id)
        self.text_states[:, : text_states.shape[1]] = text_states
        self.mask.fill_(torch.finfo(self.dtype).min)
        if prompt is not None:
            prompt = prompt.to(self.device, self.dtype)
            self.tokens[:, 0] = prompt.last_tokens
            self.positions += prompt.lengths[:, None]
            is_known = torch.arange(known, device=self.device) < prompt.lengths[:, None, None, None]
            self.mask[..., :known].masked_fill_(is_known, 0.0)
            for layer, keys, values in zip(self.cache.layers, prompt.keys, prompt.values, strict=True):
                layer.fill(keys, values)

    def run(self, steps: int, draw: Draw | None = None) -> torch.LongTensor:
        """The tokens `(batch, steps)`, also for padding, where they mean nothing.

        Args:
            steps: How many phones the longest text has.
            draw: Temperature, number of scores and generator of the draws; `None` to take the likeliest.
        """
        for _ in range(steps):
            if draw is None:
                self.advance()
            else:
                self.write(_drawn(self.read(), *draw))
        return self.tokens[:, 1 : steps + 1].clone()

    def _advance(self) -> None:
        logits = self.read()
        self.write(logits[:, 0].float().round().long() if self.model.is_regression else logits.argmax(-1))

    def read(self) -> torch.Tensor:
        """The scores `(batch, 1 or tokens)` at the present step."""
        self.mask.index_fill_(3, self.slot, 0.0)
        text_state = self.text_states.index_select(1, self.step)
        before = self.tokens.index_select(1, self.step)
        hidden_states = self.model.embed(text_state, before, self.step)
        return self.model.decode(hidden_states, self.positions, self.mask, self.cache)[:, 0]

    def write(self, tokens: torch.LongTensor) -> None:
        """Take the tokens `(batch,)` of the present step, and go on to the next."""
        tokens = tokens.clamp(max=self.model.config.begin_token_id).maximum(self.least.index_select(0, self.step))
        self.tokens.index_copy_(1, self.step + 1, tokens[:, None])
        for counter in (self.step, self.slot, self.positions):
            counter.add_(1)


def _drawn(logits: torch.Tensor, temperature: float, top_k: int, generator: torch.Generator | None) -> torch.Tensor:
    """A token per row `(batch,)` from scores `(batch, tokens)`."""
    scores = logits.float() / temperature
    if 0 < top_k < scores.shape[-1]:
        scores = scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], float("-inf"))
    return torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]


def check_sampling(is_regression: bool, temperature: float, top_k: int) -> None:
    """Refuses to draw from a model that regresses, and what no draw can use.

    Raises:
        ValueError: so.
    """
    if is_regression:
        raise ValueError("`do_sample=True` needs a duration model that classifies; this one gives one number.")
    if not temperature > 0:
        raise ValueError(f"`temperature` must be above 0; got {temperature}.")
    if top_k < 0:
        raise ValueError(f"`top_k` must not be negative; got {top_k}.")


__all__ = ["DurationLoop", "MegaTTS3DurationPrompt", "SlotCache", "check_sampling"]
