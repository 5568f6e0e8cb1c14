"""The examples of Chatterbox' page, and the command line, on a tiny checkpoint."""

import re
from pathlib import Path

import pytest
import soundfile

from tests.models.chatterbox.tester import Tester, recording
from tts_models.audio import save_audio
from tts_models.cli.main import main


PAGE = Path(__file__).parents[3] / "docs/source/model_doc/chatterbox.md"
EXAMPLES = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


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
    exec(compile(EXAMPLES[number], "example", "exec"), {"__name__": "__main__"})
    written = set(re.findall(r"\w+\.wav", EXAMPLES[number])) - {"reference.wav"}
    assert all(soundfile.info(folder / name).frames for name in written)


@pytest.mark.parametrize("options", [["--voice", "reference.wav", "--language", "en"], []])
def test_command_line_speaks(options: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    main(["speak", "Hello.", "--model", "./chatterbox-hf", "--output", "out.wav", "--seed", "0", *options])
    assert soundfile.info("out.wav").samplerate == 24000 and soundfile.info("out.wav").frames


def test_command_line_streams(folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary) -> None:
    monkeypatch.chdir(folder)
    main(["speak", "Hello.", "--model", "./chatterbox-hf", "--voice", "reference.wav", "--output", "-"])
    assert len(capfdbinary.readouterr().out) == 2 * 960 * 6
