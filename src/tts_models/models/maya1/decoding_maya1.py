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
"""The token loops of Maya1: over one slot's codes at a time, with or without aligned text, or over the vocabulary."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from ...acceleration.lockstep import LockstepDecoder
from ...acceleration.sampling import RowSampler
from .aligned_text_maya1 import AlignedText
from .audio_tokens_maya1 import AudioTokenLayout, FrameAssembler


@dataclass
class FrameStep:
    """What one round of a token loop brought.

    Args:
        rows: Rows that got a frame.
        codes: Its codes in slot order, int64 `(len(rows), slots)`.
        ended: Rows that ended before this frame, and why (`"stop"` or `"length"`).
    """

    rows: list[int]
    codes: torch.LongTensor | None
    ended: dict[int, str] = field(default_factory=dict)


class SlotHead:
    """The language-model head on the rows that the current slot allows.

    Equal to masking the full head: the kept logits are the same, the others could not have been picked. Repetition
    penalty counts the ids of prompt and speech as `RepetitionPenaltyLogitsProcessor` does.

    Args:
        weight: The head's weight `(vocab_size, hidden_size)`.
        layout: The audio ids.
        prompts: int64 prompt ids `(batch, length)`.
        repetition_penalty: 1.0 is none.
        warpers: Processors that look at nothing but the scores (temperature, top-k, top-p, …).
        sampler: Picks from the scores.
        marker_ids: Ids that the model writes between frames, see `boundary_probabilities`.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        layout: AudioTokenLayout,
        prompts: torch.LongTensor,
        repetition_penalty: float,
        warpers: LogitsProcessorList,
        sampler: RowSampler,
        marker_ids: Sequence[int] = (),
    ) -> None:
        self.layout, self.penalty, self.warpers, self.sampler = layout, repetition_penalty, warpers, sampler
        size, first = layout.codebook_size, layout.offset
        rows = [weight[first + slot * size : first + (slot + 1) * size] for slot in range(layout.slots_per_frame)]
        end_row = weight[layout.end_id : layout.end_id + 1]
        # Slot 0 may also end the speech. Choices stand in the order of their ids: a draw then picks the same id here
        # as from the whole vocabulary.
        self.end_first = layout.end_id < first
        self.marker_weight = weight[list(marker_ids)].T
        self.open_weight = torch.cat([end_row, rows[0]] if self.end_first else [rows[0], end_row]).T
        self.weights = [row.T for row in rows]
        has_penalty = repetition_penalty != 1.0
        self.seen = self._seen_codes(prompts) if has_penalty else None
        self.seen_end = (prompts == layout.end_id).any(-1, keepdim=True) if has_penalty else None

    def _seen_codes(self, prompts: torch.LongTensor) -> torch.BoolTensor:
        """Which codes of each slot occur in the prompt, `(batch, slots, codebook_size)`."""
        index = prompts - self.layout.offset
        is_audio = (index >= 0) & (index < self.layout.num_ids)
        # One extra place takes the ids that are not audio.
        seen = torch.zeros(len(prompts), self.layout.num_ids + 1, dtype=torch.bool, device=prompts.device)
        seen.scatter_(1, index.masked_fill(~is_audio, self.layout.num_ids), True)
        return seen[:, :-1].reshape(len(prompts), self.layout.slots_per_frame, -1)

    def pick(self, hidden_state: torch.Tensor, slot: int, may_end: bool = False) -> torch.LongTensor:
        """The next code `(batch,)` of `slot`; `codebook_size` means the end of the speech.

        Args:
            hidden_state: `(batch, hidden_size)`.
            slot: Slot of the frame.
            may_end: Whether the end of the speech is allowed (slot 0).
        """
        weight = self.open_weight if may_end else self.weights[slot]
        scores = (hidden_state.to(weight.device) @ weight).float()
        if self.seen is not None:
            penalized = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
            scores = torch.where(self._seen_choices(slot, may_end), penalized, scores)
        for warper in self.warpers:
            scores = warper(None, scores)
        codes = self.sampler(scores)
        if may_end and self.end_first:
            codes = torch.where(codes == 0, self.layout.codebook_size, codes - 1)
        if self.seen is not None:
            self.seen[:, slot].scatter_(1, codes[:, None].clamp(max=self.layout.codebook_size - 1), True)
        return codes

    def boundary_probabilities(self, hidden_state: torch.Tensor) -> torch.Tensor:
        """Probability `(batch, markers)` that each of `marker_ids` stands here and not a code of slot 0.

        Args:
            hidden_state: `(batch, hidden_size)`.
        """
        hidden_state = hidden_state.to(self.marker_weight.device)
        codes = (hidden_state @ self.weights[0]).float().logsumexp(-1, keepdim=True)
        return torch.sigmoid((hidden_state @ self.marker_weight).float() - codes)

    def _seen_choices(self, slot: int, may_end: bool) -> torch.BoolTensor:
        codes = self.seen[:, slot]
        if not may_end:
            return codes
        return torch.cat([self.seen_end, codes] if self.end_first else [codes, self.seen_end], 1)

    def select(self, index: torch.LongTensor) -> None:
        """Go on with the rows `index` (int64) only."""
        self.sampler.select(index)
        if self.seen is not None:
            self.seen, self.seen_end = self.seen[index], self.seen_end[index]


