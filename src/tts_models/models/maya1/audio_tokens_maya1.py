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
"""How SNAC codes become one flat stream of token ids, and back.

One coarse frame of the codec is written depth first: a code of the coarsest level, then, for each of its children,
that child's code followed by the child's own children. With strides `[4, 2, 1]` this is the seven-slot frame
`L1, L2, L3, L3, L2, L3, L3`; with `[2, 1]` it is `L1, L2, L2`. Slot `s` owns the id range
`[offset + s * codebook_size, offset + (s + 1) * codebook_size)`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property


UNPACK_POLICIES = ("resync", "strict", "upstream")


def frame_layout(strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The slots of one frame, in stream order, for the codec's `vq_strides`.

    Args:
        strides: Latent steps per code of each level, coarse first; each must be a multiple of the next.

    Returns:
        One `(level, position within the frame)` pair per slot.

    Raises:
        ValueError: the strides are empty, not positive, or not nested.
    """
    strides = list(strides)
    nested = all(coarse >= fine and coarse % fine == 0 for coarse, fine in zip(strides, strides[1:], strict=False))
    if not strides or min(strides) < 1 or not nested:
        raise ValueError(
            f"`vq_strides` must be positive and each a multiple of the next (coarse first), such as [4, 2, 1]; "
            f"got {strides}."
        )
    layout: list[tuple[int, int]] = []

    def visit(level: int, position: int) -> None:
        layout.append((level, position))
        if level + 1 < len(strides):
            children = strides[level] // strides[level + 1]
            for child in range(children):
                visit(level + 1, position * children + child)

    visit(0, 0)
    return tuple(layout)


@dataclass(frozen=True)
class UnpackInfo:
    """What `AudioTokenLayout.unpack` saw besides whole frames.

    Attributes:
        frames: Whole frames returned.
        ended: Whether the end-of-speech id was found.
        dropped_tokens: Audio ids that belong to no returned frame (misaligned, or an unfinished last frame).
        ignored_tokens: Ids before the end that are not audio ids at all.
    """

    frames: int = 0
    ended: bool = False
    dropped_tokens: int = 0
    ignored_tokens: int = 0


@dataclass(frozen=True)
class AudioTokenLayout:
    """The audio part of the vocabulary and the rule that maps ids to codes.

    Args:
        offset: Id of code 0 in slot 0.
        codebook_size: Codes per level.
        strides: The codec's `vq_strides`, coarse first.
        end_id: Id that ends the speech, or `None`.
    """

    offset: int
    codebook_size: int
    strides: tuple[int, ...]
    end_id: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(int(stride) for stride in self.strides))
        self.slots  # noqa: B018 - raises on strides that do not nest

    @cached_property
    def slots(self) -> tuple[tuple[int, int], ...]:
        """`(level, position within the frame)` of every slot."""
        return frame_layout(self.strides)

    @property
    def slots_per_frame(self) -> int:
        """Tokens per coarse frame."""
        return len(self.slots)

    @property
    def num_levels(self) -> int:
        """Codebooks of the codec."""
        return len(self.strides)

    @property
    def num_ids(self) -> int:
        """Size of the audio id range."""
        return self.slots_per_frame * self.codebook_size

    def codes_per_frame(self, level: int) -> int:
        """Codes of `level` in one frame."""
        return self.strides[0] // self.strides[level]

    def slot_of(self, token_id: int) -> int | None:
        """Slot that owns `token_id`, or `None` when it is not an audio id."""
        index = token_id - self.offset
        return index // self.codebook_size if 0 <= index < self.num_ids else None

    def pack(self, codes: Sequence[Sequence[int]]) -> list[int]:
        """Codes to ids.

        Args:
            codes: One sequence of codes per level, coarse first, of `frames * codes_per_frame(level)` values each.

        Returns:
            The ids, `slots_per_frame` per frame.

        Raises:
            ValueError: wrong number of levels, lengths that are not the same whole number of frames, or a code outside
                `[0, codebook_size)`; the message names the level.
        """
        levels = [[int(code) for code in level] for level in codes]
        frames = self._check_codes(levels)
        return [
            self.offset + slot * self.codebook_size + levels[level][frame * self.codes_per_frame(level) + position]
            for frame in range(frames)
            for slot, (level, position) in enumerate(self.slots)
        ]

    def _check_codes(self, levels: list[list[int]]) -> int:
        if len(levels) != self.num_levels:
            raise ValueError(f"`codes` must hold {self.num_levels} levels, coarse first; got {len(levels)}.")
        frames = len(levels[0]) // self.codes_per_frame(0)
        for index, level in enumerate(levels):
            if len(level) != frames * self.codes_per_frame(index):
                raise ValueError(
                    f"`codes[{index}]` has {len(level)} codes; {frames} frames need "
                    f"{frames * self.codes_per_frame(index)}."
                )
            if level and not 0 <= min(level) <= max(level) < self.codebook_size:
                raise ValueError(
                    f"`codes[{index}]` spans {min(level)}…{max(level)}; allowed are 0…{self.codebook_size - 1}."
                )
        return frames

    def split_frames(self, frames: Iterable[Sequence[int]]) -> list[list[int]]:
        """Frames of slot codes (each `slots_per_frame` values) to one code list per level."""
        levels: list[list[int]] = [[] for _ in self.strides]
        for frame in frames:
            for (level, _), code in zip(self.slots, frame, strict=True):
                levels[level].append(code)
        return levels

    def unpack(
        self, token_ids: Iterable[int], policy: str = "resync", row: int = 0
    ) -> tuple[list[list[int]], UnpackInfo]:
        """Ids to codes, up to the first end-of-speech id; only whole frames are returned.

        Args:
            token_ids: The generated ids of one row.
            policy: `"resync"` skips ids that are out of their slot until the next frame starts, `"strict"` raises on
                them and on an unfinished last frame, `"upstream"` takes every audio id by its position alone, as the
                published scripts do (one missing id then turns the rest into noise).
            row: Number of the row, for the error message only.

        Returns:
            One list of codes per level, and what was left out.

        Raises:
            ValueError: unknown policy; or a stream that `"strict"` does not accept (row, position, id, expected slot).
        """
        assembler = FrameAssembler(self, policy, row)
        frames = []
        for token_id in token_ids:
            frame = assembler.push(int(token_id))
            if frame is not None:
                frames.append(frame)
            if assembler.ended:
                break
        return self.split_frames(frames), assembler.finish()


