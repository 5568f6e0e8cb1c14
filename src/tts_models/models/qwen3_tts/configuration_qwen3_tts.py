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
"""Configuration of Qwen3-TTS: the talker, its code predictor, the speaker encoder, and the codec they use."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, Qwen3Config

from ..qwen3_tts_tokenizer import Qwen3TTSTokenizerConfig


MODEL_KINDS = ("base", "custom_voice", "voice_design")
_LANGUAGE_IDS = {
    "chinese": 2055,
    "english": 2050,
    "german": 2053,
    "italian": 2070,
    "portuguese": 2071,
    "spanish": 2054,
    "japanese": 2058,
    "korean": 2064,
    "french": 2061,
    "russian": 2069,
}


def _plain_rope(rope_parameters: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The rotary parameters of a released configuration, without the sections that change nothing for speech."""
    given = dict(rope_parameters or {}) | (kwargs.pop("rope_scaling", None) or {})
    theta = kwargs.pop("rope_theta", None) or given.get("rope_theta") or 1_000_000.0
    kind = given.pop("type", None) or given.get("rope_type") or "default"
    for name in ("interleaved", "mrope_interleaved", "mrope_section"):
        given.pop(name, None)
    return given | {"rope_type": kind, "rope_theta": float(theta)}


# trf-ignore: TRF057 (for models outside the library, that decorator prints an error at import)
@strict
class Qwen3TTSCodePredictorConfig(Qwen3Config):
    r"""
    Configuration of [`Qwen3TTSCodePredictor`]: the fields of `Qwen3Config`, with the released defaults, and:

    Args:
        num_code_groups (`int`, *optional*, defaults to 16):
            Codes per frame; the first is the talker's, the predictor writes the others.
        talker_hidden_size (`int`, *optional*):
            Width of the talker, and of the code tables; `hidden_size` by default. Set by [`Qwen3TTSTalkerConfig`].
    """

    model_type = "qwen3_tts_talker_code_predictor"

    vocab_size: int = 2048
    hidden_size: int = 1024
    intermediate_size: int = 3072
    num_hidden_layers: int = 5
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 65536
    num_code_groups: int = 16
    talker_hidden_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.rope_parameters = _plain_rope(self.rope_parameters, kwargs)
        if self.talker_hidden_size is None:
            self.talker_hidden_size = self.hidden_size
        super().__post_init__(**kwargs)
        if self.num_code_groups < 2:
            raise ValueError(f"`num_code_groups` must be at least 2; got {self.num_code_groups}.")


# trf-ignore: TRF057
@strict
class Qwen3TTSTalkerConfig(Qwen3Config):
    r"""
    Configuration of [`Qwen3TTSTalker`]: the fields of `Qwen3Config`, with the defaults of the released 1.7B
    checkpoints, and:

    Args:
        code_predictor_config (`Qwen3TTSCodePredictorConfig` or `dict`, *optional*):
            The network that writes the other codes of a frame.
        num_code_groups (`int`, *optional*, defaults to 16):
            Codes per frame.
        text_vocab_size (`int`, *optional*, defaults to 151936):
            Rows of the text table.
        text_hidden_size (`int`, *optional*, defaults to 2048):
            Width of the text table, before its projection.
        codec_pad_id, codec_bos_id, codec_eos_token_id (`int`, *optional*):
            Rows of the codec table for positions without a code, for the start and for the end of speech.
        codec_think_id, codec_nothink_id, codec_think_bos_id, codec_think_eos_id (`int`, *optional*):
            Rows that frame the language: `think` when it is given, `nothink` when the model decides.
        codec_language_id (`dict[str, int]`, *optional*):
            Languages and dialects, by name.
        spk_id (`dict[str, int]`, *optional*):
            Speakers of a CustomVoice checkpoint, by name, and their rows.
        spk_is_dialect (`dict[str, bool | str]`, *optional*):
            The dialect of each speaker who speaks one, `False` for the others.
    """

    model_type = "qwen3_tts_talker"
    sub_configs = {"code_predictor_config": Qwen3TTSCodePredictorConfig}

    code_predictor_config: dict | PreTrainedConfig | None = None
    vocab_size: int = 3072
    hidden_size: int = 2048
    intermediate_size: int = 6144
    num_hidden_layers: int = 28
    num_attention_heads: int = 16
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 32768
    num_code_groups: int = 16
    text_vocab_size: int = 151936
    text_hidden_size: int = 2048
    codec_pad_id: int = 2148
    codec_bos_id: int = 2149
    codec_eos_token_id: int = 2150
    codec_think_id: int = 2154
    codec_nothink_id: int = 2155
    codec_think_bos_id: int = 2156
    codec_think_eos_id: int = 2157
    codec_language_id: dict[str, int] | None = None
    spk_id: dict[str, int] | None = None
    spk_is_dialect: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.rope_parameters = _plain_rope(self.rope_parameters, kwargs)
        if self.use_sliding_window:
            self.max_window_layers = 0  # upstream's talker has the window in every layer
        # Not read by the network, and no field of the library's.
        kwargs.pop("position_id_per_seconds", None)
        predictor = {} if self.code_predictor_config is None else self.code_predictor_config
        if isinstance(predictor, dict):
            predictor = Qwen3TTSCodePredictorConfig(
                **{"num_code_groups": self.num_code_groups} | predictor | {"talker_hidden_size": self.hidden_size}
            )
        self.code_predictor_config = predictor
        self.codec_language_id = dict(_LANGUAGE_IDS) if self.codec_language_id is None else self.codec_language_id
        self.spk_id, self.spk_is_dialect = self.spk_id or {}, self.spk_is_dialect or {}
        super().__post_init__(**kwargs)
        self._check_codes()

    def _check_codes(self) -> None:
        """Every special row must lie in the codec table, behind the codes themselves."""
        if self.code_predictor_config.num_code_groups != self.num_code_groups:
            raise ValueError(
                f"`num_code_groups` is {self.num_code_groups}, but the code predictor's is "
                f"{self.code_predictor_config.num_code_groups}: they must agree."
            )
        rows = {name: getattr(self, name) for name in _SPECIAL_ROWS}
        rows |= {f"codec_language_id[{name!r}]": row for name, row in self.codec_language_id.items()}
        rows |= {f"spk_id[{name!r}]": row for name, row in self.spk_id.items()}
        for name, row in rows.items():
            if not 0 <= row < self.vocab_size:
                raise ValueError(f"`{name}` {row} lies outside the codec table of {self.vocab_size} rows.")