class SlotDecoding:
    """Frame by frame generation under the slot constraint; iterate over it to run it.

    Args:
        decoder: The backbone with the prompts.
        head: The head on one slot.
        frame_budgets: The most frames of each row.
        min_frames: Frames before the speech may end.

    Attributes:
        generated: The ids generated so far, one list per row.
    """

    def __init__(
        self, decoder: LockstepDecoder, head: SlotHead, frame_budgets: Sequence[int], min_frames: int
    ) -> None:
        self.decoder, self.head, self.layout = decoder, head, head.layout
        self.budgets, self.min_frames = list(frame_budgets), min_frames
        self.rows = list(range(len(self.budgets)))
        self.generated: list[list[int]] = [[] for _ in self.rows]

    def __iter__(self) -> Iterator[FrameStep]:
        hidden_state = self.decoder.prefill()
        frame = 0
        while self.rows:
            ended = {row: "length" for row in self.rows if frame >= self.budgets[row]}
            hidden_state = self._drop(ended, hidden_state)
            stopped, hidden_state, codes = self._open_frame(hidden_state, frame)
            ended |= stopped
            frame += 1
            is_last = all(frame >= self.budgets[row] for row in self.rows)
            frames = self._finish_frame(codes, hidden_state, is_last) if self.rows else (None, hidden_state)
            hidden_state = frames[1]
            yield self._record(FrameStep(list(self.rows), frames[0], ended))

    def _open_frame(
        self, hidden_state: torch.Tensor, frame: int
    ) -> tuple[dict[int, str], torch.Tensor, torch.LongTensor | None]:
        """Rows that end here; state and codes of slot 0 of the others."""
        may_end = frame >= self.min_frames
        codes = self.head.pick(hidden_state, 0, may_end) if self.rows else None
        if codes is None or not may_end:
            return {}, hidden_state, codes
        is_end = [code == self.layout.codebook_size for code in codes.tolist()]
        stopped = {row: "stop" for row, stop in zip(self.rows, is_end, strict=True) if stop}
        if stopped:
            hidden_state, codes = self._drop(stopped, hidden_state, codes)
        return stopped, hidden_state, codes

    def _finish_frame(
        self, codes: torch.LongTensor, hidden_state: torch.Tensor, is_last: bool
    ) -> tuple[torch.LongTensor, torch.Tensor]:
        """The frame that starts with `codes`, and the state after it (of no use after the last frame)."""
        frame = [codes]
        offset, size = self.layout.offset, self.layout.codebook_size
        for slot in range(1, self.layout.slots_per_frame):
            hidden_state = self.decoder.step(frame[-1] + (offset + (slot - 1) * size))
            frame.append(self.head.pick(hidden_state, slot))
        if not is_last:
            hidden_state = self.decoder.step(frame[-1] + (offset + (len(frame) - 1) * size))
        return torch.stack(frame, 1), hidden_state

    def _drop(self, ended: dict[int, str], *states: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Take the rows `ended` out; returns `states` without them."""
        if ended:
            kept = [place for place, row in enumerate(self.rows) if row not in ended]
            index = torch.tensor(kept, dtype=torch.long, device=states[0].device)
            states = tuple(state[index] for state in states)
            self.rows = [self.rows[place] for place in kept]
            if kept:
                self.decoder.select(index)
                self.head.select(index)
        return states if len(states) > 1 else states[0]

    def _record(self, step: FrameStep) -> FrameStep:
        for row, reason in step.ended.items():
            self.generated[row] += [self.layout.end_id] * (reason == "stop")
        if step.codes is not None:
            slots = torch.arange(self.layout.slots_per_frame, device=step.codes.device)
            ids = step.codes + self.layout.offset + slots * self.layout.codebook_size
            for row, row_ids in zip(step.rows, ids.tolist(), strict=True):
                self.generated[row] += row_ids
        return step


class AlignedSlotDecoding(SlotDecoding):
    """[`SlotDecoding`] for checkpoints whose stream holds the text: before each frame, rows whose unit of text is over
    read the next one, and rows whose last unit is over end.

    Args:
        texts: The text of each row.
        openings: The ids that its stream starts with: the decoder reads them with the prompt.
        args, kwargs: As [`SlotDecoding`].
    """

    def __init__(self, *args, texts: Sequence[AlignedText], openings: Sequence[list[int]], **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.texts = list(texts)
        self.generated = [list(opening) for opening in openings]

    def _open_frame(
        self, hidden_state: torch.Tensor, frame: int
    ) -> tuple[dict[int, str], torch.Tensor, torch.LongTensor | None]:
        stopped: dict[int, str] = {}
        undecided = set(self.rows)
        while undecided:
            following = {}
            probabilities = self.head.boundary_probabilities(hidden_state).tolist()
            for row, (end_probability, next_probability) in zip(self.rows, probabilities, strict=True):
                text = self.texts[row]
                if row in undecided and text.is_over(end_probability if text.is_last else next_probability):
                    if text.is_last:
                        stopped[row] = "stop"
                    else:
                        following[row] = text.advance()
            hidden_state = self._read(following, hidden_state) if following else hidden_state
            undecided = set(following)
        hidden_state = self._drop(stopped, hidden_state)
        return stopped, hidden_state, self.head.pick(hidden_state, 0) if self.rows else None

    def _read(self, pieces: dict[int, list[int]], hidden_state: torch.Tensor) -> torch.Tensor:
        """Read some ids per row; rows without any keep their state."""
        for column in range(max(map(len, pieces.values()))):
            ids = [pieces[row][column] if column < len(pieces.get(row, [])) else None for row in self.rows]
            for row, token_id in zip(self.rows, ids, strict=True):
                self.generated[row] += [] if token_id is None else [token_id]
            present = torch.tensor([token_id is not None for token_id in ids], device=hidden_state.device)
            token_ids = torch.tensor([token_id or 0 for token_id in ids], device=hidden_state.device)
            read = self.decoder.step(token_ids, present)
            hidden_state = torch.where(present[:, None], read, hidden_state)
        return hidden_state


class VocabularyDecoding:
    """Token by token generation over the whole vocabulary, with any of transformers' processors and criteria.

    Args:
        decoder: The backbone with the prompts.
        lm_head: Hidden states to logits.
        layout: The audio ids.
        processors: Applied to the logits, with prompt and generated ids.
        criteria: Further reasons to stop a row.
        sampler: Picks from the scores.
        token_budgets: The most tokens of each row.
        pad_id: Fed to rows that are done while others go on.
        unpack_policy: What happens to ids out of their slot, see `AudioTokenLayout.unpack`.

    Attributes:
        generated: The ids generated so far, one list per row.
    """

    def __init__(
        self,
        decoder: LockstepDecoder,
        lm_head: torch.nn.Module,
        layout: AudioTokenLayout,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        sampler: RowSampler,
        token_budgets: Sequence[int],
        pad_id: int,
        unpack_policy: str,
    ) -> None:
        self.decoder, self.lm_head, self.layout = decoder, lm_head, layout
        self.processors, self.criteria, self.sampler = processors, criteria, sampler
        self.budgets, self.pad_id = list(token_budgets), pad_id
        self.assemblers = [FrameAssembler(layout, unpack_policy, row) for row in range(len(self.budgets))]
        self.generated: list[list[int]] = [[] for _ in self.budgets]

    def __iter__(self) -> Iterator[FrameStep]:
        input_ids = self.decoder.input_ids
        hidden_state = self.decoder.prefill()
        active = {row for row, budget in enumerate(self.budgets) if budget > 0}
        yield FrameStep([], None, {row: "length" for row in range(len(self.budgets)) if row not in active})
        while active:
            logits = self.lm_head(hidden_state).float().to(input_ids.device)
            scores = self.processors(input_ids, logits)
            picked = self.sampler(scores).tolist()
            tokens = [token if row in active else self.pad_id for row, token in enumerate(picked)]
            token_ids = torch.tensor(tokens, device=input_ids.device)
            input_ids = torch.cat([input_ids, token_ids[:, None]], 1)
            wants_stop = self.criteria(input_ids, scores).tolist() if self.criteria else [False] * len(tokens)
            step = self._advance(tokens, active, wants_stop)
            if step.rows:
                yield FrameStep(step.rows, step.codes)
            if step.ended:
                active -= set(step.ended)
                yield FrameStep([], None, step.ended)
            if active:
                hidden_state = self.decoder.step(token_ids)

    def _advance(self, tokens: list[int], active: set[int], wants_stop: list[bool]) -> FrameStep:
        """Hand each active row its token; here `ended` rows end after the frame."""
        step, frames = FrameStep([], None), []
        for row in sorted(active):
            assembler = self.assemblers[row]
            self.generated[row].append(tokens[row])
            frame = assembler.push(tokens[row])
            if frame is not None:
                step.rows.append(row)
                frames.append(frame)
            if assembler.ended or wants_stop[row]:
                step.ended[row] = "stop"
            elif len(self.generated[row]) >= self.budgets[row]:
                step.ended[row] = "length"
            if row in step.ended:
                assembler.finish()
        step.codes = torch.tensor(frames, device=self.decoder.input_ids.device) if frames else None
        return step


class AllowedIdsLogitsProcessor(LogitsProcessor):
    """Keeps the audio ids and the end of speech: of every slot, or of the slot that is due.

    Args:
        layout: The audio ids.
        prompt_length: Padded length of the prompts, where slot 0 is due; `None` allows every slot at any time.
        min_frames: Frames before the speech may end (with `prompt_length` only).
    """

    def __init__(self, layout: AudioTokenLayout, prompt_length: int | None = None, min_frames: int = 0) -> None:
        self.layout, self.prompt_length, self.min_frames = layout, prompt_length, min_frames

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`scores` `(batch, vocab_size)` with everything else at -inf."""
        first, last, may_end = self.layout.offset, self.layout.offset + self.layout.num_ids, True
        if self.prompt_length is not None:
            frame, slot = divmod(input_ids.shape[1] - self.prompt_length, self.layout.slots_per_frame)
            first += slot * self.layout.codebook_size
            last = first + self.layout.codebook_size
            may_end = slot == 0 and frame >= self.min_frames
        allowed = torch.full_like(scores, -float("inf"))
        allowed[:, first:last] = scores[:, first:last]
        if may_end:
            allowed[:, self.layout.end_id] = scores[:, self.layout.end_id]
        return allowed


__all__ = [
    "AlignedSlotDecoding",
    "AllowedIdsLogitsProcessor",
    "FrameStep",
    "SlotDecoding",
    "SlotHead",
    "VocabularyDecoding",
]
