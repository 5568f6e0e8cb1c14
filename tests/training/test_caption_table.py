"""Tables of recordings and captions."""

from pathlib import Path

import pytest

from tts_models.training.caption_table import check_disjoint, read_captions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        (tmp_path / f"{number}.wav").write_bytes(b"sound %d" % number)
    (tmp_path / "1.txt").write_text("The caption\nof the second.\n")
    return tmp_path


def write(folder: Path, content: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize("header", ["audio_files|captions\n", "", "\ufeffwav|text\n"])
def test_captions_and_files_with_captions(folder: Path, header: str) -> None:
    rows = read_captions(write(folder, f'{header}0.wav|He said "no".\n\n1.wav|1.txt\n'))
    assert [(row.path.name, row.text) for row in rows] == [
        ("0.wav", 'He said "no".'),
        ("1.wav", "The caption of the second."),
    ]


def test_files_in_the_working_directory(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    monkeypatch.chdir(folder)
    assert read_captions(write(tables, "a|b\n2.wav|Words.\n"))[0].text == "Words."


def test_a_caption_longer_than_a_file_name(folder: Path) -> None:
    caption = "word " * 2000
    assert read_captions(write(folder, f"0.wav|{caption}\n"))[0].text == caption.strip()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("audio_files|captions\n0.wav\n", "line 2"),
        ("0.wav|a|b\n", "line 1"),
        ("0.wav|a\nnone.wav|b\n", "none.wav"),
        ("0.wav|\n", "empty"),
        ("audio_files|captions\n", "no recording"),
        ("", "no recording"),
    ],
)
def test_bad_tables_are_named(folder: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_captions(write(folder, content))


def test_missing_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no table"):
        read_captions(tmp_path / "none.csv")


def test_shared_recordings_are_found_by_content(folder: Path) -> None:
    (folder / "copy.wav").write_bytes((folder / "0.wav").read_bytes())
    train = read_captions(write(folder, "0.wav|a\n1.wav|b\n"))
    check_disjoint(train, read_captions(write(folder, "2.wav|a\n")))
    with pytest.raises(ValueError, match="1 of 2 .*copy.wav"):
        check_disjoint(train, read_captions(write(folder, "2.wav|c\ncopy.wav|d\n")))
