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
"""Configuration of MegaTTS3: aligner, grapheme-to-phoneme model, duration model, diffusion transformer, WaveVAE."""

from math import prod
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, Qwen2Config


# The phone token with which the grapheme-to-phoneme model ends.
LAST_PHONE_TOKEN = 801
DURATION_HEADS = ("regression", "classification")
# The released grapheme-to-phoneme model: Qwen2.5-0.5B with a larger vocabulary.
_G2P = {
    "vocab_size": 168896,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": True,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
}


def _check_at_least(config: PreTrainedConfig, least: int, *names: str) -> None:
    for name in names:
        if getattr(config, name) < least:
            raise ValueError(f"`{name}` must be at least {least}; got {getattr(config, name)}.")


def _check_heads(config: PreTrainedConfig, width: str, heads: str) -> None:
    _check_at_least(config, 1, width, heads)
    if getattr(config, width) % getattr(config, heads):
        raise ValueError(f"`{heads}` {getattr(config, heads)} must divide `{width}` {getattr(config, width)}.")


# trf-ignore: TRF057 (for models outside the library, that decorator prints an error at import)
@strict
class MegaTTS3TextEncoderConfig(PreTrainedConfig):
    r"""
    Configuration of the encoder of phones and tones that the duration model and the diffusion transformer each have.
    The defaults are the released duration model's.

    Args:
        vocab_size (`int`, *optional*, defaults to 174):
            Phone ids; 0 is padding.
        num_tones (`int`, *optional*, defaults to 23):
            Tone ids; 0 is padding.
        hidden_size (`int`, *optional*, defaults to 512):
            Width.
        intermediate_size (`int`, *optional*, defaults to 1024):
            Width of the feed-forward layers.
        num_hidden_layers, num_attention_heads (`int`, *optional*, defaults to 4 and 2):
            Layers, and heads of each.
        kernel_size (`int`, *optional*, defaults to 3):
            Phones that a feed-forward layer sees at once; odd.
        prenet_layers, prenet_kernel_size (`int`, *optional*, defaults to 3 and 5):
            Convolutions in front of the layers.
        window_size (`int`, *optional*, defaults to 4):
            Distance up to which relative positions have rows of their own.
        use_bias (`bool`, *optional*, defaults to `True`):
            Whether the attention projections have biases.
        norm_first (`bool`, *optional*, defaults to `True`):
            Whether the norms stand before the parts of a layer, and one after all layers, or after each part.
        layer_norm_eps (`float`, *optional*, defaults to 1e-4):
            Added to the variance.
        dropout, attention_dropout (`float`, *optional*, default to 0.0):
            Dropout in training.
    """

    model_type = "megatts3_text_encoder"
    base_config_key = "text_encoder_config"

    vocab_size: int = 174
    num_tones: int = 23
    hidden_size: int = 512
    intermediate_size: int = 1024
    num_hidden_layers: int = 4
    num_attention_heads: int = 2
    kernel_size: int = 3
    prenet_layers: int = 3
    prenet_kernel_size: int = 5
    window_size: int = 4
    use_bias: bool = True
    norm_first: bool = True
    layer_norm_eps: float = 1e-4
    dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_heads(self, "hidden_size", "num_attention_heads")
        _check_at_least(self, 1, "vocab_size", "num_tones", "window_size")
        if self.hidden_size % 2 or self.hidden_size < 4:
            raise ValueError(f"`hidden_size` must be even and at least 4; got {self.hidden_size}.")
        for name in ("kernel_size", "prenet_kernel_size"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"`{name}` must be odd; got {getattr(self, name)}.")


