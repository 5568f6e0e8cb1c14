"""The contract every speaking model shares: what `generate` and `generate_stream` return, and how rows are seeded."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation import GenerationMode
from transformers.utils import ModelOutput, logging


logger = logging.get_logger(__name__)


@dataclass
class SpeechOutput(ModelOutput):
    """
    What `generate` returns.

    Args:
        audio (`torch.FloatTensor` of shape `(batch, samples)`):
            float32 waveforms on the CPU or the model's device, zero-padded on the right.
        audio_lengths (`torch.LongTensor` of shape `(batch,)`):
            Valid samples of each row.
        sampling_rate (`int`):
            Samples per second.
        sequences (`torch.LongTensor` of shape `(parts, length)`, *optional*):
            Prompt and generated ids, one row per part of text, padded on the right.
        audio_codes (`list`, *optional*):
            The family's intermediate codes, one entry per row of `audio`.
        finish_reason (`list[str]`, *optional*):
            `"stop"` where the model ended the speech itself, `"length"` where the token limit cut it.
    """

    audio: torch.FloatTensor | None = None
    audio_lengths: torch.LongTensor | None = None
    sampling_rate: int | None = None
    sequences: torch.LongTensor | None = None
    audio_codes: list[Any] | None = None
    finish_reason: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # `pipeline(…, batch_size=n)` takes every entry of the mapping apart by rows: the rate is an attribute only.
        if "sampling_rate" in self:
            OrderedDict.__delitem__(self, "sampling_rate")


@dataclass
class SpeechChunk(ModelOutput):
    """
    What `generate_stream` yields.

    Args:
        audio (`torch.FloatTensor` of shape `(batch, samples)`):
            The new float32 samples of each row, zero-padded on the right.
        audio_lengths (`torch.LongTensor` of shape `(batch,)`):
            Valid samples of each row in this chunk; 0 for a row with nothing new.
        is_final (`torch.BoolTensor` of shape `(batch,)`):
            Whether the row is complete: it stays true, and the row yields nothing more.
        sampling_rate (`int`):
            Samples per second.
        finish_reason (`list[str | None]`, *optional*):
            Why a complete row ended (`"stop"` or `"length"`), `None` for the others.
    """

    audio: torch.FloatTensor | None = None
    audio_lengths: torch.LongTensor | None = None
    is_final: torch.BoolTensor | None = None
    sampling_rate: int | None = None
    finish_reason: list[str | None] | None = None


Options = TypeVar("Options")


def take_options(options_class: type[Options], kwargs: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
    """The options of a family's `generate` among its keywords, and the other keywords.

    Args:
        options_class: A dataclass of options.
        kwargs: All keywords.
    """
    names = {each.name for each in fields(options_class)}
    rest = {name: value for name, value in kwargs.items() if name not in names}
    return options_class(**{name: value for name, value in kwargs.items() if name in names}), rest


def derive_seed(seed: int, *names: int | str) -> int:
    """A seed in `[0, 2**63)` for a named use of `seed` (a part of a text, the noise of a decoder, …)."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def draw_seed(generator: torch.Generator | None = None) -> int:
    """A fresh seed from `generator`, or from torch's global generator."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(0, 2**62, (1,), generator=generator, device=device))


def resolve_row_seeds(
    batch_size: int,
    seed: int | Sequence[int] | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> list[int]:
    """One seed per row, so that a row sounds the same whatever else is in the batch.

    Args:
        batch_size: Rows.
        seed: One seed for every row (a row then equals its own single run with that seed), or one per row.
        generator: Instead of `seed`: one generator that gives each row its seed in turn, or one generator per row.
            With neither, torch's global generator is used, so `torch.manual_seed` decides.

    Raises:
        ValueError: both are given, or the number of seeds or generators is not `batch_size`.
    """
    if seed is not None and generator is not None:
        raise ValueError("Pass either `seed` or `generator`, not both.")
    if isinstance(seed, int):
        return [seed] * batch_size
    if seed is not None:
        seeds = [int(value) for value in seed]
        _check_rows("seed", len(seeds), batch_size)
        return seeds
    if generator is None or isinstance(generator, torch.Generator):
        return [draw_seed(generator) for _ in range(batch_size)]
    _check_rows("generator", len(generator), batch_size)
    return [draw_seed(each) for each in generator]


def _check_rows(name: str, found: int, batch_size: int) -> None:
    if found != batch_size:
        raise ValueError(f"`{name}` holds {found} values; one for each of the {batch_size} rows is needed.")


def row_generator(seed: int, *names: int | str) -> torch.Generator:
    """A CPU generator for a named use of a row's seed."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def pad_waveforms(waveforms: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """1-D waveforms to a zero-padded float32 `(batch, samples)` tensor and the int64 lengths `(batch,)`."""
    device = waveforms[0].device
    lengths = torch.tensor([waveform.shape[-1] for waveform in waveforms], dtype=torch.long, device=device)
    rows = [waveform.float() for waveform in waveforms]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths


