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
"""Processor of Qwen3-TTS: texts, languages, instructions and voices to the inputs of `generate`, audio to files."""

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.utils import cached_file, logging

from ...speech_generation import SpeechProcessorMixin
from ...speech_inputs import check_texts, read_recording, spread
from ...text import neutralize_tokens
from .configuration_qwen3_tts import MODEL_KINDS, Qwen3TTSConfig
from .feature_extraction_qwen3_tts import Qwen3TTSFeatureExtractor
from .voice_qwen3_tts import Qwen3TTSVoice


if TYPE_CHECKING:
    from .modeling_qwen3_tts import Qwen3TTSForConditionalGeneration

logger = logging.get_logger(__name__)

MAX_TEXT_CHARACTERS = 50_000
MAX_VOICE_SECONDS = 300
SPEECH_TURN = "<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n"
REFERENCE_TURN = "<|im_start|>assistant\n{text}<|im_end|>\n"
INSTRUCT_TURN = "<|im_start|>user\n{text}<|im_end|>\n"
LANGUAGE_CODES = {
    "zh": "chinese",
    "en": "english",
    "de": "german",
    "it": "italian",
    "pt": "portuguese",
    "es": "spanish",
    "ja": "japanese",
    "ko": "korean",
    "fr": "french",
    "ru": "russian",
}
AUTO = "auto"


def language_row(
    language: str, speaker: str | None, language_ids: dict[str, int], dialects: dict[str, Any]
) -> int | None:
    """The row of the codec table for a language, `None` where the model decides.

    A speaker of a Chinese dialect speaks it unless another language is asked for.

    Args:
        language: A name or an ISO code such as `"en"` or `"zh-CN"`, in any case; `"auto"` lets the model decide.
        speaker: A speaker's name, or `None`.
        language_ids: Rows of the languages, by name.
        dialects: The dialect of each speaker, or `False`.

    Raises:
        ValueError: an unknown language.
    """
    name = str(language).strip().lower()
    name = LANGUAGE_CODES.get(name.partition("-")[0].partition("_")[0], name)
    dialect = dialects.get(speaker.lower()) if speaker is not None else None
    if dialect and name in (AUTO, "chinese"):
        name = dialect
    if name == AUTO:
        return None
    if name not in language_ids:
        known = [AUTO, *sorted(each for each in language_ids if "dialect" not in each)]
        raise ValueError(f"`language` must be one of {', '.join(known)}, or an ISO code; got {language!r}.")
    return language_ids[name]


