"""`python -m tts_models` is the `tts-models` command."""

from .cli import main


if __name__ == "__main__":
    raise SystemExit(main())
