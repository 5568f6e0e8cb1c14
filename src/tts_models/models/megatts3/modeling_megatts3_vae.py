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
"""MegaTTS3's WaveVAE: waveform at 24 kHz to latents at 25 Hz and back (Jiang et al., 2025, arXiv 2502.18924)."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.encodec.configuration_encodec import EncodecConfig
from transformers.models.encodec.modeling_encodec import EncodecEncoder, EncodecLSTM, EncodecPreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple

from ...acceleration.fast_convolution import FastConv1d
from ...audio.lengths import frame_lengths, length_mask
from ...loading import CompleteCheckpointMixin
from ...streaming.generators import RowGenerators, resolve_row_generators
from ...vocoder_layers import DilatedResidualBlock, FastConvolutionsMixin, keep, reflect
from ...weight_norm import apply_weight_norm, remove_weight_norm
from .configuration_megatts3 import MegaTTS3VAEConfig


SLOPE = 0.2
LOG_VARIANCE_RANGE = (-30.0, 20.0)
NO_ENCODER = (
    "this checkpoint has no WaveVAE encoder (`has_encoder=False`): the official release withholds it. Give the "
    "voice's latents as an .npy file beside its recording, or convert a folder whose `wavvae/model_only_last.ckpt` "
    "holds the encoder, as the one that the community trained does."
)


# trf-ignore: TRF057
@dataclass
class MegaTTS3VAEEncoderOutput(ModelOutput):
    r"""
    Output of [`MegaTTS3VAEModel.encode`].

    latents (`torch.FloatTensor` of shape `(batch, steps, latent_dim)`): The mean or a sample, zero after a row's end.
    mean, log_variance (`torch.FloatTensor` of shape `(batch, steps, latent_dim)`): The distribution, float32.
    latent_lengths (`torch.LongTensor` of shape `(batch,)`): Latents of each row.
    """

    latents: torch.FloatTensor | None = None
    mean: torch.FloatTensor | None = None
    log_variance: torch.FloatTensor | None = None
    latent_lengths: torch.LongTensor | None = None


# trf-ignore: TRF057
@dataclass
class MegaTTS3VAEDecoderOutput(ModelOutput):
    r"""
    Output of [`MegaTTS3VAEModel.decode`].

    audio_values (`torch.FloatTensor` of shape `(batch, samples)`): Waveform, float32, zero after a row's end; bands
        `(batch, num_bands, samples)` where there are several.
    audio_lengths (`torch.LongTensor` of shape `(batch,)`): Samples of each row.
    """

    audio_values: torch.FloatTensor | None = None
    audio_lengths: torch.LongTensor | None = None


# trf-ignore: TRF057
@dataclass
class MegaTTS3VAEOutput(ModelOutput):
    r"""
    Output of [`MegaTTS3VAEModel`].

    loss (`torch.FloatTensor` of shape `()`): `config.kl_weight` times the divergence from the standard normal
        distribution, a mean over rows, steps and dimensions; a recipe adds what it says of the reconstruction.
    audio_values (`torch.FloatTensor` of shape `(batch, samples)`): The reconstruction, as long as the input; bands
        `(batch, num_bands, samples)` where there are several.
    latents (`torch.FloatTensor` of shape `(batch, steps, latent_dim)`): What it was decoded from.
    """

    loss: torch.FloatTensor | None = None
    audio_values: torch.FloatTensor | None = None
    latents: torch.FloatTensor | None = None


class MegaTTS3VAEUpsampler(nn.Module):
    """Half the channels at `ratio` times the rate: repeated steps and a transposed convolution, each filtered."""

    def __init__(self, channels: int, ratio: int):
        super().__init__()
        half = max(ratio, 5)
        self.ratio = ratio
        self.conv = FastConv1d(channels, channels // 2, 7)
        self.transposed = nn.ConvTranspose1d(
            channels, channels // 2, 2 * half, ratio, padding=half - ratio // 2, output_padding=ratio % 2
        )

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """(batch, channels, steps) to (batch, channels / 2, ratio * steps); `lengths` are those of the output."""
        activated = F.leaky_relu(hidden_states + hidden_states.sin(), SLOPE)
        repeated = activated.repeat_interleave(self.ratio, dim=-1)
        filtered = self.conv(reflect(repeated, 3, lengths))
        return keep(filtered + self.transposed(activated), lengths)


class MegaTTS3VAEResidualBlock(DilatedResidualBlock):
    """Residual block with leaky rectifiers."""

    def __init__(self, channels: int, kernel_size: int, dilations: list[int]):
        super().__init__(channels, kernel_size, dilations, lambda _: nn.LeakyReLU(SLOPE))


class MegaTTS3VAEStage(nn.Module):
    """Residual blocks of different kernel sizes side by side, averaged."""

    def __init__(self, config: MegaTTS3VAEConfig, channels: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            MegaTTS3VAEResidualBlock(channels, kernel_size, config.resblock_dilation_sizes)
            for kernel_size in config.resblock_kernel_sizes
        )

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        return sum(block(hidden_states, lengths) for block in self.blocks) / len(self.blocks)


class MegaTTS3VAEDecoder(nn.Module):
    """Latents (batch, steps, latent_dim) to a waveform (batch, steps * hop_length), or to bands beside each other."""

    def __init__(self, config: MegaTTS3VAEConfig):
        super().__init__()
        self.config = config
        ratios = config.upsampling_ratios
        widths = [config.decoder_hidden_size * 2**stage for stage in range(len(ratios), -1, -1)]
        self.proj_in = nn.Linear(config.latent_dim, config.decoder_input_size)
        self.latent_upsampler = MegaTTS3VAEUpsampler(config.decoder_input_size, config.latent_upsampling_ratio)
        self.conv_in = FastConv1d(config.decoder_input_size // 2, widths[0], 7)
        self.upsamplers = nn.ModuleList(
            MegaTTS3VAEUpsampler(width, ratio) for width, ratio in zip(widths, ratios, strict=False)
        )
        self.stages = nn.ModuleList(MegaTTS3VAEStage(config, width) for width in widths[1:])
        self.conv_out = nn.Conv1d(widths[-1], config.num_bands, 7)
        # CODEPATH: the released checkpoint ends with a hyperbolic tangent; upstream also trains decoders without.
        self.scale = None if config.use_tanh else nn.Conv1d(config.num_bands, config.num_bands, 1)

    @property
    def context_latents(self) -> int:
        """Latents on each side of a latent that its samples depend on."""
        config, reach = self.config, 3
        widest = max(config.resblock_kernel_sizes) // 2
        for ratio in reversed(config.upsampling_ratios):
            reach += widest * sum(dilation + 1 for dilation in config.resblock_dilation_sizes)
            reach = self._reach_before(reach, ratio)
        return self._reach_before(reach + 3, config.latent_upsampling_ratio)

    @staticmethod
    def _reach_before(reach: int, ratio: int) -> int:
        """Steps before an upsampler that `reach` steps after it depend on."""
        return math.ceil((reach + max(3, max(ratio, 5) + ratio // 2)) / ratio)

    def upsample_latents(self, latents: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, steps, latent_dim) to (batch, decoder_input_size / 2, latent_upsampling_ratio * steps)."""
        hidden_states = keep(self.proj_in(latents.to(self.proj_in.weight.dtype)).transpose(1, 2), lengths)
        lengths = None if lengths is None else lengths * self.config.latent_upsampling_ratio
        return self.latent_upsampler(hidden_states, lengths)

    def forward(self, latents: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        r"""
        Args:
            latents (`torch.Tensor` of shape `(batch, steps, latent_dim)`): Latents.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*): Valid ones per row, `None` for all; each
                row's waveform is the one that it has alone.
        """
        hidden_states = self.upsample_latents(latents, lengths)
        lengths = None if lengths is None else lengths * self.config.latent_upsampling_ratio
        hidden_states = keep(self.conv_in(reflect(hidden_states, 3, lengths)), lengths)
        for upsampler, stage in zip(self.upsamplers, self.stages, strict=True):
            lengths = None if lengths is None else lengths * upsampler.ratio
            hidden_states = stage(upsampler(hidden_states, lengths), lengths)
        waveform = self.conv_out(reflect(F.leaky_relu(hidden_states, SLOPE), 3, lengths))
        waveform = waveform.tanh() if self.scale is None else self.scale(waveform)
        waveform = keep(waveform.float(), lengths)
        # CODEPATH: the released checkpoint has one band; upstream's generator can also have several.
        return waveform[:, 0] if self.config.num_bands == 1 else waveform


def encoder_config(config: MegaTTS3VAEConfig) -> EncodecConfig:
    """The encoder's sizes in EnCodec's terms."""
    return EncodecConfig(
        audio_channels=1,
        hidden_size=config.encoder_hidden_size,
        num_filters=config.encoder_num_filters,
        num_residual_layers=1,
        upsampling_ratios=list(config.encoder_ratios),
        norm_type="weight_norm",
        use_causal_conv=False,
        pad_mode="reflect",
        compress=2,
        num_lstm_layers=max(config.encoder_num_lstm_layers, 1),
        use_conv_shortcut=True,
    )


# trf-ignore: TRF057
class MegaTTS3VAEPreTrainedModel(CompleteCheckpointMixin, FastConvolutionsMixin, EncodecPreTrainedModel):
    """Base class: configuration, initialisation and weight normalisation of the WaveVAE."""

    config: MegaTTS3VAEConfig
    config_class = MegaTTS3VAEConfig
    conversion_script = "convert_megatts3_to_hf.py"
    base_model_prefix = "vae"
    main_input_name = "input_values"
    input_modalities = "audio"
    # There is no attention: inside a larger model, whatever is asked of the other parts suits.
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["MegaTTS3VAEStage"]

    def apply_weight_norm(self) -> None:
        """Split the weights of the convolutions into magnitude and direction, the form that upstream trains."""
        apply_weight_norm(self.modules())

    def remove_weight_norm(self) -> None:
        """Fuse magnitude and direction back into plain weights, the form that is stored."""
        remove_weight_norm(self.modules())


# trf-ignore: TRF057
class MegaTTS3VAEModel(MegaTTS3VAEPreTrainedModel):
    r"""
    WaveVAE: a waveform at 24 kHz to latents at 25 Hz (32 numbers each) and back.

    The official release has no encoder: `config.has_encoder` is then `False`, `encoder` and `latent_projection` are
    `None`, and `encode` says where latents come from instead.

    Attributes:
        encoder (`EncodecEncoder`, *optional*): EnCodec's convolutions and LSTM.
        latent_projection (`nn.Linear`, *optional*): Mean and log-variance of the encoder's output.
        decoder (`MegaTTS3VAEDecoder`): Latents to the waveform.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import MegaTTS3VAEConfig, MegaTTS3VAEModel

    >>> config = MegaTTS3VAEConfig(
    ...     decoder_hidden_size=4, decoder_input_size=32, encoder_num_filters=4, encoder_hidden_size=16
    ... )
    >>> model = MegaTTS3VAEModel(config).eval()
    >>> latents = model.encode(0.1 * torch.randn(1, 4800)).latents
    >>> latents.shape, model.decode(latents).audio_values.shape
    (torch.Size([1, 5, 32]), torch.Size([1, 4800]))
    ```
    """

    def __init__(self, config: MegaTTS3VAEConfig):
        super().__init__(config)
        # CODEPATH: present in the community's checkpoint, withheld in the official one.
        self.encoder, self.latent_projection = self._new_encoder() if config.has_encoder else (None, None)
        self.decoder = MegaTTS3VAEDecoder(config)
        self.post_init()

    def _new_encoder(self) -> tuple[EncodecEncoder, nn.Linear]:
        config = self.config
        encoder = EncodecEncoder(encoder_config(config))
        # CODEPATH: the known checkpoints have an LSTM; upstream's encoder can also do without, the library's cannot.
        if not config.encoder_num_lstm_layers:
            encoder.layers = nn.ModuleList(each for each in encoder.layers if not isinstance(each, EncodecLSTM))
        remove_weight_norm(encoder.modules())
        return encoder, nn.Linear(config.encoder_hidden_size, 2 * config.latent_dim)

    def add_encoder(self) -> "MegaTTS3VAEModel":
        """Give a model without an encoder one with random weights, to be trained against the decoder.

        Returns:
            The model itself.

        Raises:
            ValueError: it has an encoder.
        """
        if self.encoder is not None:
            raise ValueError("`add_encoder` is for a model without an encoder: this one has one (`has_encoder=True`).")
        self.encoder, self.latent_projection = (part.to(self.device, self.dtype) for part in self._new_encoder())
        self.config.has_encoder = True
        for part in (self.encoder, self.latent_projection):
            part.apply(self._init_weights)
        return self

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        lengths: torch.LongTensor | None = None,
        sample: bool | None = None,
        generator: RowGenerators = None,
    ) -> MegaTTS3VAEOutput:
        r"""
        Encode and decode a waveform.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch, samples)`): Waveforms in [-1, 1], padded on the right.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*): Valid samples per row.
            sample (`bool`, *optional*): Whether latents are drawn; by default while training.
            generator (`torch.Generator` or a list with one per row, *optional*): Where they are drawn from.

        Raises:
            ValueError: as `encode`.
        """
        sample = self.training if sample is None else sample
        encoded = self.encode(input_values, lengths, sample=sample, generator=generator)
        audio_values = self.decode(encoded.latents, encoded.latent_lengths).audio_values
        valid = length_mask(encoded.latent_lengths, encoded.mean.shape[1])
        divergence = encoded.mean.square() + encoded.log_variance.exp() - 1 - encoded.log_variance
        divergence = 0.5 * divergence.mean(-1)[valid].mean()
        return MegaTTS3VAEOutput(
            loss=self.config.kl_weight * divergence,
            audio_values=audio_values[..., : input_values.shape[1]],
            latents=encoded.latents,
        )

    @can_return_tuple
    def encode(
        self,
        input_values: torch.Tensor,
        lengths: torch.LongTensor | None = None,
        sample: bool = False,
        generator: RowGenerators = None,
        noise: torch.Tensor | None = None,
    ) -> MegaTTS3VAEEncoderOutput:
        r"""
        Latents of a waveform, one per 960 samples begun.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch, samples)`): Waveforms in [-1, 1], padded on the right.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*): Valid samples per row; each row's latents are
                those that it has alone.
            sample (`bool`, defaults to `False`): Draw latents, as upstream does, or take the mean.
            generator (`torch.Generator` or a list with one per row, *optional*): Where they are drawn from.
            noise (`torch.Tensor` of shape `(batch, steps, latent_dim)`, *optional*): Standard normal numbers instead.

        Raises:
            ValueError: the checkpoint has no encoder, or a wrong shape, length, sample or number of generators.
        """
        if self.encoder is None:
            raise ValueError(f"`input_values` cannot be encoded: {NO_ENCODER}")
        lengths = self._check_waveforms(input_values, lengths)
        generators = resolve_row_generators(generator, input_values.shape[0])
        states = self.encoder_states(input_values, lengths)
        mean, log_variance = self.latent_projection(states.transpose(1, 2)).float().chunk(2, dim=-1)
        log_variance = log_variance.clamp(*LOG_VARIANCE_RANGE)
        latents = mean
        if sample:
            noise = self._noise(mean, generators) if noise is None else self._check_noise(noise, mean)
            latents = mean + (0.5 * log_variance).exp() * noise
        latent_lengths = (lengths + self.config.hop_length - 1) // self.config.hop_length
        latents = latents * length_mask(latent_lengths, latents.shape[1])[..., None]
        return MegaTTS3VAEEncoderOutput(latents, mean, log_variance, latent_lengths)

    def encoder_states(self, input_values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The encoder's output (batch, encoder_hidden_size, steps), zero after a row's end.

        It mirrors a row at its end in every layer: rows of different lengths run by themselves.
        """
        values = input_values.to(self.latent_projection.weight.dtype)[:, None]
        distinct = lengths.unique().tolist()
        if distinct == [values.shape[-1]]:
            return self.encoder(values)
        steps = math.ceil(max(distinct) / self.config.hop_length)
        states = values.new_zeros(len(values), self.config.encoder_hidden_size, steps)
        for length in distinct:
            rows = lengths == length
            encoded = self.encoder(values[rows, :, :length])
            states[rows] = F.pad(encoded, (0, steps - encoded.shape[-1]))
        return states

    @can_return_tuple
    def decode(
        self,
        latents: torch.Tensor,
        lengths: torch.LongTensor | None = None,
        first_latent: int | torch.LongTensor | None = None,
    ) -> MegaTTS3VAEDecoderOutput:
        r"""
        Waveform of latents.

        Args:
            latents (`torch.FloatTensor` of shape `(batch, steps, latent_dim)`): Latents, padded on the right.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*): Valid latents per row; each row's waveform is
                the one that it has alone.
            first_latent (`int` or `torch.LongTensor` of shape `(batch,)`, *optional*): Leave out the samples of the
                latents before this one. Only the few latents that the rest depends on are decoded along.

        Raises:
            ValueError: a wrong shape or length.
        """
        lengths = self._check_latents(latents, lengths)
        starts = torch.zeros_like(lengths) if first_latent is None else self._starts(first_latent, lengths)
        from_ = (starts - self.decoder.context_latents).clamp(min=0)
        kept = lengths - from_
        steps = int(kept.max())
        if int(from_.max()):
            index = (from_[:, None] + torch.arange(steps, device=from_.device)).clamp(max=latents.shape[1] - 1)
            latents = latents.gather(1, index[..., None].expand(-1, -1, latents.shape[2]))
        waveform = self.decoder(latents[:, :steps], None if int(kept.min()) == steps else kept)
        hop_length = self.config.hop_length
        audio_lengths = (lengths - starts) * hop_length
        waveform = self._cut(waveform, (starts - from_) * hop_length, int(audio_lengths.max()))
        return MegaTTS3VAEDecoderOutput(waveform, audio_lengths)

    # Helpers

    @staticmethod
    def _cut(waveform: torch.Tensor, starts: torch.Tensor, samples: int) -> torch.Tensor:
        """`samples` of each row from its start on, zeros where the row has no more."""
        if int(starts.min()) == int(starts.max()):
            return waveform[..., int(starts.min()) :][..., :samples]
        rows = [row[..., start : start + samples] for row, start in zip(waveform, starts.tolist(), strict=True)]
        return torch.stack([F.pad(row, (0, samples - row.shape[-1])) for row in rows])

    def _starts(self, first_latent: int | torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        starts = torch.as_tensor(first_latent, device=lengths.device).long()
        starts = starts.expand_as(lengths) if starts.dim() == 0 else starts
        if starts.shape != lengths.shape or not bool(((starts >= 0) & (starts < lengths)).all()):
            raise ValueError(
                f"`first_latent` must be at least 0 and below the latents of each row ({lengths.tolist()}), got "
                f"{starts.tolist()}."
            )
        return starts

    def _check_waveforms(self, input_values: torch.Tensor, lengths: torch.Tensor | None) -> torch.LongTensor:
        if input_values.dim() != 2 or input_values.shape[1] == 0:
            raise ValueError(
                "`input_values` must have shape (batch, samples) with at least one sample, got "
                f"{tuple(input_values.shape)}."
            )
        if not input_values.isfinite().all():
            raise ValueError("`input_values` must hold finite samples, got NaN or infinity.")
        return frame_lengths(input_values, input_values.shape[1], lengths, None)

    def _check_latents(self, latents: torch.Tensor, lengths: torch.Tensor | None) -> torch.LongTensor:
        width = self.config.latent_dim
        if latents.dim() != 3 or latents.shape[1] == 0 or latents.shape[2] != width:
            raise ValueError(
                f"`latents` must have shape (batch, steps, {width}) with at least one step, got "
                f"{tuple(latents.shape)}."
            )
        return frame_lengths(latents, latents.shape[1], lengths, None)

    @staticmethod
    def _check_noise(noise: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        if noise.shape != mean.shape:
            raise ValueError(f"`noise` must have shape {tuple(mean.shape)}, got {tuple(noise.shape)}.")
        return noise.to(mean)

    @staticmethod
    def _noise(mean: torch.Tensor, generators: list[torch.Generator] | None) -> torch.Tensor:
        """Noise of the shape of `mean`: a row's does not depend on the others, nor on the padding."""
        if generators is None:
            return torch.randn_like(mean)
        rows = [torch.randn(mean.shape[1:], generator=g, device=g.device) for g in generators]
        return torch.stack([row.to(mean) for row in rows])


__all__ = [
    "MegaTTS3VAEDecoderOutput",
    "MegaTTS3VAEEncoderOutput",
    "MegaTTS3VAEModel",
    "MegaTTS3VAEOutput",
    "MegaTTS3VAEPreTrainedModel",
]
