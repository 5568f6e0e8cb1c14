"""Training of MetaVoice's first stage: layout, loss, what is trained, adapters, the example script."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.models.metavoice.tester import END, END_OF_TEXT, RATE, SPEAKER, TEXT_OFFSET, Tester, recording
from tts_models import MetaVoiceForConditionalGeneration, MetaVoiceProcessor
from tts_models.audio import save_audio
from tts_models.models.metavoice.training_metavoice import (
    encode_example,
    optimizer_groups,
    train_last_blocks,
    training_batch,
)
from tts_models.training.audio_dataset import Recording


TEXT = [TEXT_OFFSET + 1, TEXT_OFFSET + 2, END_OF_TEXT]
SCRIPT = Path(__file__).parents[3] / "examples" / "finetune_metavoice.py"


def batch(context: int = 12, **options: bool) -> dict[str, torch.Tensor]:
    codes = [torch.tensor([[1, 2, 3], [4, 5, 6], [7, 7, 7]]), torch.arange(8).repeat(2, 2)]
    config = Tester().config().first_stage_config
    return training_batch(config, [TEXT] * 2, codes, torch.ones(2, SPEAKER), context, **options)


def test_layout_of_a_row() -> None:
    given = batch()
    row = [*TEXT, 1, 12, 2, 13, 3, 14, END, END, END, END]
    assert given["input_ids"][0].tolist() == row[:-1] and given["shift_labels"][0].tolist() == row[1:]
    # The second row is cut.
    assert given["input_ids"][1].tolist() == [*TEXT, 0, 8, 1, 9, 2, 10, 3, 11, 4]
    assert given["shift_labels"][1, -1] == 12


def test_padding_can_be_left_out_of_the_loss() -> None:
    labels = batch(ignore_padding=True)["shift_labels"]
    assert labels[0, 7:].tolist() == [14, END, -100, -100, -100] or labels[0, 8:].tolist() == [END, -100, -100, -100]
    assert (labels[1] != -100).all()


def test_loss_is_the_mean_over_every_position() -> None:
    model, given = Tester().model(), batch()
    output = model(**given)
    expected = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), given["shift_labels"].flatten())
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize(
    "codes", [torch.zeros(2, 0, dtype=torch.long), torch.full((2, 3), 8), torch.zeros(3, dtype=torch.long)]
)
def test_bad_codes_are_refused(codes: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="`codes`"):
        training_batch(Tester().config().first_stage_config, [TEXT], [codes], torch.ones(1, SPEAKER))


def test_rows_must_agree() -> None:
    with pytest.raises(ValueError, match="one entry per row"):
        training_batch(Tester().config().first_stage_config, [TEXT], [], torch.ones(1, SPEAKER))


@pytest.mark.parametrize("blocks", [0, 1, 2, None])
def test_what_is_trained(blocks: int | None) -> None:
    model = Tester().model()
    train_last_blocks(model.first_stage, blocks)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert all(name.startswith("first_stage.") for name in trained)
    if blocks is not None:
        assert all("layers" in name or name.endswith("model.norm.weight") for name in trained)
        assert {int(found[1]) for name in trained if (found := re.search(r"layers\.(\d)", name))} == set(
            range(2 - blocks, 2)
        )
    matrices, vectors = optimizer_groups(model)
    assert all(each.dim() < 2 for each in vectors["params"]) and vectors["weight_decay"] == 0
    assert len(matrices["params"]) + len(vectors["params"]) == len(trained)


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(ValueError, match="`blocks`"):
        train_last_blocks(Tester().model().first_stage, 3)


def test_an_example_of_a_recording(tmp_path: Path) -> None:
    save_audio(tmp_path / "a.wav", recording(0.5, rate=RATE), RATE)
    model, processor = Tester().model(), Tester().processor()
    example = encode_example(model, processor, Recording(tmp_path / "a.wav", "the end"))
    assert example["codes"].shape == (2, 38) and example["text_ids"][-1] == END_OF_TEXT
    assert example["speaker_embedding"].shape == (SPEAKER,)
    save_audio(tmp_path / "b.wav", torch.zeros(RATE), RATE)
    with pytest.raises(ValueError, match="silent"):
        encode_example(model, processor, Recording(tmp_path / "b.wav", "the end"))


# The script


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with five recordings and their tables."""
    folder = tmp_path_factory.mktemp("metavoice")
    Tester().model().save_pretrained(folder)
    Tester().processor().save_pretrained(folder)
    for number in range(5):
        save_audio(folder / f"{number}.wav", recording(0.6, rate=RATE, seed=number), RATE)
    (folder / "caption.txt").write_text("The words of a file.\n")
    lines = ["audio_files|captions", "0.wav|The first words.", "1.wav|caption.txt", "2.wav|Others.", "3.wav|More."]
    (folder / "train.csv").write_text("\n".join(lines))
    (folder / "val.csv").write_text("audio_files|captions\n4.wav|Held out.")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, output: Path, *arguments: object) -> None:
    given = ["--model", folder, "--data", folder / "train.csv", "--output", output, *arguments]
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, *map(str, given)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.parametrize("extra", [["--last_blocks", 2], ["--full", "--validation"], ["--lora", "--lora_rank", 4]])
def test_fine_tuning_lowers_the_loss(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], extra: list
) -> None:
    extra = [*extra, folder / "val.csv"] if "--validation" in extra else extra
    run(
        monkeypatch, folder, tmp_path, "--max_steps", 12, "--batch_size", 3, "--learning_rate", 1e-2,
        "--dropout", 0, "--context", 100, "--default_voice", folder / "0.wav", *extra,
    )  # fmt: skip
    before, after = map(float, re.findall(r"loss (?:before|after): ([\d.]+)", capsys.readouterr().out))
    assert after < before
    model = MetaVoiceForConditionalGeneration.from_pretrained(tmp_path)
    original = MetaVoiceForConditionalGeneration.from_pretrained(folder).state_dict()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, original[name])}
    assert changed and all(name.startswith("first_stage.") for name in changed)
    if "--full" not in extra:
        assert not any("embed" in name for name in changed)
    processor = MetaVoiceProcessor.from_pretrained(tmp_path)
    speech = model.generate(**processor(text="Hello."), seed=0, max_new_tokens=20)
    assert speech.audio_lengths.tolist() == [3200] and (tmp_path / "adapter").exists() == ("--lora" in extra)


def test_shared_recordings_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "copy.wav").write_bytes((folder / "2.wav").read_bytes())
    (folder / "shared.csv").write_text("audio_files|captions\n4.wav|Held out.\ncopy.wav|Others.")
    with pytest.raises(ValueError, match="copy.wav"):
        run(monkeypatch, folder, tmp_path / "out", "--validation", folder / "shared.csv")
    assert not (tmp_path / "out").exists()
