"""The damaged parts of a data folder that were set aside, as recorded in the folder itself: they outlive every daemon.

A damaged file is renamed (`database.name_aside`). The document of a session stays in its database, in the table
`set_aside`; a file beside the database, `NAME.db.aside`, says so without opening it. The same holds for rows of the
registry.
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
"""Number of sessions that a sentence names; the rest are counted."""


class Aside(NamedTuple):
    """One thing that was set aside.

    Attributes:
        path: The file that says so; of a document or of rows of the registry, the note.
        found: What happened, a sentence without its full stop.
        advice: What to do about it, the same.
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
    """Record that the document of a session was set aside; replaces an older note.

    Raises:
        StorageError: If it cannot be written.
    """
    _write(_note_of(database), msgspec.json.encode(_Note(session_id, at, reason)))


def note_sessions(registry: Path, session_ids: Sequence[str], at: float) -> None:
    """Add sessions to the note about registry rows that were set aside.

    Args:
        registry: The database.
        session_ids: What can be read of their ids, as Python writes a text.
        at: When that was, in Unix time.

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
    """Remove the note about the document of a session. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        _note_of(database).unlink()


def document_aside(database: Path) -> Aside | None:
    """Return the note about the document of a session, None if there is none."""
    return _read(_note_of(database))


def databases_aside(database: Path) -> list[Path]:
    """Return the paths of a session's databases that were set aside as a whole, oldest first."""
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
                    "remove it if you need it no more" + (f"; {shown_code(path)}" if path.parent == sessions else ""),
                )
            )
    return found


def shown_code(path: Path) -> str:
    """Describe how to read the executed code of a session whose database was set aside as a whole.

    Not by `.recover`: SQLite 3.40.1 of Debian 12 ends it with "SQL logic error", on a whole database too (measured).
    """
    command = shlex.join(["sqlite3", str(path), _CODE])
    return f"`{command}` shows the code that was executed, as far as it can be read"


def _note_of(database: Path) -> Path:
    return database.with_name(database.name + _SUFFIX)


def _read_sessions(path: Path) -> Aside | None:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Sessions)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        return Aside(path, f"{path} says that rows of sessions were set aside, and cannot be read ({exc})", "remove it")
    names = ", ".join(note.session_ids[:_NAMED])
    more = f" and {len(note.session_ids) - _NAMED:,} more" if len(note.session_ids) > _NAMED else ""
    when = datetime.fromtimestamp(note.at, UTC)
    return Aside(
        path,
        f"What the list of sessions knew of {names}{more} was found damaged and set aside, last on "
        f"{when:%Y-%m-%d %H:%M} UTC; cells and outputs are there",
        f"open a session by its id to go on with it; remove {path} if you need this no more",
    )


def _read(path: Path) -> Aside | None:
    try:
        note = msgspec.json.decode(path.read_bytes(), type=_Note)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        return Aside(path, f"{path} says that a notebook was set aside, and cannot be read ({exc})", "open its session")
    when = datetime.fromtimestamp(note.at, UTC)
    return Aside(
        path,
        f"The notebook of session {note.session_id!r} was set aside on {when:%Y-%m-%d %H:%M} UTC: {note.reason}",
        f"`runtimed restore {shlex.quote(note.session_id)}` brings it back",
    )
