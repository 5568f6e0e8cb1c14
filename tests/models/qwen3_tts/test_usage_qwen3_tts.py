"""The examples of Qwen3-TTS' page, and the command line, on tiny checkpoints."""

from pathlib import Path

import pytest
import soundfile

from tests.common.page_examples import page_examples, run_example
from tests.models.maya1.tester import Tester as Maya1Tester
from tests.models.qwen3_tts.tester import RATE, Tester, recording
from tts_models.audio import save_audio
from tts_models.cli.main import main


EXAMPLES = page_examples("qwen3_tts")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A tiny checkpoint of each kind, and a recording."""
    for kind in ("base", "custom_voice", "voice_design"):
        model = Tester().model(kind=kind)
        model.generation_config.update(max_new_tokens=6)
        model.save_pretrained(tmp_path / kind)
        Tester().processor(kind).save_pretrained(tmp_path / kind)
    save_audio(tmp_path / "reference.wav", recording(1.0), RATE)
    return tmp_path


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_of_the_page_runs(number: int, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = EXAMPLES[number]
    for released, kind in (
        ("1.7B-CustomVoice", "custom_voice"),
        ("0.6B-CustomVoice", "custom_voice"),
        ("1.7B-Base", "base"),
    ):
        code = code.replace(f"Qwen/Qwen3-TTS-12Hz-{released}", kind)
    monkeypatch.chdir(folders)
    run_example(code)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("custom_voice", ["--voice", "bob", "--language", "en", "--instruct", "Happy."]),
        ("voice_design", ["--voice", "A deep voice."]),
        ("base", ["--voice", "reference.wav"]),
        ("base", ["--voice", "reference.wav", "--transcript", "A b c."]),
    ],
)
def test_command_line_speaks_in_every_mode(
    kind: str, options: list[str], folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders)
    main(["speak", "Hello.", "--model", f"./{kind}", "--output", "out.wav", "--seed", "0", *options])
    assert soundfile.info("out.wav").samplerate == RATE and soundfile.info("out.wav").frames


def test_command_line_refuses_what_a_processor_does_not_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Maya1Tester().model().save_pretrained(tmp_path)
    Maya1Tester().processor().save_pretrained(tmp_path)
    assert main(["speak", "Hello.", "--model", str(tmp_path), "--language", "english", "--output", "-"]) == 2
    assert "--language" in capsys.readouterr().err
