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
"""DeepFilterNet3 (Schröter et al., 2023): ERB gains above 5 kHz, filters over time below, at 48 kHz."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple

from ...audio.lengths import frame_lengths, length_mask
from ...audio.sinc_resample import sinc_resample
from ...loading import CompleteCheckpointMixin
from ...streaming.context import LeftContext
from .configuration_deepfilternet import DeepFilterNetConfig
from .layers_deepfilternet import (
    DeepFilterNetConvBlock,
    DeepFilterNetGroupedLinear,
    DeepFilterNetRecurrence,
    DeepFilterNetSkip,
    DeepFilterNetUpsamplingBlock,
)
from .loss_deepfilternet import enhancement_loss
from .spectrum_deepfilternet import DeepFilterNetTransform, band_matrix
from .streaming_deepfilternet import ZERO_CROSSINGS, DeepFilterNetStream


# In dB; frames of less may be taken for mere noise.
_LEAST_SNR = -10.0


@dataclass
class DeepFilterNetEncoding:
    """What the encoder hands to the decoders.

    Attributes:
        pathways (`list[torch.Tensor]`): Four stages `(batch, channels, frames, bands)`, first to last.
        filter_pathway (`torch.Tensor`): `(batch, channels, frames, num_df_bins)`.
        embeddings (`torch.Tensor`): `(batch, frames, embedding_size)`.
        snr (`torch.Tensor`): Estimated signal-to-noise ratio in dB, `(batch, frames)`.
    """

    pathways: list[torch.Tensor]
    filter_pathway: torch.Tensor
    embeddings: torch.Tensor
    snr: torch.Tensor

    def select(self, row: int, kept: torch.Tensor) -> "DeepFilterNetEncoding":
        """One row, of which the frames where the boolean `kept` `(frames,)` is true."""
        one = slice(row, row + 1)
        pathways = [pathway[one, :, kept] for pathway in self.pathways]
        filter_pathway = self.filter_pathway[one, :, kept]
        return DeepFilterNetEncoding(pathways, filter_pathway, self.embeddings[one, kept], self.snr[one, kept])


# trf-ignore: TRF057
@dataclass
class DeepFilterNetOutput(ModelOutput):
    r"""
    Output of [`DeepFilterNetModel`].

    loss (`torch.FloatTensor` of shape `(1,)`, *optional*, returned when `labels` is given):
        Distance of the spectra from those of `labels`.
    waveform (`torch.FloatTensor` of shape `(batch, samples)`):
        Enhanced audio, float32, as long as the input and zero after a row's end.
    gains (`torch.FloatTensor` of shape `(batch, frames, num_erb_bands)`):
        Gain of every band, in 0 … 1; 0 where `config.has_gains` is false.
    coefficients (`torch.FloatTensor` of shape `(batch, frames, df_order, num_df_bins, 2)`):
        Filters of the lowest bins, real and imaginary parts.
    snr (`torch.FloatTensor` of shape `(batch, frames)`):
        Estimated signal-to-noise ratio, in dB.
    """

    loss: torch.FloatTensor | None = None
    waveform: torch.FloatTensor | None = None
    gains: torch.FloatTensor | None = None
    coefficients: torch.FloatTensor | None = None
    snr: torch.FloatTensor | None = None


class DeepFilterNetEncoder(nn.Module):
    """Both features to one embedding per frame."""

    def __init__(self, config: DeepFilterNetConfig):
        super().__init__()
        width, kernel = config.hidden_channels, config.conv_kernel_size
        self.erb_convs = nn.ModuleList(
            [
                DeepFilterNetConvBlock(1, width, config.input_kernel_size),
                DeepFilterNetConvBlock(width, width, kernel, stride=2),
                DeepFilterNetConvBlock(width, width, kernel, stride=2),
                DeepFilterNetConvBlock(width, width, kernel),
            ]
        )
        self.filter_convs = nn.ModuleList(
            [
                DeepFilterNetConvBlock(2, width, config.input_kernel_size),
                DeepFilterNetConvBlock(width, width, kernel, stride=2),
            ]
        )
        self.filter_projection = DeepFilterNetGroupedLinear(
            width * config.num_df_bins // 2, config.embedding_size, config.encoder_linear_groups
        )
        self.is_concatenated = config.concat_encoder
        self.recurrence = DeepFilterNetRecurrence(
            config.embedding_size * (1 + int(config.concat_encoder)),
            config.erb_hidden_size,
            config.embedding_size,
            num_layers=1,
            groups=config.linear_groups,
            skip=config.encoder_skip,
        )
        self.snr_projection = nn.Linear(config.embedding_size, 1)
        self.min_snr, self.max_snr = config.min_snr, config.max_snr

    def forward(self, erb: torch.Tensor, bins: torch.Tensor, context: LeftContext) -> DeepFilterNetEncoding:
        pathways, hidden_states = [], erb[:, None]
        for block in self.erb_convs:
            hidden_states = block(hidden_states, context)
            pathways.append(hidden_states)
        filter_pathway = self.filter_convs[0](torch.stack([bins.real, bins.imag], dim=1).to(erb.dtype), context)
        below = self.filter_convs[1](filter_pathway, context)
        below = F.relu(self.filter_projection(_flat_frames(below)))
        above = _flat_frames(hidden_states)
        joined = torch.cat([above, below], dim=-1) if self.is_concatenated else above + below
        embeddings = self.recurrence(joined, context)
        share = torch.sigmoid(self.snr_projection(embeddings).float()).squeeze(-1)
        return DeepFilterNetEncoding(
            pathways, filter_pathway, embeddings, share * (self.max_snr - self.min_snr) + self.min_snr
        )


class DeepFilterNetGainDecoder(nn.Module):
    """The embedding to a gain per band."""

    def __init__(self, config: DeepFilterNetConfig):
        super().__init__()
        width, kernel = config.hidden_channels, config.conv_kernel_size
        self.recurrence = DeepFilterNetRecurrence(
            config.embedding_size,
            config.erb_hidden_size,
            config.embedding_size,
            num_layers=config.erb_num_layers - 1,
            groups=config.linear_groups,
            skip=config.erb_skip,
        )
        self.pathways = nn.ModuleList(DeepFilterNetConvBlock(width, width, (1, 1)) for _ in range(4))
        self.blocks = nn.ModuleList(
            [
                DeepFilterNetUpsamplingBlock(width, config.upsampling_kernel_size),
                DeepFilterNetUpsamplingBlock(width, config.upsampling_kernel_size),
                DeepFilterNetConvBlock(width, width, kernel),
            ]
        )
        self.output = DeepFilterNetConvBlock(width, 1, kernel, activation=torch.sigmoid)

    def forward(self, encoding: DeepFilterNetEncoding, context: LeftContext) -> torch.Tensor:
        """Gains `(batch, frames, num_erb_bands)`."""
        last = encoding.pathways[-1]
        hidden_states = self.recurrence(encoding.embeddings, context)
        hidden_states = hidden_states.unflatten(-1, (last.shape[-1], -1)).permute(0, 3, 1, 2)
        for index in (3, 2, 1):
            pathway = self.pathways[index](encoding.pathways[index], context)
            hidden_states = self.blocks[index - 1](pathway + hidden_states, context)
        return self.output(self.pathways[0](encoding.pathways[0], context) + hidden_states, context)[:, 0]


class DeepFilterNetFilterDecoder(nn.Module):
    """The embedding to a complex filter per low bin."""

    def __init__(self, config: DeepFilterNetConfig):
        super().__init__()
        self.order, self.bins = config.df_order, config.num_df_bins
        self.pathway = DeepFilterNetConvBlock(
            config.hidden_channels, 2 * config.df_order, (config.pathway_kernel_size, 1)
        )
        self.recurrence = DeepFilterNetRecurrence(
            config.embedding_size,
            config.df_hidden_size,
            None,
            num_layers=config.df_num_layers,
            groups=config.df_linear_groups,
        )
        self.skip = DeepFilterNetSkip(
            config.df_skip, config.embedding_size, config.df_hidden_size, config.linear_groups
        )
        self.output_projection = DeepFilterNetGroupedLinear(
            config.df_hidden_size, 2 * config.df_order * config.num_df_bins, config.linear_groups
        )

    def forward(self, encoding: DeepFilterNetEncoding, context: LeftContext) -> torch.Tensor:
        """Filters complex64 `(batch, frames, df_order, num_df_bins)`."""
        hidden_states = self.recurrence(encoding.embeddings, context) + self.skip(encoding.embeddings)
        pathway = self.pathway(encoding.filter_pathway, context).permute(0, 2, 3, 1)
        filters = torch.tanh(self.output_projection(hidden_states)).unflatten(-1, (self.bins, -1)) + pathway
        return torch.view_as_complex(filters.float().contiguous().unflatten(-1, (self.order, 2))).transpose(-1, -2)


def _flat_frames(hidden_states: torch.Tensor) -> torch.Tensor:
    """(batch, channels, frames, bands) to (batch, frames, bands * channels), channels fastest."""
    return hidden_states.permute(0, 2, 3, 1).flatten(2)


# trf-ignore: TRF057
class DeepFilterNetPreTrainedModel(CompleteCheckpointMixin, PreTrainedModel):
    """Base class: configuration and initialisation shared by DeepFilterNet models."""

    config: DeepFilterNetConfig
    config_class = DeepFilterNetConfig
    conversion_script = "convert_deepfilternet_to_hf.py"
    base_model_prefix = "deepfilternet"
    main_input_name = "input_values"
    input_modalities = "audio"
    # There is no attention: inside a larger model, whatever is asked of the other parts suits.
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["DeepFilterNetConvBlock", "DeepFilterNetRecurrence"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.GRU):
            module.reset_parameters()
        elif isinstance(module, DeepFilterNetGroupedLinear):
            bound = module.weight.shape[1] ** -0.5
            init.uniform_(module.weight, -bound, bound)


# trf-ignore: TRF057
class DeepFilterNetModel(DeepFilterNetPreTrainedModel):
    r"""
    Takes noise out of speech. `forward` hears whole recordings, [`~DeepFilterNetModel.stream`] hears them as they
    arrive and gives the same samples, `latency_samples` later.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import DeepFilterNetConfig, DeepFilterNetModel

    >>> model = DeepFilterNetModel(DeepFilterNetConfig(hidden_channels=16)).eval()
    >>> with torch.no_grad():
    ...     waveform = model(torch.randn(1, 1, 4800)).waveform
    >>> waveform.shape
    torch.Size([1, 4800])
    ```
    """

    def __init__(self, config: DeepFilterNetConfig):
        super().__init__(config)
        self.transform = DeepFilterNetTransform(config)
        self.encoder = DeepFilterNetEncoder(config)
        self.gain_decoder = DeepFilterNetGainDecoder(config)
        self.filter_decoder = DeepFilterNetFilterDecoder(config)
        self.post_init()

    # trf-ignore: TRF057
    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        lengths: torch.LongTensor | None = None,
        padding_mask: torch.Tensor | None = None,
        atten_lim_db: float | None = None,
        labels: torch.Tensor | None = None,
    ) -> DeepFilterNetOutput:
        r"""
        Enhanced audio.

        Args:
            input_values (`torch.FloatTensor` of shape `(batch, samples)` or `(batch, 1, samples)`):
                Noisy audio at `config.sampling_rate`, in [-1, 1], padded on the right.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*):
                Valid samples per row; each row's audio is the one it has alone.
            padding_mask (`torch.Tensor` of shape `(batch, samples)`, *optional*):
                1 for audio, 0 for right padding; another way to say `lengths`.
            atten_lim_db (`float`, *optional*):
                Noise is quieted by at most so many dB: the noisy audio is mixed in at that level. 0 and `None` set no
                limit.
            labels (`torch.FloatTensor` of shape `(batch, samples)`, *optional*):
                Clean audio, for the loss.

        Raises:
            ValueError: a wrong shape, length or limit.
        """
        samples = _two_dimensional(input_values)
        self.check_limit(atten_lim_db)
        if labels is not None and labels.shape != samples.shape:
            raise ValueError(f"`labels` must have shape {tuple(samples.shape)}, got {tuple(labels.shape)}.")
        valid = _valid_samples(samples, lengths, padding_mask)
        fft, hop = self.config.fft_length, self.config.hop_length
        total = samples.shape[-1]
        keep = None if valid is None else length_mask(valid, total)
        samples = samples.float() if keep is None else samples.float() * keep
        padded = F.pad(samples, (0, fft))[:, : (total + fft) // hop * hop]
        spectrum = self.transform.spectrum(padded, LeftContext(len(samples)))
        frames = None if valid is None else length_mask((valid + fft) // hop, spectrum.shape[1])
        enhanced, gains, filters, snr = self.enhance_spectrum(spectrum, frames)
        waveform = self.transform.waveform(self.limit(enhanced, spectrum, atten_lim_db), LeftContext(len(samples)))[
            :, fft - hop : fft - hop + total
        ]
        waveform = waveform if keep is None else waveform * keep
        loss = None if labels is None else enhancement_loss(waveform, labels.float())
        return DeepFilterNetOutput(
            loss=loss, waveform=waveform, gains=gains, coefficients=torch.view_as_real(filters), snr=snr
        )

    def enhance_spectrum(
        self, spectrum: torch.Tensor, valid: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Enhances whole spectra.

        Args:
            spectrum: complex64 `(batch, frames, bins)`, see [`DeepFilterNetTransform`].
            valid: Boolean `(batch, frames)`, false after a row's end; `None` where no row ends early.

        Returns:
            The enhanced spectrum, and gains, filters and signal-to-noise ratio as of `estimate`.
        """
        context = LeftContext(len(spectrum))
        erb = self.transform.erb_features(spectrum, context)
        bins = self.transform.complex_features(spectrum, context)
        if valid is not None:
            # A recording ends in zeros of the features, not in features of silence.
            spectrum, erb, bins = (values * valid[..., None] for values in (spectrum, erb, bins))
        gains, filters, snr = self.estimate(self.advance(erb), self.advance(bins), context)
        past = self.config.df_order - 1 - self.config.df_lookahead
        around = F.pad(spectrum, (0, 0, past, self.config.df_lookahead))
        return self.apply(spectrum, around, gains, filters), gains, filters, snr

    def advance(self, features: torch.Tensor) -> torch.Tensor:
        """Features moved so that the network hears `conv_lookahead` frames ahead; zeros follow the last."""
        ahead = min(self.config.conv_lookahead, features.shape[1])
        return F.pad(features[:, ahead:], (0, 0, 0, ahead))

    def estimate(
        self, erb: torch.Tensor, bins: torch.Tensor, context: LeftContext
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Runs the network over a piece of the features.

        Args:
            erb: float32 `(batch, frames, num_erb_bands)`, already moved ahead.
            bins: complex64 `(batch, frames, num_df_bins)`, the same.
            context: What the pieces before left behind.

        Returns:
            Gains float32 `(batch, frames, num_erb_bands)`, filters complex64 `(batch, frames, df_order, num_df_bins)`,
            signal-to-noise ratio in dB float32 `(batch, frames)`.
        """
        encoding = self.encoder(erb.to(self.dtype), bins, context)
        # CODEPATH: the release hears every frame; upstream can train a network that leaves out what is mere noise.
        decode = self._decode_speech if self.config.drop_noise_frames else self._decode
        return *decode(encoding, context), encoding.snr

    def _decode(self, encoding: DeepFilterNetEncoding, context: LeftContext) -> tuple[torch.Tensor, torch.Tensor]:
        """Gains and filters, see `estimate`."""
        # CODEPATH: the release filters a fifth of the bins; a network may filter nearly all of them.
        if self.config.has_gains:
            gains = self.gain_decoder(encoding, context).float()
        else:
            gains = encoding.snr.new_zeros(*encoding.snr.shape, self.config.num_erb_bands)
        return gains, self.filter_decoder(encoding, context)

    def _decode_speech(
        self, encoding: DeepFilterNetEncoding, context: LeftContext
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, as if the frames of mere noise were not there: theirs are zero. Each row has frames of its own."""
        config, (batch_size, frames) = self.config, encoding.snr.shape
        gains = encoding.snr.new_zeros(batch_size, frames, config.num_erb_bands)
        filters = torch.zeros(
            batch_size, frames, config.df_order, config.num_df_bins, dtype=torch.complex64, device=gains.device
        )
        contexts = [context.select_rows(torch.tensor([row])) for row in range(batch_size)]
        for row, kept in enumerate(encoding.snr > _LEAST_SNR):
            if kept.any():
                decoded = self._decode(encoding.select(row, kept), contexts[row])
                gains[row, kept], filters[row, kept] = (each[0] for each in decoded)
        context.tensors = LeftContext.join(contexts).tensors
        return gains, filters

    def apply_filters(self, around: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
        """The lowest bins filtered over time: complex64 `(batch, frames, num_df_bins)`.

        Args:
            around: Noisy spectrum with the frames that the filters reach before and after.
            filters: complex64 `(batch, frames, df_order, num_df_bins)`.
        """
        frames = filters.shape[1]
        bins = around[..., : self.config.num_df_bins]
        return sum(bins[:, tap : tap + frames] * filters[:, :, tap] for tap in range(self.config.df_order))

    def apply(
        self, spectrum: torch.Tensor, around: torch.Tensor, gains: torch.Tensor, filters: torch.Tensor
    ) -> torch.Tensor:
        """The enhanced spectrum complex64 `(batch, frames, bins)`; arguments as in `apply_filters`."""
        low = self.config.num_df_bins
        spread = gains @ band_matrix(self.transform.widths, gains.device)[low:].T
        enhanced = torch.cat([self.apply_filters(around, filters), spectrum[..., low:] * spread], dim=-1)
        # CODEPATH: the release leaves the post-filter off; upstream's option `--pf` turns it on.
        return self._post_filter(enhanced, spectrum) if self.config.post_filter else enhanced

    def _post_filter(self, enhanced: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
        """Quiets what was attenuated a little more (Valin et al., 2020)."""
        least, beta = 1e-12, self.config.post_filter_beta
        gain = (enhanced.abs() / (spectrum.abs() + least)).clamp(least, 1)
        warped = gain * torch.sin(torch.pi * gain / 2).clamp(min=least)
        return enhanced * ((1 + beta) / (1 + beta * (gain / warped).square()))

    @staticmethod
    def check_limit(atten_lim_db: float | None) -> None:
        """
        Raises:
            ValueError: the limit is negative.
        """
        if atten_lim_db is not None and not atten_lim_db >= 0:
            raise ValueError(f"`atten_lim_db` must be a number of dB from 0 on, got {atten_lim_db}.")

    @staticmethod
    def limit(enhanced: torch.Tensor, noisy: torch.Tensor, atten_lim_db: float | None) -> torch.Tensor:
        """Mixes the noisy spectrum in, so that nothing is quieted by more than the limit."""
        if not atten_lim_db:
            return enhanced
        share = 10 ** (-atten_lim_db / 20)
        return noisy * share + enhanced * (1 - share)

    @torch.no_grad()
    def enhance(
        self,
        audio: torch.Tensor,
        sampling_rate: int,
        lengths: torch.LongTensor | None = None,
        atten_lim_db: float | None = None,
    ) -> tuple[torch.Tensor, torch.LongTensor]:
        r"""
        Enhances audio of any rate.

        Args:
            audio (`torch.FloatTensor` of shape `(batch, samples)`): In [-1, 1], padded on the right.
            sampling_rate (`int`): Its rate in Hz.
            lengths (`torch.LongTensor` of shape `(batch,)`, *optional*): Valid samples per row.
            atten_lim_db (`float`, *optional*): As in `forward`.

        Returns:
            Audio `(batch, samples * rate / sampling_rate)` at `config.sampling_rate`, float32, and its lengths, int64
            `(batch,)`.

        Raises:
            ValueError: a wrong shape, rate, length or limit.
        """
        audio = _two_dimensional(audio, "audio").to(self.device)
        lengths = frame_lengths(audio, audio.shape[-1], lengths, None)
        audio = audio.float() * length_mask(lengths, audio.shape[-1])
        resampled = sinc_resample(audio, sampling_rate, self.config.sampling_rate, ZERO_CROSSINGS)
        lengths = -(-lengths * self.config.sampling_rate // sampling_rate)
        return self(resampled, lengths, atten_lim_db=atten_lim_db).waveform, lengths

    def stream(
        self, batch_size: int = 1, atten_lim_db: float | None = None, sampling_rate: int | None = None
    ) -> DeepFilterNetStream:
        r"""
        A stream that enhances samples as they arrive: `push(samples)`, then `flush()`.

        Args:
            batch_size (`int`, *optional*, defaults to 1): Rows of every piece.
            atten_lim_db (`float`, *optional*): As in `forward`.
            sampling_rate (`int`, *optional*): Rate of what is pushed, in Hz; `config.sampling_rate` by default. What
                comes out has `config.sampling_rate`.

        Raises:
            ValueError: a batch without rows, a negative limit, or a rate that is not allowed.
        """
        return DeepFilterNetStream(self, batch_size, atten_lim_db, sampling_rate)


def _two_dimensional(samples: torch.Tensor, name: str = "input_values") -> torch.Tensor:
    if samples.dim() == 3 and samples.shape[1] == 1:
        samples = samples[:, 0]
    if samples.dim() != 2 or samples.shape[0] == 0 or samples.shape[1] == 0:
        raise ValueError(
            f"`{name}` must have shape (batch, samples) or (batch, 1, samples) with at least one sample, got "
            f"{tuple(samples.shape)}."
        )
    return samples


def _valid_samples(
    samples: torch.Tensor, lengths: torch.Tensor | None, padding_mask: torch.Tensor | None
) -> torch.LongTensor | None:
    """Valid samples per row, `None` where nothing is padding."""
    if lengths is None and padding_mask is None:  # without asking the device, so that a graph can be captured
        return None
    valid = frame_lengths(samples, samples.shape[-1], lengths, padding_mask)
    return None if int(valid.min()) == samples.shape[-1] else valid


__all__ = ["DeepFilterNetModel", "DeepFilterNetOutput", "DeepFilterNetPreTrainedModel"]
