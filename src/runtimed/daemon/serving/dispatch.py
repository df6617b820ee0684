"""Handlers of the clients' operations: each answers at once, or returns a coroutine that waits."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, assert_never

from runtimed.daemon.hosting.kernel_start import KernelRequest
from runtimed.daemon.rooms.audit import log_page
from runtimed.daemon.rooms.cell_pages import content_page
from runtimed.daemon.rooms.events import Stream
from runtimed.daemon.rooms.importing import HasBlob, import_cells
from runtimed.daemon.rooms.reading import read_page
from runtimed.daemon.rooms.room import Room
from runtimed.daemon.serving.daemon import Daemon
from runtimed.daemon.serving.overview import daemon_status, list_sessions, session_status
from runtimed.daemon.serving.peer import Answer, Peer
from runtimed.document import editing
from runtimed.document.deltas import Delta
from runtimed.environments import dependencies
from runtimed.environments.dependencies import NOTEBOOK_METADATA
from runtimed.errors import ProtocolError
from runtimed.ids import CellId, check_session_id
from runtimed.lifecycle import SessionEvent
from runtimed.models import AuditEntry
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol import execution_operations as execution_ops
from runtimed.protocol import kernel_operations as kernel_ops
from runtimed.protocol import session_operations as session_ops
from runtimed.protocol.arguments import check_values
from runtimed.protocol.browser_operations import DeleteProfile, ListProfiles, OnBrowser, ReadActions, StartBrowser
from runtimed.protocol.client_operations import ClientOperation, DaemonOperation, RoomOperation
from runtimed.protocol.connection import Asked
from runtimed.protocol.events import EnvProgress
from runtimed.protocol.operation import Edit, InRoom, ReplyBody, ReplyT
from runtimed.protocol.replies import Done, EventPage, GetBlobReply
from runtimed.storage.audit import Actor
from runtimed.storage.notebook import NotebookTables

__all__ = ["dispatch"]

BLOB_PAGE: Final = 2**20
"""Bytes of a blob in one reply."""

EVENTS_PAGE: Final = 2**20
"""Bytes of events in one reply."""

IDS_BYTES: Final = 4 * 2**20
"""Bytes of ids in one reply, about 90,000 cells' ids."""


def dispatch(daemon: Daemon, peer: Peer, asked: Asked[ClientOperation, Any]) -> Answer:
    """Perform a client's operation.

    Raises:
        RuntimedError: If it fails; the client gets the same error.
    """
    operation = asked.operation
    check_values(operation)
    if not isinstance(operation, InRoom):
        return _in_daemon(daemon, peer, operation)
    if isinstance(operation, session_ops.Join):
        daemon.check_may_join()
    room = daemon.room(operation.notebook_id)
    if operation.kind is not None:
        room.check_kind(operation.kind)
    if operation.is_use:
        daemon.registry.touch(room.notebook_id)
    if isinstance(operation, Edit):
        return _edit(room, peer.actor, asked.id, operation, daemon.blobs.renew)
    return _in_room(daemon, peer, asked, room, operation)