@dataclass
class FrameAssembler:
    """Collects the ids of one row, one at a time, into whole frames of codes (see `AudioTokenLayout.unpack`)."""

    layout: AudioTokenLayout
    policy: str = "resync"
    row: int = 0
    ended: bool = False
    position: int = 0
    frames: int = 0
    dropped: int = 0
    ignored: int = 0
    partial: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.policy not in UNPACK_POLICIES:
            raise ValueError(f"`policy` must be one of {', '.join(UNPACK_POLICIES)}; got {self.policy!r}.")

    def push(self, token_id: int) -> list[int] | None:
        """Take one id; returns a frame of codes (one per slot) when this id completes it."""
        if self.ended:
            return None
        if token_id == self.layout.end_id:
            self.ended = True
            return None
        position, self.position = self.position, self.position + 1
        slot = self.layout.slot_of(token_id)
        if slot is None:
            self.ignored += 1
            return None
        if self.policy != "upstream" and slot != len(self.partial) and not self._realign(token_id, slot, position):
            return None
        self.partial.append((token_id - self.layout.offset) % self.layout.codebook_size)
        if len(self.partial) < self.layout.slots_per_frame:
            return None
        frame, self.partial = self.partial, []
        self.frames += 1
        return frame

    def _realign(self, token_id: int, slot: int, position: int) -> bool:
        """Drop the unfinished frame; true when `token_id` itself starts the next one."""
        if self.policy == "strict":
            raise ValueError(
                f"Row {self.row}, position {position}: id {token_id} belongs to slot {slot}, expected slot "
                f"{len(self.partial)} of {self.layout.slots_per_frame}."
            )
        self.dropped += len(self.partial) + (slot != 0)
        self.partial = []
        return slot == 0

    def finish(self) -> UnpackInfo:
        """Close the row: an unfinished frame is dropped (an error with `"strict"`)."""
        if self.partial and self.policy == "strict":
            raise ValueError(
                f"Row {self.row}, position {self.position}: the stream ends inside a frame, expected slot "
                f"{len(self.partial)} of {self.layout.slots_per_frame}."
            )
        dropped, self.partial = self.dropped + len(self.partial), []
        return UnpackInfo(self.frames, self.ended, dropped, self.ignored)


__all__ = ["AudioTokenLayout", "FrameAssembler", "UnpackInfo", "frame_layout"]
