"""Reads the history of a room's notebook."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from runtimed.daemon.rooms.document import SharedDocument
from runtimed.models import NotebookEdit
from runtimed.protocol.document_operations import GetHistory, GetHistoryReply
from runtimed.storage.audit import Actor
from runtimed.storage.history import EditRow
from runtimed.storage.session_store import SessionStore

__all__ = ["RoomHistory"]

NEWEST: Final = 2**63 - 1
"""Above the number of every edit."""


class RoomHistory:
    """The history of one session's notebook."""

    def __init__(self, store: SessionStore, document: SharedDocument) -> None:
        self._store = store
        self._document = document

    def page(self, operation: GetHistory) -> GetHistoryReply:
        """Return a page of the edits, newest first; see `GetHistory`."""
        history = self._document.content.history
        before = NEWEST if operation.before is None else operation.before
        rows, following = history.page(before, operation.count, operation.cell_id)
        actors = {author: self._store.actor(author) for author in {row.author for row in rows}}
        edits = [_edit(row, actors[row.author]) for row in rows]
        base = history.base()
        if following is None and base is not None:
            at = datetime.fromtimestamp(base.at, UTC)
            edits.append(NotebookEdit(version=base.number, at=at, action="history_begins"))
        return GetHistoryReply(edits=edits, next=following)


def _edit(row: EditRow, actor: Actor) -> NotebookEdit:
    return NotebookEdit(
        version=row.number,
        at=datetime.fromtimestamp(row.at, UTC),
        action=row.action,
        cell_id=row.cell_id,
        detail=row.detail,
        client_id=actor.client_id,
        label=actor.label,
        uid=actor.uid,
    )