def _in_daemon(daemon: Daemon, peer: Peer, operation: DaemonOperation) -> Answer:
    match operation:
        case session_ops.GetStatus():
            return daemon_status(daemon, operation.first_room)
        case session_ops.GetSession():
            return session_ops.GetSessionReply(
                session=session_status(daemon, daemon.registry.get(operation.notebook_id))
            )
        case session_ops.GetAudit():
            row = daemon.registry.get(operation.notebook_id)
            work = daemon.room(row.session_id).contents.audit()
            steps = daemon.registry.history(row.session_id)
            return _log(log_page(steps, work, operation.page, operation.page_size))
        case session_ops.ListSessions():
            return list_sessions(daemon, operation)
        case session_ops.FindSessions(prefix=prefix, status=status, kind=kind):
            return _fitting(daemon.registry.find_ids(prefix, status, kind))
        case document_ops.FindCells(notebook_id=notebook_id, prefix=prefix):
            room = daemon.room(daemon.registry.get(notebook_id).session_id)
            room.check_kind("kernel")
            return _fitting(room.document.content.cell_ids(prefix))
        case execution_ops.FindExecutions(prefix=prefix):
            room = daemon.room(daemon.registry.get(operation.notebook_id).session_id)
            room.check_kind("kernel")
            return execution_ops.FindExecutionsReply(executions=room.contents.find_executions(prefix))
        case execution_ops.GetQueue(notebook_id=notebook_id):
            if daemon.registry.find(check_session_id(notebook_id)) is None:
                return execution_ops.GetQueueReply()
            room = daemon.room(notebook_id)
            room.check_kind("kernel")
            return room.kernel.executions.queue()
        case session_ops.GetFile(notebook_id=notebook_id, path=path):
            if path is not None:
                daemon.registry.check_file(notebook_id, path)
            record = daemon.registry.file(check_session_id(notebook_id))
            return session_ops.GetFileReply(record=None if record is None else record.text())
        case session_ops.SetFile(notebook_id=notebook_id, path=path, record=record):
            daemon.autosave.set_file(check_session_id(notebook_id), path, record)
            return Done()
        case session_ops.StopSession():
            return _stop(daemon, peer, operation)
        case session_ops.DeleteSession():
            return daemon.delete_session(operation.notebook_id, peer.actor)
        case ListProfiles():
            return daemon.list_profiles()
        case DeleteProfile(name=name):
            return daemon.delete_profile(name)
        case session_ops.ShutdownDaemon():
            return daemon.shut_down(peer.actor, keep_kernels=operation.keep_kernels)
        case session_ops.FlushPool():
            return daemon.flush_pool()
        case kernel_ops.DescribeProcess():
            peer.process = operation
            return Done()
        case _:
            assert_never(operation)


def _fitting(ids: Iterable[str]) -> session_ops.FoundIds:
    """Return as many ids as fit into one reply."""
    found = []
    left = IDS_BYTES
    for one in ids:
        left -= len(one.encode()) + 5
        if left < 0:
            break
        found.append(one)
    return session_ops.FoundIds(ids=found)


