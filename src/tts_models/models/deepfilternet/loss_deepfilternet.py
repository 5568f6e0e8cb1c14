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
"""The loss that DeepFilterNet3 is trained with: compressed spectra at four resolutions (Schröter et al., 2023)."""

import torch
from torch.nn import functional as F


WINDOW_LENGTHS = (256, 512, 1024, 2048)
COMPRESSION = 0.3
WEIGHT = 500.0
LEAST_MAGNITUDE = 1e-6


def enhancement_loss(audio: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared distance of compressed magnitudes and of compressed complex spectra, summed over resolutions.

    Windows longer than the audio are left out; audio shorter than the shortest is padded.

    Args:
        audio, target: float32 `(batch, samples)`.
    """
    short = WINDOW_LENGTHS[0] - audio.shape[-1]
    if short > 0:
        audio, target = F.pad(audio, (0, short)), F.pad(target, (0, short))
    lengths = [length for length in WINDOW_LENGTHS if length <= audio.shape[-1]]
    return WEIGHT * sum(_distance(audio, target, length) for length in lengths)


def _distance(audio: torch.Tensor, target: torch.Tensor, window_length: int) -> torch.Tensor:
    magnitude, spectrum = _compressed(audio, window_length)
    target_magnitude, target_spectrum = _compressed(target, window_length)
    return F.mse_loss(magnitude, target_magnitude) + F.mse_loss(spectrum, target_spectrum)


def _compressed(audio: torch.Tensor, window_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compressed magnitude, and real and imaginary part of the spectrum with that magnitude."""
    window = torch.hann_window(window_length, device=audio.device)
    spectrum = torch.stft(
        audio, window_length, window_length // 4, window=window, normalized=True, return_complex=True
    )
    # Kept away from zero, where the power's gradient is infinite.
    magnitude = (spectrum.real.square() + spectrum.imag.square() + LEAST_MAGNITUDE**2).sqrt()
    compressed = magnitude**COMPRESSION
    return compressed, torch.view_as_real(spectrum * (compressed / magnitude))


__all__ = ["enhancement_loss"]
