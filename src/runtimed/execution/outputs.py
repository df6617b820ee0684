"""Folds the events of an execution into its outputs; the only module that does. Nothing here waits or fetches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, assert_never

import msgspec

from runtimed.errors import ProtocolError, StorageError
from runtimed.execution.terminal import TerminalText
from runtimed.ids import CellId, ExecutionId
from runtimed.models import CommMessage, EventType, ExecutionEvent, ExecutionResult, Output
from runtimed.protocol.events import (
    Blob,
    BrowserLogged,
    BrowserState,
    BrowserUsed,
    CellChanged,
    Clear,
    Comm,
    CommsMissed,
    Display,
    EnvProgress,
    Event,
    Failed,
    Finished,
    InputRequested,
    KernelState,
    Omitted,
    Queued,
    Started,
    Stream,
)

__all__ = ["BlobValues", "Outcome", "OutputFold", "blobs_in", "plain_outputs", "to_public", "with_values"]

Outcome = Literal["ok", "error", "cancelled", "died"]

BlobValues = Mapping[str, bytes | str | StorageError]
"""Contents of blobs by SHA-256; text may be given as UTF-8 bytes. An error stands for a lost content."""


class OutputFold:
    """The outputs of one execution, updated event by event.

    Large values stay `Blob` references in `Output.data` until their contents are given: a caller adds all events,
    fetches `missing_blobs`, and builds the result with their contents. So values that an update or a `clear_output`
    removed are never fetched.

    Adding is linear in the size of the events; reading is linear in the outputs that changed since the last read.
    """

    def __init__(self, blobs: Callable[[Blob], bytes | str] | None = None) -> None:
        """Start without outputs.

        Args:
            blobs: Reads a blob, for callers that can do so at once; called once per blob when outputs are read.
        """
        self._blobs = blobs
        self._parts: list[TerminalText | _DisplayPart | Output] = []
        self._displays: dict[str, list[_DisplayPart]] = {}
        self._clear_at_next = False
        self._omitted: Omitted | None = None
        self.started_at: datetime | None = None
        """When the kernel started it, in UTC; None if it has not."""
        self.ended_at: datetime | None = None
        """When it ended, in UTC."""
        self.execution_count: int | None = None
        self.payload: tuple[dict[str, Any], ...] = ()
        """See `ExecutionResult.payload`."""
        self.status: Outcome | None = None
        """How it ended; None while it is queued or running."""

    def add(self, event: Event) -> None:
        """Add the next event of this execution. Late outputs, after `Finished`, are added, too.

        An update of an unknown display changes nothing: see `apply_update`. Outputs behind an `Omitted` are left out
        until the outputs are cleared.
        """
        match event:
            case Stream() | Display() if self._omitted is not None and not self._clear_at_next:
                pass
            case Stream():
                if event.text:
                    self._add_text(event.name, event.text)
            case Display(kind="update_display_data"):
                self.apply_update(event)
            case Display():
                self._begin_output()
                part = _DisplayPart(event)
                self._parts.append(part)
                if event.display_id is not None:
                    self._displays.setdefault(event.display_id, []).append(part)
            case Failed():
                self._begin_output()
                self._parts.append(_error_output(event))
            case Clear():
                # A clear without `wait` also performs an earlier one that waits for the next output.
                self._clear_at_next = event.wait
                if not event.wait:
                    self._clear()
            case Started():
                self.started_at = _utc(event.at)
                self.execution_count = event.execution_count
            case Finished():
                self.ended_at = _utc(event.at)
                self.status = event.status
                self.payload = _payload(event.payload)
                if event.execution_count is not None:
                    self.execution_count = event.execution_count
            case Omitted():
                # The first omitted output performs an earlier clear that waits for the next output.
                self._begin_output()
                known = self._omitted
                if known is None or known.after == event.after:
                    self._omitted = event
                else:  # after a reconnect, `after` counts from there on
                    self._omitted = msgspec.structs.replace(known, size=max(known.size, event.size))
            case Queued() | InputRequested() | KernelState() | CellChanged() | EnvProgress():
                pass
            case Comm() | CommsMissed() | BrowserState() | BrowserLogged() | BrowserUsed():
                pass
            case _:
                assert_never(event)

    def apply_update(self, event: Display) -> bool:
        """Replace the data and metadata of every output with the event's display id.

        The update may come from another execution: Jupyter's display ids belong to the kernel, not to a cell.

        Returns:
            Whether there is such an output.
        """
        parts = self._displays.get(event.display_id, []) if event.display_id is not None else []
        for part in parts:
            part.update(event)
        return bool(parts)

    @property
    def omitted(self) -> Omitted | None:
        """The event that reports omitted outputs; None if the outputs are complete."""
        return self._omitted

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs so far. Without a `blobs` argument, large values are `Blob` references."""
        return tuple(self._output(part) for part in self._parts)

    @property
    def missing_blobs(self) -> list[Blob]:
        """The unread blobs that the present outputs refer to, in order, without duplicates."""
        found = (value for output in self.outputs for value in (output.data or {}).values() if isinstance(value, Blob))
        return list({blob.sha256: blob for blob in found}.values())

    def outputs_with(self, blob_values: BlobValues) -> tuple[Output, ...]:
        """Return the outputs with the contents of blobs; a blob that is not given stays a reference."""
        return tuple(_resolve(output, blob_values) for output in self.outputs)

    def result(
        self, cell_id: CellId, execution_id: ExecutionId, blob_values: BlobValues | None = None
    ) -> ExecutionResult:
        """Return the public result; `success` is False while the execution runs.

        Args:
            cell_id: The cell that was executed.
            execution_id: The execution's id.
            blob_values: Contents of `missing_blobs`.
        """
        return ExecutionResult(
            cell_id=cell_id,
            execution_id=execution_id,
            success=self.status == "ok",
            execution_count=self.execution_count,
            outputs=self.outputs_with(blob_values or {}),
            payload=self.payload,
            started_at=self.started_at,
            ended_at=self.ended_at,
            omitted_bytes=self._omitted.size if self._omitted is not None else 0,
            omitted_after=self._omitted.after if self._omitted is not None else None,
        )

    def _add_text(self, name: str, text: str) -> None:
        self._begin_output()
        last = self._parts[-1] if self._parts else None
        if not isinstance(last, TerminalText) or last.name != name:
            last = TerminalText(name)
            self._parts.append(last)
        last.add(text)

    def _begin_output(self) -> None:
        if self._clear_at_next:
            self._clear_at_next = False
            self._clear()

    def _clear(self) -> None:
        self._omitted = None
        self._parts.clear()
        self._displays.clear()

    def _output(self, part: TerminalText | _DisplayPart | Output) -> Output:
        match part:
            case TerminalText():
                return part.output()
            case _DisplayPart():
                return part.output(self._blobs)
            case _:
                return part