def _in_room(
    daemon: Daemon, peer: Peer, asked: Asked[ClientOperation, Any], room: Room, operation: RoomOperation
) -> Answer:
    match operation:
        case session_ops.Join():
            room.join(peer, peer.client_id, operation)
            peer.rooms.add(room)
            return session_ops.JoinReply(last=room.log.last)
        case ReadActions(after=after):
            return room.contents.actions(after)
        case execution_ops.Enqueue():
            queued = room.kernel.executions.queued_already(operation)
            if queued is not None:
                return execution_ops.EnqueueReply(queued=queued)
            room.begin(peer.actor)
            room.note_written(operation)
            if not room.kernel.takes_at_once(operation):
                choice, source = operation.kernel, operation.source
                request = None if choice is None else _request(peer, operation.notebook_id, choice, source)
                return _start_for(peer, asked, room, operation, request)
            room.kernel.enqueue(operation, peer.actor)
            return _queued(peer, asked, room, operation)
        case execution_ops.Watch():
            room.contents.check_execution(operation.execution_id)
            return _watch(peer, asked, room, operation)
        case execution_ops.Subscribe():
            room.contents.check_complete_after(operation.after or 0)
            return Stream(
                peer.channel,
                asked,
                room.log,
                after=room.log.last if operation.after is None else operation.after,
                cell_ids=None if operation.cell_ids is None else frozenset(operation.cell_ids),
                comms=operation.comms,
                resumed=operation.resumed,
            )
        case execution_ops.ReadEvents():
            room.contents.check_execution(operation.execution_id)
            reader = room.log.reader(operation.execution_id, after=operation.after, whole=operation.whole)
            page, is_all = read_page(reader, EVENTS_PAGE)
            return EventPage(events=page, last=reader.cursor, more=not is_all)
        case document_ops.GetCell():
            record = room.document.content.cell(CellId(operation.cell_id))
            cell = None if record is None else room.contents.stored_cell(record, outputs=operation.outputs)
            return document_ops.GetCellReply(cell=cell)
        case document_ops.GetCells():
            return room.contents.stored_cells(operation.start, outputs=operation.outputs, content=operation.content)
        case session_ops.RestoreNotebook():
            return room.restore(peer.actor)
        case document_ops.GetContent():
            return content_page(room.document.cell(operation.cell_id), operation.offset)
        case document_ops.GetDocument(offset=offset):
            return room.document_page(offset)
        case document_ops.GetMetadata():
            return document_ops.GetMetadataReply(value=room.document.content.metadata(operation.key))
        case document_ops.GetDependencies():
            metadata = room.document.content.metadata(NOTEBOOK_METADATA)
            return document_ops.GetDependenciesReply(dependencies=dependencies.named(metadata, operation.manager))
        case document_ops.GetHistory():
            return room.history.page(operation)
        case document_ops.GetVersion(version=version, offset=offset):
            return _answered(room.history.version(version, offset))
        case document_ops.GetBlame(cell_id=cell_id, version=at, offset=offset):
            return _answered(room.history.blame(CellId(cell_id), at, offset))
        case document_ops.RestoreVersion(version=version):
            return _answered(room.restore_version(version, peer.actor, asked.id))
        case document_ops.MergeCopy(copy=copy):
            return _answered(room.merge_copy(copy, peer.actor, asked.id))
        case document_ops.ImportOutputs():
            return room.import_outputs(operation, peer.actor, daemon.blobs.renew)
        case document_ops.PutBlob(sha256=sha256, size=size, offset=at, piece=piece):
            room.check_room()
            return document_ops.PutBlobReply(stored=daemon.uploads.put(sha256, size, at, piece))
        case execution_ops.GetBlob():
            return GetBlobReply(data=daemon.blobs.read(operation.sha256, operation.offset, BLOB_PAGE))
        case StartBrowser():
            return room.start_browser(operation, peer.actor)
        case OnBrowser():
            return room.ask_browser(operation, peer.actor, asked.id)
        case kernel_ops.StartKernel():
            request = _request(peer, operation.notebook_id, operation.kernel, operation.source)
            return _start_kernel(peer, asked, room, operation, request)
        case kernel_ops.TrustEnvironment():
            return room.kernel.environment.trust(_request(peer, operation.notebook_id, operation.kernel))
        case kernel_ops.RestartKernel():
            return _restart_kernel(room, peer)
        case kernel_ops.SyncEnvironment():
            return room.kernel.sync_environment(peer.actor)
        case kernel_ops.ShutdownKernel():
            return _done(room.kernel.shutdown(peer.actor))
        case kernel_ops.Interrupt():
            return _done(room.kernel.interrupt(peer.actor))
        case kernel_ops.Complete(code=code, cursor_pos=position):
            return _answered(room.kernel.ask("complete_request", code=code, cursor_pos=position))
        case kernel_ops.Inspect(code=code, cursor_pos=position, detail_level=level):
            return _answered(room.kernel.ask("inspect_request", code=code, cursor_pos=position, detail_level=level))
        case kernel_ops.AskKernel(msg_type=msg_type, content=content):
            return _answered(room.kernel.ask(msg_type, **content))
        case kernel_ops.SendComm(message=message):
            return _done(room.kernel.send_comm(message))
        case kernel_ops.GetVariable():
            return _answered(room.kernel.get_variable(operation.name, arrow=operation.arrow))
        case kernel_ops.PutVariable():
            return _answered(room.kernel.put_variable(operation.name, operation.pickled))
        case kernel_ops.GetResultValue():
            return _answered(room.kernel.result_value(operation.execution_id))
        case execution_ops.Input():
            return _done(room.kernel.answer_input(operation.execution_id, operation.text, peer.actor))
        case execution_ops.CancelExecution():
            if room.kernel.cancel_held(operation.execution_id):
                return Done()
            room.contents.check_execution(operation.execution_id)
            room.kernel.executions.cancel(operation.execution_id, peer.actor)
            return Done()
        case _:
            assert_never(operation)


