"""The proxy kernel itself: answers a frontend's requests from a shared session, and publishes what happens there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, Literal

import psutil

from runtimed.client import AsyncExecution, AsyncSession
from runtimed.errors import InvalidArgument, NoKernel, RuntimedError
from runtimed.ids import ExecutionId, cell_id_of
from runtimed.jupyter.proxy_kernel.messages import AskInput, Outgoing, Publish, Reply, Request
from runtimed.jupyter.proxy_kernel.naming import Choice, attached_in
from runtimed.jupyter.proxy_kernel.reruns import Reruns
from runtimed.jupyter.proxy_kernel.sockets import Sockets
from runtimed.jupyter.proxy_kernel.translation import PROTOCOL_VERSION, Translation, failure
from runtimed.notebook_names import cell_id_in
from runtimed.protocol.events import Event, InputRequested, Started
from runtimed.version import __version__

__all__ = ["ProxyKernel", "Restart"]

logger = logging.getLogger(__name__)

Restart = Literal["kernel", "proxy"]
"""What a frontend's restart restarts: the session's kernel, for everybody, or this process alone."""

INFO_PATIENCE: Final = 20.0
"""Seconds that a kernel_info_request waits for the session's kernel; frontends give up after 60."""

_RESTART_PATIENCE: Final = 3.0
"""Seconds that a restart of the session's kernel is waited for; frontends kill a kernel that has not ended after 5."""

_AGAIN: Final = 0.1
"""Seconds until a kernel that is being replaced is asked again."""

_LOOKS: Final = 1.0
"""Seconds between two looks at whether the server lives."""

_UNKNOWN: Final[Mapping[str, Any]] = {
    "implementation": "runtimed",
    "implementation_version": __version__,
    "language_info": {
        "name": "python",
        "version": ".".join(map(str, sys.version_info[:3])),
        "mimetype": "text/x-python",
        "file_extension": ".py",
        "pygments_lexer": "ipython3",
        "codemirror_mode": {"name": "ipython", "version": 3},
        "nbconvert_exporter": "python",
    },
    "banner": "A shared session (runtimed), whose kernel does not run yet",
    "help_links": [],
}
"""What is said of a kernel that nobody has reached yet."""

Content = dict[str, Any]


