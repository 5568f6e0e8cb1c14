"""Training of a SNAC codec: the parts that `examples/train_snac.py` puts together.

A codec can be trained at once (waveform in, waveform out), or in two phases, which is several times faster on a CPU:

1. `SpectrogramPretraining` fits encoder and quantizers through a light head that predicts spectrograms from the
   quantized latents. The waveform decoder, which costs most, does not run.
2. `WaveformTraining(train_encoder=False)` fits the decoder to the now fixed codes. A language model can be trained on
   the codes at the same time.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..models.snac.configuration_snac import SnacConfig
from ..models.snac.modeling_snac import SnacModel, SnacVectorQuantizer
from .discriminators import WaveformDiscriminator
from .spectral_losses import LogMelSpectrogram, MultiScaleSpectralLoss, stft_magnitude, waveform_loss


class CodecLoss(NamedTuple):
    """Loss of a training step (a scalar), and the reconstruction (batch, samples) where there is one."""

    loss: torch.Tensor
    audio_values: torch.Tensor | None = None


@torch.no_grad()
def widen_decoder(model: SnacModel, decoder_hidden_size: int) -> SnacModel:
    r"""
    The codec with a wider decoder that, until it is trained, decodes as before (Chen et al., 2016).

    The known weights are the first channels' own; the new channels hear them, but are not heard by them yet. Codes
    stay what they are, so that a language model that was trained on them can go on speaking in them.

    Args:
        model ([`SnacModel`]): The codec; it is left as it is.
        decoder_hidden_size (`int`): Channels of the decoder's first layer.

    Raises:
        ValueError: `decoder_hidden_size` is not larger than now, cannot be halved at every upsampling, or the decoder
            has attention, whose normalization mixes all channels.
    """
    config, halvings = model.config, 2 ** len(model.config.upsampling_ratios)
    if decoder_hidden_size <= config.decoder_hidden_size or decoder_hidden_size % halvings:
        raise ValueError(
            f"`decoder_hidden_size` must be a multiple of {halvings} above {config.decoder_hidden_size}, got "
            f"{decoder_hidden_size}."
        )
    if config.attention_window_size:
        raise ValueError(
            "`model` must have no attention (`attention_window_size=None`) for its decoder to be widened."
        )
    wider = SnacModel(SnacConfig(**config.to_dict() | {"decoder_hidden_size": decoder_hidden_size}))
    known = model.state_dict()
    for prefix, module in wider.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            old = known[name]
            if isinstance(module, nn.modules.conv._ConvNd) and parameter.dim() > 1:
                # (out, in, kernel), of a transposed convolution (in, out, kernel).
                first, second = old.shape[:2]
                if module.transposed:
                    parameter[first:, :second] = 0.0
                else:
                    parameter[:first, second:] = 0.0
            parameter[tuple(slice(size) for size in old.shape)] = old
    return wider.to(model.device, model.dtype)


class CodebookRefresher:
    r"""
    Moves codebook entries that no input chose to where the inputs are, so that the whole codebook is used.

    Call `step()` after every forward pass; every `interval` passes, entries chosen fewer than `threshold` times since
    the last refresh take the place of random projected inputs of the last pass (Dhariwal et al., 2020).

    Args:
        model ([`SnacModel`]): The codec in training.
        interval (`int`): Forward passes between two refreshes.
        threshold (`int`): Entries chosen less often than this are moved.

    Attributes:
        last_usage (`list[float]`): Share of entries in use before the last refresh, per level.
    """

    def __init__(self, model: SnacModel, interval: int = 50, threshold: int = 1):
        self.quantizers = list(model.quantizer.quantizers)
        self.interval, self.threshold, self.passes = interval, threshold, 0
        self.counts = [torch.zeros(q.codebook.num_embeddings, dtype=torch.long) for q in self.quantizers]
        self.projected: list[torch.Tensor | None] = [None] * len(self.quantizers)
        self.last_usage = [0.0] * len(self.quantizers)
        for level, quantizer in enumerate(self.quantizers):
            quantizer.in_proj.register_forward_hook(lambda _, __, output, level=level: self._keep(level, output))

    def _keep(self, level: int, projected: torch.Tensor) -> None:
        projected = projected.detach()
        self.projected[level] = projected
        codes = self.quantizers[level].nearest_codes(projected).flatten().cpu()
        self.counts[level] += torch.bincount(codes, minlength=len(self.counts[level]))

    @torch.no_grad()
    def step(self) -> None:
        self.passes += 1
        if self.passes % self.interval == 0:
            self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Move the unused entries now."""
        for level, quantizer in enumerate(self.quantizers):
            self._refresh(level, quantizer)

    def _refresh(self, level: int, quantizer: SnacVectorQuantizer) -> None:
        self.last_usage[level] = (self.counts[level] >= self.threshold).float().mean().item()
        unused = (self.counts[level] < self.threshold).nonzero().squeeze(1).to(quantizer.codebook.weight.device)
        vectors = self.projected[level].transpose(1, 2).flatten(0, 1)
        chosen = torch.randint(len(vectors), (len(unused),), device=vectors.device)
        quantizer.codebook.weight[unused] = vectors[chosen].to(quantizer.codebook.weight.dtype)
        self.counts[level].zero_()


