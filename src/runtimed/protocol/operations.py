"""What can be asked: of a daemon by its clients, and of a host by its daemon.

Each operation's docstring gives its reply.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from runtimed.models import CellType
from runtimed.protocol.bounds import MAX_NUMBER, Environment, Minutes, Number, Seconds, Texts
from runtimed.protocol.inherited import Inherited

__all__ = [
    "FREE_FORM",
    "MAX_LOG_PAGE",
    "MAX_QUEUE",
    "Act",
    "AddCell",
    "AddDependencies",
    "AppendSource",
    "Attach",
    "BrowserOperation",
    "CancelExecution",
    "ClearOutputs",
    "Complete",
    "DeleteCell",
    "DeleteProfile",
    "DeleteSession",
    "Enqueue",
    "Execute",
    "FindCells",
    "FindExecutions",
    "FindSessions",
    "FlushPool",
    "GetBlob",
    "GetBrowserAddress",
    "GetCell",
    "GetCells",
    "GetContent",
    "GetCookies",
    "GetDependencies",
    "GetLog",
    "GetMetadata",
    "GetQueue",
    "GetResultValue",
    "GetSession",
    "GetStatus",
    "GetVariable",
    "HostBecome",
    "HostBecomeBrowser",
    "HostBrowserUsed",
    "HostComplete",
    "HostDetach",
    "HostGetResultValue",
    "HostGetVariable",
    "HostInput",
    "HostInspect",
    "HostInterrupt",
    "HostPutVariable",
    "HostRequest",
    "HostRestart",
    "HostShutdown",
    "HostWarm",
    "Input",
    "Inspect",
    "Interrupt",
    "Join",
    "ListProfiles",
    "ListSessions",
    "MoveCell",
    "Observe",
    "Operation",
    "Program",
    "PutVariable",
    "ReadActions",
    "ReadEvents",
    "ReadReply",
    "RemoveDependency",
    "RestartKernel",
    "RestoreNotebook",
    "SaveProfile",
    "Scrape",
    "Screenshot",
    "SetCellMetadata",
    "SetCellType",
    "SetCookies",
    "SetKernelspec",
    "SetMetadata",
    "SetSource",
    "ShutdownDaemon",
    "ShutdownKernel",
    "StartBrowser",
    "StartKernel",
    "StopSession",
    "Subscribe",
    "SyncEnvironment",
    "TrustEnvironment",
    "Watch",
]

MAX_LOG_PAGE: Final = 1000
"""Most entries of a session's log in one reply."""

_Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_NUMBER)]
_Page = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


MAX_QUEUE: Final = 1000
"""Most executions of a queue in one reply."""


class _Operation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    pass


class _OnNotebook(_Operation, frozen=True, kw_only=True):
    notebook_id: str


# --- asked of the daemon by a client: sessions ------------------------------------------------------------------------


class Join(_OnNotebook, frozen=True, tag="join"):
    """Join a session, as long as this connection lasts. Changes nothing for a session that never started.

    Reply: `{last: int}`, the number of the latest event in the session's log.
    """

    ephemeral: bool = False
    keep_alive: Seconds = 30.0
    timeout_minutes: Minutes | None = None
    max_duration_minutes: Minutes | None = None


class GetSession(_OnNotebook, frozen=True, tag="session"):
    """Read a session's status. Reply: the fields of `SessionStatus`, times as Unix seconds. Raises SessionNotFound."""


class GetLog(_OnNotebook, frozen=True, tag="log"):
    """Read who did what in a session, whatever its state. No use of the session. Raises SessionNotFound.

    Reply: `{entries: [...]}`, the newest first: the fields of `AuditEntry`, times as Unix seconds.
    """

    page: _Page = 1
    page_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_LOG_PAGE)] = 100


class ListSessions(_Operation, frozen=True, tag="sessions"):
    """Reply: `{sessions: [...], next: int | None}`: from index `start`, newest access first, until a page is full.

    `next` is where the list goes on; None after `count` sessions, or at the end.
    """

    status: Literal["active", "closed", "error", "timed_out"] | None = None
    kind: Literal["kernel", "browser"] | None = None
    start: _Index = 0
    count: _Index = 100


