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
"""What S3Gen is given: speech tokens in rows, and recordings or prepared references of the voices."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from ...speech_generation import SpeechProcessorMixin
from ...speech_inputs import read_recording, spread
from .configuration_s3gen import S3GenConfig
from .reference_s3gen import drop_invalid_tokens, join_references, load_s3gen_reference


if TYPE_CHECKING:
    from .modeling_s3gen import S3GenModel

Tokens = torch.Tensor | np.ndarray | Sequence[int]
MIN_VOICE_SECONDS, MAX_VOICE_SECONDS = 0.1, 120.0


# trf-ignore: TRF057
class S3GenProcessor(SpeechProcessorMixin, ProcessorMixin):
    r"""
    Prepares speech tokens and voices for [`S3GenModel`], and writes its waveforms to files.

    Args:
        sampling_rate (`int`, *optional*, defaults to 24000):
            Rate of the speech, in Hz.
        vocab_size (`int`, *optional*, defaults to 6561):
            Number of speech tokens; the two ids that follow mark the start and the end of speech.

    Example:

    ```python
    >>> import torch
    >>> from tts_models import S3GenProcessor

    >>> processor = S3GenProcessor()
    >>> inputs = processor([[6561, 12, 5000, 6562], [7, 8, 9]], voice=torch.zeros(24000), sampling_rate=24000)
    >>> inputs["speech_tokens"]
    tensor([[  12, 5000,    0],
            [   7,    8,    9]])

    >>> inputs["speech_token_lens"]
    tensor([2, 3])
    ```

    With a model, `waveform, source = model.inference(**inputs)`.
    """

    def __init__(self, sampling_rate: int = 24000, vocab_size: int = 6561) -> None:
        super().__init__()
        self.sampling_rate, self.vocab_size = sampling_rate, vocab_size

    @classmethod
    def from_config(cls, config: S3GenConfig) -> "S3GenProcessor":
        """The processor that fits a model's configuration."""
        return cls(config.sampling_rate, config.vocab_size)

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` may return and the model takes."""
        return ["speech_tokens", "speech_token_lens", "ref_wav", "ref_sr", "ref_dict"]

    # trf-ignore: TRF057
    def __call__(
        self,
        speech_tokens: Tokens | Sequence[Tokens],
        voice: Any = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        r"""
        Prepare tokens for `S3GenModel.inference` and `S3GenModel.forward`.

        Args:
            speech_tokens: Ids of one utterance `(tokens,)`, or several: a tensor `(batch, tokens)` or a list with one
                each. As a language model writes them: what lies before a mark of the start or behind one of the end is
                left out, and so are the marks.
            voice: For all rows, or a list with one each. A recording: path, array `(samples,)`, or pair of array and
                rate in Hz; or a prepared reference: what `prepare_voice` returned, or the path of a saved one
                (`.safetensors`). Recordings and references do not mix.
            sampling_rate: Rate in Hz of recordings given as arrays.
            return_tensors: Only `"pt"`.

        Returns:
            `BatchFeature` with `speech_tokens` int64 `(batch, tokens)`, padded with 0, `speech_token_lens` `(batch,)`,
            and, for the voices, `ref_wav` (a list of arrays `(samples,)`) with `ref_sr`, or `ref_dict`.

        Raises:
            ValueError: an argument does not fit; named with what was given and what is allowed.
        """
        if return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt'; got {return_tensors!r}.")
        rows = [self._row(number, row) for number, row in enumerate(_token_rows(speech_tokens))]
        inputs = {
            "speech_tokens": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True),
            "speech_token_lens": torch.tensor([len(row) for row in rows]),
        }
        return BatchFeature(inputs | self._voices(voice, len(rows), sampling_rate))

    def prepare_voice(
        self, model: "S3GenModel", audio: Any, sampling_rate: int | None = None
    ) -> dict[str, torch.Tensor | None]:
        """Do the work on a recording once: the result is a `voice`, and [`save_s3gen_reference`] keeps it in a file.

        Args:
            model: Does the computing.
            audio: Path, array `(samples,)`, or pair of array and rate in Hz.
            sampling_rate: Rate in Hz of an array.

        Raises:
            ValueError: the recording does not fit.
        """
        reference = model.embed_ref(self._recording(audio, sampling_rate), self.sampling_rate)
        return {name: None if value is None else value.cpu() for name, value in reference.items()}

    def _row(self, number: int, row: Tokens) -> torch.LongTensor:
        ids = torch.as_tensor(row)
        if ids.dim() != 1 or len(ids) and (ids.is_floating_point() or ids.dtype == torch.bool):
            raise ValueError(
                f"`speech_tokens` {number} must hold integers (tokens,); got {ids.dtype} of shape {tuple(ids.shape)}."
            )
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab_size + 2:
            raise ValueError(
                f"`speech_tokens` {number} must lie in 0 … {self.vocab_size + 1}; got {int(ids.min())} … "
                f"{int(ids.max())}."
            )
        ids = drop_invalid_tokens(ids.long(), vocab_size=self.vocab_size)
        if not len(ids):
            raise ValueError(f"`speech_tokens` {number} holds no speech token.")
        return ids

    def _voices(self, voice: Any, rows: int, sampling_rate: int | None) -> dict[str, Any]:
        if voice is None:
            raise ValueError("`voice` is needed: a recording, or a prepared reference.")
        voices = spread("voice", voice, rows) if isinstance(voice, list) else [voice]
        prepared = [_prepared(each) for each in voices]
        if all(each is not None for each in prepared):
            return {"ref_dict": join_references(prepared)}
        if any(each is not None for each in prepared):
            raise ValueError("`voice` mixes recordings and prepared references: prepare the recordings first.")
        return {"ref_wav": [self._recording(each, sampling_rate) for each in voices], "ref_sr": self.sampling_rate}

    def _recording(self, voice: Any, sampling_rate: int | None) -> np.ndarray:
        """A recording as it is heard: float32 `(samples,)` at the model's rate."""
        return read_recording(voice, sampling_rate, self.sampling_rate, MIN_VOICE_SECONDS, MAX_VOICE_SECONDS)


def _token_rows(tokens: Any) -> list[Any]:
    """One utterance or several as a list."""
    if isinstance(tokens, torch.Tensor | np.ndarray):
        tokens = [tokens] if tokens.ndim == 1 else list(tokens)
    elif isinstance(tokens, list | tuple) and tokens and all(np.ndim(each) == 0 for each in tokens):
        tokens = [tokens]
    if not isinstance(tokens, list | tuple) or not tokens:
        raise ValueError(f"`speech_tokens` must be a tensor or a list of ids that is not empty; got {tokens!r:.80}.")
    return list(tokens)


def _prepared(voice: Any) -> Mapping[str, Any] | None:
    """A prepared reference, `None` for a recording."""
    if isinstance(voice, Mapping):
        return voice
    if isinstance(voice, str | PathLike) and str(voice).endswith(".safetensors"):
        return load_s3gen_reference(voice)
    return None


__all__ = ["S3GenProcessor"]
