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
"""HiFTNet: harmonic-plus-noise source and inverse Fourier transform (Li et al., 2023), as in CosyVoice and S3Gen."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.models.dac.modeling_dac import Snake1d
from transformers.utils import ModelOutput, can_return_tuple

from ...audio.lengths import frame_lengths
from ...loading import CompleteCheckpointMixin
from ...streaming.generators import RowGenerators, resolve_row_generators
from ...vocoder_layers import DilatedResidualBlock, FastConvolutionsMixin, keep, reflect
from ...weight_norm import apply_weight_norm, remove_weight_norm
from .configuration_hiftnet import HiFTNetConfig
from .source_hiftnet import HiFTNetSource, SourceDraws, draw_noise, draw_phase
from .streaming_hiftnet import HiFTNetStream


MAX_MAGNITUDE = 100.0


# trf-ignore: TRF057
@dataclass
class HiFTNetOutput(ModelOutput):
    r"""
    Output of [`HiFTNetModel`].

    waveform (`torch.FloatTensor` of shape `(batch, frames * hop_length)`):
        Audio in ± `config.audio_limit`, float32, zero after a row's end.
    source (`torch.FloatTensor` of shape `(batch, 1, frames * hop_length)`):
        The source that it was made from.
    f0 (`torch.FloatTensor` of shape `(batch, frames)`):
        Predicted fundamental frequency, in Hz.
    """

    waveform: torch.FloatTensor | None = None
    source: torch.FloatTensor | None = None
    f0: torch.FloatTensor | None = None


class HiFTNetResidualBlock(DilatedResidualBlock):
    """Residual block with Snakes."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int]):
        super().__init__(channels, kernel_size, dilations, Snake1d)


