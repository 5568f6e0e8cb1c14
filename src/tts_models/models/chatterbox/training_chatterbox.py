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
"""Training batches of T3: texts, speech tokens and voices as `forward` takes them."""

from collections.abc import Sequence

import torch

from .configuration_chatterbox import ChatterboxT3Config
from .voice_chatterbox import ChatterboxVoice


def training_batch(
    config: ChatterboxT3Config,
    text_ids: Sequence[Sequence[int]],
    speech_tokens: Sequence[torch.LongTensor],
    voices: Sequence[ChatterboxVoice],
    exaggeration: float = 0.5,
    text_dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """The arguments of `forward` for a batch of texts and their speech, padded on the right.

    Args:
        config: T3's configuration.
        text_ids: Ids of each text, with those around it (`ChatterboxProcessor.text_ids`).
        speech_tokens: int64 `(tokens,)` of each row, without start and end.
        voices: Voice of each row, best from another recording of the same speaker.
        exaggeration: Degree that the rows are trained with.
        text_dropout: Probability that a row loses its text, which keeps the model fit for guidance.
        generator: Draws those rows.

    Returns:
        `input_ids`, `attention_mask`, `text_labels` `(batch, text_length)`, `speech_ids`, `speech_attention_mask`,
        `labels` `(batch, speech_length)`, `speaker_embeddings`, `prompt_tokens`, `exaggeration` and `drop_text`.

    Raises:
        ValueError: the numbers of rows differ, or a row's speech is empty, too long or has ids that are no speech.
    """
    rows = len(text_ids)
    if not rows == len(speech_tokens) == len(voices) or not rows:
        raise ValueError(
            "`text_ids`, `speech_tokens` and `voices` must hold one entry per row; got "
            f"{rows}, {len(speech_tokens)} and {len(voices)}."
        )
    speech = [_speech_ids(config, tokens) for tokens in speech_tokens]
    texts = [torch.tensor(list(ids)) for ids in text_ids]
    batch = _padded("input_ids", "attention_mask", texts) | _padded("speech_ids", "speech_attention_mask", speech)
    drop = torch.rand(rows, generator=generator) < text_dropout
    # A text that the model does not see cannot be predicted.
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100).masked_fill(drop[:, None], -100)
    return batch | {
        "labels": batch["speech_ids"].masked_fill(batch["speech_attention_mask"] == 0, -100),
        "text_labels": labels,
        "drop_text": drop,
        "speaker_embeddings": torch.stack([voice.speaker_embedding.float() for voice in voices]),
        "prompt_tokens": torch.nn.utils.rnn.pad_sequence(
            [voice.prompt_tokens for voice in voices], batch_first=True, padding_value=-1
        ),
        "exaggeration": torch.full((rows,), float(exaggeration)),
    }


def _speech_ids(config: ChatterboxT3Config, tokens: torch.LongTensor) -> torch.LongTensor:
    tokens = tokens.cpu().long()
    room = config.max_speech_positions
    if tokens.dim() != 1 or not len(tokens) or (room is not None and len(tokens) + 2 > room):
        limit = "any number" if room is None else f"at most {room - 2}"
        raise ValueError(
            f"`speech_tokens` must be 1-D with at least one and {limit} of ids; got {tuple(tokens.shape)}."
        )
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < config.num_speech_codes:
        raise ValueError(f"`speech_tokens` must hold ids in 0…{config.num_speech_codes - 1}.")
    start, stop = config.start_speech_token_id, config.stop_speech_token_id
    return torch.cat([torch.tensor([start]), tokens, torch.tensor([stop])])


def _padded(name: str, mask_name: str, rows: list[torch.LongTensor]) -> dict[str, torch.LongTensor]:
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return {name: values, mask_name: (torch.arange(values.shape[1]) < lengths[:, None]).long()}


__all__ = ["training_batch"]
