"""The examples of Chatterbox' page, and the command line, on a tiny checkpoint."""

from pathlib import Path

import pytest
import soundfile

from tests.common.page_examples import page_examples, run_example
from tests.models.chatterbox.tester import Tester, recording
from tts_models.audio import save_audio
from tts_models.cli.main import main


EXAMPLES = page_examples("chatterbox")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny checkpoint under the page's name, and a recording."""
    model = Tester().model()
    model.generation_config.update(max_new_tokens=6)
    model.save_pretrained(tmp_path / "chatterbox-hf")
    Tester().processor().save_pretrained(tmp_path / "chatterbox-hf")
    save_audio(tmp_path / "reference.wav", recording(1.0, 44100), 44100)
    return tmp_path


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_of_the_page_runs(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run_example(EXAMPLES[number])


@pytest.mark.parametrize("options", [["--voice", "reference.wav", "--language", "en"], []])
def test_command_line_speaks(options: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    main(["speak", "Hello.", "--model", "./chatterbox-hf", "--output", "out.wav", "--seed", "0", *options])
    assert soundfile.info("out.wav").samplerate == 24000 and soundfile.info("out.wav").frames


def test_command_line_streams(folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary) -> None:
    monkeypatch.chdir(folder)
    main(["speak", "Hello.", "--model", "./chatterbox-hf", "--voice", "reference.wav", "--output", "-"])
    assert len(capfdbinary.readouterr().out) == 2 * 960 * 6
