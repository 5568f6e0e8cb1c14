"""Folders of audio as training data."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ..audio import load_audio


@dataclass
class Recording:
    """One line of a metadata file.

    Attributes:
        path: The audio file.
        text: What is said.
        voice: Description or name of the voice, or `None` where the file has no third column.
    """

    path: Path
    text: str
    voice: str | None = None


def read_metadata(path: str | Path) -> list[Recording]:
    """Read a `file|text` or `file|text|voice` table; file names are relative to the table's folder.

    A first line `audio_files|captions` is a header.

    Raises:
        ValueError: if a line has another number of columns, an empty text, or names a file that does not exist.
    """
    path = Path(path)
    recordings = []
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file, delimiter="|"), start=1):
            if number == 1 and row[:2] == ["audio_files", "captions"]:
                continue
            if len(row) not in (2, 3) or not row[1].strip():
                raise ValueError(f"{path}, line {number}: expected `file|text` or `file|text|voice`, got {row}.")
            audio = path.parent / row[0]
            if not audio.is_file():
                raise ValueError(f"{path}, line {number}: there is no audio file {audio}.")
            recordings.append(Recording(audio, row[1].strip(), row[2].strip() if len(row) == 3 else None))
    return recordings


def find_audio_files(folder: str | Path) -> list[Path]:
    """All wav, flac, ogg and mp3 files below `folder`, sorted.

    Raises:
        ValueError: if there is none.
    """
    files = sorted(
        path for path in Path(folder).rglob("*") if path.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3")
    )
    if not files:
        raise ValueError(f"`folder` holds no wav, flac, ogg or mp3 file: {folder}")
    return files


class AudioCropDataset(Dataset):
    r"""
    Random crops of recordings, kept in memory as 16-bit samples. Item `i` is a crop of recording `i % len(files)`.

    Args:
        files (`list[Path]`): Audio files, resampled to `sampling_rate`.
        sampling_rate (`int`): Hz.
        crop_samples (`int`): Length of a crop; shorter recordings are padded with zeros at a random place.
        length (`int`): Number of items.
        seed (`int`): Item `i` is the same in every run with this seed.
        grid_samples (`int`): Crops start at multiples of this many samples of the recording.
    """

    def __init__(
        self,
        files: list[Path],
        sampling_rate: int,
        crop_samples: int,
        length: int,
        seed: int = 0,
        grid_samples: int = 1,
    ):
        self.crop_samples, self.length, self.seed, self.grid_samples = crop_samples, length, seed, grid_samples
        self.recordings = [(load_audio(file, sampling_rate)[0] * 32767).astype(np.int16) for file in files]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, item))
        recording = self.recordings[rng.integers(len(self.recordings))]
        crop = np.zeros(self.crop_samples, dtype=np.float32)
        spare = len(recording) - self.crop_samples
        if spare >= 0:
            start = self.grid_samples * rng.integers(spare // self.grid_samples + 1)
            crop[:] = recording[start : start + self.crop_samples]
        else:
            start = self.grid_samples * rng.integers(-spare // self.grid_samples + 1)
            crop[start : start + len(recording)] = recording
        return {"input_values": torch.from_numpy(crop / 32767)[None]}
