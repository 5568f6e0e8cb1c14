"""Tables of recordings and captions, `audio_files|captions`, and whether two of them share recordings."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

from .audio_dataset import Recording


def read_captions(path: str | Path) -> list[Recording]:
    """Read a table of two columns divided by `|`: an audio file, and what is said in it.

    The names of the columns do not matter, nor whether the first line holds them. A caption that names a file with
    text stands for its content. Files are looked for beside the table, then in the working directory.

    Args:
        path: The table, UTF-8.

    Raises:
        ValueError: a line has another number of columns, no caption, or names an audio file that does not exist; or
            there is no recording.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no table {str(path)!r}.")
    recordings = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE), start=1):
            if not any(value.strip() for value in row):
                continue
            if len(row) != 2:
                raise ValueError(f"{path}, line {number}: expected `audio file|caption`, got {row}.")
            audio = _find(row[0].strip(), path.parent)
            if audio is None and number == 1:
                continue
            if audio is None:
                raise ValueError(f"{path}, line {number}: there is no audio file {row[0].strip()!r}.")
            recordings.append(Recording(audio, _caption(row[1].strip(), path, number)))
    if not recordings:
        raise ValueError(f"{path} names no recording.")
    return recordings


def _find(name: str, folder: Path) -> Path | None:
    """The file `name`, beside the table or in the working directory."""
    for candidate in (folder / name, Path(name)):
        try:
            if name and candidate.is_file():
                return candidate
        except OSError:  # a caption that is longer than any file name
            return None
    return None


def _caption(value: str, path: Path, number: int) -> str:
    file = _find(value, path.parent)
    text = value if file is None else " ".join(file.read_text(encoding="utf-8").split())
    if not text:
        raise ValueError(f"{path}, line {number}: the caption is empty.")
    return text


def check_disjoint(train: Sequence[Recording], validation: Sequence[Recording]) -> None:
    """Refuse recordings that are learned from and measured on, whatever their files are called.

    Raises:
        ValueError: with the first files that both hold.
    """
    known = {_content(recording.path): recording.path for recording in train}
    shared = [
        f"{recording.path} (= {known[content]})"
        for recording in validation
        if (content := _content(recording.path)) in known
    ]
    if shared:
        raise ValueError(
            f"{len(shared)} of {len(validation)} recordings for validation are in the training set too: "
            f"{', '.join(shared[:3])}{', …' if len(shared) > 3 else ''}."
        )


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


__all__ = ["check_disjoint", "read_captions"]
