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
"""Processor of MegaTTS3: texts, phones and voices to the inputs of `generate`, audio to files."""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from ...audio.loudness import integrated_loudness
from ...files import find_in_folder
from ...speech_generation import SpeechProcessorMixin
from ...speech_inputs import check_texts, read_recording, spread
from ...text import clean_text, neutralize_tokens, normalize_text, split_by_tokens
from .configuration_megatts3 import MegaTTS3Config
from .feature_extraction_megatts3 import MegaTTS3FeatureExtractor
from .phones_megatts3 import NO_TONE, SILENCE, PhoneTable
from .request_megatts3 import PREPARED, RECORDED, WRITTEN
from .text_megatts3 import language_code, split_parts
from .voice_megatts3 import MegaTTS3Voice, read_latents


if TYPE_CHECKING:
    from .modeling_megatts3 import MegaTTS3ForConditionalGeneration

DEFAULT_VOICE_NAME = "default_voice.safetensors"
PHONES_NAME = "phones.json"
SPLITTERS = ("megatts3", "flashtts")
MAX_TEXT_CHARACTERS = 50_000
TEXT_BEGIN, TEXT_END, FIRST_PHONE = "<BOT>", "<BOS>", "<Reserved_TTS_0>"


def g2p_prompt(tokenizer: Any, text: str) -> list[int]:
    """What the grapheme-to-phoneme model reads: the text between its marks, and silence as the first phone.

    Args:
        tokenizer: The checkpoint's.
        text: One part of a text, normalised.
    """
    ids = tokenizer(f"{TEXT_BEGIN}{text}{TEXT_END}", add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.convert_tokens_to_ids(FIRST_PHONE) + SILENCE]


