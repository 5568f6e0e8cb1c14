"""Picking a token per row without asking the device anything: for code that is compiled or captured in a graph."""

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from .sampling import pick


# Processors that look at nothing but the scores, and only through operations that stay on the device.
_PURE = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper, TypicalLogitsWarper)
_MASKS = (SuppressTokensLogitsProcessor, MinNewTokensLengthLogitsProcessor)


def are_pure(processors: LogitsProcessorList, allowed: tuple[type[LogitsProcessor], ...] = _PURE) -> bool:
    """Whether the processors look at the scores alone, and never at the history."""
    return all(type(processor) in allowed for processor in processors)


class InlinePicker:
    """What the library's processors do, over state that stays on the device and keeps its shape.

    Args:
        processors: Any of suppressed tokens, minimum length, temperature, top-k, top-p, min-p and typical sampling.
        repetition_penalty: Over what the row picked; 1.0 is none.
        repetition_penalty_window: The most recent picks that it looks at; 0 for all.
        is_drawing: Whether picks are drawn; otherwise the best is taken.
        batch_size: Rows.
        vocab_size: Choices.
        device: Where the scores are.

    Raises:
        ValueError: a processor is of another kind; see [`InlinePicker.supports`].
    """

    def __init__(
        self,
        processors: LogitsProcessorList,
        repetition_penalty: float,
        repetition_penalty_window: int,
        is_drawing: bool,
        batch_size: int,
        vocab_size: int,
        device: torch.device,
    ) -> None:
        if not self.supports(processors):
            raise ValueError(f"`processors` must be among {[each.__name__ for each in _PURE + _MASKS]}.")
        self.penalty, self.window, self.is_drawing = repetition_penalty, repetition_penalty_window, is_drawing
        self.vocab_size = vocab_size
        self.processors = LogitsProcessorList([each for each in processors if type(each) in _PURE])
        self.suppressed = torch.zeros(vocab_size, dtype=torch.bool, device=device)
        self.ends, self.min_new_tokens = self.suppressed.clone(), 0
        for each in processors:
            self._read_mask(each)
        # One column more, for the picks that have not been made yet.
        self.seen = torch.zeros(batch_size, vocab_size + 1, dtype=torch.bool, device=device)
        self.recent = torch.full((batch_size, max(repetition_penalty_window, 1)), vocab_size, device=device)
        self.picks = torch.zeros((), dtype=torch.long, device=device)

    @staticmethod
    def supports(processors: LogitsProcessorList) -> bool:
        """Whether all `processors` are of kinds that this class stands in for."""
        return are_pure(processors, _PURE + _MASKS)

    def _read_mask(self, processor: LogitsProcessor) -> None:
        if isinstance(processor, SuppressTokensLogitsProcessor):
            self.suppressed[processor.suppress_tokens.to(self.suppressed.device)] = True
        elif isinstance(processor, MinNewTokensLengthLogitsProcessor):
            self.ends[processor.eos_token_id.to(self.ends.device)] = True
            self.min_new_tokens = processor.min_new_tokens

    def __call__(self, logits: torch.Tensor, uniforms: torch.Tensor) -> torch.LongTensor:
        """The next id `(batch,)` from `logits` `(batch, vocab_size)` and `uniforms` `(batch, 1)`."""
        scores = logits.float()
        if self.penalty != 1.0:
            penalized = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
            scores = torch.where(self.seen[:, : self.vocab_size], penalized, scores)
        forbidden = self.suppressed | (self.ends & (self.picks < self.min_new_tokens))
        scores = self.processors(None, scores.masked_fill(forbidden, -float("inf")))
        picked = pick(scores, uniforms if self.is_drawing else None)
        self._remember(picked[:, None])
        return picked

    def _remember(self, picked: torch.LongTensor) -> None:
        self.picks.add_(1)
        if self.window:
            self.recent.copy_(torch.cat([self.recent[:, 1:], picked], dim=1))
            self.seen.fill_(False).scatter_(1, self.recent, True)
        else:
            self.seen.scatter_(1, picked, True)

    def reset(self) -> None:
        """Forget every pick."""
        self.seen.fill_(False)
        self.recent.fill_(self.vocab_size)
        self.picks.zero_()

    def take_over(self, other: "InlinePicker") -> None:
        """Go on with the history of `other`."""
        for name in ("seen", "recent", "picks"):
            getattr(self, name).copy_(getattr(other, name))


__all__ = ["InlinePicker", "are_pure"]
