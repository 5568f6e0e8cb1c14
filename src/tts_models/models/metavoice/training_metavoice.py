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
"""Training of MetaVoice's first stage: examples from recordings, batches laid out as upstream's, what is trained."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...audio import load_audio
from .configuration_metavoice import MetaVoiceFirstStageConfig
from .tokens_metavoice import interleave_codes


if TYPE_CHECKING:
    from ...training.audio_dataset import Recording
    from .modeling_metavoice import MetaVoiceForConditionalGeneration
    from .modeling_metavoice_first_stage import MetaVoiceFirstStageForCausalLM
    from .processing_metavoice import MetaVoiceProcessor


@torch.no_grad()
def encode_example(
    model: "MetaVoiceForConditionalGeneration", processor: "MetaVoiceProcessor", recording: "Recording"
) -> dict[str, Any]:
    """What the first stage learns from one recording; the recording is also its own reference, however short.

    Args:
        model: Its codec and speaker encoder do the computing.
        processor: Of the same checkpoint.
        recording: Audio file and text.

    Returns:
        `text_ids` (a list, end of text included), `codes` int64 `(codebooks, frames)` and `speaker_embedding`
        `(speaker_embed_size,)`.

    Raises:
        ValueError: the text holds a character that the model does not know, or the file is no audio or silent.
    """
    codec, extractor = model.codec_model, processor.feature_extractor
    samples, _ = load_audio(recording.path, codec.config.sampling_rate)
    heard, _ = load_audio(recording.path, extractor.sampling_rate)
    if not heard.any():
        raise ValueError(f"`recording` {recording.path} is silent.")
    values = torch.from_numpy(samples)[None, None].to(codec.device)
    codes = codec.encode(values, bandwidth=max(codec.config.target_bandwidths)).audio_codes[0, 0]
    features = extractor([heard], sampling_rate=extractor.sampling_rate)
    return {
        "text_ids": processor.text_ids(processor.prepare_text(recording.text)),
        "codes": codes[: model.config.first_stage_config.num_codebooks].cpu(),
        "speaker_embedding": model.embed_voice(features["input_features"], features["attention_mask"]).cpu(),
    }


def training_batch(
    config: MetaVoiceFirstStageConfig,
    text_ids: Sequence[Sequence[int]],
    codes: Sequence[torch.LongTensor],
    speaker_embeddings: torch.Tensor,
    context: int | None = None,
    ignore_padding: bool = False,
) -> dict[str, torch.Tensor]:
    """The arguments of `forward` for a batch of texts and their codes, laid out as upstream does.

    A row is text, end of text, and the codes of each frame in turn, cut or padded with the end of audio to one more id
    than the context; the model predicts each id from those before it, padding too.

    Args:
        config: The first stage's.
        text_ids: First-stage ids of each text, with its end.
        codes: int64 `(at least num_codebooks, frames)` of each row; further codebooks are left out.
        speaker_embeddings: `(rows, speaker_embed_size)`.
        context: Positions of a row; all that the model has by default.
        ignore_padding: Whether only the first padding counts, which ends the audio: short recordings then do not
            teach padding above all.

    Returns:
        `input_ids` and `shift_labels` int64 `(rows, context)`, and `speaker_embeddings`.

    Raises:
        ValueError: the numbers of rows differ, a row has no codes, or codes that do not exist.
    """
    if not len(text_ids) == len(codes) == len(speaker_embeddings) or not len(codes):
        raise ValueError(
            "`text_ids`, `codes` and `speaker_embeddings` must hold one entry per row; got "
            f"{len(text_ids)}, {len(codes)} and {len(speaker_embeddings)}."
        )
    context = config.max_position_embeddings if context is None else context
    rows = torch.full((len(codes), context + 1), config.end_of_audio_token_id, dtype=torch.long)
    labels = rows[:, 1:].clone()
    for row, (text, frames) in enumerate(zip(text_ids, codes, strict=True)):
        frames = frames[: config.num_codebooks].cpu().long()
        if (
            frames.dim() != 2
            or not frames.numel()
            or not 0 <= int(frames.min()) <= int(frames.max()) < config.num_codes
        ):
            raise ValueError(
                f"`codes` must be (codebooks, frames) of ids in 0…{config.num_codes - 1}; row {row} has the shape "
                f"{tuple(frames.shape)}."
            )
        ids = torch.cat([torch.tensor(list(text)), interleave_codes(config, frames)])[: context + 1]
        rows[row, : len(ids)] = ids
        labels[row] = rows[row, 1:]
        if ignore_padding:
            labels[row, len(ids) :] = -100
    return {"input_ids": rows[:, :-1], "shift_labels": labels, "speaker_embeddings": speaker_embeddings}


def train_last_blocks(first_stage: "MetaVoiceFirstStageForCausalLM", blocks: int | None = 1) -> None:
    """Choose what is trained: the last `blocks` blocks and the last norm, as upstream; `None` for everything.

    Raises:
        ValueError: there are not so many blocks.
    """
    layers = first_stage.model.layers
    if blocks is not None and not 0 <= blocks <= len(layers):
        raise ValueError(f"`blocks` must be in 0…{len(layers)}; got {blocks}.")
    first_stage.requires_grad_(blocks is None)
    if blocks is not None:
        first_stage.model.norm.requires_grad_(True)
        for layer in layers[len(layers) - blocks :]:
            layer.requires_grad_(True)


def optimizer_groups(model: nn.Module, weight_decay: float = 0.1) -> list[dict[str, Any]]:
    """The trained parameters for an optimiser: weight decay on those of two and more axes only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [each for each in trained if each.dim() >= 2], "weight_decay": weight_decay},
        {"params": [each for each in trained if each.dim() < 2], "weight_decay": 0.0},
    ]


__all__ = ["encode_example", "optimizer_groups", "train_last_blocks", "training_batch"]
