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
"""Processor of Maya1: text and a voice's description to prompt ids, ids to SNAC codes and back, audio to files."""

import math
import re
import shutil
from collections.abc import Iterable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import cached_file, logging

from ...speech_generation import SpeechProcessorMixin
from ...text import clean_text, find_tags, map_outside_tags, neutralize_tokens, split_text
from ...text.pronunciation import PHONEMES
from .aligned_text_maya1 import AlignedTextLayout, units_of_frames
from .audio_tokens_maya1 import AudioTokenLayout, UnpackInfo


logger = logging.get_logger(__name__)

LEXICON_NAME = "lexicon.txt.gz"
TEXT_FRONTENDS = (None, "phonemes")
MAX_VOICE_CHARACTERS = 2000
DEFAULT_TEMPLATE = '<description="{voice}"> {text}'
DEFAULT_VOICE = (
    "Realistic male voice in the 30s age with american accent. Normal pitch, warm timbre, conversational pacing."
)
# Role of each control token (a field of `Maya1Config` names the same id) and its string in the released vocabulary.
CONTROL_TOKENS = {
    "bos_token": "<|begin_of_text|>",
    "eot_token": "<|eot_id|>",
    "start_of_speech_token": "<custom_token_1>",
    "end_of_speech_token": "<custom_token_2>",
    "start_of_human_token": "<custom_token_3>",
    "end_of_human_token": "<custom_token_4>",
    "start_of_ai_token": "<custom_token_5>",
    "end_of_ai_token": "<custom_token_6>",
    "pad_token": "<custom_token_7>",
    "audio_token": "<custom_token_10>",
}
_TAG_TOKEN = re.compile(r"<[a-z][a-z_]*>")
_BRACKETED = re.compile(r"<.*>")
# Sounds that take several seconds; the other tags colour the speech and take little time of their own.
_LONG_TAGS = frozenset({"<laugh>", "<laugh_harder>", "<giggle>", "<cry>", "<scream>", "<sing>"})


def speech_budget(text: str, tags: Iterable[str] = ()) -> int:
    """The longest that speaking `text` may take, in milliseconds: generous, it only stops a runaway.

    Args:
        text: The text as a reader sees it.
        tags: Emotion tags in it.
    """
    tag_seconds = sum(6.0 if tag in _LONG_TAGS else 2.0 for tag in tags)
    return math.ceil(1000 * max(0.09 * len(text) + 2.0 + tag_seconds, 6.0))


