"""Translates the events of a session into the messages of a Jupyter kernel. Nothing here waits or opens a socket.

The frontend's executions appear under its own requests. What other clients run appears as another frontend's would:
under a header that names them, with their code first.

Source: Messaging in Jupyter 5.5, https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cachetools import LRUCache

from runtimed.errors import RuntimedError
from runtimed.execution.outputs import to_public
from runtimed.jupyter.proxy_kernel.messages import AskInput, Outgoing, Publish, Reply, Request
from runtimed.protocol.events import (
    Clear,
    Comm,
    Display,
    EnvProgress,
    Event,
    Failed,
    Finished,
    InputRequested,
    KernelState,
    Queued,
    Started,
    Stream,
)

__all__ = ["PROTOCOL_VERSION", "Translation", "failure"]

PROTOCOL_VERSION: Final = "5.5"
"""The version of Jupyter's protocol that the proxy kernel speaks."""

_REMEMBERED: Final = 10_000
"""Executions whose late outputs find their request; the least recently used are evicted."""

_WIDGET_UPDATE: Final = "IPY_MODEL_"
"""Prefix of the displays that a host gives to widgets, for clients that show none; a frontend renders them itself."""


@dataclass(slots=True, eq=False)
class _Own:
    """An execution of the frontend that has not ended."""

    request: Request
    is_busy: bool = False
    started_at: float | None = None
    failed: Failed | None = None


class Translation:
    """The state of the frontend's executions, event by event."""

    def __init__(self) -> None:
        self._own: dict[str, _Own] = {}  # in the order of their requests
        self._parents: LRUCache[str, Mapping[str, Any]] = LRUCache(_REMEMBERED)
        self._latest_update: tuple[float, str | None] | None = None
        self._progress: str | None = None
        self._is_starting = True

    # --- the frontend's side ---

    def expect(self, execution_id: str, request: Request) -> str | None:
        """Note that a request is queued as this execution; return the one before it that has not ended, if any."""
        before = next(reversed(self._own), None)
        self._own[execution_id] = _Own(request)
        self._parents[execution_id] = request.header
        return before

    def note_comm(self, request: Request) -> None:
        """Note a message of a comm, which what it causes has for its parent."""
        self._parents[request.msg_id] = request.header

    def refused(self, execution_id: str, error: RuntimedError) -> Iterator[Outgoing]:
        """End an execution that the session did not take."""
        own = self._own.pop(execution_id, None)
        if own is not None:
            content = failure(error)
            yield from self._busy(own)
            yield Publish(
                "error", {name: content[name] for name in ("ename", "evalue", "traceback")}, own.request.header
            )
            yield Reply(own.request, content)
            yield _status("idle", own.request.header)

    def lost(self, error: RuntimedError) -> Iterator[Outgoing]:
        """End all executions of the frontend: what becomes of them is not heard of."""
        for execution_id in list(self._own):
            yield from self.refused(execution_id, error)

    def note(self, text: str) -> Iterator[Outgoing]:
        """Say something in the first of the frontend's cells that has not ended."""
        own = next(iter(self._own.values()), None)
        if own is not None:
            yield from self._busy(own)
            yield Publish("stream", {"name": "stderr", "text": text}, own.request.header)

    # --- the session's side ---

    def is_own(self, event: Event) -> bool:
        """Whether an event belongs to an execution of the frontend that has not ended."""
        return event.execution_id in self._own

    def take(self, event: Event, source: str = "") -> Iterator[Outgoing]:
        """Translate an event.

        Args:
            event: The event, with its large values in their places.
            source: The code of a `Started` execution that is not the frontend's.
        """
        own = self._own.get(event.execution_id or "")
        parent = self._parent(event)
        match event:
            case Queued(execution_id=str() as execution_id) if own is None:
                self._parents[execution_id] = _foreign(execution_id, event.at, event.author)
            case Started():
                yield from self._started(event, own, parent, source)
            case Stream(name=name, text=text):
                yield Publish("stream", {"name": name, "text": text}, parent)
            case Display():
                yield from self._display(event, parent)
            case Failed():
                if own is not None:
                    own.failed = event
                if event.is_published:
                    yield Publish("error", _error(event), parent)
            case Clear(wait=wait):
                yield Publish("clear_output", {"wait": wait}, parent)
            case InputRequested(execution_id=str() as execution_id) if own is not None:
                yield AskInput(own.request, execution_id, event.prompt, event.password)
            case Finished(execution_id=str() as execution_id):
                if own is not None:
                    del self._own[execution_id]
                    yield from self._busy(own)
                    yield _reply(event, own)
                yield _status("idle", parent)
            case Comm(message=message):
                content, metadata = json.loads(message.content), json.loads(message.metadata)
                if message.request_id is not None and event.execution_id is None:
                    parent = self._parents.get(message.request_id) or {"msg_id": message.request_id}
                yield Publish(message.msg_type, content, parent, metadata, message.buffers)
            case KernelState(status="restarting"):
                self._is_starting = True
                # Not "restarting", which JupyterLab takes for a death of this process, and says so in a dialog.
                yield _status("starting", {})
            case KernelState(status="starting"):
                self._is_starting = True
            case KernelState(status="idle") if self._is_starting:  # else an execution's end says so
                self._is_starting = False
                self._progress = None
                yield _status("idle", {})
            case EnvProgress(message=message) if message != self._progress:
                self._progress = message
                yield from self.note(f"{message}\n")
            case _:
                pass

    def _parent(self, event: Event) -> Mapping[str, Any]:
        execution_id = event.execution_id
        if execution_id is None:
            return {}
        if execution_id not in self._parents:  # it was queued before this kernel listened
            self._parents[execution_id] = _foreign(execution_id, event.at, "")
        parent: Mapping[str, Any] = self._parents[execution_id]
        return parent

    def _busy(self, own: _Own) -> Iterator[Outgoing]:
        if not own.is_busy:
            own.is_busy = True
            yield _status("busy", own.request.header)

    def _started(self, event: Started, own: _Own | None, parent: Mapping[str, Any], source: str) -> Iterator[Outgoing]:
        is_silent = False
        if own is None:
            yield _status("busy", parent)
        else:
            yield from self._busy(own)
            own.started_at = event.at
            source, is_silent = str(own.request.content.get("code", "")), own.request.content.get("silent") is True
        if not is_silent:
            yield Publish("execute_input", {"code": source, "execution_count": event.execution_count or 0}, parent)

    def _display(self, event: Display, parent: Mapping[str, Any]) -> Iterator[Outgoing]:
        is_update = event.kind == "update_display_data"
        display_id = event.display_id
        if display_id is not None and display_id.startswith(_WIDGET_UPDATE):
            if is_update:
                return
            display_id = None
        if is_update:
            # The same update comes for each execution that shows the display; a frontend finds them all by one.
            update = event.at, display_id
            if update == self._latest_update:
                return
            self._latest_update = update
        public = to_public(event)
        assert public is not None and public.output is not None  # noqa: S101, PT018  # a display is an output
        data = {mime: _plain(value) for mime, value in (public.output.data or {}).items()}
        content: dict[str, Any] = {"data": data, "metadata": public.output.metadata}
        if event.kind == "execute_result":
            content["execution_count"] = event.execution_count or 0
        else:
            content["transient"] = {} if display_id is None else {"display_id": display_id}
        yield Publish(event.kind, content, parent)


