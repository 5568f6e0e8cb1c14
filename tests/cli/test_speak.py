"""`tts-models speak`: files, streams, errors, exit codes, and no partial output."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tts_models.cli import main
from tts_models.cli import speak as speak_module
from tts_models.cli.text_input import MAX_TEXT_CHARACTERS


class Capture(io.StringIO):
    """A text stream with a `buffer`, as the standard streams have, for bytes."""

    def __init__(self, content: bytes = b"") -> None:
        super().__init__()
        self.buffer = io.BytesIO(content)


def speak(checkpoint: Path, *arguments: object) -> int:
    """Exit code of the sub-command on the tiny checkpoint, with a short limit and a fixed seed."""
    options = ["--model", checkpoint, "--seed", 3, "--max-new-tokens", 70]
    return main([str(argument) for argument in ("speak", *options, *arguments)])


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_file(checkpoint: Path, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"out{suffix}"
    assert speak(checkpoint, "Good morning.", "-o", path) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{path}: ")
    for words in ("s of audio at 8000 Hz", "first audio after", "real-time factor"):
        assert words in printed
    assert soundfile.info(path).frames > 0
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_stream_equals_file(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert speak(checkpoint, "Good morning.", "-o", tmp_path / "out.wav") == 0
    output = Capture()
    monkeypatch.setattr(sys, "stdout", output)
    assert speak(checkpoint, "Good morning.", "-o", "-") == 0
    streamed = np.frombuffer(output.buffer.getvalue(), "<i2")
    written, rate = soundfile.read(tmp_path / "out.wav", dtype="int16")
    assert rate == 8000 and output.getvalue() == ""
    np.testing.assert_allclose(streamed.astype(int), written.astype(int), atol=1)


def test_stream_is_written_piece_by_piece(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(sys, "stdout", Capture())
    pcm16 = speak_module.pcm16
    monkeypatch.setattr(speak_module, "pcm16", lambda piece: sizes.append(len(piece)) or pcm16(piece))
    assert speak(checkpoint, "Good morning.", "-o", "-") == 0
    assert len(sizes) > 1


def test_seed_repeats_and_options_change(checkpoint: Path, tmp_path: Path) -> None:
    for name, options in {"a": (), "b": (), "c": ("--seed", 4), "d": ("--greedy",)}.items():
        assert speak(checkpoint, "Good morning.", "-o", tmp_path / f"{name}.wav", *options) == 0
    first, second, third, fourth = ((tmp_path / f"{name}.wav").read_bytes() for name in "abcd")
    assert first == second and first != third and first != fourth


@pytest.mark.parametrize("source", ["file", "dash", "pipe"])
def test_text_sources(checkpoint: Path, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\ufeffGood morning.\n".encode()
    (tmp_path / "text.txt").write_bytes(text)
    monkeypatch.setattr(sys, "stdin", Capture(text))
    arguments = {"file": ("--file", tmp_path / "text.txt"), "dash": ("-",), "pipe": ()}[source]
    assert speak(checkpoint, *arguments, "-o", tmp_path / "out.wav") == 0
    assert speak(checkpoint, "Good morning.", "-o", tmp_path / "same.wav") == 0
    assert (tmp_path / "out.wav").read_bytes() == (tmp_path / "same.wav").read_bytes()


def check_refused(code: int, expected: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code and message are right, and nothing was written."""
    captured = capsys.readouterr()
    assert code == expected, captured.err
    assert captured.err.startswith("tts-models: error: ") and message in captured.err
    assert "Traceback" not in captured.err and captured.out == ""
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["", "-o", "out.wav"], "`text` is empty"),
        ([" \n ", "-o", "out.wav"], "`text` is empty"),
        (["a" * 100_000, "-o", "out.wav"], f"100,000 characters; at most {MAX_TEXT_CHARACTERS:,}"),
        (["Hi.", "--file", "text.txt", "-o", "out.wav"], "not both"),
        (["Hi.", "-o", "out.aac"], "must end in one of"),
        (["Hi.", "-o", "out.wav", "--temperature", "-1"], "`--temperature` -1.0 is not allowed"),
        (["Hi.", "-o", "out.wav", "--top-p", "nan"], "`--top-p` nan is not allowed"),
        (["Hi.", "-o", "out.wav", "--max-new-tokens", "0"], "`--max-new-tokens` 0 is not allowed"),
        (["Hi.", "-o", "out.wav", "--voice", ""], "`voice`"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    check_refused(speak(checkpoint, *arguments), 2, message, tmp_path, capsys)


def test_unknown_option_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["speak", "Hi.", "--loudness", "3"])
    assert stop.value.code == 2 and "--loudness" in capsys.readouterr().err


