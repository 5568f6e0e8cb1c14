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
"""How long phones are spoken: frame maps, the aligner's answer, and the rules after the duration model."""

from collections.abc import Sequence

import torch

from .phones_megatts3 import PHONE_TOKENS, TONED_TOKENS, phones_of_tokens


TIME_TOKEN = 800
# Frames that a pause at a mark lasts at least, by phone id: 。！？ and silence, then ，and ；.
_LEAST_FRAMES = {148: 64, 153: 64, 166: 64, 145: 64, 163: 32, 165: 32}
FIRST_PHONE_FRAMES = 8
FADE_FRAMES = 32
# Of a phone after the disturbance and the speed, whatever the model tells apart.
MOST_FRAMES = 127
FINAL_FRAMES = (64, 128)


def expand_durations(durations: torch.Tensor) -> torch.LongTensor:
    """Which phone each frame belongs to.

    Args:
        durations: Frames of each phone, `(batch, phones)`; fractions are rounded, halves to the even number.

    Returns:
        int64 `(batch, frames)`: phones counted from 1, 0 after the end of a row. A phone of 0 frames does not occur.
    """
    durations = durations.float().round().long()
    ends = durations.cumsum(1)
    frames = torch.arange(int(ends[:, -1].max()) if ends.numel() else 0, device=ends.device)
    places = (frames[None, :, None] >= ends[:, None]).sum(-1)
    return torch.where(places < durations.shape[1], places + 1, 0)


def count_frames(frame_map: torch.LongTensor, phones: int) -> torch.LongTensor:
    """Frames of each phone, int64 `(batch, phones)`: what [`expand_durations`] undoes."""
    counts = frame_map.new_zeros(len(frame_map), phones + 1)
    return counts.scatter_add(1, frame_map, torch.ones_like(frame_map))[:, 1:]


def fit_durations(durations: Sequence[int], frames: int) -> list[int]:
    """Durations changed so that they last `frames` together.

    What is missing goes to the last phone; what is too much is taken from every phone in turn, a frame at a time, but
    never below zero.

    Args:
        durations: Frames of each phone, at least one phone.
        frames: Frames of the recording.
    """
    durations = [max(duration, 0) for duration in durations]
    excess = sum(durations) - frames
    durations[-1] += max(-excess, 0)
    while excess > 0:
        for place, duration in enumerate(durations):
            if duration > 0 and excess > 0:
                durations[place] -= 1
                excess -= 1
    return durations


def read_alignment(tokens: Sequence[int], frames: int) -> tuple[torch.LongTensor, torch.LongTensor, torch.LongTensor]:
    """Phones, tones and durations that the aligner heard in a recording.

    Args:
        tokens: The aligner's answer, phones and the frames at which they end in turn, without start and end. A phone
            without an end is left out, and so is what is no phone.
        frames: Frames of the recording.

    Returns:
        Phone ids, tone ids and frames, int64 `(phones,)` each; empty where the aligner heard nothing.
    """
    pairs = [pair for pair in zip(tokens[::2], tokens[1::2], strict=False) if _is_phone(pair[0])]
    if not pairs:
        return (torch.empty(0, dtype=torch.long),) * 3
    ends = [end - TIME_TOKEN if end >= TIME_TOKEN else end for _, end in pairs]
    phones, tones = phones_of_tokens(torch.tensor([phone for phone, _ in pairs]))
    durations = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    return phones, tones, torch.tensor(fit_durations(durations, frames))


def _is_phone(token: int) -> bool:
    return 0 < token < PHONE_TOKENS.stop or token in TONED_TOKENS


def apply_duration_rules(
    tokens: torch.LongTensor,
    phone_ids: torch.LongTensor,
    is_first: bool,
    is_final: bool,
    speed_factor: float = 1.0,
    disturbance: float = 0.0,
    uniforms: tuple[torch.Tensor, torch.Tensor] | None = None,
    multiple: int = 8,
    most: int = 127,
) -> torch.LongTensor:
    """Frames of each phone from what the duration model says, by upstream's rules in upstream's order.

    Args:
        tokens: The duration model's tokens `(phones,)`, one more than frames.
        phone_ids: The phones `(phones,)`.
        is_first, is_final: Whether the segment begins, ends the text.
        speed_factor: By which durations are multiplied (upstream's `dur_alpha`): above 1 is slower.
        disturbance: The largest change of a phone (upstream's `dur_disturb`): 0.1 is ten per cent.
        uniforms: Which way and how far each phone is changed: two rows of numbers in [0, 1), `(phones,)` each.
        multiple: The frames add up to a multiple of it.
        most: The longest phone that the model tells apart.

    Returns:
        int64 `(phones,)`.
    """
    frames = (tokens - 1).clamp(0, most).float()
    if is_final:
        frames[-1] = frames[-1].clamp(*FINAL_FRAMES)
    else:
        frames[-1] += FADE_FRAMES
    if uniforms is not None:
        ratio = 1 + uniforms[1] * disturbance
        frames = torch.where(uniforms[0] > 0.5, frames * ratio, frames / ratio)
    frames = (frames * speed_factor).round().clamp(0, MOST_FRAMES)
    for phone, least in _LEAST_FRAMES.items():
        frames = torch.where(phone_ids == phone, frames.clamp(min=least), frames)
    if is_first:
        frames[0] = FIRST_PHONE_FRAMES
    frames = frames.long()
    frames[-1] += -int(frames.sum()) % multiple
    return frames


__all__ = ["apply_duration_rules", "count_frames", "expand_durations", "fit_durations", "read_alignment"]