# trf-ignore: TRF057
@strict
class MegaTTS3AlignerConfig(PreTrainedConfig):
    r"""
    Configuration of [`MegaTTS3AlignerForConditionalGeneration`], built like Whisper: mel frames of a recording in,
    phones and the frames at which they end out. The defaults are the released model's.

    Args:
        vocab_size (`int`, *optional*, defaults to 6800):
            Tokens: phones, start, end, and from `first_time_token_id` on frames.
        num_mel_bins (`int`, *optional*, defaults to 80):
            Mel bands of the input.
        hidden_size (`int`, *optional*, defaults to 512):
            Width.
        encoder_layers, decoder_layers (`int`, *optional*, both default to 6):
            Layers.
        encoder_attention_heads, decoder_attention_heads (`int`, *optional*, both default to 8):
            Heads of each.
        encoder_ffn_dim, decoder_ffn_dim (`int`, *optional*, both default to 2048):
            Widths of the feed-forward layers.
        max_source_positions (`int`, *optional*, defaults to 3000):
            The longest recording, in pairs of mel frames (60 s).
        max_target_positions (`int`, *optional*, defaults to 2048):
            Learned positions of the decoder.
        max_new_tokens (`int`, *optional*, defaults to 768):
            The most tokens that are generated.
        first_time_token_id (`int`, *optional*, defaults to 800):
            This token means frame 0, the next one frame 1 of 10 ms.
        decoder_start_token_id, eos_token_id, pad_token_id (`int`, *optional*, default to 798, 799 and 0):
            Tokens that begin and end the output, and that fill up rows of a batch.
        activation_function, dropout, attention_dropout, activation_dropout:
            As in `WhisperConfig`.
    """

    model_type = "megatts3_aligner"
    base_config_key = "aligner_config"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "d_model": "hidden_size",
        "num_attention_heads": "decoder_attention_heads",
        "num_key_value_heads": "decoder_attention_heads",
        "num_hidden_layers": "decoder_layers",
    }

    vocab_size: int = 6800
    num_mel_bins: int = 80
    hidden_size: int = 512
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    max_source_positions: int = 3000
    max_target_positions: int = 2048
    max_new_tokens: int = 768
    first_time_token_id: int = 800
    decoder_start_token_id: int = 798
    bos_token_id: int | None = 798
    eos_token_id: int | list[int] | None = 799
    pad_token_id: int | None = 0
    activation_function: str = "gelu"
    dropout: float | int = 0.0
    attention_dropout: float | int = 0.0
    activation_dropout: float | int = 0.0
    use_cache: bool = True
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        _check_heads(self, "hidden_size", "encoder_attention_heads")
        _check_heads(self, "hidden_size", "decoder_attention_heads")
        for name in ("decoder_start_token_id", "eos_token_id", "first_time_token_id"):
            if not 0 <= getattr(self, name) < self.vocab_size:
                raise ValueError(f"`{name}` must be in 0…{self.vocab_size - 1}; got {getattr(self, name)}.")


