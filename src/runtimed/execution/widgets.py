"""The Jupyter widgets of one kernel, in place of a frontend: captures the content of Output widgets, renders others.

Clients of a session do not implement widgets. So the host does a frontend's part for Output widgets, and each change
of a displayed widget becomes an update of a display with its rendering. Nothing here waits.

Source: Jupyter widgets messaging protocol 2.1.0. The behaviour of Output widgets follows
@jupyter-widgets/jupyterlab-manager 5 and nbclient 0.11.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from runtimed.display import WIDGET_MIME_TYPE
from runtimed.execution.jupyter_messages import Origin, Store, events_of
from runtimed.execution.outputs import OutputFold
from runtimed.execution.widget_text import BOXES, KINDS, Rendered, join, render_output, render_value
from runtimed.models import Output
from runtimed.protocol.events import Blob, Clear, Display, Event, Omitted

__all__ = ["COMM_TYPES", "INTERVAL", "KEPT", "MAX_CONTENT", "MAX_MODELS", "MAX_STATE", "Widgets"]

COMM_TYPES: Final = frozenset({"comm_close", "comm_msg", "comm_open"})
"""The message types that create, change and close widgets."""

INTERVAL: Final = 0.2
"""Least seconds between two updates of the displays; more after large updates."""

MAX_CONTENT: Final = 4 * 2**20
"""Largest content of an Output widget, in characters; further outputs are left out with a note."""

MAX_MODELS: Final = 10_000
"""Most tracked widgets. Above that, the least recently changed ones are evicted, and their displays are frozen."""

MAX_STATE: Final = 64 * 2**20
"""Largest state of all widgets together, in characters. Above that, widgets are evicted likewise."""

_BYTES_PER_SECOND: Final = 200_000
_MAX_TEXT: Final = 10_000
_MAX_ITEMS: Final = 1000
_MAX_DEPTH: Final = 20
_LAYOUT: Final = "LayoutModel"
_OUTPUT: Final = "OutputModel"
_MODULES: Final = ("@jupyter-widgets/base", "@jupyter-widgets/controls", "@jupyter-widgets/output")
_REFERENCE: Final = "IPY_MODEL_"
KEPT: Final = frozenset(
    {
        "_options_labels",
        "children",
        "description",
        "display",
        "index",
        "layout",
        "max",
        "min",
        "selected_index",
        "titles",
        "value",
        "visibility",
    }
)
"""The keys of a widget's state that its rendering uses."""


@dataclass(slots=True, eq=False)
class _Content:
    """The content of an Output widget."""

    fold: OutputFold = field(default_factory=OutputFold)
    blobs: dict[str, bytes] = field(default_factory=dict)
    displays: dict[str, int] = field(default_factory=dict)
    size: int = 0
    left_out: int = 0
    clears_at_next: bool = False

    def add(self, message: Mapping[str, Any], at: float) -> None:
        """Add an output message; beyond MAX_CONTENT only its size is counted."""
        if message["msg_type"] == "clear_output":
            for event in events_of(message, Origin(at), self._keep):
                self.fold.add(event)
                self.clears_at_next = isinstance(event, Clear) and event.wait
                if not self.clears_at_next:
                    self._cleared()
            return
        if self.clears_at_next:
            self._cleared()
        size = _weight(message["content"])
        if self.left_out or self.size + size > MAX_CONTENT:
            self.left_out += size
            self.fold.add(Omitted(at=at, after=0, size=self.left_out))
            return
        for event in events_of(message, Origin(at), self._keep):
            self.fold.add(event)
        self.size += size

    def update(self, event: Display, content: object) -> bool:
        """Apply an update of a display; return whether the content has that display."""
        if not self.fold.apply_update(event):
            return False
        size, known = _weight(content), self.displays.get(event.display_id or "", 0)
        self.displays[event.display_id or ""] = max(size, known)
        self.size += max(size - known, 0)
        return True

    def _cleared(self) -> None:
        self.size = self.left_out = 0
        self.clears_at_next = False
        self.displays.clear()
        self.blobs.clear()

    @property
    def outputs(self) -> list[Output]:
        """The outputs, with the contents of large values."""
        outputs = list(self.fold.outputs_with(self.blobs))
        if self.fold.omitted is not None:
            note = f"[{self.left_out} more characters were left out]\n"
            outputs.append(Output(output_type="stream", name="stdout", text=note))
        return outputs

    def _keep(self, value: bytes) -> str:
        name = hashlib.sha256(value).hexdigest()
        self.blobs[name] = value
        return name


