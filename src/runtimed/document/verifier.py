"""Loads a document's bytes in a process of its own, where automerge may crash or hang without taking a daemon along.

`python -P -m runtimed.document.verifier SECONDS` reads changes from standard input. It writes to standard output the
fingerprint of the document that they make, then its snapshot, which was loaded again to take the fingerprint. Bytes
that cannot be loaded end it with exit code 1 and a sentence on standard error.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator

from runtimed.document.compaction import fingerprint
from runtimed.document.notebook import NotebookDocument
from runtimed.errors import StorageError

__all__ = ["main"]


def main(seconds: int) -> int:
    """Verify what standard input holds, within a time.

    Returns:
        The exit code.
    """
    # The system ends a process that hangs inside automerge, also when the daemon that waited for it is gone.
    signal.alarm(seconds)
    # Nobody waits for the result; the kernels are somebody's work.
    os.nice(10)
    try:
        snapshot = NotebookDocument.load(None, [sys.stdin.buffer.read()]).save()
        loaded = NotebookDocument.load(snapshot, [])
    except StorageError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    sys.stdout.buffer.write(_all_of(fingerprint(loaded)) + snapshot)
    return 0


def _all_of(steps: Generator[None, None, bytes]) -> bytes:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return bytes(end.value)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
