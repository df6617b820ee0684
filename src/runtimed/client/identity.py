"""A client's identity, and its greeting. Nothing here waits or opens a socket."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path
from typing import Final, NoReturn

from runtimed.errors import DaemonUnavailable
from runtimed.ids import ClientId, check_label, new_client_id
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello
from runtimed.version import __version__, version_note

__all__ = [
    "ENDING_DEADLINE",
    "HANDSHAKE_DEADLINE",
    "RECONNECT_DEADLINE",
    "Identity",
    "no_answer",
    "no_daemon",
    "note_version",
]

logger = logging.getLogger(__name__)

_named: set[str] = set()
"""Notes about versions that this process has logged."""

HANDSHAKE_DEADLINE: Final = 30.0
"""Seconds within which a daemon must answer a greeting."""

RECONNECT_DEADLINE: Final = 30.0
"""Seconds for which a client tries to reconnect, and starts a daemon if necessary."""


ENDING_DEADLINE: Final = 2.0
"""Seconds for which a client that starts no daemon retries one that hangs up: it may be about to end."""


class Identity:
    """A client's id, its label, and the numbers of its requests; the same on all its connections.

    After `fork` the child is another client: the daemon would deduplicate the requests of two processes with one id.
    """

    def __init__(self, label: str | None = None) -> None:
        self.label = check_label(label)
        self._pid = os.getpid()
        self._client_id = new_client_id()
        # A signal handler may take a number during another call; `next` returns each one once.
        self._numbers = itertools.count(1)

    def __reduce__(self) -> NoReturn:
        # Two copies would use the same request numbers, and the daemon would deduplicate their requests.
        raise TypeError(
            "A handle of runtimed is one client: it cannot be pickled or copied. Hand the session's id over, and make "
            "a handle with it there"
        )

    @property
    def pid(self) -> int:
        """The process to which the id belongs; renewed after `fork`."""
        self._renew_after_fork()
        return self._pid

    @property
    def client_id(self) -> ClientId:
        """The client's id, as the daemon and other clients know it; renewed after `fork`."""
        self._renew_after_fork()
        return self._client_id

    def _renew_after_fork(self) -> None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._client_id = new_client_id()

    def hello(self) -> Hello:
        """Return the greeting."""
        return Hello(PROTOCOL_VERSION, __version__, self.client_id, self.label, self.pid)

    def number(self) -> int:
        """Return the number of the next request."""
        return next(self._numbers)


def note_version(version: str) -> None:
    """Log, once in a process, that the daemon is older or newer than this client."""
    note = version_note(version)
    if note is not None and note not in _named:
        _named.add(note)
        logger.warning("%s", note)


def no_answer(socket_path: Path) -> DaemonUnavailable:
    """Return the error for a daemon that accepts connections and does not answer."""
    return DaemonUnavailable(
        f"The process that listens on {socket_path} does not answer; `runtimed stop` ends a daemon that hangs",
        path=str(socket_path),
    )


def no_daemon(socket_path: Path) -> DaemonUnavailable:
    """Return the error for a call that needs a daemon and starts none."""
    return DaemonUnavailable(
        f"No daemon listens on {socket_path}; `runtimed start` starts one, and so does whatever joins a session",
        path=str(socket_path),
    )
