"""Counts the committed frames of an SQLite write-ahead log (WAL), because SQLite silently ignores a damaged rest of it.

Nothing here writes. Source: SQLite file format, section 4, "The Write-Ahead Log".
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

__all__ = ["committed_frames"]

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">II8s8s")
_LITTLE_ENDIAN_SUMS: Final = 0x377F0682


def committed_frames(wal: Path) -> int:
    """Return the number of frames that belong to committed transactions, whether or not SQLite can still read them.

    Frames behind the last commit do not count. A WAL with a damaged header and any content counts as one frame, since
    the real number is unknown.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        file = wal.open("rb")
    except FileNotFoundError:
        return 0
    with file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            return 0
        magic, _version, page_size, _checkpoint, _salt1, _salt2, *sums = _HEADER.unpack(header)
        salts, last = header[16:24], 0
        if magic & ~1 != _LITTLE_ENDIAN_SUMS or sums != _sums(header[:24], big_endian=bool(magic & 1)):
            return 1 if file.read(1) else 0
        frames = (os.fstat(file.fileno()).st_size - _HEADER.size) // (_FRAME.size + page_size)
        for number in range(1, frames + 1):
            _page, size_after_commit, frame_salts, _checksum = _FRAME.unpack(file.read(_FRAME.size))
            # Frames with other salts are left over from before the last reset of the WAL.
            if size_after_commit and frame_salts == salts:
                last = number
            file.seek(page_size, os.SEEK_CUR)
        return last


def _sums(data: bytes, *, big_endian: bool) -> list[int]:
    first = second = 0
    for x, y in struct.iter_unpack(">II" if big_endian else "<II", data):
        first = (first + x + second) & 0xFFFFFFFF
        second = (second + y + first) & 0xFFFFFFFF
    return [first, second]
