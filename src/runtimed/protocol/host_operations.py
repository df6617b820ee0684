"""What the daemon asks of hosts, beside what it passes on of its clients' wishes (`BrowserOperation`).

Each operation's docstring gives its reply.
"""

from __future__ import annotations

from typing import Any

import msgspec

from runtimed.protocol.bounds import Environment, Minutes, Number
from runtimed.protocol.browser_operations import BrowserOperation
from runtimed.protocol.inherited import Inherited
from runtimed.protocol.operation import Operation

__all__ = [
    "Attach",
    "Execute",
    "HostBecome",
    "HostBecomeBrowser",
    "HostBrowserUsed",
    "HostComplete",
    "HostDetach",
    "HostDropBlob",
    "HostGetResultValue",
    "HostGetVariable",
    "HostInput",
    "HostInspect",
    "HostInterrupt",
    "HostOperation",
    "HostPutVariable",
    "HostReadBlob",
    "HostRequest",
    "HostRestart",
    "HostShutdown",
    "HostWarm",
    "OfSpare",
]


class Attach(Operation, frozen=True, tag="attach"):
    """Take the host's stream of events with numbers above `after`. Sent first; a newer daemon replaces an older one.

    Reply: `{epoch: str, kernel_pid: int | None, env_source: str, last: int, executions: [ids of those accepted and not
    finished]}`.
    """

    is_quick = True

    after: Number = 0


class Execute(Operation, frozen=True, tag="execute"):
    """Execute code. Reply: `{}` once the host has taken it; an id that it has seen is not executed again."""

    is_quick = True

    execution_id: str
    cell_id: str
    code: str
    stdin: bool = False
    silent: bool = False


class HostInterrupt(Operation, frozen=True, tag="host_interrupt"):
    """Interrupt the kernel as its kernelspec says. Reply: `{}`."""

    is_quick = True


class HostRequest(Operation, frozen=True, tag="host_request"):
    """Reply: `{request: bytes, marker: str}`: how the kernel was asked for, and the marker of its environment."""

    is_quick = True


class HostRestart(Operation, frozen=True, tag="host_restart"):
    """Replace the kernel's process. Reply: `{}` when the new one is ready; KernelStartFailed if it is not.

    With an `env_source`, in this environment; the fields are those of `Bootstrap`. Else in the one that it has.
    """

    marker: str = ""
    interpreter: str = ""
    env_source: str = ""
    environment: Environment = msgspec.field(default_factory=dict)


class HostShutdown(Operation, frozen=True, tag="host_shutdown"):
    """End the kernel and then the host. Reply: `{}`; the spool stays until the last event is acknowledged."""

    is_quick = True


class HostDetach(Operation, frozen=True, tag="host_detach"):
    """Live on without a daemon, and start none: this one ends on purpose. Reply: `{}`."""

    is_quick = True


class OfSpare(Operation, frozen=True, kw_only=True):
    """Asked of a host that is no session's yet, by the connection that keeps it."""


class HostWarm(OfSpare, frozen=True, tag="host_warm"):
    """Keep this spare host: from here on it lives as long as this connection, until it is a session's.

    Reply: `{}` once its kernel has imported all that it needs, or its browser can be driven; NoKernel or
    BrowserError if it ended, or is no spare.
    """


class HostBecome(OfSpare, frozen=True, tag="host_become"):
    """Give a spare kernel to a session, over the connection that keeps it; then it is a host as any other.

    Reply: `{}` once the kernel has taken it; it waits for an `Attach` then. NoKernel or KernelStartFailed if the spare
    cannot be used; then it was nobody's. The fields are those of `Bootstrap`, and what else that holds stays.
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


class HostBecomeBrowser(OfSpare, frozen=True, tag="host_become_browser"):
    """Give a spare browser to a session, over the connection that keeps it; then it is a host as any other.

    Reply: `{}` once it is what the session asks for; it waits for an `Attach` then. BrowserError if the spare cannot be
    used; then it was nobody's.

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


class HostBrowserUsed(Operation, frozen=True, tag="host_browser_used"):
    """The session is used, in a way that asks nothing of the browser: somebody joins it. Reply: `{}`."""


class HostComplete(Operation, frozen=True, tag="host_complete"):
    """Reply: the content of complete_reply."""

    code: str
    cursor_pos: Number


class HostInspect(Operation, frozen=True, tag="host_inspect"):
    """Reply: the content of inspect_reply."""

    code: str
    cursor_pos: Number
    detail_level: Number


class HostGetVariable(Operation, frozen=True, tag="host_get_variable"):
    """Reply: `{value: bytes}`."""

    name: str


class HostPutVariable(Operation, frozen=True, tag="host_put_variable"):
    """Reply: `{}`."""

    name: str
    pickled: bytes


class HostGetResultValue(Operation, frozen=True, tag="host_get_result_value"):
    """Reply: `{value: bytes | None}`."""

    is_quick = True

    execution_id: str


class HostInput(Operation, frozen=True, tag="host_input"):
    """Answer the pending input request of an execution. Reply: `{}`."""

    is_quick = True

    execution_id: str
    text: str


class HostReadBlob(Operation, frozen=True, tag="host_read_blob"):
    """Reply: `{data: bytes}`: at most 1 MiB, from `offset` on, of a blob to which an event refers; empty at its end."""

    is_quick = True

    sha256: str
    offset: Number = 0


class HostDropBlob(Operation, frozen=True, tag="host_drop_blob"):
    """The daemon has this blob now: a host that keeps blobs of its own lets go of it. Reply: `{}`."""

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
    | HostComplete
    | HostInspect
    | HostGetVariable
    | HostPutVariable
    | HostGetResultValue
    | HostInput
    | HostReadBlob
    | HostDropBlob
    | BrowserOperation
)
"""What a daemon can ask of a host."""
