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
"""How text ids and codes are laid out for both stages, and read back."""

from collections.abc import Sequence

import torch

from .configuration_metavoice import MetaVoiceFirstStageConfig, MetaVoiceSecondStageConfig


def interleave_codes(config: MetaVoiceFirstStageConfig, codes: torch.LongTensor) -> torch.LongTensor:
    """Codes `(num_codebooks, frames)` as first-stage ids `(num_codebooks * frames,)`, frame by frame."""
    offsets = torch.arange(config.num_codebooks, device=codes.device)[:, None] * config.num_codes
    return (codes + offsets).T.flatten()


def first_stage_ids(
    config: MetaVoiceFirstStageConfig, text_ids: Sequence[int], codes: torch.LongTensor | None = None
) -> torch.LongTensor:
    """Text, end of text, and any codes as first-stage ids `(length,)`.

    Args:
        config: The first stage's.
        text_ids: The tokenizer's ids, without an end.
        codes: int64 `(num_codebooks, frames)`.
    """
    text = [token + config.text_token_offset for token in text_ids] + [config.end_of_text_token_id]
    ids = torch.tensor(text, dtype=torch.long)
    return ids if codes is None else torch.cat([ids, interleave_codes(config, codes.cpu())])


def split_first_stage(
    config: MetaVoiceFirstStageConfig, ids: Sequence[int] | torch.LongTensor
) -> tuple[list[int], torch.LongTensor]:
    """The text ids and the codes among first-stage ids, wherever they stand.

    Codes go to their codebooks in the order in which they come; codebooks of unequal length are cut to the shortest.

    Args:
        config: The first stage's.
        ids: First-stage ids, the prompt's or not.

    Returns:
        The tokenizer's ids without the end of text, and int64 codes `(num_codebooks, frames)`.
    """
    ids = torch.as_tensor(ids, dtype=torch.long).cpu()
    text = ids[(ids > config.end_of_audio_token_id) & (ids != config.end_of_text_token_id)] - config.text_token_offset
    codebook = ids.div(config.num_codes, rounding_mode="floor")
    rows = [ids[codebook == number] - number * config.num_codes for number in range(config.num_codebooks)]
    frames = min(map(len, rows))
    return text.tolist(), torch.stack([row[:frames] for row in rows])


def second_stage_ids(
    config: MetaVoiceSecondStageConfig, text_ids: Sequence[int], codes: torch.LongTensor
) -> torch.LongTensor:
    """Text and codes as the second stage reads them, `(input_codebooks, max_position_embeddings)`.

    Text stands in the first row only. What follows the codes is padding; what is too long is cut.

    Args:
        config: The second stage's.
        text_ids: The tokenizer's ids, without an end.
        codes: int64 `(input_codebooks, frames)`.
    """
    text = [token + config.text_token_offset for token in text_ids] + [config.end_of_text_token_id]
    room = config.max_position_embeddings
    ids = torch.full((len(config.vocab_sizes), room), config.num_codes, dtype=torch.long)
    text = text[:room]
    ids[0, : len(text)] = torch.tensor(text, dtype=torch.long)
    codes = codes[:, : room - len(text)].cpu()
    ids[:, len(text) : len(text) + codes.shape[1]] = codes
    return ids


__all__ = ["first_stage_ids", "interleave_codes", "second_stage_ids", "split_first_stage"]