class FindSessions(_Operation, frozen=True, tag="find_sessions"):
    """Find the ids of sessions that begin with a text, for somebody who types one. No use of any session.

    Reply: `{ids: [str, ...]}`, newest access first, as many as one reply takes.
    """

    prefix: str = ""
    status: Literal["active", "closed", "error", "timed_out"] | None = None
    kind: Literal["kernel", "browser"] | None = None


class FindCells(_OnNotebook, frozen=True, tag="find_cells"):
    """Find the ids of cells that begin with a text, for somebody who types one. No use of the session.

    Reply: `{ids: [str, ...]}` in the order of the cells, as many as one reply takes; none of a session that never
    started.
    """

    prefix: str = ""


class FindExecutions(_OnNotebook, frozen=True, tag="find_executions"):
    """Find what a session runs, or ran. No use of the session. Raises SessionNotFound.

    Reply: `{executions: [...]}`, maps of execution_id, cell_id, status, `program: bool`, queued_at, started_at and
    ended_at (Unix seconds or None), and client_id, label, uid and pid of who asked for it. Without a prefix those that
    run or wait, in the order of the queue; with one the latest whose ids begin so, at most 100, the newest first.
    """

    prefix: str | None = None


class StopSession(_OnNotebook, frozen=True, tag="stop"):
    """End a session for everybody; one that ended already stays as it is.

    Reply: `{started_here: bool, waits: str | None}`: `waits` says what a dead host has left that cannot be read now,
    and is taken when it can be. With `only_if_started_by_me`, a session that another client started is only left.
    """

    reason: Literal["stopped", "error"] = "stopped"
    only_if_started_by_me: bool = False


class DeleteSession(_OnNotebook, frozen=True, tag="delete_session"):
    """Delete an ended session with its data; raises SessionError if it is active. Its clients are disconnected.

    Reply: `{deleted: bool}`; where there is no such session nothing happens, so that sending again is harmless.
    """


class RestoreNotebook(_OnNotebook, frozen=True, tag="restore"):
    """Bring back what of the notebook was found damaged and set aside, if it is whole after all.

    Reply: `{cells: int}`, how many cells that gave. Raises SessionNotFound, SessionError, StorageError.
    """


class GetStatus(_Operation, frozen=True, tag="status"):
    """Reply: the fields of `DaemonStatus`, times as Unix seconds, `rooms: [...]` and `next_room`. A ping, too.

    The rooms are those from index `first_room` until a page is full; `next_room` is where they go on, None at the end.
    """

    first_room: _Index = 0


class ShutdownDaemon(_Operation, frozen=True, tag="shutdown_daemon"):
    """End the daemon, and every session with it unless `keep_kernels`. Reply: `{}`, then the connection ends."""

    keep_kernels: bool = False


class FlushPool(_Operation, frozen=True, tag="flush_pool"):
    """End the spares; more are made after the next start of a kernel or browser. Reply: `{}` when they have ended."""


# --- kernel -----------------------------------------------------------------------------------------------------------


class StartKernel(_OnNotebook, frozen=True, tag="start_kernel"):
    """Start a kernel unless one runs. Its reply comes after `EnvProgress` events.

    Reply: `{kernel_type, env_source, started: bool, explained: str | None}`. `started` is whether this request did it,
    `explained` which environment it is and why, for people; None where an earlier daemon has started the kernel.

    Attributes:
        environment: The environment variables of the client.
        cwd: The folder in which the kernel works, and where the search for project files begins.
        interpreter: The client's Python, for `env_source="current"`.
        uv: The uv that this client has found; None if it has none.
        inherited: What the kernel has as if this client had started it itself; None leaves it to the daemon.
        source: The code for which the kernel is needed, which may say what it needs; None if the document has it.
        after: Only events with a seq above this one; None for those from now on.
    """

    kernel_type: str = "python"
    env_source: str = "auto"
    notebook_path: str | None = None
    environment: Environment = {}
    cwd: str = ""
    interpreter: str = ""
    uv: str | None = None
    inherited: Inherited | None = None
    source: str | None = None
    after: Number | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<StartKernel notebook_id={self.notebook_id!r} env_source={self.env_source!r} cwd={self.cwd!r}>"


