"""Notebook files on the disk: read whole, and replaced whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from runtimed.errors import NotebookFileError
from runtimed.ids import SessionId, stored_name

__all__ = [
    "MAX_FILE",
    "Identity",
    "ReadFile",
    "identity_of",
    "lock_saving",
    "read_bytes",
    "read_file",
    "real_path",
    "renamed_to",
    "replace_file",
]

MAX_FILE: Final = 2**30
"""Largest notebook file that is read, in bytes."""

MAX_SAVE: Final = 60.0
"""Seconds without a write after which nobody is there any more who writes a temporary file."""

Identity = tuple[int, ...]
"""Device, inode, size and time of the last change of a file: a replaced or changed one has another."""


class ReadFile(NamedTuple):
    """A file that was read.

    Attributes:
        text: Its text, without a byte order mark.
        status: Its size, mode, owner and times.
    """

    text: str
    status: os.stat_result


def real_path(path: str | os.PathLike[str]) -> Path:
    """Return a file's real path: symbolic links are followed, so that two names of one file are one.

    Raises:
        NotebookFileError: If there can be no such path, or it is a loop of links.
    """
    try:
        found = os.path.realpath(Path(path).expanduser())
        found.encode()  # the session keeps it
    except (OSError, ValueError, RuntimeError) as exc:
        raise NotebookFileError(f"{path!r} is no path of a notebook: {exc}", path=os.fspath(path)) from exc
    return Path(found)


def read_file(path: Path) -> ReadFile | None:
    """Read a notebook file; None if there is none.

    Raises:
        NotebookFileError: If it cannot be read, is no regular file, larger than MAX_FILE, or not UTF-8.
    """
    found = read_bytes(path, MAX_FILE)
    if found is None:
        return None
    content, status = found
    try:
        return ReadFile(content.decode("utf-8-sig"), status)
    except UnicodeDecodeError as exc:
        raise _unreadable(path, f"it is no notebook: it is not UTF-8 at byte {exc.start}") from exc


def read_bytes(path: Path, largest: int) -> tuple[bytes, os.stat_result] | None:
    """Read a file, and its size, mode, owner and times; None if there is none.

    Args:
        path: The file.
        largest: Largest size that is read, in bytes.

    Raises:
        NotebookFileError: If it cannot be read, is no regular file, or larger.
    """
    try:
        # A pipe without a writer would never open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _unreadable(path, "it is no regular file")
            if status.st_size > largest:
                raise _unreadable(path, f"it has {status.st_size} bytes; at most {largest} are read")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(), status
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise _unreadable(path, exc.strerror or str(exc)) from exc


def replace_file(path: Path, content: bytes, former: os.stat_result | None) -> None:
    """Replace a file by one with other content, atomically: whatever fails, the former one is whole.

    The new file has the former one's mode, and its owner where that is possible. Temporary files that killed saves of
    the same file have left, more than a minute ago, are deleted.

    Args:
        path: The real path.
        content: The new content.
        former: The file that is to be replaced; None if there was none.

    Raises:
        NotebookFileError: If it cannot be written, or is no longer the former one.
    """
    prefix = f".{path.name[:50]}."  # a name has at most 255 bytes
    temporary = path.with_name(f"{prefix}{secrets.token_hex(8)}.tmp")
    try:
        mode = None if former is None else stat.S_IMODE(former.st_mode)
        # A new file has the mode that the umask gives it.
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else 0o600)
        try:
            # Before anything is written, as they may fill the disk; by the clock of the file system.
            _delete_temporaries(path.parent, prefix, before=os.fstat(file).st_mtime - MAX_SAVE)
            if former is not None and mode is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(file, former.st_uid, former.st_gid)
                os.fchmod(file, mode)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(file, rest) :]
            os.fsync(file)
        finally:
            os.close(file)
        if _identity(_status(path)) != _identity(former):
            raise NotebookFileError(
                f"{path} was changed while it was being saved, and was not overwritten: save it again", path=str(path)
            )
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as exc:
        raise NotebookFileError(
            f"{path} cannot be written: {exc.strerror or exc}. What was there is unchanged", path=str(path)
        ) from exc
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def lock_saving(folder: Path, session_id: SessionId) -> BinaryIO:
    """Wait until nobody else saves or opens a session's file; return the lock, an open file.

    Args:
        folder: Folder of the locks; created if it does not exist.
        session_id: The session.

    Raises:
        NotebookFileError: If there can be no lock.
    """
    path = folder / stored_name(session_id)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as exc:
        raise NotebookFileError(f"{path} cannot be locked: {exc.strerror or exc}", path=str(path)) from exc
    return file


def _delete_temporaries(folder: Path, prefix: str, before: float) -> None:
    """Delete temporary files with this prefix that were last written before that time."""
    name = re.compile(rf"{re.escape(prefix)}[0-9a-f]{{16}}\.tmp")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # somebody else's, perhaps
                if name.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < before:
                    Path(entry).unlink()


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def identity_of(path: Path) -> Identity | None:
    """Return which file there is; None if there is none.

    What cannot be looked at is like another file: reading it says why.
    """
    try:
        return _identity(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        return (exc.errno or 0,)


def renamed_to(path: Path, former: Identity) -> Path | None:
    """Return the file in the same folder that a file was renamed to; None if it is not there."""
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if _identity(entry.stat(follow_symlinks=False)) == former:
                return Path(entry.path)
    return None


def _identity(status: os.stat_result | None) -> Identity | None:
    return None if status is None else (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _unreadable(path: Path, why: str) -> NotebookFileError:
    return NotebookFileError(f"{path} cannot be read: {why}", path=str(path))
