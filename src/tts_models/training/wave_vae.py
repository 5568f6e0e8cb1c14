"""Training of MegaTTS3's WaveVAE: reconstruction of the spectrum, divergence of the latents, and a discriminator."""

import torch
from torch import nn

from ..models.megatts3.modeling_megatts3_vae import MegaTTS3VAEModel
from .codec import CodecLoss
from .discriminators import WaveformDiscriminator
from .spectral_losses import MultiScaleSpectralLoss


class WaveVAETraining(nn.Module):
    r"""
    A WaveVAE with the multi-scale spectral loss on its reconstruction.

    The official checkpoint has a decoder only: an encoder of one's own (`model.add_encoder()`) is trained against it
    with `train_decoder=False`, and then speaks the latents that the diffusion transformer knows.

    Args:
        model ([`MegaTTS3VAEModel`]): With an encoder.
        train_decoder (`bool`): Whether the decoder is trained too.
        adversarial_weight (`float`): Weight of a discriminator's loss against the spectral loss.

    Raises:
        ValueError: the model has no encoder, or its decoder gives bands and no waveform.
    """

    def __init__(self, model: MegaTTS3VAEModel, train_decoder: bool = True, adversarial_weight: float = 0.1):
        super().__init__()
        if model.encoder is None:
            raise ValueError("`model` must have an encoder to be trained: `model.add_encoder()` makes one.")
        if model.config.num_bands != 1:
            raise ValueError(f"`model` must give a waveform (`num_bands=1`); it gives {model.config.num_bands} bands.")
        self.model, self.adversarial_weight = model, adversarial_weight
        self.spectral_loss = MultiScaleSpectralLoss(model.config.sampling_rate)
        model.decoder.requires_grad_(train_decoder)

    def forward(self, input_values: torch.Tensor, discriminator: WaveformDiscriminator | None = None) -> CodecLoss:
        """Loss of waveforms (batch, samples) of equal length, and their reconstruction."""
        output = self.model(input_values)
        loss = output.loss + self.spectral_loss(output.audio_values, input_values)
        if discriminator is not None:
            loss = loss + self.adversarial_weight * discriminator.generator_loss(output.audio_values, input_values)
        return CodecLoss(loss, output.audio_values)


__all__ = ["WaveVAETraining"]
