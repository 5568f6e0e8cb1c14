"""Voices prepared once: what they share is being kept in one safetensors file, and moved between devices."""

from dataclasses import fields
from os import PathLike
from typing import Any, ClassVar, TypeVar

import torch

from .files import write_tensors
from .speech_inputs import read_voice_file


Voice = TypeVar("Voice", bound="PreparedVoice")


class PreparedVoice:
    """Base of dataclasses whose fields are tensors.

    Attributes:
        file_format (`str`): What the file's metadata states as `format`.
    """

    file_format: ClassVar[str]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def to(self: Voice, device: torch.device | str) -> Voice:
        """The same voice on another device."""
        return type(self)(**{name: value.to(device) for name, value in self.tensors().items()})

    def save(self, path: str | PathLike) -> None:
        """Write the voice to one safetensors file."""
        tensors = self.tensors().items()
        stored = {name: value.float() if value.is_floating_point() else value for name, value in tensors}
        write_tensors(path, stored, {"format": self.file_format})

    @classmethod
    def load(cls, path: str | PathLike) -> Any:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else.
        """
        tensors, _ = read_voice_file(path, cls.file_format)
        names = {each.name for each in fields(cls)}
        if set(tensors) != names:
            raise ValueError(f"`path` {str(path)!r} must hold {sorted(names)}; it holds {sorted(tensors)}.")
        return cls(**tensors)


__all__ = ["PreparedVoice"]