def failure(error: RuntimedError) -> dict[str, Any]:
    """Return the content of a reply that says that a request failed."""
    name = type(error).__name__
    return {"status": "error", "ename": name, "evalue": error.message, "traceback": [f"{name}: {error.message}"]}


def _reply(event: Finished, own: _Own) -> Reply:
    metadata: dict[str, Any] = {"dependencies_met": True}
    if own.started_at is not None:
        metadata["started"] = datetime.fromtimestamp(own.started_at, UTC).isoformat()
    if event.status == "cancelled":
        return Reply(own.request, {"status": "aborted"}, {**metadata, "status": "aborted"})
    content: dict[str, Any] = {
        "status": "ok" if event.status == "ok" else "error",
        "execution_count": event.execution_count or 0,
        "user_expressions": json.loads(event.user_expressions),
        "payload": json.loads(event.payload),
    }
    if event.status != "ok":
        failed = own.failed or Failed(at=event.at, ename="Error", evalue=event.message or "")
        content |= _error(failed)
    return Reply(own.request, content, {**metadata, "status": content["status"]})


def _status(state: str, parent: Mapping[str, Any]) -> Publish:
    return Publish("status", {"execution_state": state}, parent)


def _error(event: Failed) -> dict[str, Any]:
    return {"ename": event.ename, "evalue": event.evalue, "traceback": list(event.traceback)}


def _plain(value: Any) -> Any:
    """Return a value of a display as JSON has it: bytes as base64."""
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def _foreign(execution_id: str, at: float, author: str) -> dict[str, Any]:
    """Return the header of another client's request, as if it were a frontend of this kernel."""
    return {
        "msg_id": execution_id,
        "msg_type": "execute_request",
        "session": author,
        "username": "",
        "date": datetime.fromtimestamp(at, UTC).isoformat(),
        "version": PROTOCOL_VERSION,
    }