# trf-ignore: TRF057
class MegaTTS3Processor(SpeechProcessorMixin, ProcessorMixin):
    r"""
    Builds the inputs of [`MegaTTS3ForConditionalGeneration`] from texts, or phones, and voices.

    Beside its configuration and tokenizer, a folder holds `phones.json`, the table of phones and tones, and may hold
    `default_voice.safetensors`, spoken with when no voice is given.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer of the grapheme-to-phoneme model.
        feature_extractor (`MegaTTS3FeatureExtractor`):
            Prepares recordings for the aligner.
        chat_template (`str`, *optional*):
            Not used for speaking.
        output_sampling_rate (`int`, *optional*, defaults to 24000):
            Rate of the speech, in Hz.
        latent_dim (`int`, *optional*, defaults to 32):
            Channels of the model's latents.
        frames_per_latent (`int`, *optional*, defaults to 4):
            Frames of 10 ms of a latent.
        min_voice_seconds, max_voice_seconds (`float`, *optional*, defaults to 1.0 and 30.0):
            The shortest and the longest recording. Upstream cuts at 28 s and recommends less than 24 s.
        normalize (`bool`, *optional*, defaults to `True`):
            Whether dates, numbers and units are written out before the text is spoken.
        remove_erhua, remove_interjections (`bool`, *optional*, both default to `False`):
            What the Chinese rules leave out. Upstream asks for neither, but the compiled rules that it gets remove
            both.
        max_part_characters (`int`, *optional*, defaults to 400):
            The longest part without punctuation.
        max_text_characters (`int`, *optional*, defaults to 50000):
            The longest text accepted.
    """

    def __init__(
        self,
        tokenizer: Any,
        feature_extractor: Any,
        chat_template: str | None = None,
        output_sampling_rate: int = 24000,
        latent_dim: int = 32,
        frames_per_latent: int = 4,
        min_voice_seconds: float = 1.0,
        max_voice_seconds: float = 30.0,
        normalize: bool = True,
        remove_erhua: bool = False,
        remove_interjections: bool = False,
        max_part_characters: int = 400,
        max_text_characters: int = MAX_TEXT_CHARACTERS,
    ) -> None:
        super().__init__(tokenizer, feature_extractor, chat_template=chat_template)
        if max_part_characters < 1:
            raise ValueError(f"`max_part_characters` must be at least 1; got {max_part_characters}.")
        self.output_sampling_rate = output_sampling_rate
        self.latent_dim = latent_dim
        self.frames_per_latent = frames_per_latent
        self.min_voice_seconds = min_voice_seconds
        self.max_voice_seconds = max_voice_seconds
        self.normalize = normalize
        self.remove_erhua = remove_erhua
        self.remove_interjections = remove_interjections
        self.max_part_characters = max_part_characters
        self.max_text_characters = max_text_characters
        self.default_voice: MegaTTS3Voice | None = None
        self.phone_table = PhoneTable()
        self._control_tokens = frozenset(tokenizer.get_added_vocab())

    @classmethod
    def from_config(cls, config: MegaTTS3Config, tokenizer: Any, **kwargs: Any) -> "MegaTTS3Processor":
        """The processor that fits a model's configuration; `kwargs` override its arguments."""
        extractor = MegaTTS3FeatureExtractor(
            feature_size=config.aligner_config.num_mel_bins,
            frames_multiple=config.frames_multiple,
            reference_rate=config.sampling_rate,
        )
        own = {
            "feature_extractor": extractor,
            "output_sampling_rate": config.sampling_rate,
            "latent_dim": config.vae_config.latent_dim,
            "frames_per_latent": config.frames_per_latent,
        }
        return cls(tokenizer, **own | kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` may return and `generate` takes."""
        return [*WRITTEN, *PREPARED, *RECORDED]

    @property
    def sampling_rate(self) -> int:
        """Rate of the speech in Hz."""
        return self.output_sampling_rate

    # trf-ignore: TRF057
    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        voice: Any = None,
        language: str | Sequence[str | None] | None = None,
        phones: str | Sequence[str | Sequence[str]] | None = None,
        sampling_rate: int | None = None,
        splitter: str = "megatts3",
        window_size: int = 50,
        length_threshold: int = 50,
        split: Callable[[str], list[str]] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        r"""
        Prepare texts for `generate` and `generate_stream`.

        Args:
            text: One text or a list of them, Chinese, English or both.
            voice: For all texts, or a list with one each. A recording with its latents, as a pair
                (`("voice.wav", "voice.npy")`, or both names in one string with a comma between); a recording alone,
                where the model has the encoder: path, array `(samples,)`, or pair of array and rate in Hz; a
                [`MegaTTS3Voice`] or the path of a saved one (`.safetensors`). The folder's own voice when not given.
            language: `"en"` or `"zh"` (or their names), for all texts or one each: whose rules normalise and split.
                Chinese by default where there is a Chinese character, else English.
            phones: What to say instead of `text`: one string of phones each (see [`PhoneTable.read`]), or a list of
                strings for the parts of a text.
            sampling_rate: Rate in Hz of recordings given as arrays.
            splitter: `"megatts3"` cuts long texts as upstream does, `"flashtts"` by numbers of tokens.
            window_size, length_threshold: For `"flashtts"`: tokens of a part, and of a text that is not cut at all.
            split: For `"flashtts"`: splits into sentences instead.
            return_tensors: Only `"pt"`.

        Returns:
            `BatchFeature` with those of `model_input_names` that texts and voices need.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        if return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt'; got {return_tensors!r}.")
        if splitter not in SPLITTERS:
            raise ValueError(f"`splitter` must be one of {', '.join(SPLITTERS)}; got {splitter!r}.")
        if (text is None) == (phones is None):
            raise ValueError("Either `text` or `phones` is needed, and not both.")
        if phones is not None:
            written, counts = self._written_phones(phones)
        else:
            texts = check_texts(text, self.max_text_characters)
            languages = spread("language", language, len(texts))
            windows = (window_size, length_threshold, split) if splitter == "flashtts" else None
            parts = [self.split(*each, windows) for each in zip(texts, languages, strict=True)]
            written, counts = self._written_texts(parts), [len(each) for each in parts]
        voices = spread("voice", voice, len(counts))
        known = {id(each): self._voice_inputs(each, sampling_rate) for each in {id(v): v for v in voices}.values()}
        spoken = _stack([known[id(each)] for each in voices])
        return BatchFeature(written | {"part_counts": torch.tensor(counts)} | spoken)

    def prepare_voice(
        self, model: "MegaTTS3ForConditionalGeneration", voice: Any, sampling_rate: int | None = None
    ) -> MegaTTS3Voice:
        """Do the work on a recording once: the result can be saved, and is a `voice` for any text.

        Args:
            model: Does the computing.
            voice: A recording, with its latents unless the model has the encoder, as `__call__` takes it.
            sampling_rate: Rate in Hz of an array.

        Raises:
            ValueError: recording or latents do not fit, or nothing is said in the recording.
        """
        return model.embed_voice(**self._recording_inputs(voice, sampling_rate)).to("cpu")

    # Texts

    def split(
        self,
        text: str,
        language: str | None = None,
        windows: tuple[int, int, Callable[[str], list[str]] | None] | None = None,
    ) -> list[str]:
        """The parts of a text, normalised, as they are spoken.

        Args:
            text: Any text.
            language: `"en"`, `"zh"` or `None`.
            windows: Window size, threshold and splitter of `splitter="flashtts"`; upstream's rules otherwise.

        Raises:
            ValueError: nothing is left to say, or the language is not known.
        """
        code = language_code(language, text)
        ready = neutralize_tokens(clean_text(text), self._control_tokens)
        if self.normalize:
            ready = normalize_text(ready, code, self.remove_erhua, self.remove_interjections)
        if windows is None:
            parts = split_parts(ready, code, self.max_part_characters)
        else:
            size, threshold, split = windows
            parts = [each.strip() for each in split_by_tokens(ready, self._count_tokens, size, threshold, split)]
        if not parts:
            raise ValueError(f"`text` holds nothing to say after normalisation: {text!r:.80}.")
        return parts

    def _count_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _written_texts(self, texts: list[list[str]]) -> dict[str, torch.Tensor]:
        rows = [torch.tensor(g2p_prompt(self.tokenizer, part)) for parts in texts for part in parts]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}

    def _written_phones(self, phones: Any) -> tuple[dict[str, torch.Tensor], list[int]]:
        """Phones of all parts, and how many parts each text has."""
        texts = [phones] if isinstance(phones, str) else list(phones)
        parts = [[each] if isinstance(each, str) else list(each) for each in texts]
        if not parts or not all(parts):
            raise ValueError("`phones` is empty: a string of phones is needed for every text.")
        rows = [self._begun_with_silence(*self.phone_table.read(part)) for each in parts for part in each]
        names = ("phone_ids", "tone_ids")
        padded = {
            name: torch.nn.utils.rnn.pad_sequence([row[place] for row in rows], batch_first=True)
            for place, name in enumerate(names)
        }
        return padded, [len(each) for each in parts]

    def _begun_with_silence(self, phones: torch.LongTensor, tones: torch.LongTensor) -> tuple[torch.Tensor, ...]:
        """What the grapheme-to-phoneme model writes begins with silence, whose length is set."""
        if phones[0] == SILENCE:
            return phones, tones
        pad = torch.nn.functional.pad
        return pad(phones, (1, 0), value=SILENCE), pad(tones, (1, 0), value=NO_TONE)

    # Voices

    def _voice_inputs(self, voice: Any, sampling_rate: int | None) -> dict[str, torch.Tensor]:
        """The inputs of one voice, without a batch axis."""
        voice = self.default_voice if voice is None else voice
        if voice is None:
            raise ValueError("`voice` is needed: a recording with its latents, or a voice prepared from one.")
        if isinstance(voice, str | PathLike) and str(voice).endswith(".safetensors"):
            voice = MegaTTS3Voice.load(voice)
        if not isinstance(voice, MegaTTS3Voice):
            return self._recording_inputs(voice, sampling_rate)
        return {
            "prompt_phones": voice.phone_ids,
            "prompt_tones": voice.tone_ids,
            "prompt_durations": voice.durations,
            "prompt_latents": voice.latents.float(),
            "prompt_loudness": voice.loudness.float(),
        }

    def _recording_inputs(self, voice: Any, sampling_rate: int | None) -> dict[str, torch.Tensor]:
        recording, latents = _recording_and_latents(voice)
        samples = read_recording(
            recording, sampling_rate, self.sampling_rate, self.min_voice_seconds, self.max_voice_seconds
        )
        padded = self.feature_extractor.pad_reference(samples)
        loudness = integrated_loudness(padded.astype(np.float64), self.sampling_rate)
        if loudness is None:
            raise ValueError("`voice` is silent: a recording in which somebody speaks is needed.")
        features = self.feature_extractor.reference_features(padded)
        inputs = {"voice_features": features, "voice_loudness": torch.tensor(loudness)}
        if latents is None:
            return inputs | {"voice_values": torch.from_numpy(padded)}
        return inputs | {"voice_latents": self._fitting_latents(latents, len(features))}

    def _fitting_latents(self, latents: Any, frames: int) -> torch.Tensor:
        """The latents of as many frames.

        Raises:
            ValueError: there are too few of them: they belong to another recording.
        """
        values, needed = read_latents(latents, self.latent_dim), frames // self.frames_per_latent
        if len(values) < needed:
            raise ValueError(
                f"`voice` has {len(values)} latents for a recording of {frames} frames, which needs {needed}: "
                "recording and latents do not belong together."
            )
        return values[:needed]

    # Folders

    def save_pretrained(self, save_directory: str | PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """As the parent's; the table of phones and the default voice are written beside."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.phone_table.save(folder / PHONES_NAME)
        if self.default_voice is not None:
            self.default_voice.save(folder / DEFAULT_VOICE_NAME)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any) -> "MegaTTS3Processor":
        """As the parent's; reads the table of phones and the default voice where there are any."""
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        voice = find_in_folder(pretrained_model_name_or_path, DEFAULT_VOICE_NAME, kwargs)
        table = find_in_folder(pretrained_model_name_or_path, PHONES_NAME, kwargs)
        if voice is not None:
            processor.default_voice = MegaTTS3Voice.load(voice)
        if table is not None:
            processor.phone_table = PhoneTable.load(table)
        return processor


def _recording_and_latents(voice: Any) -> tuple[Any, Any]:
    """A recording, and its latents or `None`."""
    if isinstance(voice, str) and voice.endswith(".npy") and "," in voice:
        voice = tuple(part.strip() for part in voice.rsplit(",", 1))
    if isinstance(voice, tuple) and len(voice) == 2 and not isinstance(voice[1], int):
        return voice
    return voice, None


# Inputs of voices -> the input that says how much of them a row fills.
_LENGTHS = {"voice_features": "voice_frames", "voice_values": "voice_samples"}


def _stack(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Rows of inputs as one tensor each, padded with zeros; a row without an input gets nothing but zeros."""
    batch: dict[str, torch.Tensor] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        sample = next(row[name] for row in rows if name in row)
        if not sample.dim():
            batch[name] = torch.stack([row.get(name, torch.zeros_like(sample)) for row in rows])
            continue
        values = [row.get(name, sample[:0]) for row in rows]
        batch[name] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
        if name in _LENGTHS:
            batch[_LENGTHS[name]] = torch.tensor([len(value) for value in values])
    return batch


__all__ = ["MegaTTS3Processor", "g2p_prompt"]