class ProxyKernel:
    """One frontend's kernel, which is the kernel of a session."""

    def __init__(self, choice: Choice, connection: Mapping[str, Any], *, restart: Restart) -> None:
        """Handle signals and bind the sockets, in the running event loop.

        Args:
            choice: The session.
            connection: The content of the connection file.
            restart: What a restart restarts.

        Raises:
            RuntimedError: If a socket cannot be bound.
        """
        self._choice = choice
        self._restart = restart
        label = None if choice.notebook is None else choice.notebook.name
        self._session = AsyncSession(
            choice.session_id,
            label=label or "a Jupyter frontend",
            writes_file=None if choice.notebook is None else str(choice.notebook),
        )
        self._translation = Translation()
        self._reruns = Reruns()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._follows = asyncio.Event()
        self._left = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._kernel: asyncio.Future[None] = loop.create_future()
        self._info: Mapping[str, Any] | None = None
        self._asking: str | None = None
        self._subshells: list[str] = []
        self._is_named = not choice.is_new
        # Who finds the ports may send a signal at once; without a handler it would kill this process.
        loop.add_signal_handler(signal.SIGINT, lambda: self._begin(self._interrupt_quietly()))
        loop.add_signal_handler(signal.SIGTERM, self._left.set)
        self._sockets = Sockets(connection, self._take)

    @property
    def ports(self) -> Mapping[str, int]:
        """The ports, by their names in a connection file."""
        return self._sockets.ports

    async def serve(self) -> None:
        """Serve the frontend until it, or the system, ends this process. The session lives on.

        Raises:
            DaemonUnavailable: If no daemon can be reached or started.
        """
        try:
            self._publish("status", {"execution_state": "starting"})
            await self._session.connect()
            for work in (self._follow(), self._start(), self._watch_server()):
                self._begin(work)
            await self._left.wait()
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._session.close()
            self._sockets.close()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the proxy kernel made a mistake", exc_info=error)

    # --- the session ---

    async def _start(self) -> None:
        """Start the session's kernel, unless it runs."""
        try:
            await self._session.start_kernel(notebook_path=self._choice.notebook)
        except RuntimedError as exc:
            logger.warning("%s", exc)  # whoever runs a cell tries again, and is told
        self._kernel.set_result(None)

    async def _follow(self) -> None:
        """Publish the events of the session."""
        while True:
            try:
                events = await self._session.raw_events()
                self._follows.set()
                async for event in events:
                    self._send(self._translation.take(event, await self._source_of(event)))
                    await self._sockets.published()
            except RuntimedError as exc:
                logger.warning("the session's events have ended: %s", exc)
                self._send(self._translation.lost(exc))
            self._follows.clear()
            await asyncio.sleep(_AGAIN)

    async def _source_of(self, event: Event) -> str:
        """Return the code of an execution that another client began."""
        if not isinstance(event, Started) or event.cell_id is None or self._translation.is_own(event):
            return ""
        return await self._session.get_cell_source(event.cell_id) or ""

    async def _watch_server(self) -> None:
        """Leave when the server that had this process started has ended, as Jupyter's kernels do."""
        named = os.environ.get("JPY_PARENT_PID", "")
        if not named.isdecimal():
            return
        server = int(named)
        # A wrapper may stand between, or the server may have ended while this process began.
        is_child = os.getppid() == server
        while os.getppid() == server if is_child else _lives(server):  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(_LOOKS)
        self._left.set()

    # --- messages ---

    def _send(self, messages: Iterable[Outgoing]) -> None:
        for message in messages:
            msg_id = self._sockets.send(message)
            if isinstance(message, AskInput):
                self._asking = message.execution_id
                logger.debug("asked for input with %s", msg_id)

    def _publish(self, msg_type: str, content: Content, parent: Mapping[str, Any] | None = None) -> None:
        self._send([Publish(msg_type, content, parent or {})])

    def _take(self, request: Request) -> None:
        """Take a message of the frontend. What it causes is sent in the order of the messages."""
        match request.msg_type:
            case "execute_request":
                self._begin(self._execute(request))
            case "input_reply":
                self._begin(self._answer_input(str(request.content.get("value", ""))))
            case "comm_open" | "comm_msg" | "comm_close":
                self._begin(self._send_comm(request))
            case msg_type if msg_type in _HANDLERS:
                self._begin(self._answer(request, _HANDLERS[msg_type]))
            case msg_type:
                logger.warning("there is no answer to a message of the type %r", msg_type)

    async def _answer(self, request: Request, handler: Callable[[ProxyKernel, Request], Awaitable[Content]]) -> None:
        self._publish("status", {"execution_state": "busy"}, request.header)
        try:
            content = {"status": "ok", **await handler(self, request)}
        except RuntimedError as exc:
            content = failure(exc)
        except (KeyError, TypeError, ValueError) as exc:
            content = failure(InvalidArgument(f"The content of this {request.msg_type} is malformed: {exc!r}"))
        self._send([Reply(request, content)])
        self._publish("status", {"execution_state": "idle"}, request.header)
        if request.msg_type == "shutdown_request":
            self._publish("shutdown_reply", content, request.header)
            self._left.set()

    async def _execute(self, request: Request) -> None:
        attached = attached_in(request.metadata)
        if attached is not None:
            await self._attach(request, attached)
            return
        content, execution_id = request.content, request.msg_id
        behind = self._translation.expect(execution_id, request)
        if not self._is_named:
            self._is_named = True
            self._send(self._translation.note(self._name_said()))
        silent = content.get("silent") is True
        is_cell = not silent and content.get("store_history", True) is not False
        try:
            await self._follows.wait()
            async with self._turn:  # whoever has its cell at once does not overtake one that looks for it
                cell_id = await self._cell_of(request) if is_cell else None
            await self._session.submit(
                cell_id,
                code=content.get("code", ""),
                execution_id=execution_id,
                stdin=content.get("allow_stdin") is True,
                user_expressions=content.get("user_expressions") or {},
                silent=silent,
                store_history=is_cell,
                stop_on_error=content.get("stop_on_error", True) is not False,
                unless_failed=behind,
                notebook_path=self._choice.notebook,
            )
        except RuntimedError as exc:
            self._send(self._translation.refused(execution_id, exc))

    async def _cell_of(self, request: Request) -> str | None:
        """Return the cell that a request runs; None for a new one.

        A frontend names it. A program that runs a notebook, and so answers no question, runs the notebook's next cell
        with this source. A person at a console types new code each time.
        """
        named, content = cell_id_in(request.metadata), request.content
        if named is not None or content.get("allow_stdin") is not False:
            return named
        found = self._reruns.find(content.get("code", ""), await self._session.get_cells(outputs=False))
        if found is not None and (await self._session.status()).file is not None:
            self._reruns.found(found)
            return found
        self._reruns.added(cell_id_of(request.msg_id))
        return None

    async def _attach(self, request: Request, execution_id: str) -> None:
        """Answer a request with an execution that there is already, from its first output to its end; start nothing."""
        translation = Translation()
        translation.expect(execution_id, request)
        try:
            execution = await self._session.execution(execution_id)
            asked = (await execution.past(outputs=False)).question
            async for event in await execution.raw_events():
                if not (isinstance(event, InputRequested) and asked is not None and event.at < asked.at):  # answered
                    self._send(translation.take(event))
                    await self._sockets.published()
        except RuntimedError as exc:
            self._send(translation.refused(execution_id, exc))

    def _name_said(self) -> str:
        session_id = self._choice.session_id
        return f"This runs in the new session {session_id!r}, which goes on until `runtimed stop {session_id}`.\n"

    async def _answer_input(self, text: str) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            execution = AsyncExecution(self._session, ExecutionId(asking), cell_id_of(asking))
            try:
                await execution.answer(text)
            except RuntimedError as exc:
                logger.warning("an input came too late: %s", exc)

    async def _send_comm(self, request: Request) -> None:
        self._publish("status", {"execution_state": "busy"}, request.header)
        msg_type: Any = request.msg_type
        self._translation.note_comm(request)
        try:
            await self._session.send_comm(
                msg_type, request.content, metadata=request.metadata, buffers=request.buffers, request_id=request.msg_id
            )
        except RuntimedError as exc:
            logger.warning("a %s message was dropped: %s", msg_type, exc)
        self._publish("status", {"execution_state": "idle"}, request.header)

    # --- requests ---

    async def _kernel_info(self, _request: Request) -> Content:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(INFO_PATIENCE):
                self._info = await self._real_info()
        info = self._info or _UNKNOWN
        features = [feature for feature in info.get("supported_features", ()) if feature != "debugger"]
        return {
            **info,
            "protocol_version": PROTOCOL_VERSION,
            "supported_features": features,
            "debugger": False,
            "runtimed": {"session_id": self._choice.session_id},
        }

    async def _real_info(self) -> Mapping[str, Any] | None:
        """Return the info of the session's kernel; None if it does not start."""
        await asyncio.shield(self._kernel)
        while await self._session.kernel_started():
            with contextlib.suppress(NoKernel):  # it is being replaced
                return await self._session.ask_kernel("kernel_info_request")
            await asyncio.sleep(_AGAIN)
        return self._info

    async def _complete(self, request: Request) -> Content:
        return await self._session.complete(request.content["code"], request.content.get("cursor_pos"))

    async def _inspect(self, request: Request) -> Content:
        content = request.content
        return await self._session.inspect(content["code"], content.get("cursor_pos"), content.get("detail_level", 0))

    async def _is_complete(self, request: Request) -> Content:
        return await self._session.ask_kernel("is_complete_request", request.content)

    async def _history(self, request: Request) -> Content:
        return await self._session.ask_kernel("history_request", request.content)

    async def _comm_info(self, request: Request) -> Content:
        try:
            return await self._session.ask_kernel("comm_info_request", request.content)
        except NoKernel:
            return {"comms": {}}

    async def _connect(self, _request: Request) -> Content:
        return {name.removesuffix("_port"): port for name, port in self.ports.items()}

    async def _interrupt(self, _request: Request) -> Content:
        with contextlib.suppress(NoKernel):  # then nothing runs
            await self._session.interrupt()
        return {}

    async def _interrupt_quietly(self) -> None:
        with contextlib.suppress(NoKernel):
            await self._session.interrupt()

    async def _shutdown(self, request: Request) -> Content:
        """Leave; before a restart, restart the session's kernel, if that is what a restart means."""
        is_restart = request.content.get("restart") is True
        if is_restart and self._restart == "kernel":
            text = await self._restart_said()
            logger.warning("%s", text)
            self._publish("stream", {"name": "stderr", "text": f"{text}\n"}, request.header)
            with contextlib.suppress(TimeoutError, NoKernel):  # it goes on without this process
                async with asyncio.timeout(_RESTART_PATIENCE):
                    await self._session.restart_kernel()
        return {"restart": is_restart}

    async def _restart_said(self) -> str:
        """Return for whom the kernel is restarted."""
        others = (await self._session.status()).peers - 1
        users = (
            "nobody else uses"
            if others < 1
            else "1 other client uses"
            if others == 1
            else f"{others} other clients use"
        )
        return f"Restarting the kernel of the session {self._choice.session_id!r}, which {users}"

    async def _create_subshell(self, _request: Request) -> Content:
        """Return the id of a subshell. Whatever asks for one is answered at any time, as everything here."""
        self._subshells.append(str(uuid.uuid4()))
        return {"subshell_id": self._subshells[-1]}

    async def _list_subshells(self, _request: Request) -> Content:
        return {"subshell_id": list(self._subshells)}

    async def _delete_subshell(self, request: Request) -> Content:
        self._subshells.remove(request.content["subshell_id"])
        return {}


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


_HANDLERS: Final[Mapping[str, Callable[[ProxyKernel, Request], Awaitable[Content]]]] = {
    "kernel_info_request": ProxyKernel._kernel_info,
    "complete_request": ProxyKernel._complete,
    "inspect_request": ProxyKernel._inspect,
    "is_complete_request": ProxyKernel._is_complete,
    "history_request": ProxyKernel._history,
    "comm_info_request": ProxyKernel._comm_info,
    "connect_request": ProxyKernel._connect,
    "interrupt_request": ProxyKernel._interrupt,
    "shutdown_request": ProxyKernel._shutdown,
    "create_subshell_request": ProxyKernel._create_subshell,
    "list_subshell_request": ProxyKernel._list_subshells,
    "delete_subshell_request": ProxyKernel._delete_subshell,
}
"""The requests that are answered once, beside executions."""
