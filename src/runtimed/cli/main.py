"""`runtimed` and `jupyter runtimed`: parses the arguments and calls the command's own module.

Nothing heavy is imported here, so that `runtimed --help` and Tab completions answer at once.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from runtimed.cli.exits import Exit
from runtimed.cli.parser import make_parser
from runtimed.errors import RuntimedError, SessionNotFound

__all__ = ["main"]

_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a standard output that cannot be written to."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal's encoding lacks are shown escaped, instead of failing.
            stream.reconfigure(errors="backslashreplace")
    try:
        if given[:1] == ["__complete"]:
            importlib.import_module("runtimed.cli.completion").answer(given[1:])
            return Exit.OK
        code = _perform(make_parser().parse_args(given))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`runtimed logs | head`); the interpreter's last flush must not complain.
        _drop_what_is_unwritten()
        return Exit.FAILED
    except OSError as exc:
        if exc.errno not in _UNWRITABLE:
            raise
        _drop_what_is_unwritten()
        importlib.import_module("runtimed.cli.printing").complain(f"Cannot write the output: {exc.strerror}")
        return Exit.FAILED
    except RuntimedError as exc:
        complain = importlib.import_module("runtimed.cli.printing").complain
        complain(exc.message)
        return Exit.NO_SESSION if isinstance(exc, SessionNotFound) else Exit.FAILED
    return code


def _open_missing_streams() -> None:
    """Open standard streams that the parent closed (`>&-`) as empty: else the next file takes a stream's number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  # as long as the process


def _drop_what_is_unwritten() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _perform(arguments: argparse.Namespace) -> int:
    if arguments.command is None:
        arguments.helped.print_help()
        return Exit.OK
    module, name = arguments.command
    if module in ("daemon", "doctor", "ending"):
        # These report it themselves, or are about to end that daemon.
        logging.getLogger("runtimed.client.identity").setLevel(logging.ERROR)
    command: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(f"runtimed.cli.{module}"), name)
    return command(arguments)
