"""What the daemon asks of hosts, beside what it passes on of its clients' wishes (`BrowserOperation`)."""

from __future__ import annotations

from typing import Any, Generic, Literal, get_args

import msgspec

from runtimed.protocol.bounds import Environment, Expressions, Minutes, Number
from runtimed.protocol.browser_operations import BrowserOperation
from runtimed.protocol.comms import CommBody
from runtimed.protocol.inherited import Inherited
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
    """Which host it is, the number of its latest event, and what it owns.

    Attributes:
        kernel_pid: Of a kernel.
        env_source: Of a kernel.
        executions: Ids of those that the kernel has accepted and not finished.
        status: Of a browser.
        pid: Of a browser.
        used_at: When the browser was used last by way of its relay, in Unix seconds; 0 for never.
        profile: The named profile that is stored again at the browser's end; None for none.
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
    """Take the host's stream of events with numbers above `after`. Sent first; a newer daemon replaces an older one."""

    is_quick = True

    after: Number = 0


class Execute(Operation[Done], frozen=True, tag="execute"):
    """Execute code. The reply comes once the host has taken it; an id that it has seen is not executed again.

    Attributes:
        user_expressions: What the kernel is to evaluate behind the code, each by a name; see `Finished`.
    """

    is_quick = True

    execution_id: str
    cell_id: str
    code: str
    stdin: bool = False
    silent: bool = False
    user_expressions: Expressions = msgspec.field(default_factory=dict)


class HostInterrupt(Operation[Done], frozen=True, tag="host_interrupt"):
    """Interrupt the kernel as its kernelspec says."""

    is_quick = True


class HostRequestReply(ReplyBody, frozen=True):
    """How the kernel was asked for, and the marker of its environment."""

    request: bytes
    marker: str


class HostRequest(Operation[HostRequestReply], frozen=True, tag="host_request"):
    """Ask how the kernel was asked for."""

    is_quick = True


class HostRestart(Operation[Done], frozen=True, tag="host_restart"):
    """Replace the kernel's process. The reply comes when the new one is ready; KernelStartFailed if it is not.

    With an `env_source`, in this environment; the fields are those of `Bootstrap`. Else in the one that it has.
    """

    marker: str = ""
    interpreter: str = ""
    env_source: str = ""
    environment: Environment = msgspec.field(default_factory=dict)


class HostShutdown(Operation[Done], frozen=True, tag="host_shutdown"):
    """End the kernel and then the host. The spool stays until the last event is acknowledged."""

    is_quick = True


class HostDetach(Operation[Done], frozen=True, tag="host_detach"):
    """Live on without a daemon, and start none: this one ends on purpose."""

    is_quick = True


class OfSpare(Operation[ReplyT_co], Generic[ReplyT_co], frozen=True, kw_only=True):
    """Asked of a host that is no session's yet, by the connection that keeps it."""


class HostWarm(OfSpare[Done], frozen=True, tag="host_warm"):
    """Keep this spare host: from here on it lives as long as this connection, until it is a session's.

    The reply comes once its kernel has imported all that it needs, or its browser can be driven; NoKernel or
    BrowserError if it ended, or is no spare.
    """


class HostBecome(OfSpare[Done], frozen=True, tag="host_become"):
    """Give a spare kernel to a session, over the connection that keeps it; then it is a host as any other.

    The reply comes once the kernel has taken it; it waits for an `Attach` then. NoKernel or KernelStartFailed if the
    spare cannot be used; then it was nobody's. The fields are those of `Bootstrap`, and what else that holds stays.
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
    """Give a spare browser to a session, over the connection that keeps it; then it is a host as any other.

    The reply comes once it is what the session asks for; it waits for an `Attach` then. BrowserError if the spare
    cannot be used; then it was nobody's.

    Attributes:
        config: The fields of `BrowserConfig`.
        environment: The environment variables of the client.
        session_dir: Becomes a link to the folder of the spare; there must be nothing there.
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
    """The session is used, in a way that asks nothing of the browser: somebody joins it."""


Question = Literal["complete_request", "inspect_request", "is_complete_request", "history_request", "comm_info_request"]
"""A question to a kernel that is no execution: its name as a message of the Jupyter protocol."""


class KernelAsk(Operation[KernelAnswer], frozen=True, tag="kernel_ask"):
    """Ask the kernel something; a Python kernel answers while a cell runs.

    Attributes:
        content: Of the message.

    Source: Jupyter messaging 5.4, "Messages on the shell ROUTER/DEALER channel".
    """

    is_free_form = True

    msg_type: Question
    content: dict[str, Any]


class HostGetVariable(Operation[GetVariableReply], frozen=True, tag="host_get_variable"):
    """See `GetVariable`."""

    name: str


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
    """Say whether anybody wants the kernel's `Comm` events. The host sends none until it is told so."""

    is_quick = True

    wanted: bool


class HostInput(Operation[Done], frozen=True, tag="host_input"):
    """Answer the pending input request of an execution."""

    is_quick = True

    execution_id: str
    text: str


class HostReadBlob(Operation[GetBlobReply], frozen=True, tag="host_read_blob"):
    """Read part of a blob to which an event refers, from `offset`."""

    is_quick = True

    sha256: str
    offset: Number = 0


class HostDropBlob(Operation[Done], frozen=True, tag="host_drop_blob"):
    """The daemon has this blob now: a host that keeps blobs of its own lets go of it."""

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
"""What a daemon can ask of a host."""

prepare(*map(reply_type, get_args(HostOperation)))
