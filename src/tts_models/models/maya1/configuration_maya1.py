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
"""Configuration of Maya1: a Llama that writes SNAC codes as tokens, and the SNAC that turns them into sound."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig, PreTrainedConfig

from ..snac import SnacConfig
from .aligned_text_maya1 import AlignedTextLayout
from .audio_tokens_maya1 import AudioTokenLayout


# Llama-3.2-3B with Maya1's vocabulary, used when no `text_config` is given.
_RELEASED_TEXT_CONFIG = {
    "vocab_size": 156960,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "bos_token_id": 128000,
    "eos_token_id": 128258,
    "pad_token_id": 128263,
}
_CONVERT_HINT = (
    "A Maya1 folder holds the language model and the SNAC codec together: make one with "
    "`conversion_scripts/convert_maya1_to_hf.py`."
)


# trf-ignore: TRF057 (for models outside the library, that decorator prints an error at import)
@strict
class Maya1Config(PreTrainedConfig):
    r"""
    Configuration of [`Maya1ForConditionalGeneration`]. The defaults are the released 3B checkpoint's.

    Args:
        text_config (`LlamaConfig` or `dict`, *optional*):
            The language model; its vocabulary also holds the audio ids.
        codec_config (`SnacConfig` or `dict`, *optional*):
            The codec. Its `vq_strides` and `codebook_size` define the audio id range: nothing else fixes the number of
            slots per frame.
        audio_token_offset (`int`, *optional*, defaults to 128266):
            Id of code 0 of the first slot.
        bos_token_id (`int`, *optional*, defaults to 128000):
            Begin of text.
        eot_token_id (`int`, *optional*, defaults to 128009):
            End of the text inside the prompt; not a stop token.
        start_of_speech_token_id (`int`, *optional*, defaults to 128257):
            Last id of the prompt.
        end_of_speech_token_id (`int`, *optional*, defaults to 128258):
            The only stop token (`eos_token_id` is the same value).
        start_of_human_token_id (`int`, *optional*, defaults to 128259):
            First id of the prompt (after the optional begin of text).
        end_of_human_token_id (`int`, *optional*, defaults to 128260):
            Follows the end of text.
        start_of_ai_token_id (`int`, *optional*, defaults to 128261):
            Precedes the start of speech.
        end_of_ai_token_id (`int`, *optional*, defaults to 128262):
            Unused by Maya1, kept for checkpoints of the same layout.
        pad_token_id (`int`, *optional*, defaults to 128263):
            Padding.
        next_text_token_id (`int`, *optional*):
            For checkpoints with aligned text (see [`AlignedTextLayout`]; the one that ships with the package): what
            the model writes where the next unit of the text follows. `None`: the stream is audio only, as in the
            released checkpoint, and the next two arguments have no meaning.
        text_unit_range (`list[int]`, *optional*):
            Lowest and highest id that start a unit of aligned text.
        text_lookahead (`int`, *optional*, defaults to 1):
            Units of aligned text that are read ahead of the one that is spoken.
    """

    model_type = "maya1"
    sub_configs = {"text_config": LlamaConfig, "codec_config": SnacConfig}
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {"eos_token_id": "end_of_speech_token_id"}

    text_config: dict | PreTrainedConfig | None = None
    codec_config: dict | PreTrainedConfig | None = None
    audio_token_offset: int = 128266
    bos_token_id: int | None = 128000
    eot_token_id: int = 128009
    start_of_speech_token_id: int = 128257
    end_of_speech_token_id: int = 128258
    start_of_human_token_id: int = 128259
    end_of_human_token_id: int = 128260
    start_of_ai_token_id: int = 128261
    end_of_ai_token_id: int | None = 128262
    pad_token_id: int | None = 128263
    next_text_token_id: int | None = None
    text_unit_range: list[int] | tuple[int, ...] | None = None
    text_lookahead: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        if self.text_config is None:
            self.text_config = LlamaConfig(**_RELEASED_TEXT_CONFIG)
        elif isinstance(self.text_config, dict):
            self.text_config = LlamaConfig(**self.text_config)
        if self.codec_config is None:
            self.codec_config = SnacConfig()
        elif isinstance(self.codec_config, dict):
            self.codec_config = SnacConfig(**self.codec_config)
        self.tie_word_embeddings = self.text_config.tie_word_embeddings
        kwargs.pop("tie_word_embeddings", None)
        super().__post_init__(**kwargs)
        self._check_audio_token_range()
        self._check_aligned_text()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "Maya1Config":
        """As the parent's, but a configuration of another model (upstream's is a plain `llama`) is refused.

        Raises:
            ValueError: `config_dict` names another `model_type`.
        """
        found = config_dict.get("model_type", cls.model_type)
        if found != cls.model_type:
            raise ValueError(f"This is the configuration of a {found!r} model, not of Maya1. {_CONVERT_HINT}")
        return super().from_dict(config_dict, **kwargs)

    def _check_audio_token_range(self) -> None:
        """The audio ids must lie inside the vocabulary and hold no control id."""
        layout, vocab_size = self.audio_token_layout, self.text_config.vocab_size
        last = layout.offset + layout.num_ids - 1
        if layout.offset < 0 or last >= vocab_size:
            raise ValueError(
                f"`audio_token_offset` {layout.offset} with {layout.slots_per_frame} slots of {layout.codebook_size} "
                f"codes ends at id {last}, outside the vocabulary of {vocab_size}."
            )
        for name in ("bos", "eot", "start_of_speech", "end_of_speech", "pad"):
            token_id = getattr(self, f"{name}_token_id")
            if token_id is not None and layout.slot_of(token_id) is not None:
                raise ValueError(f"`{name}_token_id` {token_id} lies inside the audio ids {layout.offset}…{last}.")

    def _check_aligned_text(self) -> None:
        if self.next_text_token_id is None:
            return
        first_and_last = self.text_unit_range
        if first_and_last is None or len(first_and_last) != 2 or not 0 <= first_and_last[0] <= first_and_last[1]:
            raise ValueError(
                f"`text_unit_range` must hold the lowest and the highest id that start a unit; got {first_and_last}."
            )
        if self.text_lookahead < 0:
            raise ValueError(f"`text_lookahead` must not be negative; got {self.text_lookahead}.")

    @property
    def aligned_text_layout(self) -> AlignedTextLayout | None:
        """How text stands in the stream, or `None` where the stream is audio only."""
        if self.next_text_token_id is None:
            return None
        return AlignedTextLayout(
            *self.text_unit_range, self.next_text_token_id, self.eot_token_id, self.text_lookahead
        )

    @property
    def marker_ids(self) -> list[int]:
        """Ids that the model writes between frames: the end of the speech, and where the next unit of text follows."""
        return [each for each in (self.end_of_speech_token_id, self.next_text_token_id) if each is not None]

    @property
    def audio_token_layout(self) -> AudioTokenLayout:
        """The mapping between token ids and codes."""
        codec = self.codec_config
        return AudioTokenLayout(
            self.audio_token_offset, codec.codebook_size, tuple(codec.vq_strides), self.end_of_speech_token_id
        )

    @property
    def slots_per_frame(self) -> int:
        """Tokens per coarse frame of the codec."""
        return self.audio_token_layout.slots_per_frame

    @property
    def samples_per_frame(self) -> int:
        """Audio samples per coarse frame."""
        return self.codec_config.samples_per_frame

    @property
    def sampling_rate(self) -> int:
        """Rate of the generated audio in Hz."""
        return self.codec_config.sampling_rate

    @property
    def tokens_per_second(self) -> float:
        """Audio tokens per second of speech (82.03 for the released checkpoint)."""
        return self.slots_per_frame * self.sampling_rate / self.samples_per_frame


__all__ = ["Maya1Config"]
