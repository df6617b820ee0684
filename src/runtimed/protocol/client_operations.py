"""All operations that clients request from the daemon, grouped by where they are performed."""

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
"""Operations that the daemon performs itself, without opening a room."""

RoomOperation = (
    SessionRoomOperation
    | KernelRoomOperation
    | DocumentRoomOperation
    | ExecutionRoomOperation
    | StartBrowser
    | ReadActions
    | BrowserOperation
)
"""Operations that are performed in a session's room, except edits."""

ClientOperation = DaemonOperation | RoomOperation | EditOperation
"""All operations that a client can request from the daemon."""

prepare(*map(reply_type, get_args(ClientOperation)))
