"""What clients can ask of the daemon: all operations, by where they are performed."""

from __future__ import annotations

from typing import get_args

from runtimed.protocol.browser_operations import (
    BrowserOperation,
    DeleteProfile,
    ListProfiles,
    ReadActions,
    StartBrowser,
)
from runtimed.protocol.document_operations import DocumentDaemonOperation, DocumentRoomOperation, EditOperation
from runtimed.protocol.execution_operations import ExecutionDaemonOperation, ExecutionRoomOperation
from runtimed.protocol.kernel_operations import KernelDaemonOperation, KernelRoomOperation
from runtimed.protocol.operation import reply_type
from runtimed.protocol.session_operations import SessionDaemonOperation, SessionRoomOperation
from runtimed.structs import prepare

__all__ = ["ClientOperation", "DaemonOperation", "RoomOperation"]

DaemonOperation = (
    SessionDaemonOperation
    | KernelDaemonOperation
    | DocumentDaemonOperation
    | ExecutionDaemonOperation
    | ListProfiles
    | DeleteProfile
)
"""What the daemon performs itself: no room is opened for it."""

RoomOperation = (
    SessionRoomOperation
    | KernelRoomOperation
    | DocumentRoomOperation
    | ExecutionRoomOperation
    | StartBrowser
    | ReadActions
    | BrowserOperation
)
"""What is performed in a session's room, edits excepted."""

ClientOperation = DaemonOperation | RoomOperation | EditOperation
"""What a client can ask of the daemon."""

prepare(*map(reply_type, get_args(ClientOperation)))
