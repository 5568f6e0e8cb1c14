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
"""What a call of MetaVoice's `generate` asks for: options, checked inputs, the parts of the texts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor

from ...request_tensors import check_input_ids, check_part_counts, check_row_tensors, in_batches
from ...speech_generation import take_options
from .configuration_metavoice import MetaVoiceConfig


@dataclass(frozen=True)
class MetaVoiceChunks:
    """
    How a stream divides the frames of a part (75 make a second) for the second stage.

    Args:
        first (`int`, *optional*, defaults to 20):
            Frames of the first chunks.
        steady (`int`, *optional*, defaults to 60):
            Frames of the later ones.
        first_until (`int`, *optional*, defaults to 60):
            The frame from which chunks are steady.
        lookahead (`int`, *optional*, defaults to 8):
            Frames that must have come after a chunk before its codes are completed.

    Raises:
        ValueError: a chunk below one frame, or a negative number.
    """

    first: int = 20
    steady: int = 60
    first_until: int = 60
    lookahead: int = 8

    def __post_init__(self) -> None:
        for name, least in (("first", 1), ("steady", 1), ("first_until", 0), ("lookahead", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}; got {getattr(self, name)}.")


@dataclass
class MetaVoiceOptions:
    """
    Options of `generate` and `generate_stream` beyond the generation parameters; pass them as keywords.

    Args:
        seed (`int` or `list[int]`, *optional*):
            Seed of every text, or one per text: a text then sounds the same alone and in any batch.
        generator (`torch.Generator` or a list of one per text, *optional*):
            Gives the seeds instead. Without either, torch's global generator does.
        chunks (`MetaVoiceChunks`, *optional*):
            The chunks of a stream.
        second_stage_temperature (`float`, *optional*, defaults to 1.0):
            Randomness of the second stage.
        second_stage_top_k (`int`, *optional*, defaults to 200):
            Candidates of its draws.
        continuation (`bool`, *optional*, defaults to `True`):
            Whether a part of a long text goes on from the ones before it: their texts and codes stand before it as far
            as they fit. Without it parts are spoken independently, and together.
        enforce_alternation (`bool`, *optional*, defaults to `True`):
            Whether the first stage must write the two codes of a frame in turn; upstream lets it go astray.
        logits_processor (`list[LogitsProcessor]`, *optional*):
            Further processors of the first stage; they see the guided scores before the others.

    Raises:
        ValueError: a number is out of range.
    """

    seed: int | Sequence[int] | None = None
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    chunks: MetaVoiceChunks = field(default_factory=MetaVoiceChunks)
    second_stage_temperature: float = 1.0
    second_stage_top_k: int = 200
    continuation: bool = True
    enforce_alternation: bool = True
    logits_processor: Sequence[LogitsProcessor] | None = None

    def __post_init__(self) -> None:
        if not self.second_stage_temperature > 0:
            raise ValueError(f"`second_stage_temperature` must be positive; got {self.second_stage_temperature}.")
        if self.second_stage_top_k < 1:
            raise ValueError(f"`second_stage_top_k` must be at least 1; got {self.second_stage_top_k}.")

    @classmethod
    def take_from(cls, kwargs: dict[str, Any]) -> tuple["MetaVoiceOptions", dict[str, Any]]:
        """The options among `kwargs`, and the other keywords."""
        return take_options(cls, kwargs)


@dataclass(frozen=True)
class ResolvedSound:
    """How codes become sound.

    Args:
        decoder: `"encodec"` or `"multi_band_diffusion"`.
        enhance: Whether the sound is cleaned.
        is_chunked: Whether the second stage works in a stream's chunks.
    """

    decoder: str
    enhance: bool
    is_chunked: bool

    @classmethod
    def of(cls, generation: GenerationConfig, config: MetaVoiceConfig, is_stream: bool) -> "ResolvedSound":
        """What `decoder`, `enhance` and `second_stage` of `generation` mean for a model.

        Raises:
            ValueError: a word is unknown, the model lacks a part that is asked for, or a stream cannot do what is.
        """
        for name, allowed in _WORDS.items():
            if getattr(generation, name) not in allowed:
                words = ", ".join(map(repr, allowed))
                raise ValueError(f"`{name}` must be one of {words}; got {getattr(generation, name)!r}.")
        if is_stream and generation.decoder == "multi_band_diffusion":
            raise ValueError("`decoder` cannot be 'multi_band_diffusion' in a stream, as it needs whole parts.")
        if is_stream and generation.second_stage == "full":
            raise ValueError("`second_stage` cannot be 'full' in a stream, as it needs whole parts.")
        has_diffusion, has_enhancer = config.diffusion_config is not None, config.enhancer_config is not None
        if generation.decoder == "multi_band_diffusion" and not has_diffusion:
            raise ValueError("`decoder` is 'multi_band_diffusion', which this checkpoint lacks: use 'encodec'.")
        if generation.enhance is True and not has_enhancer:
            raise ValueError("`enhance` is True, but this checkpoint lacks DeepFilterNet (`enhancer_config`).")
        is_diffused = generation.decoder != "encodec" and has_diffusion and not is_stream
        enhance = (is_diffused and has_enhancer) if generation.enhance == "auto" else generation.enhance
        decoder = "multi_band_diffusion" if is_diffused else "encodec"
        return cls(decoder, enhance, is_stream or generation.second_stage == "chunked")


_WORDS: dict[str, tuple[str | bool, ...]] = {
    "decoder": ("auto", "encodec", "multi_band_diffusion"),
    "enhance": ("auto", True, False),
    "second_stage": ("auto", "full", "chunked"),
}


@dataclass
class MetaVoicePart:
    """What one pass speaks.

    Args:
        text: The text it belongs to.
        number: Its place among that text's parts.
        text_ids: The tokenizer's ids, as at the beginning of a text.
        continued_ids: The same after another part.
    """

    text: int
    number: int
    text_ids: list[int]
    continued_ids: list[int]


@dataclass
class MetaVoiceRequest:
    """A checked call.

    Args:
        parts: Parts of all texts, in order.
        part_counts: Parts of each text.
        seeds: Seed of each text.
        speaker_embeddings: `(texts, speaker_embed_size)`.
        config: The generation parameters.
        options: The other options.
        sound: How codes become sound.
    """

    parts: list[MetaVoicePart]
    part_counts: list[int]
    seeds: list[int]
    speaker_embeddings: torch.Tensor
    config: GenerationConfig
    options: MetaVoiceOptions
    sound: ResolvedSound

    def waves(self, parts_per_batch: int) -> list[list[MetaVoicePart]]:
        """Parts that are spoken at once: one of each text where they go on from one another."""
        groups = [self.parts]
        if self.options.continuation:
            groups = [
                [part for part in self.parts if part.number == number] for number in range(max(self.part_counts))
            ]
        return [wave for group in groups for wave in in_batches(group, parts_per_batch)]


# The tensors of `generate` beside `input_ids`, and their number of axes.
_AXES = {
    "attention_mask": 2,
    "continued_ids": 2,
    "continued_mask": 2,
    "part_counts": 1,
    "speaker_embeddings": 2,
    "voice_features": 3,
    "voice_mask": 2,
    "voice_counts": 1,
}
INPUT_NAMES = ("input_ids", *_AXES)
_PART_NAMES = ("attention_mask", "continued_ids", "continued_mask")
_RECORDED = ("voice_features", "voice_mask", "voice_counts")


def check_inputs(input_ids: Any, tensors: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """All given tensors on `device`, `part_counts` among them.

    Raises:
        ValueError: a tensor is missing, has another number of axes or of rows, or is unknown.
    """
    check_input_ids(input_ids, "parts, length")
    counts = check_part_counts(tensors.get("part_counts"), len(input_ids))
    recordings = sum(torch.as_tensor(tensors["voice_counts"]).flatten().tolist()) if _is_given(tensors) else 0

    def rows(name: str) -> int:
        if name in _PART_NAMES:
            return len(input_ids)
        return recordings if name in ("voice_features", "voice_mask") else len(counts)

    checked = check_row_tensors(tensors, _AXES, rows, device)
    if not recordings and "speaker_embeddings" not in checked:
        raise ValueError("No voice: `speaker_embeddings` or `voice_features` is needed.")
    return checked | {"input_ids": input_ids.to(device), "part_counts": torch.tensor(counts)}


def _is_given(tensors: dict[str, Any]) -> bool:
    """Whether recordings are given.

    Raises:
        ValueError: only a part of what belongs to them is.
    """
    given = [name for name in _RECORDED if tensors.get(name) is not None]
    if given and len(given) < len(_RECORDED):
        raise ValueError(f"`{given[0]}` needs all of {', '.join(_RECORDED)}; got {', '.join(given)}.")
    return bool(given)


def read_parts(checked: dict[str, torch.Tensor], config: MetaVoiceConfig) -> list[MetaVoicePart]:
    """The parts of all texts.

    Raises:
        ValueError: a part holds no text, ids that are no text, or more than the model has room for.
    """
    rows = _text_rows(checked, "input_ids", "attention_mask", config)
    further = rows
    if "continued_ids" in checked:
        further = _text_rows(checked, "continued_ids", "continued_mask", config)
    places = [(text, number) for text, count in enumerate(checked["part_counts"].tolist()) for number in range(count)]
    return [
        MetaVoicePart(text, number, ids, continued)
        for (text, number), ids, continued in zip(places, rows, further, strict=True)
    ]


def _text_rows(
    checked: dict[str, torch.Tensor], name: str, mask_name: str, config: MetaVoiceConfig
) -> list[list[int]]:
    """The tokenizer's ids of each row, without padding, offset and end."""
    first = config.first_stage_config
    room = min(first.max_position_embeddings, config.second_stage_config.max_position_embeddings) - 2
    mask = checked.get(mask_name)
    rows = []
    for row, ids in enumerate(checked[name]):
        found = (ids if mask is None else ids[mask[row].bool()]).tolist()
        text = found[:-1]
        is_text = all(first.text_token_offset <= each < first.end_of_text_token_id for each in text)
        if not text or found[-1] != first.end_of_text_token_id or not is_text:
            raise ValueError(
                f"Row {row} of `{name}` must hold a text: ids in {first.text_token_offset}…"
                f"{first.end_of_text_token_id - 1} and {first.end_of_text_token_id} at the end; got {found[:8]}…"
            )
        if len(text) >= room:
            raise ValueError(
                f"Row {row} of `{name}` has {len(text)} ids, which leaves no room for speech; at most {room - 1} are "
                "allowed: split the text."
            )
        rows.append([each - first.text_token_offset for each in text])
    return rows


__all__ = [
    "INPUT_NAMES",
    "MetaVoiceChunks",
    "MetaVoiceOptions",
    "MetaVoicePart",
    "MetaVoiceRequest",
    "ResolvedSound",
    "check_inputs",
    "read_parts",
]