class TrustEnvironment(_OnNotebook, frozen=True, tag="trust_environment"):
    """Consent to installing what `start` would need. Reply: `{env_source: str, explained: str}`; nothing is started."""

    start: StartKernel


class RestartKernel(_OnNotebook, frozen=True, tag="restart_kernel"):
    """Replace the kernel's process; the session stays active. Reply when the new one is ready: `{explained}`.

    The environment is chosen anew, by what was asked for when the kernel was started; if it cannot be had, the kernel
    runs on.
    """


class SyncEnvironment(_OnNotebook, frozen=True, tag="sync_environment"):
    """Add to the running environment what the notebook names by now. Reply: the fields of `SyncEnvironmentResult`."""


class ShutdownKernel(_OnNotebook, frozen=True, tag="shutdown_kernel"):
    """End the kernel and leave the session active, without one. Reply: `{}`."""


class Interrupt(_OnNotebook, frozen=True, tag="interrupt"):
    """Interrupt what runs. Reply: `{}`. Raises NoKernel."""


class Complete(_OnNotebook, frozen=True, tag="complete"):
    """Reply: the content of Jupyter's complete_reply."""

    code: str
    cursor_pos: Number


class Inspect(_OnNotebook, frozen=True, tag="inspect"):
    """Reply: the content of Jupyter's inspect_reply. A `detail_level` of 1 asks for the source code, too."""

    code: str
    cursor_pos: Number
    detail_level: Number = 0


class GetVariable(_OnNotebook, frozen=True, tag="get_variable"):
    """Pickle a variable of the kernel. Reply: `{value: bytes}`. Raises VariableNotFound, ValueRefused."""

    name: str


class PutVariable(_OnNotebook, frozen=True, tag="put_variable"):
    """Set a variable of the kernel to a pickled value. Reply: `{}`. Raises ValueRefused."""

    name: str
    pickled: bytes


class GetResultValue(_OnNotebook, frozen=True, tag="get_result_value"):
    """Return the pickled value of an execution's last expression, as long as the kernel's host has it.

    Reply: `{value: bytes | None}`, of plain data. It is never stored.
    """

    execution_id: str


# --- document ---------------------------------------------------------------------------------------------------------


class AddCell(_OnNotebook, frozen=True, tag="add_cell"):
    """Add a cell under an id that the client made. Reply: `{}`."""

    cell_id: str
    source: str = ""
    cell_type: CellType = "code"
    index: Number | None = None


class SetSource(_OnNotebook, frozen=True, tag="set_source"):
    """Give a cell a new source. Reply: `{}`.

    With `base`, the text that the client knew, the difference from it to `source` is applied to the present text. It is
    left out where one of the two is too long to merge.
    """

    cell_id: str
    source: str
    base: str | None = None


class AppendSource(_OnNotebook, frozen=True, tag="append_source"):
    """Append text to a cell's source. Reply: `{}`."""

    cell_id: str
    text: str


class DeleteCell(_OnNotebook, frozen=True, tag="delete_cell"):
    """Reply: `{}`."""

    cell_id: str


class MoveCell(_OnNotebook, frozen=True, tag="move_cell"):
    """Move a cell behind another one, or to the front. Reply: `{}`."""

    cell_id: str
    after_cell_id: str | None = None


class SetCellMetadata(_OnNotebook, frozen=True, tag="set_cell_metadata"):
    """Set one value of a cell's metadata; `value` is a text, typically JSON. Reply: `{}`."""

    cell_id: str
    key: str
    value: str


class SetCellType(_OnNotebook, frozen=True, tag="set_cell_type"):
    """Reply: `{}`."""

    cell_id: str
    cell_type: CellType


