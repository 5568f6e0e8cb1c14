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
"""The training loss of Maya1 under the slot constraint."""

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy, linear

from .audio_tokens_maya1 import AudioTokenLayout


_IGNORED = -100


def slot_constrained_loss(
    hidden_states: torch.Tensor,
    head_weight: torch.Tensor,
    labels: torch.LongTensor,
    layout: AudioTokenLayout,
    marker_ids: Sequence[int],
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of each label among the ids that can stand in its place, which is what generation chooses from.

    Next to the loss over the whole vocabulary it saves most of the head's work and memory: 4,096 or 1,024 logits per
    position instead of all.

    Args:
        hidden_states: `(batch, length, hidden_size)` below the head.
        head_weight: `(vocab_size, hidden_size)`.
        labels: int64 `(batch, length)`, aligned with the inputs (shifted inside); -100 is left out.
        layout: The audio ids.
        marker_ids: Ids that may stand in place of slot 0, such as the end of the speech.
        num_items: What the sum is divided by; the number of labels by default.

    Returns:
        A scalar.

    Raises:
        ValueError: a label is neither an audio id nor a marker.
    """
    targets, states = labels[:, 1:].flatten(), hidden_states[:, :-1].flatten(0, 1)
    size, index = layout.codebook_size, targets - layout.offset
    is_audio = (index >= 0) & (index < layout.num_ids)
    slots = torch.where(is_audio, index.div(size, rounding_mode="floor"), -1)
    choices = index % size
    for place, marker_id in enumerate(marker_ids):
        slots = slots.masked_fill(targets == marker_id, 0)
        choices = choices.masked_fill(targets == marker_id, size + place)
    if ((slots < 0) & (targets != _IGNORED)).any():
        raise ValueError("`labels` must be audio ids, the end of the speech or -100 with `constrain_slots=True`.")
    total = states.new_zeros((), dtype=torch.float32)
    for slot in range(layout.slots_per_frame):
        rows = (slots == slot).nonzero().squeeze(-1)
        first = layout.offset + slot * size
        weight = head_weight[first : first + size]
        if slot == 0:
            weight = torch.cat([weight, head_weight[list(marker_ids)]])
        logits = linear(states[rows], weight).float()
        total = total + cross_entropy(logits, choices[rows], reduction="sum")
    return total / ((slots >= 0).sum() if num_items is None else num_items)


__all__ = ["slot_constrained_loss"]
