"""Entry point of the command: its sub-commands, and how errors become messages and exit codes."""

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from . import info, speak
from .errors import UsageError


EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The command's argument parser; a sub-command's function is in `run`."""
    parser = argparse.ArgumentParser(prog="tts-models", description="Speak with open text-to-speech models.")
    parser.add_argument("--version", action="version", version=f"tts-models {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (speak, info):
        module.add_parser(commands)
    return parser


def _report(error: BaseException, debug: bool) -> None:
    if debug:
        raise error
    message = str(error).strip() or type(error).__name__
    print(f"tts-models: error: {message}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Arguments without the program's name; `sys.argv`'s by default.

    Returns:
        0 on success, 1 on a failure, 2 on wrong usage (text, voice or options), 130 after Ctrl-C.
    """
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except UsageError as error:
        _report(error, args.debug)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone: keep the interpreter from failing once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    except Exception as error:
        _report(error, args.debug)
        return EXIT_FAILURE
    return 0


__all__ = ["build_parser", "main"]