def join_parts(parts: Sequence[torch.Tensor], gap_samples: int) -> torch.Tensor:
    """The waveforms of one text's parts as one, with `gap_samples` of silence between them."""
    pieces: list[torch.Tensor] = []
    for index, part in enumerate(parts):
        if index and gap_samples:
            pieces.append(part.new_zeros(gap_samples))
        pieces.append(part)
    return torch.cat(pieces)


def collect_stream(chunks: Iterable[SpeechChunk]) -> SpeechOutput:
    """A whole stream as the `SpeechOutput` that `generate` would have returned (audio, lengths, finish reasons).

    Raises:
        ValueError: the stream is empty.
    """
    rows: list[list[torch.Tensor]] = []
    last: SpeechChunk | None = None
    for last in chunks:
        rows = rows or [[] for _ in range(last.audio.shape[0])]
        for row, length in enumerate(last.audio_lengths.tolist()):
            rows[row].append(last.audio[row, :length])
    if last is None:
        raise ValueError("The stream held no chunk.")
    audio, lengths = pad_waveforms([torch.cat(pieces) for pieces in rows])
    return SpeechOutput(
        audio=audio, audio_lengths=lengths, sampling_rate=last.sampling_rate, finish_reason=last.finish_reason
    )


def warn_of_cuts(reasons: Iterable[str]) -> None:
    """Say how many parts were cut, given why each ended."""
    reasons = list(reasons)
    cut = reasons.count("length")
    if cut:
        logger.warning(
            "%d of %d parts reached the limit of tokens before their end: the speech may be cut or have gone astray. "
            "Raise `max_new_tokens`, or speak shorter parts.",
            cut,
            len(reasons),
        )


class ChunkJoiner:
    """Turns the pieces of parts into chunks of texts: gaps between parts, trimmed starts, who is done.

    Args:
        part_counts: Parts of each text.
        sampling_rate: Rate in Hz.
        gap_samples: Silence between the parts of one text.
        trim_samples: Samples cut from the start of each text.
    """

    def __init__(
        self, part_counts: Sequence[int], sampling_rate: int, gap_samples: int = 0, trim_samples: int = 0
    ) -> None:
        self.counts, self.gap = list(part_counts), gap_samples
        self.to_trim = [trim_samples] * len(self.counts)
        self.was_cut = [False] * len(self.counts)
        self.reasons: list[str | None] = [None] * len(self.counts)
        self.sampling_rate = sampling_rate

    def add(self, audio: dict[int, torch.Tensor], ended: dict[int, str], part: int) -> Iterator[SpeechChunk]:
        """The chunk with new samples, unless it would hold nothing new.

        Args:
            audio: New samples of some texts, text to 1-D waveform.
            ended: Texts whose part `part` is complete now, and why (`"stop"` or `"length"`).
            part: The part that is being spoken.
        """
        rows: list[torch.Tensor] = [torch.zeros(0)] * len(self.counts)
        for text, samples in audio.items():
            if text in ended and part + 1 < self.counts[text]:
                samples = torch.cat([samples, samples.new_zeros(self.gap)])
            trimmed = min(self.to_trim[text], len(samples))
            self.to_trim[text] -= trimmed
            rows[text] = samples[trimmed:]
        for text, reason in ended.items():
            self.was_cut[text] |= reason == "length"
            if part + 1 == self.counts[text]:
                self.reasons[text] = "length" if self.was_cut[text] else "stop"
        if ended or any(len(row) for row in rows):
            device = next(iter(audio.values())).device
            waveforms, lengths = pad_waveforms([row.to(device) for row in rows])
            yield SpeechChunk(
                audio=waveforms,
                audio_lengths=lengths,
                is_final=torch.tensor([reason is not None for reason in self.reasons], device=device),
                sampling_rate=self.sampling_rate,
                finish_reason=list(self.reasons),
            )


