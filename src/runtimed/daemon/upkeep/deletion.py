"""Deletes sessions with their data. The next daemon finishes a deletion that this one began.

One transaction of the registry decides: it deletes the session's row and history, and notes who deleted it. Before it
nothing changes; after it files are only removed. So a session whose latest step is its deletion has only those files
that a daemon had no time to remove.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from runtimed.daemon.hosting.browser_folders import folders_of, set_folder_aside
from runtimed.daemon.hosting.launcher import Launcher, Place, read_owner
from runtimed.daemon.registry import Registry
from runtimed.daemon.rooms.room import Room, database_path
from runtimed.errors import SessionError, StorageError
from runtimed.ids import SessionId, check_session_id, stored_name
from runtimed.settings import Settings
from runtimed.storage.audit import Actor

__all__ = ["Deleter", "delete_session", "finish_deletions"]

logger = logging.getLogger(__name__)

REST: Final = 0.02
"""Seconds between two checks whether a session's database is busy."""

ENDING_DEADLINE: Final = 10.0
"""Seconds within which the host of an ended session must be gone."""


class Deleter(Protocol):
    """What a daemon offers for deletions."""

    settings: Settings
    launcher: Launcher
    registry: Registry

    def open_room(self, notebook_id: SessionId) -> Room | None:
        """Return the room of a session; None if it is not open."""

    def put_out(self, notebook_id: SessionId) -> None:
        """Disconnect the clients of a session's room and close the room."""

    def report(self, sentence: str) -> None:
        """Report damage, or what is out of reach, to the users."""


async def delete_session(daemon: Deleter, session_id: str, actor: Actor) -> bool:
    """Delete an ended session with all its data, and disconnect its clients.

    Blobs are shared between sessions: those that no session refers to any more are deleted within a day.

    Args:
        daemon: This daemon.
        session_id: The session.
        actor: The client that asked. The history keeps it, and nothing else of the session.

    Returns:
        Whether there was such a session.

    Raises:
        SessionError: If it is active, or its host is out of reach and may come back.
        StorageError: If the registry cannot be written; then the session stays.
    """
    notebook_id = check_session_id(session_id)
    deadline = asyncio.get_running_loop().time() + ENDING_DEADLINE
    while True:
        if daemon.registry.find(notebook_id) is None:
            return False
        daemon.registry.check_ended(notebook_id)
        room = daemon.open_room(notebook_id)
        if room is not None:
            await room.await_host_end()
        hosts = await asyncio.to_thread(_living_hosts, daemon.launcher, notebook_id)
        # The last check: nothing may happen between it and what follows.
        room = daemon.open_room(notebook_id)
        if not hosts and (room is None or not (room.flow.is_held or room.has_host)):
            break
        if asyncio.get_running_loop().time() > deadline:
            waits = None if room is None else room.waits
            runs = (
                f"its host is out of reach and still runs ({', '.join(hosts)}); end that process, or try "
                "again when it is gone"
            )
            raise SessionError(f"Session {session_id!r} cannot be deleted: {waits or runs}", session_id=session_id)
        await asyncio.sleep(REST)
    row = daemon.registry.find(notebook_id)
    if row is None:
        return False
    daemon.registry.check_ended(notebook_id)
    daemon.put_out(notebook_id)
    daemon.registry.delete(notebook_id, actor)
    try:
        aside = _remove_files(daemon.settings, notebook_id)
    except OSError as exc:
        sentence = f"Session {session_id!r} is deleted, but not all of its files can be removed: {exc}"
        daemon.report(sentence)
        raise StorageError(sentence, session_id=session_id) from exc
    await asyncio.to_thread(_remove_folders, daemon.launcher, {str(notebook_id)}, aside)
    return True


def finish_deletions(settings: Settings, launcher: Launcher, registry: Registry) -> None:
    """Finish the deletions that a dead daemon began, before a client can use these ids again.

    Raises:
        OSError: If a file cannot be removed.
    """
    deleted = registry.deleted()
    aside: list[Path] = []
    for notebook_id in deleted:
        aside += _remove_files(settings, notebook_id)
    if deleted:
        _remove_folders(launcher, set(deleted), aside)


def _remove_files(settings: Settings, notebook_id: SessionId) -> list[Path]:
    """Remove a session's database, set-aside copies included; return the folders that are left to remove.

    Raises:
        OSError: If a file cannot be removed.
    """
    path = database_path(settings, notebook_id)
    # The database before its WAL: a database without its WAL would look whole.
    for file in (path, *sorted(path.parent.glob(f"{path.name}[-.]*"))):
        if file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)
    (settings.files_dir / stored_name(notebook_id)).unlink(missing_ok=True)
    return [set_folder_aside(folder) for folder in folders_of(settings.browsers_dir, stored_name(notebook_id))]


def _remove_folders(launcher: Launcher, notebook_ids: set[str], aside: Iterable[Path]) -> None:
    for folder in aside:
        shutil.rmtree(folder.resolve(), ignore_errors=True)
        if folder.is_symlink():
            folder.unlink()
    for place in _places(launcher):
        owner = read_owner(launcher, place)
        if owner is not None and owner.notebook_id in notebook_ids and not launcher.is_alive(place):
            launcher.forget(place)


def _living_hosts(launcher: Launcher, notebook_id: SessionId) -> list[Place]:
    owners = ((place, read_owner(launcher, place)) for place in _places(launcher))
    return [
        place
        for place, owner in owners
        if owner is not None and owner.notebook_id == notebook_id and launcher.is_alive(place)
    ]


def _places(launcher: Launcher) -> list[Place]:
    try:
        return launcher.places()
    except FileNotFoundError:
        return []