# trf-ignore: TRF057
@strict
class MegaTTS3DurationConfig(PreTrainedConfig):
    r"""
    Configuration of [`MegaTTS3DurationModel`], which gives every phone a length. The defaults are the
    released model's.

    Args:
        text_encoder_config (`MegaTTS3TextEncoderConfig` or `dict`, *optional*):
            The encoder of phones and tones.
        use_text_encoder (`bool`, *optional*, defaults to `True`):
            Whether phones and tones are encoded. Otherwise the sum of their embeddings is read, and of
            `text_encoder_config` only the tables' sizes count.
        hidden_size (`int`, *optional*, defaults to 512):
            Width of the decoder.
        intermediate_size (`int`, *optional*, defaults to 2048):
            Width of its feed-forward layers.
        num_hidden_layers, num_attention_heads (`int`, *optional*, defaults to 8 and 8):
            Its layers, and heads of each.
        num_durations (`int`, *optional*, defaults to 128):
            Durations of 0…`num_durations - 1` frames of 10 ms are told apart. As tokens they are one more.
        head_type (`str`, *optional*, defaults to `"regression"`):
            Whether the token is the rounded output of one number or the best of `num_durations + 1` scores
            (`"classification"`).
        use_position_embedding (`bool`, *optional*, defaults to `False`):
            Whether absolute positions are added to the input, in addition to rotary ones.
        norm_first (`bool`, *optional*, defaults to `True`):
            Whether the norms stand before the parts of a layer, and one after all layers, or after each part.
        rope_theta (`float`, *optional*, defaults to 10000.0):
            Base of the rotary positions.
        max_position_embeddings (`int`, *optional*, defaults to 60000):
            The most phones of prompt and text together.
        layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            Added to the variance.
        dropout (`float`, *optional*, defaults to 0.0):
            Dropout in training.
    """

    model_type = "megatts3_duration"
    base_config_key = "duration_config"
    sub_configs = {"text_encoder_config": MegaTTS3TextEncoderConfig}
    keys_to_ignore_at_inference = ["past_key_values"]

    text_encoder_config: dict | PreTrainedConfig | None = None
    use_text_encoder: bool = True
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_durations: int = 128
    head_type: str = "regression"
    use_position_embedding: bool = False
    norm_first: bool = True
    rope_theta: float | int = 10000.0
    max_position_embeddings: int = 60000
    layer_norm_eps: float = 1e-5
    dropout: float | int = 0.0
    use_cache: bool = True
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.text_encoder_config, PreTrainedConfig):
            self.text_encoder_config = MegaTTS3TextEncoderConfig(**(self.text_encoder_config or {}))
        super().__post_init__(**kwargs)
        _check_heads(self, "hidden_size", "num_attention_heads")
        _check_at_least(self, 2, "num_durations")
        if self.head_type not in DURATION_HEADS:
            raise ValueError(f"`head_type` must be one of {', '.join(DURATION_HEADS)}; got {self.head_type!r}.")

    @property
    def begin_token_id(self) -> int:
        """Stands for the duration before the first phone."""
        return self.num_durations + 1