# trf-ignore: TRF057
class Qwen3TTSProcessor(SpeechProcessorMixin, ProcessorMixin):
    r"""
    Builds the inputs of [`Qwen3TTSForConditionalGeneration`] from texts and voices.

    Loaded from a folder as released, it reads what its own arguments say from the model's `config.json`.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The Qwen2 tokenizer of the checkpoint.
        feature_extractor (`Qwen3TTSFeatureExtractor`):
            Prepares recordings for the speaker encoder; knows the sampling rate.
        chat_template (`str`, *optional*):
            Not used for speaking.
        tts_model_type (`str`, *optional*, defaults to `"base"`):
            What a voice is: a recording (`"base"`), a name (`"custom_voice"`) or a description (`"voice_design"`).
        language_ids (`dict[str, int]`, *optional*):
            Rows of the codec table for languages and dialects.
        speaker_ids (`dict[str, int]`, *optional*):
            Rows of the codec table for speakers, by lower-case name.
        speaker_dialects (`dict[str, bool | str]`, *optional*):
            The dialect of each speaker, or `False`.
        takes_instructions (`bool`, *optional*, defaults to `True`):
            Whether `instruct` has an effect; the 0.6B CustomVoice checkpoint was not trained for it.
        default_voice (`str`, *optional*):
            Speaker or description used when none is given; by default the first speaker.
        max_text_characters (`int`, *optional*, defaults to 50000):
            The longest text accepted.
    """

    def __init__(
        self,
        tokenizer: Any,
        feature_extractor: Any,
        chat_template: str | None = None,
        tts_model_type: str = "base",
        language_ids: dict[str, int] | None = None,
        speaker_ids: dict[str, int] | None = None,
        speaker_dialects: dict[str, Any] | None = None,
        takes_instructions: bool = True,
        default_voice: str | None = None,
        max_text_characters: int = MAX_TEXT_CHARACTERS,
    ) -> None:
        super().__init__(tokenizer, feature_extractor, chat_template=chat_template)
        if tts_model_type not in MODEL_KINDS:
            raise ValueError(f"`tts_model_type` must be one of {', '.join(MODEL_KINDS)}; got {tts_model_type!r}.")
        self.tts_model_type = tts_model_type
        self.language_ids = language_ids or {}
        self.speaker_ids = speaker_ids or {}
        self.speaker_dialects = speaker_dialects or {}
        self.takes_instructions = takes_instructions
        self.default_voice = default_voice
        self.max_text_characters = max_text_characters
        self._control_tokens = frozenset(
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        ) | {"<|im_start|>", "<|im_end|>"}

    @classmethod
    def from_config(cls, config: Qwen3TTSConfig, tokenizer: Any, feature_extractor: Any = None) -> "Qwen3TTSProcessor":
        """The processor that fits a model's configuration."""
        codec = config.talker_config
        if feature_extractor is None:
            encoder = config.speaker_encoder_config
            feature_extractor = Qwen3TTSFeatureExtractor(
                feature_size=128 if encoder is None else encoder.mel_dim, sampling_rate=config.sampling_rate
            )
        return cls(
            tokenizer,
            feature_extractor,
            tts_model_type=config.tts_model_type,
            language_ids=dict(codec.codec_language_id),
            speaker_ids={name.lower(): row for name, row in codec.spk_id.items()},
            speaker_dialects={name.lower(): dialect for name, dialect in codec.spk_is_dialect.items()},
            takes_instructions=not (config.tts_model_type == "custom_voice" and config.tts_model_size == "0b6"),
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any) -> "Qwen3TTSProcessor":
        """As the parent's; also reads a folder as released, which has no configuration of the processor."""
        names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
        hub = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
        name = str(pretrained_model_name_or_path)
        own = cached_file(name, "processor_config.json", _raise_exceptions_for_missing_entries=False, **hub)
        if own is not None:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        config = AutoConfig.from_pretrained(name, **hub)
        return cls.from_config(config, AutoTokenizer.from_pretrained(name, **hub))

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` may return and `generate` takes."""
        return [
            "input_ids",
            "attention_mask",
            "instruct_ids",
            "reference_ids",
            "reference_codes",
            "speaker_embeddings",
            "speaker_ids",
            "language_ids",
            "voice_values",
            "voice_values_mask",
            "voice_features",
            "voice_features_mask",
        ]

    @property
    def sampling_rate(self) -> int:
        """Rate of the audio in Hz."""
        return self.feature_extractor.sampling_rate

    @property
    def voices(self) -> list[str]:
        """Names of the speakers."""
        return sorted(self.speaker_ids)

    # trf-ignore: TRF057
    def __call__(
        self,
        text: str | Sequence[str],
        voice: Any = None,
        transcript: str | Sequence[str | None] | None = None,
        language: str | Sequence[str] = AUTO,
        instruct: str | Sequence[str | None] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        r"""
        Prepare texts for `generate` and `generate_stream`.

        Args:
            text: One text or a list of them, spoken as written.
            voice: For all texts, or a list with one each. A speaker's name (CustomVoice); a description (VoiceDesign);
                a recording to clone (Base): path, array `(samples,)`, or pair of array and rate in Hz; a
                [`Qwen3TTSVoice`] or the path of a saved one (`.safetensors`).
            transcript: What is said in the recording, for all texts or one each: the voice is then cloned in context,
                with its manner; without, only its timbre.
            language: Name or ISO code, for all texts or one each; `"auto"` lets the model decide.
            instruct: How to speak, for all texts or one each.
            sampling_rate: Rate in Hz of recordings given as arrays.
            return_tensors: Only `"pt"`.

        Returns:
            `BatchFeature` with those of `model_input_names` that the voices need.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        if return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt'; got {return_tensors!r}.")
        texts = self._check_texts(text)
        voices = [self._resolve_voice(each, sampling_rate) for each in spread("voice", voice, len(texts))]
        transcripts = spread("transcript", transcript, len(texts))
        instructions = spread("instruct", instruct, len(texts))
        languages = spread("language", language, len(texts))
        rows = [self._row(*each) for each in zip(texts, voices, transcripts, languages, instructions, strict=True)]
        return BatchFeature(_stack_rows(rows))

    def prepare_voice(
        self,
        model: "Qwen3TTSForConditionalGeneration",
        audio: Any,
        transcript: str | None = None,
        sampling_rate: int | None = None,
        append_silence: float = 0.0,
    ) -> Qwen3TTSVoice:
        """Do the work on a recording once: the result can be saved, and is a `voice` for any text.

        Args:
            model: A `"base"` model; does the computing.
            audio: Path, array `(samples,)`, or pair of array and rate in Hz.
            transcript: What is said in it; the voice is then cloned in context.
            sampling_rate: Rate in Hz of an array.
            append_silence: Seconds of silence after the recording, which keep its last sound from running into the
                first words (with a transcript).

        Raises:
            ValueError: the recording or the transcript does not fit, or the model cannot clone.
        """
        waveform = self._load_recording(audio, sampling_rate)
        features = self.feature_extractor(waveform)["input_features"][0]
        if transcript is not None:
            self._check_texts(transcript, "transcript")
        if not 0 <= append_silence <= 10:
            raise ValueError(f"`append_silence` must be 0 to 10 seconds; got {append_silence}.")
        waveform = torch.nn.functional.pad(waveform, (0, round(append_silence * self.sampling_rate)))
        return model.create_voice_clone_prompt(features, waveform, transcript)

    # Texts

    def _check_texts(self, text: Any, name: str = "text") -> list[str]:
        return check_texts(text, self.max_text_characters, name)

    def turn_ids(self, turn: str, text: str) -> list[int]:
        """Ids of one of the turns (`SPEECH_TURN`, …); control tokens inside `text` stay plain text."""
        text = neutralize_tokens(text, self._control_tokens)
        return self.tokenizer(turn.replace("{text}", text), add_special_tokens=False)["input_ids"]

    # Rows

    def _row(
        self, text: str, voice: "_Voice", transcript: str | None, language: str, instruct: str | None
    ) -> dict[str, Any]:
        """The inputs of one text, 1-D or without axes; what it does not have is left out."""
        row: dict[str, Any] = {"input_ids": torch.tensor(self.turn_ids(SPEECH_TURN, text))}
        language_id = language_row(language, voice.speaker, self.language_ids, self.speaker_dialects)
        row["language_ids"] = torch.tensor(-1 if language_id is None else language_id)
        if voice.speaker is not None:
            row["speaker_ids"] = torch.tensor(self.speaker_ids[voice.speaker])
        self._add_instruction(row, instruct, voice)
        if voice.prepared is not None:
            row["speaker_embeddings"] = voice.prepared.speaker_embedding.float()
            if transcript is None:
                transcript = voice.prepared.transcript
            if voice.prepared.reference_codes is not None:
                row["reference_codes"] = voice.prepared.reference_codes
        if voice.waveform is not None:
            row["voice_values"] = voice.waveform
            row["voice_features"] = self.feature_extractor(voice.waveform)["input_features"][0]
        if transcript is not None:
            self._add_transcript(row, transcript)
        return row

    def _add_instruction(self, row: dict[str, Any], instruct: str | None, voice: "_Voice") -> None:
        if voice.description is not None and instruct is not None:
            raise ValueError("`voice` is the description of a voice and `instruct` is another one: give only one.")
        instruct = voice.description if instruct is None else instruct
        if instruct is None:
            return
        instruct = self._check_texts(instruct, "instruct")[0]
        if not self.takes_instructions:
            logger.warning_once("This checkpoint was not trained to follow `instruct`: it is left out.")
            return
        row["instruct_ids"] = torch.tensor(self.turn_ids(INSTRUCT_TURN, instruct))

    def _add_transcript(self, row: dict[str, Any], transcript: str) -> None:
        if "voice_values" not in row and "reference_codes" not in row:
            raise ValueError("`transcript` belongs to a recording: pass that recording as `voice`.")
        text = self._check_texts(transcript, "transcript")[0]
        row["reference_ids"] = torch.tensor(self.turn_ids(REFERENCE_TURN, text))

    # Voices

    def _resolve_voice(self, voice: Any, sampling_rate: int | None) -> "_Voice":
        if voice is None:
            voice = self.default_voice
        if voice is None:
            return self._default_voice()
        if isinstance(voice, Qwen3TTSVoice):
            return _Voice(prepared=self._only_base(voice))
        if isinstance(voice, str) and self.tts_model_type != "base":
            return self._named_voice(voice)
        if isinstance(voice, str | PathLike) and str(voice).endswith(".safetensors"):
            return _Voice(prepared=Qwen3TTSVoice.load(self._only_base(voice)))
        return _Voice(waveform=self._load_recording(self._only_base(voice), sampling_rate))

    def _default_voice(self) -> "_Voice":
        if self.tts_model_type == "custom_voice" and self.speaker_ids:
            return _Voice(speaker=next(iter(self.speaker_ids)))
        if self.tts_model_type == "base":
            raise ValueError("`voice` is needed: a 'base' model clones one from a recording or a prepared voice.")
        return _Voice()

    def _only_base(self, voice: Any) -> Any:
        if self.tts_model_type != "base":
            raise ValueError(
                f"`voice` cannot be a recording or a prepared voice: a {self.tts_model_type!r} model does not clone."
            )
        return voice

    def _named_voice(self, voice: str) -> "_Voice":
        if not voice.strip():
            raise ValueError("`voice` is blank.")
        if self.tts_model_type == "voice_design":
            return _Voice(description=voice)
        name = voice.strip().lower()
        if name not in self.speaker_ids:
            raise ValueError(f"`voice` must be one of {', '.join(self.voices)}; got {voice!r}.")
        return _Voice(speaker=name)

    def _load_recording(self, audio: Any, sampling_rate: int | None) -> torch.Tensor:
        """A recording as float32 `(samples,)` at the processor's rate."""
        samples = read_recording(audio, sampling_rate, self.sampling_rate, 0.0, MAX_VOICE_SECONDS)
        return self.feature_extractor.check_recording(samples, "voice")


class _Voice:
    """What a `voice` turned out to be: one of these, or nothing."""

    def __init__(
        self,
        speaker: str | None = None,
        description: str | None = None,
        prepared: Qwen3TTSVoice | None = None,
        waveform: torch.Tensor | None = None,
    ) -> None:
        self.speaker, self.description, self.prepared, self.waveform = speaker, description, prepared, waveform


# Value of the padding, and of rows that lack an input which others have.
_PADDING = {"input_ids": 0, "speaker_embeddings": 0.0, "voice_values": 0.0, "voice_features": 0.0}
_MASK_NAMES = {
    "input_ids": "attention_mask",
    "voice_values": "voice_values_mask",
    "voice_features": "voice_features_mask",
}


def _stack_rows(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Rows of inputs as one padded tensor per input, with masks where the padding cannot be told by its value."""
    batch: dict[str, torch.Tensor] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        sample = next(row[name] for row in rows if name in row)
        padding = _PADDING.get(name, -1)
        is_fixed = sample.dim() == 0 or name == "speaker_embeddings"
        missing = torch.full_like(sample if is_fixed else sample[:0], padding)
        values = [row.get(name, missing) for row in rows]
        if is_fixed:
            batch[name] = torch.stack(values)
            continue
        batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=padding)
        if name in _MASK_NAMES:
            lengths = torch.tensor([len(value) for value in values])
            batch[_MASK_NAMES[name]] = (torch.arange(batch[name].shape[1]) < lengths[:, None]).long()
    return batch


__all__ = ["Qwen3TTSProcessor"]