class ClearOutputs(_OnNotebook, frozen=True, tag="clear_outputs"):
    """Detach a cell from its latest execution, whose events stay readable by id. Reply: `{}`."""

    cell_id: str


class GetCell(_OnNotebook, frozen=True, tag="get_cell"):
    """Reply: `{cell: {...} | None}`.

    A cell is a map of id, cell_type, source, execution_count, execution_id, metadata, position, `last_edit`
    (client_id, label, uid and pid of who made it, and when; or None), `events` (those of its latest execution, each as
    its own bytes, up to the daemon's limit) and `more`: the seq after which `ReadEvents` continues, or None.
    Source and metadata of more than a page are None: `GetContent` gives them.
    """

    cell_id: str
    outputs: bool = True


class GetCells(_OnNotebook, frozen=True, tag="get_cells"):
    """Reply: `{cells: [...], next: int | None}`: cells from index `start`, until a page is full.

    Without `content` no cell has its source, its metadata or its latest edit.
    """

    start: _Index = 0
    outputs: bool = True
    content: bool = True


class GetContent(_OnNotebook, frozen=True, tag="get_content"):
    """Read a cell's source and metadata. Raises CellNotFound.

    Reply: `{piece: bytes, size: int, sha256: str}`: at most 1 MiB from `offset` of the MessagePack of
    `{source, metadata}`, and what is true of all of it. Who edits the cell meanwhile changes the SHA-256.
    """

    cell_id: str
    offset: _Index = 0


class SetMetadata(_OnNotebook, frozen=True, tag="set_metadata"):
    """Reply: `{}`."""

    key: str
    value: str


class SetKernelspec(_OnNotebook, frozen=True, tag="set_kernelspec"):
    """Say in the notebook's metadata which kernel it is meant for. Reply: `{}`."""

    name: str
    display_name: str
    language: str | None = None


class GetMetadata(_OnNotebook, frozen=True, tag="get_metadata"):
    """Reply: `{value: str | None}`."""

    key: str


class GetDependencies(_OnNotebook, frozen=True, tag="get_dependencies"):
    """Reply: `{dependencies: [...]}`, those that the notebook names in its metadata."""

    manager: Literal["uv", "conda"]


class AddDependencies(_OnNotebook, frozen=True, tag="add_dependencies"):
    """Write dependencies into the notebook's metadata, in place of those of the same packages. Reply: `{}`."""

    manager: Literal["uv", "conda"]
    packages: Texts


class RemoveDependency(_OnNotebook, frozen=True, tag="remove_dependency"):
    """Take a package's dependency out of the notebook's metadata. Reply: `{removed: bool}`."""

    manager: Literal["uv", "conda"]
    package: str


# --- executions -------------------------------------------------------------------------------------------------------