# trf-ignore: TRF057
@strict
class MegaTTS3TransformerConfig(PreTrainedConfig):
    r"""
    Configuration of [`MegaTTS3TransformerModel`], which turns noise into latents by flow matching. The defaults
    are the released model's.

    Args:
        text_encoder_config (`MegaTTS3TextEncoderConfig` or `dict`, *optional*):
            The encoder of phones and tones, of the width of the transformer.
        dropped_phone_id, dropped_tone_id (`int`, *optional*):
            What stands for an absent text; by default the last ids of the encoder's tables, 301 and 31.
        latent_dim (`int`, *optional*, defaults to 32):
            Channels of the latents.
        hidden_size, intermediate_size (`int`, *optional*, defaults to 1024 and 2048):
            Widths of the transformer and of its feed-forward layers.
        num_hidden_layers, num_attention_heads (`int`, *optional*, defaults to 24 and 16):
            Its layers, and heads of each.
        local_condition_size, context_mask_size (`int`, *optional*, defaults to 512 and 16):
            Widths to which the prompt with its mask, and the mask alone, are projected.
        time_embedding_size (`int`, *optional*, defaults to 256):
            Width of the sinusoids of the time.
        frames_per_latent (`int`, *optional*, defaults to 4):
            Frames of a latent: two convolutions of stride two.
        max_position_embeddings (`int`, *optional*, defaults to 16384):
            The most latents of prompt and speech together.
        rope_theta (`float`, *optional*, defaults to 10000.0):
            Base of the rotary positions.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Added to the variance.
        num_inference_steps (`int`, *optional*, defaults to 32):
            Steps of the solver.
        intelligibility_weight, similarity_weight (`float`, *optional*, defaults to 1.6 and 2.5):
            Strengths of the guidance by the text (upstream's `p_w`) and by the speaker (`t_w`).
        sway_coefficient (`float`, *optional*, defaults to -1.0):
            How far the steps are moved towards the beginning.
        overshoot (`float`, *optional*, defaults to 3.0):
            How many steps further than its end a step goes before noise takes it back.
        condition_dropout (`float`, *optional*, defaults to 0.1):
            Share of training rows without a text, and without a prompt.
    """

    model_type = "megatts3_transformer"
    base_config_key = "transformer_config"
    sub_configs = {"text_encoder_config": MegaTTS3TextEncoderConfig}

    text_encoder_config: dict | PreTrainedConfig | None = None
    dropped_phone_id: int | None = None
    dropped_tone_id: int | None = None
    latent_dim: int = 32
    hidden_size: int = 1024
    intermediate_size: int = 2048
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    local_condition_size: int = 512
    context_mask_size: int = 16
    time_embedding_size: int = 256
    frames_per_latent: int = 4
    max_position_embeddings: int = 16384
    rope_theta: float | int = 10000.0
    layer_norm_eps: float = 1e-6
    num_inference_steps: int = 32
    intelligibility_weight: float | int = 1.6
    similarity_weight: float | int = 2.5
    sway_coefficient: float | int = -1.0
    overshoot: float | int = 3.0
    condition_dropout: float | int = 0.1
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.text_encoder_config, PreTrainedConfig):
            given = self.text_encoder_config or {}
            default = {
                "vocab_size": 302,
                "num_tones": 32,
                "hidden_size": self.hidden_size,
                "intermediate_size": 2 * self.hidden_size,
                "num_hidden_layers": 6,
                "num_attention_heads": 4,
            }
            self.text_encoder_config = MegaTTS3TextEncoderConfig(**(default | given))
        if self.dropped_phone_id is None:
            self.dropped_phone_id = self.text_encoder_config.vocab_size - 1
        if self.dropped_tone_id is None:
            self.dropped_tone_id = self.text_encoder_config.num_tones - 1
        super().__post_init__(**kwargs)
        _check_heads(self, "hidden_size", "num_attention_heads")
        self._check_values()

    def _check_values(self) -> None:
        if self.head_dim % 2:
            raise ValueError(f"The width of an attention head must be even; it is {self.head_dim}.")
        if self.text_encoder_config.hidden_size != self.hidden_size:
            raise ValueError(
                f"`text_encoder_config` has the width {self.text_encoder_config.hidden_size}; the transformer's is "
                f"{self.hidden_size}."
            )
        if self.frames_per_latent != 4:
            raise ValueError(f"`frames_per_latent` must be 4, two strides of 2; got {self.frames_per_latent}.")
        _check_at_least(self, 1, "latent_dim", "num_inference_steps")
        tables = self.text_encoder_config.vocab_size, self.text_encoder_config.num_tones
        for name, size in zip(("dropped_phone_id", "dropped_tone_id"), tables, strict=True):
            if not 0 < getattr(self, name) < size:
                raise ValueError(f"`{name}` must be in 1…{size - 1}; got {getattr(self, name)}.")
        if not 0 <= self.condition_dropout < 1:
            raise ValueError(f"`condition_dropout` must be at least 0 and below 1; got {self.condition_dropout}.")

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.hidden_size // self.num_attention_heads


