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
"""Picking the codes that MetaVoice's second stage fills in, in windows where there are more frames than it reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper

from ...acceleration.sampling import pick
from .tokens_metavoice import second_stage_ids


if TYPE_CHECKING:
    from .configuration_metavoice import MetaVoiceSecondStageConfig
    from .modeling_metavoice_second_stage import MetaVoiceSecondStageModel


# Two thirds of a window are kept, the rest overlaps with its neighbours.
_WINDOW_FRAMES = 600
_MOST_WINDOWS = 8


@dataclass(frozen=True)
class CodeWindow:
    """Frames that the second stage reads at once, and those of them whose codes are kept.

    Args:
        start, end: Frames that are read.
        keep_start, keep_end: Frames that are kept, counted as the others are.
    """

    start: int
    end: int
    keep_start: int
    keep_end: int


def second_stage_room(config: "MetaVoiceSecondStageConfig", num_text_ids: int) -> int:
    """The frames that fit behind a text of `num_text_ids` ids (without its end) and before one padding.

    Raises:
        ValueError: none does.
    """
    room = config.max_position_embeddings - num_text_ids - 2
    if room < 1:
        raise ValueError(
            f"`text_ids` holds {num_text_ids} ids; the second stage has room for "
            f"{config.max_position_embeddings - 3}: split the text."
        )
    return room


def plan_windows(frames: int, room: int) -> list[CodeWindow]:
    """Windows over `frames` frames, at most `room` of them each; one window where they fit."""
    if frames <= room:
        return [CodeWindow(0, frames, 0, frames)]
    size = min(room, _WINDOW_FRAMES)
    overlap = size // 3
    starts = [*range(0, frames - size, size - overlap), frames - size]
    bounds = [0, *((left + size + right) // 2 for left, right in zip(starts, starts[1:], strict=False)), frames]
    return [CodeWindow(start, start + size, *bounds[place : place + 2]) for place, start in enumerate(starts)]


def code_scores(
    logits: torch.Tensor, temperature: float = 1.0, top_k: int | None = 200, num_codes: int | None = None
) -> torch.Tensor:
    """What codes are picked from, float32, in the shape of `logits` `(…, choices)`.

    Args:
        logits: The second stage's.
        temperature: What they are divided by.
        top_k: So many choices are kept; `None` or 0 for all.
        num_codes: The choices below it are codes; the others are left out. `None` leaves all in.
    """
    scores = logits.float()
    if num_codes is not None:
        scores = scores[..., :num_codes]
    if temperature != 1.0:
        scores = TemperatureLogitsWarper(float(temperature))(None, scores)
    return TopKLogitsWarper(top_k)(None, scores) if top_k else scores


def draw_uniforms(generator: torch.Generator, frames: int, config: "MetaVoiceSecondStageConfig") -> torch.Tensor:
    """The random numbers of the next `frames` frames, `(frames, target_codebooks)`, from a CPU generator.

    A frame's numbers do not depend on how many are drawn at once.
    """
    return torch.rand(frames, len(config.target_vocab_sizes), generator=generator)


def complete_codes(
    second_stage: "MetaVoiceSecondStageModel",
    text_ids: Sequence[Sequence[int]],
    codes: Sequence[torch.LongTensor],
    speaker_embeddings: torch.Tensor,
    uniforms: Sequence[torch.Tensor] | None = None,
    temperature: float = 1.0,
    top_k: int | None = 200,
) -> list[torch.LongTensor]:
    """The codes of all codebooks.

    Where the frames of a row do not fit behind its text, they are read in windows that overlap, with the whole text
    before each. Codes are picked at the frames only, and never the padding.

    Args:
        second_stage: The model.
        text_ids: The tokenizer's ids of each row, without an end.
        codes: int64 `(input_codebooks, frames)` of each row.
        speaker_embeddings: `(rows, speaker_embed_size)`.
        uniforms: `(frames, target_codebooks)` in [0, 1) of each row, see [`draw_uniforms`]; the best codes by default.
        temperature: What the scores are divided by.
        top_k: So many codes are kept; `None` or 0 for all.

    Returns:
        int64 `(input_codebooks + target_codebooks, frames)` of each row, on the model's device.

    Raises:
        ValueError: a text leaves no room for a frame.
    """
    config, device = second_stage.config, second_stage.device
    jobs = []
    for row, (text, given) in enumerate(zip(text_ids, codes, strict=True)):
        room = second_stage_room(config, len(text))
        jobs += [(row, window) for window in plan_windows(given.shape[1], room) if given.shape[1]]
    rows = [[given.to(device)] for given in codes]
    filled: list[list[torch.LongTensor]] = [[] for _ in rows]
    for first in range(0, len(jobs), _MOST_WINDOWS):
        batch = jobs[first : first + _MOST_WINDOWS]
        ids = [second_stage_ids(config, text_ids[row], codes[row][:, each.start : each.end]) for row, each in batch]
        speakers = torch.stack([speaker_embeddings[row] for row, _ in batch]).to(device)
        logits = second_stage(torch.stack(ids).to(device), speakers).logits
        for (row, window), scores in zip(batch, logits, strict=True):
            place = len(text_ids[row]) + 1 + window.keep_start - window.start
            kept = scores[:, place : place + window.keep_end - window.keep_start]
            drawn = None if uniforms is None else uniforms[row][window.keep_start : window.keep_end].T
            filled[row].append(_pick(code_scores(kept, temperature, top_k, config.num_codes), drawn))
    # A row without frames has none to fill in.
    nothing = torch.empty(len(config.target_vocab_sizes), 0, dtype=torch.long, device=device)
    return [torch.cat([*row, torch.cat([nothing, *more], dim=1)]) for row, more in zip(rows, filled, strict=True)]


def _pick(scores: torch.Tensor, uniforms: torch.Tensor | None) -> torch.LongTensor:
    """Codes `(codebooks, frames)` from `scores` `(codebooks, frames, choices)`."""
    flat = scores.flatten(0, 1)
    drawn = None if uniforms is None else uniforms.to(flat.device).reshape(-1, 1)
    return pick(flat, drawn).view(scores.shape[:2])


__all__ = ["CodeWindow", "code_scores", "complete_codes", "draw_uniforms", "plan_windows", "second_stage_room"]