@dataclass(slots=True, eq=False)
class _Model:
    """One widget.

    Attributes:
        state: The part of its state in `KEPT`.
        size: Size of state and content, in characters.
        parents: The widgets that contain it, as a child or in an Output widget's content.
        content: For an Output widget, its content.
        msg_id: For an Output widget, the request whose output it captures; empty if it captures none.
    """

    kind: str
    state: dict[str, Any] = field(default_factory=dict)
    size: int = 0
    parents: dict[str, None] = field(default_factory=dict)
    content: _Content | None = None
    msg_id: str = ""


@dataclass(slots=True, eq=False)
class _View:
    """The displays of one widget.

    Attributes:
        display_ids: Ids of the displays.
        value: The displays' value of the widget's MIME type.
        execution_id: The execution that displayed it last.
        cause: The execution that changed it last.
        last: The rendering that was sent last.
    """

    display_ids: dict[str, None]
    value: Mapping[str, Any]
    execution_id: str
    cause: str | None = None
    last: Rendered | None = None


class Widgets:
    """All widgets of one kernel process."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}  # the least recently changed first
        self._outputs: dict[str, _Content] = {}
        self._unsynced: dict[str, None] = {}  # Output widgets whose content the kernel does not know yet
        self._untold: dict[str, None] = {}  # … and those whose content frontends do not know yet
        self._size = 0
        self._views: dict[str, _View] = {}
        self._shown_as: dict[str, str] = {}  # display id: model
        self._capturing: dict[
            str, list[str]
        ] = {}  # request: the Output widgets that capture its output; the last one gets it
        self._changed: dict[str, None] = {}
        self._weight = 0

    # --- messages from the kernel ---

    def follow(self, message: Mapping[str, Any], owner: str | None) -> None:
        """Handle a message of `COMM_TYPES`.

        Args:
            message: The parsed message from the iopub channel.
            owner: The execution that it belongs to, if any.
        """
        content = message.get("content")
        if not isinstance(content, Mapping) or not isinstance(content.get("comm_id"), str):
            return
        comm_id, data = content["comm_id"], content.get("data")
        if message["msg_type"] == "comm_close":
            self._close(comm_id, owner)
            return
        state = data.get("state") if isinstance(data, Mapping) else None
        if not isinstance(state, Mapping):
            return
        if message["msg_type"] == "comm_open":
            if content.get("target_name") == "jupyter.widget":
                self._open(comm_id, state, owner)
        elif isinstance(data, Mapping) and data.get("method") in ("echo_update", "update"):
            # An echo of a frontend's own update may be older than the present content.
            is_echo = data["method"] == "echo_update"
            self._update(comm_id, {key: state[key] for key in state if not (is_echo and key == "outputs")}, owner)

    def captures(self, request_id: str | None) -> bool:
        """Whether an Output widget captures the output of a request."""
        return bool(self._capturing.get(request_id or ""))

    def capture(self, message: Mapping[str, Any], at: float, owner: str | None) -> None:
        """Add an output message to the Output widget that captures its request's output."""
        comm_id = self._capturing[message["parent_id"]][-1]
        if not isinstance(message.get("content"), Mapping):
            return
        self._outputs[comm_id].add(message, at)
        self._unsynced[comm_id] = self._untold[comm_id] = None
        self._link_content(comm_id, message)
        self._touch(comm_id, owner)

    def show(self, event: Display) -> Display:
        """Track a display of a cell, and return it with a display id, so that it can be updated."""
        value = _widget_in(event.data)
        model_id = _model_of(value)
        if event.display_id is not None:
            before = self._views.get(self._shown_as.pop(event.display_id, ""))
            if before is not None:
                before.display_ids.pop(event.display_id, None)
        if value is None or model_id not in self._models:
            return event
        view = self._views.setdefault(model_id, _View({}, value, ""))
        view.execution_id = event.execution_id or ""
        display_id = event.display_id or next(
            (name for name in view.display_ids if name.startswith(_REFERENCE)), f"{_REFERENCE}{uuid.uuid4().hex}"
        )
        view.display_ids[display_id] = None
        self._shown_as[display_id] = model_id
        if view.last is not None or self._holds_content(model_id, _MAX_DEPTH):
            # The kernel's own text of this display does not include the present content.
            view.last, view.cause = None, event.execution_id
            self._changed[model_id] = None
        return msgspec.structs.replace(event, display_id=display_id)

    def update_displays(self, event: Display, content: object, owner: str | None) -> None:
        """Apply an update of a display to the contents of Output widgets."""
        for comm_id, held in self._outputs.items():
            if held.update(event, content):
                self._unsynced[comm_id] = self._untold[comm_id] = None
                self._touch(comm_id, owner)

    # --- updates ---

    @property
    def due_in(self) -> float | None:
        """Seconds after which to call `updates`; None if nothing has changed."""
        return max(INTERVAL, self._weight / _BYTES_PER_SECOND) if self._changed else None

    def updates(self, origin: Callable[[str], Origin], store: Store) -> list[Event]:
        """Return the events that update the displays of changed widgets; none for an unchanged rendering.

        Args:
            origin: Returns the common fields of an execution's events.
            store: Stores large values. Its errors propagate and leave the state unchanged.
        """
        events: list[Event] = []
        done: list[tuple[_View, Rendered]] = []
        for model_id in self._changed:
            view = self._views.get(model_id)
            if view is None or not view.display_ids:
                continue
            rendered = self._render(model_id, _MAX_DEPTH) or Rendered("")
            if rendered == view.last:
                continue
            where = origin(view.cause or view.execution_id)
            data = {"text/plain": rendered.text, WIDGET_MIME_TYPE: view.value}
            if rendered.html is not None:
                data["text/html"] = rendered.html
            for display_id in view.display_ids:
                content = {"data": data, "transient": {"display_id": display_id}}
                events += events_of({"msg_type": "update_display_data", "content": content}, where, store)
            done.append((view, rendered))
        for view, rendered in done:
            view.last = rendered
        self._weight = sum(len(rendered.text) + len(rendered.html or "") for _, rendered in done)
        for model_id in self._changed:
            if model_id not in self._models:
                self._forget_view(model_id)
        self._changed.clear()
        return events

    def news_for_kernel(self) -> list[dict[str, Any]]:
        """Return the contents of the comm messages that synchronize the kernel's Output widgets with their contents."""
        return self._news(self._unsynced)

    def news_for_frontends(self) -> list[dict[str, Any]]:
        """Return the same for frontends, which show the content while the kernel is still busy."""
        found = self._news(self._untold)
        self._weight += sum(map(_weight, found))
        return found

    def _news(self, comm_ids: dict[str, None]) -> list[dict[str, Any]]:
        found = []
        for comm_id in comm_ids:
            outputs = [_nbformat(output) for output in self._outputs[comm_id].outputs]
            data = {"method": "update", "state": {"outputs": outputs}, "buffer_paths": []}
            found.append({"comm_id": comm_id, "data": data})
        comm_ids.clear()
        return found

    # --- models ---

    def _open(self, comm_id: str, state: Mapping[str, Any], owner: str | None) -> None:
        kind = state.get("_model_name")
        is_known = isinstance(kind, str) and state.get("_model_module") in _MODULES
        if not is_known or kind not in (*KINDS, *BOXES, _OUTPUT, _LAYOUT):
            return
        self._forget(comm_id)
        model = self._models[comm_id] = _Model(str(kind))
        if kind == _OUTPUT:
            model.content = self._outputs[comm_id] = _Content()
        self._update(comm_id, state, owner)
        self._make_room()

    def _update(self, comm_id: str, state: Mapping[str, Any], owner: str | None) -> None:
        model = self._models.get(comm_id)
        if model is None:
            return
        if model.content is not None:
            if isinstance(state.get("outputs"), list):
                self._replace_content(comm_id, model, state["outputs"])
            if isinstance(state.get("msg_id"), str):
                self._capture_from(comm_id, model, state["msg_id"])
        for key in KEPT & state.keys():
            model.state[key] = _bounded(state[key])
            for child in _references(model.state[key]):
                self._link(child, comm_id)
        if model.content is None or state.keys() - {"msg_id"}:
            self._touch(comm_id, owner)

    def _replace_content(self, comm_id: str, model: _Model, outputs: list[Any]) -> None:
        content = model.content = self._outputs[comm_id] = _Content()
        self._unsynced.pop(comm_id, None)
        self._untold.pop(comm_id, None)
        for output in outputs:
            if isinstance(output, Mapping) and isinstance(output.get("output_type"), str):
                message = {"msg_type": output["output_type"], "content": output}
                content.add(message, 0.0)
                self._link_content(comm_id, message)

    def _capture_from(self, comm_id: str, model: _Model, request_id: str) -> None:
        capturing = self._capturing.get(model.msg_id, [])
        if comm_id in capturing:
            capturing.remove(comm_id)
        if not capturing:
            self._capturing.pop(model.msg_id, None)
        model.msg_id = request_id
        if request_id:
            self._capturing.setdefault(request_id, []).append(comm_id)

    def _close(self, comm_id: str, owner: str | None) -> None:
        if comm_id in self._models:
            self._mark(comm_id, owner)
            self._forget(comm_id)

    def _forget(self, comm_id: str) -> None:
        model = self._models.pop(comm_id, None)
        if model is not None:
            self._size -= model.size
            self._capture_from(comm_id, model, "")
            self._outputs.pop(comm_id, None)
            self._unsynced.pop(comm_id, None)
            self._untold.pop(comm_id, None)

    def _forget_view(self, comm_id: str) -> None:
        view = self._views.pop(comm_id, None)
        for display_id in () if view is None else view.display_ids:
            self._shown_as.pop(display_id, None)

    def _make_room(self) -> None:
        while len(self._models) > MAX_MODELS or self._size > MAX_STATE:
            oldest = next((comm_id for comm_id, model in self._models.items() if not model.msg_id), None)
            if oldest is None:
                return
            self._forget(oldest)
            self._forget_view(oldest)
            self._changed.pop(oldest, None)

    def _link(self, child: str, parent: str) -> None:
        model = self._models.get(child)
        if model is not None:
            model.parents[parent] = None

    def _link_content(self, comm_id: str, message: Mapping[str, Any]) -> None:
        data = message["content"].get("data")
        child = _model_of(_widget_in(data)) if isinstance(data, Mapping) else ""
        self._link(child, comm_id)

    def _touch(self, comm_id: str, owner: str | None) -> None:
        """Mark a widget, and those that contain it, as changed."""
        model = self._models.pop(comm_id)
        self._models[comm_id] = model
        size = _weight(model.state) + (0 if model.content is None else model.content.size)
        self._size += size - model.size
        model.size = size
        self._mark(comm_id, owner)
        if self._size > MAX_STATE:
            self._make_room()

    def _mark(self, comm_id: str, owner: str | None) -> None:
        seen, waiting = {comm_id}, [comm_id]
        while waiting:
            found = waiting.pop()
            view = self._views.get(found)
            if view is not None:
                view.cause = owner
                self._changed[found] = None
            model = self._models.get(found)
            if model is None:
                continue
            model.parents = {parent: None for parent in model.parents if parent in self._models}
            fresh = [parent for parent in model.parents if parent not in seen]
            seen.update(fresh)
            waiting += fresh

    # --- rendering ---

    def _holds_content(self, model_id: str, depth: int) -> bool:
        model = self._models.get(model_id)
        if model is None or not depth:
            return False
        if model.content is not None:
            return bool(model.content.size)
        children = _references(model.state.get("children"))
        return any(self._holds_content(child, depth - 1) for child in children)

    def _render(self, model_id: str, depth: int) -> Rendered | None:
        model = self._models.get(model_id)
        if model is None or not depth or self._is_hidden(model):
            return None
        if model.content is not None:

            def nested(output: Output) -> Rendered | None:
                child = _model_of(_widget_in(output.data or {}))
                rendered = self._render(child, depth - 1)
                return rendered if rendered is not None and rendered.text else None

            return render_output(model.content.outputs, nested)
        if model.kind in KINDS:
            return render_value(model.kind, model.state)
        children = _references(model.state.get("children"))
        return join(model.kind, model.state, [self._render(child, depth - 1) for child in children])

    def _is_hidden(self, model: _Model) -> bool:
        layout = next((self._models.get(name) for name in _references(model.state.get("layout"))), None)
        return layout is not None and (
            layout.state.get("display") == "none" or layout.state.get("visibility") == "hidden"
        )