# trf-ignore: TRF057
@strict
class MegaTTS3VAEConfig(PreTrainedConfig):
    r"""
    Configuration of [`MegaTTS3VAEModel`] (WaveVAE), which turns latents into a waveform, and back where the checkpoint
    has the encoder. The defaults are those of the complete model.

    Args:
        sampling_rate (`int`, *optional*, defaults to 24000):
            Rate of the waveform in Hz.
        latent_dim (`int`, *optional*, defaults to 32):
            Channels of the latents.
        decoder_input_size (`int`, *optional*, defaults to 320):
            Width to which latents are projected.
        latent_upsampling_ratio (`int`, *optional*, defaults to 4):
            By how much they are lengthened before the generator.
        decoder_hidden_size (`int`, *optional*, defaults to 128):
            Width of the generator's last stage; each stage before it is twice as wide.
        upsampling_ratios (`list[int]`, *optional*, defaults to `[5, 4, 4, 3]`):
            By how much the generator's stages lengthen.
        resblock_kernel_sizes, resblock_dilation_sizes (`list[int]`, *optional*, `[3, 7, 11]` and `[1, 3, 5]`):
            Residual blocks after each stage, and the dilations in each of them.
        use_tanh (`bool`, *optional*, defaults to `True`):
            Whether the waveform ends in a tanh; otherwise in one more convolution.
        num_bands (`int`, *optional*, defaults to 1):
            Channels of the waveform: a decoder of several gives bands, which something else joins.
        has_encoder (`bool`, *optional*, defaults to `True`):
            Whether there is an encoder; the official release has none.
        encoder_num_filters (`int`, *optional*, defaults to 32):
            Width of its first convolution, doubled by every stage.
        encoder_hidden_size (`int`, *optional*, defaults to 512):
            Width of its output.
        encoder_ratios (`list[int]`, *optional*, defaults to `[6, 5, 4, 4, 2]`):
            By how much its stages shorten the waveform, the last one first.
        encoder_num_lstm_layers (`int`, *optional*, defaults to 2):
            Layers of its LSTM; 0 for none.
        kl_weight (`float`, *optional*, defaults to 1e-4):
            Weight of the divergence in the training loss.
    """

    model_type = "megatts3_vae"
    base_config_key = "vae_config"

    sampling_rate: int = 24000
    latent_dim: int = 32
    decoder_input_size: int = 320
    latent_upsampling_ratio: int = 4
    decoder_hidden_size: int = 128
    upsampling_ratios: list[int] | tuple[int, ...] = (5, 4, 4, 3)
    resblock_kernel_sizes: list[int] | tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: list[int] | tuple[int, ...] = (1, 3, 5)
    use_tanh: bool = True
    num_bands: int = 1
    has_encoder: bool = True
    encoder_num_filters: int = 32
    encoder_hidden_size: int = 512
    encoder_ratios: list[int] | tuple[int, ...] = (6, 5, 4, 4, 2)
    encoder_num_lstm_layers: int = 2
    kl_weight: float | int = 1e-4
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("encoder_ratios", "upsampling_ratios", "resblock_kernel_sizes", "resblock_dilation_sizes"):
            setattr(self, name, list(getattr(self, name)))
        super().__post_init__(**kwargs)
        _check_at_least(self, 1, "latent_dim", "decoder_hidden_size", "latent_upsampling_ratio", "num_bands")
        _check_at_least(self, 0, "encoder_num_lstm_layers")
        if prod(self.encoder_ratios) != self.hop_length:
            raise ValueError(
                f"`encoder_ratios` {self.encoder_ratios} shorten by {prod(self.encoder_ratios)}, but the decoder "
                f"lengthens by {self.hop_length}."
            )

    @property
    def hop_length(self) -> int:
        """Samples of a latent."""
        return self.latent_upsampling_ratio * prod(self.upsampling_ratios)


