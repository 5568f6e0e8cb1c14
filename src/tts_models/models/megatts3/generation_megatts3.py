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
"""Speaking with MegaTTS3: whole texts, or segment by segment."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, GenerationMixin

from ...audio.loudness import match_loudness
from ...request_tensors import check_parts_per_batch, in_batches
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
from ...streaming.crossfade import CrossFade
from .durations_megatts3 import apply_duration_rules, expand_durations, read_alignment
from .g2p_megatts3 import write_phones
from .modeling_megatts3_vae import NO_ENCODER
from .phones_megatts3 import SPOKEN_PHONES, phones_of_tokens
from .request_megatts3 import (
    PREPARED,
    RECORDED,
    MegaTTS3Options,
    MegaTTS3Request,
    check_generation,
    check_inputs,
    check_voice,
    phone_rows,
    prepared_voice,
    prompt_rows,
)
from .sampling_megatts3_duration import MegaTTS3DurationPrompt
from .voice_megatts3 import MegaTTS3Voice


FADE_SECONDS = 0.16
_DEFAULTS = {
    "do_sample": False,
    "max_new_tokens": 1024,
    "num_inference_steps": 32,
    "p_w": 1.6,
    "t_w": 2.5,
    "dur_disturb": 0.1,
    "dur_alpha": 1.0,
}


@dataclass
class MegaTTS3SpeechOutput(SpeechOutput):
    """
    What MegaTTS3's `generate` returns: a [`SpeechOutput`] with what was spoken. `audio_codes[text][part]` holds the
    latents `(latents, latent_dim)` of a part, without those of the reference.

    Args:
        phone_ids (`list[list[torch.LongTensor]]`, *optional*):
            Phones `(phones,)` of each part of each text.
        tone_ids (`list[list[torch.LongTensor]]`, *optional*):
            Their tones.
        durations (`list[list[torch.LongTensor]]`, *optional*):
            How many frames of 10 ms each phone lasts.
    """

    phone_ids: list[list[torch.LongTensor]] | None = None
    tone_ids: list[list[torch.LongTensor]] | None = None
    durations: list[list[torch.LongTensor]] | None = None


@dataclass
class MegaTTS3Part:
    """One part of a text on its way to sound.

    Args:
        phone_ids, tone_ids: What is said, int64 `(phones,)`.
        reason: Why its phones ended.
        durations: Frames of each phone, int64 `(phones,)`.
        latents: `(latents, latent_dim)` without the reference's.
        audio: float32 `(samples,)`.
    """

    phone_ids: torch.LongTensor
    tone_ids: torch.LongTensor
    reason: str = "stop"
    durations: torch.LongTensor | None = None
    latents: torch.Tensor | None = None
    audio: torch.Tensor | None = None


class MegaTTS3GenerationMixin(SpeechGenerationMixin, GenerationMixin):
    """`generate` and `generate_stream` of [`MegaTTS3ForConditionalGeneration`]."""

    def _default_generation_config(self) -> GenerationConfig:
        """Upstream's defaults; saved as `generation_config.json`."""
        end = self.config.g2p_end_token_id
        return GenerationConfig(**_DEFAULTS, eos_token_id=end, pad_token_id=end)

    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        parts_per_batch: int = 8,
        **kwargs: Any,
    ) -> MegaTTS3SpeechOutput:
        r"""
        Speak every text of the batch.

        Args:
            input_ids (`torch.LongTensor` of shape `(parts, length)`):
                What the grapheme-to-phoneme model reads of each part, as [`MegaTTS3Processor`] makes it, with the
                other inputs it gives: `attention_mask` `(parts, length)`, or instead of both `phone_ids` and
                `tone_ids` `(parts, phones)`; `part_counts` `(batch,)`, consecutive parts that make one text; and the
                voice of each text, prepared (`prompt_phones` and its like) or as a recording (`voice_features` and
                its like).
            generation_config (`GenerationConfig`, *optional*):
                Replaces the model's own where its fields are set.
            parts_per_batch (`int`, *optional*, defaults to 8):
                The most parts spoken at once.
            kwargs:
                Those inputs, fields of [`MegaTTS3Options`] (`seed`, …), and of `GenerationConfig`: `do_sample`,
                `temperature`, `top_k`, `top_p`, `repetition_penalty` and `max_new_tokens` of the grapheme-to-phoneme
                model, and the family's own: `num_inference_steps` (of the diffusion), `p_w` (how clearly the text is
                spoken: 1 keeps an accent), `t_w` (how closely the voice is followed), `dur_disturb` (the largest
                random change of a phone's duration; 0 for none) and `dur_alpha` (above 1 is slower).

        Returns:
            [`MegaTTS3SpeechOutput`].

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        check_parts_per_batch(parts_per_batch)
        request = self._prepare_request(input_ids, generation_config, kwargs)
        spoken: list[MegaTTS3Part] = []
        for places in in_batches(list(range(len(request.parts))), parts_per_batch):
            spoken += self._speak_parts(request, places)
        return self._assemble(request, spoken)

    def generate_stream(
        self,
        input_ids: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[SpeechChunk]:
        r"""
        Speak every text of the batch part by part, each handed out while the next is computed.

        The arguments are `generate`'s, checked at once, before the first chunk is asked for. The chunks of a row,
        joined, are `generate`'s audio for the same seed. A part is the smallest piece: its frames are made together.

        Yields:
            [`SpeechChunk`] with one row per text; a row that is complete yields nothing more.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        kwargs.pop("parts_per_batch", None)
        return self._stream_parts(self._prepare_request(input_ids, generation_config, kwargs))

    # Voices

    @torch.no_grad()
    def embed_voice(
        self,
        voice_features: torch.Tensor,
        voice_loudness: torch.Tensor,
        voice_latents: torch.Tensor | None = None,
        voice_values: torch.Tensor | None = None,
    ) -> MegaTTS3Voice:
        """Prepare one voice from a recording.

        Args:
            voice_features: Mel frames `(frames, bands)`, as [`MegaTTS3FeatureExtractor`] makes them.
            voice_loudness: Loudness of the padded recording in LUFS, without axes.
            voice_latents: Latents `(latents, latent_dim)` of the recording; computed from `voice_values` without them.
            voice_values: The padded recording `(samples,)` at 24 kHz.

        Raises:
            ValueError: the checkpoint lacks the encoder that a recording without latents needs, or nothing is said in
                the recording.
        """
        if voice_latents is None and not self.config.vae_config.has_encoder:
            raise ValueError(f"`voice` is a recording alone, and {NO_ENCODER}")
        features = voice_features[None].to(self.device, self.aligner.dtype)
        frames = features.shape[1]
        phones, tones, durations = read_alignment(self.aligner.align(features.transpose(1, 2))[0], frames)
        if not any(phone in SPOKEN_PHONES for phone in phones.tolist()):
            raise ValueError("`voice` holds no speech: the aligner heard no phone in it.")
        latents = voice_latents
        if latents is None:
            values = voice_values[None].to(self.device, self.vae.dtype)
            latents = self.vae.encode(values).latents[0]
        latents = latents[: frames // self.config.frames_per_latent]
        parts = (phones, tones, durations, latents.float(), voice_loudness.float())
        return MegaTTS3Voice(*(part.to(self.device) for part in parts))

    def _voices_of(self, tensors: dict[str, torch.Tensor], rows: int) -> list[MegaTTS3Voice]:
        """The voice of each text; one that several texts share is prepared once."""
        names = [name for name in (*PREPARED, *RECORDED) if name in tensors]
        voices: dict[int, MegaTTS3Voice] = {}
        found = []
        for row in range(rows):
            known = (each for each in voices if all(torch.equal(tensors[n][each], tensors[n][row]) for n in names))
            first = next(known, row)
            voices[first] = voices.get(first) or self._voice_of(tensors, row)
            found.append(voices[first])
        return found

    def _voice_of(self, tensors: dict[str, torch.Tensor], row: int) -> MegaTTS3Voice:
        voice = prepared_voice(tensors, row, self.config)
        if voice is not None:
            return voice
        frames = int(tensors["voice_frames"][row]) if "voice_frames" in tensors else 0
        if not frames:
            raise ValueError(f"Row {row} has no voice, neither prepared nor as a recording.")
        recorded = {"voice_features": tensors["voice_features"][row, :frames]}
        latents = frames // self.config.frames_per_latent
        samples = int(tensors["voice_samples"][row]) if "voice_samples" in tensors else 0
        if samples:
            recorded["voice_values"] = tensors["voice_values"][row, :samples]
        elif "voice_latents" in tensors:
            recorded["voice_latents"] = tensors["voice_latents"][row, :latents]
        voice = self.embed_voice(voice_loudness=tensors["voice_loudness"][row], **recorded)
        check_voice(voice, self.config)
        return voice

    # Requests

    def _prepare_request(
        self, input_ids: Any, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> MegaTTS3Request:
        options, kwargs = MegaTTS3Options.take_from(kwargs)
        if options.time_step is not None:
            kwargs["num_inference_steps"] = options.time_step
        config, tensors = self._sampled_sequence_config(generation_config, kwargs, "MegaTTS3", "part")
        check_generation(config)
        # Raises on values that make no sense, such as a negative temperature, before any heavy work.
        self._get_logits_processor(config, 0, device=self.device)
        checked = check_inputs(tensors | {"input_ids": input_ids}, self.device)
        prompts, (phones, tones) = prompt_rows(checked, self.config), phone_rows(checked)
        counts = checked["part_counts"].tolist()
        seeds = resolve_row_seeds(len(counts), options.seed, options.generator)
        voices = self._voices_of(checked, len(counts))
        return MegaTTS3Request(prompts, phones, tones, counts, seeds, voices, config, options)

    # Parts

    @torch.no_grad()
    def _speak_parts(self, request: MegaTTS3Request, places: list[int]) -> list[MegaTTS3Part]:
        """Some parts of the request, each as if it were alone."""
        parts = self._find_phones(request, places)
        self._find_durations(request, places, parts)
        self._make_latents(request, places, parts)
        self._make_audio(request, places, parts)
        return parts

    def _find_phones(self, request: MegaTTS3Request, places: list[int]) -> list[MegaTTS3Part]:
        if request.phones:
            return [MegaTTS3Part(request.phones[place], request.tones[place]) for place in places]
        config, first = request.config, self.config.g2p_first_phone_id
        generators = [
            row_generator(request.seeds[text], part, "phones") for text, part in self._texts(request, places)
        ]
        written = write_phones(
            self.g2p,
            [request.prompts[place] for place in places],
            first,
            self.config.g2p_end_token_id - first,
            config.max_new_tokens,
            self._get_logits_processor(config, 0, device=self.device),
            generators if config.do_sample else None,
            self._g2p_programs,
        )
        warn_of_cuts(row.reason for row in written)
        return [MegaTTS3Part(*phones_of_tokens(row.tokens), row.reason) for row in written]

    def _texts(self, request: MegaTTS3Request, places: Sequence[int]) -> list[tuple[int, int]]:
        """Text and number of parts."""
        parts = request.parts
        return [parts[place] for place in places]

    def _voices(self, request: MegaTTS3Request, places: Sequence[int]) -> list[MegaTTS3Voice]:
        return [request.voices[text] for text, _ in self._texts(request, places)]

    def _duration_prompt(self, request: MegaTTS3Request) -> MegaTTS3DurationPrompt:
        """What the duration model keeps of the references, one row per text; every part goes on from a copy."""
        if request.duration_prompt is None:
            rows = ([getattr(voice, name) for voice in request.voices] for name in _SPOKEN)
            request.duration_prompt = self.duration.prompt(*(pad_sequence(row, batch_first=True) for row in rows))
        return request.duration_prompt

    def _find_durations(self, request: MegaTTS3Request, places: list[int], parts: list[MegaTTS3Part]) -> None:
        texts = self._texts(request, places)
        tokens = self.duration.predict(
            self._duration_prompt(request).select_rows([text for text, _ in texts]),
            *(pad_sequence([getattr(part, name) for part in parts], batch_first=True) for name in _SPOKEN[:2]),
        )
        for part, (text, number), row in zip(parts, texts, tokens, strict=True):
            count = len(part.phone_ids)
            part.durations = apply_duration_rules(
                row[:count],
                part.phone_ids,
                is_first=number == 0,
                is_final=number + 1 == request.part_counts[text],
                speed_factor=request.config.dur_alpha,
                disturbance=request.config.dur_disturb,
                uniforms=self._uniforms(request, text, number, count),
                multiple=self.config.frames_multiple,
                most=self.config.duration_config.num_durations - 1,
            )

    def _uniforms(
        self, request: MegaTTS3Request, text: int, number: int, count: int
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The random numbers that change the durations of a part."""
        if not request.config.dur_disturb:
            return None
        drawn = torch.rand(2, count, generator=row_generator(request.seeds[text], number, "durations"))
        return tuple(drawn.to(self.device))

    def _flow_noise(self, request: MegaTTS3Request, places: list[int]) -> dict[str, Any]:
        """Where the noise of each part comes from, as arguments of the transformer."""
        texts = self._texts(request, places)
        return {"generator": [row_generator(request.seeds[text], part, "noise") for text, part in texts]}

    def _make_latents(self, request: MegaTTS3Request, places: list[int], parts: list[MegaTTS3Part]) -> None:
        voices = self._voices(request, places)
        joined = {
            name: [
                torch.cat([getattr(voice, name), getattr(part, name)])
                for voice, part in zip(voices, parts, strict=True)
            ]
            for name in _SPOKEN
        }
        phones, tones, durations = (pad_sequence(joined[name], batch_first=True) for name in _SPOKEN)
        solved = self.transformer.solve(
            phones,
            tones,
            expand_durations(durations),
            pad_sequence([voice.latents.to(self.transformer.dtype) for voice in voices], batch_first=True),
            torch.tensor([len(voice.latents) for voice in voices], device=self.device),
            durations.sum(1) // self.config.frames_per_latent,
            num_inference_steps=int(request.config.num_inference_steps),
            intelligibility_weight=float(request.config.p_w),
            similarity_weight=float(request.config.t_w),
            **self._flow_noise(request, places),
            sequential=request.options.sequential_guidance,
        )
        for part, voice, row in zip(parts, voices, solved, strict=True):
            part.latents = row[: len(voice.latents) + int(part.durations.sum()) // self.config.frames_per_latent]

    def _make_audio(self, request: MegaTTS3Request, places: list[int], parts: list[MegaTTS3Part]) -> None:
        """Decode the latents with those of the reference before them, and keep what follows the reference."""
        voices = self._voices(request, places)
        lengths = torch.tensor([len(part.latents) for part in parts], device=self.device)
        starts = torch.tensor([len(voice.latents) for voice in voices], device=self.device)
        latents = pad_sequence([part.latents for part in parts], batch_first=True)
        decoded = self.vae.decode(latents.to(self.vae.dtype), lengths, first_latent=starts)
        for row, (part, voice) in enumerate(zip(parts, voices, strict=True)):
            samples = decoded.audio_values[row, : int(decoded.audio_lengths[row])]
            part.latents = part.latents[len(voice.latents) :]
            part.audio = self._finish(samples, voice)

    def _finish(self, samples: torch.Tensor, voice: MegaTTS3Voice) -> torch.Tensor:
        """A part `(samples,)` as loud as the reference."""
        matched = match_loudness(
            samples.float().cpu().numpy().astype(np.float64), self.config.sampling_rate, float(voice.loudness)
        )
        return torch.from_numpy(matched.astype(np.float32)).to(self.device)

    # Whole texts

    def _fades(self, request: MegaTTS3Request) -> list[CrossFade]:
        return [CrossFade(round(FADE_SECONDS * self.config.sampling_rate)) for _ in request.part_counts]

    def _assemble(self, request: MegaTTS3Request, spoken: list[MegaTTS3Part]) -> MegaTTS3SpeechOutput:
        rows, texts, remaining = [], [], iter(spoken)
        for fade, count in zip(self._fades(request), request.part_counts, strict=True):
            parts = [next(remaining) for _ in range(count)]
            rows.append(torch.cat([fade.add(part.audio, part is parts[-1]) for part in parts]))
            texts.append(parts)
        audio, lengths = pad_waveforms(rows)
        reasons = ["length" if any(part.reason == "length" for part in parts) else "stop" for parts in texts]
        return MegaTTS3SpeechOutput(
            audio=audio,
            audio_lengths=lengths,
            sampling_rate=self.config.sampling_rate,
            audio_codes=[[part.latents for part in parts] for parts in texts],
            finish_reason=reasons,
            **{name: [[getattr(part, name) for part in parts] for parts in texts] for name in _SPOKEN},
        )

    # Streams

    def _stream_parts(self, request: MegaTTS3Request) -> Iterator[SpeechChunk]:
        rounds = [
            [place for place, (_, number) in enumerate(request.parts) if number == part]
            for part in range(max(request.part_counts))
        ]
        joiner, fades = ChunkJoiner(request.part_counts, self.config.sampling_rate), self._fades(request)
        with ThreadPoolExecutor(max_workers=1) as ahead:
            coming = ahead.submit(self._speak_parts, request, rounds[0])
            for number, places in enumerate(rounds):
                spoken = coming.result()
                if number + 1 < len(rounds):
                    coming = ahead.submit(self._speak_parts, request, rounds[number + 1])
                texts = [text for text, _ in self._texts(request, places)]
                audio = {
                    text: fades[text].add(part.audio, is_last=number + 1 == request.part_counts[text])
                    for text, part in zip(texts, spoken, strict=True)
                }
                ended = {text: part.reason for text, part in zip(texts, spoken, strict=True)}
                yield from joiner.add(audio, ended, number)


_SPOKEN = ("phone_ids", "tone_ids", "durations")


__all__ = ["MegaTTS3GenerationMixin", "MegaTTS3Part", "MegaTTS3SpeechOutput"]
