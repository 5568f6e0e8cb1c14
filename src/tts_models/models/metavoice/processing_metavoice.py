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
"""Processor of MetaVoice: texts and voices to the inputs of `generate`."""

import hashlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import logging

from ...files import find_in_folder
from ...speech_generation import SpeechProcessorMixin
from ...speech_inputs import check_texts, read_recording, spread
from ...text import split_text
from .configuration_metavoice import MetaVoiceConfig
from .request_metavoice import INPUT_NAMES
from .text_metavoice import normalize_text
from .voice_metavoice import MetaVoiceVoice


if TYPE_CHECKING:
    from .modeling_metavoice import MetaVoiceForConditionalGeneration

logger = logging.get_logger(__name__)

DEFAULT_VOICE_NAME = "default_voice.safetensors"
_URL_STARTS = ("http://", "https://", "ftp://", "s3://", "gs://")


# trf-ignore: TRF057
class MetaVoiceProcessor(SpeechProcessorMixin, ProcessorMixin):
    r"""
    Builds the inputs of [`MetaVoiceForConditionalGeneration`] from texts and voices.

    Beside its configuration and tokenizer, a folder may hold `default_voice.safetensors`, spoken with when no voice is
    given.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The checkpoint's tokenizer.
        feature_extractor (`MetaVoiceFeatureExtractor`):
            Prepares recordings for the speaker encoder.
        chat_template (`str`, *optional*):
            Not used for speaking.
        text_token_offset (`int`, *optional*, defaults to 2049):
            Added to the tokenizer's ids.
        end_of_text_token_id (`int`, *optional*, defaults to 2561):
            Follows a text.
        output_sampling_rate (`int`, *optional*, defaults to 24000):
            Rate of the speech that the model returns by default, in Hz.
        full_reference_seconds (`float`, *optional*, defaults to 30.0):
            The length of reference that the model was made for; less of it is used with a warning.
        min_reference_seconds (`float`, *optional*, defaults to 0.5):
            The shortest recording accepted.
        max_reference_seconds (`float`, *optional*, defaults to 300.0):
            The longest recording accepted.
        strict_reference (`bool`, *optional*, defaults to `False`):
            Whether less reference than `full_reference_seconds` is an error.
        max_pass_characters (`int`, *optional*, defaults to 220):
            Longer texts are spoken in parts: about 13 seconds fit into a pass.
        part_characters (`int`, *optional*, defaults to 100):
            Size of those parts: small enough for a part and the one before it to fit into a pass.
        max_text_characters (`int`, *optional*, defaults to 50000):
            The longest text accepted.
    """

    def __init__(
        self,
        tokenizer: Any,
        feature_extractor: Any,
        chat_template: str | None = None,
        text_token_offset: int = 2049,
        end_of_text_token_id: int = 2561,
        output_sampling_rate: int = 24000,
        full_reference_seconds: float = 30.0,
        min_reference_seconds: float = 0.5,
        max_reference_seconds: float = 300.0,
        strict_reference: bool = False,
        max_pass_characters: int = 220,
        part_characters: int = 100,
        max_text_characters: int = 50_000,
    ) -> None:
        super().__init__(tokenizer, feature_extractor, chat_template=chat_template)
        if not 1 <= part_characters <= max_pass_characters:
            raise ValueError(
                f"`part_characters` must be in 1…`max_pass_characters` ({max_pass_characters}); got {part_characters}."
            )
        self.text_token_offset = text_token_offset
        self.end_of_text_token_id = end_of_text_token_id
        self.output_sampling_rate = output_sampling_rate
        self.full_reference_seconds = full_reference_seconds
        self.min_reference_seconds = min_reference_seconds
        self.max_reference_seconds = max_reference_seconds
        self.strict_reference = strict_reference
        self.max_pass_characters = max_pass_characters
        self.part_characters = part_characters
        self.max_text_characters = max_text_characters
        self.default_voice: MetaVoiceVoice | None = None

    @classmethod
    def from_config(
        cls, config: MetaVoiceConfig, tokenizer: Any, feature_extractor: Any, **kwargs: Any
    ) -> "MetaVoiceProcessor":
        """The processor that fits a model's configuration; `kwargs` override its arguments."""
        first = config.first_stage_config
        own = {
            "text_token_offset": first.text_token_offset,
            "end_of_text_token_id": first.end_of_text_token_id,
            "output_sampling_rate": config.sampling_rate,
        }
        return cls(tokenizer, feature_extractor, **own | kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` may return and `generate` takes."""
        return list(INPUT_NAMES)

    @property
    def sampling_rate(self) -> int:
        """Rate in Hz of the speech that the model returns by default."""
        return self.output_sampling_rate

    # trf-ignore: TRF057
    def __call__(
        self,
        text: str | Sequence[str],
        voice: Any = None,
        sampling_rate: int | None = None,
        split_long_text: bool = True,
        strict_reference: bool | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        r"""
        Prepare texts for `generate` and `generate_stream`.

        Args:
            text: One text or a list of them: English, in characters below U+0100 and typographic signs that have a
                plain form.
            voice: For all texts, or a list with one each. A reference recording: path, array `(samples,)`, or pair of
                array and rate in Hz; a tuple or list of several recordings of one speaker; a [`MetaVoiceVoice`] or the
                path of a saved one (`.safetensors`). The folder's own voice when not given.
            sampling_rate: Rate in Hz of recordings given as arrays.
            split_long_text: Whether a text longer than `max_pass_characters` is spoken in parts, cut at sentences.
            strict_reference: Whether a reference shorter than `full_reference_seconds` is an error, instead of the
                processor's own setting.
            return_tensors: Only `"pt"`.

        Returns:
            `BatchFeature` with those of `model_input_names` that the texts and voices need.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        if return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt'; got {return_tensors!r}.")
        texts = [self.prepare_text(each) for each in check_texts(text, self.max_text_characters)]
        voices = spread("voice", voice, len(texts))
        parts = [self._parts(each) if split_long_text else [each] for each in texts]
        inputs = _pad_ids("input_ids", "attention_mask", [self.text_ids(part) for each in parts for part in each])
        inputs["part_counts"] = torch.tensor([len(each) for each in parts])
        if any(len(each) > 1 for each in parts):
            # A word's ids depend on the blank before it, which a text has when it goes on from another.
            further = [self.text_ids(f" {part}") for each in parts for part in each]
            inputs |= _pad_ids("continued_ids", "continued_mask", further)
        strict = self.strict_reference if strict_reference is None else strict_reference
        return BatchFeature(inputs | self._voice_inputs(voices, sampling_rate, strict))

    def text_ids(self, text: str) -> list[int]:
        """Ids of the first stage for a normalised text, the end of text included.

        Args:
            text: At most a few sentences.
        """
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [self.text_token_offset + each for each in ids] + [self.end_of_text_token_id]

    def prepare_voice(
        self,
        model: "MetaVoiceForConditionalGeneration",
        audio: Any,
        sampling_rate: int | None = None,
        strict_reference: bool | None = None,
        cache_dir: str | PathLike | None = None,
    ) -> MetaVoiceVoice:
        """Do the work on one or several recordings of a speaker once: the result can be saved and spoken with.

        Args:
            model: Does the computing.
            audio: Path, array `(samples,)`, or pair of array and rate in Hz; or a tuple or list of them, which are
                averaged.
            sampling_rate: Rate in Hz of arrays.
            strict_reference: Whether a reference shorter than `full_reference_seconds` is an error.
            cache_dir: A folder that keeps voices by the content of the recordings and the encoder's weights.

        Raises:
            ValueError: a recording does not fit.
        """
        strict = self.strict_reference if strict_reference is None else strict_reference
        recordings = self._recordings(audio, sampling_rate, strict)
        if cache_dir is None:
            return MetaVoiceVoice(model.embed_voice(*self._features(recordings)).cpu())
        kept = Path(cache_dir) / f"{_digest(model.speaker_encoder, recordings)}.safetensors"
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            MetaVoiceVoice(model.embed_voice(*self._features(recordings)).cpu()).save(kept)
        return MetaVoiceVoice.load(kept)

    # Texts

    def prepare_text(self, text: str) -> str:
        """A text as it is tokenized.

        Args:
            text: Any text.

        Raises:
            ValueError: it holds a character that the model does not know, or nothing to say.
        """
        normalized = normalize_text(text)
        if not any(character.isalnum() for character in normalized):
            raise ValueError(f"`text` holds nothing to say: {text!r:.80}.")
        return normalized

    def _parts(self, text: str) -> list[str]:
        return [text] if len(text) <= self.max_pass_characters else split_text(text, self.part_characters)

    # Voices

    def _voice_inputs(self, voices: list[Any], sampling_rate: int | None, strict: bool) -> dict[str, torch.Tensor]:
        """Speaker vectors of the prepared voices (zeros for the others), features of the recorded ones."""
        vectors: list[torch.Tensor | None] = []
        recorded: list[list[np.ndarray]] = []
        for voice in voices:
            voice = self.default_voice if voice is None else voice
            if voice is None:
                raise ValueError("`voice` is needed: a reference recording, or a voice prepared from one.")
            if isinstance(voice, str | PathLike) and str(voice).endswith(".safetensors"):
                voice = MetaVoiceVoice.load(voice)
            is_prepared = isinstance(voice, MetaVoiceVoice)
            vectors.append(voice.speaker_embedding.float() if is_prepared else None)
            recorded.append([] if is_prepared else self._recordings(voice, sampling_rate, strict))
        inputs: dict[str, torch.Tensor] = {}
        sample = next((vector for vector in vectors if vector is not None), None)
        if sample is not None:
            zeros = torch.zeros_like(sample)
            inputs["speaker_embeddings"] = torch.stack([zeros if each is None else each for each in vectors])
        if any(recorded):
            features, mask = self._features([recording for each in recorded for recording in each])
            counts = torch.tensor([len(each) for each in recorded])
            inputs |= {"voice_features": features, "voice_mask": mask, "voice_counts": counts}
        return inputs

    def _recordings(self, audio: Any, sampling_rate: int | None, strict: bool) -> list[np.ndarray]:
        """The recordings of one voice, float32 `(samples,)` at the speaker encoder's rate."""
        rate = self.feature_extractor.sampling_rate
        is_pair = isinstance(audio, tuple) and len(audio) == 2 and isinstance(audio[1], int)
        given = list(audio) if isinstance(audio, list | tuple) and not is_pair else [audio]
        if not given:
            raise ValueError("`voice` holds no recording: at least one is needed.")
        recordings = [self._recording(each, sampling_rate, rate) for each in given]
        seconds = sum(map(len, recordings)) / rate
        if seconds < self.full_reference_seconds:
            message = (
                f"`voice` lasts {seconds:.1f} s; the model was made for references of at least "
                f"{self.full_reference_seconds:g} s"
            )
            if strict:
                raise ValueError(f"{message} (`strict_reference`).")
            logger.warning("%s: the voice may be less alike.", message)
        return recordings

    def _recording(self, audio: Any, sampling_rate: int | None, rate: int) -> np.ndarray:
        if isinstance(audio, str) and audio.lower().startswith(_URL_STARTS):
            raise ValueError(f"`voice` {audio!r} is an address, and nothing is fetched: download the file first.")
        samples = read_recording(audio, sampling_rate, rate, self.min_reference_seconds, self.max_reference_seconds)
        if not samples.any():
            raise ValueError("`voice` is silent: a recording of speech is needed.")
        return samples

    def _features(self, recordings: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        prepared = self.feature_extractor(recordings, sampling_rate=self.feature_extractor.sampling_rate)
        return prepared["input_features"], prepared["attention_mask"]

    # Folders

    def save_pretrained(self, save_directory: str | PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """As the parent's; the default voice is written beside."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if self.default_voice is not None:
            self.default_voice.save(folder / DEFAULT_VOICE_NAME)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any) -> "MetaVoiceProcessor":
        """As the parent's; reads the default voice where there is one."""
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        voice = find_in_folder(pretrained_model_name_or_path, DEFAULT_VOICE_NAME, kwargs)
        if voice is not None:
            processor.default_voice = MetaVoiceVoice.load(voice)
        return processor


def _pad_ids(name: str, mask_name: str, rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Ids padded on the right with zeros, and their mask."""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return {name: ids, mask_name: (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


def _digest(encoder: torch.nn.Module, recordings: list[np.ndarray]) -> str:
    """A name for what an encoder says of some recordings."""
    digest = hashlib.sha256()
    for _, parameter in sorted(encoder.state_dict().items()):
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    for recording in recordings:
        digest.update(len(recording).to_bytes(8, "little") + recording.tobytes())
    return digest.hexdigest()


__all__ = ["MetaVoiceProcessor"]
