"""The examples of MetaVoice's page, and the command line, on a tiny checkpoint."""

from pathlib import Path

import pytest
import soundfile
import torch

from tests.common.page_examples import page_examples, run_example
from tests.models.metavoice.tester import FRAME, RATE, Tester, recording
from tts_models.audio import save_audio
from tts_models.cli.main import main


EXAMPLES = page_examples("metavoice")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny checkpoint under the page's name, and recordings."""
    model = Tester().model()
    model.generation_config.update(max_new_tokens=40)
    model.save_pretrained(tmp_path / "metavoice-hf")
    Tester().processor().save_pretrained(tmp_path / "metavoice-hf")
    for seed, name in enumerate(("reference", "another")):
        save_audio(tmp_path / f"{name}.wav", recording(2.0, 44100, seed), 44100)
    return tmp_path


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_of_the_page_runs(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "torchao" in EXAMPLES[number]:
        pytest.importorskip("torchao")
    monkeypatch.chdir(folder)
    run_example(EXAMPLES[number])


@pytest.mark.parametrize("options", [["--voice", "reference.wav"], ["--voice", "friend.safetensors"], []])
def test_command_line_speaks(options: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    processor = Tester().processor()
    processor.default_voice.save("friend.safetensors")
    given = ["speak", "Hello.", "--model", "./metavoice-hf", "--output", "out.wav", "--seed", "0"]
    assert main([*given, *options]) == 0
    assert soundfile.info("out.wav").samplerate == RATE and soundfile.info("out.wav").frames == 20 * FRAME


def test_command_line_streams(folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary) -> None:
    monkeypatch.chdir(folder)
    assert main(["speak", "Hello.", "--model", "./metavoice-hf", "--voice", "reference.wav", "--output", "-"]) == 0
    assert len(capfdbinary.readouterr().out) == 2 * FRAME * 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Привет"], "U+041F"),
        (["Hello.", "--voice", "https://example.org/a.wav"], "nothing is fetched"),
        (["Hello.", "--voice", "nowhere.wav"], "nowhere.wav"),
        (["Hello.", "--language", "en"], "--language"),
    ],
)
def test_command_line_names_what_is_wrong(
    arguments: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(folder)
    assert main(["speak", *arguments, "--model", "./metavoice-hf", "--output", "out.wav"]) == 2
    assert message in capsys.readouterr().err and not Path("out.wav").exists()


def test_sharded_folders_speak_alike(folder: Path) -> None:
    """A folder that was saved in several files speaks as the one it was made of."""
    model = Tester().model_class.from_pretrained(folder / "metavoice-hf")
    size = sum(each.numel() * each.element_size() for each in model.parameters())
    model.save_pretrained(folder / "sharded", max_shard_size=size // 3)
    again = Tester().model_class.from_pretrained(folder / "sharded")
    given = Tester().processor()(text=["Hello."])
    one, other = (each.generate(**given, seed=0) for each in (model, again))
    torch.testing.assert_close(one.audio, other.audio, atol=1e-6, rtol=0)
