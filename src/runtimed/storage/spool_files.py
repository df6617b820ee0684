"""The file format of a spool, and how its files are read and written.

A folder holds the file `lock`, and segments of records named after their first number. A record is a head of 20 bytes
(length of the body, number, CRC-32 of the body, then CRC-32 of these three, all big-endian) and the body. The head has
its own checksum, so that a damaged length is not taken for an incomplete record.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from runtimed.errors import StorageError

__all__ = ["HEAD_SIZE", "encode_head", "read_records", "segment_path", "segments_of", "write_all"]

_HEAD: Final = struct.Struct(">IQI")
_CHECK: Final = struct.Struct(">I")

HEAD_SIZE: Final = _HEAD.size + _CHECK.size
"""Size of a record's head, in bytes."""

_JOIN_BELOW: Final = 2**20
_MAX_PARTS: Final = 1000  # IOV_MAX is 1024 on Linux and macOS


def encode_head(n: int, body: bytes) -> bytes:
    """Return the head of a record."""
    head = _HEAD.pack(len(body), n, zlib.crc32(body))
    return head + _CHECK.pack(zlib.crc32(head))


def write_all(file: int, parts: Sequence[bytes], size: int) -> None:
    """Write all parts, `size` bytes together: up to 1 MiB in one system call, continuing after short writes.

    Raises:
        OSError: If a write fails; some bytes may have been written.
    """
    if size <= _JOIN_BELOW:
        _write_rest(file, memoryview(b"".join(parts)))
        return
    for i in range(0, len(parts), _MAX_PARTS):
        some = parts[i : i + _MAX_PARTS]
        written = os.writev(file, some)
        if written < sum(map(len, some)):
            _write_rest(file, memoryview(b"".join(some))[written:])


def _write_rest(file: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(file, rest) :]


def segment_path(folder: Path, first: int) -> Path:
    """Return the path of the segment that begins with number `first`."""
    return folder / f"{first:020d}.events"


def segments_of(folder: Path) -> list[tuple[int, Path]]:
    """Return the segments of a folder, each with its first number, in order; none if there is no such folder.

    Raises:
        StorageError: If the folder cannot be read; attribute `errno` is the reason.
    """
    try:
        paths = list(folder.iterdir())  # `glob` treats an unreadable folder as an empty one
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise StorageError(f"the spool {folder} cannot be read: {exc}", path=str(folder), errno=exc.errno) from exc
    return sorted((int(path.stem), path) for path in paths if path.suffix == ".events" and path.stem.isdecimal())


def read_records(
    path: Path, after: int, *, start: int = 0, end: int | None = None, may_be_torn: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Yield the records of a segment numbered above `after`.

    Args:
        path: The segment.
        after: Yield records with higher numbers than this.
        start: Offset of a record's head.
        end: Offset at which to stop; None for the end of the file.
        may_be_torn: Whether an incomplete last record is ignored.

    Raises:
        StorageError: At a damaged record. Attribute `n` is the record's number if only its body is damaged, and reading
            after it is possible; it is None if the head is damaged. If the file cannot be read, which does not prove
            damage, attribute `errno` is the reason.
    """
    offset = start
    try:
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size if end is None else end
            file.seek(start)
            while offset < end:
                head = file.read(min(HEAD_SIZE, end - offset))
                if len(head) < HEAD_SIZE:
                    break
                length, n, check = _HEAD.unpack_from(head)
                if _CHECK.pack(zlib.crc32(head[: _HEAD.size])) != head[_HEAD.size :]:
                    raise _damaged(path, offset)
                if offset + HEAD_SIZE + length > end:
                    break
                if n > after:
                    body = file.read(length)
                    if len(body) < length or zlib.crc32(body) != check:
                        raise _damaged(path, offset, n)
                    yield n, body
                else:
                    file.seek(length, os.SEEK_CUR)
                offset += HEAD_SIZE + length
    except IsADirectoryError as exc:
        raise _damaged(path, offset) from exc
    except OSError as exc:
        raise StorageError(
            f"the spool segment {path} cannot be read: {exc}", path=str(path), n=None, errno=exc.errno
        ) from exc
    if offset < end and not may_be_torn:
        raise _damaged(path, offset)


def _damaged(path: Path, offset: int, n: int | None = None) -> StorageError:
    what = "" if n is None else f", in event {n}"
    return StorageError(f"the spool segment {path} is damaged at byte {offset}{what}", path=str(path), n=n)
