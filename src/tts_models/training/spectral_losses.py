"""Losses for waveforms: multi-scale mel spectrogram and STFT (Yamamoto et al., 2020; Kumar et al., 2023), samples."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank


def stft_magnitude(audio: torch.Tensor, window_length: int, hop_length: int) -> torch.Tensor:
    """Magnitude spectrogram (batch, window_length // 2 + 1, frames) of waveforms (batch, samples), Hann window."""
    window = torch.hann_window(window_length, device=audio.device, dtype=audio.dtype)
    spectrum = torch.stft(audio, window_length, hop_length, window=window, return_complex=True)
    # The square root's gradient is infinite at zero.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()


class LogMelSpectrogram(nn.Module):
    """Natural logarithm of the mel spectrogram (batch, num_mels, frames) of waveforms (batch, samples)."""

    def __init__(self, sampling_rate: int, window_length: int, hop_length: int, num_mels: int, floor: float = 1e-4):
        super().__init__()
        self.window_length, self.hop_length, self.floor = window_length, hop_length, floor
        filters = mel_filter_bank(window_length // 2 + 1, num_mels, 0.0, sampling_rate / 2, sampling_rate)
        # Peaks of 1: every filter passes the magnitude of a tone in its middle unchanged, at every resolution.
        filters = torch.from_numpy(filters).float().T * (2.0 / window_length)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        magnitude = stft_magnitude(audio, self.window_length, self.hop_length)
        return torch.log(torch.matmul(self.filters, magnitude).clamp(min=self.floor))


class MultiScaleSpectralLoss(nn.Module):
    r"""
    L1 distance of log-mel spectrograms plus spectral convergence of STFT magnitudes, averaged over window lengths.

    Args:
        sampling_rate (`int`): Hz.
        window_lengths (`tuple[int]`): STFT windows, in samples; the hop is a quarter of each.
        num_mels (`tuple[int]`): Mel bands per window length.
        stft_weight (`float`): Weight of the spectral convergence.
    """

    def __init__(
        self,
        sampling_rate: int,
        window_lengths: Sequence[int] = (2048, 1024, 512, 256, 128),
        num_mels: Sequence[int] = (160, 80, 80, 40, 20),
        stft_weight: float = 0.5,
    ):
        super().__init__()
        self.stft_weight = stft_weight
        self.mels = nn.ModuleList(
            LogMelSpectrogram(sampling_rate, window, window // 4, mels)
            for window, mels in zip(window_lengths, num_mels, strict=True)
        )

    def forward(self, audio: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Distance of `audio` to `target`, both (batch, samples); a scalar."""
        total = audio.new_zeros(())
        for mel in self.mels:
            magnitude = stft_magnitude(audio, mel.window_length, mel.hop_length)
            with torch.no_grad():
                target_magnitude = stft_magnitude(target, mel.window_length, mel.hop_length)
            log_mel, target_log_mel = (
                torch.log(torch.matmul(mel.filters, values).clamp(min=mel.floor))
                for values in (magnitude, target_magnitude)
            )
            convergence = torch.linalg.norm(target_magnitude - magnitude) / torch.linalg.norm(target_magnitude)
            total = total + F.l1_loss(log_mel, target_log_mel) + self.stft_weight * convergence
        return total / len(self.mels)


def waveform_loss(audio: torch.Tensor, target: torch.Tensor, pre_emphasis: float = 0.9) -> torch.Tensor:
    """Mean distance of samples, relative to the mean magnitude of the target; a scalar.

    Only audio whose phase the model can know (one that hears it, or one trained on audio with a fixed phase) can be
    compared so. Pre-emphasis gives the high frequencies, which carry the consonants, their share.

    Args:
        audio, target: Waveforms (batch, samples).
        pre_emphasis: Coefficient of the first-difference filter that both pass.
    """
    audio, target = (values[:, 1:] - pre_emphasis * values[:, :-1] for values in (audio, target))
    return F.l1_loss(audio, target) / target.abs().mean().clamp(min=1e-3)
