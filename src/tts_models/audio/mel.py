"""Mel features as differentiable torch functions, on whatever device the samples are.

Three conventions: magnitudes with natural logarithm (vocoders and speaker encoders of 24 kHz models), Whisper's, and
Kaldi's filter bank.
"""

from functools import lru_cache

import torch
from torch.nn import functional as F


KALDI_FLOOR = 1.1920929e-07  # the smallest energy, float32's epsilon


@lru_cache(maxsize=16)
def mel_filters(
    fft_length: int,
    bands: int,
    low: float,
    high: float,
    sampling_rate: int,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Slaney's filters, of equal area, float32 `(bands, fft_length // 2 + 1)`."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(fft_length // 2 + 1, bands, low, high, sampling_rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T).to(device, torch.float32).contiguous()


@lru_cache(maxsize=4)
def _kaldi_filters(fft_length: int, bands: int, low: float, sampling_rate: int, device: torch.device) -> torch.Tensor:
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        fft_length // 2 + 1,
        bands,
        low,
        sampling_rate / 2,
        sampling_rate,
        norm=None,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return torch.from_numpy(filters).to(device, torch.float32).contiguous()


def log_mel_spectrogram(
    samples: torch.Tensor,
    *,
    sampling_rate: int = 24000,
    fft_length: int = 1920,
    hop_length: int = 480,
    bands: int = 80,
    low: float = 0.0,
    high: float = 8000.0,
    floor: float = 1e-5,
) -> torch.Tensor:
    """Natural logarithm of mel magnitudes; the defaults are those of S3Gen and its vocoder.

    Args:
        samples: float32 `(…, samples)`.
        sampling_rate: Rate of the samples, in Hz.
        fft_length: Samples of a (Hann) window.
        hop_length: Samples between windows.
        bands: Mel bands.
        low: Lower edge of the bands, in Hz.
        high: Upper edge of the bands, in Hz.
        floor: Least magnitude of a band, before the logarithm.

    Returns:
        float32 `(…, bands, samples // hop_length)`.

    Raises:
        ValueError: there are too few samples to reflect at the edges.
    """
    edge = (fft_length - hop_length) // 2
    if samples.shape[-1] <= edge:
        raise ValueError(f"`samples` must hold more than {edge} samples, got {samples.shape[-1]}.")
    samples = samples.float()
    padded = F.pad(samples.reshape(-1, samples.shape[-1]), (edge, edge), mode="reflect")
    window = torch.hann_window(fft_length, device=samples.device)
    spectrum = torch.stft(padded, fft_length, hop_length, window=window, center=False, return_complex=True)
    magnitude = (torch.view_as_real(spectrum).pow(2).sum(-1) + 1e-9).sqrt()
    mel = mel_filters(fft_length, bands, low, high, sampling_rate, samples.device) @ magnitude
    return mel.clamp(min=floor).log().reshape(*samples.shape[:-1], bands, -1)


def whisper_log_mel(
    samples: torch.Tensor,
    *,
    sampling_rate: int = 16000,
    fft_length: int = 400,
    hop_length: int = 160,
    bands: int = 128,
) -> torch.Tensor:
    """Whisper's log-mel frames of one utterance, without padding it to 30 s.

    Args:
        samples: float32 `(samples,)`, or `(rows, samples)` of rows that share their maximum.
        sampling_rate: Rate of the samples, in Hz.
        fft_length: Samples of a (Hann) window.
        hop_length: Samples between windows.
        bands: Mel bands, up to 8 kHz.

    Returns:
        float32 `(…, bands, samples // hop_length)`, floored 8 decades of power below the utterance's maximum.

    Raises:
        ValueError: there are too few samples to reflect at the edges.
    """
    if samples.shape[-1] <= fft_length // 2:
        raise ValueError(f"`samples` must hold more than {fft_length // 2} samples, got {samples.shape[-1]}.")
    samples = samples.float()
    window = torch.hann_window(fft_length, device=samples.device)
    power = torch.stft(samples, fft_length, hop_length, window=window, return_complex=True)[..., :-1].abs().pow(2)
    mel = mel_filters(fft_length, bands, 0.0, 8000.0, sampling_rate, samples.device) @ power
    log_mel = mel.clamp(min=1e-10).log10()
    return (torch.maximum(log_mel, log_mel.max() - 8.0) + 4.0) / 4.0


def kaldi_filter_bank(
    samples: torch.Tensor, *, sampling_rate: int = 16000, bands: int = 80, low: float = 20.0
) -> torch.Tensor:
    """Kaldi's log filter-bank energies without dither: windows of 25 ms every 10 ms, inside the signal only.

    Args:
        samples: float32 `(samples,)`, in [-1, 1].
        sampling_rate: Rate of the samples, in Hz.
        bands: Mel bands, up to half the rate.
        low: Lower edge of the bands, in Hz.

    Returns:
        float32 `(frames, bands)` with `frames = 1 + (samples - window) // hop`.

    Raises:
        ValueError: there are fewer samples than a window has.
    """
    window_length, hop_length = sampling_rate * 25 // 1000, sampling_rate // 100
    if samples.shape[-1] < window_length:
        raise ValueError(f"`samples` must hold at least {window_length} samples, got {samples.shape[-1]}.")
    frames = samples.float().unfold(-1, window_length, hop_length)
    frames = frames - frames.mean(-1, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], dim=-1)  # pre-emphasis inside each frame
    window = torch.hann_window(window_length, periodic=False, device=samples.device).pow(0.85)  # Povey's window
    fft_length = 1 << (window_length - 1).bit_length()
    power = torch.fft.rfft(frames * window, fft_length).abs().pow(2)
    energies = power @ _kaldi_filters(fft_length, bands, low, sampling_rate, samples.device)
    return energies.clamp(min=KALDI_FLOOR).log()


__all__ = ["kaldi_filter_bank", "log_mel_spectrogram", "mel_filters", "whisper_log_mel"]
