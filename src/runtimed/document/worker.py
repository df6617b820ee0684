"""The worker process that performs one task on a document, so that a crash or hang in automerge spares the daemon.

`python -P -m runtimed.document.worker SECONDS` reads a task (see `tasks`) from standard input and writes its result to
standard output, both as MessagePack.

The exit code is the verdict (see `Verdict`), with details on standard error. `READY` is written to standard error once
a healthy document was loaded: if the process ends before that, its input is not to blame.
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
from runtimed.document.tasks import Rebuild, WritePending, decode_task, perform
from runtimed.errors import StorageError
from runtimed.ids import SessionId

__all__ = ["READY", "Verdict", "main"]

READY: Final = b"ready\n"
"""Written to standard error before the task is decoded."""


class Verdict(enum.IntEnum):
    """The exit codes, distinct from those of an interpreter that cannot start."""

    HEALTHY = 0
    DAMAGED = 65
    NEWER = 66
    """A newer version of runtimed wrote the document."""
    NO_MEMORY = 71


def main(seconds: int) -> int:
    """Perform the task on standard input.

    Args:
        seconds: Time limit; SIGALRM ends the process then.

    Returns:
        The exit code.
    """
    # An alarm ends a process that hangs inside automerge, even if the daemon that started it is gone.
    signal.alarm(seconds)
    # Out of memory, the OOM killer takes this process, not a kernel or the daemon.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    try:
        NotebookDocument.load(NotebookDocument.create(SessionId("ready")).save(), [])
        sys.stderr.buffer.write(READY)
        sys.stderr.buffer.flush()
        task = decode_task(sys.stdin.buffer.read())
        if isinstance(task, WritePending | Rebuild):
            # Nobody waits for the result, so kernels go first.
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
