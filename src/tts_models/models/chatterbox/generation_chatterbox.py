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
"""Speaking with Chatterbox: whole utterances, or chunks while they are generated, from one token loop."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin
from transformers.utils import logging

from ...acceleration.sampling import RowSampler
from ...request_tensors import check_parts_per_batch, in_batches
from ...speech_generation import (
    ChunkJoiner,
    SpeechChunk,
    SpeechGenerationMixin,
    SpeechOutput,
    join_parts,
    pad_waveforms,
    resolve_row_seeds,
    row_generator,
    warn_of_cuts,
)
from ...streaming.feed import TokenFeed, hold_back, take_turns
from ..s3gen import S3GenChunks, S3GenStream
from .alignment_chatterbox import AlignmentEndRule, check_alignment
from .decoding_chatterbox import T3Prompt, TokenDecoding, build_prompt, score_processors
from .request_chatterbox import (
    FLOW_ATTENTIONS,
    ChatterboxOptions,
    ChatterboxRequest,
    check_inputs,
    check_voice,
    exaggeration_rows,
    prepared_voice,
    text_rows,
    token_limits,
)
from .voice_chatterbox import ChatterboxVoice, join_voices


logger = logging.get_logger(__name__)

END_SILENCE_TOKENS = 3
_SHARED_DEFAULTS = {
    "do_sample": True,
    "temperature": 0.8,
    "repetition_penalty": 1.2,
    "exaggeration": 0.5,
    "flow_attention": "auto",
}


class ChatterboxGenerationMixin(SpeechGenerationMixin, GenerationMixin):
    """`generate` and `generate_stream` of [`ChatterboxForConditionalGeneration`]."""

    def _default_generation_config(self) -> GenerationConfig:
        """The variant's own defaults, as upstream's; saved as `generation_config.json`."""
        own = {"top_k": 0, "min_p": 0.05, "top_p": 1.0, "cfg_weight": 0.5, "max_new_tokens": 1000}
        if self.config.is_turbo:
            own = {"top_k": 1000, "min_p": 0.0, "top_p": 0.95, "cfg_weight": 0.0, "max_new_tokens": 1001}
        stop = self.config.t3_config.stop_speech_token_id
        return GenerationConfig(**_SHARED_DEFAULTS, **own, eos_token_id=stop, pad_token_id=stop)

    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        parts_per_batch: int = 16,
        **kwargs: Any,
    ) -> SpeechOutput:
        r"""
        Speak every text of the batch.

        Args:
            input_ids (`torch.LongTensor` of shape `(parts, length)`):
                Text ids, as [`ChatterboxProcessor`] makes them, with the other inputs it gives: `attention_mask`
                `(parts, length)`; `part_counts` `(batch,)`, consecutive parts that make one text; and the voice of
                each text, prepared (`speaker_embeddings`, `prompt_tokens`, `reference_tokens`, `reference_features`
                with its mask, `reference_embeddings`) or as a recording (`voice_values`, `prompt_values`,
                `voice_features`, with their masks).
            generation_config (`GenerationConfig`, *optional*):
                Replaces the model's own where its fields are set.
            parts_per_batch (`int`, *optional*, defaults to 16):
                The most parts decoded at once.
            kwargs:
                Those inputs, fields of [`ChatterboxOptions`] (`seed`, `num_flow_steps`, `alignment_rule`, …), and of
                `GenerationConfig`: `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `max_new_tokens`
                (25 make a second), `do_sample`, and the family's own: `cfg_weight` (how much the text guides; 0 needs
                half the work), `exaggeration` (0 to 2, for all texts or one each), `flow_attention` (`"full"` as
                upstream, `"chunked"` as streams need it; `"auto"` is full here).

        Returns:
            [`SpeechOutput`]; `audio_codes[text][part]` holds the speech tokens, `sequences` all picked ids of a part.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        check_parts_per_batch(parts_per_batch)
        request = self._prepare_request(input_ids, generation_config, kwargs, is_stream=False)
        spoken: list[_SpokenPart] = []
        for parts in in_batches(list(range(len(request.texts))), parts_per_batch):
            spoken += self._speak_parts(request, parts)
        return self._assemble(request, spoken)

    def generate_stream(
        self,
        input_ids: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[SpeechChunk]:
        r"""
        Speak every text of the batch, handing out the sound while it is generated.

        The arguments are `generate`'s, checked at once, before the first chunk is asked for. S3Gen's attention is
        chunked here: the chunks of a row, joined, are the audio of `generate(…, flow_attention="chunked")` for the
        same seed. All texts advance together, part by part.

        Yields:
            [`SpeechChunk`] with one row per text; a row that is complete yields nothing more.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        kwargs.pop("parts_per_batch", None)
        request = self._prepare_request(input_ids, generation_config, kwargs, is_stream=True)
        return self._stream_chunks(request)

    # Voices

    @torch.no_grad()
    def embed_voice(
        self, voice_values: torch.Tensor, prompt_values: torch.Tensor, voice_features: torch.Tensor
    ) -> ChatterboxVoice:
        """Prepare one voice from a recording.

        Args:
            voice_values: The recording at S3Gen's rate (24 kHz), `(samples,)`; at most its first ten seconds.
            prompt_values: The part that T3 reads, at 16 kHz, `(samples,)`.
            voice_features: Mel frames `(frames, bands)`, as [`ChatterboxFeatureExtractor`] makes them.
        """
        features = voice_features[None].to(self.device, torch.float32)
        speaker = self.voice_encoder(features).speaker_embeddings[0]
        values = prompt_values.to(self.device, torch.float32)
        length = self.config.t3_config.prompt_length
        tokens, lengths = self.s3gen.tokenizer.tokenize([values], max_len=length)
        prompt = tokens[0, : min(int(lengths[0]), length)]
        voice_values = voice_values.to(self.device, torch.float32)
        reference = self.s3gen.embed_ref(voice_values, self.config.sampling_rate)
        return ChatterboxVoice.from_parts(speaker, prompt, reference)

    def _voice_of(self, tensors: dict[str, torch.Tensor], row: int) -> ChatterboxVoice:
        voice = prepared_voice(tensors, row, self.config)
        if voice is not None:
            return voice
        if "voice_values" not in tensors or not bool(tensors["voice_values_mask"][row].any()):
            raise ValueError(f"Row {row} has no voice, neither prepared nor as a recording.")
        recorded = {
            name: tensors[name][row][tensors[f"{name}_mask"][row].bool()]
            for name in ("voice_values", "prompt_values", "voice_features")
        }
        voice = self.embed_voice(**recorded)
        check_voice(voice, self.config)
        return voice

    # Requests

    def _prepare_request(
        self, input_ids: Any, generation_config: GenerationConfig | None, kwargs: dict[str, Any], is_stream: bool
    ) -> ChatterboxRequest:
        options, kwargs = ChatterboxOptions.take_from(kwargs)
        config, tensors = self._resolve_generation_config(generation_config, kwargs)
        is_chunked = self._is_chunked(config, is_stream)
        if options.alignment_rule:
            check_alignment(self.t3.backbone, options.alignment_heads)
        checked = check_inputs(input_ids, tensors, self.device)
        texts = text_rows(checked, self.config.t3_config)
        counts = checked["part_counts"].tolist()
        seeds = resolve_row_seeds(len(counts), options.seed, options.generator)
        exaggeration = exaggeration_rows(config.exaggeration, len(counts))
        token_limits(self.config.t3_config, config, [len(text) for text in texts])
        voices = [self._voice_of(checked, row) for row in range(len(counts))]
        request = ChatterboxRequest(texts, counts, seeds, voices, exaggeration, [], config, options, is_chunked)
        lengths = [self._prompt_length(len(text), request, row) for row, text in enumerate(texts)]
        request.limits = token_limits(self.config.t3_config, config, lengths)
        return request

    def _prompt_length(self, text_length: int, request: ChatterboxRequest, part: int) -> int:
        t3 = self.config.t3_config
        prompt = len(request.voices[request.parts[part][0]].prompt_tokens)
        prompt = t3.perceiver_queries if t3.use_perceiver and prompt else prompt
        return 1 + prompt + int(t3.use_emotion) + text_length + t3.num_start_tokens

    def _is_chunked(self, config: GenerationConfig, is_stream: bool) -> bool:
        given = config.flow_attention
        if given not in FLOW_ATTENTIONS:
            raise ValueError(f"`flow_attention` must be one of {', '.join(FLOW_ATTENTIONS)}; got {given!r}.")
        if is_stream and given == "full":
            raise ValueError(
                "`flow_attention` cannot be 'full' in a stream: every frame would change when the next token comes."
            )
        return given == "chunked" or is_stream

    def _resolve_generation_config(
        self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """The parameters, and the keywords that are none of them."""
        config, rest = self._sampled_sequence_config(generation_config, kwargs, "Chatterbox")
        if not 0 <= config.cfg_weight <= 10:
            raise ValueError(f"`cfg_weight` must be in 0…10; got {config.cfg_weight}.")
        if not self.config.t3_config.is_guided and (config.cfg_weight > 0 or config.exaggeration != 0.5):
            logger.warning_once("Turbo and Nano take neither `cfg_weight` nor `exaggeration`: both are left out.")
        # Raises on values that make no sense, such as a negative temperature, before any heavy work.
        score_processors(config, self.config.is_turbo)
        return config, rest

    # Tokens

    def _decode_tokens(self, request: ChatterboxRequest, parts: list[int]) -> TokenDecoding:
        """The token loop of some parts."""
        config, texts = request.config, [request.parts[part] for part in parts]
        is_guided = self.config.t3_config.is_guided and config.cfg_weight > 0
        voices = self._voice_rows(request, {text for text, _ in texts})
        prompt = build_prompt(
            self.t3, [voices[text] for text, _ in texts], [request.texts[part] for part in parts], is_guided
        )
        generators = [row_generator(request.seeds[text], number, "tokens") for text, number in texts]
        rule = self._alignment_rule(request, prompt)
        extra = [*rule, *(request.options.logits_processor or [])]
        return TokenDecoding(
            self.t3,
            prompt,
            score_processors(config, self.config.is_turbo, extra),
            RowSampler(generators if config.do_sample else None, self.device),
            [request.limits[part] for part in parts],
            config.cfg_weight if is_guided else 0.0,
            penalize_start=not self.config.is_turbo,
        )

    def _voice_rows(self, request: ChatterboxRequest, texts: set[int]) -> dict[int, torch.Tensor]:
        """What T3 reads of the voices of some texts, `(voice_length, hidden_size)` each."""
        rows = {}
        for text in texts:
            voice = request.voices[text]
            degree = torch.tensor([request.exaggeration[text]], device=self.device)
            rows[text] = self.t3.embed_voice(voice.speaker_embedding[None], voice.prompt_tokens[None], degree)[0][0]
        return rows

    def _alignment_rule(self, request: ChatterboxRequest, prompt: T3Prompt) -> list[AlignmentEndRule]:
        if not request.options.alignment_rule:
            return []
        t3 = self.config.t3_config
        return [
            AlignmentEndRule(
                prompt.text_starts,
                prompt.text_lengths,
                t3.start_speech_token_id,
                t3.stop_speech_token_id,
                request.options.alignment_heads,
            )
        ]

    def _is_sound(self, token: int) -> bool:
        return token < self.config.t3_config.num_speech_codes

    def _end_silence(self) -> list[int]:
        silence = self.config.end_silence_token_id
        return [] if silence is None else [silence] * END_SILENCE_TOKENS

    # Whole utterances

    @torch.no_grad()
    def _speak_parts(self, request: ChatterboxRequest, parts: list[int]) -> list["_SpokenPart"]:
        decoding, reasons = self._decode_tokens(request, parts), {}
        for step in decoding:
            reasons |= step.ended
        warn_of_cuts(reasons.values())
        silence = self._end_silence()
        codes = []
        for picked in decoding.picked:
            tokens = [token for token in picked if self._is_sound(token)] + silence
            codes.append(torch.tensor(tokens, dtype=torch.long, device=self.device))
        audio = self._decode_speech(request, parts, codes)
        return [
            _SpokenPart(audio[place], codes[place], decoding.picked[place], reasons[place])
            for place in range(len(parts))
        ]

    def _decode_speech(
        self, request: ChatterboxRequest, parts: list[int], codes: list[torch.LongTensor]
    ) -> list[torch.Tensor]:
        """The waveform `(samples,)` of each part, as if it were alone."""
        waveforms = [torch.zeros(0, device=self.device) for _ in parts]
        places = [place for place, row in enumerate(codes) if len(row)]
        if not places:
            return waveforms
        texts = [request.parts[parts[place]] for place in places]
        rows = [codes[place] for place in places]
        padded, _ = self.s3gen.inference(
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            ref_dict=join_voices([request.voices[text] for text, _ in texts]),
            finalize=True,
            speech_token_lens=torch.tensor([len(row) for row in rows]),
            num_flow_steps=request.options.num_flow_steps,
            chunks=self._chunks(request) if request.is_chunked else None,
            generator=[row_generator(request.seeds[text], part, "noise") for text, part in texts],
        )
        samples_per_token = self.config.s3gen_config.samples_per_token
        for place, row, waveform in zip(places, rows, padded, strict=True):
            waveforms[place] = self._without_end(waveform[: len(row) * samples_per_token].float())
        return waveforms

    def _chunks(self, request: ChatterboxRequest) -> S3GenChunks:
        return request.options.flow_chunks or S3GenChunks(self.config.s3gen_config.chunk_size)

    @property
    def _end_samples(self) -> int:
        return self.config.end_trim_tokens * self.config.s3gen_config.samples_per_token

    def _without_end(self, waveform: torch.Tensor) -> torch.Tensor:
        return waveform[: max(len(waveform) - self._end_samples, 0)]

    def _assemble(self, request: ChatterboxRequest, spoken: list["_SpokenPart"]) -> SpeechOutput:
        texts: list[list[_SpokenPart]] = [[] for _ in request.part_counts]
        for (text, _), part in zip(request.parts, spoken, strict=True):
            texts[text].append(part)
        gap = round(request.options.part_gap * self.config.sampling_rate)
        audio, lengths = pad_waveforms([join_parts([part.audio for part in text], gap) for text in texts])
        rows = [torch.tensor(part.picked, device=self.device) for part in spoken]
        stop = self.config.t3_config.stop_speech_token_id
        return SpeechOutput(
            audio=audio,
            audio_lengths=lengths,
            sampling_rate=self.config.sampling_rate,
            sequences=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=stop),
            audio_codes=[[part.codes for part in text] for text in texts],
            finish_reason=["length" if any(p.reason == "length" for p in text) else "stop" for text in texts],
        )

    # Streams

    @torch.no_grad()
    def _stream_chunks(self, request: ChatterboxRequest) -> Iterator[SpeechChunk]:
        gap = round(request.options.part_gap * self.config.sampling_rate)
        joiner = ChunkJoiner(request.part_counts, self.config.sampling_rate, gap)
        started = [self._start_stream(request, voice) for voice in request.voices]
        for number in range(max(request.part_counts)):
            parts = [part for part, (_, each) in enumerate(request.parts) if each == number]
            feed = TokenFeed(self._decode_tokens(request, parts), len(parts))
            texts = [request.parts[part][0] for part in parts]
            speaking = {
                row: self._stream_part(
                    started[text], feed.tokens(row), row_generator(request.seeds[text], number, "noise")
                )
                for row, text in enumerate(texts)
            }
            for row, piece in take_turns(speaking):
                ended = {texts[row]: feed.ended[row]} if piece is None else {}
                piece = torch.zeros(0, device=self.device) if piece is None else piece
                yield from joiner.add({texts[row]: piece}, ended, number)
            warn_of_cuts(feed.ended.values())

    def _start_stream(self, request: ChatterboxRequest, voice: ChatterboxVoice) -> S3GenStream:
        """A stream of S3Gen that has read its reference; every part goes on from a copy."""
        return self.s3gen.start_stream(
            voice.reference, chunks=self._chunks(request), num_flow_steps=request.options.num_flow_steps
        )

    def _stream_part(
        self, start: S3GenStream, written: Iterator[int], generator: torch.Generator
    ) -> Iterator[torch.Tensor]:
        """The waveform `(samples,)` of one part in pieces, while its tokens are written."""
        tokens = chain((token for token in written if self._is_sound(token)), self._end_silence())
        first = next(tokens, None)
        if first is None:
            return
        pieces = self.s3gen.stream(chain([first], tokens), start, generator=generator)
        yield from hold_back((piece.flatten().float() for piece in pieces), self._end_samples)


@dataclass
class _SpokenPart:
    """One part of a text: its waveform, speech tokens, all picked ids, and why it ended."""

    audio: torch.Tensor
    codes: torch.LongTensor
    picked: list[int]
    reason: str


__all__ = ["ChatterboxGenerationMixin"]