def blobs_in(event: Event) -> list[Blob]:
    """Return the blobs that an event refers to, in order."""
    if isinstance(event, BrowserLogged) and event.image is not None:
        return [event.image]
    if not isinstance(event, Display):
        return []
    values = (_value(mime, raw) for mime, raw in event.data.items())
    return [value for value in values if isinstance(value, Blob)]


def to_public(event: Event, blob_values: BlobValues | None = None) -> ExecutionEvent | None:
    """Return the public form of an event, None for one that is internal.

    Args:
        event: The event.
        blob_values: Contents of `blobs_in(event)`; a blob that is not given stays a reference.
    """
    event_type: EventType
    output: Output | None = None
    count: int | None = None
    message: str | None = None
    status: str | None = None
    author: str | None = None
    match event:
        case Started():
            event_type, count = "execution_started", event.execution_count
        case Stream():
            event_type, output = "output", Output(output_type="stream", name=event.name, text=event.text)
        case Display():
            event_type, output = "output", _resolve(_display_output(event), blob_values or {})
        case Failed():
            event_type, output = "output", _error_output(event)
        case Finished(status="ok"):
            event_type, count = "done", event.execution_count
        case Finished():
            event_type, count, message = "error", event.execution_count, event.message or _OUTCOMES[event.status]
        case KernelState():
            event_type, status = "kernel_status", event.status
        case CellChanged():
            event_type, status, author = "cell_changed", event.change, event.author
        case EnvProgress():
            return ExecutionEvent(
                event_type="env_progress",
                status=event.step,
                message=event.message,
                bytes_done=event.done,
                bytes_total=event.total,
            )
        case InputRequested():
            return ExecutionEvent(
                event_type="input_requested",
                cell_id=None if event.cell_id is None else CellId(event.cell_id),
                execution_id=None if event.execution_id is None else ExecutionId(event.execution_id),
                message=event.prompt,
                password=event.password,
            )
        case Comm(message=body):
            return ExecutionEvent(
                event_type="comm",
                cell_id=None if event.cell_id is None else CellId(event.cell_id),
                execution_id=None if event.execution_id is None else ExecutionId(event.execution_id),
                comm=CommMessage(
                    msg_type=body.msg_type,
                    content=json.loads(body.content),
                    metadata=json.loads(body.metadata),
                    buffers=body.buffers,
                ),
            )
        case CommsMissed():
            return ExecutionEvent(event_type="comms_missed", missed=event.count, message=event.message)
        case Clear() | Queued() | Omitted() | BrowserState() | BrowserLogged() | BrowserUsed():
            return None
        case _:
            assert_never(event)
    return ExecutionEvent(
        event_type=event_type,
        cell_id=None if event.cell_id is None else CellId(event.cell_id),
        execution_id=None if event.execution_id is None else ExecutionId(event.execution_id),
        output=output,
        execution_count=count,
        error_message=message,
        status=status,
        author=author,
    )


