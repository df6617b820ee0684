"""Lists the damaged parts of a data folder that were set aside. The record is in the folder, so it outlives the daemon.

A damaged file is renamed (`database.name_aside`). A damaged document stays in its session's database, in the table
`set_aside`; a note beside the database, `NAME.db.aside`, records that without opening it. Damaged rows of the registry
are kept in the same way.
"""

from __future__ import annotations

import contextlib
import glob
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from runtimed.errors import StorageError
from runtimed.storage.disk import is_no_room, no_room

__all__ = [
    "Aside",
    "databases_aside",
    "document_aside",
    "forget_document",
    "list_aside",
    "note_document",
    "note_sessions",
    "shown_code",
]

_SUFFIX: Final = ".aside"
_COMPANIONS: Final = ("-wal", "-shm", "-journal")
_CODE: Final = "SELECT source FROM executions ORDER BY sequence"
_NAMED: Final = 20
"""Number of sessions named in a message; the rest are counted."""


class Aside(NamedTuple):
    """One damaged part that was set aside.

    Attributes:
        path: The renamed file; for a document, or rows of the registry, the note.
        found: What happened: a sentence without its full stop.
        advice: What the user can do, likewise.
    """

    path: Path
    found: str
    advice: str


class _Note(msgspec.Struct, frozen=True):
    session_id: str
    at: float
    reason: str


class _Sessions(msgspec.Struct, frozen=True):
    session_ids: list[str]
    at: float


def note_document(database: Path, session_id: str, reason: str, at: float) -> None:
    """Record that a session's document was set aside; replaces an older note.

    Raises:
        StorageError: If it cannot be written.
    """
    _write(_note_of(database), msgspec.json.encode(_Note(session_id, at, reason)))


def note_sessions(registry: Path, session_ids: Sequence[str], at: float) -> None:
    """Record that rows of the registry were set aside; adds to an existing note.

    Args:
        registry: The database.
        session_ids: The sessions' ids as they were read, in the form of `ascii()`.
        at: Unix time in seconds.

    Raises:
        StorageError: If it cannot be written.
    """
    path = _note_of(registry)
    try:
        known = msgspec.json.decode(path.read_bytes(), type=_Sessions).session_ids
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        known = []
    _write(path, msgspec.json.encode(_Sessions(list(dict.fromkeys([*known, *session_ids])), at)))


def _write(path: Path, content: bytes) -> None:
    new = path.with_name(f"{path.name}.new")
    try:
        new.touch(mode=0o600)
        new.write_bytes(content)
        new.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        if is_no_room(exc):
            raise no_room(path, exc) from exc
        raise StorageError(f"{path} cannot be written: {exc}", path=str(path)) from exc


def forget_document(database: Path) -> None:
    """Remove the note about a session's document. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        _note_of(database).unlink()


def document_aside(database: Path) -> Aside | None:
    """Return the record of a session's document that was set aside, None if there is none."""
    return _read(_note_of(database))


def databases_aside(database: Path) -> list[Path]:
    """Return the paths of a session's whole databases that were set aside, oldest first."""
    found = database.parent.glob(f"{glob.escape(database.name)}.damaged-*")
    return sorted(path for path in found if not path.name.endswith(_COMPANIONS))


def list_aside(data_dir: Path) -> list[Aside]:
    """Return everything in a data folder that is set aside, by path."""
    found = [note for path in sorted(data_dir.glob(f"*{_SUFFIX}")) if (note := _read_sessions(path)) is not None]
    sessions = data_dir / "sessions"
    for path in sorted([*data_dir.glob("*.damaged-*"), *sessions.glob("*.damaged-*"), *sessions.glob(f"*{_SUFFIX}")]):
        if path.suffix == _SUFFIX:
            note = _read(path)
            if note is not None:
                found.append(note)
        elif not path.name.endswith(_COMPANIONS):
            found.append(
                Aside(
                    path,
                    f"{path} was found damaged and set aside",
                    "remove it when you no longer need it"
                    + (f"; {shown_code(path)}" if path.parent == sessions else ""),
                )
            )
    return found


def shown_code(path: Path) -> str:
    """Return advice on how to read the executed code in a session's database that was set aside as a whole.

    It does not use `.recover`, which fails with "SQL logic error" in SQLite 3.40.1 (Debian 12), even on an intact
    database.
    """
    command = shlex.join(["sqlite3", str(path), _CODE])
    return f"`{command}` prints the executed code, as far as it is readable"


def _note_of(database: Path) -> Path:
    return database.with_name(database.name + _SUFFIX)


def _read_sessions(path: Path) -> Aside | None:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Sessions)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        found = f"{path}, the note about rows of sessions that were set aside, cannot be read ({exc})"
        return Aside(path, found, "remove it")
    names = ", ".join(note.session_ids[:_NAMED])
    more = f" and {len(note.session_ids) - _NAMED:,} more" if len(note.session_ids) > _NAMED else ""
    when = datetime.fromtimestamp(note.at, UTC)
    return Aside(
        path,
        f"The rows of {names}{more} in the list of sessions were found damaged and set aside, last on "
        f"{when:%Y-%m-%d %H:%M} UTC; cells and outputs are still there",
        f"open a session by its id to continue it; remove {path} when you no longer need it",
    )


def _read(path: Path) -> Aside | None:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Note)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        found = f"{path}, the note about a notebook that was set aside, cannot be read ({exc})"
        return Aside(path, found, "open its session")
    when = datetime.fromtimestamp(note.at, UTC)
    return Aside(
        path,
        f"The notebook of session {note.session_id!r} was set aside on {when:%Y-%m-%d %H:%M} UTC: {note.reason}",
        f"`runtimed restore {shlex.quote(note.session_id)}` brings it back",
    )
