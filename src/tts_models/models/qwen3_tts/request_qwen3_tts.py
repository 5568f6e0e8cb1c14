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
"""What a call of Qwen3-TTS' `generate` asks for, checked before any heavy work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor

from ...request_tensors import check_input_ids, check_row_tensors
from ...speech_generation import take_options
from .configuration_qwen3_tts import Qwen3TTSConfig
from .prompt_qwen3_tts import PromptRow


_SHORTEST_TURN = 9
_SUPPRESSED_ROWS = 1024
_LENGTH_SETTINGS = ("max_new_tokens", "max_length", "max_time")


@dataclass
class Qwen3TTSOptions:
    """
    Options of `generate` and `generate_stream` beyond transformers' generation parameters; pass them as keywords.

    Args:
        seed (`int` or `list[int]`, *optional*):
            Seed of every row, or one per row: a row then sounds the same alone and in any batch.
        generator (`torch.Generator` or a list of one per row, *optional*):
            Gives the seeds instead. Without either, torch's global generator does.
        non_streaming_mode (`bool`, *optional*):
            Whether the whole text is read before the first frame, and not one token with each. By default it is, but
            for cloned voices.
        max_frames (`int`, *optional*):
            The most frames of each row (12.5 make a second); `max_new_tokens` counts one more, as upstream does.
        repetition_penalty_window (`int`, *optional*, defaults to 0):
            Frames that the repetition penalty looks back; 0 is all of them, which speeds up long speech.
        logits_processor (`list[LogitsProcessor]`, *optional*):
            Further processors over the scores of first codes; they get the row's first codes so far.

    Raises:
        ValueError: a limit below one frame, or a negative window.
    """

    seed: int | Sequence[int] | None = None
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    non_streaming_mode: bool | None = None
    max_frames: int | None = None
    repetition_penalty_window: int = 0
    logits_processor: Sequence[LogitsProcessor] | None = None

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"`max_frames` must be at least 1; got {self.max_frames}.")
        if self.repetition_penalty_window < 0:
            raise ValueError(
                f"`repetition_penalty_window` must not be negative; got {self.repetition_penalty_window}."
            )

    @classmethod
    def take_from(cls, kwargs: dict[str, Any]) -> tuple["Qwen3TTSOptions", dict[str, Any]]:
        """The options among `kwargs`, and the other keywords."""
        return take_options(cls, kwargs)


@dataclass
class Qwen3TTSRequest:
    """A checked call.

    Args:
        rows: One prompt per row.
        seeds: Seed of each row.
        config: The generation parameters.
        options: The other options.
    """

    rows: list[PromptRow]
    seeds: list[int]
    config: GenerationConfig
    options: Qwen3TTSOptions


# The tensors of `generate` beside `input_ids`, and their number of axes.
_AXES = {
    "attention_mask": 2,
    "instruct_ids": 2,
    "reference_ids": 2,
    "reference_codes": 3,
    "speaker_embeddings": 2,
    "speaker_ids": 1,
    "language_ids": 1,
    "voice_values": 2,
    "voice_values_mask": 2,
    "voice_features": 3,
    "voice_features_mask": 2,
}


def check_inputs(input_ids: Any, tensors: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """All given tensors on `device`, one row each.

    Raises:
        ValueError: a tensor is missing, has another number of axes or of rows, or is unknown.
    """
    check_input_ids(input_ids)
    checked = check_row_tensors(tensors, _AXES, lambda name: len(input_ids), device)
    for one, other in (("voice_values", "voice_values_mask"), ("voice_features", "voice_features_mask")):
        if (one in checked) != (other in checked):
            raise ValueError(f"`{one}` and `{other}` belong together.")
    return checked | {"input_ids": input_ids.to(device)}


def prompt_rows(tensors: dict[str, torch.Tensor], config: Qwen3TTSConfig) -> list[PromptRow]:
    """One prompt per row, without what must be computed from recordings.

    Raises:
        ValueError: ids out of range, a turn that is too short, or codes without a transcript.
    """
    rows = [_prompt_row(tensors, row, config) for row in range(len(tensors["input_ids"]))]
    for row, prompt in enumerate(rows):
        if prompt.reference_codes is not None and prompt.reference_ids is None:
            raise ValueError(f"Row {row} of `reference_codes` has no transcript in `reference_ids`.")
    return rows


def _prompt_row(tensors: dict[str, torch.Tensor], row: int, config: Qwen3TTSConfig) -> PromptRow:
    ids = tensors["input_ids"][row]
    if "attention_mask" in tensors:
        ids = ids[tensors["attention_mask"][row].bool()]
    codec = config.talker_config
    if len(ids) < _SHORTEST_TURN:
        raise ValueError(f"Row {row} of `input_ids` has {len(ids)} ids; a turn with text has at least 9.")
    _check_range("input_ids", ids, codec.text_vocab_size)
    prompt = PromptRow(
        input_ids=ids,
        instruct_ids=_unpadded(tensors, "instruct_ids", row, codec.text_vocab_size),
        reference_ids=_unpadded(tensors, "reference_ids", row, codec.text_vocab_size),
        speaker_id=_single(tensors, "speaker_ids", row, codec.vocab_size),
        language_id=_single(tensors, "language_ids", row, codec.vocab_size),
    )
    if "speaker_embeddings" in tensors and tensors["speaker_embeddings"][row].any():
        prompt.speaker_embedding = tensors["speaker_embeddings"][row]
        if len(prompt.speaker_embedding) != codec.hidden_size:
            raise ValueError(
                f"`speaker_embeddings` has vectors of {len(prompt.speaker_embedding)}; the model takes "
                f"{codec.hidden_size}: the voice was prepared with another model."
            )
    if "reference_codes" in tensors:
        prompt.reference_codes = _reference_codes(tensors["reference_codes"][row], config)
    return prompt


def _reference_codes(codes: torch.LongTensor, config: Qwen3TTSConfig) -> torch.LongTensor | None:
    codes = codes[codes[:, 0] >= 0]
    if not len(codes):
        return None
    groups, size = config.talker_config.num_code_groups, config.talker_config.code_predictor_config.vocab_size
    if codes.shape[1] != groups:
        raise ValueError(f"`reference_codes` must have {groups} codes per frame; got {codes.shape[1]}.")
    _check_range("reference_codes", codes, size)
    return codes


def _unpadded(tensors: dict[str, torch.Tensor], name: str, row: int, size: int) -> torch.LongTensor | None:
    """The ids of one row without the -1 around them; `None` where there are none."""
    if name not in tensors:
        return None
    ids = tensors[name][row]
    ids = ids[ids >= 0]
    _check_range(name, ids, size)
    return ids if len(ids) else None


def _single(tensors: dict[str, torch.Tensor], name: str, row: int, size: int) -> int | None:
    value = int(tensors[name][row]) if name in tensors else -1
    if value >= size:
        raise ValueError(f"`{name}` must be below {size}; got {value}.")
    return None if value < 0 else value


def _check_range(name: str, ids: torch.LongTensor, size: int) -> None:
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < size:
        raise ValueError(f"`{name}` must lie in 0…{size - 1}; got {int(ids.min())}…{int(ids.max())}.")


def end_ids(model_config: Qwen3TTSConfig, config: GenerationConfig) -> list[int]:
    """The ids that end a row: `eos_token_id`, by default the codec's end.

    Raises:
        ValueError: an id outside the codec table, or the id of a code other than the codec's end.
    """
    given, talker = config.eos_token_id, model_config.talker_config
    end, first, last = talker.codec_eos_token_id, talker.code_predictor_config.vocab_size, talker.vocab_size - 1
    ids = [int(each) for each in torch.as_tensor(end if given is None else given).flatten().tolist()]
    if not ids or not all(each == end or first <= each <= last for each in ids):
        raise ValueError(f"`eos_token_id` must hold ids in {first}…{last}; got {given}.")
    return ids


def suppressed_ids(model_config: Qwen3TTSConfig, ends: Sequence[int]) -> list[int]:
    """The special rows at the end of the codec table, none of which can be spoken, but for the ends."""
    size = model_config.talker_config.vocab_size
    return [each for each in range(max(size - _SUPPRESSED_ROWS, 0), size) if each not in ends]


def sampling_key(config: GenerationConfig, options: Qwen3TTSOptions) -> str:
    """Equal for calls that pick codes in the same way, however long they may be."""
    settings = config.to_dict() | {"repetition_penalty_window": options.repetition_penalty_window}
    return repr(sorted((name, repr(value)) for name, value in settings.items() if name not in _LENGTH_SETTINGS))


def token_limits(
    model_config: Qwen3TTSConfig, config: GenerationConfig, options: Qwen3TTSOptions, lengths: Sequence[int]
) -> list[int]:
    """The most ids that each row may pick, within its context.

    Raises:
        ValueError: less than a frame is allowed, or a prompt fills the context.
    """
    context = model_config.talker_config.max_position_embeddings
    if max(lengths) >= context:
        raise ValueError(
            f"`input_ids` has a prompt of {max(lengths)} positions, which leaves no room for speech in a context of "
            f"{context}: split the text."
        )
    limit = config.max_new_tokens or context
    if limit < 2:
        raise ValueError(f"`max_new_tokens` must be at least 2, the last one is never spoken; got {limit}.")
    if options.max_frames is not None:
        limit = min(limit, options.max_frames + 1)
    return [min(limit, context - length + 1) for length in lengths]


__all__ = [
    "Qwen3TTSOptions",
    "Qwen3TTSRequest",
    "check_inputs",
    "end_ids",
    "prompt_rows",
    "sampling_key",
    "suppressed_ids",
    "token_limits",
]
