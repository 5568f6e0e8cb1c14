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
"""The reference voice of S3Gen: what `S3GenModel.embed_ref` returns, kept in files and checked before use."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from ...files import write_tensors
from .configuration_s3gen import S3GenConfig


REFERENCE_KEYS = ("prompt_token", "prompt_token_len", "prompt_feat", "prompt_feat_len", "embedding")


@dataclass(frozen=True)
class S3GenPrompt:
    r"""
    A checked reference, one row per voice.

    Args:
        tokens (`torch.LongTensor` of shape `(voices, tokens)`): Speech tokens of the recordings, padded.
        lengths (`list[int]`): Tokens of each.
        features (`torch.Tensor` of shape `(voices, token_mel_ratio * tokens, mel_bins)`): Their mel frames.
        embedding (`torch.Tensor` of shape `(voices, speaker_embed_dim)`): Speaker vectors.
    """

    tokens: torch.Tensor
    lengths: list[int]
    features: torch.Tensor
    embedding: torch.Tensor

    def expand(self, batch_size: int) -> "S3GenPrompt":
        """The prompt for so many rows: one voice for all, or one each.

        Raises:
            ValueError: if the number of voices is neither 1 nor `batch_size`.
        """
        voices = len(self.lengths)
        if voices == batch_size:
            return self
        if voices != 1:
            raise ValueError(
                f"The reference must hold 1 voice or one for each of the {batch_size} rows of `speech_tokens`, got "
                f"{voices}. A recording with several channels counts as several voices: average the channels first."
            )
        tensors = (
            tensor.expand(batch_size, *tensor.shape[1:]) for tensor in (self.tokens, self.features, self.embedding)
        )
        tokens, features, embedding = tensors
        return S3GenPrompt(tokens, self.lengths * batch_size, features, embedding)


def make_prompt(ref_dict: Mapping[str, Any], config: S3GenConfig, device: torch.device) -> S3GenPrompt:
    """Checks a reference and brings it to the device; ids stay integers, and `ref_dict` is left as it is.

    Raises:
        ValueError: if an entry is missing, of another shape, or out of range.
    """
    _check_complete(ref_dict)
    given = {name: _tensor(ref_dict.get(name), device) for name in REFERENCE_KEYS}
    tokens, embedding = torch.atleast_2d(given["prompt_token"]).long(), torch.atleast_2d(given["embedding"])
    features = given["prompt_feat"] if given["prompt_feat"].dim() == 3 else given["prompt_feat"][None]
    _check_shapes(tokens, features, embedding, config)
    check_token_range(tokens, config.vocab_size, "ref_dict['prompt_token']")
    # An odd last frame belongs to no token: it would shift everything after it by one frame.
    lengths = _token_lengths(given, tokens.shape[0], min(tokens.shape[1], features.shape[1] // config.token_mel_ratio))
    longest = max(lengths)
    features = features[:, : longest * config.token_mel_ratio].float()
    return S3GenPrompt(tokens[:, :longest], lengths, features, embedding.float())


def join_references(references: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Several references as one with all of their voices, a row each, padded.

    Raises:
        ValueError: if one lacks an entry.
    """
    rows = [row for reference in references for row in _voices_of(reference)]
    tokens, features, embeddings = zip(*rows, strict=True)
    device = tokens[0].device
    return {
        "prompt_token": torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
        "prompt_token_len": torch.tensor([len(row) for row in tokens], device=device),
        "prompt_feat": torch.nn.utils.rnn.pad_sequence(features, batch_first=True),
        "prompt_feat_len": torch.tensor([len(row) for row in features], device=device),
        "embedding": torch.stack(embeddings),
    }


