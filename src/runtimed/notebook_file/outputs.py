"""Outputs as a notebook file has them, and as a session has them: events of an execution. Nothing here waits."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runtimed.execution.jupyter_messages import Origin, Store, events_of
from runtimed.execution.outputs import OutputFold
from runtimed.models import Output
from runtimed.protocol.events import Event

__all__ = ["events_from", "file_outputs", "normal"]


def events_from(outputs: Iterable[Mapping[str, Any]], origin: Origin, store: Store) -> list[Event]:
    """Return a file's outputs as the events of an execution: they have the form of the messages that made them.

    Args:
        outputs: The outputs, with multi-line texts joined.
        origin: Time, execution and cell of the events.
        store: Stores values that are too large for an event.

    Source: nbformat 4, "Code cell outputs".
    """
    return [
        event
        for output in outputs
        for event in events_of({"msg_type": output["output_type"], "content": output}, origin, store)
    ]


def file_outputs(outputs: Sequence[Output]) -> tuple[dict[str, Any], ...]:
    """Return outputs in the form of a notebook file: binary values as base64, JSON values as they are.

    Source: nbformat 4, "Code cell outputs".
    """
    return tuple(map(_file_output, outputs))


def _file_output(output: Output) -> dict[str, Any]:
    kind = output.output_type
    match kind:
        case "stream":
            return {"output_type": kind, "name": output.name, "text": output.text}
        case "error":
            return {
                "output_type": kind,
                "ename": output.ename,
                "evalue": output.evalue,
                "traceback": list(output.traceback),
            }
    data = {mime: _file_value(value) for mime, value in (output.data or {}).items()}
    shown = {"output_type": kind, "data": data, "metadata": dict(output.metadata)}
    return {**shown, "execution_count": output.execution_count} if kind == "execute_result" else shown


def _file_value(value: Any) -> Any:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def normal(outputs: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return a file's outputs as a session would write them back.

    Base64 has no line ends, consecutive texts of one stream are joined, and `\\r` and backspace are applied. Two lists
    of outputs that are equal so mean the same.
    """
    kept: dict[str, bytes] = {}

    def store(value: bytes) -> str:
        name = hashlib.sha256(value).hexdigest()
        kept[name] = value
        return name

    fold = OutputFold()
    for event in events_from(outputs, Origin(at=0.0), store):
        fold.add(event)
    return file_outputs(fold.outputs_with(kept))
