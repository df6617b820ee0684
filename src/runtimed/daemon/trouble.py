"""Reports a repeated failure once, and its end once. Nothing here decides what is retried, or when."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from runtimed.errors import StorageError

__all__ = ["Trouble"]

logger = logging.getLogger(__name__)


class Trouble:
    """The failures of the latest attempts.

    Args:
        report: Reports a failure to the users, in a sentence; None if the log suffices.
        about: Prefix of the log lines: the session, if `report` adds it by itself.
    """

    def __init__(self, report: Callable[[str], None] | None = None, about: str = "") -> None:
        self._failing: set[str] = set()
        self._report = report
        self._about = about

    @contextlib.contextmanager
    def noted(self, what: str) -> Iterator[None]:
        """Catch a StorageError of the block for an attempt that is repeated later.

        A full disk is logged. Anything else is reported to users, too.

        Args:
            what: What is to be stored, in the same words at each attempt.
        """
        try:
            yield
        except StorageError as exc:
            if self._waits(what, exc) and "free" not in exc.data:
                self._tell(f"{what} waits: {exc.message}")
        else:
            self._works(what)

    @contextlib.contextmanager
    def contained(self, what: str) -> Iterator[None]:
        """Catch any error of a block that concerns one session, so that other sessions' steps go on.

        A full disk is logged. Anything else is a defect or damage, and is reported to users, too.

        Args:
            what: What is done, and for which session, in the same words at each attempt.
        """
        try:
            yield
        except StorageError as exc:
            if self._waits(what, exc) and "free" not in exc.data:
                self._tell(f"{what} fails: {exc.message}")
        except Exception as exc:
            if what not in self._failing:
                self._failing.add(what)
                logger.exception("%s%s fails", self._about, what)
                self._tell(f"{what} fails with {type(exc).__name__}, a mistake of the daemon; its log has the details")
        else:
            self._works(what)

    def _waits(self, what: str, error: StorageError) -> bool:
        """Return whether this failure is new."""
        is_new = what not in self._failing
        if is_new:
            self._failing.add(what)
            logger.error("%s%s waits: %s", self._about, what, error)
        return is_new

    def _works(self, what: str) -> None:
        if what in self._failing:
            self._failing.discard(what)
            logger.info("%s%s succeeded again", self._about, what)

    def _tell(self, sentence: str) -> None:
        if self._report is not None:
            self._report(sentence[0].upper() + sentence[1:])
