"""Loads documents in a process of its own, where automerge may crash or hang without taking a daemon along.

`python -P -m runtimed.document.verifier SECONDS TASK [BALLAST]` reads what it works on from standard input:

* `snapshot`: changes, joined. It writes to standard output the fingerprint of the document that they make, then its
  snapshot, which was loaded again to take the fingerprint.
* `load`: a stored document (see `stored`). It writes the fingerprint.
* `restore`: two stored documents. It writes what `restoring.encode_restored` gives.

The exit code is the verdict (see `Verdict`); a sentence on standard error says more. `READY` on standard error comes
first, when a healthy document was loaded: what ends this process before that is not the fault of what it was given.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from runtimed.document.compaction import fingerprint
from runtimed.document.notebook import NotebookDocument
from runtimed.document.restoring import decode_pair, encode_restored, merged
from runtimed.document.stored import decode_stored, load_stored
from runtimed.errors import StorageError
from runtimed.ids import SessionId

__all__ = ["READY", "Verdict", "main"]

READY: Final = b"ready\n"
"""Written to standard error before the given bytes are looked at."""

_PAGE: Final = 4096


class Verdict(enum.IntEnum):
    """The exit codes. They are none that an interpreter ends with when its own files are broken."""

    HEALTHY = 0
    DAMAGED = 65
    NEWER = 66
    """A newer version of runtimed wrote it."""
    NO_MEMORY = 71


def main(seconds: int, task: str, ballast: int = 0) -> int:
    """Verify what standard input holds.

    Args:
        seconds: The time that it may take.
        task: What to do; see the module.
        ballast: Bytes of memory to hold meanwhile, so that who has more in memory can do the same afterwards.

    Returns:
        The exit code.
    """
    # The system ends a process that hangs inside automerge, also when the daemon that waited for it is gone.
    signal.alarm(seconds)
    # Nobody waits for the result; the kernels are somebody's work.
    os.nice(10)
    # When memory runs out the system ends this process first, neither a kernel nor the daemon.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    try:
        held = bytearray(ballast)
        held[::_PAGE] = b"x" * len(range(0, ballast, _PAGE))
        NotebookDocument.load(NotebookDocument.create(SessionId("ready")).save(), [])
        sys.stderr.buffer.write(READY)
        sys.stderr.buffer.flush()
        answer = _TASKS[task](sys.stdin.buffer.read())
    except StorageError as exc:
        sys.stderr.write(f"{exc}\n")
        if isinstance(exc.__cause__, MemoryError):
            return Verdict.NO_MEMORY
        return Verdict.NEWER if "schema" in exc.data else Verdict.DAMAGED
    except MemoryError:
        return Verdict.NO_MEMORY
    sys.stdout.buffer.write(answer)
    return Verdict.HEALTHY


def _snapshot(given: bytes) -> bytes:
    snapshot = NotebookDocument.load(None, [given]).save()
    return _all_of(fingerprint(NotebookDocument.load(snapshot, []))) + snapshot


def _load(given: bytes) -> bytes:
    return _all_of(fingerprint(load_stored(decode_stored(given))))


def _restore(given: bytes) -> bytes:
    document, cells = merged(*decode_pair(given))
    snapshot = document.save()
    if _all_of(fingerprint(NotebookDocument.load(snapshot, []))) != _all_of(fingerprint(document)):
        raise StorageError("the restored document says something else when it is loaded again")
    return encode_restored(snapshot, cells)


_TASKS: Final[Mapping[str, Callable[[bytes], bytes]]] = MappingProxyType(
    {"snapshot": _snapshot, "load": _load, "restore": _restore}
)


def _all_of(steps: Generator[None, None, bytes]) -> bytes:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])))
