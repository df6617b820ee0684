"""Statuses of the daemon and its sessions, as replies carry them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec

from runtimed.daemon.rooms.cell_pages import REPLY_BUDGET
from runtimed.daemon.rooms.kernel import RoomKernel
from runtimed.daemon.rooms.room import Room, database_path
from runtimed.daemon.serving.daemon import MAX_PROBLEMS, Daemon
from runtimed.ids import SessionId
from runtimed.models import DaemonStatus, KernelStatus, SessionStatus
from runtimed.protocol.codec import pack
from runtimed.protocol.session_operations import GetStatusReply, ListSessions, ListSessionsReply, RoomStatus
from runtimed.storage.aside import document_aside
from runtimed.storage.registry_store import SessionRow
from runtimed.version import __version__

__all__ = ["daemon_status", "list_sessions", "session_status"]

T = TypeVar("T")

SESSIONS_AT_ONCE: Final = 1000
"""Largest number of sessions in one reply."""


def session_status(daemon: Daemon, row: SessionRow) -> SessionStatus:
    """Return the state of a session."""
    room = daemon.rooms.get(SessionId(row.session_id))
    active = row.status == "active"
    ended_at = row.closed_at if row.closed_at is not None else daemon.clock()
    return SessionStatus(
        session_id=row.session_id,
        kind=row.kind,
        status=row.status,
        close_reason=row.close_reason,
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        closed_at=None if row.closed_at is None else datetime.fromtimestamp(row.closed_at, UTC),
        last_accessed_at=datetime.fromtimestamp(row.last_accessed_at, UTC),
        timeout_minutes=row.timeout_minutes,
        max_duration_minutes=row.max_duration_minutes,
        duration=timedelta(seconds=ended_at - row.started_at),
        peers=room.peers if room else 0,
        label=row.label,
        error=row.error or _missing(daemon, row),
        host_pid=row.host_pid,
        kernel_type=row.kernel_type,
        kernel_status=_kernel_status(row, room),
        kernel_pid=row.kernel_pid,
        env_source=row.env_source if active and room and room.hosted.exists else None,
        file=daemon.registry.file_path(row.session_id),
        file_notice=daemon.autosave.notice(SessionId(row.session_id)),
    )


def _missing(daemon: Daemon, row: SessionRow) -> str | None:
    """Return a sentence that names what a session lacks; None for a healthy one."""
    aside = document_aside(database_path(daemon.settings, SessionId(row.session_id)))
    return None if aside is None else f"{aside.found}; {aside.advice}"


def list_sessions(daemon: Daemon, wanted: ListSessions) -> ListSessionsReply:
    """Return a page of sessions."""
    count = min(wanted.count, SESSIONS_AT_ONCE)
    rows = daemon.registry.list(wanted.status, wanted.kind, wanted.start, count)
    page = _page(session_status(daemon, row) for row in rows)
    # Damaged rows are left out of the list, but count.
    last = wanted.start + (len(page) if len(page) < len(rows) else count)
    goes_on = last < wanted.start + wanted.count and last < daemon.registry.count(wanted.status, wanted.kind)
    return ListSessionsReply(sessions=page, next=last if goes_on else None)


def daemon_status(daemon: Daemon, first_room: int = 0) -> GetStatusReply:
    """Return the status of the daemon and a page of its rooms."""
    rooms = _page(map(_room_status, itertools.islice(daemon.rooms.values(), first_room, None)))
    next_room = first_room + len(rooms)
    status = DaemonStatus(
        pid=daemon.pid,
        version=__version__,
        socket_path=str(daemon.settings.socket_path),
        data_dir=str(daemon.settings.data_dir),
        started_at=datetime.fromtimestamp(daemon.started_at, UTC),
        sessions=len(daemon.registry.active()),
        peers=len(daemon.peers),
        pool=daemon.pool.figures(),
        limits={
            **dataclasses.asdict(daemon.limits),
            "kernel_memory_kept_by": daemon.memory_mechanism,
            "idle_exit": daemon.settings.idle_exit,
        },
        problems=(*daemon.set_aside()[:MAX_PROBLEMS], *daemon.problems),
    )
    return GetStatusReply(status=status, rooms=rooms, next_room=next_room if next_room < len(daemon.rooms) else None)


def _room_status(room: Room) -> RoomStatus:
    kernel = room.hosted if isinstance(room.hosted, RoomKernel) else None
    return RoomStatus(
        notebook_id=room.notebook_id,
        active_peers=room.peers,
        has_kernel=kernel is not None and kernel.exists,
        kernel_type=None if kernel is None else kernel.kernel_type,
        kernel_status="not_started" if kernel is None else kernel.status,
        env_source=None if kernel is None else kernel.env_source,
    )


def _page(found: Iterable[T]) -> list[T]:
    """Take as many items as fit into one reply, but at least one."""
    page: list[T] = []
    left = REPLY_BUDGET
    for each in found:
        left -= len(pack(msgspec.to_builtins(each, builtin_types=(bytes,))))
        if left < 0 and page:
            break
        page.append(each)
    return page


def _kernel_status(row: SessionRow, room: Room | None) -> KernelStatus | None:
    if row.kind == "browser":
        return None
    return room.kernel.status if room is not None and row.status == "active" else "not_started"
