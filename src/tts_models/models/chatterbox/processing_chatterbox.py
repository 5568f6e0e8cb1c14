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
"""Processor of Chatterbox: texts, languages and voices to the inputs of `generate`, audio to marked files."""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import logging

from ...audio import resample
from ...audio.loudness import normalize_loudness
from ...files import find_in_folder
from ...speech_generation import SpeechProcessorMixin
from ...speech_inputs import check_texts, read_recording, spread
from ...text import neutralize_tokens, split_text
from .configuration_chatterbox import VARIANTS, ChatterboxConfig
from .feature_extraction_chatterbox import ChatterboxFeatureExtractor
from .request_chatterbox import PREPARED, RECORDED
from .text_chatterbox import cangjie_codes, language_code, normalize_punctuation, prepare_multilingual
from .voice_chatterbox import ChatterboxVoice
from .watermark_chatterbox import load_watermarker


if TYPE_CHECKING:
    from .modeling_chatterbox import ChatterboxForConditionalGeneration

logger = logging.get_logger(__name__)

DEFAULT_VOICE_NAME = "default_voice.safetensors"
CANGJIE_NAME = "Cangjie5_TC.json"
MAX_PART_CHARACTERS = 300
MAX_TEXT_CHARACTERS = 50_000
MAX_VOICE_SECONDS = 300
REFERENCE_SECONDS = 10.0
TURBO_LOUDNESS = -27.0
_CONTROL_TOKENS = frozenset(f"[{name}]" for name in "START STOP UNK SPACE PAD SEP CLS MASK".split())


