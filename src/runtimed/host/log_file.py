"""A host's log: the lines of its loggers and what its libraries print, in one file that stays small."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

__all__ = ["MAX_LOG", "LogFile", "tidy_log"]

MAX_LOG: Final = 2**20
"""Size of a log in bytes above which its content replaces that of the file beside it."""


class LogFile(logging.StreamHandler):  # type: ignore[type-arg]  # generic for type checkers alone
    """Appends to a file whose descriptor others may share: so the file itself is truncated, not replaced."""

    def __init__(self, path: Path) -> None:
        """Open the file with mode 0600.

        Raises:
            OSError: If it cannot be opened.
        """
        self._path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        super().__init__(os.fdopen(os.dup(self.fd), "w", encoding="utf-8"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        super().emit(record)
        self.tidy()

    def tidy(self) -> None:
        """Truncate a long file, whoever wrote to it; its content is kept beside it."""
        with contextlib.suppress(OSError):  # a log must not end what the host owns
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
    """Truncate this process's log if it is long; called from time to time, for what is printed."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.tidy()
