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
"""A voice prepared once: what was said in a reference recording, when, and its latents."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...prepared_voice import PreparedVoice


MAX_LATENTS = 2000  # 80 s: more than the aligner hears


@dataclass
class MegaTTS3Voice(PreparedVoice):
    """
    A voice, as [`MegaTTS3Processor.prepare_voice`] makes it.

    Args:
        phone_ids (`torch.LongTensor` of shape `(phones,)`):
            What is said in the recording.
        tone_ids (`torch.LongTensor` of shape `(phones,)`):
            The tones of the phones.
        durations (`torch.LongTensor` of shape `(phones,)`):
            How many frames of 10 ms each phone lasts.
        latents (`torch.FloatTensor` of shape `(latents, latent_dim)`):
            The recording as latents of 40 ms, as many as the frames fill.
        loudness (`torch.FloatTensor` without axes):
            Loudness of the recording in LUFS, which speech in this voice is brought to.

    Raises:
        ValueError: a tensor has another number of axes, or the durations do not fill the latents.
    """

    file_format = "tts_models.megatts3.voice"

    phone_ids: torch.LongTensor
    tone_ids: torch.LongTensor
    durations: torch.LongTensor
    latents: torch.Tensor
    loudness: torch.Tensor

    def __post_init__(self) -> None:
        for name, axes in {"phone_ids": 1, "tone_ids": 1, "durations": 1, "latents": 2, "loudness": 0}.items():
            value = getattr(self, name)
            if value.dim() != axes or not value.numel():
                raise ValueError(f"`{name}` must have {axes} axes and not be empty; got shape {tuple(value.shape)}.")
        if not len(self.phone_ids) == len(self.tone_ids) == len(self.durations):
            raise ValueError(
                f"`phone_ids`, `tone_ids` and `durations` must be equally long; they have {len(self.phone_ids)}, "
                f"{len(self.tone_ids)} and {len(self.durations)} entries."
            )
        if int(self.durations.min()) < 0 or int(self.durations.sum()) % len(self.latents):
            raise ValueError(
                f"`durations` must fill the {len(self.latents)} `latents`; they add up to "
                f"{int(self.durations.sum())} frames."
            )


def read_latents(latents: Any, width: int) -> torch.Tensor:
    """Latents of a recording, float32 `(latents, width)`.

    Args:
        latents: Path of a `.npy` file, which is read without pickle, or an array or tensor: `(1, latents, width)` as
            upstream publishes them, or without the first axis.
        width: Channels of the model's latents.

    Raises:
        ValueError: no such file, no `.npy`, pickled objects, another shape or kind of numbers, NaN, or far too many.
    """
    name = "voice"
    if isinstance(latents, str | PathLike):
        name = f"voice latents {str(latents)!r}"
        latents = _open_array(Path(latents))
    elif isinstance(latents, torch.Tensor):
        latents = latents.detach().float().cpu().numpy()
    shape = tuple(latents.shape)
    rows = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    if len(rows) != 2 or rows[1] != width or not 0 < rows[0] <= MAX_LATENTS:
        raise ValueError(
            f"`{name}` must have the shape (1, latents, {width}) with at most {MAX_LATENTS} latents; got {shape}."
        )
    if not np.issubdtype(latents.dtype, np.floating):
        raise ValueError(f"`{name}` must hold floating-point numbers; got {latents.dtype}.")
    values = np.asarray(latents, dtype=np.float32).reshape(rows)
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` holds NaN or infinite numbers.")
    return torch.from_numpy(values.copy())


def _open_array(path: Path) -> np.ndarray:
    """The array of a file, mapped into memory, so that nothing is read before its shape is known."""
    if not path.is_file():
        raise ValueError(f"`voice` {str(path)!r} is no file: latents (.npy) are needed.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"`voice` {str(path)!r} cannot be read as an array (.npy): {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"`voice` {str(path)!r} must hold one array (.npy), not an archive.")
    return array


__all__ = ["MegaTTS3Voice", "read_latents"]
