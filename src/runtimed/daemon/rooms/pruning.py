"""Deletes old data of one session, in small steps. Nothing here waits, or decides when.

Data older than a moment are deleted: an execution that ended before it and has printed nothing since, unless a cell
shows it or a client reads it; events of no execution (an edit of a cell, a kernel's status); and audit entries, except
the last edit of each cell.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from typing import Final

from runtimed.daemon.rooms.events import EventLog
from runtimed.errors import ProtocolError
from runtimed.protocol.codec import unpack
from runtimed.storage.session_store import SessionStore

__all__ = ["delete_old", "has_old"]

_ROWS: Final = 20
_EVENTS: Final = 100
_EVENT_BYTES: Final = 4 * 2**20
_FREE_PAGES: Final = 256
"""Number of free pages that the file keeps: it is written to again, and would grow again."""
_GIVE_BACK: Final = 64
_LOOK: Final = 2000


def delete_old(
    store: SessionStore,
    log: EventLog,
    forget: Callable[[str], None],
    living_hosts: Callable[[], set[str] | None],
    before: float,
) -> Generator[None, None, None]:
    """Delete old data from one session's database, in steps of about a millisecond.

    The caller may stop after any step, and use the database between two. If this process dies, the next daemon deletes
    the rest.

    Args:
        store: The database.
        log: Knows which executions are being read.
        forget: Called with the id of each deleted execution.
        living_hosts: Returns the epochs of the hosts that may still send events; None if they are unknown.
        before: Unix time; older data are deleted.
    """
    yield from _delete_executions(store, log, forget, before)
    yield from _delete_other_events(store, log, before)
    with log.transaction():
        store.prune_audit(before)
    yield
    while store.is_deleting_events:
        with log.transaction():
            store.delete_some_events(_EVENT_BYTES, _EVENTS)
        yield
    _forget_hosts(store, log, living_hosts)
    yield
    names, goes_on = store.unused_names(), True
    while goes_on:
        with log.transaction():
            goes_on = names.step()
        yield
    while store.free_pages > _FREE_PAGES:
        store.give_back(_GIVE_BACK)
        log.committed()
        yield


def _delete_executions(
    store: SessionStore, log: EventLog, forget: Callable[[str], None], before: float
) -> Generator[None, None, None]:
    after = 0
    while rows := store.executions_ended_before(before, after, _ROWS):
        shown = store.shown_executions()
        after = rows[-1][0]
        old = [
            execution_id
            for _sequence, execution_id in rows
            if execution_id not in shown and _last_at(store, execution_id) < before and not log.is_read(execution_id)
        ]
        with log.transaction():
            for execution_id in old:
                store.delete_execution(execution_id)
        for execution_id in old:
            forget(execution_id)
        yield


def _delete_other_events(store: SessionStore, log: EventLog, before: float) -> Generator[None, None, None]:
    while rows := store.events_of_no_execution(log.slowest_cursor, _EVENTS):
        old = [seq for seq, _body in itertools.takewhile(lambda row: _at(row[1]) < before, rows)]
        if old:
            with log.transaction():
                store.delete_events_of_no_execution(old[-1])
        yield
        if len(old) < len(rows):
            return


def _forget_hosts(store: SessionStore, log: EventLog, living_hosts: Callable[[], set[str] | None]) -> None:
    """Forget the hosts that are gone and whose events were all deleted."""
    epochs = store.forgettable_hosts()
    living = living_hosts() if epochs else None
    if living is not None:
        with log.transaction():
            for epoch in set(epochs) - living:
                store.forget_host(epoch)


def _last_at(store: SessionStore, execution_id: str) -> float:
    """Return the Unix time of an execution's last event: its threads may print long after its end."""
    last = store.last_event_of_execution(execution_id)
    rows = store.read_events(last - 1, execution_id=execution_id, upto=last)
    return _at(rows[0][1]) if rows else 0.0


def _at(body: bytes) -> float:
    """Return the Unix time of an event; 0 for an unreadable one, which is deleted with its neighbours."""
    try:
        return float(unpack(body)["at"])
    except (ProtocolError, LookupError, TypeError, ValueError):
        return 0.0


def has_old(store: SessionStore, before: float) -> bool:
    """Whether `delete_old` may have something to delete. Only reads."""
    shown = store.shown_executions()
    rows = store.executions_ended_before(before, 0, _LOOK)
    others = store.events_of_no_execution(store.last_seq, 1)
    return (
        len(rows) == _LOOK
        or any(execution_id not in shown for _sequence, execution_id in rows)
        or any(_at(body) < before for _seq, body in others)
        or store.is_deleting_events
        or store.free_pages > _FREE_PAGES
    )
