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
"""The token loop of the grapheme-to-phoneme model: phones of many parts of texts at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import LogitsProcessorList, PreTrainedModel

from ...acceleration.decoder_step import has_plain_positions
from ...acceleration.graphed_lockstep import GraphedLockstepDecoder
from ...acceleration.lockstep import LockstepDecoder
from ...acceleration.programs import KeptPrograms
from ...acceleration.sampling import RowSampler
from .phones_megatts3 import LAST_CHINESE, PHONE_TOKENS, SILENCE, TONED_TOKENS


@dataclass
class WrittenPhones:
    """What the grapheme-to-phoneme model wrote for one part.

    Args:
        tokens: Phone tokens int64 `(phones,)`, the silence they begin with included, the end left out.
        reason: `"stop"` where the model ended, `"length"` where the limit cut it.
    """

    tokens: torch.LongTensor
    reason: str


class PhoneHead:
    """The language-model head on the tokens that are phones or the end; the others could only do harm.

    Args:
        g2p: The language model.
        first: Id of phone token 0.
        end: Phone token of the end.
    """

    def __init__(self, g2p: PreTrainedModel, first: int, end: int) -> None:
        head, size = g2p.get_output_embeddings(), end + 1
        # Only these rows of a large table are read; whatever replaced the layer keeps its own forward.
        self.rows = head.weight[first : first + size] if type(head) is nn.Linear else None
        self.head, self.ids = head, slice(first, first + size)
        allowed = [*range(LAST_CHINESE + 1, PHONE_TOKENS.stop), *range(TONED_TOKENS.start + 1, TONED_TOKENS.stop), end]
        self.closed = torch.ones(size, dtype=torch.bool, device=head.weight.device)
        self.closed[[token for token in allowed if token <= end]] = False

    def __call__(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """float32 scores `(rows, end + 1)` of hidden states `(rows, hidden_size)`."""
        if self.rows is None:
            scores = self.head(hidden_states)[:, self.ids]
        else:
            scores = nn.functional.linear(hidden_states, self.rows)
        return scores.float().masked_fill(self.closed, float("-inf"))


def write_phones(
    g2p: PreTrainedModel,
    prompts: Sequence[torch.LongTensor],
    first: int,
    end: int,
    limit: int,
    processors: LogitsProcessorList,
    generators: Sequence[torch.Generator] | None = None,
    programs: KeptPrograms | None = None,
) -> list[WrittenPhones]:
    """Phones of parts of texts; each row's are those that it would get alone.

    Args:
        g2p: A causal language model such as `Qwen2ForCausalLM`.
        prompts: What it reads, int64 `(length,)` each.
        first: Id of phone token 0.
        end: Phone token with which it ends.
        limit: The most tokens of a part.
        processors: Applied to the scores of phone tokens, with the phone tokens so far as history.
        generators: One per row to draw with; without them the best token is taken.
        programs: Recorded steps to take, where the model's can be recorded.
    """
    if programs is None or not has_plain_positions(g2p.model):
        return _write(g2p, prompts, first, end, limit, processors, generators, LockstepDecoder)
    with programs.lock:
        decoder = partial(GraphedLockstepDecoder, programs, max_steps=limit)
        return _write(g2p, prompts, first, end, limit, processors, generators, decoder)


def _write(
    g2p: PreTrainedModel,
    prompts: Sequence[torch.LongTensor],
    first: int,
    end: int,
    limit: int,
    processors: LogitsProcessorList,
    generators: Sequence[torch.Generator] | None,
    make_decoder: Callable[..., LockstepDecoder],
) -> list[WrittenPhones]:
    input_ids = nn.utils.rnn.pad_sequence(list(prompts), batch_first=True, padding_side="left")
    before = torch.tensor([input_ids.shape[1] - len(prompt) for prompt in prompts], device=input_ids.device)
    mask = (torch.arange(input_ids.shape[1], device=input_ids.device) >= before[:, None]).long()
    decoder, head = make_decoder(g2p.model, input_ids=input_ids, attention_mask=mask), PhoneHead(g2p, first, end)
    sampler = RowSampler(generators, input_ids.device)
    rows = list(range(len(prompts)))
    history = torch.full((len(rows), 1), SILENCE, device=input_ids.device)
    written: dict[int, WrittenPhones] = {}
    states = decoder.prefill()
    while rows:
        tokens = sampler(processors(history, head(states)))
        history = torch.cat([history, tokens[:, None]], dim=1)
        kept = []
        for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if token == end:
                written[row] = WrittenPhones(history[place, :-1], "stop")
            elif history.shape[1] > limit:
                written[row] = WrittenPhones(history[place], "length")
            else:
                kept.append(place)
        if len(kept) < len(rows):
            index = torch.tensor(kept, dtype=torch.long, device=input_ids.device)
            rows, history, tokens = [rows[place] for place in kept], history[index], tokens[index]
            if kept:
                decoder.select(index)
                sampler.select(index)
        if rows:
            states = decoder.step(tokens + first)
    return [written[row] for row in range(len(prompts))]


__all__ = ["WrittenPhones", "write_phones"]