class HiFTNetF0Predictor(nn.Module):
    """Mel frames (batch, bands, frames) to the fundamental frequency (batch, frames), in Hz."""

    def __init__(self, config: HiFTNetConfig):
        super().__init__()
        width = config.f0_predictor_cond_channels
        self.layers = nn.ModuleList(
            nn.Conv1d(width if index else config.f0_predictor_in_channels, width, 3, padding=1)
            for index in range(config.f0_predictor_layers)
        )
        self.classifier = nn.Linear(width, 1)

    def forward(self, mel: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        hidden_states = keep(mel.to(self.classifier.weight.dtype), lengths)
        for layer in self.layers:
            hidden_states = keep(F.elu(layer(hidden_states)), lengths)
        return self.classifier(hidden_states.transpose(1, 2)).squeeze(-1).abs()


class HiFTNetSpectrum(nn.Module):
    """Short Fourier transform of the source, and the inverse of the predicted one, row ends respected."""

    def __init__(self, config: HiFTNetConfig):
        super().__init__()
        self.n_fft, self.hop = config.istft_n_fft, config.istft_hop_len

    def forward(self, signal: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Real and imaginary part (batch, n_fft + 2, samples / hop + 1), float32, of (batch, samples)."""
        window = torch.hann_window(self.n_fft, device=signal.device)
        padded = reflect(signal.float()[:, None], self.n_fft // 2, lengths)[:, 0]
        spectrum = torch.stft(padded, self.n_fft, self.hop, window=window, center=False, return_complex=True)
        return torch.cat([spectrum.real, spectrum.imag], dim=1)

    def inverse(self, magnitude: torch.Tensor, phase: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Signal (batch, (steps - 1) * hop) of (batch, n_fft / 2 + 1, steps)."""
        window = torch.hann_window(self.n_fft, device=magnitude.device)
        magnitude = keep(magnitude, lengths)
        frames = torch.fft.irfft(torch.polar(magnitude, phase), self.n_fft, dim=1).transpose(1, 2) * window
        envelope = keep(torch.ones_like(magnitude[:, :1]), lengths).transpose(1, 2) * window.square()
        signal, weight = self._overlap_add(frames), self._overlap_add(envelope)
        half = self.n_fft // 2
        return (signal / weight.clamp(min=1e-11))[:, half:-half]

    def _overlap_add(self, frames: torch.Tensor) -> torch.Tensor:
        """(batch, steps, n_fft) to (batch, n_fft + (steps - 1) * hop)."""
        samples = self.n_fft + (frames.shape[1] - 1) * self.hop
        # Whole hops per window; what is filled up ends behind the signal.
        parts = F.pad(frames, (0, -self.n_fft % self.hop)).unflatten(-1, (-1, self.hop)).unbind(2)
        last = len(parts) - 1
        joined = sum(F.pad(part, (0, 0, index, last - index)) for index, part in enumerate(parts))
        return joined.flatten(1)[:, :samples]


# trf-ignore: TRF057
class HiFTNetPreTrainedModel(CompleteCheckpointMixin, FastConvolutionsMixin, PreTrainedModel):
    """Base class: configuration, initialisation and weight normalisation shared by HiFTNet models."""

    config: HiFTNetConfig
    config_class = HiFTNetConfig
    conversion_script = "convert_s3gen_to_hf.py"
    base_model_prefix = "hiftnet"
    main_input_name = "input_features"
    # There is no attention: inside a larger model, whatever is asked of the other parts suits.
    _supports_sdpa = True
    _supports_flash_attn = True
    input_modalities = "audio"
    # The phase of the source is an integral of the pitch: rounding would be heard.
    _keep_in_fp32_modules_strict = ["f0_predictor", "harmonic_source"]
    _no_split_modules = ["HiFTNetResidualBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv1d):
            module.reset_parameters()
        elif isinstance(module, Snake1d):
            init.ones_(module.alpha)

    def apply_weight_norm(self) -> None:
        """Split the weights of the convolutions into magnitude and direction, the form that upstream trains.

        The convolutions of the source's spectrum stay plain, as there.
        """
        apply_weight_norm(module for name, module in self.named_modules() if not name.startswith("source_downs."))

    def remove_weight_norm(self) -> None:
        """Fuse magnitude and direction back into plain weights, the form that is stored."""
        remove_weight_norm(self.modules())


# trf-ignore: TRF057
class HiFTNetModel(HiFTNetPreTrainedModel):
    r"""
    HiFTNet vocoder: mel frames → pitch → harmonic source; mel frames and source → waveform.

    The source has random first phases and noise. `forward` and `inference` take them as tensors, or a generator per
    row from which every frame draws its own: however an utterance is split or batched, it sounds the same.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import HiFTNetConfig, HiFTNetModel

    >>> model = HiFTNetModel(HiFTNetConfig(base_channels=32, f0_predictor_cond_channels=16)).eval()
    >>> waveform, source = model.inference(torch.randn(1, 80, 10), generator=torch.Generator().manual_seed(0))
    >>> waveform.shape, source.shape
    (torch.Size([1, 4800]), torch.Size([1, 1, 4800]))
    ```
    """

    def __init__(self, config: HiFTNetConfig):
        super().__init__(config)
        widths = [config.base_channels // 2**stage for stage in range(len(config.upsample_rates) + 1)]
        self.f0_predictor = HiFTNetF0Predictor(config)
        self.harmonic_source = HiFTNetSource(config)
        self.spectrum = HiFTNetSpectrum(config)
        self.conv_pre = nn.Conv1d(config.in_channels, widths[0], 7, padding=3)
        stages = list(zip(config.upsample_rates, config.upsample_kernel_sizes, widths, widths[1:], strict=False))
        self.upsampler = nn.ModuleList(
            nn.ConvTranspose1d(width, narrower, kernel, stride, padding=(kernel - stride) // 2)
            for stride, kernel, width, narrower in stages
        )
        self.source_downs = nn.ModuleList(
            nn.Conv1d(config.istft_n_fft + 2, width, 2 * stride, stride, padding=stride // 2)
            if stride > 1
            else nn.Conv1d(config.istft_n_fft + 2, width, 1)
            for stride, width in zip(config.source_strides, widths[1:], strict=True)
        )
        source_blocks = zip(config.source_resblock_kernel_sizes, config.source_resblock_dilation_sizes, strict=True)
        self.source_resblocks = nn.ModuleList(
            HiFTNetResidualBlock(width, *block) for width, block in zip(widths[1:], source_blocks, strict=True)
        )
        blocks = list(zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True))
        self.resblocks = nn.ModuleList(HiFTNetResidualBlock(width, *block) for width in widths[1:] for block in blocks)
        self.conv_post = nn.Conv1d(widths[-1], config.istft_n_fft + 2, 7, padding=3)
        self.post_init()

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_features: torch.Tensor,
        lengths: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        phase: torch.Tensor | None = None,
        generator: RowGenerators = None,
    ) -> HiFTNetOutput:
        r"""
        Waveform of mel frames.

        Args:
            input_features (`torch.FloatTensor` of shape `(batch, in_channels, frames)`):
                Frames of [`HiFTNetFeatureExtractor`], padded on the right.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Valid frames per row; each row's waveform is the one it has alone.
            attention_mask (`torch.Tensor` of shape `(batch, frames)`, *optional*):
                1 for frames, 0 for right padding; another way to say `lengths`.
            noise (`torch.FloatTensor` of shape `(batch, nb_harmonics + 1, frames * hop_length)`, *optional*):
                Standard normal noise of the source; drawn when absent.
            phase (`torch.FloatTensor` of shape `(batch, nb_harmonics + 1, 1)`, *optional*):
                First phases of the harmonics in radians; drawn when absent.
            generator (`torch.Generator` or a list with one per row, *optional*): Where they are drawn from.

        Raises:
            ValueError: a wrong shape or length, or generators for another batch.
        """
        lengths = self._check(input_features, lengths, attention_mask)
        draws = self._draws(input_features, noise, phase, generator)
        f0 = self.f0_predictor(input_features, lengths)
        source, _ = self.harmonic_source(f0, draws)
        waveform = self.decode(input_features, source, lengths)
        return HiFTNetOutput(waveform=waveform, source=source, f0=f0)

    @torch.no_grad()
    def inference(
        self,
        speech_feat: torch.Tensor,
        cache_source: torch.Tensor | None = None,
        lengths: torch.LongTensor | None = None,
        noise: torch.Tensor | None = None,
        phase: torch.Tensor | None = None,
        generator: RowGenerators = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""
        As `forward`, without gradients.

        Args:
            speech_feat (`torch.FloatTensor` of shape `(batch, in_channels, frames)`): Mel frames.
            cache_source (`torch.FloatTensor` of shape `(batch, 1, n)`, *optional*):
                Takes the place of the first `n` samples of the source, `n` possibly 0.

        Returns:
            `waveform` float32 `(batch, frames * hop_length)` and its `source` `(batch, 1, frames * hop_length)`.

        Raises:
            ValueError: as `forward`, or a source that is longer than the waveform.
        """
        lengths = self._check(speech_feat, lengths, None)
        draws = self._draws(speech_feat, noise, phase, generator)
        source, _ = self.harmonic_source(self.f0_predictor(speech_feat, lengths), draws)
        if cache_source is not None and cache_source.shape[-1]:
            known = cache_source.shape[-1]
            if cache_source.dim() != 3 or cache_source.shape[1] != 1 or known > source.shape[-1]:
                raise ValueError(
                    f"`cache_source` must have shape (batch, 1, n) with n at most {source.shape[-1]}, got "
                    f"{tuple(cache_source.shape)}."
                )
            source[..., :known] = cache_source
        return self.decode(speech_feat, source, lengths), source

    def decode(
        self, input_features: torch.Tensor, source: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        r"""
        Waveform of mel frames and their source.

        Args:
            input_features (`torch.FloatTensor` of shape `(batch, in_channels, frames)`): Mel frames.
            source (`torch.FloatTensor` of shape `(batch, 1, frames * hop_length)`): Source at `config.sampling_rate`.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*): Valid frames per row.

        Returns:
            float32 `(batch, frames * hop_length)`.
        """
        config, dtype = self.config, self.conv_pre.weight.dtype
        samples = None if lengths is None else lengths * config.hop_length
        steps = None if samples is None else samples // config.istft_hop_len + 1
        spectrum = keep(self.spectrum(source[:, 0], samples).to(dtype), steps)
        hidden_states = keep(self.conv_pre(keep(input_features.to(dtype), lengths)), lengths)
        last, blocks, rate = len(self.upsampler) - 1, len(config.resblock_kernel_sizes), 1
        for stage, upsampler in enumerate(self.upsampler):
            rate *= config.upsample_rates[stage]
            valid = steps if stage == last or lengths is None else lengths * rate
            hidden_states = upsampler(F.leaky_relu(hidden_states, config.lrelu_slope))
            if stage == last:
                hidden_states = F.pad(hidden_states, (1, 0), mode="reflect")
            excitation = keep(self.source_downs[stage](spectrum), valid)
            hidden_states = keep(hidden_states + self.source_resblocks[stage](excitation, valid), valid)
            stage_blocks = self.resblocks[stage * blocks : (stage + 1) * blocks]
            hidden_states = sum(block(hidden_states, valid) for block in stage_blocks) / blocks
        # Upstream leaves this last slope at the library's default.
        predicted = self.conv_post(F.leaky_relu(hidden_states, 0.01)).float()
        log_magnitude, phase = predicted.split(config.istft_n_fft // 2 + 1, dim=1)
        waveform = self.spectrum.inverse(log_magnitude.exp().clamp(max=MAX_MAGNITUDE), phase.sin(), steps)
        return keep(waveform.clamp(-config.audio_limit, config.audio_limit)[:, None], samples)[:, 0]

    def stream(
        self,
        batch_size: int = 1,
        phase: torch.Tensor | None = None,
        generator: RowGenerators = None,
        context_frames: int | None = None,
    ) -> HiFTNetStream:
        r"""
        A stream that vocodes frames as they arrive: `push(frames)`, then `flush()`.

        Args:
            batch_size (`int`, defaults to 1): Rows of every piece.
            phase (`torch.FloatTensor` of shape `(batch, nb_harmonics + 1, 1)`, *optional*): As in `forward`.
            generator (`torch.Generator` or a list with one per row, *optional*): As in `forward`; the stream then
                equals `forward` with generators of the same seeds.
            context_frames (`int`, *optional*): Frames on both sides that are decoded along. By default all that reach
                a sample (15 for the released vocoder); 12 are wrong by 1e-6, 8 by 1e-3.

        Raises:
            ValueError: generators or phases of another batch, or a negative context.
        """
        return HiFTNetStream(self, batch_size, phase, resolve_row_generators(generator, batch_size), context_frames)

    def _check(
        self, input_features: torch.Tensor, lengths: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> torch.LongTensor | None:
        bands = self.config.in_channels
        if input_features.dim() != 3 or input_features.shape[1] != bands or input_features.shape[2] == 0:
            raise ValueError(
                f"`input_features` must have shape (batch, {bands}, frames) with at least one frame, got "
                f"{tuple(input_features.shape)}."
            )
        if lengths is None and attention_mask is None:  # without asking the device, so that a graph can be captured
            return None
        frames = input_features.shape[-1]
        lengths = frame_lengths(input_features, frames, lengths, attention_mask)
        return None if int(lengths.min()) == frames else lengths

    def _draws(
        self,
        input_features: torch.Tensor,
        noise: torch.Tensor | None,
        phase: torch.Tensor | None,
        generator: RowGenerators,
    ) -> SourceDraws:
        batch_size, _, frames = input_features.shape
        device, harmonics = input_features.device, self.config.nb_harmonics + 1
        generators = resolve_row_generators(generator, batch_size)
        phase = draw_phase(self.config, batch_size, generators, device) if phase is None else phase
        noise = draw_noise(self.config, batch_size, frames, generators, device) if noise is None else noise
        for name, value, last in (("phase", phase, 1), ("noise", noise, frames * self.config.hop_length)):
            if value.shape != (batch_size, harmonics, last):
                raise ValueError(
                    f"`{name}` must have shape {(batch_size, harmonics, last)}, got {tuple(value.shape)}."
                )
        return SourceDraws(phase, noise)


__all__ = ["HiFTNetModel", "HiFTNetOutput", "HiFTNetPreTrainedModel"]
