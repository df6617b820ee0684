"""What each operation of a client does: decided at once, or handed to a coroutine that waits for a kernel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from runtimed.daemon.log import Stream
from runtimed.daemon.room import Room
from runtimed.document.notebook import Edit, NotebookDocument
from runtimed.environments import dependencies
from runtimed.environments.dependencies import NOTEBOOK_METADATA
from runtimed.errors import ProtocolError
from runtimed.ids import CellId, ClientId
from runtimed.lifecycle import SessionEvent
from runtimed.protocol import operations as ops
from runtimed.protocol.events import EnvProgress

if TYPE_CHECKING:
    from runtimed.daemon.peer import Peer
    from runtimed.daemon.server import Daemon

__all__ = ["Answer", "dispatch"]

BLOB_PAGE: Final = 4 * 2**20
"""Bytes of a blob in one reply."""

EVENTS_PAGE: Final = 4 * 2**20
"""Bytes of events in one reply."""

Answer = dict[str, Any] | Coroutine[Any, Any, dict[str, Any]] | Stream
"""The reply, or something that will make it."""

NotebookOperation = (
    ops.Join
    | ops.StopSession
    | ops.StartKernel
    | ops.RestartKernel
    | ops.SyncEnvironment
    | ops.ShutdownKernel
    | ops.Interrupt
    | ops.Complete
    | ops.Inspect
    | ops.AddCell
    | ops.SetSource
    | ops.AppendSource
    | ops.DeleteCell
    | ops.MoveCell
    | ops.SetCellMetadata
    | ops.SetCellType
    | ops.ClearOutputs
    | ops.GetCell
    | ops.GetCells
    | ops.SetMetadata
    | ops.GetMetadata
    | ops.GetDependencies
    | ops.AddDependencies
    | ops.RemoveDependency
    | ops.Enqueue
    | ops.Watch
    | ops.ReadEvents
    | ops.Subscribe
    | ops.CancelExecution
    | ops.Input
    | ops.GetBlob
)


def dispatch(daemon: Daemon, peer: Peer, request_id: int, operation: ops.Operation) -> Answer:
    """Do what a client asks.

    Raises:
        RuntimedError: If it cannot be done; the client gets the same error.
    """
    match operation:
        case ops.GetStatus():
            return daemon.status_as_map()
        case ops.GetSession():
            return daemon.session_as_map(daemon.registry.get(operation.notebook_id))
        case ops.ListSessions():
            rows = daemon.registry.list(operation.status, operation.kind, operation.page, operation.page_size)
            return {"sessions": [daemon.session_as_map(row) for row in rows]}
        case ops.ShutdownDaemon():
            return daemon.shut_down(keep_kernels=operation.keep_kernels)
        case (
            ops.Attach()
            | ops.Execute()
            | ops.HostInterrupt()
            | ops.HostRequest()
            | ops.HostRestart()
            | ops.HostShutdown()
            | ops.HostDetach()
            | ops.HostComplete()
            | ops.HostInspect()
            | ops.HostInput()
        ):
            raise ProtocolError(f"{type(operation).__name__} is asked of hosts, not of the daemon")
        case _:
            return _on_notebook(daemon, peer, request_id, operation)


def _on_notebook(daemon: Daemon, peer: Peer, request_id: int, operation: NotebookOperation) -> Answer:
    if isinstance(operation, ops.StopSession):
        return _stop(daemon, peer, operation)
    room = daemon.room(operation.notebook_id)
    if isinstance(operation, ops.Join):
        room.join(peer, peer.client_id, operation)
        peer.rooms.add(room)
        return {"last": room.log.last}
    daemon.registry.touch(room.notebook_id)
    match operation:
        case ops.Enqueue():
            room.begin(peer.client_id)
            room.kernel.enqueue(operation, peer.client_id)
            return _watch(peer, request_id, room, operation.execution_id, operation.after) if operation.watch else {}
        case ops.Watch():
            room.execution(operation.execution_id)
            return _watch(peer, request_id, room, operation.execution_id, operation.after)
        case ops.Subscribe():
            return Stream(
                peer.channel,
                request_id,
                room.log,
                after=room.log.last if operation.after is None else operation.after,
                cell_ids=None if operation.cell_ids is None else frozenset(operation.cell_ids),
            )
        case ops.ReadEvents():
            page = room.log.read(operation.after, execution_id=operation.execution_id, max_bytes=EVENTS_PAGE)
            return {"events": [list(entry) for entry in page], "more": bool(page)}
        case ops.GetCell():
            record = room.document.content.cell(CellId(operation.cell_id))
            cell = None if record is None else room.cell_as_map(record, outputs=operation.outputs)
            return {"cell": cell}
        case ops.GetCells():
            cells, following = room.cells_as_maps(operation.start, outputs=operation.outputs)
            return {"cells": cells, "next": following}
        case ops.GetMetadata():
            return {"value": room.document.content.metadata(operation.key)}
        case ops.GetDependencies():
            metadata = room.document.content.metadata(NOTEBOOK_METADATA)
            return {"dependencies": dependencies.named(metadata, operation.manager)}
        case ops.GetBlob():
            return {"data": daemon.blobs.read(operation.sha256, operation.offset, BLOB_PAGE)}
        case ops.StartKernel():
            return _start_kernel(peer, request_id, room, operation)
        case ops.RestartKernel():
            return _done(room.kernel.restart())
        case ops.SyncEnvironment():
            return room.kernel.sync_environment()
        case ops.ShutdownKernel():
            return _done(room.kernel.shutdown())
        case ops.Interrupt():
            return _done(room.kernel.interrupt())
        case ops.Complete():
            return _reply(room.kernel.complete(operation.code, operation.cursor_pos))
        case ops.Inspect():
            return _reply(room.kernel.inspect(operation.code, operation.cursor_pos))
        case ops.Input():
            return _done(room.kernel.answer_input(operation.execution_id, operation.text))
        case ops.CancelExecution():
            room.execution(operation.execution_id)
            room.kernel.executions.cancel(operation.execution_id)
            return {}
        case _:
            return _edit(room, peer.client_id, request_id, operation)


def _edit(
    room: Room,
    author: ClientId,
    request_id: int,
    operation: ops.AddCell
    | ops.SetSource
    | ops.AppendSource
    | ops.DeleteCell
    | ops.MoveCell
    | ops.SetCellMetadata
    | ops.SetCellType
    | ops.ClearOutputs
    | ops.SetMetadata
    | ops.AddDependencies
    | ops.RemoveDependency,
) -> dict[str, Any]:
    """Edit the document, once for each request, however often it is sent."""
    reply = room.reply_to(author, request_id)
    if reply is None:
        room.begin(author)
        room.document.load()
        with room.log.transaction():
            edit = _make_edit(room, author, operation)
            reply = {"removed": bool(edit.change)} if isinstance(operation, ops.RemoveDependency) else {}
            room.remember(author, request_id, reply)
    return reply


def _make_edit(room: Room, author: ClientId, operation: Any) -> Edit:
    edit: Callable[..., Edit] = room.document.edit
    match operation:
        case ops.AddCell(cell_id=cell_id, source=source, cell_type=cell_type, index=index):
            return edit("added", author, lambda d: d.add_cell(cell_id, source, cell_type, index, author=author))
        case ops.SetSource(cell_id=cell_id, source=source, base=base):
            return edit("source", author, lambda d: d.set_source(cell_id, source, base=base, author=author))
        case ops.AppendSource(cell_id=cell_id, text=text):
            return edit("source", author, lambda d: d.append_source(cell_id, text, author=author))
        case ops.DeleteCell(cell_id=cell_id):
            return edit("deleted", author, lambda d: d.delete_cell(cell_id, author=author))
        case ops.MoveCell(cell_id=cell_id, after_cell_id=after):
            return edit("moved", author, lambda d: d.move_cell(cell_id, after, author=author))
        case ops.SetCellMetadata(cell_id=cell_id, key=key, value=value):
            return edit("metadata", author, lambda d: d.set_cell_metadata(cell_id, key, value, author=author))
        case ops.SetCellType(cell_id=cell_id, cell_type=cell_type):
            return edit("type", author, lambda d: d.set_cell_type(cell_id, cell_type, author=author))
        case ops.ClearOutputs(cell_id=cell_id):
            return edit("cleared", author, lambda d: d.set_execution(cell_id, None, None, author=author))
        case ops.SetMetadata(key=key, value=value):
            return edit("metadata", author, lambda d: d.set_metadata(key, value, author=author))
        case ops.AddDependencies(manager=manager, packages=packages):
            return edit("metadata", author, lambda d: _depend(d, author, dependencies.add, manager, packages))
        case ops.RemoveDependency(manager=manager, package=package):
            return edit("metadata", author, lambda d: _depend(d, author, dependencies.remove, manager, package))
        case _:
            raise ProtocolError(f"{type(operation).__name__} is not an edit")


def _depend(
    document: NotebookDocument, author: ClientId, change: Callable[..., str | None], manager: str, what: Any
) -> Edit:
    """Change what the notebook depends on: what is read here, in the transaction, is what others have written last."""
    metadata = change(document.metadata(NOTEBOOK_METADATA), manager, what)
    if metadata is None:
        return Edit(change=b"", cell_id=None, heads=document.heads)
    return document.set_metadata(NOTEBOOK_METADATA, metadata, author=author)


def _watch(peer: Peer, request_id: int, room: Room, execution_id: str, after: int) -> Stream:
    return Stream(
        peer.channel,
        request_id,
        room.log,
        after=after,
        execution_id=execution_id,
        outcome=lambda: room.kernel.executions.outcome(execution_id),
    )


async def _start_kernel(peer: Peer, request_id: int, room: Room, operation: ops.StartKernel) -> dict[str, Any]:
    progress = Stream(
        peer.channel,
        request_id,
        room.log,
        after=room.log.last if operation.after is None else operation.after,
        only=EnvProgress,
    )
    progress.advance()
    try:
        return await room.start_kernel(operation, peer.client_id)
    finally:
        progress.close()


async def _stop(daemon: Daemon, peer: Peer, operation: ops.StopSession) -> dict[str, Any]:
    row = daemon.registry.get(operation.notebook_id)
    started_here = row.creator == peer.client_id and row.status == "active"
    if started_here or not operation.only_if_started_by_me:
        event = SessionEvent.STOPPED if operation.reason == "stopped" else SessionEvent.BLOCK_FAILED
        await daemon.end_session(row, event)
    return {"started_here": started_here}


async def _done(work: Awaitable[Any]) -> dict[str, Any]:
    await work
    return {}


async def _reply(work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    return dict(await work)
