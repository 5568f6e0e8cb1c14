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
"""Configuration of Chatterbox: the language model T3, the voice encoder, and S3Gen, which makes the sound."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, GPT2Config, LlamaConfig, PreTrainedConfig

from ..s3gen import S3GenConfig


BACKBONES = {"llama": LlamaConfig, "gpt2": GPT2Config}
# The released English and multilingual backbone. Its own token table is never read, hence the vocabulary of one.
_LLAMA = {
    "model_type": "llama",
    "vocab_size": 1,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 30,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}


# trf-ignore: TRF057 (for models outside the library, that decorator prints an error at import)
@strict
class ChatterboxT3Config(PreTrainedConfig):
    r"""
    Configuration of [`ChatterboxT3Model`], which writes speech tokens. The defaults are the released English model's.

    Args:
        backbone_config (`LlamaConfig`, `GPT2Config` or `dict`, *optional*):
            The decoder: a Llama (English, multilingual) or a GPT-2 (Turbo, Nano).
        text_vocab_size (`int`, *optional*, defaults to 704):
            Rows of the text table.
        start_text_token_id, stop_text_token_id (`int`, *optional*, defaults to 255 and 0):
            Ids around a text; both `None` where a text stands without them (Turbo, Nano).
        speech_vocab_size (`int`, *optional*, defaults to 8194):
            Rows of the speech table.
        num_speech_codes (`int`, *optional*, defaults to 6561):
            The ids below it are sound.
        start_speech_token_id, stop_speech_token_id (`int`, *optional*, defaults to 6561 and 6562):
            Ids before and after speech.
        num_start_tokens (`int`, *optional*, defaults to 2):
            How often the start comes before speech; upstream's Llama models were trained and run with two.
        max_text_positions, max_speech_positions (`int`, *optional*, defaults to 2050 and 4100):
            Learned positions, added on top of the backbone's own; both `None` for none (Turbo, Nano).
        prompt_length (`int`, *optional*, defaults to 150):
            The most speech tokens of the reference that the model reads.
        prompt_seconds (`float`, *optional*, defaults to 6.0):
            The part of the reference from which they come.
        speaker_embed_size (`int`, *optional*, defaults to 256):
            Width of the voice encoder's vector.
        use_perceiver (`bool`, *optional*, defaults to `True`):
            Whether a perceiver sums the prompt up in `perceiver_queries` rows with `perceiver_heads` heads.
        perceiver_queries, perceiver_heads (`int`, *optional*, defaults to 32 and 4):
            Its size.
        perceiver_dropout (`float`, *optional*, defaults to 0.2):
            Dropout of its attention, in training.
        use_emotion (`bool`, *optional*, defaults to `True`):
            Whether the model takes `exaggeration`, and is guided away from its speech without a text.
        speech_head_bias (`bool`, *optional*, defaults to `False`):
            Whether the speech head has a bias.
    """

    model_type = "chatterbox_t3"
    sub_configs = {"backbone_config": AutoConfig}
    keys_to_ignore_at_inference = ["past_key_values"]

    backbone_config: dict | PreTrainedConfig | None = None
    text_vocab_size: int = 704
    start_text_token_id: int | None = 255
    stop_text_token_id: int | None = 0
    speech_vocab_size: int = 8194
    num_speech_codes: int = 6561
    start_speech_token_id: int = 6561
    stop_speech_token_id: int = 6562
    num_start_tokens: int = 2
    max_text_positions: int | None = 2050
    max_speech_positions: int | None = 4100
    prompt_length: int = 150
    prompt_seconds: float = 6.0
    speaker_embed_size: int = 256
    use_perceiver: bool = True
    perceiver_queries: int = 32
    perceiver_heads: int = 4
    perceiver_dropout: float = 0.2
    use_emotion: bool = True
    speech_head_bias: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        given = dict(_LLAMA) if self.backbone_config is None else self.backbone_config
        if isinstance(given, dict):
            kind = given.get("model_type", "llama")
            if kind not in BACKBONES:
                raise ValueError(f"`backbone_config` must be of type {' or '.join(BACKBONES)}; got {kind!r}.")
            # Text and speech have ids of their own; those that the library takes for granted lie outside the table.
            given = given | {"bos_token_id": None, "eos_token_id": None}
            given = BACKBONES[kind](**{name: value for name, value in given.items() if name != "model_type"})
        self.backbone_config = given
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        if not isinstance(self.backbone_config, tuple(BACKBONES.values())):
            raise ValueError(f"`backbone_config` must be a {' or '.join(BACKBONES)} configuration.")
        for name in ("start_speech_token_id", "stop_speech_token_id"):
            if not 0 <= getattr(self, name) < self.speech_vocab_size:
                raise ValueError(f"`{name}` {getattr(self, name)} lies outside the {self.speech_vocab_size} rows.")
        if not 1 <= self.num_speech_codes <= self.speech_vocab_size:
            raise ValueError(f"`num_speech_codes` must be in 1…{self.speech_vocab_size}; got {self.num_speech_codes}.")
        for one, other in (
            ("start_text_token_id", "stop_text_token_id"),
            ("max_text_positions", "max_speech_positions"),
        ):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"`{one}` and `{other}` must both be set, or neither.")
        for name in ("start_text_token_id", "stop_text_token_id"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < self.text_vocab_size:
                raise ValueError(f"`{name}` {getattr(self, name)} lies outside the {self.text_vocab_size} rows.")
        if self.num_start_tokens < 1:
            raise ValueError(f"`num_start_tokens` must be at least 1; got {self.num_start_tokens}.")
        if self.use_perceiver and self.hidden_size % self.perceiver_heads:
            raise ValueError(
                f"`perceiver_heads` {self.perceiver_heads} must divide the backbone's width {self.hidden_size}."
            )

    @property
    def hidden_size(self) -> int:
        """Width of the backbone."""
        return self.backbone_config.hidden_size

    @property
    def is_guided(self) -> bool:
        """Whether classifier-free guidance means anything to the model."""
        return self.use_emotion


# trf-ignore: TRF057
@strict
class ChatterboxVoiceEncoderConfig(PreTrainedConfig):
    r"""
    Configuration of [`ChatterboxVoiceEncoder`], an LSTM over windows of mel frames.

    Args:
        num_mel_bins (`int`, *optional*, defaults to 40):
            Mel bands of the input.
        hidden_size (`int`, *optional*, defaults to 256):
            Width of the LSTM.
        num_hidden_layers (`int`, *optional*, defaults to 3):
            Its layers.
        speaker_embed_size (`int`, *optional*, defaults to 256):
            Width of the speaker vector.
        window_frames (`int`, *optional*, defaults to 160):
            Frames of a window (1.6 s).
        windows_per_second (`float`, *optional*, defaults to 1.3):
            Windows begin so often; `None` lets them overlap by half.
        min_coverage (`float`, *optional*, defaults to 0.8):
            The share of a last window that must lie in the recording.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Rate of the recordings, in Hz.
        hop_length (`int`, *optional*, defaults to 160):
            Samples of a frame.
    """

    model_type = "chatterbox_voice_encoder"

    num_mel_bins: int = 40
    hidden_size: int = 256
    num_hidden_layers: int = 3
    speaker_embed_size: int = 256
    window_frames: int = 160
    windows_per_second: float | None = 1.3
    min_coverage: float = 0.8
    sampling_rate: int = 16000
    hop_length: int = 160
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if not 0 < self.min_coverage <= 1:
            raise ValueError(f"`min_coverage` must be above 0 and at most 1; got {self.min_coverage}.")
        if not 0 < self.frame_step <= self.window_frames:
            raise ValueError(
                f"`windows_per_second` {self.windows_per_second} puts the windows {self.frame_step} frames apart; "
                f"1…{self.window_frames} are allowed."
            )

    @property
    def frame_step(self) -> int:
        """Frames between the starts of two windows."""
        if self.windows_per_second is None:
            return round(self.window_frames / 2)
        return round(self.sampling_rate / self.windows_per_second / self.hop_length)


# trf-ignore: TRF057
@strict
class ChatterboxConfig(PreTrainedConfig):
    r"""
    Configuration of [`ChatterboxForConditionalGeneration`]. The defaults are the released English checkpoint's.

    Args:
        t3_config (`ChatterboxT3Config` or `dict`, *optional*):
            The language model that writes speech tokens from text.
        voice_encoder_config (`ChatterboxVoiceEncoderConfig` or `dict`, *optional*):
            The network that turns a recording into a speaker vector.
        s3gen_config (`S3GenConfig` or `dict`, *optional*):
            The network that turns speech tokens into sound, with its tokenizer, speaker encoder and vocoder.
        variant (`str`, *optional*, defaults to `"english"`):
            `"english"`, `"multilingual"` or `"turbo"` (also Nano): how text is prepared, and the sampling order.
        end_silence_token_id (`int`, *optional*):
            Speech token of silence, appended three times to every part of a text (Turbo, Nano).
        end_trim_tokens (`int`, *optional*, defaults to 0):
            Tokens whose sound is cut from the end of every part (one in upstream's newest multilingual class).
    """

    model_type = "chatterbox"
    sub_configs = {
        "t3_config": ChatterboxT3Config,
        "voice_encoder_config": ChatterboxVoiceEncoderConfig,
        "s3gen_config": S3GenConfig,
    }
    keys_to_ignore_at_inference = ["past_key_values"]

    t3_config: dict | PreTrainedConfig | None = None
    voice_encoder_config: dict | PreTrainedConfig | None = None
    s3gen_config: dict | PreTrainedConfig | None = None
    variant: str = "english"
    end_silence_token_id: int | None = None
    end_trim_tokens: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}; got {self.variant!r}.")
        for name, config_class in self.sub_configs.items():
            given = getattr(self, name)
            if given is None or isinstance(given, dict):
                setattr(self, name, config_class(**(given or {})))
        super().__post_init__(**kwargs)
        self._check_parts()

    def _check_parts(self) -> None:
        t3, encoder = self.t3_config, self.voice_encoder_config
        if t3.speaker_embed_size != encoder.speaker_embed_size:
            raise ValueError(
                f"`speaker_embed_size` is {encoder.speaker_embed_size} in the voice encoder and "
                f"{t3.speaker_embed_size} in T3: they must agree."
            )
        codes = self.s3gen_config.vocab_size
        if t3.num_speech_codes > codes:
            raise ValueError(f"`num_speech_codes` {t3.num_speech_codes} exceeds the {codes} ids that S3Gen knows.")
        if self.end_trim_tokens < 0:
            raise ValueError(f"`end_trim_tokens` must not be negative; got {self.end_trim_tokens}.")
        silence = self.end_silence_token_id
        if silence is not None and not 0 <= silence < t3.num_speech_codes:
            raise ValueError(f"`end_silence_token_id` must be in 0…{t3.num_speech_codes - 1}; got {silence}.")

    @property
    def sampling_rate(self) -> int:
        """Rate of the speech in Hz."""
        return self.s3gen_config.sampling_rate

    @property
    def is_turbo(self) -> bool:
        """Whether the sampling order and the text are those of Turbo and Nano."""
        return self.variant == "turbo"


VARIANTS = ("english", "multilingual", "turbo")


__all__ = ["ChatterboxConfig", "ChatterboxT3Config", "ChatterboxVoiceEncoderConfig"]
