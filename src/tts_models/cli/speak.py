"""`tts-models speak`: text in, an audio file or a stream of samples out."""

import argparse
import inspect
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio import AUDIO_SUFFIXES, check_audio_path, pcm16, save_audio
from .errors import UsageError
from .loading import DTYPES, load_speaker, quieten, resolve_model
from .text_input import MAX_TEXT_CHARACTERS, read_text
from .threads import check_threads, computing_threads


if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, ProcessorMixin

# Option -> (type, help); each is passed to `generate_stream` under its own name when given.
GENERATION_OPTIONS: dict[str, tuple[type, str]] = {
    "temperature": (float, "randomness of the sampling, above 0"),
    "top_p": (float, "smallest probability mass to sample from, above 0 and at most 1"),
    "top_k": (int, "number of candidates to sample from; 0 for all"),
    "repetition_penalty": (float, "penalty of repeated tokens, above 0; 1 for none"),
    "max_new_tokens": (int, "limit of generated tokens, at least 1"),
}
_ALLOWED = {
    "temperature": lambda value: 0 < value <= 100,
    "top_p": lambda value: 0 < value <= 1,
    "top_k": lambda value: 0 <= value,
    "repetition_penalty": lambda value: 0 < value <= 100,
    "max_new_tokens": lambda value: 1 <= value,
}

# Option -> help; each is passed to the processor under its own name when given, if it takes it.
PROCESSOR_OPTIONS = {
    "transcript": "what is said in the recording that `--voice` names, to clone its manner too",
    "language": "language of the text, by name or ISO code",
    "instruct": "how to speak, in words",
}


@dataclass
class SpeechTiming:
    """What was spoken, and how fast.

    Attributes:
        samples: Samples spoken.
        sampling_rate: Their rate in Hz.
        first_audio: Seconds from the start to the first samples.
        total: Seconds from the start to the last sample.
    """

    samples: int = 0
    sampling_rate: int = 0
    first_audio: float = 0.0
    total: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return self.samples / self.sampling_rate if self.sampling_rate else 0.0

    def __str__(self) -> str:
        factor = self.total / self.duration if self.duration else float("inf")
        return (
            f"{self.duration:.2f} s of audio at {self.sampling_rate} Hz, first audio after {self.first_audio:.3f} s, "
            f"real-time factor {factor:.3f}"
        )


def add_parser(commands: Any) -> None:
    """Adds the sub-command to `commands`, the object that `add_subparsers` returned."""
    parser = commands.add_parser(
        "speak",
        help="speak a text",
        description="Speak a text into a file, or as a stream of 16-bit mono PCM on the standard output.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "text", nargs="?", help=f'what to say, up to {MAX_TEXT_CHARACTERS:,} characters; "-" reads the standard input'
    )
    parser.add_argument("--file", help="read the text from this UTF-8 file")
    parser.add_argument("-m", "--model", help="folder or Hub id; the voice that comes with the package by default")
    parser.add_argument("--voice", help="a voice's name, description or recording, as the model understands it")
    for name, text in PROCESSOR_OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)
    suffixes = ", ".join(AUDIO_SUFFIXES)
    parser.add_argument(
        "-o",
        "--output",
        default="speech.wav",
        help=f'file to write ({suffixes}); "-" streams (default: %(default)s)',
    )
    parser.add_argument("--seed", type=int, help="the same seed gives the same speech")
    parser.add_argument("--device", help="torch device (default: cuda where there is one, else cpu)")
    parser.add_argument("--dtype", choices=DTYPES, help="precision of the weights (default: the checkpoint's)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: 1 for small models, else torch's choice)")
    options = parser.add_argument_group("generation", "what is not given stays at the checkpoint's own default")
    options.add_argument("--greedy", action="store_true", help="always take the most likely token")
    options.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other argument of the model's generate",
    )
    for name, (kind, text) in GENERATION_OPTIONS.items():
        options.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)


def generation_options(args: argparse.Namespace) -> dict[str, Any]:
    """The given generation options as keywords of `generate_stream`.

    Raises:
        UsageError: a value is out of its range.
    """
    given = {name: getattr(args, name) for name in GENERATION_OPTIONS if getattr(args, name) is not None}
    for name, value in given.items():
        if not _ALLOWED[name](value):
            raise UsageError(f"`--{name.replace('_', '-')}` {value} is not allowed: {GENERATION_OPTIONS[name][1]}.")
    given |= dict(map(_named_value, args.option))
    return {**given, "do_sample": False} if args.greedy else given


