"""Reads the history of a room's notebook, and restores its versions: by edits, as clients make them.

A worker process replays the edits up to a version. Restoring yields to other work after every few edits; what others
edit meanwhile stays in cells that are restored already, and in the history in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec

from runtimed.daemon.rooms.document import EditKind, SharedDocument
from runtimed.daemon.rooms.document_work import DocumentWork
from runtimed.document import editing
from runtimed.document.cells import CellRecord
from runtimed.document.deltas import CellAdded, CellMoved, Delta
from runtimed.document.stored import PendingEdit
from runtimed.document.tasks import BlameCell, ReadVersion, Task
from runtimed.errors import StorageError, VersionNotFound
from runtimed.ids import CellId, ExecutionId, SessionId
from runtimed.models import NotebookEdit
from runtimed.protocol.document_operations import GetHistory, GetHistoryReply, HistoryPiece, StoredCell
from runtimed.storage.audit import Actor
from runtimed.storage.history import EditRow
from runtimed.storage.notebook import NotebookTables
from runtimed.storage.session_store import SessionStore

__all__ = ["RoomHistory"]

NEWEST: Final = 2**63 - 1
"""Above the number of every edit."""

PIECE: Final = 2**20
"""Bytes of an answer in one reply."""

KEPT: Final = 2
"""Number of answers of more than one piece that are kept for their next pieces; others are read anew."""

PAGE: Final = 500
"""Edits that are read from storage in one slice. Then everything else on the event loop has its turn."""

SLICE: Final = 400
"""Unchanged cells that restoring passes in one slice, or as much work. One takes some 10 µs."""

EDIT: Final = 25
"""Cost of an edit, in unchanged cells."""


class _Version(msgspec.Struct, frozen=True):
    """A `VersionContent` whose cells are not decoded yet: 10,000 at once would hold up everything else."""

    cells: list[msgspec.Raw]
    metadata: dict[str, str]


_VERSION: Final = msgspec.msgpack.Decoder(_Version)
_CELL: Final = msgspec.msgpack.Decoder(StoredCell)


class RoomHistory:
    """The history of one session's notebook."""

    def __init__(
        self, notebook_id: SessionId, store: SessionStore, document: SharedDocument, work: DocumentWork
    ) -> None:
        self._notebook_id = notebook_id
        self._store = store
        self._document = document
        self._work = work
        self._kept: dict[tuple[int, CellId | None], bytes] = {}

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

    async def version(self, version: int, offset: int) -> HistoryPiece:
        """Return a piece of what the notebook said at a version; see `GetVersion`.

        Raises:
            VersionNotFound: If the history does not have it.
            StorageError: If it cannot be read.
        """
        return await self._piece(version, None, offset)

    async def blame(self, cell_id: CellId, version: int | None, offset: int) -> HistoryPiece:
        """Return a piece of which edit wrote each line of a cell; see `GetBlame`.

        Raises:
            VersionNotFound: If the history does not have the version.
            StorageError: If it cannot be read.
        """
        newest = self._document.content.last_edit
        return await self._piece(newest if version is None else version, cell_id, offset)

    async def _piece(self, version: int, cell_id: CellId | None, offset: int) -> HistoryPiece:
        content, key = await self._content(version, cell_id), (version, cell_id)
        if offset + PIECE < len(content):
            while len(self._kept) >= KEPT and key not in self._kept:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = content
        else:
            self._kept.pop(key, None)
        return HistoryPiece(piece=content[offset : offset + PIECE], size=len(content), version=version)

    async def _content(self, version: int, cell_id: CellId | None = None) -> bytes:
        """Return the encoded version, or the blame of a cell at it."""
        self._check(version)
        kept = self._kept.get((version, cell_id))
        if kept is not None:
            return kept

        async def task() -> Task:
            self._check(version)  # the history may have been dropped while another task was performed
            notebook, oldest = self._document.content, self._oldest
            edits: list[PendingEdit] = []
            after = oldest
            while page := notebook.history.deltas(after, version, PAGE, cell_id):
                edits += page
                after = page[-1].number
                await asyncio.sleep(0)
            base = notebook.base_rows()
            if not base and notebook.history.base() is not None:
                # Replayed upon nothing, its edits would be another notebook's.
                raise StorageError(
                    f"The history of session {self._notebook_id!r} cannot be read, because its document was set aside "
                    "as damaged. It begins anew with the next document, which is written soon",
                    notebook_id=self._notebook_id,
                )
            return ReadVersion(base, edits) if cell_id is None else BlameCell(base, oldest, edits, cell_id)

        return await self._work.read(task)

    @property
    def _oldest(self) -> int:
        base = self._document.content.history.base()
        return 0 if base is None else base.number

    def _check(self, version: int) -> None:
        oldest, newest = self._oldest, self._document.content.last_edit
        if not oldest <= version <= newest:
            raise VersionNotFound(
                f"The history of session {self._notebook_id!r} has no version {version}: it goes from version {oldest} "
                f"to {newest}",
                version=version,
                oldest=oldest,
                newest=newest,
            )

    # --- restoring ---

    async def restore(self, version: int, actor: Actor) -> int:
        """Edit the notebook until it says what it said at a version, cell by cell; see `RestoreVersion`.

        Cells that others add meanwhile stay.

        Returns:
            Number of edits.

        Raises:
            VersionNotFound: If the history does not have it; nothing has changed.
            StorageError: If it cannot be read, or an edit cannot be stored; those before are made.
        """
        wanted = _VERSION.decode(await self._content(version))
        edits = work = 0
        for made in self._restoring(wanted, actor):
            edits += made
            work += 1 + made * EDIT
            if work >= SLICE:
                work = 0
                await asyncio.sleep(0)
        return edits

    def _restoring(self, wanted: _Version, actor: Actor) -> Iterator[int]:
        """Restore one cell or entry after another; yield the number of edits of each."""
        edit = self._document.edit
        extra = {cell_id for _position, cell_id in self._document.content.places()}
        for raw in wanted.cells:
            cell = self._record(_CELL.decode(raw))
            extra.discard(cell.id)
            yield self._restore_cell(cell, actor)
        for cell_id in extra:
            if self._document.content.cell(cell_id) is not None:
                edit("deleted", actor, partial(editing.delete_cell, cell_id=cell_id))
                yield 1
        for key in self._document.content.all_metadata().keys() - wanted.metadata.keys():
            yield edit("metadata", actor, partial(editing.delete_metadata, key=key)) is not None
        for key, value in wanted.metadata.items():
            yield edit("metadata", actor, partial(editing.set_metadata, key=key, value=value)) is not None

    def _record(self, cell: StoredCell) -> CellRecord:
        """Return a cell as it was, with its execution if that is kept."""
        execution, count = None, cell.execution_count if cell.execution_id is None else None
        if cell.execution_id is not None:
            with contextlib.suppress(StorageError):  # damaged
                execution = self._store.execution(ExecutionId(cell.execution_id))
        return CellRecord(
            id=CellId(cell.id),
            cell_type=cell.cell_type,
            source=cell.source or "",
            position=cell.position,
            # It may have begun after that version.
            execution_count=count if execution is None else execution.execution_count,
            execution_id=None if execution is None else execution.execution_id,
            metadata=cell.metadata or {},
        )

    def _restore_cell(self, wanted: CellRecord, actor: Actor) -> int:
        """Make the edits that one cell needs; return their number."""
        cell_id = wanted.id
        present = self._document.content.cell(cell_id)
        edits: list[tuple[EditKind, Callable[[NotebookTables], Delta | None], str | None]] = []
        if present is None:
            edits.append(("added", lambda _cells: CellAdded(wanted), None))
        elif present != wanted:
            edits.append(("source", lambda d: editing.set_source(d, cell_id, wanted.source, base=None), None))
            edits.append(("type", lambda d: editing.set_cell_type(d, cell_id, wanted.cell_type), wanted.cell_type))
            # Deletions first: all metadata of a cell together have a limit.
            for key in [*(present.metadata.keys() - wanted.metadata.keys()), *wanted.metadata]:
                value = wanted.metadata.get(key)
                decide = partial(editing.set_cell_metadata, cell_id=cell_id, key=key, value=value)
                edits.append(("metadata", decide, None))
            if present.position != wanted.position:
                edits.append(("moved", lambda _cells: CellMoved(cell_id, {cell_id: wanted.position}), None))
            if (wanted.execution_id, wanted.execution_count) == (None, None):
                edits.append(("cleared", lambda d: editing.set_execution(d, cell_id, None, None), None))
        edit = self._document.edit
        made = sum(edit(kind, actor, decide, detail=detail) is not None for kind, decide, detail in edits)
        if present is not None:
            shown = wanted.execution_id, wanted.execution_count
            made += self._document.set_execution(cell_id, *shown, author=actor.client_id)
        return made


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