def test_no_text_on_a_terminal(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Capture()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    assert speak(checkpoint) == 2


def test_text_that_is_not_utf8(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xff\xfe\x00")
    code = speak(checkpoint, "--file", tmp_path / "text.txt", "-o", tmp_path / "out.wav")
    check_refused(code, 2, "is not UTF-8", tmp_path, capsys)


def test_output_that_cannot_be_written(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = speak(checkpoint, "Hi.", "-o", tmp_path / "nowhere" / "out.wav")
    check_refused(code, 1, "does not exist", tmp_path, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no model folder"),
        ({}, "it has no config.json"),
        ({"config.json": "{not json"}, "cannot be loaded"),
        ({"config.json": '{"model_type": "no_such_model"}'}, "cannot be loaded"),
        ({"model.safetensors": "damaged"}, "cannot be loaded"),
    ],
)
def test_broken_checkpoint(
    content: dict[str, str] | None,
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "model"
    if content is not None:
        folder.mkdir()
        kept = checkpoint.iterdir() if "model.safetensors" in content else []
        for file in kept:
            (folder / file.name).write_bytes(file.read_bytes())
        for name, text in content.items():
            (folder / name).write_text(text)
    code = main(["speak", "Hi.", "--model", str(folder), "-o", str(tmp_path / "out.wav")])
    check_refused(code, 1, message, tmp_path, capsys)


def test_missing_weights_are_an_error(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in weights if "layers.0" in name))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    code = main(["speak", "Hi.", "--model", str(folder), "-o", str(tmp_path / "out.wav")])
    check_refused(code, 1, "lacks 1 weights", tmp_path, capsys)


def test_failure_while_speaking_leaves_no_file(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tts_models import Maya1ForConditionalGeneration

    original = Maya1ForConditionalGeneration.generate_stream

    def broken(self: Maya1ForConditionalGeneration, **inputs: object) -> object:
        yield next(iter(original(self, **inputs)))
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Maya1ForConditionalGeneration, "generate_stream", broken)
    code = speak(checkpoint, "Hi.", "-o", tmp_path / "out.wav")
    check_refused(code, 1, "out of memory", tmp_path, capsys)


def test_debug_shows_the_traceback(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="is empty"):
        main(["--debug", "speak", "", "--model", str(checkpoint)])


@pytest.mark.parametrize(("given", "expected"), [((), 1), (("--threads", 2), 2)])
def test_threads(
    given: tuple, expected: int, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model gets one thread unless told otherwise, and the process keeps its own number."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    used: list[int] = []
    save_audio = speak_module.save_audio
    monkeypatch.setattr(speak_module, "save_audio", lambda *a: used.append(torch.get_num_threads()) or save_audio(*a))
    before = torch.get_num_threads()
    assert speak(checkpoint, "Good morning.", "-o", tmp_path / "out.wav", *given) == 0
    assert used == [expected] and torch.get_num_threads() == before


def test_no_threads(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert speak(checkpoint, "Good morning.", "-o", tmp_path / "out.wav", "--threads", 0) == 2
    assert "`--threads` 0" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_options_reach_the_model(checkpoint: Path, tmp_path: Path) -> None:
    """`trim_start_samples` is an argument of Maya1's own."""
    assert speak(checkpoint, "Good morning.", "-o", tmp_path / "whole.wav") == 0
    assert speak(checkpoint, "Good morning.", "-o", tmp_path / "cut.wav", "--option", "trim_start_samples=100") == 0
    whole, cut = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("whole", "cut"))
    np.testing.assert_array_equal(cut, whole[100:])


@pytest.mark.parametrize(
    ("option", "message"),
    [("steps", "NAME=VALUE"), ("two words=1", "NAME=VALUE"), ("unknown=1", "unknown"), ("noise_scale=-1", "-1")],
)
def test_bad_option(
    option: str, message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speak(checkpoint, "Good morning.", "-o", tmp_path / "out.wav", "--option", option) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
