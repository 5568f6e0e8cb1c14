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
"""S3Gen model configuration."""

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from ..campplus import CAMPPlusConfig
from ..hiftnet import HiFTNetConfig
from ..s3_tokenizer import S3TokenizerConfig


# trf-ignore: TRF057
@strict
class S3GenConfig(PreTrainedConfig):
    r"""
    Configuration of a [`S3GenModel`]: speech tokens at 25 Hz and a reference voice to a waveform at 24 kHz. The
    defaults are those of the checkpoint released with Chatterbox, which publishes no configuration.

    Args:
        vocab_size (`int`, defaults to 6561): Number of speech tokens.
        token_embed_dim (`int`, defaults to 512): Width of the token embedding.
        speaker_feat_dim (`int`, defaults to 80): Filter bands from which the speaker vector is made.
        speaker_embed_dim (`int`, defaults to 192): Width of the speaker vector.
        encoder_output_size (`int`, defaults to 512): Width of the encoder.
        encoder_attention_heads (`int`, defaults to 8): Attention heads of the encoder.
        encoder_linear_units (`int`, defaults to 2048): Width of the encoder's feed-forward layers.
        encoder_num_blocks (`int`, defaults to 6): Encoder layers at the rate of the tokens.
        encoder_num_up_blocks (`int`, defaults to 4): Encoder layers at the rate of the mel frames.
        encoder_dropout_rate (`float`, defaults to 0.1): Dropout in the encoder during training.
        decoder_in_channels (`int`, defaults to 320): Inputs of the estimator, four times `mel_bins`.
        decoder_out_channels (`int`, defaults to 80): Outputs of the estimator, `mel_bins`.
        decoder_channels (`list[int]`, defaults to `[256]`): Width of the estimator, of one level.
        decoder_n_blocks (`int`, defaults to 4): Transformer blocks after each residual block.
        decoder_num_mid_blocks (`int`, defaults to 12): Residual blocks between the first and the last.
        decoder_num_heads (`int`, defaults to 8): Attention heads of the estimator.
        decoder_attention_head_dim (`int`, defaults to 64): Width of such a head.
        decoder_act_fn (`str`, defaults to `"gelu"`): Activation of the estimator's feed-forward layers, a name that
            transformers knows or `"geglu"` (halves of which one gates the other).
        cfm_sigma_min (`float`, defaults to 1e-6): Noise left at the end of the path.
        cfm_solver (`str`, defaults to `"euler"`): How the flow is integrated; nothing else is implemented.
        cfm_t_scheduler (`str`, defaults to `"cosine"`): Spacing of the steps, `"cosine"` or `"linear"`. A mean-flow
            model always uses linear steps.
        cfm_inference_cfg_rate (`float`, defaults to 0.7): Strength of classifier-free guidance.
        cfm_training_cfg_rate (`float`, defaults to 0.2): Share of training rows without any condition.
        sampling_rate (`int`, defaults to 24000): Rate of the waveform in Hz.
        mel_bins (`int`, defaults to 80): Mel bands.
        n_fft, hop_length, win_size (`int`, defaults to 1920, 480 and 1920): Frames of the mel spectrogram, in samples.
        fmin, fmax (`float`, defaults to 0 and 8000): Range of the mel bands in Hz.
        input_frame_rate (`int`, defaults to 25): Tokens per second.
        token_mel_ratio (`int`, defaults to 2): Mel frames per token.
        pre_lookahead_len (`int`, defaults to 3): Tokens that the encoder hears ahead.
        meanflow (`bool`, defaults to `False`): Whether the estimator predicts mean velocities (Chatterbox Turbo): two
            steps without guidance.
        num_flow_steps (`int`, *optional*): Steps of the solver; 10, or 2 for a mean-flow model, when absent.
        chunk_size (`int`, defaults to 25): Tokens per chunk of the streaming mask.
        initializer_range (`float`, defaults to 0.02): Standard deviation of freshly initialised weights.
        tokenizer_config (`dict` or [`S3TokenizerConfig`], *optional*): The tokenizer of reference recordings.
        speaker_encoder_config (`dict` or [`CAMPPlusConfig`], *optional*): The speaker encoder.
        vocoder_config (`dict` or [`HiFTNetConfig`], *optional*): The vocoder.

    Example:

    ```python
    >>> from tts_models import S3GenConfig

    >>> config = S3GenConfig(
    ...     vocab_size=6561, encoder_num_blocks=6, decoder_num_mid_blocks=12, sampling_rate=24000, mel_bins=80
    ... )
    >>> config.samples_per_token
    960
    ```
    """

    model_type = "s3gen"
    sub_configs = {
        "tokenizer_config": S3TokenizerConfig,
        "speaker_encoder_config": CAMPPlusConfig,
        "vocoder_config": HiFTNetConfig,
    }

    vocab_size: int = 6561
    token_embed_dim: int = 512
    speaker_feat_dim: int = 80
    speaker_embed_dim: int = 192
    encoder_output_size: int = 512
    encoder_attention_heads: int = 8
    encoder_linear_units: int = 2048
    encoder_num_blocks: int = 6
    encoder_num_up_blocks: int = 4
    encoder_dropout_rate: float | int = 0.1
    decoder_in_channels: int = 320
    decoder_out_channels: int = 80
    decoder_channels: list[int] | tuple[int, ...] = (256,)
    decoder_n_blocks: int = 4
    decoder_num_mid_blocks: int = 12
    decoder_num_heads: int = 8
    decoder_attention_head_dim: int = 64
    decoder_act_fn: str = "gelu"
    cfm_sigma_min: float = 1e-6
    cfm_solver: str = "euler"
    cfm_t_scheduler: str = "cosine"
    cfm_inference_cfg_rate: float | int = 0.7
    cfm_training_cfg_rate: float | int = 0.2
    sampling_rate: int = 24000
    mel_bins: int = 80
    n_fft: int = 1920
    hop_length: int = 480
    win_size: int = 1920
    fmin: float | int = 0
    fmax: float | int | None = 8000
    input_frame_rate: int = 25
    token_mel_ratio: int = 2
    pre_lookahead_len: int = 3
    meanflow: bool = False
    num_flow_steps: int | None = None
    chunk_size: int = 25
    initializer_range: float = 0.02
    tokenizer_config: dict | PreTrainedConfig | None = None
    speaker_encoder_config: dict | PreTrainedConfig | None = None
    vocoder_config: dict | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs):
        self.decoder_channels = list(self.decoder_channels)
        for name, config_class in self.sub_configs.items():
            value = getattr(self, name)
            if not isinstance(value, PreTrainedConfig):
                setattr(self, name, config_class(**(value or {})))
        super().__post_init__(**kwargs)
        self._check_values()

    def _check_values(self) -> None:
        expected = {
            "decoder_in_channels": 4 * self.mel_bins,
            "decoder_out_channels": self.mel_bins,
            "hop_length": self.sampling_rate // (self.input_frame_rate * self.token_mel_ratio),
            "cfm_solver": "euler",
        }
        for name, value in expected.items():
            if getattr(self, name) != value:
                raise ValueError(f"`{name}` must be {value!r} with the other values, got {getattr(self, name)!r}.")
        if len(self.decoder_channels) != 1:
            raise ValueError(f"`decoder_channels` must hold the width of one level, got {self.decoder_channels}.")
        if self.encoder_output_size % self.encoder_attention_heads or self.encoder_output_size % 2:
            raise ValueError(
                f"`encoder_output_size` must be even and divisible by `encoder_attention_heads="
                f"{self.encoder_attention_heads}`, got {self.encoder_output_size}."
            )
        if self.cfm_t_scheduler not in ("cosine", "linear"):
            raise ValueError(f"`cfm_t_scheduler` must be 'cosine' or 'linear', got {self.cfm_t_scheduler!r}.")
        for name in ("chunk_size", "token_mel_ratio", "vocab_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")

    @property
    def samples_per_token(self) -> int:
        """Samples of the waveform per speech token."""
        return self.token_mel_ratio * self.hop_length

    @property
    def default_flow_steps(self) -> int:
        """Steps of the solver where none are asked for."""
        return self.num_flow_steps or (2 if self.meanflow else 10)


__all__ = ["S3GenConfig"]
