"""The spool: a host's unacknowledged events on disk, which the daemon reads if the host is dead.

Once `append` returns, the event is in the page cache, so it survives the death of the host. Nothing is synced, since a
host does not outlive its machine.
"""

from __future__ import annotations

import fcntl
import os
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from runtimed.errors import StorageError
from runtimed.storage.spool_files import encode_head, read_records, segment_path, segments_of, write_all

__all__ = ["SEGMENT_SIZE", "Spool"]

SEGMENT_SIZE: Final = 8 * 2**20
"""Size at which a segment is full, in bytes."""

_EMPTY_ABOVE: Final = 2**20
"""Size above which the current segment is truncated once everything is acknowledged, in bytes."""

_MARK_EVERY: Final = 64 * 2**10
_LOCK_PATIENCE: Final = 1.0


@dataclass(slots=True)
class _Segment:
    """One file of records.

    Attributes:
        last: The highest number in it.
        marks: A sparse index, the first record included: pairs of number and offset.
    """

    path: Path
    last: int
    size: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)


class Spool:
    """The spool of the host in this process; `close()` it, or use it as a context manager.

    It grows without bound while nothing is acknowledged: the host checks `size` and slows its kernel down.

    Args:
        folder: Created with mode 0700 if it does not exist; it never belongs to another host process.
        lock: Inherited descriptor from `Spool.lock` in the parent process; None takes the lock here.

    Raises:
        StorageError: If another process holds the lock or has written events, or the folder cannot be created.
    """

    def __init__(self, folder: Path, lock: int | None = None) -> None:
        self.folder = folder
        self._segments: list[_Segment] = []
        self._file = -1
        self._last = 0
        self._acknowledged = 0
        self._torn = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise _error(folder, "cannot be made", exc) from exc
        self._lock = self.lock(folder) if lock is None else lock
        os.set_inheritable(self._lock, False)
        try:
            if segments_of(folder):
                raise StorageError(f"the spool {folder} holds the events of another host", path=str(folder))
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock; the files stay. Idempotent."""
        for file in (self._file, self._lock):
            if file >= 0:
                os.close(file)
        self._file = self._lock = -1

    @property
    def last(self) -> int:
        """The highest number appended, 0 if there was none."""
        return self._last

    @property
    def acknowledged(self) -> int:
        """The highest number acknowledged, 0 if there was none."""
        return self._acknowledged

    @property
    def size(self) -> int:
        """Bytes that the segments take on the disk."""
        return sum(segment.size for segment in self._segments)

    def append(self, n: int, body: bytes) -> None:
        """Store one event; see `append_many`."""
        self.append_many(((n, body),))

    def append_many(self, records: Sequence[tuple[int, bytes]]) -> None:
        """Store a batch of events, with one system call for up to 1 MiB.

        Args:
            records: Pairs of number and body; numbers strictly increase, bodies have at most 4 GiB.

        Raises:
            ValueError: If the numbers do not increase; nothing is stored.
            StorageError: If they cannot be written, on a full disk for example. Nothing of the batch is stored, and the
                call can be retried.
        """
        if not records:
            return
        segment = self._segment(records[0][0])
        parts: list[bytes] = []
        marks: list[tuple[int, int]] = []
        last = self._last
        offset = segment.size
        marked = segment.marks[-1][1] if segment.marks else -_MARK_EVERY
        for n, body in records:
            if n <= last:
                raise ValueError(f"event {n} cannot follow event {last}")
            last = n
            head = encode_head(n, body)
            parts += (head, body)
            if offset - marked >= _MARK_EVERY:
                marks.append((n, offset))
                marked = offset
            offset += len(head) + len(body)
        self._write(parts, segment.size, offset - segment.size)
        segment.marks += marks
        segment.size = offset
        segment.last = self._last = last
        self._torn = False

    def acknowledge(self, n: int) -> None:
        """Discard all events up to number `n`, the high-water mark of what the daemon has stored.

        Makes a system call only to delete a segment or to truncate a long one.

        Raises:
            StorageError: If a file cannot be deleted or truncated.
        """
        if n <= self._acknowledged or not self._segments:
            return
        self._acknowledged = min(n, self._last)
        segments = self._segments
        try:
            while len(segments) > 1 and segments[0].last <= n:
                segments[0].path.unlink(missing_ok=True)
                del segments[0]
            if n >= self._last and segments[-1].size > _EMPTY_ABOVE:
                os.ftruncate(self._file, 0)
                segments[-1].size = 0
                segments[-1].marks.clear()
        except OSError as exc:
            raise _error(self.folder, "cannot be emptied", exc) from exc

    def read_after(self, n: int, max_bytes: int = 4 * 2**20) -> list[tuple[int, bytes]]:
        """Return one page of events numbered above `n`, in order; at least one if there is any.

        Acknowledged events may be missing.

        Args:
            n: Return events with higher numbers than this.
            max_bytes: Largest size of a page's bodies, in bytes; a single larger event is a page of its own.

        Raises:
            StorageError: If the first event of the page is damaged or cannot be read. Attribute `n` is its number, if
                known: reading after it skips the event. A page ends before such an event.
        """
        found: list[tuple[int, bytes]] = []
        room = max_bytes
        for segment in self._segments:
            if segment.last <= n or not segment.size:
                continue
            mark = bisect_right(segment.marks, (n + 1, segment.size)) - 1
            start = segment.marks[max(mark, 0)][1]
            try:
                for number, body in read_records(segment.path, n, start=start, end=segment.size):
                    if found and len(body) > room:
                        return found
                    room -= len(body)
                    found.append((number, body))
            except StorageError:
                if found:
                    break
                raise
        return found

    @staticmethod
    def read_dead(folder: Path, after: int) -> Iterator[tuple[int, bytes]]:
        """Yield the events numbered above `after` from the spool of a dead host; see `is_alive`.

        An incomplete last record is ignored, since its `append` never returned. A missing folder counts as empty.

        Raises:
            StorageError: At a damaged record, after the ones before it were yielded; attribute `n` as in `read_after`.
                Or if a file cannot be read, which does not prove damage; attribute `errno` is the reason.
        """
        segments = segments_of(folder)
        for i, (_, path) in enumerate(segments):
            is_last = i + 1 == len(segments)
            if is_last or segments[i + 1][0] > after + 1:
                yield from read_records(path, after, may_be_torn=is_last)

    @staticmethod
    def lock(folder: Path) -> int:
        """Take the lock of a folder and return its descriptor, for this process or for one that inherits it.

        A host inherits the lock from its parent process, so it never appears dead while it starts.

        Raises:
            StorageError: If a living host holds it.
        """
        try:
            file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise _error(folder, "cannot be locked", exc) from exc
        # `is_alive` in another process holds the lock for some microseconds.
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                if time.monotonic() > deadline:
                    os.close(file)
                    raise StorageError(f"the spool {folder} is in use by a living host", path=str(folder)) from exc
                time.sleep(0.005)
            except OSError as exc:
                os.close(file)
                raise _error(folder, "cannot be locked", exc) from exc
            else:
                return file

    @staticmethod
    def is_alive(folder: Path) -> bool:
        """Return whether a process holds the lock of a folder; the system releases it when that process dies.

        A child that a host forks without `exec` holds it too.

        Raises:
            StorageError: If it is unknown; attribute `errno` is the reason.
        """
        try:
            file = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise _not_told(folder, exc) from exc
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as exc:
            raise _not_told(folder, exc) from exc
        finally:
            os.close(file)
        return False

    def _segment(self, first: int) -> _Segment:
        """Return the current segment, a new one if there is none or the last one is full."""
        if self._lock < 0:
            raise StorageError(f"the spool {self.folder} is closed", path=str(self.folder))
        if self._segments and self._segments[-1].size < SEGMENT_SIZE:
            return self._segments[-1]
        path = segment_path(self.folder, first)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise _error(self.folder, "cannot be written", exc) from exc
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._segments.append(_Segment(path, self._last))
        return self._segments[-1]

    def _write(self, parts: list[bytes], start: int, size: int) -> None:
        """Append the parts to the current file, whose first `start` bytes are valid, or leave it unchanged."""
        try:
            if self._torn:
                os.ftruncate(self._file, start)
            # Whatever interrupts this call, the next one truncates what it left.
            self._torn = True
            write_all(self._file, parts, size)
        except OSError as exc:
            with suppress(OSError):
                os.ftruncate(self._file, start)
            raise _error(self.folder, "cannot be written", exc) from exc


def _not_told(folder: Path, exc: OSError) -> StorageError:
    return StorageError(f"cannot tell whether the host of {folder} is alive: {exc}", path=str(folder), errno=exc.errno)


def _error(folder: Path, what: str, exc: OSError) -> StorageError:
    return StorageError(f"the spool {folder} {what}: {exc}", path=str(folder), errno=exc.errno)
