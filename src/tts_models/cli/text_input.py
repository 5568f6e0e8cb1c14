"""Where the text to speak comes from."""

import argparse
import sys
from pathlib import Path

from .errors import UsageError


MAX_TEXT_CHARACTERS = 50_000


def read_text(args: argparse.Namespace) -> str:
    """The text of the argument, of `--file`, or of the standard input; checked by `check_text`.

    Raises:
        UsageError: no source or two sources are given, or the text is not allowed.
        OSError: the file cannot be read.
    """
    if args.text is not None and args.file is not None:
        raise UsageError("Give the text either as an argument or with `--file`, not both.")
    if args.file is not None and args.file != "-":
        return check_text(_decode(Path(args.file).read_bytes(), args.file))
    if args.text is not None and args.text != "-":
        return check_text(args.text)
    if args.text is None and args.file is None and sys.stdin.isatty():
        raise UsageError('No text: give it as an argument, with `--file`, or on the standard input ("-").')
    return check_text(_decode(sys.stdin.buffer.read(), "the standard input"))


def check_text(text: str) -> str:
    """`text` without blanks around it.

    Raises:
        UsageError: nothing is left, or more than `MAX_TEXT_CHARACTERS`.
    """
    text = text.strip()
    if not text:
        raise UsageError("`text` is empty: give at least one word.")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise UsageError(f"`text` has {len(text):,} characters; at most {MAX_TEXT_CHARACTERS:,} are allowed.")
    return text


def _decode(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"The text in {source} is not UTF-8: {error}.") from error


__all__ = ["MAX_TEXT_CHARACTERS", "check_text", "read_text"]
