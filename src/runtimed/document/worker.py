"""Works on documents in a process of its own, where automerge may crash or hang without taking a daemon along.

`python -P -m runtimed.document.worker SECONDS` reads a task from standard input (see `tasks`) and writes what it gives
to standard output, both as msgpack.

The exit code is the verdict (see `Verdict`); a sentence on standard error says more. `READY` on standard error comes
first, when a healthy document was loaded: what ends this process before that is not the fault of what it was given.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from runtimed.document.notebook import NotebookDocument
from runtimed.document.tasks import WriteAnew, WritePending, decode_task, perform
from runtimed.errors import StorageError
from runtimed.ids import SessionId

__all__ = ["READY", "Verdict", "main"]

READY: Final = b"ready\n"
"""Written to standard error before the given bytes are looked at."""


class Verdict(enum.IntEnum):
    """The exit codes. They are none that an interpreter ends with when its own files are broken."""

    HEALTHY = 0
    DAMAGED = 65
    NEWER = 66
    """A newer version of runtimed wrote it."""
    NO_MEMORY = 71


def main(seconds: int) -> int:
    """Do what standard input holds.

    Args:
        seconds: The time that it may take.

    Returns:
        The exit code.
    """
    # The system ends a process that hangs inside automerge, also when the daemon that waited for it is gone.
    signal.alarm(seconds)
    # When memory runs out the system ends this process first, neither a kernel nor the daemon.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    try:
        NotebookDocument.load(NotebookDocument.create(SessionId("ready")).save(), [])
        sys.stderr.buffer.write(READY)
        sys.stderr.buffer.flush()
        task = decode_task(sys.stdin.buffer.read())
        if isinstance(task, WritePending | WriteAnew):
            # Nobody waits for the result; the kernels are somebody's work.
            os.nice(10)
        answer = msgspec.msgpack.encode(perform(task))
    except StorageError as exc:
        sys.stderr.write(f"{exc}\n")
        if isinstance(exc.__cause__, MemoryError):
            return Verdict.NO_MEMORY
        return Verdict.NEWER if "schema" in exc.data else Verdict.DAMAGED
    except MemoryError:
        return Verdict.NO_MEMORY
    sys.stdout.buffer.write(answer)
    return Verdict.HEALTHY


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
