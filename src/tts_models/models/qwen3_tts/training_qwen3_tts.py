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
"""Training batches of Qwen3-TTS: text and frames laid out as the talker reads and predicts them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from .configuration_qwen3_tts import Qwen3TTSConfig


if TYPE_CHECKING:
    from .modeling_qwen3_tts import Qwen3TTSForConditionalGeneration


_HEAD = 3
FIRST_SPEAKER_ROW = 3000
"""Where upstream's training script writes its speaker into the codec table."""


def training_batch(
    config: Qwen3TTSConfig,
    text_ids: Sequence[Sequence[int]],
    audio_codes: Sequence[torch.LongTensor],
    speaker_embeddings: torch.Tensor | None = None,
    language_ids: Sequence[int | None] | None = None,
    speaker_ids: Sequence[int | None] | None = None,
) -> dict[str, torch.Tensor]:
    """The arguments of `forward` for a batch of texts and their speech, padded on the right.

    A row is a prompt that holds the whole text, then the frames, then the end: what `generate` reads in
    `non_streaming_mode` and what it should write.

    Args:
        config: The model's configuration.
        text_ids: Ids of each turn up to the end of its text: start, role, line break, text.
        audio_codes: int64 `(frames, num_code_groups)` of each row.
        speaker_embeddings: A voice for each row, `(batch, hidden_size)`; they are detached.
        language_ids: Row of the codec table for each language, `None` where the model decides.
        speaker_ids: Row of the codec table for each speaker, instead of `speaker_embeddings`.

    Returns:
        `input_ids`, `attention_mask` and `labels` int64 `(batch, length)`, `codec_ids` int64
        `(batch, length, num_code_groups)`, and with `speaker_embeddings` also `speaker_positions` `(batch,)`.

    Raises:
        ValueError: the numbers of rows differ, a row has no text or no frames, or codes are out of range.
    """
    rows, size = len(text_ids), len(audio_codes)
    if rows != size or rows == 0:
        raise ValueError(f"`text_ids` and `audio_codes` must hold one entry per row; got {rows} and {size}.")
    has_vectors = speaker_embeddings is not None
    built = [
        _training_row(
            config,
            list(text_ids[row]),
            audio_codes[row].cpu(),
            None if language_ids is None else language_ids[row],
            None if speaker_ids is None else speaker_ids[row],
            has_vectors,
        )
        for row in range(rows)
    ]
    batch: dict[str, torch.Tensor] = {}
    for name, padding in (("input_ids", -1), ("codec_ids", -1), ("labels", -100)):
        values = [row[name] for row in built]
        batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=padding)
    lengths = torch.tensor([len(row["labels"]) for row in built])
    batch["attention_mask"] = (torch.arange(batch["labels"].shape[1]) < lengths[:, None]).long()
    if has_vectors:
        batch["speaker_embeddings"] = speaker_embeddings.detach()
        batch["speaker_positions"] = torch.tensor([row["speaker_position"] for row in built])
    return batch


def _training_row(
    config: Qwen3TTSConfig,
    text_ids: list[int],
    codes: torch.LongTensor,
    language_id: int | None,
    speaker_id: int | None,
    has_vector: bool,
) -> dict[str, Any]:
    codec = config.talker_config
    if len(text_ids) <= _HEAD:
        raise ValueError(f"`text_ids` has a row of {len(text_ids)} ids: no text after the role.")
    if codes.dim() != 2 or not len(codes) or codes.shape[1] != codec.num_code_groups or codes.min() < 0:
        raise ValueError(
            f"`audio_codes` must have the shape (frames, {codec.num_code_groups}) with at least one frame and no "
            f"padding; got {tuple(codes.shape)}."
        )
    prefix = [codec.codec_nothink_id, codec.codec_think_bos_id, codec.codec_think_eos_id]
    if language_id is not None:
        prefix = [codec.codec_think_id, codec.codec_think_bos_id, language_id, codec.codec_think_eos_id]
    if speaker_id is not None or has_vector:
        # -1 leaves the place to the vector.
        prefix.append(-1 if speaker_id is None else speaker_id)
    spoken, pads = text_ids[_HEAD:], [codec.codec_pad_id]
    before = [-1] * _HEAD + prefix + pads + pads * (len(spoken) + 1) + [codec.codec_bos_id]
    end = codec.codec_eos_token_id
    first = torch.tensor([*before, *codes[:, 0].tolist(), end])
    text = text_ids[:_HEAD] + [config.tts_pad_token_id] * len(prefix)
    text += [config.tts_bos_token_id, *spoken, config.tts_eos_token_id]
    text += [config.tts_pad_token_id] * (len(first) - len(text))
    codec_ids = torch.full((len(first), codec.num_code_groups), -1)
    codec_ids[:, 0] = first
    codec_ids[len(before) : -1, 1:] = codes[:, 1:]
    labels = torch.full((len(first),), -100)
    labels[len(before) :] = first[len(before) :]
    return {
        "input_ids": torch.tensor(text),
        "codec_ids": codec_ids,
        "labels": labels,
        "speaker_position": _HEAD + len(prefix) - 1,
    }


@torch.no_grad()
def store_speakers(
    model: "Qwen3TTSForConditionalGeneration",
    speakers: Mapping[str, torch.Tensor],
    first_row: int = FIRST_SPEAKER_ROW,
) -> None:
    """Make a `"base"` model a `"custom_voice"` model of these speakers, in place: what remains to do after training.

    Each vector becomes a row of the codec table, and the speaker encoder goes.

    Args:
        model: The trained model.
        speakers: Name to speaker vector `(hidden_size,)`, as the model was trained with them.
        first_row: Row of the first speaker; the others follow.

    Raises:
        ValueError: no speakers, a vector of another width, or rows that are codes, control ids or outside the table.
    """
    codec, table = model.config.talker_config, model.talker.model.codec_embedding.weight
    if not speakers:
        raise ValueError("`speakers` is empty.")
    for name, vector in speakers.items():
        if vector.shape != table.shape[1:]:
            raise ValueError(f"`speakers[{name!r}]` must have the shape {tuple(table.shape[1:])}; got {vector.shape}.")
    rows = range(first_row, first_row + len(speakers))
    lowest = 1 + max(codec.codec_eos_token_id, codec.codec_think_eos_id, *codec.codec_language_id.values())
    if rows[0] < lowest or rows[-1] >= len(table):
        raise ValueError(
            f"`first_row` must leave {len(speakers)} rows between {lowest} and {len(table) - 1}; got {first_row}."
        )
    for row, vector in zip(rows, speakers.values(), strict=True):
        table[row] = vector.to(table)
    codec.spk_id = dict(zip(speakers, rows, strict=True))
    codec.spk_is_dialect = dict.fromkeys(speakers, False)
    model.config.tts_model_type, model.config.speaker_encoder_config = "custom_voice", None
    model.speaker_encoder = None


__all__ = ["FIRST_SPEAKER_ROW", "store_speakers", "training_batch"]