_SPECIAL_ROWS = (
    "codec_pad_id",
    "codec_bos_id",
    "codec_eos_token_id",
    "codec_think_id",
    "codec_nothink_id",
    "codec_think_bos_id",
    "codec_think_eos_id",
)


# trf-ignore: TRF057
@strict
class Qwen3TTSSpeakerEncoderConfig(PreTrainedConfig):
    r"""
    Configuration of [`Qwen3TTSSpeakerEncoder`], an ECAPA-TDNN without normalisation layers.

    Args:
        mel_dim (`int`, *optional*, defaults to 128):
            Mel bands of the input.
        enc_dim (`int`, *optional*, defaults to 1024):
            Width of the speaker vector: that of the talker.
        enc_channels (`list[int]`, *optional*, defaults to `[512, 512, 512, 512, 1536]`):
            Channels of the first layer, the blocks between, and the layer that joins them.
        enc_kernel_sizes (`list[int]`, *optional*, defaults to `[5, 3, 3, 3, 1]`):
            Kernel sizes of the same layers.
        enc_dilations (`list[int]`, *optional*, defaults to `[1, 2, 3, 4, 1]`):
            Dilations of the same layers.
        enc_attention_channels (`int`, *optional*, defaults to 128):
            Bottleneck of the attentive pooling.
        enc_res2net_scale (`int`, *optional*, defaults to 8):
            Groups of channels of a Res2Net block.
        enc_se_channels (`int`, *optional*, defaults to 128):
            Bottleneck of a squeeze-and-excitation block.
        sample_rate (`int`, *optional*, defaults to 24000):
            Rate of the recordings, in Hz.
    """

    model_type = "qwen3_tts_speaker_encoder"

    mel_dim: int = 128
    enc_dim: int = 1024
    enc_channels: list[int] | tuple[int, ...] = (512, 512, 512, 512, 1536)
    enc_kernel_sizes: list[int] | tuple[int, ...] = (5, 3, 3, 3, 1)
    enc_dilations: list[int] | tuple[int, ...] = (1, 2, 3, 4, 1)
    enc_attention_channels: int = 128
    enc_res2net_scale: int = 8
    enc_se_channels: int = 128
    sample_rate: int = 24000
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("enc_channels", "enc_kernel_sizes", "enc_dilations"):
            setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)
        if not 3 <= len(self.enc_channels) == len(self.enc_kernel_sizes) == len(self.enc_dilations):
            raise ValueError(
                "`enc_channels`, `enc_kernel_sizes` and `enc_dilations` must have one entry for each of at least 3 "
                f"layers; got {self.enc_channels}, {self.enc_kernel_sizes}, {self.enc_dilations}."
            )
        if any(channels % self.enc_res2net_scale for channels in self.enc_channels[1:-1]):
            raise ValueError(
                f"`enc_channels` {self.enc_channels} of the blocks must be multiples of `enc_res2net_scale` "
                f"{self.enc_res2net_scale}."
            )