class SpectrogramPretraining(nn.Module):
    r"""
    Encoder and quantizers of a codec with a head that predicts two spectrograms of the input: 80 log-mel bands
    (timbre) and the lowest linear STFT bins (pitch).

    Args:
        model ([`SnacModel`]): The codec; its decoder is left alone.
        frames_per_step (`int`): Spectrogram frames per latent step.
        width (`int`): Channels of the head.
    """

    def __init__(self, model: SnacModel, frames_per_step: int = 4, width: int = 384):
        super().__init__()
        self.model = model
        config = model.config
        hop_length = config.hop_length // frames_per_step
        self.mel = LogMelSpectrogram(config.sampling_rate, 512, hop_length, 80, floor=3e-4)
        self.hop_length, self.pitch_bins, self.frames_per_step = hop_length, 128, frames_per_step
        self.bins = 80 + self.pitch_bins
        self.head = nn.Sequential(
            nn.Conv1d(config.hidden_size, width, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(),
            nn.Conv1d(width, frames_per_step * self.bins, 1),
        )

    @torch.no_grad()
    def targets(self, audio: torch.Tensor) -> torch.Tensor:
        pitch = torch.log((stft_magnitude(audio, 1024, self.hop_length) / 256).clamp(min=3e-4))
        # Log magnitudes of speech spread about -7 by 2.5: bring them to the scale of a fresh head.
        return (torch.cat([self.mel(audio), pitch[:, : self.pitch_bins]], dim=1) + 7.0) / 2.5

    def forward(self, input_values: torch.Tensor, quantize: bool = True) -> CodecLoss:
        """Loss of waveforms (batch, 1, samples), `samples` a multiple of the frame.

        Without `quantize` the head sees the latents themselves: a few hundred such steps give the codebooks latents
        worth being initialised from.
        """
        encoded = self.model.encode(input_values, return_dict=True)
        predicted = self.head(encoded.quantized_representation if quantize else encoded.latents)
        batch_size, _, steps = predicted.shape
        predicted = predicted.view(batch_size, self.frames_per_step, self.bins, steps)
        predicted = predicted.permute(0, 2, 3, 1).reshape(batch_size, self.bins, -1)
        target = self.targets(input_values.squeeze(1))[..., : predicted.shape[-1]]
        config = self.model.config
        quantizer_loss = (
            config.commitment_loss_weight * encoded.commitment_loss
            + config.codebook_loss_weight * encoded.codebook_loss
        )
        loss = F.l1_loss(predicted, target)
        return CodecLoss(loss + quantizer_loss if quantize else loss)


class WaveformTraining(nn.Module):
    r"""
    A codec with the multi-scale spectral loss on its reconstruction.

    Args:
        model ([`SnacModel`]): The codec.
        train_encoder (`bool`): Whether encoder and quantizers are trained too; if not, the codes stay as they are.
        adversarial_weight (`float`): Weight of a discriminator's loss against the spectral loss.
        waveform_weight (`float`): Weight of [`waveform_loss`], for audio with a fixed phase.
    """

    def __init__(
        self,
        model: SnacModel,
        train_encoder: bool = True,
        adversarial_weight: float = 0.1,
        waveform_weight: float = 0.0,
    ):
        super().__init__()
        self.model, self.train_encoder = model, train_encoder
        self.adversarial_weight, self.waveform_weight = adversarial_weight, waveform_weight
        self.spectral_loss = MultiScaleSpectralLoss(model.config.sampling_rate)
        if not train_encoder:
            for part in (model.encoder, model.quantizer):
                part.requires_grad_(False)

    def reconstruct(self, input_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction (batch, samples) of waveforms (batch, 1, samples), and the quantizers' loss."""
        if self.train_encoder:
            output = self.model(input_values, return_dict=True)
            return output.audio_values, output.loss
        with torch.no_grad():
            quantized = self.model.encode(input_values, return_dict=True).quantized_representation
        audio_values = self.model.decode(quantized_representation=quantized, return_dict=True).audio_values
        return audio_values[..., : input_values.shape[-1]], input_values.new_zeros(())

    def forward(self, input_values: torch.Tensor, discriminator: WaveformDiscriminator | None = None) -> CodecLoss:
        """Loss of waveforms (batch, 1, samples), with what a `discriminator` says of the reconstruction."""
        audio_values, loss = self.reconstruct(input_values)
        target = input_values.squeeze(1)
        loss = loss + self.spectral_loss(audio_values, target)
        if self.waveform_weight:
            loss = loss + self.waveform_weight * waveform_loss(audio_values, target)
        if discriminator is not None:
            loss = loss + self.adversarial_weight * discriminator.generator_loss(audio_values, target)
        return CodecLoss(loss, audio_values)
