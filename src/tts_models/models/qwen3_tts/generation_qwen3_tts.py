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
"""Speaking with Qwen3-TTS: whole utterances, or chunks while they are generated, from one frame loop."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin, LogitsProcessorList

from ...acceleration.sampling import RowSampler
from ...speech_generation import (
    ChunkJoiner,
    SpeechChunk,
    SpeechGenerationMixin,
    SpeechOutput,
    pad_waveforms,
    resolve_row_seeds,
    row_generator,
)
from ...streaming.schedule import TwoPhaseSchedule
from .acceleration_qwen3_tts import FastFrameWriter, LoopOptimizer, Qwen3TTSOptimizations, restore_layout
from .decoding_qwen3_tts import EndRules, FirstCodePicker, FrameDecoding, FrameStep, FrameWriter
from .program_qwen3_tts import ProgramDecoding, Sampling
from .prompt_qwen3_tts import PromptBatch, PromptBuilder, PromptRow
from .request_qwen3_tts import (
    Qwen3TTSOptions,
    Qwen3TTSRequest,
    check_inputs,
    end_ids,
    prompt_rows,
    sampling_key,
    suppressed_ids,
    token_limits,
)
from .streaming_qwen3_tts import CodecStream, SpeechPiece, exact_stream, stream_speech
from .voice_qwen3_tts import Qwen3TTSVoice
from .windowed_qwen3_tts import WindowedStream, check_window


# Frames that `generate` decodes at once: enough to keep the codec busy, few enough for its memory.
_WHOLE_CHUNK = 128


class Qwen3TTSGenerationMixin(SpeechGenerationMixin, GenerationMixin):
    """`generate` and `generate_stream` of [`Qwen3TTSForConditionalGeneration`]."""

    _optimizer: LoopOptimizer | None = None

    def _default_generation_config(self) -> GenerationConfig:
        """The family's own defaults, as released; saved as `generation_config.json`."""
        return GenerationConfig(
            do_sample=True,
            temperature=0.9,
            top_k=50,
            top_p=1.0,
            repetition_penalty=1.05,
            min_new_tokens=2,
            max_new_tokens=8192,
            eos_token_id=self.config.talker_config.codec_eos_token_id,
            pad_token_id=self.config.talker_config.codec_pad_id,
            subtalker_dosample=True,
            subtalker_temperature=0.9,
            subtalker_top_k=50,
            subtalker_top_p=1.0,
        )

    def _complete_generation_config(self) -> None:
        """Give a checkpoint's settings the family's own values where they say nothing.

        Released ones leave out the end and the minimum length, which upstream's code adds.
        """
        complete = self._default_generation_config()
        stated = {name: value for name, value in self.generation_config.to_dict().items() if value is not None}
        complete.update(**stated, allow_custom_entries=True)
        self.generation_config = complete

    def generate(
        self,
        input_ids: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> SpeechOutput:
        r"""
        Speak every text of the batch.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch, length)`):
                The tokenised turns, as [`Qwen3TTSProcessor`] builds them, with the other inputs it gives:
                `attention_mask` `(batch, length)`; `instruct_ids` and `reference_ids` `(batch, length)`, -1 for
                padding; `reference_codes` `(batch, frames, num_code_groups)`, -1 for padding; `speaker_embeddings`
                `(batch, hidden_size)`, zeros for none; `speaker_ids` and `language_ids` `(batch,)`, -1 for none;
                recordings to clone as `voice_values` `(batch, samples)` and `voice_features` `(batch, frames, bands)`,
                with `voice_values_mask` and `voice_features_mask`.
            generation_config (`GenerationConfig`, *optional*):
                Replaces the model's own where its fields are set.
            kwargs:
                Those inputs, fields of [`Qwen3TTSOptions`] (`seed`, `max_frames`, `non_streaming_mode`, …), and of
                `GenerationConfig`: `temperature`, `top_k`, `top_p`, `repetition_penalty`, `min_new_tokens`,
                `eos_token_id` (several ends as a list), `suppress_tokens` for the first codes, and
                `subtalker_dosample`, `subtalker_temperature`, `subtalker_top_k`, `subtalker_top_p` for the others.
                `do_sample=False` makes both greedy unless `subtalker_dosample` is given too.

        Returns:
            [`SpeechOutput`]; `audio_codes` holds one `(frames, num_code_groups)` tensor per row.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        request = self._prepare_request(input_ids, generation_config, kwargs)
        return self._speak(request)

    def generate_stream(
        self,
        input_ids: torch.LongTensor | None = None,
        generation_config: GenerationConfig | None = None,
        emit_every_frames: int = 8,
        first_chunk_emit_every: int = 2,
        first_chunk_frames: int = 8,
        decode_window_frames: int | None = None,
        overlap_samples: int = 0,
        **kwargs: Any,
    ) -> Iterator[SpeechChunk]:
        r"""
        Speak every text of the batch, handing out the sound while it is generated.

        The chunks of a row, joined, are `generate`'s audio for the same seed: the codec keeps its state, so nothing is
        decoded twice and nothing is faded. The arguments are `generate`'s, checked at once; and:

        Args:
            emit_every_frames (`int`, *optional*, defaults to 8):
                Frames of a chunk (8 are 0.64 s).
            first_chunk_emit_every (`int`, *optional*, defaults to 2):
                Frames of a chunk at the start, for an early first sound; 0 starts with whole chunks.
            first_chunk_frames (`int`, *optional*, defaults to 8):
                Where the start ends: from this frame on chunks have `emit_every_frames`.
            decode_window_frames (`int`, *optional*):
                Decode so many frames anew for every chunk instead, as upstream's forks do. The sound is then close to
                `generate`'s, but not equal; kept for comparison.
            overlap_samples (`int`, *optional*, defaults to 0):
                Samples of the cross-fade between such chunks, and of the fades at both ends; only with a window.

        Yields:
            [`SpeechChunk`] with one row per text; a row that is complete yields nothing more.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        schedule = TwoPhaseSchedule(emit_every_frames, first_chunk_emit_every, first_chunk_frames)
        request = self._prepare_request(input_ids, generation_config, kwargs)
        if decode_window_frames is None:
            if overlap_samples:
                raise ValueError("`overlap_samples` needs `decode_window_frames`: an exact stream has no seams.")
            return self._stream_chunks(request, schedule, exact_stream)
        check_window(self.speech_tokenizer, decode_window_frames, overlap_samples)
        start = partial(WindowedStream, window=decode_window_frames, overlap=overlap_samples)
        return self._stream_chunks(request, schedule, start)

    @torch.no_grad()
    def create_voice_clone_prompt(
        self, voice_features: torch.Tensor, voice_values: torch.Tensor | None = None, transcript: str | None = None
    ) -> Qwen3TTSVoice:
        """Prepare one voice from a recording.

        Args:
            voice_features: Log-mel frames `(frames, bands)`, as [`Qwen3TTSFeatureExtractor`] makes them.
            voice_values: The waveform `(samples,)` at the codec's rate; needed with a transcript.
            transcript: What is said in it; the voice is then cloned in context.

        Raises:
            ValueError: the model has no speaker encoder, or a transcript comes without a waveform.
        """
        if transcript is not None and voice_values is None:
            raise ValueError("`voice_values` is needed with a `transcript`.")
        codes = None if transcript is None else self._encode_voice(voice_values).cpu()
        return Qwen3TTSVoice(self._embed_voice(voice_features).float().cpu(), codes, transcript)

    def enable_streaming_optimizations(
        self,
        use_compile: bool = False,
        use_cuda_graphs: bool | None = None,
        compile_mode: str = "default",
        compile_codebook_predictor: bool | None = None,
        int8: bool = False,
    ) -> "Qwen3TTSGenerationMixin":
        r"""
        Run the frame loop of `generate` and `generate_stream` through lean steps over caches that stay in place.

        Codes are the same with and without, up to rounding and but for `int8`. The joined weights take the place of
        the separate ones in memory. Sampling, seeds and streams work as before; a call with an own `logits_processor`
        is neither compiled nor captured.

        Args:
            use_compile (`bool`, *optional*, defaults to `False`):
                Compile the talker's layer (once for all layers). The first call takes long.
            use_cuda_graphs (`bool`, *optional*):
                Capture a whole frame (first code, code predictor, talker step) as one CUDA graph, for every batch
                size and set of sampling parameters that occurs. By default where the model is on a CUDA device.
            compile_mode (`str`, *optional*, defaults to `"default"`):
                Mode of `torch.compile`: `"default"` or `"max-autotune-no-cudagraphs"`.
            compile_codebook_predictor (`bool`, *optional*):
                Compile the code predictor's layer too. By default as `use_compile`.
            int8 (`bool`, *optional*, defaults to `False`):
                On the CPU, run the steps (not the prompt) with weights of 8 bits and inputs quantised as they come:
                several times faster, with codes that differ. Copies of the weights are added, a quarter as large.

        Returns:
            The model.

        Raises:
            ValueError: an option does not fit the device, the layers or another option.
        """
        on_cuda = self.device.type == "cuda"
        options = Qwen3TTSOptimizations(
            use_compile=use_compile,
            use_cuda_graphs=on_cuda if use_cuda_graphs is None else use_cuda_graphs,
            compile_mode=compile_mode,
            compile_codebook_predictor=use_compile
            if compile_codebook_predictor is None
            else compile_codebook_predictor,
            int8=int8,
        )
        optimizer = LoopOptimizer(options)
        optimizer.loops(self.talker)
        self._optimizer = optimizer
        return self

    def disable_streaming_optimizations(self) -> "Qwen3TTSGenerationMixin":
        """Undo `enable_streaming_optimizations`; returns the model."""
        if self._optimizer is not None:
            self._optimizer = None
            restore_layout(self.talker)
        return self

    # Requests

    def _prepare_request(
        self, input_ids: Any, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> Qwen3TTSRequest:
        options, kwargs = Qwen3TTSOptions.take_from(kwargs)
        config, tensors = self._resolve_generation_config(generation_config, kwargs)
        checked = check_inputs(input_ids, tensors, self.device)
        if self.speech_tokenizer is None:
            raise ValueError("The model has no codec to speak through: give it one with `attach_codec`.")
        rows = prompt_rows(checked, self.config)
        seeds = resolve_row_seeds(len(rows), options.seed, options.generator)
        end_ids(self.config, config)
        token_limits(self.config, config, options, [row.length for row in rows])
        self._hear_voices(rows, checked)
        for row in rows:
            is_cloned = row.speaker_embedding is not None
            given = options.non_streaming_mode
            row.non_streaming_mode = not is_cloned if given is None else bool(given)
        # Now with what the recordings and the mode add.
        token_limits(self.config, config, options, [row.length for row in rows])
        return Qwen3TTSRequest(rows, seeds, config, options)

    def _resolve_generation_config(
        self, generation_config: GenerationConfig | None, kwargs: dict[str, Any]
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """The parameters, and the keywords that are none of them."""
        config, rest = self._sampled_sequence_config(generation_config, kwargs, "Qwen3-TTS")
        is_greedy = kwargs.get("do_sample", getattr(generation_config, "do_sample", None)) is False
        if is_greedy and "subtalker_dosample" not in kwargs and not hasattr(generation_config, "subtalker_dosample"):
            config.subtalker_dosample = False
        # Raises on values that make no sense, such as a negative temperature, before any heavy work.
        self._first_code_processors(config, LogitsProcessorList())
        self._other_code_processors(config)
        return config, rest

    @torch.no_grad()
    def _hear_voices(self, rows: list[PromptRow], tensors: dict[str, torch.Tensor]) -> None:
        """Turn recordings into speaker vectors and, where there is a transcript, into codes."""
        if "voice_features" not in tensors:
            return
        for row, prompt in enumerate(rows):
            features = tensors["voice_features"][row][tensors["voice_features_mask"][row].bool()]
            if not len(features):
                continue
            prompt.speaker_embedding = self._embed_voice(features)
            if prompt.reference_ids is not None:
                if "voice_values" not in tensors:
                    raise ValueError("`voice_values` is needed to clone in context (`reference_ids`).")
                prompt.reference_codes = self._encode_voice(
                    tensors["voice_values"][row][tensors["voice_values_mask"][row].bool()]
                )

    def _embed_voice(self, features: torch.Tensor) -> torch.Tensor:
        """Log-mel frames `(frames, bands)` to a speaker vector `(hidden_size,)`."""
        if self.speaker_encoder is None:
            raise ValueError(
                f"`voice` cannot be a recording: a {self.config.tts_model_type!r} model has no speaker encoder."
            )
        embedding = self.speaker_encoder(features[None].to(self.device)).speaker_embeddings[0]
        width = self.config.talker_config.hidden_size
        if len(embedding) != width:
            raise ValueError(f"The speaker encoder makes vectors of {len(embedding)}, the talker takes {width}.")
        return embedding

    def _encode_voice(self, values: torch.Tensor) -> torch.LongTensor:
        """A waveform `(samples,)` to codes `(frames, num_code_groups)`."""
        values = values.to(self.device, torch.float32)[None]
        return self.speech_tokenizer.encode(values, torch.ones_like(values, dtype=torch.long)).audio_codes[0]

    # Frames

    def _first_code_processors(self, config: GenerationConfig, extra: LogitsProcessorList) -> LogitsProcessorList:
        """Minimum length, suppressed ids, temperature, top-k, top-p, in the library's order."""
        config, ends = copy.copy(config), end_ids(self.config, config)
        config.eos_token_id = ends
        config._eos_token_tensor = torch.tensor(ends, device=self.device)
        config.repetition_penalty, config.min_length = 1.0, 0
        if config.suppress_tokens is None:
            config.suppress_tokens = suppressed_ids(self.config, ends)
        return self._get_logits_processor(config, 0, logits_processor=extra, device=self.device)

    def _other_code_processors(self, config: GenerationConfig) -> LogitsProcessorList:
        sampling = GenerationConfig(do_sample=bool(config.subtalker_dosample))
        if sampling.do_sample:
            for name in ("temperature", "top_k", "top_p"):
                setattr(sampling, name, getattr(config, f"subtalker_{name}", None))
        return self._get_logits_processor(sampling, 0, device=self.device)

    def _samplers(self, request: Qwen3TTSRequest) -> tuple[RowSampler, RowSampler]:
        """For first codes and for the others; where both draw, they take turns at one source, as upstream does."""
        drawing = RowSampler([row_generator(seed, "codes") for seed in request.seeds], self.device)
        greedy = RowSampler(None, self.device)
        config = request.config
        return (drawing if config.do_sample else greedy), (drawing if config.subtalker_dosample else greedy)

    def _frame_decoding(self, request: Qwen3TTSRequest) -> FrameDecoding | ProgramDecoding:
        prompts = self._build_prompts(request)
        limits = token_limits(self.config, request.config, request.options, prompts.attention_mask.sum(-1).tolist())
        return self._decode_frames(prompts, request.config, request.options, self._samplers(request), limits)

    def _decode_frames(
        self,
        prompts: PromptBatch,
        config: GenerationConfig,
        options: Qwen3TTSOptions,
        samplers: Sequence[RowSampler],
        limits: Sequence[int],
    ) -> FrameDecoding | ProgramDecoding:
        """The frame loop over `prompts`, as fast as it was asked to be."""
        rules = EndRules(end_ids(self.config, config), limits)
        picker = FirstCodePicker(
            len(limits),
            self._first_code_processors(config, LogitsProcessorList(options.logits_processor or [])),
            samplers[0],
            1.0 if config.repetition_penalty is None else config.repetition_penalty,
            options.repetition_penalty_window,
        )
        processors = self._other_code_processors(config)
        if self._optimizer is None:
            writer = FrameWriter(self.talker.code_predictor, processors, samplers[1])
            return FrameDecoding(self.talker, prompts, picker, writer, rules)
        loops = self._optimizer.loops(self.talker)
        writer = FastFrameWriter(loops, processors, samplers[1])
        if loops.options.has_fixed_shapes:
            sampling = Sampling(picker, writer, sampling_key(config, options))
            if sampling.is_inline:
                return ProgramDecoding(loops, prompts, sampling, rules)
        return FrameDecoding(self.talker, prompts, picker, writer, rules, loops)

    def _build_prompts(self, request: Qwen3TTSRequest) -> PromptBatch:
        return PromptBuilder(self).batch(request.rows)

    # Sound

    @torch.no_grad()
    def _speak(self, request: Qwen3TTSRequest) -> SpeechOutput:
        frames: list[list[torch.LongTensor]] = [[] for _ in request.rows]
        audio: list[list[torch.Tensor]] = [[torch.zeros(0, device=self.device)] for _ in request.rows]
        reasons: dict[int, str] = {}

        def recorded() -> Iterator[FrameStep]:
            for step in self._frame_decoding(request):
                for place, row in enumerate(step.rows):
                    frames[row].append(step.codes[place])
                yield step

        for piece in self._pieces(request, recorded(), TwoPhaseSchedule(_WHOLE_CHUNK), exact_stream):
            reasons |= piece.ended
            for row, samples in piece.audio.items():
                audio[row].append(samples.to(self.device))
        waveforms, lengths = pad_waveforms([torch.cat(pieces) for pieces in audio])
        groups = self.config.talker_config.num_code_groups
        empty = torch.empty(0, groups, dtype=torch.long, device=self.device)
        return SpeechOutput(
            audio=waveforms,
            audio_lengths=lengths,
            sampling_rate=self.config.sampling_rate,
            audio_codes=[torch.stack(row) if row else empty for row in frames],
            finish_reason=[reasons[row] for row in range(len(frames))],
        )

    @torch.no_grad()
    def _stream_chunks(
        self, request: Qwen3TTSRequest, schedule: TwoPhaseSchedule, start_stream: Callable[..., CodecStream]
    ) -> Iterator[SpeechChunk]:
        joiner = ChunkJoiner([1] * len(request.rows), self.config.sampling_rate)
        for piece in self._pieces(request, self._frame_decoding(request), schedule, start_stream):
            yield from joiner.add(piece.audio, piece.ended, part=0)

    def _pieces(
        self,
        request: Qwen3TTSRequest,
        steps: Iterable[FrameStep],
        schedule: TwoPhaseSchedule,
        start_stream: Callable[..., CodecStream],
    ) -> Iterator[SpeechPiece]:
        stream = start_stream(self.speech_tokenizer, [row.reference_codes for row in request.rows])
        return stream_speech(steps, stream, len(request.rows), self.device, schedule)


__all__ = ["Qwen3TTSGenerationMixin"]