# trf-ignore: TRF057
class Maya1Processor(SpeechProcessorMixin, ProcessorMixin):
    r"""
    Builds the prompts of [`Maya1ForConditionalGeneration`] from text and a description of the voice.

    The ids are `[BOS,] SOH, BOS, <the template's text>, EOT, EOH, SOA, SOS`, assembled by id: neither the text nor the
    description can bring in a control token.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            A tokenizer that holds the control tokens, the audio tokens and the emotion tags.
        feature_extractor (`SnacFeatureExtractor`):
            Prepares audio for the codec's encoder (training); knows the sampling rate.
        chat_template (`str`, *optional*):
            Not used for speaking.
        codebook_size (`int`, *optional*, defaults to 4096):
            Codes per level of the codec.
        vq_strides (`list[int]`, *optional*, defaults to `[4, 2, 1]`):
            The codec's strides, coarse first; they define the slots of a frame.
        control_tokens (`dict[str, str]`, *optional*):
            Strings of the control tokens that differ from the released vocabulary's, by role (`CONTROL_TOKENS`).
        prompt_template (`str`, *optional*, defaults to `'<description="{voice}"> {text}'`):
            The text inside the prompt; an Orpheus checkpoint takes `"{voice}: {text}"`.
        prepend_bos (`bool`, *optional*, defaults to `True`):
            Whether the prompt starts with a begin-of-text id of its own, as the released checkpoint was served.
        default_voice (`str`, *optional*):
            Description used when none is given.
        voices (`dict[str, str]`, *optional*):
            Named voices and their descriptions.
        emotion_tags (`list[str]`, *optional*):
            Known tags such as `"<laugh>"`; by default all tokens of that form in the tokenizer's added vocabulary.
        strict_tags (`bool`, *optional*, defaults to `False`):
            Whether an unknown tag in the text raises instead of warning.
        text_frontend (`str`, *optional*):
            `"phonemes"` turns the text (not the description) into phoneme symbols with a pronunciation lexicon that is
            saved beside the tokenizer; `None` keeps the letters.
        lexicon_file (`str`, *optional*):
            Path of that lexicon; found by itself when the processor is loaded from a folder.
        max_part_characters (`int`, *optional*, defaults to 280):
            Longer texts are split at sentence ends into parts of at most this many characters.
        max_text_characters (`int`, *optional*, defaults to 50000):
            The longest text accepted.
        next_text_token (`str`, *optional*):
            For checkpoints with aligned text, whose units are the phonemes: the token of
            `Maya1Config.next_text_token_id`.
        text_lookahead (`int`, *optional*, defaults to 1):
            As in [`Maya1Config`].
    """

    def __init__(
        self,
        tokenizer: Any,
        feature_extractor: Any,
        chat_template: str | None = None,
        codebook_size: int = 4096,
        vq_strides: Sequence[int] = (4, 2, 1),
        control_tokens: dict[str, str] | None = None,
        prompt_template: str = DEFAULT_TEMPLATE,
        prepend_bos: bool = True,
        default_voice: str | None = DEFAULT_VOICE,
        voices: dict[str, str] | None = None,
        emotion_tags: Sequence[str] | None = None,
        strict_tags: bool = False,
        text_frontend: str | None = None,
        lexicon_file: str | None = None,
        max_part_characters: int = 280,
        max_text_characters: int = 50_000,
        next_text_token: str | None = None,
        text_lookahead: int = 1,
    ) -> None:
        super().__init__(tokenizer, feature_extractor, chat_template=chat_template)
        if text_frontend not in TEXT_FRONTENDS:
            raise ValueError(f"`text_frontend` must be None or 'phonemes'; got {text_frontend!r}.")
        if "{text}" not in prompt_template:
            raise ValueError(f"`prompt_template` must contain '{{text}}'; got {prompt_template!r}.")
        self.codebook_size = codebook_size
        self.vq_strides = list(vq_strides)
        self.control_tokens = {**CONTROL_TOKENS, **(control_tokens or {})}
        self.prompt_template = prompt_template
        self.prepend_bos = prepend_bos
        self.default_voice = default_voice
        self.voices = voices
        self.strict_tags = strict_tags
        self.text_frontend = text_frontend
        self.lexicon_file = lexicon_file
        self.max_part_characters = max_part_characters
        self.max_text_characters = max_text_characters
        self.next_text_token, self.text_lookahead = next_text_token, text_lookahead
        self._lexicon = None
        self._token_ids = self._read_token_ids()
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = self.control_tokens["pad_token"]
        self.emotion_tags = list(emotion_tags) if emotion_tags is not None else self._find_emotion_tags()
        self._forbidden_tokens = self._find_control_tokens()

    def _read_token_ids(self) -> dict[str, int]:
        unknown = sorted(set(self.control_tokens) - set(CONTROL_TOKENS))
        if unknown:
            raise ValueError(f"`control_tokens` has unknown roles {unknown}; known are {sorted(CONTROL_TOKENS)}.")
        vocabulary = self.tokenizer.get_vocab()
        missing = {role: token for role, token in self.control_tokens.items() if token not in vocabulary}
        if missing:
            raise ValueError(f"`tokenizer` lacks the control tokens {missing}.")
        return {role: vocabulary[token] for role, token in self.control_tokens.items()}

    def _find_emotion_tags(self) -> list[str]:
        tokenizer = self.tokenizer
        named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.pad_token)
        taken = {*self.control_tokens.values(), *(str(token) for token in named if token)}
        added = tokenizer.get_added_vocab()
        return sorted(token for token in added if _TAG_TOKEN.fullmatch(token) and token not in taken)

    def _find_control_tokens(self) -> frozenset[str]:
        """Tokens that text must not turn into: special ones and those in angle brackets, but for the tags."""
        added = self.tokenizer.added_tokens_decoder.values()
        control = {token.content for token in added if token.special or _BRACKETED.fullmatch(token.content)}
        return frozenset((control | set(self.control_tokens.values())) - set(self.emotion_tags))

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns and `generate` takes."""
        return ["input_ids", "attention_mask", "part_counts", "duration_budget"]

    @property
    def sampling_rate(self) -> int:
        """Rate of the audio in Hz."""
        return self.feature_extractor.sampling_rate

    @property
    def audio_token_layout(self) -> AudioTokenLayout:
        """The mapping between token ids and codes."""
        ids = self._token_ids
        return AudioTokenLayout(
            ids["audio_token"], self.codebook_size, tuple(self.vq_strides), ids["end_of_speech_token"]
        )

    @cached_property
    def aligned_text_layout(self) -> AlignedTextLayout | None:
        """How text stands in the stream, or `None` where the stream is audio only."""
        if self.next_text_token is None:
            return None
        vocabulary = self.tokenizer.get_vocab()
        phonemes = [vocabulary[f"{{{phoneme}}}"] for phoneme in PHONEMES]
        return AlignedTextLayout(
            min(phonemes),
            max(phonemes),
            vocabulary[self.next_text_token],
            self._token_ids["eot_token"],
            self.text_lookahead,
        )

    @property
    def config_token_ids(self) -> dict[str, Any]:
        """The ids as keyword arguments of [`Maya1Config`] (`audio_token_offset`, `bos_token_id`, …)."""
        names = {"audio_token": "audio_token_offset"}
        arguments = {names.get(role, f"{role}_id"): token_id for role, token_id in self._token_ids.items()}
        aligned = self.aligned_text_layout
        if aligned is not None:
            arguments["next_text_token_id"] = aligned.next_id
            arguments["text_unit_range"] = [aligned.first_unit_id, aligned.last_unit_id]
            arguments["text_lookahead"] = aligned.lookahead
        return arguments

    # Prompts

    # trf-ignore: TRF057
    def __call__(
        self,
        text: str | list[str],
        voice: str | list[str | None] | None = None,
        return_tensors: str | None = "pt",
        split_long_text: bool = True,
        strict_tags: bool | None = None,
        verbatim: bool = False,
    ) -> BatchFeature:
        r"""
        Prompts for one or several texts.

        Args:
            text (`str` or `list[str]`):
                What to say, with emotion tags such as `<laugh>`. Blanks are collapsed and stripped.
            voice (`str` or `list[str]`, *optional*):
                Description of the voice, or the name of one of the processor's `voices`; one for all texts or one per
                text. `default_voice` when not given.
            return_tensors (`str`, *optional*, defaults to `"pt"`):
                Only `"pt"`.
            split_long_text (`bool`, *optional*, defaults to `True`):
                Whether a text longer than `max_part_characters` becomes several prompts, spoken as one.
            strict_tags (`bool`, *optional*):
                Overrides the processor's `strict_tags`.
            verbatim (`bool`, *optional*, defaults to `False`):
                Puts text and description into the prompt exactly as the published scripts do: nothing is stripped or
                split, and control tokens in them are taken as such. For trusted input only.

        Returns:
            [`BatchFeature`] with, for `P` prompts of `B` texts: `input_ids` and `attention_mask` `(P, length)`,
            left-padded; `part_counts` `(B,)`, prompts per text; `duration_budget` `(P,)`, the longest speech expected
            in milliseconds.

        Raises:
            ValueError: no text, blank text, text over `max_text_characters`, a voice that is neither text nor a known
                name, or an unknown tag when strict.
        """
        if return_tensors not in ("pt", None):
            raise ValueError(f"`return_tensors` must be 'pt'; got {return_tensors!r}.")
        texts = self._check_texts(text, verbatim)
        voices = self._resolve_voices(voice, len(texts), verbatim)
        strict = self.strict_tags if strict_tags is None else strict_tags
        rows, counts, budgets = [], [], []
        for each, description in zip(texts, voices, strict=True):
            if not verbatim:
                self._check_tags(each, strict)
            parts = split_text(each, self.max_part_characters) if split_long_text and not verbatim else [each]
            counts.append(len(parts))
            for part in parts:
                rows.append(self.prompt_ids(part, description, verbatim=verbatim))
                tags = [tag for tag in find_tags(part) if tag in self.emotion_tags]
                budgets.append(speech_budget(part, tags))
        return self._batch(rows, counts, budgets)

    def _batch(self, rows: list[list[int]], counts: list[int], budgets: list[int]) -> BatchFeature:
        length = max(len(row) for row in rows)
        pad = self._token_ids["pad_token"]
        return BatchFeature(
            {
                "input_ids": torch.tensor([[pad] * (length - len(row)) + row for row in rows]),
                "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
                "part_counts": torch.tensor(counts),
                "duration_budget": torch.tensor(budgets),
            }
        )

    def prompt_ids(self, text: str, voice: str, verbatim: bool = False) -> list[int]:
        """The ids of one prompt, from the (optional) begin of text to the start of speech.

        Args:
            text: One part of text.
            voice: The description.
            verbatim: See [`~Maya1Processor.__call__`].

        Raises:
            ValueError: the tokenizer finds a control token in the text all the same.
        """
        ids = self._token_ids
        opening = [ids["start_of_human_token"], ids["bos_token"]]
        closing = [ids[f"{name}_token"] for name in ("eot", "end_of_human", "start_of_ai", "start_of_speech")]
        body = self._body_ids(text, voice, verbatim)
        return [ids["bos_token"]] * self.prepend_bos + opening + body + closing

    def _body_ids(self, text: str, voice: str, verbatim: bool) -> list[int]:
        if verbatim:
            body = self.prompt_template.format(voice=voice, text=self._frontend(text))
            return self.tokenizer(body, add_special_tokens=False)["input_ids"]
        text = neutralize_tokens(clean_text(text), self._forbidden_tokens)
        if self.aligned_text_layout is not None:
            # A phoneme in the description would be taken for the start of the text.
            voice = voice.replace("{", "(").replace("}", ")")
        body = self.prompt_template.format(voice=clean_text(voice), text=self._frontend(text))
        body = neutralize_tokens(body, self._forbidden_tokens)
        token_ids = self.tokenizer(body, add_special_tokens=False)["input_ids"]
        layout, control_ids = self.audio_token_layout, set(self._token_ids.values())
        found = {each for each in token_ids if each in control_ids or layout.slot_of(each) is not None}
        if found:
            tokens = self.tokenizer.convert_ids_to_tokens(sorted(found))
            raise ValueError(f"`text` and `voice` must not contain control tokens; found {tokens}.")
        return token_ids

    def _frontend(self, text: str) -> str:
        if self.text_frontend is None:
            return text
        phonemes = map_outside_tags(text, self.emotion_tags, self.lexicon.phonemize)
        if not any(character.isalnum() for character in phonemes):
            raise ValueError(f"`text` holds nothing that the lexicon can pronounce; got {text!r:.40}.")
        return phonemes

    @property
    def lexicon(self) -> Any:
        """The pronunciation lexicon of `text_frontend="phonemes"`, read on first use.

        Raises:
            ValueError: the processor has no lexicon file.
        """
        if self._lexicon is None:
            if self.lexicon_file is None:
                raise ValueError(f"`text_frontend='phonemes'` needs `lexicon_file` (saved as {LEXICON_NAME}).")
            from ...text.pronunciation import PronunciationLexicon

            self._lexicon = PronunciationLexicon.from_file(self.lexicon_file)
        return self._lexicon

    # Validation

    def _check_texts(self, text: str | list[str], verbatim: bool) -> list[str]:
        texts = [text] if isinstance(text, str) else text
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(each, str) for each in texts):
            raise ValueError(f"`text` must be a string or a non-empty list of strings; got {text!r:.80}.")
        for index, each in enumerate(texts):
            if len(each) > self.max_text_characters:
                raise ValueError(
                    f"`text[{index}]` has {len(each)} characters; at most {self.max_text_characters} are allowed "
                    "(`max_text_characters`). Speak it in several calls."
                )
            if not verbatim and not any(character.isalnum() for character in each):
                raise ValueError(f"`text[{index}]` holds nothing to say; got {each!r:.40}.")
        return list(texts)

    def _resolve_voices(self, voice: str | list[str | None] | None, rows: int, verbatim: bool) -> list[str]:
        voices = list(voice) if isinstance(voice, list | tuple) else [voice] * rows
        if len(voices) != rows:
            raise ValueError(f"`voice` holds {len(voices)} descriptions for {rows} texts: pass one, or one per text.")
        return [str(each) if verbatim and isinstance(each, str) else self._resolve_voice(each) for each in voices]

    def _resolve_voice(self, voice: str | None) -> str:
        voice = self.default_voice if voice is None else voice
        if not isinstance(voice, str) or not voice.strip():
            raise ValueError(
                f"`voice` must be a description in words, such as {DEFAULT_VOICE[:34]!r}…"
                f"{self._known_voices()}; got {voice!r:.80}."
            )
        if len(voice) > MAX_VOICE_CHARACTERS:
            raise ValueError(f"`voice` has {len(voice)} characters; a description has at most {MAX_VOICE_CHARACTERS}.")
        name = voice.strip()
        if self.voices and name in self.voices:
            return self.voices[name]
        if self.voices and not any(character.isspace() for character in name):
            raise ValueError(
                f"`voice` {voice!r} is not known; known are {sorted(self.voices)}, and descriptions in several words."
            )
        if not name.endswith((".", "!", "?")) and '{voice}"' in self.prompt_template and name != self.default_voice:
            logger.warning_once(
                "Maya1 sometimes reads a voice description aloud that does not end with a full stop: end it with one."
            )
        return name

    def _known_voices(self) -> str:
        return f" or one of {sorted(self.voices)}" if self.voices else ""

    def _check_tags(self, text: str, strict: bool) -> None:
        known = set(self.emotion_tags)
        unknown = sorted({tag for tag in find_tags(text) if tag not in known and tag not in self._forbidden_tokens})
        if not unknown:
            return
        message = f"Unknown tags {unknown} are read as plain text; known are {self.emotion_tags}."
        if strict:
            raise ValueError(f"`text`: {message}")
        logger.warning(message)

    # Codes

    def pack_codes(self, codes: Sequence[Any]) -> torch.LongTensor:
        """Codes of one utterance to audio token ids.

        Args:
            codes: One 1-D integer sequence or tensor per level, coarse first.

        Returns:
            int64 ids `(frames * slots_per_frame,)`.

        Raises:
            ValueError: the levels do not fit together or a code is out of range.
        """
        return torch.tensor(self.audio_token_layout.pack([_integers(level) for level in codes]), dtype=torch.long)

    def unpack_audio_tokens(
        self, ids: Any, policy: str = "resync", row: int = 0
    ) -> tuple[tuple[torch.LongTensor, ...], UnpackInfo]:
        """Generated ids of one row to codes.

        Args:
            ids: 1-D ids after the start of speech; everything after the first end of speech is ignored.
            policy: What to do with ids out of their slot: `"resync"` (skip to the next frame, with a warning),
                `"strict"` (raise) or `"upstream"` (by position, as the published scripts).
            row: Number of the row in messages.

        Returns:
            One int64 tensor of codes per level, coarse first, and an `UnpackInfo`.

        Raises:
            ValueError: unknown policy, or a malformed stream with `"strict"`.
        """
        layout, ids = self.audio_token_layout, _integers(ids)
        if self.aligned_text_layout is not None:
            ids = [each for each in ids if each == layout.end_id or layout.slot_of(each) is not None]
        levels, info = layout.unpack(ids, policy=policy, row=row)
        if policy == "resync" and info.dropped_tokens >= self.audio_token_layout.slots_per_frame:
            logger.warning(f"Row {row}: {info.dropped_tokens} misaligned audio tokens were dropped.")
        return tuple(torch.tensor(level, dtype=torch.long) for level in levels), info

    def encode_training_example(
        self,
        text: str,
        voice: str | None,
        audio_codes: Sequence[Any],
        loss_on_text: bool = False,
        append_end_of_ai: bool = False,
        unit_ends: Sequence[float] | None = None,
    ) -> dict[str, list[int]]:
        """One utterance as ids and labels: the prompt as `__call__` writes it, the packed codes, the end of speech.

        Args:
            text: What is said; never split.
            voice: The description, a known name, or `None` for the default.
            audio_codes: One 1-D integer sequence or tensor per level, coarse first.
            loss_on_text: Whether the prompt is learnt too; its labels are -100 otherwise.
            append_end_of_ai: Whether the end-of-AI id follows, as in Orpheus' recipe.
            unit_ends: For checkpoints with aligned text: the time in seconds at which each phoneme of the text ends.

        Returns:
            Two lists of equal length, under `input_ids` and `labels`.

        Raises:
            ValueError: bad text, voice or codes; or `unit_ends` that are missing, out of place or of another number.
        """
        text = self._check_texts(text, verbatim=False)[0]
        prompt = self.prompt_ids(text, self._resolve_voice(voice))
        speech, labels = self._stream(prompt, self.pack_codes(audio_codes).tolist(), unit_ends)
        closing = [self._token_ids["end_of_speech_token"]]
        if append_end_of_ai:
            closing.append(self._token_ids["end_of_ai_token"])
        return {
            "input_ids": prompt + speech + closing,
            "labels": (prompt if loss_on_text else [-100] * len(prompt)) + labels + closing,
        }

    def _stream(
        self, prompt: list[int], audio_ids: list[int], unit_ends: Sequence[float] | None
    ) -> tuple[list[int], list[int]]:
        """Ids and labels of the speech, with the text in it where the checkpoint wants that."""
        aligned, layout = self.aligned_text_layout, self.audio_token_layout
        if (aligned is None) != (unit_ends is None):
            wanted = "not given: this checkpoint's stream is audio only" if aligned is None else "given"
            raise ValueError(f"`unit_ends` must be {wanted}; got {unit_ends!r:.40}.")
        if aligned is None:
            return audio_ids, audio_ids
        units = aligned.units(prompt)
        if len(unit_ends) != len(units):
            raise ValueError(
                f"`unit_ends` must hold a time for each of the {len(units)} phonemes; got {len(unit_ends)}."
            )
        slots = layout.slots_per_frame
        frames = [audio_ids[start : start + slots] for start in range(0, len(audio_ids), slots)]
        frame_seconds = self.feature_extractor.hop_length * layout.strides[0] / self.sampling_rate
        return aligned.interleave(units, frames, units_of_frames(unit_ends, len(frames), frame_seconds))

    # Files

    def to_dict(self) -> dict[str, Any]:
        """As the parent's, without the path of the lexicon, which is saved beside the tokenizer."""
        output = super().to_dict()
        output.pop("lexicon_file", None)
        return output

    def save_pretrained(self, save_directory: str | PathLike, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """As the parent's; the lexicon of `text_frontend="phonemes"` is copied into the folder."""
        target = Path(save_directory) / LEXICON_NAME
        if self.text_frontend is not None and self.lexicon_file is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or not target.samefile(self.lexicon_file):
                shutil.copyfile(self.lexicon_file, target)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike, **kwargs: Any) -> "Maya1Processor":
        """As the parent's; finds the folder's lexicon when the text front end needs one."""
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if processor.text_frontend is not None and processor.lexicon_file is None:
            names = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
            hub = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
            processor.lexicon_file = cached_file(str(pretrained_model_name_or_path), LEXICON_NAME, **hub)
        return processor


def _integers(values: Any) -> list[int]:
    """A tensor, array or sequence of integers as a flat list."""
    return torch.as_tensor(values, dtype=torch.long).reshape(-1).tolist() if len(values) else []


__all__ = ["Maya1Processor"]