def with_values(event: Event, blob_values: BlobValues) -> Event:
    """Return an event with the contents of its large values in their places: text, or bytes.

    Args:
        event: The event.
        blob_values: Contents of `blobs_in(event)`. A display with a lost content becomes an error.
    """
    if not isinstance(event, Display):
        return event
    data = dict(event.data)
    for mime, raw in event.data.items():
        blob = _value(mime, raw)
        if isinstance(blob, Blob) and blob.sha256 in blob_values:
            content = blob_values[blob.sha256]
            if isinstance(content, StorageError):
                return Failed(
                    at=event.at,
                    execution_id=event.execution_id,
                    cell_id=event.cell_id,
                    ename="StorageError",
                    evalue=content.message,
                    traceback=(f"StorageError: {content.message}",),
                )
            if blob.text and isinstance(content, bytes):
                content = content.decode("utf-8", "surrogatepass")
            data[mime] = content
    return msgspec.structs.replace(event, data=data)


def plain_outputs(events: Iterable[Event], blob_values: BlobValues) -> tuple[Output, ...]:
    """Return the outputs in some events as the kernel sent them, with consecutive texts of one stream joined.

    Args:
        events: Events of one execution, in order.
        blob_values: Contents of the blobs that they refer to.
    """
    found: list[Output] = []
    texts: list[str] = []
    for event in events:
        public = to_public(event, blob_values)
        if public is None or public.output is None:
            continue
        output, last = public.output, found[-1] if found else None
        if (
            last is not None
            and output.output_type == "stream"
            and (last.output_type, last.name) == ("stream", output.name)
        ):
            texts.append(output.text or "")
            continue
        _join_text(found, texts)
        found.append(output)
        texts = [output.text or ""]
    _join_text(found, texts)
    return tuple(found)


def _join_text(outputs: list[Output], texts: list[str]) -> None:
    if len(texts) > 1:
        outputs[-1] = replace(outputs[-1], text="".join(texts))


_OUTCOMES: Final[Mapping[Outcome, str]] = {
    "ok": "",
    "error": "The code raised an error",
    "cancelled": "The execution was cancelled before it began",
    "died": "The kernel died during the execution",
}


# --- values -----------------------------------------------------------------------------------------------------------


class _DisplayPart:
    """A display_data or execute_result output. Its values are parsed lazily, not at each update."""

    __slots__ = ("_event", "_output")

    def __init__(self, event: Display) -> None:
        self._event = event
        self._output: Output | None = None

    def update(self, event: Display) -> None:
        self._event = msgspec.structs.replace(self._event, data=event.data, metadata=event.metadata)
        self._output = None

    def output(self, blobs: Callable[[Blob], bytes | str] | None) -> Output:
        if self._output is None:
            values = {} if blobs is None else {blob.sha256: blobs(blob) for blob in blobs_in(self._event)}
            self._output = _resolve(_display_output(self._event), values)
        return self._output


def _display_output(event: Display) -> Output:
    return Output(
        output_type="execute_result" if event.kind == "execute_result" else "display_data",
        data={mime: _value(mime, raw) for mime, raw in event.data.items()},
        metadata=_metadata(event.metadata),
        execution_count=event.execution_count,
        display_id=event.display_id,
    )


def _error_output(event: Failed) -> Output:
    return Output(output_type="error", ename=event.ename, evalue=event.evalue, traceback=event.traceback)


def _value(mime: str, raw: Any) -> Any:
    """Return the public form of a value in a Display event; a blob in map form becomes a `Blob`.

    Raises:
        ProtocolError: If it is any other map.
    """
    if isinstance(raw, dict):
        try:
            return msgspec.convert(raw, Blob)
        except msgspec.ValidationError as exc:
            raise ProtocolError(f"not a value of an output: {exc}") from exc
    if isinstance(raw, str) and _is_json(mime):
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            return raw  # invalid JSON stays the text that the kernel sent
    return raw


def _is_json(mime: str) -> bool:
    essence = mime.partition(";")[0].strip().lower()
    return essence == "application/json" or essence.endswith("+json")


def _metadata(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _payload(text: str) -> tuple[dict[str, Any], ...]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    return tuple(entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _resolve(output: Output, values: BlobValues) -> Output:
    """Replace an output's blobs that are in `values` by their contents.

    An output with a lost content is replaced by an error output.
    """
    data = output.data or {}
    found = [values[value.sha256] for value in data.values() if isinstance(value, Blob) and value.sha256 in values]
    if not found:
        return output
    for content in found:
        if isinstance(content, StorageError):
            line = f"StorageError: {content.message}"
            return Output(output_type="error", ename="StorageError", evalue=content.message, traceback=(line,))
    return replace(output, data={mime: _content(mime, value, values) for mime, value in data.items()})


def _content(mime: str, value: Any, values: BlobValues) -> Any:
    if not isinstance(value, Blob) or value.sha256 not in values:
        return value
    content = values[value.sha256]
    if value.text and isinstance(content, bytes):
        content = content.decode("utf-8", "surrogatepass")
    return _value(mime, content)


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
