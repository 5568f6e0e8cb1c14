"""Feature extraction for models that take the waveform itself: checks, padding and a mask."""

from collections.abc import Sequence

import numpy as np
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import PaddingStrategy, TensorType, logging


logger = logging.get_logger(__name__)


class RawAudioFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Checks raw mono audio and pads it to a batch. Models inherit it under a name of their own.

    Args:
        feature_size (`int`, defaults to 1): Channels of the audio; only 1 is supported.
        sampling_rate (`int`, defaults to 24000): Sampling rate of the model, in Hz.
        padding_value (`float`, defaults to 0.0): Value of the padding.
        pad_to_multiple_of (`int`, *optional*): Length in samples that batches are padded to a multiple of.
    """

    model_input_names = ["input_values", "padding_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 24000,
        padding_value: float = 0.0,
        pad_to_multiple_of: int | None = None,
        **kwargs,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(
        self,
        raw_audio: np.ndarray | Sequence[float] | Sequence[np.ndarray] | Sequence[Sequence[float]],
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        return_tensors: str | TensorType | None = "pt",
        sampling_rate: int | None = None,
    ) -> BatchFeature:
        r"""
        Prepare one recording or several.

        Args:
            raw_audio: One recording `(samples,)` or a list of them, float values in [-1, 1].
            padding: Padding strategy of `SequenceFeatureExtractor.pad`.
            max_length (`int`, *optional*): Length for `padding="max_length"`, in samples.
            return_tensors: `"pt"`, `"np"` or `None`.
            sampling_rate (`int`, *optional*): Rate of `raw_audio`, checked against the model's.

        Returns:
            `BatchFeature` with `input_values` float32 `(batch, 1, samples)` and `padding_mask` `(batch, samples)`, 1
            for audio.

        Raises:
            ValueError: if the sampling rate differs, or a recording is empty, not mono, or holds NaN or infinity.
        """
        self._check_sampling_rate(sampling_rate)
        recordings = (
            [np.asarray(raw_audio)] if self._is_single(raw_audio) else [np.asarray(item) for item in raw_audio]
        )
        for index, recording in enumerate(recordings):
            self._check_recording(index, recording)
        features = BatchFeature({"input_values": [recording.astype(np.float32) for recording in recordings]})
        padded = self.pad(
            features,
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_attention_mask=True,
        )
        padded["padding_mask"] = padded.pop("attention_mask")
        padded["input_values"] = [np.asarray(values)[None] for values in padded["input_values"]]
        return padded.convert_to_tensors(return_tensors)

    @staticmethod
    def _is_single(raw_audio: np.ndarray | Sequence) -> bool:
        if isinstance(raw_audio, np.ndarray):
            return raw_audio.ndim == 1
        return len(raw_audio) == 0 or np.ndim(raw_audio[0]) == 0

    def _check_sampling_rate(self, sampling_rate: int | None) -> None:
        if sampling_rate is None:
            logger.warning_once(f"Pass `sampling_rate` to {type(self).__name__} to make sure that it is right.")
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` must be {self.sampling_rate} Hz, the model's, got {sampling_rate}: resample "
                "the audio with `tts_models.audio.resample`."
            )

    def _check_recording(self, index: int, recording: np.ndarray) -> None:
        if recording.ndim != 1 or recording.size == 0:
            raise ValueError(
                f"`raw_audio[{index}]` must be mono audio of shape (samples,) with at least one sample, "
                f"got shape {recording.shape}."
            )
        if not np.isfinite(recording).all():
            raise ValueError(f"`raw_audio[{index}]` must hold finite values, got NaN or infinity.")


__all__ = ["RawAudioFeatureExtractor"]
