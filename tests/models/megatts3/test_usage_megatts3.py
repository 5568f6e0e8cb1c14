"""The examples of MegaTTS3's page, and the command line, on a tiny checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.common.page_examples import page_examples, run_example
from tests.models.megatts3.tester import Tester, latents_for, recording
from tts_models.audio import save_audio
from tts_models.cli.main import main


EXAMPLES = page_examples("megatts3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint under the page's name, and a recording with its latents."""
    path = tmp_path_factory.mktemp("usage")
    model = Tester().model(vae_config={"has_encoder": False})
    model.generation_config.update(max_new_tokens=6, num_inference_steps=1)
    model.save_pretrained(path / "megatts3-hf")
    Tester().processor().save_pretrained(path / "megatts3-hf")
    save_audio(path / "reference.wav", recording(1.0, 44100), 44100)
    np.save(path / "reference.npy", latents_for(1.0))
    return path


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_of_the_page_runs(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run_example(EXAMPLES[number])


@pytest.mark.parametrize("options", [["--voice", "reference.wav,reference.npy", "--language", "en"], []])
def test_command_line_speaks(options: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    main(["speak", "Hello.", "--model", "./megatts3-hf", "--output", "out.wav", "--seed", "0", *options])
    assert soundfile.info("out.wav").samplerate == 24000 and soundfile.info("out.wav").frames


def test_command_line_refuses_a_recording_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(folder)
    arguments = ["speak", "Hello.", "--model", "./megatts3-hf", "--voice", "reference.wav", "--output", "no.wav"]
    try:
        code = main(arguments)
    except SystemExit as error:
        code = error.code
    assert code and ".npy" in capsys.readouterr().err and not Path("no.wav").exists()