class Program(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a source is run as `python FILE.py ARG…` runs it.

    Attributes:
        argv: What `sys.argv` is.
        cwd: The folder in which it works.
        path: The absolute path of its file; None for standard input.
    """

    argv: Texts
    cwd: str
    path: str | None = None


class Enqueue(_OnNotebook, frozen=True, tag="enqueue"):
    """Queue the execution of a cell under an execution id that the client made. Raises NoKernel if none runs.

    With `source`, the cell is added first (`run`), or gets this source. With `watch`, the answer is that of `Watch`,
    which says what `whole` means; else the reply is `{}` at once. An id that is known already is not queued again.
    With `program`, a Python kernel runs the source as a program; the document holds the source alone.
    With `unless_queued`, nothing is queued while the latest execution of the cell is one of exactly this code and has
    not ended: the reply is `{queued: its id}` at once.
    """

    execution_id: str
    cell_id: str
    source: str | None = None
    watch: bool = True
    after: Number = 0
    whole: bool = False
    stdin: bool = False
    program: Program | None = None
    unless_queued: bool = False


class Watch(_OnNotebook, frozen=True, tag="watch"):
    """Stream the events of an execution with seq above `after`; reply `{status, cell_id}` when it has ended.

    Where its outputs are larger than the daemon's limit comes an `Omitted`, and they are left out from there on until
    they are cleared; with `whole`, for who keeps none, they come all the same.
    """

    execution_id: str
    after: Number = 0
    whole: bool = False


class GetQueue(_OnNotebook, frozen=True, tag="queue"):
    """Read what runs and what waits behind it. No use of the session.

    Reply: `{executions: [...], last: {execution_id, cell_id} | None}`: the first MAX_QUEUE in their order, each with
    the fields of `QueuedExecution`, times as Unix seconds; and the execution that was queued last.
    """


class ReadEvents(_OnNotebook, frozen=True, tag="read_events"):
    """Read stored events of an execution, the same that a `Watch` would stream, a page at a time.

    Reply: `{events: [[seq, bytes], ...], last: int, more: bool}`; with `more`, reading goes on after `last`.
    """

    execution_id: str
    after: Number = 0
    whole: bool = False


class Subscribe(_OnNotebook, frozen=True, tag="subscribe"):
    """Stream the events of the session with seq above `after` (None: from now on), until cancelled."""

    cell_ids: Texts | None = None
    after: Number | None = None


class CancelExecution(_OnNotebook, frozen=True, tag="cancel_execution"):
    """Take an execution from the queue, or interrupt it if it runs; one that ended stays as it is. Reply: `{}`."""

    execution_id: str


class Input(_OnNotebook, frozen=True, tag="input"):
    """Answer an `InputRequested`. Reply: `{}`."""

    execution_id: str
    text: str


class GetBlob(_OnNotebook, frozen=True, tag="get_blob"):
    """Read part of a blob. Reply: `{data: bytes}`, at most 1 MiB from `offset`."""

    sha256: str
    offset: Number = 0


# --- browser ----------------------------------------------------------------------------------------------------------


class _OnBrowser(_OnNotebook, frozen=True, kw_only=True):
    """Asked of the daemon, which passes it on to the session's host, with the key by which it is known there.

    What a page holds may be large, and concerns the client alone: such a reply comes as `{piece: bytes, size: int}`,
    the MessagePack of what is said here of it, or the first piece of that; `ReadReply` gives the others, by the
    `reply_id` that is there, too, then.
    """

    key: str = ""


class StartBrowser(_OnNotebook, frozen=True, tag="start_browser"):
    """Start a browser unless the session has one. Reply when it can be used: `{created: bool}`, if this client did.

    Attributes:
        config: The fields of `BrowserConfig`.
        environment: The environment variables of the client.
        timeout_minutes: Idle minutes after which a session that this starts times out; None for never.
        max_duration_minutes: Minutes after which it times out in any case; None for never.
    """

    config: dict[str, Any]
    environment: Environment = {}
    timeout_minutes: Minutes | None = 3.0
    max_duration_minutes: Minutes | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<StartBrowser notebook_id={self.notebook_id!r}>"


class Observe(_OnBrowser, frozen=True, tag="observe"):
    """Look at the active tab, as `Browser.observe` does. Reply: `{observation: fields of Observation}`."""

    scope: str | None = None
    depth: Number | None = None
    interactive_only: bool = False
    max_chars: Number | None = None
    since: str | None = None
    start: str | None = None


class Act(_OnBrowser, frozen=True, tag="act"):
    """Perform an action, once for each key. Reply: `{result: fields of ActionResult}`.

    Attributes:
        client_id: Who asks for it; the daemon says so to the host.
        label: What that client calls itself; likewise.
    """

    action: dict[str, Any]
    client_id: str = ""
    label: str | None = None

    def __repr__(self) -> str:
        """Leave the action out: it may hold a secret."""
        return f"<Act notebook_id={self.notebook_id!r} {self.action.get('type')}>"


class Scrape(_OnBrowser, frozen=True, tag="scrape"):
    """Read the active tab as Markdown, or as what a schema says. Reply: `{content: ...}`."""

    selector: str | None = None
    only_main_content: bool = True
    links: bool = True
    images: bool = False
    schema: dict[str, Any] | None = None


class Screenshot(_OnBrowser, frozen=True, tag="screenshot"):
    """Take a picture of the active tab. Reply: `{data: bytes}`, PNG.

    Attributes:
        target: The fields of a `Target`: only that element; None for the page.
    """

    full_page: bool = False
    target: dict[str, Any] | None = None


class GetCookies(_OnBrowser, frozen=True, tag="get_cookies"):
    """Reply: `{cookies: [...]}`, as Playwright has them."""


class SetCookies(_OnBrowser, frozen=True, tag="set_cookies"):
    """Set cookies beside those that there are. Reply: `{}`.

    Attributes:
        cookie_file: Absolute path of a file that holds them; None for `cookies`.
    """

    cookies: list[dict[str, Any]]
    cookie_file: str | None = None


class SaveProfile(_OnBrowser, frozen=True, tag="save_profile"):
    """Keep a copy of the profile under a name, while it is used. Reply: `{}`."""

    name: str


class ListProfiles(_Operation, frozen=True, tag="list_profiles"):
    """Reply: `{names: [str, ...]}`: the named profiles, sorted."""


class DeleteProfile(_Operation, frozen=True, tag="delete_profile"):
    """Delete a named profile; raises BrowserError where there is none, or a session stores it again at its end.

    Reply: `{}`.
    """

    name: str


class GetBrowserAddress(_OnBrowser, frozen=True, tag="browser_address"):
    """Reply: `{cdp_url: str, viewer_url: str, viewer_page: str, target: str, dialogs: {str: str}, silent: [str]}`.

    The addresses are those of the relay, on loopback, and hold its tokens; `viewer_page` is the path of a file that
    leads to the viewer and that only this user can read; `target` is Chromium's id of the active tab; `dialogs` has the
    tabs that wait in a dialog, each by that id with a sentence that says so; `silent` has a sentence for each tab that
    does not answer, asked where somebody is about to attach.
    """

    attaching: bool = False


class ReadReply(_OnBrowser, frozen=True, tag="read_reply"):
    """Read on in a reply of more than a page. Reply: `{piece: bytes}`, at most 1 MiB from `offset`."""

    reply_id: Number
    offset: Number


class ReadActions(_OnNotebook, frozen=True, tag="read_actions"):
    """Read the action log, whatever the session's state. No use of the session.

    Reply: `{events: [[seq, bytes], ...], last: int, more: bool}`: a page of the session's events, of which those that
    are `BrowserLogged` count; with `more`, reading goes on after `last`.
    """

    after: Number = 0


# --- asked of a host by its daemon ------------------------------------------------------------------------------------


class Attach(_Operation, frozen=True, tag="attach"):
    """Take the host's stream of events with numbers above `after`. Sent first; a newer daemon replaces an older one.

    Reply: `{epoch: str, kernel_pid: int | None, env_source: str, last: int, executions: [ids of those accepted and not
    finished]}`.
    """

    after: Number = 0


class Execute(_Operation, frozen=True, tag="execute"):
    """Execute code. Reply: `{}` once the host has taken it; an id that it has seen is not executed again."""

    execution_id: str
    cell_id: str
    code: str
    stdin: bool = False
    silent: bool = False


class HostInterrupt(_Operation, frozen=True, tag="host_interrupt"):
    """Interrupt the kernel as its kernelspec says. Reply: `{}`."""


class HostRequest(_Operation, frozen=True, tag="host_request"):
    """Reply: `{request: bytes, marker: str}`: how the kernel was asked for, and the marker of its environment."""


class HostRestart(_Operation, frozen=True, tag="host_restart"):
    """Replace the kernel's process. Reply: `{}` when the new one is ready; KernelStartFailed if it is not.

    With an `env_source`, in this environment; the fields are those of `Bootstrap`. Else in the one that it has.
    """

    marker: str = ""
    interpreter: str = ""
    env_source: str = ""
    environment: Environment = {}


class HostShutdown(_Operation, frozen=True, tag="host_shutdown"):
    """End the kernel and then the host. Reply: `{}`; the spool stays until the last event is acknowledged."""


class HostDetach(_Operation, frozen=True, tag="host_detach"):
    """Live on without a daemon, and start none: this one ends on purpose. Reply: `{}`."""


class HostWarm(_Operation, frozen=True, tag="host_warm"):
    """Keep this spare host: from here on it lives as long as this connection, until it is a session's.

    Reply: `{}` once its kernel has imported all that it needs, or its browser can be driven; NoKernel or
    BrowserError if it ended, or is no spare.
    """


class HostBecome(_Operation, frozen=True, tag="host_become"):
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


class HostBecomeBrowser(_Operation, frozen=True, tag="host_become_browser"):
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

    config: dict[str, Any]
    environment: Environment
    session_dir: str
    notebook_label: str
    timeout_minutes: Minutes | None = None
    max_duration_minutes: Minutes | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<HostBecomeBrowser {self.notebook_label!r}>"


class HostBrowserUsed(_Operation, frozen=True, tag="host_browser_used"):
    """The session is used, in a way that asks nothing of the browser: somebody joins it. Reply: `{}`."""


class HostComplete(_Operation, frozen=True, tag="host_complete"):
    """Reply: the content of complete_reply."""

    code: str
    cursor_pos: Number


class HostInspect(_Operation, frozen=True, tag="host_inspect"):
    """Reply: the content of inspect_reply."""

    code: str
    cursor_pos: Number
    detail_level: Number


class HostGetVariable(_Operation, frozen=True, tag="host_get_variable"):
    """Reply: `{value: bytes}`."""

    name: str


class HostPutVariable(_Operation, frozen=True, tag="host_put_variable"):
    """Reply: `{}`."""

    name: str
    pickled: bytes


class HostGetResultValue(_Operation, frozen=True, tag="host_get_result_value"):
    """Reply: `{value: bytes | None}`."""

    execution_id: str


class HostInput(_Operation, frozen=True, tag="host_input"):
    """Answer the pending input request of an execution. Reply: `{}`."""

    execution_id: str
    text: str


BrowserOperation = (
    Observe | Act | Scrape | Screenshot | GetCookies | SetCookies | SaveProfile | GetBrowserAddress | ReadReply
)
"""What the daemon passes on to the host of a browser."""

FREE_FORM: Final = (Act, StartBrowser, Scrape, Screenshot, SetCookies, HostBecomeBrowser)
"""Operations with fields of any shape, which whoever decodes them has to count first."""

Operation = (
    Join
    | GetSession
    | GetLog
    | ListSessions
    | FindSessions
    | FindCells
    | FindExecutions
    | StopSession
    | DeleteSession
    | ListProfiles
    | DeleteProfile
    | RestoreNotebook
    | GetStatus
    | ShutdownDaemon
    | StartKernel
    | TrustEnvironment
    | RestartKernel
    | SyncEnvironment
    | ShutdownKernel
    | Interrupt
    | Complete
    | Inspect
    | GetVariable
    | PutVariable
    | GetResultValue
    | AddCell
    | SetSource
    | AppendSource
    | DeleteCell
    | MoveCell
    | SetCellMetadata
    | SetCellType
    | ClearOutputs
    | GetCell
    | GetCells
    | GetContent
    | SetMetadata
    | GetMetadata
    | GetQueue
    | GetDependencies
    | AddDependencies
    | RemoveDependency
    | Enqueue
    | Watch
    | ReadEvents
    | Subscribe
    | CancelExecution
    | Input
    | GetBlob
    | StartBrowser
    | Observe
    | Act
    | Scrape
    | Screenshot
    | GetCookies
    | SetCookies
    | SaveProfile
    | GetBrowserAddress
    | ReadReply
    | ReadActions
    | Attach
    | Execute
    | HostInterrupt
    | HostRequest
    | HostRestart
    | HostShutdown
    | HostDetach
    | HostComplete
    | HostInspect
    | HostGetVariable
    | HostPutVariable
    | HostGetResultValue
    | HostInput
    | HostWarm
    | HostBecome
    | HostBecomeBrowser
    | HostBrowserUsed
    | FlushPool
    | SetKernelspec
)