# trf-ignore: TRF057
class ChatterboxProcessor(SpeechProcessorMixin, ProcessorMixin):
    r"""
    Builds the inputs of [`ChatterboxForConditionalGeneration`] from texts and voices.

    Beside its configuration and tokenizer, a folder may hold `default_voice.safetensors`, spoken with when no voice is
    given, and `Cangjie5_TC.json`, the table of Chinese characters.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The checkpoint's tokenizer.
        feature_extractor (`ChatterboxFeatureExtractor`):
            Prepares recordings for the voice encoder.
        chat_template (`str`, *optional*):
            Not used for speaking.
        variant (`str`, *optional*, defaults to `"english"`):
            `"english"`, `"multilingual"` or `"turbo"` (also Nano).
        start_text_token_id, stop_text_token_id (`int`, *optional*, defaults to 255 and 0):
            Ids around a text; `None` for none (Turbo, Nano).
        output_sampling_rate (`int`, *optional*, defaults to 24000):
            Rate of the speech, in Hz.
        prompt_seconds (`float`, *optional*, defaults to 6.0):
            The part of a recording that T3 reads.
        min_voice_seconds (`float`, *optional*, defaults to 0.2):
            The shortest recording; Turbo and Nano need more than five seconds.
        target_loudness (`float`, *optional*):
            Loudness in LUFS that recordings are brought to (-27 for Turbo and Nano); as they are by default.
        default_language (`str`, *optional*):
            Language of a multilingual model when none is given.
        max_part_characters (`int`, *optional*, defaults to 300):
            A longer text is spoken in parts: the models go astray in longer ones.
        max_text_characters (`int`, *optional*, defaults to 50000):
            The longest text accepted.
        watermark (`bool`, *optional*, defaults to `True`):
            Whether `save_audio` marks speech with Resemble's Perth watermark where `resemble-perth` is installed.
    """

    def __init__(
        self,
        tokenizer: Any,
        feature_extractor: Any,
        chat_template: str | None = None,
        variant: str = "english",
        start_text_token_id: int | None = 255,
        stop_text_token_id: int | None = 0,
        output_sampling_rate: int = 24000,
        prompt_seconds: float = 6.0,
        min_voice_seconds: float = 0.2,
        target_loudness: float | None = None,
        default_language: str | None = None,
        max_part_characters: int = MAX_PART_CHARACTERS,
        max_text_characters: int = MAX_TEXT_CHARACTERS,
        watermark: bool = True,
    ) -> None:
        super().__init__(tokenizer, feature_extractor, chat_template=chat_template)
        if variant not in VARIANTS:
            raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}; got {variant!r}.")
        if max_part_characters < 1:
            raise ValueError(f"`max_part_characters` must be at least 1; got {max_part_characters}.")
        self.variant = variant
        self.start_text_token_id = start_text_token_id
        self.stop_text_token_id = stop_text_token_id
        self.output_sampling_rate = output_sampling_rate
        self.prompt_seconds = prompt_seconds
        self.min_voice_seconds = min_voice_seconds
        self.target_loudness = target_loudness
        self.default_language = default_language
        self.max_part_characters = max_part_characters
        self.max_text_characters = max_text_characters
        self.watermark = watermark
        self.default_voice: ChatterboxVoice | None = None
        self.cangjie_table: list[str] | None = None
        self._cangjie: dict[str, str] | None = None
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._control_tokens = frozenset(special | _CONTROL_TOKENS) if variant == "turbo" else _CONTROL_TOKENS

    @classmethod
    def from_config(cls, config: ChatterboxConfig, tokenizer: Any, **kwargs: Any) -> "ChatterboxProcessor":
        """The processor that fits a model's configuration; `kwargs` override its arguments."""
        t3, encoder = config.t3_config, config.voice_encoder_config
        extractor = ChatterboxFeatureExtractor(
            feature_size=encoder.num_mel_bins, sampling_rate=encoder.sampling_rate, hop_length=encoder.hop_length
        )
        own = {
            "feature_extractor": extractor,
            "variant": config.variant,
            "start_text_token_id": t3.start_text_token_id,
            "stop_text_token_id": t3.stop_text_token_id,
            "output_sampling_rate": config.sampling_rate,
            "prompt_seconds": t3.prompt_seconds,
        }
        if config.is_turbo:
            own |= {"min_voice_seconds": 5.0, "target_loudness": TURBO_LOUDNESS}
        if config.variant == "multilingual":
            own["default_language"] = "en"
        return cls(tokenizer, **own | kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` may return and `generate` takes."""
        return ["input_ids", "attention_mask", "part_counts", *PREPARED, *RECORDED]

    @property
    def sampling_rate(self) -> int:
        """Rate of the speech in Hz."""
        return self.output_sampling_rate

    # trf-ignore: TRF057
    def __call__(
        self,
        text: str | Sequence[str],
        voice: Any = None,
        language: str | Sequence[str | None] | None = None,
        sampling_rate: int | None = None,
        split_long_text: bool = True,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        r"""
        Prepare texts for `generate` and `generate_stream`.

        Args:
            text: One text or a list of them. Turbo and Nano know tags such as `[laugh]`.
            voice: For all texts, or a list with one each. A recording to clone: path, array `(samples,)`, or pair of
                array and rate in Hz; a [`ChatterboxVoice`] or the path of a saved one (`.safetensors`). The folder's
                own voice when not given.
            language: Name or ISO code, for all texts or one each; of a multilingual model.
            sampling_rate: Rate in Hz of recordings given as arrays.
            split_long_text: Whether a text longer than `max_part_characters` is spoken in parts, cut at sentences.
            return_tensors: Only `"pt"`.

        Returns:
            `BatchFeature` with those of `model_input_names` that the voices need.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        if return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt'; got {return_tensors!r}.")
        texts = check_texts(text, self.max_text_characters)
        languages = [self._language(each) for each in spread("language", language, len(texts))]
        voices = spread("voice", voice, len(texts))
        rows, counts = [], []
        for each, code in zip(texts, languages, strict=True):
            is_long = split_long_text and len(each) > self.max_part_characters
            parts = split_text(each, self.max_part_characters) if is_long else [each]
            rows += [self.text_ids(part, code) for part in parts]
            counts.append(len(parts))
        inputs = _stack([{"input_ids": torch.tensor(row)} for row in rows]) | {"part_counts": torch.tensor(counts)}
        return BatchFeature(inputs | _stack([self._voice_inputs(each, sampling_rate) for each in voices]))

    def text_ids(self, text: str, language: str | None = None) -> list[int]:
        """Ids of one part of a text, with those around it; control tokens inside it stay plain text.

        Args:
            text: At most a few sentences.
            language: ISO code, of a multilingual model.
        """
        text = neutralize_tokens(text, self._control_tokens)
        text = normalize_punctuation(text, self.variant)
        if self.variant == "turbo":
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            if self.variant == "multilingual":
                text = prepare_multilingual(text, language, self.cangjie if language == "zh" else None)
            ids = self.tokenizer(text.replace(" ", "[SPACE]"), add_special_tokens=False)["input_ids"]
        if self.start_text_token_id is None:
            return ids
        return [self.start_text_token_id, *ids, self.stop_text_token_id]

    def prepare_voice(
        self, model: "ChatterboxForConditionalGeneration", audio: Any, sampling_rate: int | None = None
    ) -> ChatterboxVoice:
        """Do the work on a recording once: the result can be saved, and is a `voice` for any text.

        Args:
            model: Does the computing.
            audio: Path, array `(samples,)`, or pair of array and rate in Hz.
            sampling_rate: Rate in Hz of an array.

        Raises:
            ValueError: the recording does not fit.
        """
        return model.embed_voice(**self._recording_inputs(audio, sampling_rate)).to("cpu")

    # Texts

    def _language(self, language: str | None) -> str | None:
        if self.variant == "multilingual":
            language = self.default_language if language is None else language
            return None if language is None else language_code(language)
        if language is not None and language_code(language) != "en":
            raise ValueError(f"`language` must be 'en', as the model is {self.variant!r}; got {language!r}.")
        return None

    @property
    def cangjie(self) -> dict[str, str]:
        """Chinese characters and their codes; empty without a table."""
        if self._cangjie is None:
            self._cangjie = cangjie_codes(self.cangjie_table or [])
        return self._cangjie

    # Voices

    def _voice_inputs(self, voice: Any, sampling_rate: int | None) -> dict[str, torch.Tensor]:
        """The inputs of one voice, without a batch axis."""
        voice = self.default_voice if voice is None else voice
        if voice is None:
            raise ValueError("`voice` is needed: a recording, or a voice prepared from one.")
        if isinstance(voice, str | PathLike) and str(voice).endswith(".safetensors"):
            voice = ChatterboxVoice.load(voice)
        if not isinstance(voice, ChatterboxVoice):
            return self._recording_inputs(voice, sampling_rate)
        return {
            "speaker_embeddings": voice.speaker_embedding.float(),
            "prompt_tokens": voice.prompt_tokens,
            "reference_tokens": voice.reference_tokens,
            "reference_features": voice.reference_features.float(),
            "reference_embeddings": voice.reference_embedding.float(),
        }

    def _recording_inputs(self, audio: Any, sampling_rate: int | None) -> dict[str, torch.Tensor]:
        samples, extractor = self._load_recording(audio, sampling_rate), self.feature_extractor
        heard = extractor.check_recording(resample(samples, self.sampling_rate, extractor.sampling_rate), "voice")
        return {
            "voice_values": torch.from_numpy(samples[: round(REFERENCE_SECONDS * self.sampling_rate)].copy()),
            "prompt_values": heard[: round(self.prompt_seconds * extractor.sampling_rate)],
            "voice_features": extractor(heard)["input_features"][0],
        }

    def _load_recording(self, audio: Any, sampling_rate: int | None) -> np.ndarray:
        """A recording as float32 `(samples,)` at the rate of the speech, at the level that the model expects."""
        samples = read_recording(audio, sampling_rate, self.sampling_rate, self.min_voice_seconds, MAX_VOICE_SECONDS)
        if self.target_loudness is not None:
            samples = normalize_loudness(samples, self.sampling_rate, self.target_loudness)
        return samples

    # Watermark

    def finish_audio(self, waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
        """Mark a waveform `(samples,)` as made by a machine, inaudibly.

        Does nothing without the package `resemble-perth` (the extra `watermark`), or with `watermark=False`.
        """
        watermarker = load_watermarker() if self.watermark and len(waveform) else None
        if watermarker is None:
            return waveform
        return np.asarray(watermarker.apply_watermark(waveform, sample_rate=sampling_rate), dtype=np.float32)

    # Folders

    def save_pretrained(self, save_directory: str | PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """As the parent's; the default voice and the Cangjie table are written beside."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if self.default_voice is not None:
            self.default_voice.save(folder / DEFAULT_VOICE_NAME)
        if self.cangjie_table is not None:
            content = json.dumps(self.cangjie_table, ensure_ascii=False)
            (folder / CANGJIE_NAME).write_text(content, encoding="utf-8")
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any) -> "ChatterboxProcessor":
        """As the parent's; reads the default voice and the Cangjie table where there are any."""
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        voice = find_in_folder(pretrained_model_name_or_path, DEFAULT_VOICE_NAME, kwargs)
        table = find_in_folder(pretrained_model_name_or_path, CANGJIE_NAME, kwargs)
        if voice is not None:
            processor.default_voice = ChatterboxVoice.load(voice)
        if table is not None:
            processor.cangjie_table = json.loads(Path(table).read_text(encoding="utf-8"))
        return processor


_MASK_NAMES = {
    "input_ids": "attention_mask",
    "reference_features": "reference_features_mask",
    "voice_values": "voice_values_mask",
    "prompt_values": "prompt_values_mask",
    "voice_features": "voice_features_mask",
}
_FIXED = ("speaker_embeddings", "reference_embeddings")
_IDS = ("prompt_tokens", "reference_tokens")


def _stack(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Rows of inputs as one tensor each, padded on the right; a row without an input gets nothing but padding."""
    batch: dict[str, torch.Tensor] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        sample = next(row[name] for row in rows if name in row)
        padding = -1 if name in _IDS else 0
        missing = torch.zeros_like(sample) if name in _FIXED else sample[:0]
        values = [row.get(name, missing) for row in rows]
        if name in _FIXED:
            batch[name] = torch.stack(values)
            continue
        batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=padding)
        if name in _MASK_NAMES:
            lengths = torch.tensor([len(value) for value in values])
            batch[_MASK_NAMES[name]] = (torch.arange(batch[name].shape[1]) < lengths[:, None]).long()
    return batch


__all__ = ["ChatterboxProcessor"]