def _edit(
    room: Room, actor: Actor, request_id: int, operation: document_ops.EditOperation, has_blob: HasBlob
) -> ReplyBody:
    """Edit the document. A request that is sent again is deduplicated."""
    reply = room.reply_to(actor.client_id, request_id, operation)
    if reply is None:
        room.check_room()
        room.begin(actor)
        room.note_written(operation)
        with room.log.transaction():
            edit = _make_edit(room, actor, operation, has_blob)
            removes = isinstance(operation, document_ops.RemoveDependency)
            reply = document_ops.RemoveDependencyReply(removed=edit is not None) if removes else Done()
            room.remember(actor.client_id, request_id, reply)
    return reply


def _make_edit(room: Room, actor: Actor, operation: document_ops.EditOperation, has_blob: HasBlob) -> Delta | None:
    edit: Callable[..., Delta | None] = room.document.edit
    match operation:
        case document_ops.AddCell(cell_id=cell_id, source=source, cell_type=cell_type, index=index):
            return edit("added", actor, lambda d: editing.create_cell(d, cell_id, source, cell_type, index))
        case document_ops.SetSource(cell_id=cell_id, source=source, base=base):
            return edit("source", actor, lambda d: editing.set_source(d, cell_id, source, base=base))
        case document_ops.AppendSource(cell_id=cell_id, text=text):
            return edit("source", actor, lambda d: editing.append_source(d, cell_id, text))
        case document_ops.DeleteCell(cell_id=cell_id):
            return edit("deleted", actor, lambda d: editing.delete_cell(d, cell_id))
        case document_ops.MoveCell(cell_id=cell_id, after_cell_id=after):
            return edit("moved", actor, lambda d: editing.move_cell(d, cell_id, after))
        case document_ops.SetCellMetadata(cell_id=cell_id, key=key, value=value):
            return edit("metadata", actor, lambda d: editing.set_cell_metadata(d, cell_id, key, value))
        case document_ops.ImportCells():
            import_cells(room.document, room.kernel.executions, has_blob, operation, actor)
            return None
        case document_ops.SetCellType(cell_id=cell_id, cell_type=cell_type):
            return edit("type", actor, lambda d: editing.set_cell_type(d, cell_id, cell_type), detail=cell_type)
        case document_ops.ClearOutputs(cell_id=cell_id):
            return edit("cleared", actor, lambda d: editing.set_execution(d, cell_id, None, None))
        case document_ops.SetMetadata(key=key, value=value):
            return edit("metadata", actor, lambda d: editing.set_metadata(d, key, value))
        case document_ops.SetKernelspec(name=name, display_name=display_name, language=language):
            spec = (name, display_name, language)
            return edit("metadata", actor, lambda d: _rewrite(d, dependencies.with_kernelspec, *spec))
        case document_ops.AddDependencies(manager=manager, packages=packages):
            return edit("metadata", actor, lambda d: _rewrite(d, dependencies.add, manager, packages))
        case document_ops.RemoveDependency(manager=manager, package=package):
            return edit("metadata", actor, lambda d: _rewrite(d, dependencies.remove, manager, package))
        case _:
            assert_never(operation)


def _rewrite(notebook: NotebookTables, change: Callable[..., str | None], *what: Any) -> Delta | None:
    """Change a part of the notebook's metadata, reading the present value in the same transaction."""
    metadata = change(notebook.metadata(NOTEBOOK_METADATA), *what)
    return None if metadata is None else editing.set_metadata(notebook, NOTEBOOK_METADATA, metadata)


def _watch(
    peer: Peer,
    asked: Asked[ClientOperation, Any],
    room: Room,
    operation: execution_ops.Enqueue | execution_ops.Watch,
    explained: str | None = None,
) -> Stream:
    execution_id = operation.execution_id

    def outcome() -> execution_ops.WatchReply | execution_ops.EnqueueReply | None:
        ended = room.kernel.executions.outcome(execution_id)
        if ended is None or isinstance(operation, execution_ops.Watch):
            return ended
        return execution_ops.EnqueueReply(ended=ended, explained=explained)

    return Stream(
        peer.channel,
        asked,
        room.log,
        reader=room.log.reader(execution_id, after=operation.after, whole=operation.whole),
        outcome=outcome,
    )


