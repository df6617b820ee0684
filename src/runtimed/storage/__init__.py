"""SQLite databases, blobs and the host's spool: the durable side of every acknowledgement.

Calls are synchronous and short enough for an event loop's thread. Only SQLite's checkpoint waits for a disk to sync
(`database`). Nothing here opens a socket.
"""

from runtimed.storage.audit import Actor, AuditRow
from runtimed.storage.blobs import BlobStore
from runtimed.storage.executions import ExecutionRow, ExecutionStatus
from runtimed.storage.registry_store import RegistryStore, SessionRow
from runtimed.storage.session_store import SessionStore
from runtimed.storage.spool import Spool

__all__ = [
    "Actor",
    "AuditRow",
    "BlobStore",
    "ExecutionRow",
    "ExecutionStatus",
    "RegistryStore",
    "SessionRow",
    "SessionStore",
    "Spool",
]
