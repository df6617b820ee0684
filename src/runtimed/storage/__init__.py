"""SQLite databases, blobs and the host's spool: everything that must survive a process is stored here.

Calls are synchronous and short enough for the thread of an event loop. Only a checkpoint waits for the disk to sync
(see `database`). Nothing here opens a socket.
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
