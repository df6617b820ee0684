"""The spool: a host's events that the daemon has not acknowledged, on disk, readable by others once the host is dead.

Once `append` returns, the event is in the page cache: it survives the death of the host at any instruction. Nothing is
synced to the disk, since a host does not outlive its machine.
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
"""A segment that has become this long is followed by a new one, in bytes."""

_EMPTY_ABOVE: Final = 2**20
"""The segment being written is emptied when all is acknowledged and it is longer than this, in bytes."""

_MARK_EVERY: Final = 64 * 2**10
_LOCK_PATIENCE: Final = 1.0


@dataclass(slots=True)
class _Segment:
    """One file of records; `marks` are some of its records' numbers and offsets, the first one included."""

    path: Path
    last: int
    size: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)


class Spool:
    """The spool of this process's own host; `close()` it, or use it as a context manager.

    It grows without bound while nothing is acknowledged: watch `size`.

    Args:
        folder: Made if it does not exist, mode 0700; belongs to one host process, for good.
        lock: What `lock` gave to the process that started this one; without it, the lock is taken here.

    Raises:
        StorageError: If another process holds it, or has written to it, or it cannot be made.
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
        """Store events, with one call of the system for a batch of up to 1 MiB.

        Args:
            records: Numbers, each higher than all before, and bodies of at most 4 GiB.

        Raises:
            ValueError: If the numbers do not grow; nothing is stored.
            StorageError: If they cannot be written, on a full disk for example. Nothing of this batch is stored, and
                the same call can be made again later.
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

        Costs a call of the system only when a segment can be deleted, or a long one emptied.

        Raises:
            StorageError: If a file cannot be deleted or emptied.
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
        """Return events numbered above `n`, in order: one page, at least one event if there is any.

        Events that were acknowledged may be gone.

        Args:
            n: The number behind which to begin.
            max_bytes: A page ends before its bodies would be larger than this.

        Raises:
            StorageError: If the first event of the page is damaged or cannot be read: attribute `n` is its number,
                if known, and reading after it goes on behind it. A page ends before such an event.
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

        An unfinished last record is ignored: its `append` never returned. A folder that does not exist is empty.

        Raises:
            StorageError: When it comes to a damaged record, after giving all those before it; attribute `n` as in
                `read_after`. Or if a file cannot be read, which proves no damage; attribute `errno` says why.
        """
        segments = segments_of(folder)
        for i, (_, path) in enumerate(segments):
            is_last = i + 1 == len(segments)
            if is_last or segments[i + 1][0] > after + 1:
                yield from read_records(path, after, may_be_torn=is_last)

    @staticmethod
    def lock(folder: Path) -> int:
        """Take the lock of a folder and return its descriptor, for this process or for one that inherits it.

        A host inherits the lock from the process that starts it, so it never appears dead.

        Raises:
            StorageError: If a living host has it.
        """
        try:
            file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise _error(folder, "cannot be locked", exc) from exc
        # `is_alive`, asked by somebody else, holds the lock for some microseconds.
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
        """Return whether a process holds the lock of this folder; the system releases it when that process dies.

        A child that a host forks without `exec` holds it too.

        Raises:
            StorageError: If that cannot be told; attribute `errno` says why.
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
        """Return the segment to write to, a new one if there is none or the last one is full."""
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
        """Append the parts to the file, of which `start` bytes are valid, or leave it as it was."""
        try:
            if self._torn:
                os.ftruncate(self._file, start)
            # Whatever ends this call early, the next one begins by cutting off what it left.
            self._torn = True
            write_all(self._file, parts, size)
        except OSError as exc:
            with suppress(OSError):
                os.ftruncate(self._file, start)
            raise _error(self.folder, "cannot be written", exc) from exc


def _not_told(folder: Path, exc: OSError) -> StorageError:
    return StorageError(f"cannot tell whether the host of {folder} lives: {exc}", path=str(folder), errno=exc.errno)


def _error(folder: Path, what: str, exc: OSError) -> StorageError:
    return StorageError(f"the spool {folder} {what}: {exc}", path=str(folder), errno=exc.errno)