class SpeechGenerationMixin:
    """The interface of a speaking model: `generate` for whole waveforms, `generate_stream` for chunks as they appear.

    A family implements both on one decoding loop, so that the chunks' concatenation is `generate`'s audio for the same
    seed wherever its decoder is causal.
    """

    def generate(self, *args: Any, **kwargs: Any) -> SpeechOutput:
        """Speak every row; see the family's own method."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `generate`.")

    def generate_stream(self, *args: Any, **kwargs: Any) -> Iterator[SpeechChunk]:
        """Speak every row while generating; see the family's own method."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `generate_stream`.")

    def _sampled_sequence_config(
        self, generation_config: GenerationConfig | None, kwargs: dict[str, Any], family: str, row: str = "row"
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """The parameters of one greedy or sampled sequence per row, and the tensors among the keywords.

        Args:
            generation_config: Replaces the model's own where its fields are set.
            kwargs: Fields of it, and tensors.
            family: Name of the model in an error.
            row: What a sequence belongs to, in an error.

        Raises:
            ValueError: a keyword that is neither, or another mode of generation.
        """
        if kwargs.get("do_sample") is False:
            # The defaults that only matter when sampling: left in, transformers warns about each of them.
            kwargs = dict.fromkeys(("temperature", "top_p", "top_k", "min_p")) | kwargs
        config, rest = self._prepare_generation_config(generation_config, **kwargs)
        rest = {name: value for name, value in rest.items() if value is not None and name != "synced_gpus"}
        unknown = sorted(name for name, value in rest.items() if not isinstance(value, torch.Tensor))
        if unknown:
            hint = " (use `generate_stream` to get sound early)" if "streamer" in unknown else ""
            raise ValueError(f"`generate` has no arguments {unknown}{hint}.")
        mode = config.get_generation_mode()
        if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE) or (config.num_return_sequences or 1) > 1:
            raise ValueError(
                f"{family} generates one greedy or sampled sequence per {row}; got the mode {mode.value!r} with "
                f"`num_return_sequences={config.num_return_sequences}`."
            )
        return config, rest


class SpeechProcessorMixin:
    """What the processors of all speaking models share: writing the result to files."""

    def save_audio(
        self,
        audio: SpeechOutput | torch.Tensor | np.ndarray | Sequence[Any],
        path: str | PathLike | Sequence[str | PathLike],
        sampling_rate: int | None = None,
    ) -> None:
        """Write speech to one file per row (wav, flac, ogg or mp3, by suffix).

        Args:
            audio: What `generate` returned, a waveform, a batch `(batch, samples)`, or a list of waveforms.
            path: One path, or one per row.
            sampling_rate: Rate in Hz; needed only when `audio` is not a `SpeechOutput` and the processor has no
                feature extractor that knows it.

        Raises:
            ValueError: the number of paths is not the number of rows, the rate is unknown, the suffix cannot be
                written, or the audio holds NaN.
        """
        from .audio import save_audio

        waveforms = _waveforms(audio)
        paths = [path] if isinstance(path, str | PathLike) else list(path)
        if len(paths) != len(waveforms):
            raise ValueError(f"`path` names {len(paths)} files for {len(waveforms)} rows of audio: pass one per row.")
        rate = sampling_rate or getattr(audio, "sampling_rate", None)
        rate = rate or getattr(self, "sampling_rate", None)
        rate = rate or getattr(getattr(self, "feature_extractor", None), "sampling_rate", None)
        if rate is None:
            raise ValueError("`sampling_rate` is not known: pass it.")
        for waveform, target in zip(waveforms, paths, strict=True):
            save_audio(target, self.finish_audio(waveform, rate), rate)

    def finish_audio(self, waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
        """What is done to a whole float32 waveform `(samples,)` before it is written; families may override it."""
        return waveform


def _waveforms(audio: SpeechOutput | torch.Tensor | np.ndarray | Sequence[Any]) -> list[np.ndarray]:
    """Rows of float32 samples without their padding."""
    if isinstance(audio, SpeechOutput):
        rows = zip(audio.audio, audio.audio_lengths.tolist(), strict=True)
        return [row[:length].detach().cpu().float().numpy() for row, length in rows]
    if isinstance(audio, list | tuple) and not (audio and np.isscalar(audio[0])):
        return [waveform for row in audio for waveform in _waveforms(row)]
    array = audio.detach().cpu().float().numpy() if isinstance(audio, torch.Tensor) else np.asarray(audio, np.float32)
    return [array] if array.ndim == 1 else list(array)


__all__ = [
    "ChunkJoiner",
    "SpeechChunk",
    "SpeechGenerationMixin",
    "SpeechOutput",
    "SpeechProcessorMixin",
    "collect_stream",
    "derive_seed",
    "draw_seed",
    "join_parts",
    "pad_waveforms",
    "resolve_row_seeds",
    "row_generator",
    "take_options",
    "warn_of_cuts",
]
