"""The `tts-models` command."""

from .main import main


__all__ = ["main"]
