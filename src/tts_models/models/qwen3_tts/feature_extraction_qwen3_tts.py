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
"""Log-mel frames for the speaker encoder of Qwen3-TTS, and waveforms for its codec."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature

from ...audio import check_waveform


@lru_cache(maxsize=4)
def _mel_filters(bins: int, bands: int, low: float, high: float, rate: int) -> torch.Tensor:
    """Slaney's filters, float32 `(bands, bins)`."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(bins, bands, low, high, rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T.astype(np.float32))


class Qwen3TTSFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Turns reference recordings into the log-mel frames of [`Qwen3TTSSpeakerEncoder`]. The level is not normalised.

    Args:
        feature_size (`int`, *optional*, defaults to 128): Mel bands.
        sampling_rate (`int`, *optional*, defaults to 24000): Rate of the recordings, in Hz.
        padding_value (`float`, *optional*, defaults to 0.0): Value of the padding.
        fft_length (`int`, *optional*, defaults to 1024): Samples of a window.
        hop_length (`int`, *optional*, defaults to 256): Samples between windows.
        min_frequency (`float`, *optional*, defaults to 0.0): Lower edge of the bands, in Hz.
        max_frequency (`float`, *optional*): Upper edge of the bands, in Hz; half the rate by default.
        mel_floor (`float`, *optional*, defaults to 1e-5): Least energy of a band, before the logarithm.
    """

    model_input_names = ["input_features", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 24000,
        padding_value: float = 0.0,
        fft_length: int = 1024,
        hop_length: int = 256,
        min_frequency: float = 0.0,
        max_frequency: float | None = None,
        mel_floor: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.fft_length = fft_length
        self.hop_length = hop_length
        self.min_frequency = min_frequency
        self.max_frequency = sampling_rate / 2 if max_frequency is None else max_frequency
        self.mel_floor = mel_floor

    @property
    def min_samples(self) -> int:
        """The shortest recording: five frames, as the speaker encoder reflects its edges."""
        return self.fft_length + self.hop_length

    def __call__(
        self,
        raw_audio: Any,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        r"""
        Frames of one recording or several.

        Args:
            raw_audio: One recording `(samples,)`, array or tensor, or a list of them; float values in [-1, 1].
            sampling_rate (`int`, *optional*): Rate of `raw_audio`, which must be the extractor's.
            return_tensors (`str`, *optional*, defaults to `"pt"`): Only `"pt"`.

        Returns:
            `BatchFeature` with `input_features` float32 `(batch, frames, feature_size)`, zero-padded on the right, and
            `attention_mask` int64 `(batch, frames)`.

        Raises:
            ValueError: another rate, or a recording that is too short, silent, not mono, or holds NaN.
        """
        if return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt'; got {return_tensors!r}.")
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` must be {self.sampling_rate} Hz; got {sampling_rate}: resample the audio with "
                "`tts_models.audio.resample`."
            )
        recordings = raw_audio if isinstance(raw_audio, list | tuple) else [raw_audio]
        frames = [self._log_mel(self.check_recording(recording)) for recording in recordings]
        lengths = torch.tensor([len(rows) for rows in frames])
        features = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True, padding_value=self.padding_value)
        mask = (torch.arange(features.shape[1]) < lengths[:, None]).long()
        return BatchFeature({"input_features": features, "attention_mask": mask})

    def check_recording(self, recording: Any, name: str = "raw_audio") -> torch.Tensor:
        """A recording as float32 `(samples,)`.

        Raises:
            ValueError: it is too short, silent, not mono, or holds NaN or infinite samples.
        """
        samples = check_waveform(recording, name)
        if samples.size < self.min_samples:
            raise ValueError(
                f"`{name}` holds {samples.size} samples; a voice needs at least {self.min_samples} "
                f"({self.min_samples / self.sampling_rate:.2f} s)."
            )
        if not np.any(samples):
            raise ValueError(f"`{name}` is silent: there is no voice in it.")
        return torch.from_numpy(np.ascontiguousarray(samples))

    def _log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        """`(samples,)` to `(frames, bands)`."""
        edge = (self.fft_length - self.hop_length) // 2
        padded = torch.nn.functional.pad(samples[None], (edge, edge), mode="reflect")[0]
        window = torch.hann_window(self.fft_length)
        spectrum = torch.stft(
            padded, self.fft_length, self.hop_length, window=window, center=False, return_complex=True
        )
        magnitude = (spectrum.abs().pow(2) + 1e-9).sqrt()
        filters = _mel_filters(
            self.fft_length // 2 + 1, self.feature_size, self.min_frequency, self.max_frequency, self.sampling_rate
        )
        return (filters @ magnitude).clamp(min=self.mel_floor).log().T


__all__ = ["Qwen3TTSFeatureExtractor"]
