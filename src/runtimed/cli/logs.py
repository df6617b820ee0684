"""`runtimed logs`: the end of the daemon's log file, and its new lines."""

from __future__ import annotations

import argparse
import collections
import os
import sys
import time
from pathlib import Path
from typing import Final, TextIO

from runtimed.cli.exits import Exit
from runtimed.cli.printing import complain, say
from runtimed.settings import read_settings

__all__ = ["logs"]

LOOK: Final = 0.2
"""Seconds between two checks of a followed log."""


def logs(arguments: argparse.Namespace) -> int:
    """Show the log; needs no running daemon."""
    path = read_settings().log_path
    try:
        log = _open(path)
    except FileNotFoundError:
        complain(f"There is no log: no daemon has served the data folder {path.parent} yet")
        return Exit.NO_DAEMON
    except OSError as exc:
        complain(f"Cannot read {path}: {exc.strerror}")
        return Exit.FAILED
    with log:
        for line in collections.deque(log, maxlen=arguments.lines):
            say(line.removesuffix("\n"))
        if arguments.follow:
            _follow(path, log)
    while arguments.follow:
        with _open(path) as log:
            _follow(path, log)
    return Exit.OK


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8", errors="backslashreplace")


def _follow(path: Path, log: TextIO) -> None:
    """Show lines as they come, until the log is rotated."""
    line = ""
    while True:
        # Checked before reading: a file that was replaced by then gets no more lines.
        replaced = not _is_same(path, log)
        piece = log.readline()
        line += piece
        if line.endswith("\n"):
            say(line.removesuffix("\n"))
            line = ""
        elif not piece and replaced:
            return
        elif not piece:
            sys.stdout.flush()
            time.sleep(LOOK)


def _is_same(path: Path, log: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(log.fileno()))
    except FileNotFoundError:  # the moment between two files
        return True
