"""What the daemon and the process that keeps notebook files tell each other, and when a file is due to be saved.

Each message is a line of JSON: the daemon writes to the process's standard input, and reads its standard output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from runtimed.ids import SessionId

__all__ = ["Command", "Keep", "Leave", "Report", "SaveFile", "Saved", "Schedule", "Seen", "decoded", "encoded"]

QUIET: Final = 2.0
"""Seconds after the last change when a file is due."""

LONGEST: Final = 10.0
"""Seconds after the first change when a file is due, even if changes go on."""

REST: Final = 10
"""Seconds without a save for each second that the last one took: a large notebook costs a tenth of a processor."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    session_id: SessionId


class Keep(_Message, frozen=True, tag="keep"):
    """Watch the file of a session, and merge what others change in it."""

    path: str


class Leave(_Message, frozen=True, tag="leave"):
    """Watch the file of a session no more."""


class SaveFile(_Message, frozen=True, tag="save"):
    """Save a session into its file. The answer is `Saved`."""


class Saved(_Message, frozen=True, tag="saved"):
    """A session was saved, or cannot be.

    Attributes:
        took: Seconds.
        problem: Why it was not saved, in a sentence.
    """

    took: float
    problem: str | None = None


class Seen(_Message, frozen=True, tag="seen"):
    """Others have changed the file of a session.

    Attributes:
        notice: What the session's people should know, in sentences; None if it was merged without a conflict.
    """

    notice: str | None = None


Command = Keep | Leave | SaveFile
Report = Saved | Seen


def encoded(message: Command | Report) -> bytes:
    """Return a message as a line."""
    return msgspec.json.encode(message) + b"\n"


_DECODER: Final = msgspec.json.Decoder(Command | Report)


def decoded(line: bytes) -> Command | Report:
    """Return the message of a line.

    Raises:
        msgspec.MsgspecError: If it is none.
    """
    message: Command | Report = _DECODER.decode(line)
    return message


@dataclass(slots=True)
class Schedule:
    """When the file of one session is due. Times are seconds of one clock.

    Attributes:
        is_saving: Whether it is being saved.
    """

    _first: float | None = None
    _last: float = 0.0
    _not_before: float = 0.0
    is_saving: bool = False

    @property
    def is_saved(self) -> bool:
        """Whether nothing has changed since it was last saved."""
        return self._first is None and not self.is_saving

    def changed(self, now: float) -> None:
        """Note a change."""
        if self._first is None:
            self._first = now
        self._last = now

    @property
    def due_at(self) -> float | None:
        """When it is due; None if it is saved, or being saved."""
        if self._first is None or self.is_saving:
            return None
        return max(min(self._last + QUIET, self._first + LONGEST), self._not_before)

    def begin(self) -> None:
        """Begin to save it. What changes from now on is saved the next time."""
        self._first, self.is_saving = None, True

    def end(self, now: float, took: float) -> None:
        """Note that it is saved, after so many seconds."""
        self.is_saving = False
        self._not_before = now + REST * took

    def retry(self) -> None:
        """Let it be due without a rest: what kept it from being saved is over."""
        self._not_before = 0.0

    def fail(self, now: float, took: float) -> None:
        """Note that it was not saved: it is due again, later."""
        self.end(now, max(took, LONGEST / REST))
        self.changed(now)