# trf-ignore: TRF057
@strict
class Qwen3TTSConfig(PreTrainedConfig):
    r"""
    Configuration of [`Qwen3TTSForConditionalGeneration`]. The defaults are the released 1.7B Base checkpoint's.

    Args:
        talker_config (`Qwen3TTSTalkerConfig` or `dict`, *optional*):
            The language model that writes the first code of every frame, with its code predictor.
        speaker_encoder_config (`Qwen3TTSSpeakerEncoderConfig` or `dict`, *optional*):
            The network that turns a recording into a speaker vector; only a `"base"` model has one.
        speech_tokenizer_config (`Qwen3TTSTokenizerConfig` or `dict`, *optional*):
            The codec. `None` where its weights are not part of the model's own file: `from_pretrained` then reads it
            from the sub-folder `speech_tokenizer`, as released.
        tts_model_type (`str`, *optional*, defaults to `"base"`):
            `"base"` clones voices, `"custom_voice"` has named speakers, `"voice_design"` follows a description.
        tts_model_size (`str`, *optional*, defaults to `"1b7"`):
            Size by name; the `"0b6"` CustomVoice checkpoint takes no instructions.
        tokenizer_type (`str`, *optional*):
            Name of the codec in released configurations.
        im_start_token_id, im_end_token_id (`int`, *optional*):
            Text ids around a turn.
        assistant_token_id (`int`, *optional*, defaults to 77091):
            Text id of the assistant's role.
        tts_pad_token_id, tts_bos_token_id, tts_eos_token_id (`int`, *optional*):
            Text ids for positions without text, and before and after the spoken text.
    """

    model_type = "qwen3_tts"
    sub_configs = {
        "talker_config": Qwen3TTSTalkerConfig,
        "speaker_encoder_config": Qwen3TTSSpeakerEncoderConfig,
        "speech_tokenizer_config": Qwen3TTSTokenizerConfig,
    }
    keys_to_ignore_at_inference = ["past_key_values"]

    talker_config: dict | PreTrainedConfig | None = None
    speaker_encoder_config: dict | PreTrainedConfig | None = None
    speech_tokenizer_config: dict | PreTrainedConfig | None = None
    tts_model_type: str = "base"
    tts_model_size: str = "1b7"
    tokenizer_type: str | None = "qwen3_tts_tokenizer_12hz"
    im_start_token_id: int = 151644
    im_end_token_id: int = 151645
    assistant_token_id: int | None = 77091
    tts_pad_token_id: int = 151671
    tts_bos_token_id: int = 151672
    tts_eos_token_id: int = 151673

    def __post_init__(self, **kwargs: Any) -> None:
        if self.tts_model_type not in MODEL_KINDS:
            raise ValueError(f"`tts_model_type` must be one of {', '.join(MODEL_KINDS)}; got {self.tts_model_type!r}.")
        if self.tokenizer_type not in (None, "qwen3_tts_tokenizer_12hz"):
            raise ValueError(f"`tokenizer_type` must be 'qwen3_tts_tokenizer_12hz'; got {self.tokenizer_type!r}.")
        if self.talker_config is None or isinstance(self.talker_config, dict):
            self.talker_config = Qwen3TTSTalkerConfig(**(self.talker_config or {}))
        self.speaker_encoder_config = self._speaker_encoder_config()
        if isinstance(self.speech_tokenizer_config, dict):
            self.speech_tokenizer_config = Qwen3TTSTokenizerConfig(**self.speech_tokenizer_config)
        super().__post_init__(**kwargs)
        self._check_parts()

    def _speaker_encoder_config(self) -> PreTrainedConfig | None:
        """Only models that clone have a speaker encoder."""
        if self.tts_model_type != "base":
            return None
        given = self.speaker_encoder_config
        if given is None or isinstance(given, dict):
            return Qwen3TTSSpeakerEncoderConfig(**{"enc_dim": self.talker_config.hidden_size} | (given or {}))
        return given

    def _check_parts(self) -> None:
        talker, codec = self.talker_config, self.speech_tokenizer_config
        for name in ("im_start", "im_end", "tts_pad", "tts_bos", "tts_eos"):
            row = getattr(self, f"{name}_token_id")
            if not 0 <= row < talker.text_vocab_size:
                raise ValueError(f"`{name}_token_id` {row} lies outside the text table of {talker.text_vocab_size}.")
        groups = getattr(codec, "num_codebooks", None)
        if groups is not None and groups != talker.num_code_groups:
            raise ValueError(f"The codec has {groups} codes per frame, the talker {talker.num_code_groups}.")

    @property
    def sampling_rate(self) -> int:
        """Rate of the generated audio in Hz."""
        return getattr(self.speech_tokenizer_config, "output_sample_rate", 24000)

    @property
    def samples_per_frame(self) -> int:
        """Audio samples per frame of codes."""
        return getattr(self.speech_tokenizer_config, "samples_per_frame", 1920)


__all__ = [
    "Qwen3TTSCodePredictorConfig",
    "Qwen3TTSConfig",
    "Qwen3TTSSpeakerEncoderConfig",
    "Qwen3TTSTalkerConfig",
]
