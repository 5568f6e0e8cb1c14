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
"""Speaking with Maya1: whole utterances, or chunks while they are generated, from one decoding loop."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList
from transformers.generation import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from ...acceleration.lockstep import LockstepDecoder
from ...acceleration.sampling import RowSampler
from ...request_tensors import check_part_counts, check_parts_per_batch, in_batches
from ...speech_generation import (
    ChunkJoiner,
    SpeechChunk,
    SpeechGenerationMixin,
    SpeechOutput,
    join_parts,
    pad_waveforms,
    resolve_row_seeds,
    row_generator,
)
from ...streaming.schedule import EmitSchedule
from .aligned_text_maya1 import AlignedText
from .decoding_maya1 import AlignedSlotDecoding, AllowedIdsLogitsProcessor, SlotDecoding, SlotHead, VocabularyDecoding
from .request_maya1 import SpeechOptions, SpeechRequest, check_prompts, token_budgets
from .streaming_maya1 import split_levels, stream_speech


# Processors that look at the scores alone: they give the same result on one slot's codes as on a masked vocabulary.
_SCORE_ONLY = (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
# The context the released checkpoint was served with.
_SERVED_CONTEXT = 8192
_MIN_FRAMES = 4


class Maya1GenerationMixin(SpeechGenerationMixin, GenerationMixin):
    """`generate` and `generate_stream` of [`Maya1ForConditionalGeneration`]."""

    def _default_generation_config(self) -> GenerationConfig:
        """The family's own defaults, as published; saved as `generation_config.json`."""
        config = self.config
        return GenerationConfig(
            do_sample=True,
            temperature=0.4,
            top_p=0.9,
            top_k=0,
            repetition_penalty=1.1,
            min_new_tokens=_MIN_FRAMES * config.slots_per_frame,
            max_length=min(_SERVED_CONTEXT, config.text_config.max_position_embeddings),
            bos_token_id=config.bos_token_id,
            eos_token_id=config.end_of_speech_token_id,
            pad_token_id=config.pad_token_id,
        )

    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        part_counts: torch.LongTensor | None = None,
        duration_budget: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        parts_per_batch: int = 32,
        output_sampling_rate: int | None = None,
        **kwargs: Any,
    ) -> SpeechOutput:
        r"""
        Speak every text of the batch.

        Args:
            input_ids (`torch.LongTensor` of shape `(parts, length)`):
                Left-padded prompts, as [`Maya1Processor`] builds them.
            attention_mask (`torch.LongTensor` of shape `(parts, length)`, *optional*):
                1 for tokens, 0 for padding; by default everything but padding ids.
            part_counts (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Consecutive prompts that make one text; one each by default.
            duration_budget (`torch.LongTensor` of shape `(parts,)`, *optional*):
                The longest speech expected of each prompt, in milliseconds. It sets the token limit unless
                `max_new_tokens` does; by default it is estimated from the prompt's length.
            generation_config (`GenerationConfig`, *optional*):
                Replaces the model's own where its fields are set.
            parts_per_batch (`int`, *optional*, defaults to 32):
                The most prompts decoded at once.
            output_sampling_rate (`int`, *optional*):
                Resamples the result to this rate.
            kwargs:
                Fields of [`SpeechOptions`], such as `seed`, `part_gap` or `constrain_slots`, and of
                `GenerationConfig`, such as `temperature`, `max_new_tokens` or `do_sample`.

        Returns:
            [`SpeechOutput`] with one row per text. `audio_codes[text][part]` is a tuple of one code tensor per level;
            `sequences` has one row per prompt.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        if output_sampling_rate is not None and output_sampling_rate < 1:
            raise ValueError(f"`output_sampling_rate` must be positive; got {output_sampling_rate}.")
        check_parts_per_batch(parts_per_batch)
        request = self._prepare_request(
            input_ids, attention_mask, part_counts, duration_budget, generation_config, kwargs
        )
        spoken = []
        for rows in in_batches(list(range(len(request.parts))), parts_per_batch):
            spoken += self._speak_rows(request, rows)
        return self._assemble(request, spoken, output_sampling_rate)

    def generate_stream(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        part_counts: torch.LongTensor | None = None,
        duration_budget: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        first_chunk_frames: int | None = None,
        chunk_frames: int | None = None,
        **kwargs: Any,
    ) -> Iterator[SpeechChunk]:
        r"""
        Speak every text of the batch, handing out the sound while it is generated.

        The chunks of a row, joined, are `generate`'s audio for the same seed: the codec's state is kept exactly, no
        window is decoded twice. All texts advance together, part by part. The arguments are `generate`'s, checked at
        once, before the first chunk is asked for; and:

        Args:
            first_chunk_frames (`int`, *optional*):
                Codec frames before the first chunk; by default as few as give any sound.
            chunk_frames (`int`, *optional*):
                Frames of the later chunks, reached by doubling from one frame; by default half a second.

        Yields:
            [`SpeechChunk`] with one row per text; a row that is complete yields nothing more.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        schedule = self._chunk_sizes(first_chunk_frames, chunk_frames)
        request = self._prepare_request(
            input_ids, attention_mask, part_counts, duration_budget, generation_config, kwargs
        )
        return self._stream_chunks(request, *schedule)

    def _prepare_request(
        self,
        input_ids: torch.LongTensor | None,
        attention_mask: torch.LongTensor | None,
        part_counts: torch.LongTensor | None,
        duration_budget: torch.LongTensor | None,
        generation_config: GenerationConfig | None,
        kwargs: dict[str, Any],
    ) -> SpeechRequest:
        options, kwargs = SpeechOptions.take_from(kwargs)
        input_ids, attention_mask = check_prompts(input_ids, attention_mask, self.config.pad_token_id, self.device)
        counts = check_part_counts(part_counts, len(input_ids))
        config = self._resolve_generation_config(generation_config, kwargs)
        text_seeds = resolve_row_seeds(len(counts), options.seed, options.generator)
        return SpeechRequest(
            input_ids=input_ids,
            attention_mask=attention_mask,
            part_counts=counts,
            seeds=[value for value, count in zip(text_seeds, counts, strict=True) for _ in range(count)],
            token_budgets=token_budgets(self.config, config, attention_mask, duration_budget, options.constrain_slots),
            config=config,
            options=options,
        )

    def _resolve_generation_config(
        self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> GenerationConfig:
        config, rest = self._sampled_sequence_config(generation_config, kwargs, "Maya1", row="prompt")
        if rest:
            raise ValueError(f"`generate` has no arguments {sorted(rest)}.")
        # Raises on values that make no sense, such as a negative temperature, before any heavy work.
        self._get_logits_processor(_copy_config(config, min_new_tokens=None, min_length=0), 1, device=self.device)
        return config

    # Tokens

    def _decode_tokens(self, request: SpeechRequest, rows: list[int]) -> SlotDecoding | VocabularyDecoding:
        """The token loop of some prompts."""
        mask = request.attention_mask[rows]
        start = int((mask.sum(0) == 0).sum())
        input_ids, mask = request.input_ids[rows][:, start:], mask[:, start:]
        aligned, parts = self.config.aligned_text_layout, request.parts
        sampler = RowSampler(
            [row_generator(request.seeds[row], parts[row][1], "tokens") for row in rows]
            if request.config.do_sample
            else None,
            self.device,
        )
        budgets = [request.token_budgets[row] for row in rows]
        processors = self._slot_processors(request, input_ids)
        if processors is None and aligned is not None:
            raise ValueError(
                "This checkpoint's stream holds its text: it needs `constrain_slots=True`, a plain language-model "
                "head, and neither `logits_processor`, `stopping_criteria` nor options that look at earlier tokens."
            )
        backbone = self.language_model.model
        if processors is None:
            return self._vocabulary_decoding(request, LockstepDecoder(backbone, input_ids, mask), sampler, budgets)
        slots, layout = self.config.slots_per_frame, self.config.audio_token_layout
        penalty = request.config.repetition_penalty or 1.0
        head = SlotHead(
            self.language_model.lm_head.weight, layout, input_ids, penalty, processors, sampler, self.config.marker_ids
        )
        budgets, min_frames = [budget // slots for budget in budgets], self._min_frames(request.config)
        if aligned is None:
            return SlotDecoding(LockstepDecoder(backbone, input_ids, mask), head, budgets, min_frames)
        texts = [AlignedText(aligned, prompt) for prompt in input_ids.tolist()]
        openings = [aligned.opening(text.units) for text in texts]
        decoder = LockstepDecoder(backbone, *_extend(input_ids, mask, openings))
        return AlignedSlotDecoding(decoder, head, budgets, min_frames, texts=texts, openings=openings)

    def _min_frames(self, config: GenerationConfig) -> int:
        return math.ceil((config.min_new_tokens or 0) / self.config.slots_per_frame)

    def _slot_processors(self, request: SpeechRequest, input_ids: torch.LongTensor) -> LogitsProcessorList | None:
        """The processors for one slot's scores, or `None` when the whole vocabulary is needed."""
        head = self.language_model.lm_head
        is_plain = type(head) is torch.nn.Linear and head.weight.is_floating_point() and not head.weight.is_meta
        is_sharded = (getattr(self, "_tp_size", None) or 1) > 1 or hasattr(head.weight, "device_mesh")
        if not request.options.constrain_slots or request.options.stopping_criteria or not is_plain or is_sharded:
            return None
        config = _copy_config(request.config, repetition_penalty=1.0, min_new_tokens=None, min_length=0)
        processors = self._get_logits_processor(
            config, input_ids.shape[1], logits_processor=request.options.logits_processor, device=self.device
        )
        return processors if all(isinstance(each, _SCORE_ONLY) for each in processors) else None

    def _vocabulary_decoding(
        self, request: SpeechRequest, decoder: LockstepDecoder, sampler: RowSampler, budgets: list[int]
    ) -> VocabularyDecoding:
        layout, length = self.config.audio_token_layout, decoder.input_ids.shape[1]
        config, rule = request.config, []
        if request.options.constrain_slots:
            config = _copy_config(config, min_new_tokens=None, min_length=0)
            rule = [AllowedIdsLogitsProcessor(layout, length, self._min_frames(request.config))]
        elif request.options.audio_only:
            rule = [AllowedIdsLogitsProcessor(layout)]
        config = _copy_config(config)
        config._eos_token_tensor = torch.full((1,), layout.end_id, device=self.device)
        processors = self._get_logits_processor(
            config,
            length,
            logits_processor=LogitsProcessorList([*request.options.logits_processor, *rule]),
            device=self.device,
            model_kwargs={"attention_mask": decoder.attention_mask},
        )
        pad_id = layout.end_id if self.config.pad_token_id is None else self.config.pad_token_id
        return VocabularyDecoding(
            decoder,
            self.language_model.lm_head,
            layout,
            processors,
            request.options.stopping_criteria,
            sampler,
            budgets,
            pad_id,
            request.options.unpack_policy,
        )

    def _noise_generators(self, request: SpeechRequest, rows: list[int]) -> list[torch.Generator]:
        parts = request.parts
        return [row_generator(request.seeds[row], parts[row][1], "noise") for row in rows]

    def _gap_samples(self, request: SpeechRequest) -> int:
        return round(request.options.part_gap * self.config.sampling_rate)

    # Whole utterances

    @torch.no_grad()
    def _speak_rows(self, request: SpeechRequest, rows: list[int]) -> list["_SpokenPart"]:
        decoding = self._decode_tokens(request, rows)
        frames: list[list[torch.LongTensor]] = [[] for _ in rows]
        reasons: dict[int, str] = {}
        for step in decoding:
            reasons |= step.ended
            for place, row in enumerate(step.rows):
                frames[row].append(step.codes[place])
        codes = self._levels(frames)
        audio = self._decode_codes(codes, self._noise_generators(request, rows), request.options.noise_scale)
        return [_SpokenPart(audio[row], codes[row], decoding.generated[row], reasons[row]) for row in range(len(rows))]

    def _levels(self, frames: list[list[torch.LongTensor]]) -> list[tuple[torch.LongTensor, ...]]:
        layout = self.config.audio_token_layout
        empty = torch.zeros(0, layout.slots_per_frame, dtype=torch.long, device=self.codec_model.device)
        stacked = [torch.stack(row).to(empty.device) if row else empty for row in frames]
        return [tuple(level[0] for level in split_levels(row[None], layout)) for row in stacked]

    def _decode_codes(
        self, codes: list[tuple[torch.LongTensor, ...]], generators: list[torch.Generator], noise_scale: float
    ) -> list[torch.Tensor]:
        """One 1-D float32 waveform per row, each as if decoded alone."""
        layout = self.config.audio_token_layout
        lengths = [len(row[0]) // layout.codes_per_frame(0) for row in codes]
        if not any(lengths):
            return [torch.zeros(0, device=self.codec_model.device) for _ in codes]
        padded = tuple(
            pad_sequence([row[level] for row in codes], batch_first=True) for level in range(layout.num_levels)
        )
        output = self.codec_model.decode(
            audio_codes=padded,
            frame_lengths=torch.tensor(lengths),
            generator=generators,
            noise_scale=noise_scale,
            return_dict=True,
        )
        samples = [length * self.config.samples_per_frame for length in lengths]
        return [row[:count].float() for row, count in zip(output.audio_values, samples, strict=True)]

    def _assemble(
        self, request: SpeechRequest, spoken: list["_SpokenPart"], output_sampling_rate: int | None
    ) -> SpeechOutput:
        texts: list[list[_SpokenPart]] = [[] for _ in request.part_counts]
        for (text, _), part in zip(request.parts, spoken, strict=True):
            texts[text].append(part)
        gap = self._gap_samples(request)
        waveforms = [join_parts([part.audio for part in text], gap) for text in texts]
        waveforms = [waveform[request.options.trim_start_samples :] for waveform in waveforms]
        rate = self.config.sampling_rate
        if output_sampling_rate not in (None, rate):
            from ...audio import resample

            arrays = [
                resample(each.cpu().numpy(), rate, output_sampling_rate) if len(each) else each.cpu()
                for each in waveforms
            ]
            waveforms, rate = [torch.as_tensor(array) for array in arrays], output_sampling_rate
        audio, lengths = pad_waveforms(waveforms)
        return SpeechOutput(
            audio=audio,
            audio_lengths=lengths,
            sampling_rate=rate,
            sequences=self._join_sequences(request, spoken),
            audio_codes=[[part.codes for part in text] for text in texts],
            finish_reason=["length" if any(p.reason == "length" for p in text) else "stop" for text in texts],
        )

    def _join_sequences(self, request: SpeechRequest, spoken: list["_SpokenPart"]) -> torch.LongTensor:
        longest = max(len(part.token_ids) for part in spoken)
        pad = self.config.end_of_speech_token_id if self.config.pad_token_id is None else self.config.pad_token_id
        rows = [part.token_ids + [pad] * (longest - len(part.token_ids)) for part in spoken]
        new_ids = torch.tensor(rows, dtype=torch.long, device=request.input_ids.device).reshape(len(rows), longest)
        return torch.cat([request.input_ids, new_ids], 1)

    # Streams

    def _chunk_sizes(self, first_chunk_frames: int | None, chunk_frames: int | None) -> tuple[int, int]:
        for name, value in (("first_chunk_frames", first_chunk_frames), ("chunk_frames", chunk_frames)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1; got {value}.")
        samples = self.config.samples_per_frame
        if first_chunk_frames is None:
            first_chunk_frames = self.codec_model.decoder_stream(1).look_ahead // samples + 1
        return first_chunk_frames, chunk_frames or max(1, round(0.5 * self.config.sampling_rate / samples))

    @torch.no_grad()
    def _stream_chunks(self, request: SpeechRequest, first: int, steady: int) -> Iterator[SpeechChunk]:
        joiner = ChunkJoiner(
            request.part_counts,
            self.config.sampling_rate,
            self._gap_samples(request),
            request.options.trim_start_samples,
        )
        parts = request.parts
        for part in range(max(request.part_counts)):
            rows = [row for row, (_, number) in enumerate(parts) if number == part]
            decoding = self._decode_tokens(request, rows)
            pieces = stream_speech(
                decoding,
                self.codec_model,
                self.config.audio_token_layout,
                self._noise_generators(request, rows),
                request.options.noise_scale,
                lambda part=part: EmitSchedule(first if part == 0 else steady, steady),
                in_step=isinstance(decoding, SlotDecoding),
            )
            for piece in pieces:
                audio = {parts[rows[row]][0]: samples for row, samples in piece.audio.items()}
                ended = {parts[rows[row]][0]: reason for row, reason in piece.ended.items()}
                yield from joiner.add(audio, ended, part)


@dataclass
class _SpokenPart:
    """One part of a text: its waveform, codes per level, generated ids, and why it ended."""

    audio: torch.Tensor
    codes: tuple[torch.LongTensor, ...]
    token_ids: list[int]
    reason: str


def _extend(
    input_ids: torch.LongTensor, mask: torch.LongTensor, more: list[list[int]]
) -> tuple[torch.LongTensor, torch.LongTensor]:
    """Left-padded prompts `(batch, length)` with more ids after each, and their mask."""
    prompts = zip(input_ids, mask.bool(), more, strict=True)
    rows = [torch.cat([ids[keep], ids.new_tensor(new)]) for ids, keep, new in prompts]
    extended = pad_sequence(rows, batch_first=True, padding_side="left")
    present = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    return extended, present


def _copy_config(config: GenerationConfig, **changes: Any) -> GenerationConfig:
    copied = copy.copy(config)
    for name, value in changes.items():
        setattr(copied, name, value)
    return copied


__all__ = ["Maya1GenerationMixin"]
