"""Operations that the daemon requests from hosts, each with its reply; `BrowserOperation`s of clients are forwarded."""

from __future__ import annotations

from typing import Any, Generic, Literal, get_args

import msgspec

from runtimed.protocol.bounds import Environment, Expressions, Minutes, Number
from runtimed.protocol.browser_operations import BrowserOperation
from runtimed.protocol.comms import CommBody
from runtimed.protocol.inherited import Inherited
from runtimed.protocol.kernel_operations import FrontendQuestion
from runtimed.protocol.operation import Operation, ReplyBody, ReplyT_co, reply_type
from runtimed.protocol.replies import Done, GetBlobReply, GetResultValueReply, GetVariableReply, KernelAnswer
from runtimed.structs import prepare

__all__ = [
    "Attach",
    "AttachReply",
    "Execute",
    "HostBecome",
    "HostBecomeBrowser",
    "HostBrowserUsed",
    "HostDetach",
    "HostDropBlob",
    "HostFollowComms",
    "HostGetResultValue",
    "HostGetVariable",
    "HostInput",
    "HostInterrupt",
    "HostOperation",
    "HostPutVariable",
    "HostReadBlob",
    "HostRequest",
    "HostRequestReply",
    "HostRestart",
    "HostSendComm",
    "HostShutdown",
    "HostWarm",
    "KernelAsk",
    "OfSpare",
    "Question",
]


class AttachReply(ReplyBody, frozen=True):
    """The state of the host.

    Attributes:
        epoch: Id of the host process.
        last: Number of its latest event.
        kernel_pid: Process id of a kernel.
        env_source: Environment of a kernel.
        executions: Ids of the executions that the kernel accepted and has not finished.
        status: Status of a browser.
        pid: Process id of a browser.
        used_at: Last use of the browser through its relay, in Unix time; 0 for never.
        profile: The named profile that is saved at the browser's end; None for none.
    """

    epoch: str
    last: int
    kernel_pid: int | None = None
    env_source: str | None = None
    executions: list[str] = msgspec.field(default_factory=list)
    status: Literal["starting", "ready", "dead"] = "starting"
    pid: int | None = None
    used_at: float = 0.0
    profile: str | None = None


class Attach(Operation[AttachReply], frozen=True, tag="attach"):
    """Stream the host's events with numbers above `after`. The first request; a newer daemon replaces an older one."""

    is_quick = True

    after: Number = 0


class Execute(Operation[Done], frozen=True, tag="execute"):
    """Execute code. The reply comes once the host has accepted it; a known id is not executed again.

    Attributes:
        silent: See `Enqueue`, as for `store_history`.
        user_expressions: Expressions by name that the kernel evaluates after the code; see `Finished`.
    """

    is_quick = True

    execution_id: str
    cell_id: str
    code: str
    stdin: bool = False
    silent: bool = False
    store_history: bool = True
    user_expressions: Expressions = msgspec.field(default_factory=dict)


class HostInterrupt(Operation[Done], frozen=True, tag="host_interrupt"):
    """Interrupt the kernel as its kernelspec says."""

    is_quick = True


class HostRequestReply(ReplyBody, frozen=True):
    """The request that started the kernel, and the marker of its environment."""

    request: bytes
    marker: str


class HostRequest(Operation[HostRequestReply], frozen=True, tag="host_request"):
    """Read the request that started the kernel."""

    is_quick = True


class HostRestart(Operation[Done], frozen=True, tag="host_restart"):
    """Replace the kernel's process. The reply comes when the new one is ready. Raises KernelStartFailed.

    The new one gets the environment of `env_source`, whose fields are those of `Bootstrap`; if it is empty, the present
    environment.
    """

    marker: str = ""
    interpreter: str = ""
    env_source: str = ""
    environment: Environment = msgspec.field(default_factory=dict)


class HostShutdown(Operation[Done], frozen=True, tag="host_shutdown"):
    """End the kernel and then the host. The spool stays until the last event is acknowledged."""

    is_quick = True


class HostDetach(Operation[Done], frozen=True, tag="host_detach"):
    """Run on without a daemon, and do not start one, since the daemon ends on purpose."""

    is_quick = True