async def _restart_kernel(room: Room, peer: Peer) -> kernel_ops.RestartKernelReply:
    await room.kernel.restart(peer.actor)
    return kernel_ops.RestartKernelReply(explained=room.kernel.explained)


def _request(peer: Peer, notebook_id: str, choice: kernel_ops.KernelChoice, source: str | None = None) -> KernelRequest:
    """Return how a client asks for a kernel.

    Raises:
        ProtocolError: If it has not described its process.
        KernelStartFailed: If there is no folder for the kernel.
    """
    if peer.process is None:
        raise ProtocolError("A client describes its process (describe_process) before it asks for a kernel")
    return KernelRequest.by(peer.process, notebook_id, choice, source)


@contextlib.contextmanager
def _progress(peer: Peer, asked: Asked[ClientOperation, Any], room: Room, after: int | None) -> Iterator[None]:
    """Tell the client how the environment is made, as long as the block lasts."""
    progress = Stream(peer.channel, asked, room.log, after=room.log.last if after is None else after, only=EnvProgress)
    progress.begin(on_end=lambda: None)
    try:
        yield
    finally:
        progress.close()


async def _start_kernel(
    peer: Peer,
    asked: Asked[ClientOperation, Any],
    room: Room,
    operation: kernel_ops.StartKernel,
    request: KernelRequest,
) -> kernel_ops.StartKernelReply:
    with _progress(peer, asked, room, operation.after):
        return await room.start_kernel(request, peer.actor)


async def _start_for(
    peer: Peer,
    asked: Asked[ClientOperation, Any],
    room: Room,
    operation: execution_ops.Enqueue,
    request: KernelRequest | None,
) -> execution_ops.EnqueueReply | Stream:
    """Queue an execution when the kernel that is started for it is ready.

    Whoever wants no more than a place in the queue has it at once, if the kernel starts already.
    """
    explained = None
    # Decided in turns of the loop, and so in the order of the requests.
    if request is None or (room.kernel.exists and not operation.watch):
        room.kernel.enqueue(operation, peer.actor)
    else:
        with _progress(peer, asked, room, operation.after or None):
            reply = await room.start_kernel(request, peer.actor, operation)
        explained = reply.explained if reply.started else None
    return _queued(peer, asked, room, operation, explained)


def _queued(
    peer: Peer,
    asked: Asked[ClientOperation, Any],
    room: Room,
    operation: execution_ops.Enqueue,
    explained: str | None = None,
) -> execution_ops.EnqueueReply | Stream:
    """Answer a request for an execution, which is queued now, or was not in favour of another."""
    queued = room.kernel.joined(operation)
    if queued is not None or not operation.watch:
        return execution_ops.EnqueueReply(queued=queued, explained=explained)
    return _watch(peer, asked, room, operation, explained)


async def _stop(daemon: Daemon, peer: Peer, operation: session_ops.StopSession) -> session_ops.StopSessionReply:
    row = daemon.registry.get(operation.notebook_id)
    started_here = row.creator == peer.client_id and row.status == "active"
    waits = None
    if started_here or not operation.only_if_started_by_me:
        event = SessionEvent.STOPPED if operation.reason == "stopped" else SessionEvent.BLOCK_FAILED
        waits = await daemon.end_session(row, event, peer.actor)
    return session_ops.StopSessionReply(started_here=started_here, waits=waits)


async def _log(page: Awaitable[list[AuditEntry]]) -> session_ops.GetAuditReply:
    return session_ops.GetAuditReply(entries=await page)


async def _answered(work: Awaitable[ReplyT]) -> ReplyT:
    return await work


async def _done(work: Awaitable[Any]) -> Done:
    await work
    return Done()
