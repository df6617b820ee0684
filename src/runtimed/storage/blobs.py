"""A content-addressed store of large values: files named by their SHA-256, in a folder that processes may share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from runtimed.errors import StorageError
from runtimed.storage.disk import is_no_room, no_room

__all__ = ["BlobStore"]

_NAME: Final = re.compile(r"[0-9a-f]{64}")
_CHUNK: Final = 2**20


class BlobStore:
    """A folder of blobs, files `aa/bb/<sha256>` with mode 0600.

    Writes are atomic: a blob appears whole or not at all, even if its writer dies. Like a commit (see `database`), a
    write is not synced: a power cut may damage the newest blobs, which `verify` detects and `put` repairs.

    Args:
        folder: Made if it does not exist, mode 0700.

    Raises:
        StorageError: If it cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._temporary = folder / "tmp"
        try:
            # `parents` would make the folder itself with the usual mode.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._temporary.mkdir(mode=0o700, exist_ok=True)
            self._sweep()
        except OSError as exc:
            if is_no_room(exc):
                raise no_room(folder, exc) from exc
            raise StorageError(f"the blob folder {folder} cannot be used: {exc}", path=str(folder)) from exc

    def put(self, data: bytes) -> str:
        """Store a value and return its SHA-256 in hexadecimal. Idempotent.

        Sets the modification time of an existing blob to now, too: see `remove_unused`.

        Raises:
            StorageError: If it could not be written; nothing is left behind.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._path(sha256)
        temporary = self._temporary / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with self._lock(fcntl.LOCK_SH):
                with suppress(OSError):
                    os.utime(path)
                    if path.stat().st_size == len(data) and path.read_bytes() == data:
                        return sha256
                for folder in (path.parent.parent, path.parent):
                    folder.mkdir(mode=0o700, exist_ok=True)
                file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[os.write(file, rest) :]
                finally:
                    os.close(file)
                temporary.replace(path)
        except OSError as exc:
            raise StorageError(f"a value of {len(data)} bytes cannot be stored in {self.folder}: {exc}") from exc
        finally:
            temporary.unlink(missing_ok=True)
        return sha256

    def new_file(self) -> Path:
        """Make a temporary file for a blob whose bytes come piece by piece; see `append` and `take`.

        Raises:
            StorageError: If it cannot be made.
        """
        path = self._temporary / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            path.touch(0o600, exist_ok=False)
        except OSError as exc:
            raise self._unwritable(path, exc) from exc
        return path

    def append(self, path: Path, piece: bytes) -> None:
        """Append a piece to a file of `new_file`.

        Raises:
            StorageError: If it cannot be written.
        """
        try:
            with path.open("r+b", buffering=0) as file:
                file.seek(0, os.SEEK_END)
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
        except OSError as exc:
            raise self._unwritable(path, exc) from exc

    def take(self, path: Path, sha256: str) -> None:
        """Make a file of `new_file` the blob of this name, which the caller has verified.

        Raises:
            StorageError: If that fails; the file is gone.
        """
        target = self._path(sha256)
        try:
            with self._lock(fcntl.LOCK_SH):
                for folder in (target.parent.parent, target.parent):
                    folder.mkdir(mode=0o700, exist_ok=True)
                path.replace(target)
        except OSError as exc:
            path.unlink(missing_ok=True)
            raise self._unwritable(path, exc) from exc

    def renew(self, sha256: str) -> bool:
        """Set a blob's modification time to now, as `put` would; return whether the blob exists.

        Raises:
            StorageError: If the time cannot be set.
        """
        try:
            with self._lock(fcntl.LOCK_SH):
                os.utime(self._path(sha256))
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise self._unreadable(sha256, exc) from exc
        return True

    def read(self, sha256: str, offset: int, size: int) -> bytes:
        """Return at most `size` bytes of a blob from `offset` on; fewer at its end, none behind it.

        Raises:
            StorageError: If there is no such blob (attribute `sha256`), or it cannot be read.
        """
        if offset < 0 or size < 0:
            raise ValueError(f"cannot read {size} bytes at {offset}")
        try:
            with self._path(sha256).open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as exc:
            raise self._unreadable(sha256, exc) from exc

    def size(self, sha256: str) -> int:
        """Return the length of a blob in bytes.

        Raises:
            StorageError: If there is no such blob (attribute `sha256`).
        """
        try:
            return self._path(sha256).stat().st_size
        except OSError as exc:
            raise self._unreadable(sha256, exc) from exc

    def verify(self, sha256: str) -> bool:
        """Read a whole blob and return whether its bytes match its name.

        Raises:
            StorageError: If there is no such blob (attribute `sha256`), or it cannot be read.
        """
        digest = hashlib.sha256()
        try:
            with self._path(sha256).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as exc:
            raise self._unreadable(sha256, exc) from exc
        return digest.hexdigest() == sha256

    def older_than(self, moment: float) -> Iterator[str]:
        """Yield the names of the blobs last stored before a moment (Unix time in seconds), in no particular order.

        Blobs that are added or removed meanwhile may or may not be included.

        Raises:
            StorageError: If the folder cannot be read.
        """
        try:
            for first in _folders(self.folder):
                for second in _folders(first):
                    for entry in _entries(second):
                        with suppress(FileNotFoundError):
                            if _NAME.fullmatch(entry.name) and entry.stat().st_mtime < moment:
                                yield entry.name
        except OSError as exc:
            raise StorageError(f"the blob folder {self.folder} cannot be read: {exc}", path=str(self.folder)) from exc

    def remove_unused(self, sha256: str, moment: float) -> bool:
        """Remove an unreferenced blob, unless it was stored again since a moment (Unix time in seconds).

        The caller of `put` records the reference after storing the value. So a blob may only be removed once the caller
        of the last `put` must have recorded it, and never while another process is storing one.

        Returns:
            Whether it was removed.

        Raises:
            StorageError: If it cannot be removed.
        """
        path = self._path(sha256)
        try:
            with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
                if path.stat().st_mtime >= moment:
                    return False
                path.unlink()
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError as exc:
            raise StorageError(f"blob {sha256} cannot be removed: {exc}", sha256=sha256, path=str(self.folder)) from exc
        return True

    @contextmanager
    def _lock(self, how: int) -> Iterator[None]:
        """Hold the folder's lock, which all processes share; the system releases it when its holder dies."""
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)

    def _path(self, sha256: str) -> Path:
        # The name may come from a peer: only 64 hexadecimal digits may become a path.
        if not _NAME.fullmatch(sha256):
            raise StorageError(f"{sha256[:80]!r} is not the name of a blob", sha256=sha256)
        return self.folder / sha256[:2] / sha256[2:4] / sha256

    def _unreadable(self, sha256: str, exc: OSError) -> StorageError:
        reason = "is not stored here" if isinstance(exc, FileNotFoundError) else f"cannot be read: {exc}"
        return StorageError(f"blob {sha256} {reason}", sha256=sha256, path=str(self.folder))

    def _unwritable(self, path: Path, exc: OSError) -> StorageError:
        if is_no_room(exc):
            return no_room(path, exc)
        return StorageError(f"a value cannot be stored in {self.folder}: {exc}", path=str(self.folder))

    def _sweep(self) -> None:
        """Remove the temporary files of dead writers, unless a process is writing; then the next opener does it."""
        with suppress(BlockingIOError), self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            for path in self._temporary.iterdir():
                path.unlink(missing_ok=True)


def _folders(folder: Path) -> list[Path]:
    """Return the subfolders of one level, whose names are two hexadecimal digits."""
    return [Path(entry.path) for entry in _entries(folder) if len(entry.name) == 2 and entry.is_dir()]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)
