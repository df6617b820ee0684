"""A host's log: the lines of its loggers, and what a library of it prints; both in one file that stays small."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

__all__ = ["MAX_LOG", "LogFile", "tidy_log"]

MAX_LOG: Final = 2**20
"""Bytes of a host's log; then what it holds moves to the file beside it, in the place of what that held."""


class LogFile(logging.StreamHandler):  # type: ignore[type-arg]  # generic for type checkers alone
    """Writes to a file whose descriptor others may have, too: they all append, so the file itself is emptied."""

    def __init__(self, path: Path) -> None:
        """Open the file, made for this user alone.

        Raises:
            OSError: If that is not possible.
        """
        self._path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        super().__init__(os.fdopen(os.dup(self.fd), "w", encoding="utf-8"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        super().emit(record)
        self.tidy()

    def tidy(self) -> None:
        """Empty the file if it has become long, whoever wrote to it; the last part of it is kept beside it."""
        with contextlib.suppress(OSError):  # a log is no reason to end what the host owns
            size = os.fstat(self.fd).st_size
            if size > MAX_LOG:
                try:
                    self._keep(os.pread(self.fd, MAX_LOG, size - MAX_LOG))
                finally:
                    os.ftruncate(self.fd, 0)

    def _keep(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(f"{self._path}.1", flags, 0o600), "wb") as file:
            file.write(data)


def tidy_log() -> None:
    """Do so with this process's log; called now and then, for what is printed."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.tidy()
