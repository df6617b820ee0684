"""Every operation of a session, once, for both faces. Nothing here waits or opens a socket.

Each function returns a flow (see `flows`). The docstrings are those of the public members of `Session` and
`AsyncSession`.
"""

from runtimed.client.calls.cells import (
    append_source,
    clear_outputs,
    create_cell,
    delete_cell,
    fetch_blobs,
    get_cell,
    get_cell_execution_count,
    get_cell_ids,
    get_cell_metadata,
    get_cell_outputs,
    get_cell_position,
    get_cell_source,
    get_cell_type,
    get_cells,
    move_cell,
    set_cell_metadata,
    set_cell_type,
    set_source,
)
from runtimed.client.calls.executions import OnTimeout, cancel, execute, execute_cell, queue_cell, run, wait
from runtimed.client.calls.kernel import (
    complete,
    inspect,
    interrupt,
    kernel_request,
    restart_kernel,
    shutdown_kernel,
    start_kernel,
    trust_environment,
)
from runtimed.client.calls.metadata import get_kernelspec, get_metadata, set_kernelspec, set_metadata
from runtimed.client.calls.notebook import Notebook
from runtimed.client.calls.sessions import get_session, leave, session_status, stop
from runtimed.client.calls.streams import Stream, stream_execute, subscribe

__all__ = [
    "Notebook",
    "OnTimeout",
    "Stream",
    "append_source",
    "cancel",
    "clear_outputs",
    "complete",
    "create_cell",
    "delete_cell",
    "execute",
    "execute_cell",
    "fetch_blobs",
    "get_cell",
    "get_cell_execution_count",
    "get_cell_ids",
    "get_cell_metadata",
    "get_cell_outputs",
    "get_cell_position",
    "get_cell_source",
    "get_cell_type",
    "get_cells",
    "get_kernelspec",
    "get_metadata",
    "get_session",
    "inspect",
    "interrupt",
    "kernel_request",
    "leave",
    "move_cell",
    "queue_cell",
    "restart_kernel",
    "run",
    "session_status",
    "set_cell_metadata",
    "set_cell_type",
    "set_kernelspec",
    "set_metadata",
    "set_source",
    "shutdown_kernel",
    "start_kernel",
    "stop",
    "stream_execute",
    "subscribe",
    "trust_environment",
    "wait",
]