def _widget_in(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the value of the widget MIME type, which is JSON text in an event."""
    value = data.get(WIDGET_MIME_TYPE)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Mapping) else None


def _model_of(value: Mapping[str, Any] | None) -> str:
    found = (value or {}).get("model_id")
    return found if isinstance(found, str) else ""


def _references(value: object) -> list[str]:
    names = value if isinstance(value, list) else [value]
    return [name.removeprefix(_REFERENCE) for name in names if isinstance(name, str) and name.startswith(_REFERENCE)]


def _bounded(value: Any) -> Any:
    match value:
        case str():
            return value if len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]}…"
        case list():
            return [_bounded(item) for item in value[:_MAX_ITEMS] if isinstance(item, str | int | float)]
        case Mapping():  # a date
            return {key: value[key] for key in ("year", "month", "date") if isinstance(value.get(key), int)}
        case _:
            return value


def _weight(value: object) -> int:
    """Return the approximate size of a JSON value, in characters."""
    match value:
        case str():
            return len(value) + 8
        case Mapping():
            return sum(map(_weight, value.values()), 16 * len(value))
        case list():
            return sum(map(_weight, value), 8)
        case _:
            return 8


def _nbformat(output: Output) -> dict[str, Any]:
    """Return an output in nbformat's form, as in the state of an Output widget."""
    match output.output_type:
        case "stream":
            return {"output_type": "stream", "name": output.name, "text": output.text}
        case "error":
            traceback = list(output.traceback)
            return {"output_type": "error", "ename": output.ename, "evalue": output.evalue, "traceback": traceback}
        case kind:
            data = {
                mime_type: base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
                for mime_type, value in (output.data or {}).items()
                if not isinstance(value, Blob)
            }
            count = {"execution_count": output.execution_count} if kind == "execute_result" else {}
            return {"output_type": kind, "data": data, "metadata": dict(output.metadata), **count}
