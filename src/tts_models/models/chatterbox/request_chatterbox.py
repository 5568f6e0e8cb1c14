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
"""What a call of Chatterbox' `generate` asks for, checked before any heavy work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor

from ...request_tensors import PartsOfTexts, check_input_ids, check_part_counts, check_row_tensors
from ...speech_generation import take_options
from ..s3gen import S3GenChunks
from .alignment_chatterbox import WATCHED_HEADS
from .configuration_chatterbox import ChatterboxConfig, ChatterboxT3Config
from .voice_chatterbox import ChatterboxVoice


FLOW_ATTENTIONS = ("auto", "full", "chunked")
MAX_EXAGGERATION = 2.0


@dataclass
class ChatterboxOptions:
    """
    Options of `generate` and `generate_stream` beyond the generation parameters; pass them as keywords.

    Args:
        seed (`int` or `list[int]`, *optional*):
            Seed of every text, or one per text: a text then sounds the same alone and in any batch.
        generator (`torch.Generator` or a list of one per text, *optional*):
            Gives the seeds instead. Without either, torch's global generator does.
        num_flow_steps (`int`, *optional*):
            Steps of S3Gen's flow; by default its own (10, or 2 for a mean-flow model).
        flow_chunks (`S3GenChunks`, *optional*):
            How a stream (and `flow_attention="chunked"`) divides the tokens; by default in S3Gen's 25s.
        part_gap (`float`, *optional*, defaults to 0.15):
            Silence between the parts of one text, in seconds.
        alignment_rule (`bool`, *optional*, defaults to `False`):
            Whether the end is ruled by how far three attention heads have read the text
            ([`~models.chatterbox.AlignmentEndRule`]); for `t3_mtl23ls_v2`, with eager attention.
        alignment_heads (`list[tuple[int, int]]`, *optional*):
            Layer and head of the heads that it watches; by default those of the released multilingual model.
        logits_processor (`list[LogitsProcessor]`, *optional*):
            Further processors; they see the guided scores before the others, and the row's tokens so far. One with a
            `select(index)` is told when rows leave the batch.

    Raises:
        ValueError: a number is out of range.
    """

    seed: int | Sequence[int] | None = None
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    num_flow_steps: int | None = None
    flow_chunks: S3GenChunks | None = None
    part_gap: float = 0.15
    alignment_rule: bool = False
    alignment_heads: Sequence[tuple[int, int]] = WATCHED_HEADS
    logits_processor: Sequence[LogitsProcessor] | None = None

    def __post_init__(self) -> None:
        if self.num_flow_steps is not None and self.num_flow_steps < 1:
            raise ValueError(f"`num_flow_steps` must be at least 1; got {self.num_flow_steps}.")
        if not self.part_gap >= 0:
            raise ValueError(f"`part_gap` must not be negative; got {self.part_gap}.")

    @classmethod
    def take_from(cls, kwargs: dict[str, Any]) -> tuple["ChatterboxOptions", dict[str, Any]]:
        """The options among `kwargs`, and the other keywords."""
        return take_options(cls, kwargs)


@dataclass
class ChatterboxRequest(PartsOfTexts):
    """A checked call.

    Args:
        texts: Text ids of each part, int64 `(text_length,)`.
        part_counts: Parts of each text.
        seeds: Seed of each text.
        voices: Voice of each text.
        exaggeration: Degree of each text.
        limits: The most tokens of each part.
        config: The generation parameters.
        options: The other options.
        is_chunked: Whether S3Gen's attention is chunked, as streams need it.
    """

    texts: list[torch.LongTensor]
    part_counts: list[int]
    seeds: list[int]
    voices: list[ChatterboxVoice]
    exaggeration: list[float]
    limits: list[int]
    config: GenerationConfig
    options: ChatterboxOptions
    is_chunked: bool


# The tensors of `generate` beside `input_ids`, and their number of axes. All but the first have one row per text.
_AXES = {
    "attention_mask": 2,
    "part_counts": 1,
    "speaker_embeddings": 2,
    "prompt_tokens": 2,
    "reference_tokens": 2,
    "reference_features": 3,
    "reference_features_mask": 2,
    "reference_embeddings": 2,
    "voice_values": 2,
    "voice_values_mask": 2,
    "prompt_values": 2,
    "prompt_values_mask": 2,
    "voice_features": 3,
    "voice_features_mask": 2,
}
PREPARED = (
    "speaker_embeddings",
    "prompt_tokens",
    "reference_tokens",
    "reference_features",
    "reference_features_mask",
    "reference_embeddings",
)
RECORDED = (
    "voice_values",
    "voice_values_mask",
    "prompt_values",
    "prompt_values_mask",
    "voice_features",
    "voice_features_mask",
)


def check_inputs(input_ids: Any, tensors: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """All given tensors on `device`, `part_counts` among them.

    Raises:
        ValueError: a tensor is missing, has another number of axes or of rows, or is unknown.
    """
    check_input_ids(input_ids, "parts, length")
    counts = check_part_counts(tensors.get("part_counts"), len(input_ids))

    def rows(name: str) -> int:
        return len(input_ids) if name == "attention_mask" else len(counts)

    checked = check_row_tensors(tensors, _AXES, rows, device)
    _check_voices(checked)
    return checked | {"input_ids": input_ids.to(device), "part_counts": torch.tensor(counts)}


def _check_voices(checked: dict[str, torch.Tensor]) -> None:
    given = {kind: [name for name in names if name in checked] for kind, names in _KINDS.items()}
    if not any(given.values()):
        raise ValueError("No voice: `speaker_embeddings` and its like, or `voice_values` and its like, are needed.")
    for kind, names in _KINDS.items():
        if given[kind] and len(given[kind]) < len(names):
            missing = sorted(set(names) - set(given[kind]))
            raise ValueError(f"`{given[kind][0]}` comes with {missing}, which are missing.")


_KINDS = {"prepared": PREPARED, "recorded": RECORDED}


def text_rows(tensors: dict[str, torch.Tensor], config: ChatterboxT3Config) -> list[torch.LongTensor]:
    """The ids of each part, without padding.

    Raises:
        ValueError: a part is empty, has ids outside the table or more positions than the model, or lacks its start.
    """
    rows = []
    for row, ids in enumerate(tensors["input_ids"]):
        if "attention_mask" in tensors:
            ids = ids[tensors["attention_mask"][row].bool()]
        if not len(ids) or not 0 <= int(ids.min()) <= int(ids.max()) < config.text_vocab_size:
            raise ValueError(
                f"Row {row} of `input_ids` must hold ids in 0…{config.text_vocab_size - 1}, at least one; got {ids}."
            )
        start, stop = config.start_text_token_id, config.stop_text_token_id
        if start is not None and not (len(ids) > 2 and int(ids[0]) == start and int(ids[-1]) == stop):
            raise ValueError(f"Row {row} of `input_ids` must hold a text between the ids {start} and {stop}.")
        if config.max_text_positions is not None and len(ids) > config.max_text_positions:
            raise ValueError(
                f"Row {row} of `input_ids` has {len(ids)} ids; the model has {config.max_text_positions} positions: "
                "split the text."
            )
        rows.append(ids)
    return rows


def prepared_voice(tensors: dict[str, torch.Tensor], row: int, config: ChatterboxConfig) -> ChatterboxVoice | None:
    """The prepared voice of one text, `None` where it has none.

    Raises:
        ValueError: its tensors do not fit the model.
    """
    if "speaker_embeddings" not in tensors or not bool(tensors["speaker_embeddings"][row].any()):
        return None
    prompt, tokens = tensors["prompt_tokens"][row], tensors["reference_tokens"][row]
    mask = tensors["reference_features_mask"][row].bool()
    voice = ChatterboxVoice(
        tensors["speaker_embeddings"][row],
        prompt[prompt >= 0].long(),
        tokens[tokens >= 0].long(),
        tensors["reference_features"][row][mask],
        tensors["reference_embeddings"][row],
    )
    check_voice(voice, config)
    return voice


def check_voice(voice: ChatterboxVoice, config: ChatterboxConfig) -> None:
    """Whether a voice fits a model.

    Raises:
        ValueError: it was prepared with another one.
    """
    t3, s3gen = config.t3_config, config.s3gen_config
    widths = {
        "speaker_embedding": t3.speaker_embed_size,
        "reference_features": s3gen.mel_bins,
        "reference_embedding": s3gen.speaker_embed_dim,
    }
    for name, width in widths.items():
        found = getattr(voice, name).shape[-1]
        if found != width:
            raise ValueError(f"`voice` was prepared with another model: its `{name}` has {found} values, not {width}.")
    if len(voice.prompt_tokens) > t3.prompt_length:
        raise ValueError(
            f"`voice` has {len(voice.prompt_tokens)} `prompt_tokens`; the model reads at most {t3.prompt_length}: it "
            "was prepared with another variant."
        )
    for name, size in (("prompt_tokens", t3.num_speech_codes), ("reference_tokens", s3gen.vocab_size)):
        ids = getattr(voice, name)
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < size:
            raise ValueError(f"`voice` has `{name}` outside 0…{size - 1}.")


def token_limits(config: ChatterboxT3Config, generation: GenerationConfig, prompt_lengths: Sequence[int]) -> list[int]:
    """The most tokens of each part, within positions and context.

    Raises:
        ValueError: less than a token is allowed, or a prompt fills the context.
    """
    limit = generation.max_new_tokens
    if limit is None:
        limit = config.max_speech_positions or config.backbone_config.max_position_embeddings
    if limit < 1:
        raise ValueError(f"`max_new_tokens` must be at least 1; got {limit}.")
    if config.max_speech_positions is not None:
        limit = min(limit, config.max_speech_positions)
    context = config.backbone_config.max_position_embeddings
    if max(prompt_lengths) >= context:
        raise ValueError(
            f"`input_ids` makes a prompt of {max(prompt_lengths)} positions, which leaves no room for speech in a "
            f"context of {context}: split the text."
        )
    return [min(limit, context - length + 1) for length in prompt_lengths]


def exaggeration_rows(value: Any, rows: int) -> list[float]:
    """One degree of exaggeration per text.

    Raises:
        ValueError: a degree outside 0…2, or another number of them than texts.
    """
    values = torch.as_tensor(value, dtype=torch.float32).flatten().tolist()
    values = values * rows if len(values) == 1 else values
    if len(values) != rows:
        raise ValueError(f"`exaggeration` holds {len(values)} values for {rows} texts: pass one, or one each.")
    for each in values:
        if not 0 <= each <= MAX_EXAGGERATION:
            raise ValueError(f"`exaggeration` must be in 0…{MAX_EXAGGERATION}; got {each}.")
    return values


__all__ = [
    "PREPARED",
    "RECORDED",
    "ChatterboxOptions",
    "ChatterboxRequest",
    "check_inputs",
    "check_voice",
    "exaggeration_rows",
    "prepared_voice",
    "text_rows",
    "token_limits",
]