def _voices_of(reference: Mapping[str, Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Tokens, mel frames and vector of each voice, without padding."""
    _check_complete(reference)
    tokens, embeddings = (torch.atleast_2d(torch.as_tensor(reference[name])) for name in ("prompt_token", "embedding"))
    features = torch.as_tensor(reference["prompt_feat"])
    features = features if features.dim() == 3 else features[None]
    for voice, (row, frames, embedding) in enumerate(zip(tokens, features, embeddings, strict=True)):
        lengths = [reference.get(name) for name in ("prompt_token_len", "prompt_feat_len")]
        ends = [None if each is None else int(torch.as_tensor(each).reshape(-1)[voice]) for each in lengths]
        yield row[: ends[0]].long(), frames[: ends[1]].float(), embedding.float()


def _check_complete(ref_dict: Mapping[str, Any]) -> None:
    missing = [name for name in ("prompt_token", "prompt_feat", "embedding") if ref_dict.get(name) is None]
    if missing:
        raise ValueError(f"`ref_dict` must hold {', '.join(REFERENCE_KEYS)}; it lacks {', '.join(missing)}.")


def _tensor(value: Any, device: torch.device) -> torch.Tensor | None:
    if value is None:
        return None
    return (torch.from_numpy(value) if isinstance(value, np.ndarray) else torch.as_tensor(value)).to(device)


def _check_shapes(tokens: torch.Tensor, features: torch.Tensor, embedding: torch.Tensor, config: S3GenConfig) -> None:
    expected = {
        "prompt_token": (tokens, (None, None)),
        "prompt_feat": (features, (tokens.shape[0], None, config.mel_bins)),
        "embedding": (embedding, (tokens.shape[0], config.speaker_embed_dim)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.dim() != len(shape) or any(s not in (None, t) for s, t in zip(shape, tensor.shape, strict=True)):
            wanted = tuple("any" if size is None else size for size in shape)
            raise ValueError(f"`ref_dict['{name}']` must have shape {wanted}, got {tuple(tensor.shape)}.")


def _token_lengths(given: Mapping[str, Any], voices: int, longest: int) -> list[int]:
    """Tokens of each voice for which there are mel frames too."""
    lengths = given["prompt_token_len"]
    lengths = [longest] * voices if lengths is None else [int(n) for n in lengths.reshape(-1)]
    if len(lengths) != voices or min(lengths) < 0:
        raise ValueError(f"`ref_dict['prompt_token_len']` must hold {voices} lengths of 0 or more, got {lengths}.")
    return [min(length, longest) for length in lengths]


def check_token_range(tokens: torch.Tensor, vocab_size: int, name: str) -> None:
    """Refuses ids that are no speech tokens.

    Raises:
        ValueError: if an id is negative or not below `vocab_size`, or the ids are no integers.
    """
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise ValueError(f"`{name}` must hold integers, got {tokens.dtype}.")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocab_size:
        raise ValueError(
            f"`{name}` must lie in 0 … {vocab_size - 1}, got {int(tokens.min())} … {int(tokens.max())}. The marks of "
            f"start and stop ({vocab_size} and {vocab_size + 1}) are taken out by `drop_invalid_tokens`."
        )


def drop_invalid_tokens(
    speech_tokens: torch.Tensor, between_marks: bool = True, vocab_size: int = 6561
) -> torch.LongTensor:
    """The speech tokens among what a language model has written.

    Args:
        speech_tokens (`torch.LongTensor` of shape `(tokens,)` or `(1, tokens)`): Ids; `vocab_size` marks the start of
            speech, `vocab_size + 1` its end.
        between_marks (`bool`, defaults to `True`): Drop what lies before the first start and from the first end on.
        vocab_size (`int`, defaults to 6561): Number of speech tokens.

    Returns:
        `torch.LongTensor` of shape `(kept tokens,)`: Ids below `vocab_size`.

    Raises:
        ValueError: if there are several rows.
    """
    tokens = torch.as_tensor(speech_tokens)
    if tokens.dim() > 2 or (tokens.dim() == 2 and tokens.shape[0] != 1):
        raise ValueError(f"`speech_tokens` must be one row of ids, got shape {tuple(tokens.shape)}.")
    tokens = tokens.reshape(-1).long()
    if between_marks:
        tokens = cut_at_marks(tokens, vocab_size)
    return tokens[tokens < vocab_size]


def cut_at_marks(tokens: torch.LongTensor, vocab_size: int = 6561) -> torch.LongTensor:
    """What lies between the first start of speech and the first end among ids `(tokens,)`, other ids included."""
    starts, ends = (tokens == vocab_size).nonzero(), (tokens == vocab_size + 1).nonzero()
    start = int(starts[0]) + 1 if len(starts) else 0
    return tokens[start : int(ends[0]) if len(ends) else None]


def save_s3gen_reference(ref_dict: Mapping[str, Any], path: str | Path) -> None:
    """Writes a reference to a safetensors file, from which [`load_s3gen_reference`] reads it."""
    tensors = {name: _tensor(value, torch.device("cpu")) for name, value in ref_dict.items() if value is not None}
    write_tensors(path, tensors)


def load_s3gen_reference(path: str | Path) -> dict[str, torch.Tensor | None]:
    """Reads what [`save_s3gen_reference`] wrote.

    Raises:
        ValueError: if the file holds something else.
    """
    tensors = load_file(path)
    unknown = sorted(set(tensors) - set(REFERENCE_KEYS))
    if unknown or "prompt_token" not in tensors:
        raise ValueError(f"`path` must name a file of {', '.join(REFERENCE_KEYS)}, got {sorted(tensors)} in {path}.")
    return {name: tensors.get(name) for name in REFERENCE_KEYS}


__all__ = ["cut_at_marks", "drop_invalid_tokens", "join_references", "load_s3gen_reference", "save_s3gen_reference"]
