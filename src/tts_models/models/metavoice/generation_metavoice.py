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
"""Speaking with MetaVoice: `generate` and `generate_stream`, long texts, what makes sound of the codes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin

from ...acceleration.sampling import RowSampler
from ...audio.joining import QuietJoiner
from ...audio.loudness import compress_loudness
from ...request_tensors import check_parts_per_batch
from ...speech_generation import (
    ChunkJoiner,
    SpeechChunk,
    SpeechGenerationMixin,
    SpeechOutput,
    pad_waveforms,
    resolve_row_seeds,
    row_generator,
    warn_of_cuts,
)
from ...streaming.encodec import decode_ragged
from ...streaming.feed import TokenFeed, take_turns
from .context_metavoice import TextHistory
from .decoding_metavoice_first_stage import FirstStageDecoding, Guidance, first_stage_processors
from .decoding_metavoice_second_stage import complete_codes, draw_uniforms
from .modeling_metavoice_speaker_encoder import average_embeddings
from .request_metavoice import (
    MetaVoiceOptions,
    MetaVoicePart,
    MetaVoiceRequest,
    ResolvedSound,
    check_inputs,
    read_parts,
)
from .streaming_metavoice import ChunkedCompletion, TextSound, pair_codes
from .tokens_metavoice import first_stage_ids


# Parts that diffusion works on at once: its networks are wide.
_DIFFUSION_ROWS = 4
# What the enhancer hears at once of long speech.
_ENHANCER_SECONDS = 30


@dataclass
class _Pass:
    """One part about to be spoken: what stands before it, and what it has become.

    Args:
        part: The part.
        text_ids: The tokenizer's ids that both stages read.
        before: Codes `(codebooks, frames)` of the first stage that stand before its own.
    """

    part: MetaVoicePart
    text_ids: list[int]
    before: torch.LongTensor

    @property
    def is_continued(self) -> bool:
        """Whether it goes on from another part."""
        return self.before.shape[1] > 0


@dataclass
class _SpokenPart:
    """One part of a text: codes of all codebooks, all picked ids, why it ended, whether it goes on from another."""

    codes: torch.LongTensor
    picked: list[int]
    reason: str
    is_continued: bool


class MetaVoiceGenerationMixin(SpeechGenerationMixin, GenerationMixin):
    """`generate` and `generate_stream` of [`MetaVoiceForConditionalGeneration`]."""

    def _default_generation_config(self) -> GenerationConfig:
        """Upstream's defaults; saved as `generation_config.json`."""
        first = self.config.first_stage_config
        return GenerationConfig(
            do_sample=True,
            guidance_scale=3.0,
            temperature=1.0,
            top_p=0.95,
            top_k=0,
            max_new_tokens=first.max_position_embeddings,
            eos_token_id=first.end_of_audio_token_id,
            pad_token_id=first.end_of_audio_token_id,
            decoder="auto",
            enhance="auto",
            second_stage="auto",
        )

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
                First-stage ids of texts, as [`MetaVoiceProcessor`] makes them, with the other inputs it gives:
                `attention_mask`; `part_counts` `(batch,)`, consecutive parts that make one text; `continued_ids` and
                `continued_mask`, the ids of a part that goes on from another; and the voice of each text, as a vector
                (`speaker_embeddings`) or as recordings (`voice_features`, `voice_mask`, `voice_counts`).
            generation_config (`GenerationConfig`, *optional*):
                Replaces the model's own where its fields are set.
            parts_per_batch (`int`, *optional*, defaults to 16):
                The most parts decoded at once.
            kwargs:
                Those inputs, fields of [`MetaVoiceOptions`] (`seed`, `continuation`, …), and of `GenerationConfig`:
                `guidance_scale` (how strongly the speaker guides, 1 to 3; 1 needs half the work; two numbers guide by
                speaker and text), `temperature`, `top_p`, `top_k`, `max_new_tokens` (150 make a second), `do_sample`,
                and the family's own: `decoder` (`"encodec"`, or `"multi_band_diffusion"`, which is slower, sounds
                cleaner and cannot stream; `"auto"` is the latter where the model has it), `enhance` (whether
                DeepFilterNet cleans the sound; `"auto"` where the model has it and diffusion makes the sound) and
                `second_stage` (`"full"` completes the codes of a part at once, as upstream; `"chunked"` as a stream
                does; `"auto"` is full here).

        Returns:
            [`SpeechOutput`] at 24 kHz, or at the enhancer's 48 kHz; `audio_codes[text][part]` holds the codes,
            `sequences` all picked ids of a part.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        check_parts_per_batch(parts_per_batch)
        request = self._prepare_request(input_ids, generation_config, kwargs, is_stream=False)
        histories = self._new_histories(request)
        spoken: dict[tuple[int, int], _SpokenPart] = {}
        for wave in request.waves(parts_per_batch):
            passes = [self._plan_pass(request, histories, part) for part in wave]
            for each, result in zip(passes, self._speak(request, passes), strict=True):
                spoken[each.part.text, each.part.number] = result
                histories[each.part.text].add(each.part, result.codes, result.reason)
        return self._assemble(request, [spoken[part.text, part.number] for part in request.parts])

    def generate_stream(
        self,
        input_ids: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[SpeechChunk]:
        r"""
        Speak every text of the batch, handing out the sound while it is generated.

        The arguments are `generate`'s, checked at once, before the first chunk is asked for. EnCodec makes the sound,
        and the second stage completes the codes in chunks: the chunks of a row, joined, are the audio of
        `generate(…, decoder="encodec", second_stage="chunked")` for the same seed. All texts advance together, part by
        part.

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
    def embed_voice(self, voice_features: torch.Tensor, voice_mask: torch.Tensor) -> torch.Tensor:
        """The speaker vector `(speaker_embed_size,)` of a voice, float32.

        Args:
            voice_features: Mel frames of its recordings `(recordings, frames, bands)`, as
                [`MetaVoiceFeatureExtractor`] makes them.
            voice_mask: `(recordings, frames)`, 1 for frames and 0 for padding on the right.
        """
        features = voice_features.to(self.speaker_encoder.device, torch.float32)
        vectors = self.speaker_encoder(features, voice_mask.to(features.device)).speaker_embeddings
        return average_embeddings(vectors)

    def _voices(self, checked: dict[str, torch.Tensor]) -> torch.Tensor:
        """The speaker vectors of all texts, `(texts, speaker_embed_size)`."""
        texts, size = len(checked["part_counts"]), self.config.speaker_encoder_config.speaker_embed_size
        given = checked.get("speaker_embeddings")
        given = torch.zeros(texts, size) if given is None else given
        if given.shape[1] != size:
            raise ValueError(
                f"`speaker_embeddings` was prepared with another model: it has {given.shape[1]} values, not {size}."
            )
        counts = checked["voice_counts"].tolist() if "voice_counts" in checked else [0] * texts
        rows, first = [], 0
        for text, (vector, count) in enumerate(zip(given, counts, strict=True)):
            if not count and not bool(vector.any()):
                raise ValueError(f"Text {text} has no voice, neither prepared nor as a recording.")
            if count:
                place = slice(first, first + count)
                vector = self.embed_voice(checked["voice_features"][place], checked["voice_mask"][place])
            rows.append(vector.float().to(self.device))
            first += count
        return torch.stack(rows)

    # Requests

    def _prepare_request(
        self, input_ids: Any, generation_config: GenerationConfig | None, kwargs: dict[str, Any], is_stream: bool
    ) -> MetaVoiceRequest:
        options, kwargs = MetaVoiceOptions.take_from(kwargs)
        config, tensors = self._sampled_sequence_config(generation_config, kwargs, "MetaVoice")
        _check_config(config)
        sound = ResolvedSound.of(config, self.config, is_stream)
        checked = check_inputs(input_ids, tensors, self.device)
        parts, counts = read_parts(checked, self.config), checked["part_counts"].tolist()
        seeds = resolve_row_seeds(len(counts), options.seed, options.generator)
        return MetaVoiceRequest(parts, counts, seeds, self._voices(checked), config, options, sound)

    def _new_histories(self, request: MetaVoiceRequest) -> list[TextHistory]:
        first, second = self.config.first_stage_config, self.config.second_stage_config
        room = (first.max_position_embeddings, second.max_position_embeddings)
        return [TextHistory(*room, first.num_codebooks, request.options.continuation) for _ in request.part_counts]

    def _plan_pass(self, request: MetaVoiceRequest, histories: list[TextHistory], part: MetaVoicePart) -> _Pass:
        return _Pass(part, *histories[part.text].before(part))

    # Codes

    def _decode_tokens(self, request: MetaVoiceRequest, passes: Sequence[_Pass]) -> FirstStageDecoding:
        """The first stage's loop over some parts."""
        config, options = request.config, request.options
        first = self.config.first_stage_config
        generators = [self._generator(request, each.part, "tokens") for each in passes]
        return FirstStageDecoding(
            self.first_stage,
            [first_stage_ids(first, each.text_ids, each.before) for each in passes],
            request.speaker_embeddings[[each.part.text for each in passes]],
            _processors(config, options),
            RowSampler(generators if config.do_sample else None, self.first_stage.device),
            [config.max_new_tokens] * len(passes),
            Guidance.of(1.0 if config.guidance_scale is None else config.guidance_scale),
            enforce_alternation=options.enforce_alternation,
        )

    @staticmethod
    def _generator(request: MetaVoiceRequest, part: MetaVoicePart, use: str) -> torch.Generator:
        return row_generator(request.seeds[part.text], part.number, use)

    @torch.no_grad()
    def _speak(self, request: MetaVoiceRequest, passes: Sequence[_Pass]) -> list[_SpokenPart]:
        """The codes of some parts, decoded together."""
        decoding, reasons = self._decode_tokens(request, passes), {}
        for step in decoding:
            reasons |= step.ended
        warn_of_cuts(reasons.values())
        frames = [self._pair(picked) for picked in decoding.picked]
        complete = self._complete_in_chunks if request.sound.is_chunked else self._complete_at_once
        codes = complete(request, passes, frames)
        return [
            _SpokenPart(row, picked, reasons[place], each.is_continued)
            for place, (row, picked, each) in enumerate(zip(codes, decoding.picked, passes, strict=True))
        ]

    def _pair(self, picked: Sequence[int]) -> torch.LongTensor:
        """Codes `(codebooks, frames)` among picked ids."""
        first = self.config.first_stage_config
        frames = list(pair_codes(first, picked))
        return torch.tensor(frames, dtype=torch.long).view(-1, first.num_codebooks).T

    def _complete_at_once(
        self, request: MetaVoiceRequest, passes: Sequence[_Pass], frames: Sequence[torch.LongTensor]
    ) -> list[torch.LongTensor]:
        """All codes `(num_codebooks, frames)` of each part, completed as a whole."""
        uniforms = None
        if request.config.do_sample:
            uniforms = [self._uniforms(request, each, row.shape[1]) for each, row in zip(passes, frames, strict=True)]
        completed = complete_codes(
            self.second_stage,
            [each.text_ids for each in passes],
            [torch.cat([each.before, row], dim=1) for each, row in zip(passes, frames, strict=True)],
            request.speaker_embeddings[[each.part.text for each in passes]],
            uniforms,
            request.options.second_stage_temperature,
            request.options.second_stage_top_k,
        )
        return [row[:, each.before.shape[1] :] for each, row in zip(passes, completed, strict=True)]

    def _uniforms(self, request: MetaVoiceRequest, each: _Pass, frames: int) -> torch.Tensor:
        """Random numbers of a part's frames, zeros for those before."""
        drawn = draw_uniforms(self._generator(request, each.part, "codes"), frames, self.config.second_stage_config)
        return torch.cat([drawn.new_zeros(each.before.shape[1], drawn.shape[1]), drawn])

    def _complete_in_chunks(
        self, request: MetaVoiceRequest, passes: Sequence[_Pass], frames: Sequence[torch.LongTensor]
    ) -> list[torch.LongTensor]:
        """The same, completed as a stream does."""
        results = []
        for each, row in zip(passes, frames, strict=True):
            completion = self._completion(request, each)
            chunks = [completion.push(frame) for frame in row.T.tolist()] + [completion.finish()]
            nothing = torch.zeros(self.config.num_codebooks, 0, dtype=torch.long, device=self.second_stage.device)
            results.append(torch.cat([nothing, *(chunk for chunk in chunks if chunk is not None)], dim=1))
        return results

    def _completion(self, request: MetaVoiceRequest, each: _Pass) -> ChunkedCompletion:
        return ChunkedCompletion(
            self.second_stage,
            each.text_ids,
            each.before,
            request.speaker_embeddings[each.part.text],
            self._generator(request, each.part, "codes") if request.config.do_sample else None,
            request.options.chunks,
            request.options.second_stage_temperature,
            request.options.second_stage_top_k,
        )

    # Sound of whole texts

    @torch.no_grad()
    def _assemble(self, request: MetaVoiceRequest, spoken: list[_SpokenPart]) -> SpeechOutput:
        texts: list[list[_SpokenPart]] = [[] for _ in request.part_counts]
        for part, result in zip(request.parts, spoken, strict=True):
            texts[part.text].append(result)
        sound = self._sound_by_encodec if request.sound.decoder == "encodec" else self._sound_by_diffusion
        waveforms, rate = sound(request, texts), self.config.codec_config.sampling_rate
        if request.sound.enhance:
            waveforms, rate = self._enhance(waveforms)
        audio, lengths = pad_waveforms([waveform.clamp(-1, 1) for waveform in waveforms])
        rows = [torch.tensor(part.picked, device=self.device) for part in spoken]
        end = self.config.first_stage_config.end_of_audio_token_id
        return SpeechOutput(
            audio=audio,
            audio_lengths=lengths,
            sampling_rate=rate,
            sequences=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end),
            audio_codes=[[part.codes for part in text] for text in texts],
            finish_reason=["length" if any(p.reason == "length" for p in text) else "stop" for text in texts],
        )

    def _sound_by_encodec(self, request: MetaVoiceRequest, texts: list[list[_SpokenPart]]) -> list[torch.Tensor]:
        """The waveform `(samples,)` of each text: what goes on from one another is decoded as one."""
        runs: list[list[list[torch.LongTensor]]] = []
        for text in texts:
            runs.append([])
            for part in text:
                if not part.is_continued:
                    runs[-1].append([])
                runs[-1][-1].append(part.codes)
        flat = [torch.cat(run, dim=1).to(self.codec_model.device) for text in runs for run in text]
        decoded = iter(decode_ragged(self.codec_model, flat))
        return [self._join([next(decoded) for _ in text]) for text in runs]

    def _sound_by_diffusion(self, request: MetaVoiceRequest, texts: list[list[_SpokenPart]]) -> list[torch.Tensor]:
        """The waveform `(samples,)` of each text, as loud as upstream's: its parts are worked on one by one."""
        codes = [part.codes.to(self.codec_model.device) for text in texts for part in text]
        generators = [self._generator(request, part, "noise") for part in request.parts]
        plain, sound = decode_ragged(self.codec_model, codes), [torch.zeros(0, device=self.device) for _ in codes]
        places = [place for place, row in enumerate(codes) if row.shape[1]]
        for start in range(0, len(places), _DIFFUSION_ROWS):
            rows = places[start : start + _DIFFUSION_ROWS]
            latents = [self.codec_model.quantizer.decode(codes[row][:, None])[0].T for row in rows]
            diffused = self.diffusion(
                torch.nn.utils.rnn.pad_sequence(latents, batch_first=True).transpose(1, 2),
                torch.nn.utils.rnn.pad_sequence([plain[row] for row in rows], batch_first=True),
                lengths=torch.tensor([len(latent) for latent in latents], device=latents[0].device),
                generator=[generators[row] for row in rows],
            ).waveform
            for row, waveform in zip(rows, diffused, strict=True):
                sound[row] = waveform[: len(plain[row])]
        parts = iter(sound)
        return [self._compress(self._join([next(parts) for _ in text])) for text in texts]

    def _join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Waveforms `(samples,)` that begin anew as one, joined where they are quiet."""
        joiner = QuietJoiner(self.config.codec_config.sampling_rate)
        pieces = [piece for part in parts for piece in (joiner.add(part.float()), joiner.end_part())]
        return torch.cat([*pieces, joiner.finish()])

    def _compress(self, waveform: torch.Tensor) -> torch.Tensor:
        louder = compress_loudness(waveform.cpu().numpy(), self.config.codec_config.sampling_rate)
        return torch.as_tensor(louder, device=waveform.device)

    def _enhance(self, waveforms: list[torch.Tensor]) -> tuple[list[torch.Tensor], int]:
        """Clean waveforms `(samples,)`, and their rate. Pieces of any size give the same, and need no more memory."""
        rate, cleaned = self.config.codec_config.sampling_rate, []
        for waveform in waveforms:
            stream = self.enhancer.stream(sampling_rate=rate)
            pieces = [stream.push(piece[None]) for piece in waveform.split(_ENHANCER_SECONDS * rate)]
            cleaned.append(torch.cat([*pieces, stream.flush()], dim=1)[0])
        return cleaned, self.config.enhancer_config.sampling_rate

    # Streams

    @torch.no_grad()
    def _stream_chunks(self, request: MetaVoiceRequest) -> Iterator[SpeechChunk]:
        enhancer = self.enhancer if request.sound.enhance else None
        rate = self.config.codec_config.sampling_rate if enhancer is None else enhancer.config.sampling_rate
        joiner = ChunkJoiner(request.part_counts, rate)
        histories, sounds = (
            self._new_histories(request),
            [TextSound(self.codec_model, enhancer) for _ in request.seeds],
        )
        for number in range(max(request.part_counts)):
            parts = [part for part in request.parts if part.number == number]
            passes = [self._plan_pass(request, histories, part) for part in parts]
            feed = TokenFeed(self._decode_tokens(request, passes), len(passes))
            speaking = {
                row: self._stream_part(request, each, feed, row, sounds[each.part.text], histories[each.part.text])
                for row, each in enumerate(passes)
            }
            for row, piece in take_turns(speaking):
                text = parts[row].text
                ended = {text: feed.ended[row]} if piece is None else {}
                piece = torch.zeros(0, device=self.device) if piece is None else piece
                yield from joiner.add({text: piece}, ended, number)
            warn_of_cuts(feed.ended.values())

    def _stream_part(
        self,
        request: MetaVoiceRequest,
        each: _Pass,
        feed: TokenFeed,
        row: int,
        sound: TextSound,
        history: TextHistory,
    ) -> Iterator[torch.Tensor]:
        """The waveform `(samples,)` of one part in pieces, while its tokens are written."""
        is_last = each.part.number + 1 == request.part_counts[each.part.text]
        if each.part.number and not each.is_continued:
            yield sound.begin_anew()
        completion, codes = self._completion(request, each), []
        for frame in pair_codes(self.config.first_stage_config, feed.tokens(row)):
            chunk = completion.push(frame)
            if chunk is not None:
                codes.append(chunk)
                yield sound.push(chunk, is_last)
        rest = completion.finish()
        if rest is not None:
            codes.append(rest)
            yield sound.push(rest, is_last)
        if is_last:
            yield sound.finish()
        else:
            history.add(each.part, torch.cat(codes, dim=1) if codes else None, feed.ended[row])


def _processors(config: GenerationConfig, options: MetaVoiceOptions) -> Any:
    extra = list(options.logits_processor or [])
    if not config.do_sample:
        return first_stage_processors(None, None, None, extra)
    return first_stage_processors(config.temperature, config.top_p, config.top_k, extra)


def _check_config(config: GenerationConfig) -> None:
    """Refuse numbers that make no sense, before any heavy work."""
    Guidance.of(1.0 if config.guidance_scale is None else config.guidance_scale)
    if config.max_new_tokens is None or config.max_new_tokens < 1:
        raise ValueError(f"`max_new_tokens` must be at least 1; got {config.max_new_tokens}.")
    if config.do_sample:
        temperature, top_p = config.temperature, config.top_p
        if temperature is not None and not temperature >= 0:
            raise ValueError(f"`temperature` must not be negative; got {temperature}.")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"`top_p` must be above 0 and at most 1; got {top_p}.")


__all__ = ["MetaVoiceGenerationMixin"]
