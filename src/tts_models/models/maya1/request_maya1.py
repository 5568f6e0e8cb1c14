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
"""What a call of Maya1's `generate` asks for, checked before any heavy work."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from ...request_tensors import PartsOfTexts, check_input_ids
from ...speech_generation import take_options
from .audio_tokens_maya1 import UNPACK_POLICIES
from .configuration_maya1 import Maya1Config


_SECONDS_PER_PROMPT_TOKEN = 0.35


@dataclass
class SpeechOptions:
    """
    Options of `generate` and `generate_stream` beyond transformers' generation parameters; pass them as keywords.

    Args:
        seed (`int` or `list[int]`, *optional*):
            Seed of every text, or one per text: a text then sounds the same alone and in any batch.
        generator (`torch.Generator` or a list of one per text, *optional*):
            Gives the seeds instead. Without either, torch's global generator does.
        constrain_slots (`bool`, *optional*, defaults to `True`):
            Whether token `n` must be a code of slot `n mod slots`, and the end may only come between frames.
        audio_only (`bool`, *optional*, defaults to `False`):
            With `constrain_slots=False`: whether only audio ids and the end are allowed.
        unpack_policy (`str`, *optional*, defaults to `"resync"`):
            With `constrain_slots=False`: how misaligned ids become codes (`"resync"`, `"strict"`, `"upstream"`).
        noise_scale (`float`, *optional*, defaults to 1.0):
            Factor of the codec's noise; 0 makes decoding deterministic.
        part_gap (`float`, *optional*, defaults to 0.15):
            Silence between the parts of one text, in seconds.
        trim_start_samples (`int`, *optional*, defaults to 0):
            Samples cut from the start of each text (the published scripts cut 2048).
        logits_processor (`list[LogitsProcessor]`, *optional*):
            Further processors over the whole vocabulary; slower, as the full head is then computed.
        stopping_criteria (`list[StoppingCriteria]`, *optional*):
            Further reasons to stop a row; slower for the same reason.

    Raises:
        ValueError: an unknown policy, or a negative number.
    """

    seed: int | Sequence[int] | None = None
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    constrain_slots: bool = True
    audio_only: bool = False
    unpack_policy: str = "resync"
    noise_scale: float = 1.0
    part_gap: float = 0.15
    trim_start_samples: int = 0
    logits_processor: Sequence[LogitsProcessor] | None = None
    stopping_criteria: Sequence[StoppingCriteria] | None = None

    def __post_init__(self) -> None:
        self.logits_processor = LogitsProcessorList(self.logits_processor or [])
        self.stopping_criteria = StoppingCriteriaList(self.stopping_criteria or [])
        if self.unpack_policy not in UNPACK_POLICIES:
            raise ValueError(
                f"`unpack_policy` must be one of {', '.join(UNPACK_POLICIES)}; got {self.unpack_policy!r}."
            )
        for name in ("noise_scale", "part_gap", "trim_start_samples"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must not be negative; got {getattr(self, name)}.")

    @classmethod
    def take_from(cls, kwargs: dict[str, Any]) -> tuple["SpeechOptions", dict[str, Any]]:
        """The options among `kwargs`, and the other keywords."""
        return take_options(cls, kwargs)


@dataclass
class SpeechRequest(PartsOfTexts):
    """A checked call: one row per part of text, and what applies to all of them.

    Args:
        input_ids: int64 `(parts, length)`, left-padded.
        attention_mask: int64 `(parts, length)`.
        part_counts: Parts of each text.
        seeds: Seed of each row's text.
        token_budgets: The most new tokens of each row.
        config: The generation parameters.
        options: The other options.
    """

    input_ids: torch.LongTensor
    attention_mask: torch.LongTensor
    part_counts: list[int]
    seeds: list[int]
    token_budgets: list[int]
    config: GenerationConfig
    options: SpeechOptions


def check_prompts(
    input_ids: Any, attention_mask: torch.Tensor | None, pad_token_id: int | None, device: torch.device
) -> tuple[torch.LongTensor, torch.LongTensor]:
    """Prompts and mask on `device`; without a mask, everything but padding ids counts.

    Raises:
        ValueError: not a 2-D tensor, empty, shapes that differ, or padding on the right.
    """
    input_ids = check_input_ids(input_ids, "prompts, length")
    if attention_mask is None:
        attention_mask = input_ids != pad_token_id if pad_token_id is not None else torch.ones_like(input_ids)
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"`attention_mask` {tuple(attention_mask.shape)} must have the shape of `input_ids` "
            f"{tuple(input_ids.shape)}."
        )
    if not attention_mask[:, -1].all():
        raise ValueError("`input_ids` must be padded on the left: every prompt ends with the start of speech.")
    return input_ids.to(device), attention_mask.to(device).long()


def token_budgets(
    model_config: Maya1Config,
    config: GenerationConfig,
    attention_mask: torch.LongTensor,
    duration_budget: Any,
    whole_frames: bool,
) -> list[int]:
    """The most new tokens of each row: `max_new_tokens`, else from the expected duration; within the context.

    Raises:
        ValueError: less than a frame is allowed, the prompt fills the context, or the durations do not fit.
    """
    slots = model_config.slots_per_frame if whole_frames else 1
    prompt_lengths = attention_mask.sum(-1).tolist()
    if config.max_new_tokens is None:
        wanted = _budgets_from_duration(model_config, duration_budget, prompt_lengths)
    elif config.max_new_tokens >= slots:
        wanted = [config.max_new_tokens // slots * slots] * len(prompt_lengths)
    else:
        raise ValueError(f"`max_new_tokens` must be at least {slots}, one frame; got {config.max_new_tokens}.")
    limit, longest = _context_limit(model_config, config), max(prompt_lengths)
    if limit - longest < slots:
        raise ValueError(
            f"`input_ids` has a prompt of {longest} tokens, which leaves no room for speech in a context of {limit} "
            "(`max_length`): split the text."
        )
    # Aligned text stands in the stream once more.
    repeats = 1 if model_config.aligned_text_layout is None else 2
    room = (max(limit - repeats * length, slots) // slots * slots for length in prompt_lengths)
    return [min(tokens, left) for tokens, left in zip(wanted, room, strict=True)]


def _context_limit(model_config: Maya1Config, config: GenerationConfig) -> int:
    """`max_length` unless it is the library's placeholder, within the model's positions."""
    limit = model_config.text_config.max_position_embeddings
    placeholder = GenerationConfig._get_default_generation_params().get("max_length")
    return limit if config.max_length in (None, placeholder) else min(limit, config.max_length)


def _budgets_from_duration(model_config: Maya1Config, duration_budget: Any, prompt_lengths: list[int]) -> list[int]:
    if duration_budget is None:
        seconds = [max(6.0, 2.0 + _SECONDS_PER_PROMPT_TOKEN * length) for length in prompt_lengths]
    else:
        seconds = [value / 1000 for value in torch.as_tensor(duration_budget).flatten().tolist()]
    if len(seconds) != len(prompt_lengths) or min(seconds) <= 0:
        raise ValueError(
            f"`duration_budget` must hold a positive number of milliseconds for each of the {len(prompt_lengths)} "
            f"prompts; got {duration_budget}."
        )
    frame_seconds = model_config.samples_per_frame / model_config.sampling_rate
    return [math.ceil(value / frame_seconds) * model_config.slots_per_frame for value in seconds]


__all__ = ["SpeechOptions", "SpeechRequest", "check_prompts", "token_budgets"]
