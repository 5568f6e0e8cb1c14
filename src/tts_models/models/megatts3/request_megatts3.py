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
"""What a call of MegaTTS3's `generate` asks for, checked before any heavy work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from ...request_tensors import PartsOfTexts, check_input_ids, check_part_counts, check_row_tensors
from ...speech_generation import take_options
from .configuration_megatts3 import MegaTTS3Config
from .phones_megatts3 import PHONE_TOKENS
from .sampling_megatts3_duration import MegaTTS3DurationPrompt
from .voice_megatts3 import MegaTTS3Voice


MAX_STEPS = 1000
MAX_WEIGHT = 20.0
MAX_DISTURBANCE = 1.0
SPEED_FACTORS = (0.25, 4.0)


@dataclass
class MegaTTS3Options:
    """
    Options of `generate` and `generate_stream` beyond the generation parameters; pass them as keywords.

    Args:
        seed (`int` or `list[int]`, *optional*):
            Seed of every text, or one per text: a text then sounds the same alone and in any batch.
        generator (`torch.Generator` or a list of one per text, *optional*):
            Gives the seeds instead. Without either, torch's global generator does.
        time_step (`int`, *optional*):
            Upstream's name of `num_inference_steps`.
        sequential_guidance (`bool`, *optional*, defaults to `False`):
            Whether the three rows of the guidance are computed one after the other: slower, in a third of the memory.

    Raises:
        ValueError: a number is out of range.
    """

    seed: int | Sequence[int] | None = None
    generator: torch.Generator | Sequence[torch.Generator] | None = None
    time_step: int | None = None
    sequential_guidance: bool = False

    @classmethod
    def take_from(cls, kwargs: dict[str, Any]) -> tuple["MegaTTS3Options", dict[str, Any]]:
        """The options among `kwargs`, and the other keywords."""
        return take_options(cls, kwargs)


@dataclass
class MegaTTS3Request(PartsOfTexts):
    """A checked call.

    Args:
        prompts: What the grapheme-to-phoneme model reads of each part, int64 `(length,)`; or nothing, where phones are
            given.
        phones: Phones of each part, int64 `(phones,)`; or nothing.
        tones: Their tones; or nothing.
        part_counts: Parts of each text.
        seeds: Seed of each text.
        voices: Voice of each text.
        config: The generation parameters.
        options: The other options.
        duration_prompt: What the duration model keeps of the voices, once it has read them.
    """

    prompts: list[torch.LongTensor]
    phones: list[torch.LongTensor]
    tones: list[torch.LongTensor]
    part_counts: list[int]
    seeds: list[int]
    voices: list[MegaTTS3Voice]
    config: GenerationConfig
    options: MegaTTS3Options
    duration_prompt: MegaTTS3DurationPrompt | None = None


# The tensors of `generate`, and their number of axes. Those of `PREPARED` and `RECORDED` have one row per text.
WRITTEN = {"input_ids": 2, "attention_mask": 2, "phone_ids": 2, "tone_ids": 2, "part_counts": 1}
PREPARED = {
    "prompt_phones": 2,
    "prompt_tones": 2,
    "prompt_durations": 2,
    "prompt_latents": 3,
    "prompt_loudness": 1,
}
RECORDED = {
    "voice_features": 3,
    "voice_frames": 1,
    "voice_loudness": 1,
    "voice_values": 2,
    "voice_samples": 1,
    "voice_latents": 3,
}
_AXES = WRITTEN | PREPARED | RECORDED
_NEEDED = {"prompt_phones": list(PREPARED), "voice_features": ["voice_frames", "voice_loudness"]}


def check_inputs(tensors: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """All given tensors on `device`, `part_counts` among them.

    Raises:
        ValueError: a tensor is missing, has another number of axes or of rows, or is unknown.
    """
    if (tensors.get("input_ids") is None) == (tensors.get("phone_ids") is None):
        raise ValueError("Either `input_ids` or `phone_ids` are needed, and not both.")
    written = tensors["input_ids"] if tensors.get("phone_ids") is None else tensors["phone_ids"]
    parts = len(check_input_ids(written, "parts, length"))
    counts = check_part_counts(tensors.get("part_counts"), parts)

    def rows(name: str) -> int:
        return parts if name in WRITTEN and name != "part_counts" else len(counts)

    checked = check_row_tensors(tensors, _AXES, rows, device)
    _check_companions(checked)
    return checked | {"part_counts": torch.tensor(counts)}


def _check_companions(checked: dict[str, torch.Tensor]) -> None:
    if "phone_ids" in checked:
        tones = checked.get("tone_ids")
        if tones is None or tones.shape != checked["phone_ids"].shape:
            raise ValueError("`tone_ids` of the same shape must come with `phone_ids`.")
    if not any(name in checked for name in _NEEDED):
        raise ValueError("No voice: `prompt_phones` and its like, or `voice_features` and its like, are needed.")
    for name, others in _NEEDED.items():
        missing = [other for other in others if other not in checked]
        if name in checked and missing:
            raise ValueError(f"`{name}` comes with {missing}, which are missing.")


def prompt_rows(tensors: dict[str, torch.Tensor], config: MegaTTS3Config) -> list[torch.LongTensor]:
    """What the grapheme-to-phoneme model reads of each part, without padding; nothing where phones are given.

    Raises:
        ValueError: a row is empty or has ids that the model does not know.
    """
    rows, vocab_size = [], config.g2p_config.vocab_size
    for row, ids in enumerate(tensors.get("input_ids", [])):
        if "attention_mask" in tensors:
            ids = ids[tensors["attention_mask"][row].bool()]
        if not len(ids) or not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
            raise ValueError(f"Row {row} of `input_ids` must hold ids in 0…{vocab_size - 1}, at least one.")
        rows.append(ids)
    return rows


def phone_rows(tensors: dict[str, torch.Tensor]) -> tuple[list[torch.LongTensor], list[torch.LongTensor]]:
    """Phones and tones of each part, without padding; nothing where prompts are given.

    Raises:
        ValueError: a row is empty, padded elsewhere than on the right, or has phones that are not known.
    """
    phones, tones = [], []
    for row, ids in enumerate(tensors.get("phone_ids", [])):
        count = int((ids > 0).sum())
        if not count or int(ids[:count].min()) < PHONE_TOKENS.start or int(ids.max()) >= PHONE_TOKENS.stop:
            raise ValueError(
                f"Row {row} of `phone_ids` must hold ids in {PHONE_TOKENS.start}…{PHONE_TOKENS.stop - 1}, padded with "
                "0 on the right."
            )
        phones.append(ids[:count])
        tones.append(tensors["tone_ids"][row, :count])
    return phones, tones


def prepared_voice(tensors: dict[str, torch.Tensor], row: int, config: MegaTTS3Config) -> MegaTTS3Voice | None:
    """The prepared voice of one text, `None` where it has none.

    Raises:
        ValueError: its tensors do not fit the model.
    """
    if "prompt_phones" not in tensors or not bool(tensors["prompt_phones"][row].any()):
        return None
    phones = int((tensors["prompt_phones"][row] > 0).sum())
    durations = tensors["prompt_durations"][row, :phones]
    latents = int(durations.sum()) // config.frames_per_latent
    voice = MegaTTS3Voice(
        tensors["prompt_phones"][row, :phones],
        tensors["prompt_tones"][row, :phones],
        durations,
        tensors["prompt_latents"][row, :latents],
        tensors["prompt_loudness"][row],
    )
    check_voice(voice, config)
    return voice


def check_voice(voice: MegaTTS3Voice, config: MegaTTS3Config) -> None:
    """Whether a voice fits a model.

    Raises:
        ValueError: it was prepared with another one.
    """
    width, found = config.vae_config.latent_dim, voice.latents.shape[-1]
    if found != width:
        raise ValueError(f"`voice` was prepared with another model: its latents have {found} channels, not {width}.")
    frames = int(voice.durations.sum())
    if frames % config.frames_multiple or frames != len(voice.latents) * config.frames_per_latent:
        raise ValueError(
            f"`voice` has {len(voice.latents)} latents and {frames} frames: there must be {config.frames_per_latent} "
            f"frames a latent, and a multiple of {config.frames_multiple} of them."
        )
    phones = voice.phone_ids
    if not 0 < int(phones.min()) <= int(phones.max()) < PHONE_TOKENS.stop:
        raise ValueError(f"`voice` has phones outside 1…{PHONE_TOKENS.stop - 1}.")


def check_generation(config: GenerationConfig) -> None:
    """Whether the family's own parameters make sense.

    Raises:
        ValueError: one is out of range.
    """
    ranges = {
        "num_inference_steps": (1, MAX_STEPS),
        "p_w": (0, MAX_WEIGHT),
        "t_w": (0, MAX_WEIGHT),
        "dur_disturb": (0, MAX_DISTURBANCE),
        "dur_alpha": SPEED_FACTORS,
        "max_new_tokens": (1, 2**20),
    }
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if not isinstance(value, int | float) or not least <= value <= most:
            raise ValueError(f"`{name}` must be a number in {least}…{most}; got {value!r}.")
    if int(config.num_inference_steps) != config.num_inference_steps:
        raise ValueError(f"`num_inference_steps` must be a whole number; got {config.num_inference_steps}.")


__all__ = [
    "PREPARED",
    "RECORDED",
    "WRITTEN",
    "MegaTTS3Options",
    "MegaTTS3Request",
    "check_generation",
    "check_inputs",
    "check_voice",
    "phone_rows",
    "prepared_voice",
    "prompt_rows",
]
