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
"""S3 tokenizer model configuration."""

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_rope_utils import RopeParameters


# trf-ignore: TRF057
@strict
class S3TokenizerConfig(PreTrainedConfig):
    r"""
    Configuration of an [`S3TokenizerModel`]. The defaults are those of the released tokenizer, version 2 at 25 tokens
    a second.

    Args:
        sampling_rate (`int`, defaults to 16000): Sampling rate of the audio, in Hz.
        fft_length (`int`, defaults to 400): Samples of a window of the log-mel features.
        hop_length (`int`, defaults to 160): Samples between windows.
        num_mel_bins (`int`, defaults to 128): Mel bands.
        hidden_size (`int`, defaults to 1280): Width of the encoder.
        intermediate_size (`int`, defaults to 5120): Width of the feed-forward layers.
        num_hidden_layers (`int`, defaults to 6): Layers.
        num_attention_heads (`int`, defaults to 20): Attention heads.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the convolutions and feed-forward layers.
        layer_norm_eps (`float`, defaults to 1e-5): Epsilon of the norms.
        attention_dropout (`float`, defaults to 0.0): Dropout of the attention weights in training.
        memory_kernel_size (`int`, defaults to 31): Tokens that the attention's memory branch spans, an odd number.
        max_position_embeddings (`int`, defaults to 2048): Positions that upstream's rotary table has; longer windows
            work.
        rope_parameters (`dict`, *optional*): Rotary embedding; base 10000 when absent.
        num_digits (`int`, defaults to 8): Dimensions of the quantizer; each becomes one of three digits of a token.
        window_frames (`int`, defaults to 3000): Mel frames (30 s) above which an utterance is cut into windows.
        window_overlap_frames (`int`, defaults to 400): Frames that neighbouring windows share.
        complete_tail (`bool`, defaults to `False`): Whether windows stop at the first that reaches the end. Upstream
            adds one more when the end lies within the overlap, and then loses up to 2 s of tokens there.
        initializer_range (`float`, defaults to 0.02): Standard deviation of freshly initialised weights.

    Example:

    ```python
    >>> from tts_models import S3TokenizerConfig

    >>> config = S3TokenizerConfig()
    >>> config.vocab_size, config.token_rate
    (6561, 25.0)
    ```
    """

    model_type = "s3_tokenizer"

    sampling_rate: int = 16000
    fft_length: int = 400
    hop_length: int = 160
    num_mel_bins: int = 128
    hidden_size: int = 1280
    intermediate_size: int = 5120
    num_hidden_layers: int = 6
    num_attention_heads: int = 20
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float | int = 0.0
    memory_kernel_size: int = 31
    max_position_embeddings: int = 2048
    rope_parameters: RopeParameters | dict | None = None
    num_digits: int = 8
    window_frames: int = 3000
    window_overlap_frames: int = 400
    complete_tail: bool = False
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"`hidden_size` must be a multiple of twice `num_attention_heads={self.num_attention_heads}`, got "
                f"{self.hidden_size}."
            )
        if self.memory_kernel_size % 2 == 0:
            raise ValueError(f"`memory_kernel_size` must be odd, got {self.memory_kernel_size}.")
        overlap, step = self.window_overlap_frames, 2 * self.frames_per_token
        if overlap % step or not 0 <= overlap < self.window_frames or self.window_frames % step:
            raise ValueError(
                f"`window_overlap_frames` and `window_frames` must be multiples of {step}, the former smaller, got "
                f"{overlap} and {self.window_frames}."
            )

    @property
    def frames_per_token(self) -> int:
        """Mel frames per token: two convolutions of stride 2."""
        return 4

    @property
    def vocab_size(self) -> int:
        """Number of different tokens."""
        return 3**self.num_digits

    @property
    def token_rate(self) -> float:
        """Tokens per second."""
        return self.sampling_rate / (self.hop_length * self.frames_per_token)


__all__ = ["S3TokenizerConfig"]