# trf-ignore: TRF057
@strict
class MegaTTS3Config(PreTrainedConfig):
    r"""
    Configuration of [`MegaTTS3ForConditionalGeneration`]. The defaults are the released checkpoint's.

    Args:
        aligner_config (`MegaTTS3AlignerConfig` or `dict`, *optional*):
            Finds the phones of a reference recording, and when they are spoken.
        g2p_config (`Qwen2Config` or `dict`, *optional*):
            The language model that writes the phones of a text.
        duration_config (`MegaTTS3DurationConfig` or `dict`, *optional*):
            Gives every phone a length.
        transformer_config (`MegaTTS3TransformerConfig` or `dict`, *optional*):
            Makes latents from phones, their lengths and the reference.
        vae_config (`MegaTTS3VAEConfig` or `dict`, *optional*):
            Makes latents audible.
        frames_multiple (`int`, *optional*, defaults to 8):
            Every piece of speech lasts a multiple of so many frames of 10 ms.
        g2p_first_phone_id (`int`, *optional*, defaults to 151667):
            The token of the grapheme-to-phoneme model that means phone token 0; the next one means 1.
        aligner_sampling_rate (`int`, *optional*, defaults to 16000):
            Rate in Hz at which the aligner hears.
    """

    model_type = "megatts3"
    sub_configs = {
        "aligner_config": MegaTTS3AlignerConfig,
        "g2p_config": Qwen2Config,
        "duration_config": MegaTTS3DurationConfig,
        "transformer_config": MegaTTS3TransformerConfig,
        "vae_config": MegaTTS3VAEConfig,
    }
    keys_to_ignore_at_inference = ["past_key_values"]

    aligner_config: dict | PreTrainedConfig | None = None
    g2p_config: dict | PreTrainedConfig | None = None
    duration_config: dict | PreTrainedConfig | None = None
    transformer_config: dict | PreTrainedConfig | None = None
    vae_config: dict | PreTrainedConfig | None = None
    frames_multiple: int = 8
    g2p_first_phone_id: int = 151667
    aligner_sampling_rate: int = 16000
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        for name, config_class in self.sub_configs.items():
            given = getattr(self, name)
            if given is None or isinstance(given, dict):
                given = given or {}
                setattr(self, name, config_class(**(_G2P | given if name == "g2p_config" else given)))
        super().__post_init__(**kwargs)
        self._check_parts()

    def _check_parts(self) -> None:
        transformer, vae, g2p = self.transformer_config, self.vae_config, self.g2p_config
        if transformer.latent_dim != vae.latent_dim:
            raise ValueError(
                f"`latent_dim` is {transformer.latent_dim} in the transformer and {vae.latent_dim} in the VAE: they "
                "must agree."
            )
        if vae.num_bands != 1:
            raise ValueError(f"`num_bands` must be 1, a waveform that can be heard; got {vae.num_bands}.")
        if vae.hop_length % transformer.frames_per_latent:
            raise ValueError(
                f"A latent of {vae.hop_length} samples cannot be divided into `frames_per_latent` "
                f"{transformer.frames_per_latent} frames."
            )
        if self.frames_multiple < 1 or self.frames_multiple % transformer.frames_per_latent:
            raise ValueError(
                f"`frames_multiple` must be a multiple of the {transformer.frames_per_latent} frames of a latent; "
                f"got {self.frames_multiple}."
            )
        if not 0 <= self.g2p_first_phone_id < g2p.vocab_size - LAST_PHONE_TOKEN:
            raise ValueError(
                f"`g2p_first_phone_id` must be in 0…{g2p.vocab_size - LAST_PHONE_TOKEN - 1}, so that all phone "
                f"tokens are in the vocabulary; got {self.g2p_first_phone_id}."
            )

    @property
    def sampling_rate(self) -> int:
        """Rate of the speech in Hz."""
        return self.vae_config.sampling_rate

    @property
    def g2p_end_token_id(self) -> int:
        """The token with which the grapheme-to-phoneme model ends."""
        return self.g2p_first_phone_id + LAST_PHONE_TOKEN

    @property
    def num_mel_bins(self) -> int:
        """Mel bands that the aligner hears."""
        return self.aligner_config.num_mel_bins

    @property
    def frames_per_latent(self) -> int:
        """Frames of a latent."""
        return self.transformer_config.frames_per_latent

    @property
    def frame_length(self) -> int:
        """Samples of a frame (10 ms)."""
        return self.vae_config.hop_length // self.frames_per_latent


__all__ = [
    "MegaTTS3AlignerConfig",
    "MegaTTS3Config",
    "MegaTTS3DurationConfig",
    "MegaTTS3TextEncoderConfig",
    "MegaTTS3TransformerConfig",
    "MegaTTS3VAEConfig",
]
