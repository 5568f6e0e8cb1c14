"""Feature extraction for models that take mel frames: checks, one utterance at a time, padding and a mask."""

from typing import Any, ClassVar

import numpy as np
import torch
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature

from .checks import check_waveform
from .trimming import LEAST_POWER


def _named(waveforms: Any, name: str) -> list[tuple[Any, str]]:
    """One recording or several, each with its name in an error."""
    if len(waveforms) == 0 or np.ndim(waveforms[0]) == 0:
        return [(waveforms, name)]
    return [(recording, f"{name}[{index}]") for index, recording in enumerate(waveforms)]


def waveform_tensor(waveform: Any, name: str = "waveform") -> torch.Tensor:
    """A recording as a float32 CPU tensor `(samples,)`.

    Raises:
        ValueError: it is empty, not mono, or holds NaN or infinite samples.
    """
    return torch.from_numpy(np.ascontiguousarray(check_waveform(waveform, name)))


def check_waveforms(waveforms: Any, name: str = "waveforms") -> list[torch.Tensor]:
    """One recording or several as a list of float32 CPU tensors `(samples,)`.

    Args:
        waveforms: A recording `(samples,)`, a list of them, or an array or tensor `(batch, samples)`.
        name: The argument's name in an error.

    Raises:
        ValueError: one is empty, not mono, or holds NaN or infinite samples.
    """
    return [waveform_tensor(recording, label) for recording, label in _named(waveforms, name)]


class MelFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Checks mono recordings, turns each into frames and pads them to a batch. Models inherit it under a name of their
    own and say how frames are made (`frames_of`).

    Attributes:
        channels_first (`bool`): Whether features are `(batch, feature_size, frames)` instead of
            `(batch, frames, feature_size)`.
        refuses_silence (`bool`): Whether a recording without any sound is an error.
    """

    model_input_names = ["input_features", "attention_mask"]
    channels_first: ClassVar[bool] = False
    refuses_silence: ClassVar[bool] = False

    @property
    def min_samples(self) -> int:
        """The shortest recording that gives a frame."""
        raise NotImplementedError

    def frames_of(self, samples: torch.Tensor) -> torch.Tensor:
        """Frames `(frames, feature_size)` of a recording `(samples,)`."""
        raise NotImplementedError

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
            `BatchFeature` with `input_features` float32, zero-padded on the right, and `attention_mask` int64
            `(batch, frames)`.

        Raises:
            ValueError: another rate, or a recording that is too short, not mono, or holds NaN or infinite samples.
        """
        if return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt'; got {return_tensors!r}.")
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` must be {self.sampling_rate} Hz; got {sampling_rate}: resample the audio with "
                "`tts_models.audio.resample`."
            )
        recordings = [self.check_recording(*named) for named in _named(raw_audio, "raw_audio")]
        frames = [self.frames_of(samples) for samples in recordings]
        lengths = torch.tensor([len(rows) for rows in frames])
        features = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True, padding_value=self.padding_value)
        mask = (torch.arange(features.shape[1]) < lengths[:, None]).long()
        features = features.transpose(1, 2).contiguous() if self.channels_first else features
        return BatchFeature({"input_features": features, "attention_mask": mask})

    def check_recording(self, recording: Any, name: str = "raw_audio") -> torch.Tensor:
        """A recording as float32 `(samples,)`.

        Raises:
            ValueError: it is too short, silent where that is refused, not mono, or holds NaN or infinite samples.
        """
        samples = waveform_tensor(recording, name)
        if len(samples) < self.min_samples:
            raise ValueError(
                f"`{name}` holds {len(samples)} samples; at least {self.min_samples} are needed "
                f"({self.min_samples / self.sampling_rate:.4f} s)."
            )
        if self.refuses_silence and float(samples.double().square().mean()) <= LEAST_POWER:
            raise ValueError(f"`{name}` is silent: there is no voice in it.")
        return samples


__all__ = ["MelFeatureExtractor", "check_waveforms", "waveform_tensor"]
