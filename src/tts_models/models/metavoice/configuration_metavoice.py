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
"""Configuration of MetaVoice: two stages that write EnCodec codes, the speaker encoder, the parts that make sound."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import EncodecConfig, LlamaConfig, PreTrainedConfig

from ..deepfilternet import DeepFilterNetConfig


NORM_TYPES = ("layer_norm", "rms_norm")


# trf-ignore: TRF057 (for models outside the library, that decorator prints an error at import)
@strict
class MetaVoiceStageConfig(LlamaConfig):
    r"""
    What both stages' configurations have in common: Llama's blocks without rotary positions, with any norm and MLP.

    Args:
        norm_type (`str`, *optional*, defaults to `"rms_norm"`):
            `"layer_norm"` or `"rms_norm"`.
        use_norm_bias (`bool`, *optional*, defaults to `False`):
            Whether a layer norm has a bias.
        use_gated_mlp (`bool`, *optional*, defaults to `True`):
            Whether the MLP is gated, as Llama's, instead of two layers.
    """

    norm_type: str = "rms_norm"
    use_norm_bias: bool = False
    use_gated_mlp: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.norm_type not in NORM_TYPES:
            raise ValueError(f"`norm_type` must be one of {', '.join(NORM_TYPES)}; got {self.norm_type!r}.")
        if self.num_key_value_heads != self.num_attention_heads:
            raise ValueError(
                f"`num_key_value_heads` must equal `num_attention_heads` {self.num_attention_heads}; "
                f"got {self.num_key_value_heads}."
            )

    def validate_rope(self) -> None:
        """Nothing: positions are learned, and a head may have any width."""


# trf-ignore: TRF057
@strict
class MetaVoiceFirstStageConfig(MetaVoiceStageConfig):
    r"""
    Configuration of [`MetaVoiceFirstStageForCausalLM`], which writes the first two EnCodec codes of every frame. Its
    blocks are Llama's without rotary positions. The defaults are the released model's.

    Ids: the codes of the first codebook, those of the second, the end of audio, text ids, the end of text.

    Args:
        max_position_embeddings (`int`, *optional*, defaults to 2048):
            Learned positions, shared by text and audio.
        speaker_embed_size (`int`, *optional*, defaults to 256):
            Width of the speaker vector.
        num_codes (`int`, *optional*, defaults to 1024):
            Entries of a codebook.
        num_codebooks (`int`, *optional*, defaults to 2):
            Codebooks whose codes alternate.
        text_token_offset (`int`, *optional*, defaults to 2049):
            Added to the tokenizer's ids.
        end_of_text_token_id (`int`, *optional*, defaults to 2561):
            Follows a text.
        speaker_dropout (`float`, *optional*, defaults to 0.0):
            In training, how often an example comes without its speaker; what makes guidance possible.
        dropout (`float`, *optional*, defaults to 0.0):
            In training, of the embeddings and of what every attention and MLP adds.
        norm_type (`str`, *optional*, defaults to `"rms_norm"`):
            `"layer_norm"` or `"rms_norm"`.
        use_norm_bias (`bool`, *optional*, defaults to `False`):
            Whether a layer norm has a bias.
        use_gated_mlp (`bool`, *optional*, defaults to `True`):
            Whether the MLP is gated, as Llama's, instead of two layers.
        speaker_start_token_id (`int`, *optional*):
            The first such id, and every row after it, hear the speaker; the rows before it do not. By default all do.
    """

    model_type = "metavoice_first_stage"
    keys_to_ignore_at_inference = ["past_key_values"]

    vocab_size: int = 2562
    hidden_size: int = 2048
    intermediate_size: int = 5632
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = 2048
    pad_token_id: int | None = 2048
    speaker_embed_size: int = 256
    num_codes: int = 1024
    num_codebooks: int = 2
    text_token_offset: int = 2049
    end_of_text_token_id: int = 2561
    speaker_dropout: float = 0.0
    dropout: float = 0.0
    speaker_start_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.speaker_start_token_id is not None and not 0 <= self.speaker_start_token_id < self.vocab_size:
            raise ValueError(
                f"`speaker_start_token_id` must be in 0…{self.vocab_size - 1}, or None; "
                f"got {self.speaker_start_token_id}."
            )
        if not self.end_of_audio_token_id < self.text_token_offset <= self.end_of_text_token_id < self.vocab_size:
            raise ValueError(
                "`num_codes` · `num_codebooks` < `text_token_offset` <= `end_of_text_token_id` < `vocab_size` must "
                f"hold; got {self.end_of_audio_token_id}, {self.text_token_offset}, {self.end_of_text_token_id}, "
                f"{self.vocab_size}."
            )
        for name in ("speaker_dropout", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in 0…1; got {getattr(self, name)}.")

    @property
    def end_of_audio_token_id(self) -> int:
        """The id that ends an utterance."""
        return self.num_codes * self.num_codebooks

    @property
    def has_llama_blocks(self) -> bool:
        """Whether the blocks are Llama's, as the released model's are, and the speaker is heard on every row."""
        return self.norm_type == "rms_norm" and self.use_gated_mlp and self.speaker_start_token_id is None


# trf-ignore: TRF057
@strict
class MetaVoiceSecondStageConfig(MetaVoiceStageConfig):
    r"""
    Configuration of [`MetaVoiceSecondStageModel`], which fills in the other EnCodec codes of all frames at once. The
    defaults are the released model's.

    Args:
        vocab_sizes (`list[int]`, *optional*, defaults to `[1538, 1025]`):
            Rows of the table of each input: codes, padding and text; codes and padding.
        target_vocab_sizes (`list[int]`, *optional*, defaults to six times 1025):
            Choices of each predicted codebook: codes and padding, or fewer codes.
        max_position_embeddings (`int`, *optional*, defaults to 1024):
            Learned positions; the model always reads so many.
        norm_type (`str`, *optional*, defaults to `"layer_norm"`):
            `"layer_norm"` or `"rms_norm"`.
        use_norm_bias (`bool`, *optional*, defaults to `False`):
            Whether a layer norm has a bias.
        use_gated_mlp (`bool`, *optional*, defaults to `False`):
            Whether the MLP is gated, as Llama's, instead of two layers.
        speaker_embed_size (`int`, *optional*, defaults to 256):
            Width of the speaker vector.
        num_codes (`int`, *optional*, defaults to 1024):
            Entries of a codebook; the id after them is the padding.
        text_token_offset (`int`, *optional*, defaults to 1025):
            Added to the tokenizer's ids.
        end_of_text_token_id (`int`, *optional*, defaults to 1537):
            Follows a text.
        dropout (`float`, *optional*, defaults to 0.0):
            In training, of the embeddings.
    """

    model_type = "metavoice_second_stage"

    vocab_sizes: list[int] | tuple[int, ...] = (1538, 1025)
    target_vocab_sizes: list[int] | tuple[int, ...] = (1025,) * 6
    hidden_size: int = 384
    intermediate_size: int = 1536
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    max_position_embeddings: int = 1024
    hidden_act: str = "gelu"
    rms_norm_eps: float = 1e-5
    use_cache: bool = False
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = 1024
    norm_type: str = "layer_norm"
    use_gated_mlp: bool = False
    speaker_embed_size: int = 256
    num_codes: int = 1024
    text_token_offset: int = 1025
    end_of_text_token_id: int = 1537
    dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        self.vocab_sizes, self.target_vocab_sizes = list(self.vocab_sizes), list(self.target_vocab_sizes)
        if not self.vocab_sizes or not self.target_vocab_sizes:
            raise ValueError("`vocab_sizes` and `target_vocab_sizes` must name at least one codebook each.")
        self.vocab_size = self.vocab_sizes[0]
        super().__post_init__(**kwargs)
        if not self.num_codes < self.text_token_offset <= self.end_of_text_token_id < self.vocab_sizes[0]:
            raise ValueError(
                "`num_codes` < `text_token_offset` <= `end_of_text_token_id` < `vocab_sizes[0]` must hold; got "
                f"{self.num_codes}, {self.text_token_offset}, {self.end_of_text_token_id}, {self.vocab_sizes[0]}."
            )
        if min(self.vocab_sizes) <= self.num_codes:
            raise ValueError(f"`vocab_sizes` must all exceed `num_codes` {self.num_codes}; got {self.vocab_sizes}.")
        if min(self.target_vocab_sizes) < 1:
            raise ValueError(f"`target_vocab_sizes` must all be at least 1; got {self.target_vocab_sizes}.")

    @property
    def num_codebooks(self) -> int:
        """Codebooks that go in, and that come out after them."""
        return len(self.vocab_sizes) + len(self.target_vocab_sizes)


# trf-ignore: TRF057
@strict
class MetaVoiceSpeakerEncoderConfig(PreTrainedConfig):
    r"""
    Configuration of [`MetaVoiceSpeakerEncoder`], an LSTM over windows of mel frames.

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
            Windows begin so often.
        min_coverage (`float`, *optional*, defaults to 0.75):
            The share of a last window that must lie in the recording.
        sampling_rate (`int`, *optional*, defaults to 16000):
            Rate of the recordings, in Hz.
        hop_length (`int`, *optional*, defaults to 160):
            Samples of a frame.
    """

    model_type = "metavoice_speaker_encoder"

    num_mel_bins: int = 40
    hidden_size: int = 256
    num_hidden_layers: int = 3
    speaker_embed_size: int = 256
    window_frames: int = 160
    windows_per_second: float = 1.3
    min_coverage: float = 0.75
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
        return round(self.sampling_rate / self.windows_per_second / self.hop_length)


# trf-ignore: TRF057
@strict
class MetaVoiceMultiBandDiffusionConfig(PreTrainedConfig):
    r"""
    Configuration of [`MetaVoiceMultiBandDiffusion`], which makes sound of EnCodec's latent, one network per band.

    Args:
        band_configs (`list[dict]`, *optional*, defaults to four times the defaults of upstream's training):
            Of each band: its network (`hidden_size`, `depth`, `growth`, `max_channels`, `kernel_size`, `stride`,
            `res_blocks`, `norm_groups`, `use_lstm`, `use_transformer`, `embed_all_layers`, `use_condition`: whether it
            hears the latent, `use_cross_attention`: whether its transformer attends to it), its schedule
            (`beta_start`, `beta_end`, `beta_exponent`, `num_train_steps`, `clip`, `noise_scale`) and its processor
            (`processor_bands`, `processor_power`; 0 bands for none).
        codec_hidden_size (`int`, *optional*, defaults to 128):
            Width of the latent.
        sampling_rate (`int`, *optional*, defaults to 24000):
            Rate of the sound, in Hz.
        hop_length (`int`, *optional*, defaults to 320):
            Samples of a frame of the latent.
        num_inference_steps (`int`, *optional*, defaults to 20):
            Calls of each network.
        equalizer_bands (`int`, *optional*, defaults to 32):
            Bands whose loudness is taken from EnCodec's own sound.
    """

    model_type = "metavoice_multi_band_diffusion"

    band_configs: list[dict] | None = None
    codec_hidden_size: int = 128
    sampling_rate: int = 24000
    hop_length: int = 320
    num_inference_steps: int = 20
    equalizer_bands: int = 32
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        given = [{}] * 4 if self.band_configs is None else self.band_configs
        unknown = sorted({name for band in given for name in band if name not in _BAND})
        if unknown:
            raise ValueError(f"`band_configs` must name {', '.join(_BAND)}; got {', '.join(unknown)}.")
        self.band_configs = [_BAND | band for band in given]
        for band in self.band_configs:
            if band["use_cross_attention"] and not (band["use_transformer"] and band["use_condition"]):
                raise ValueError(
                    "`band_configs`: `use_cross_attention` needs `use_transformer` and `use_condition`; got "
                    f"{band['use_transformer']} and {band['use_condition']}."
                )
        super().__post_init__(**kwargs)


_BAND = {
    "hidden_size": 48,
    "depth": 4,
    "growth": 4.0,
    "max_channels": 10000,
    "kernel_size": 8,
    "stride": 4,
    "res_blocks": 1,
    "norm_groups": 4,
    "use_lstm": False,
    "use_transformer": False,
    "embed_all_layers": True,
    "use_condition": True,
    "use_cross_attention": False,
    "beta_start": 1e-5,
    "beta_end": 2.9e-2,
    "beta_exponent": 7.5,
    "num_train_steps": 1000,
    "clip": 5.0,
    "noise_scale": 1.0,
    "processor_bands": 0,
    "processor_power": 0.0,
}


# trf-ignore: TRF057
@strict
class MetaVoiceConfig(PreTrainedConfig):
    r"""
    Configuration of [`MetaVoiceForConditionalGeneration`]. The defaults are the released checkpoint's.

    Args:
        first_stage_config (`MetaVoiceFirstStageConfig` or `dict`, *optional*):
            The language model that writes the first two codes of every frame.
        second_stage_config (`MetaVoiceSecondStageConfig` or `dict`, *optional*):
            The network that fills in the other codes.
        speaker_encoder_config (`MetaVoiceSpeakerEncoderConfig` or `dict`, *optional*):
            The network that turns a recording into a speaker vector.
        codec_config (`EncodecConfig` or `dict`, *optional*):
            EnCodec, which makes sound of the codes.
        diffusion_config (`MetaVoiceMultiBandDiffusionConfig` or `dict`, *optional*):
            Multi-band diffusion, the slower and better way to make sound; `None` where the checkpoint has none.
        enhancer_config (`DeepFilterNetConfig` or `dict`, *optional*):
            DeepFilterNet, which takes noise out of the sound; `None` where the checkpoint has none.
    """

    model_type = "metavoice"
    sub_configs = {
        "first_stage_config": MetaVoiceFirstStageConfig,
        "second_stage_config": MetaVoiceSecondStageConfig,
        "speaker_encoder_config": MetaVoiceSpeakerEncoderConfig,
        "codec_config": EncodecConfig,
        "diffusion_config": MetaVoiceMultiBandDiffusionConfig,
        "enhancer_config": DeepFilterNetConfig,
    }
    keys_to_ignore_at_inference = ["past_key_values"]

    first_stage_config: dict | PreTrainedConfig | None = None
    second_stage_config: dict | PreTrainedConfig | None = None
    speaker_encoder_config: dict | PreTrainedConfig | None = None
    codec_config: dict | PreTrainedConfig | None = None
    diffusion_config: dict | PreTrainedConfig | None = None
    enhancer_config: dict | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for name, config_class in self.sub_configs.items():
            given = getattr(self, name)
            if isinstance(given, dict) or (given is None and name not in _OPTIONAL_PARTS):
                setattr(self, name, config_class(**(given or {})))
        super().__post_init__(**kwargs)
        self._check_parts()

    def _check_parts(self) -> None:
        first, second, codec = self.first_stage_config, self.second_stage_config, self.codec_config
        for name, stage in (("first_stage_config", first), ("second_stage_config", second)):
            if stage.speaker_embed_size != self.speaker_encoder_config.speaker_embed_size:
                raise ValueError(
                    f"`speaker_embed_size` is {self.speaker_encoder_config.speaker_embed_size} in the speaker encoder "
                    f"and {stage.speaker_embed_size} in `{name}`: they must agree."
                )
            if stage.num_codes != codec.codebook_size:
                raise ValueError(
                    f"`num_codes` {stage.num_codes} of `{name}` differs from the codec's {codec.codebook_size}."
                )
        if len(second.vocab_sizes) != first.num_codebooks:
            raise ValueError(
                f"The second stage reads {len(second.vocab_sizes)} codebooks (`vocab_sizes`); the first writes "
                f"{first.num_codebooks}."
            )
        if second.num_codebooks > codec.num_quantizers:
            raise ValueError(f"The stages write {second.num_codebooks} codebooks; EnCodec has {codec.num_quantizers}.")
        if self.diffusion_config is not None and self.diffusion_config.codec_hidden_size != codec.hidden_size:
            raise ValueError(
                f"`codec_hidden_size` {self.diffusion_config.codec_hidden_size} of the diffusion differs from the "
                f"codec's {codec.hidden_size}."
            )

    @property
    def sampling_rate(self) -> int:
        """Rate in Hz of what `generate` returns by default: the enhancer's after diffusion, else EnCodec's."""
        is_enhanced = self.diffusion_config is not None and self.enhancer_config is not None
        return (self.enhancer_config if is_enhanced else self.codec_config).sampling_rate

    @property
    def frame_length(self) -> int:
        """Samples of a frame of codes."""
        return self.codec_config.hop_length

    @property
    def num_codebooks(self) -> int:
        """Codebooks that both stages write together."""
        return self.second_stage_config.num_codebooks


_OPTIONAL_PARTS = ("diffusion_config", "enhancer_config")


__all__ = [
    "MetaVoiceConfig",
    "MetaVoiceFirstStageConfig",
    "MetaVoiceMultiBandDiffusionConfig",
    "MetaVoiceSecondStageConfig",
    "MetaVoiceSpeakerEncoderConfig",
]
