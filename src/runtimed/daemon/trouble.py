"""Says once that something cannot be stored, however often it is tried again, and once that it can.

Nothing here decides what is tried again, or when.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from runtimed.errors import StorageError

__all__ = ["Trouble"]

logger = logging.getLogger(__name__)


class Trouble:
    """What could not be stored the last time."""

    def __init__(self) -> None:
        self._unstored: set[str] = set()

    @contextlib.contextmanager
    def noted(self, what: str) -> Iterator[None]:
        """Take a StorageError out of the block for an attempt that is made again later.

        Args:
            what: What is to be stored, for the log: the same words at each attempt.
        """
        try:
            yield
        except StorageError as exc:
            if what not in self._unstored:
                self._unstored.add(what)
                logger.error("%s waits: %s", what, exc)  # noqa: TRY400  # a sentence, not a traceback
        else:
            if what in self._unstored:
                self._unstored.discard(what)
                logger.info("%s waits no more", what)