def _named_value(text: str) -> tuple[str, Any]:
    """`NAME=VALUE` as a name and what the value means in JSON, a string where it means nothing."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise UsageError(f"`--option` {text!r} is not allowed: NAME=VALUE, as in num_inference_steps=10.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def check_output(output: str) -> Path | None:
    """The file to write, or `None` for the standard output.

    Raises:
        UsageError: the suffix is unknown.
        OSError: the file cannot be written.
    """
    if output == "-":
        return None
    try:
        return check_audio_path(output)
    except ValueError as error:
        raise UsageError(f"`--output`: {error}") from error


def prepare_inputs(
    processor: "ProcessorMixin", model: "PreTrainedModel", text: str, voice: str | None, **options: str | None
) -> Any:
    """The model's inputs, on its device; `options` are those of `PROCESSOR_OPTIONS`.

    Raises:
        UsageError: the processor refuses the text or the voice, or does not take an option.
    """
    given = {name: value for name, value in {"voice": voice, **options}.items() if value is not None}
    known = inspect.signature(type(processor).__call__).parameters
    for name in given:
        if name not in known:
            raise UsageError(f"`--{name}`: {type(processor).__name__} does not take it.")
    try:
        return processor(text=[text], **given).to(model.device)
    except ValueError as error:
        raise UsageError(str(error)) from error


def spoken_pieces(
    model: "PreTrainedModel", inputs: Any, options: dict[str, Any], timing: SpeechTiming
) -> "Iterator[np.ndarray]":
    """Yields float32 samples (n,) as they are generated, and keeps `timing`.

    Raises:
        UsageError: the model refuses an option.
    """
    start = time.perf_counter()
    try:
        chunks = model.generate_stream(**inputs, **options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    for chunk in chunks:
        length = int(chunk.audio_lengths[0])
        timing.sampling_rate = chunk.sampling_rate
        if length:
            piece = chunk.audio[0, :length].float().cpu().numpy()
            timing.first_audio = timing.first_audio or time.perf_counter() - start
            timing.samples += length
            timing.total = time.perf_counter() - start
            yield piece
    timing.total = time.perf_counter() - start
    if not timing.samples:
        raise RuntimeError("The model produced no audio for this text; try another `--seed`.")


def with_progress(pieces: "Iterator[np.ndarray]", timing: SpeechTiming, show: bool) -> "Iterator[np.ndarray]":
    """`pieces`, with a bar of the seconds spoken so far on the standard error."""
    from tqdm import tqdm

    bar_format = "{desc}: {n:.1f} s spoken in {elapsed}"
    with tqdm(desc="Speaking", disable=not show, bar_format=bar_format, file=sys.stderr, leave=False) as bar:
        for piece in pieces:
            bar.update(len(piece) / timing.sampling_rate)
            yield piece


def write_stream(pieces: "Iterator[np.ndarray]") -> None:
    """Writes 16-bit little-endian mono PCM to the standard output, each piece at once."""
    for piece in pieces:
        sys.stdout.buffer.write(pcm16(piece))
        sys.stdout.buffer.flush()


def write_file(pieces: "Iterator[np.ndarray]", path: Path, timing: SpeechTiming, processor: "ProcessorMixin") -> None:
    """Writes the file after the last piece, so that a failure leaves none."""
    import numpy as np

    waveform = np.concatenate(list(pieces))
    save_audio(path, processor.finish_audio(waveform, timing.sampling_rate), timing.sampling_rate)


def run(args: argparse.Namespace) -> None:
    """Carries out the sub-command; everything that can be checked is checked before the model is loaded."""
    options, path, text = generation_options(args), check_output(args.output), read_text(args)
    check_threads(args.threads)
    name = resolve_model(args.model)
    show_progress = sys.stderr.isatty()
    quieten(show_progress)
    import torch

    model, processor = load_speaker(name, args.device, args.dtype)
    extras = {name: getattr(args, name) for name in PROCESSOR_OPTIONS}
    inputs = prepare_inputs(processor, model, text, args.voice, **extras)
    if args.seed is not None:
        torch.manual_seed(args.seed)
    timing = SpeechTiming()
    pieces = with_progress(spoken_pieces(model, inputs, options, timing), timing, show_progress)
    with computing_threads(model, args.threads):
        if path is None:
            write_stream(pieces)
        else:
            write_file(pieces, path, timing, processor)
    if path is None:
        print(f"16-bit mono PCM: {timing}", file=sys.stderr)
    else:
        print(f"{path}: {timing}")


__all__ = ["add_parser", "run"]