class OfSpare(Operation[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """An operation on a spare host, which has no session yet, over the connection that keeps it alive."""


class HostWarm(OfSpare[Done], frozen=True, tag="host_warm"):
    """Keep a spare host alive as long as this connection, until a session takes it.

    The reply comes once its kernel has finished its imports, or its browser can be used. Raises NoKernel or
    BrowserError if it ended, or is not a spare.
    """


class HostBecome(OfSpare[Done], frozen=True, tag="host_become"):
    """Give a spare kernel to a session; afterwards its host is an ordinary one, waiting for `Attach`.

    Raises NoKernel or KernelStartFailed if the spare cannot be used; it is then unchanged. The fields are those of
    `Bootstrap`; its other fields stay as they are.
    """

    kernel_type: str
    env_source: str
    request: bytes
    environment: Environment
    cwd: str
    notebook_label: str
    inherited: Inherited | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<HostBecome {self.notebook_label!r} {self.env_source!r}>"


class HostBecomeBrowser(OfSpare[Done], frozen=True, tag="host_become_browser"):
    """Give a spare browser to a session; afterwards its host is an ordinary one, waiting for `Attach`.

    The reply comes once the browser has the session's configuration. Raises BrowserError if the spare cannot be used;
    it is then unchanged.

    Attributes:
        config: The fields of `BrowserConfig`.
        environment: The client's environment variables.
        session_dir: Path that must not exist; it becomes a link to the spare's folder.
        notebook_label: See `HostBecome`.
        timeout_minutes: See `StartBrowser`.
        max_duration_minutes: See `StartBrowser`.
    """

    is_free_form = True

    config: dict[str, Any]
    environment: Environment
    session_dir: str
    notebook_label: str
    timeout_minutes: Minutes | None = None
    max_duration_minutes: Minutes | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<HostBecomeBrowser {self.notebook_label!r}>"


class HostBrowserUsed(Operation[Done], frozen=True, tag="host_browser_used"):
    """Count as use of the browser, without an operation on it: a client joined the session."""


Question = Literal["complete_request", "inspect_request"] | FrontendQuestion
"""Requests to a kernel that execute nothing, by their Jupyter message type."""


class KernelAsk(Operation[KernelAnswer], frozen=True, tag="kernel_ask"):
    """Send the kernel a request that executes nothing. A Python kernel answers even while a cell runs.

    Attributes:
        content: The message's content.

    Source: Jupyter messaging 5.4, "Messages on the shell ROUTER/DEALER channel".
    """

    is_free_form = True

    msg_type: Question
    content: dict[str, Any]


class HostGetVariable(Operation[GetVariableReply], frozen=True, tag="host_get_variable"):
    """See `GetVariable`."""

    name: str
    arrow: bool = False


class HostPutVariable(Operation[Done], frozen=True, tag="host_put_variable"):
    """See `PutVariable`."""

    name: str
    pickled: bytes


class HostGetResultValue(Operation[GetResultValueReply], frozen=True, tag="host_get_result_value"):
    """See `GetResultValue`."""

    is_quick = True

    execution_id: str


class HostSendComm(Operation[Done], frozen=True, tag="host_send_comm"):
    """See `SendComm`."""

    message: CommBody


class HostFollowComms(Operation[Done], frozen=True, tag="host_follow_comms"):
    """Turn the kernel's `Comm` events on or off. Initially they are off."""

    is_quick = True

    wanted: bool


class HostInput(Operation[Done], frozen=True, tag="host_input"):
    """Answer the pending input request of an execution."""

    is_quick = True

    execution_id: str
    text: str


class HostReadBlob(Operation[GetBlobReply], frozen=True, tag="host_read_blob"):
    """Read a piece of a blob that an event refers to, from `offset`."""

    is_quick = True

    sha256: str
    offset: Number = 0


class HostDropBlob(Operation[Done], frozen=True, tag="host_drop_blob"):
    """Release a blob that the daemon has stored: a host with its own blob store deletes it."""

    is_quick = True

    sha256: str


HostOperation = (
    Attach
    | Execute
    | HostInterrupt
    | HostRequest
    | HostRestart
    | HostShutdown
    | HostDetach
    | HostWarm
    | HostBecome
    | HostBecomeBrowser
    | HostBrowserUsed
    | KernelAsk
    | HostGetVariable
    | HostPutVariable
    | HostGetResultValue
    | HostSendComm
    | HostFollowComms
    | HostInput
    | HostReadBlob
    | HostDropBlob
    | BrowserOperation
)
"""All operations that a daemon can request from a host."""

prepare(*map(reply_type, get_args(HostOperation)))
