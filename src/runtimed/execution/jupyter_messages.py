"""Translates Jupyter messages into the events of `runtimed.protocol.events`.

A kernel may send anything, so no message is trusted to have its documented shape. Unreadable content is skipped and
logged; it never raises. Nothing here waits, and time is an argument.

Source: Messaging in Jupyter 5.5, https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from runtimed.errors import ProtocolError
from runtimed.protocol.comms import MAX_COMM, MAX_REQUEST_ID, CommBody
from runtimed.protocol.events import (
    MAX_INLINE,
    Blob,
    Clear,
    Display,
    Event,
    Failed,
    InputRequested,
    Started,
    Stream,
)

__all__ = [
    "OUTPUT_TYPES",
    "Origin",
    "Store",
    "asks_exit",
    "comm_body",
    "events_of",
    "failure_of_reply",
    "pager_of_reply",
    "payload_of_reply",
    "summary_of_reply",
    "user_expressions_of_reply",
]

logger = logging.getLogger(__name__)

Store = Callable[[bytes], str]
"""Stores a large value and returns its SHA-256 in hexadecimal. Its errors propagate."""

OUTPUT_TYPES: Final = frozenset(
    {"stream", "display_data", "execute_result", "update_display_data", "error", "clear_output"}
)
"""The message types that carry outputs of an execution."""

_DISPLAY_KINDS: Final[dict[str, Literal["display_data", "execute_result", "update_display_data"]]] = {
    "display_data": "display_data",
    "execute_result": "execute_result",
    "update_display_data": "update_display_data",
}
_MAX_BUNDLE: Final = 4 * MAX_INLINE
"""Total size of a display's inline values, in bytes; others become blobs, so that the event fits into a frame."""
_MAX_MIME_TYPES: Final = 1000
_MAX_NAME: Final = 1000
"""Longest MIME type, display id or exception name, in characters."""
_MAX_SUMMARY: Final = 2000
"""Longest message about the end of an execution, in characters."""
_BINARY_APPLICATION: Final = frozenset(
    {
        "application/gzip",
        "application/octet-stream",
        "application/pdf",
        "application/vnd.apache.arrow.file",
        "application/vnd.apache.arrow.stream",
        "application/zip",
    }
)


_DENO_REFUSED: Final = "Execution failed"
"""Deno's whole report, on all channels and standard error, about code that it cannot start to run (2.9.8, measured)."""
_DENO_HINT: Final = "Deno gives no reason; look for a syntax error, or an import of a package that is not available"


@dataclass(frozen=True, slots=True)
class Origin:
    """The common fields of an execution's events; see `runtimed.protocol.events`."""

    at: float
    execution_id: str | None = None
    cell_id: str | None = None


def events_of(message: Mapping[str, Any], origin: Origin, store: Store) -> list[Event]:
    """Translate one message of the iopub or stdin channel.

    Args:
        message: The parsed message; only `msg_type` and `content` are read.
        origin: Time, execution and cell of the events.
        store: Stores values that are too large for an event.

    Returns:
        The events, in order: several for a long stream, none for other messages (status, comm) or unreadable content.
    """
    content = message.get("content")
    msg_type = message.get("msg_type")
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        logger.warning("execution %s: skipped a %s message whose content is %s", origin.execution_id, msg_type, kind)
        return []
    match msg_type:
        case "stream":
            return _stream(content, origin)
        case "display_data" | "execute_result" | "update_display_data":
            return [_display(_DISPLAY_KINDS[msg_type], content, origin, store)]
        case "error":
            return [_failed(content, origin)]
        case "clear_output":
            return [Clear(wait=content.get("wait") is True, **_fields(origin))]
        case "execute_input":
            return [Started(execution_count=_count(content.get("execution_count")), **_fields(origin))]
        case "input_request":
            prompt = _shorten(_text(content.get("prompt")) or "", MAX_INLINE // 4)
            return [InputRequested(prompt=prompt, password=content.get("password") is True, **_fields(origin))]
        case _:
            return []


def failure_of_reply(content: Mapping[str, Any], origin: Origin) -> Failed:
    """Return the error of an execute_reply, for a kernel that published no error message."""
    if content.get("evalue") == _DENO_REFUSED and not content.get("traceback"):
        content = {**content, "evalue": f"{_DENO_REFUSED}. {_DENO_HINT}"}
    return msgspec.structs.replace(_failed(content, origin), is_published=False)


def summary_of_reply(content: Mapping[str, Any]) -> str | None:
    """Return how an execution failed, in one sentence; None if it succeeded."""
    match content.get("status"):
        case "ok":
            return None
        case "aborted" | "abort":
            return "The kernel skipped this execution"
        case _:
            ename, evalue = _text(content.get("ename")) or "Error", _text(content.get("evalue")) or ""
            return _shorten(f"{ename}: {evalue}" if evalue else ename, _MAX_SUMMARY)


def pager_of_reply(content: Mapping[str, Any], origin: Origin, store: Store) -> list[Display]:
    """Return the pages in an execute_reply's payload (`print?`) as displays."""
    return [_display("display_data", page, origin, store) for page in _payload(content) if _is_page(page)]


def payload_of_reply(content: Mapping[str, Any], origin: Origin) -> tuple[str, list[Stream]]:
    """Return the payload of an execute_reply without its pages: requests to the frontend, such as `set_next_input`.

    Returns:
        JSON text of a list of objects, each with a `source`; and a note for each entry that is too large.
    """
    kept: list[str] = []
    notes: list[Stream] = []
    left = MAX_INLINE
    for entry in _payload(content):
        if _is_page(entry):
            continue
        try:
            text = json.dumps(entry)  # ASCII: a lone surrogate passes
        except (TypeError, ValueError, RecursionError):
            continue
        if len(text) <= left:
            left -= len(text)
            kept.append(text)
        else:
            note = f"[{entry['source']} was left out: it has {len(text)} bytes, the limit is {MAX_INLINE}]\n"
            notes.append(Stream(name="stderr", text=_shorten(note, _MAX_SUMMARY), **_fields(origin)))
    return f"[{','.join(kept)}]", notes


def user_expressions_of_reply(content: Mapping[str, Any]) -> str:
    """Return the values of an execution's user expressions, as JSON text.

    Each has the form of execute_reply. One that is too large, or not an object, is replaced by an error.

    Source: Jupyter messaging 5.4, "Execution results".
    """
    found = content.get("user_expressions")
    kept: dict[str, Any] = {}
    left = MAX_INLINE
    for name, value in found.items() if isinstance(found, Mapping) else ():
        text = _json_of(value) if isinstance(value, Mapping) else None
        if text is not None and len(text) <= left:
            left -= len(text)
            kept[str(name)] = value
        else:
            why = "it is not a JSON object" if text is None else f"it has {len(text)} bytes, the limit is {MAX_INLINE}"
            kept[str(name)] = {"status": "error", "ename": "LeftOut", "evalue": why, "traceback": []}
    return json.dumps(kept)


def comm_body(message: Mapping[str, Any]) -> CommBody:
    """Return the wire form of a comm_open, comm_msg or comm_close message.

    Args:
        message: The parsed message, with `msg_type`, `content`, `metadata`, `buffers` and `parent_id`.

    Raises:
        ProtocolError: If it is unreadable, or larger than MAX_COMM.
    """
    buffers = tuple(message["buffers"])
    kind = message["msg_type"]
    content, metadata = _json_of(message["content"]), _json_of(message["metadata"])
    if content is None or metadata is None or not isinstance(message["content"], Mapping):
        raise ProtocolError(f"a {kind} message is not a JSON object")
    size = len(content) + len(metadata) + sum(map(len, buffers))
    if size > MAX_COMM:
        raise ProtocolError(f"a {kind} message has {size} bytes; the limit is {MAX_COMM}")
    parent = message.get("parent_id")
    request_id = parent if isinstance(parent, str) and len(parent) <= MAX_REQUEST_ID else None
    return CommBody(msg_type=kind, content=content, metadata=metadata, buffers=buffers, request_id=request_id)


def _json_of(value: Any) -> str | None:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None


def asks_exit(content: Mapping[str, Any]) -> bool:
    """Whether an execution requested the end of its kernel, as `exit()` does."""
    return any(entry["source"] == "ask_exit" and not entry.get("keepkernel") for entry in _payload(content))


def _payload(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    payload = content.get("payload")
    entries = payload if isinstance(payload, list) else []
    return [entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("source"), str)]


def _is_page(entry: Mapping[str, Any]) -> bool:
    return entry["source"] == "page" and isinstance(entry.get("data"), Mapping)


# --- streams and errors -----------------------------------------------------------------------------------------------


def _fields(origin: Origin) -> dict[str, Any]:
    return {"at": origin.at, "execution_id": origin.execution_id, "cell_id": origin.cell_id}


def _stream(content: Mapping[str, Any], origin: Origin) -> list[Event]:
    name, text = content.get("name"), _text(content.get("text"))
    if text is None:
        logger.warning("execution %s: skipped a stream message without text", origin.execution_id)
        return []
    if not isinstance(name, str) or len(name) > _MAX_NAME:
        name = "stdout"
    return [Stream(name=name, text=piece, **_fields(origin)) for piece in _pieces(text) if piece]


def _pieces(text: str) -> Iterator[str]:
    """Split a text into pieces of at most MAX_INLINE bytes."""
    step = MAX_INLINE if text.isascii() else MAX_INLINE // 4  # a code point has at most four bytes
    if len(text) <= step:
        yield text
        return
    for start in range(0, len(text), step):
        yield text[start : start + step]


def _failed(content: Mapping[str, Any], origin: Origin) -> Failed:
    traceback = content.get("traceback")
    lines = [line for line in traceback if isinstance(line, str)] if isinstance(traceback, list) else []
    return Failed(
        ename=_shorten(_text(content.get("ename")) or "Error", _MAX_NAME),
        evalue=_shorten(_text(content.get("evalue")) or "", MAX_INLINE // 4),
        # For a thrown value that is not an Error, Deno sends one empty line, which would be shown instead of the value.
        traceback=tuple(_shorten_lines(lines)) if any(lines) else (),
        **_fields(origin),
    )


def _shorten_lines(lines: list[str]) -> Iterator[str]:
    """Truncate a traceback to fit into a frame: an exception may quote a value of any size, in several lines."""
    left = MAX_INLINE // 2
    for index, line in enumerate(lines):
        if left <= 0:
            yield f"… {len(lines) - index} more lines left out"
            return
        yield _shorten(line, left)
        left -= len(line) + 1


def _shorten(text: str, limit: int) -> str:
    """Truncate a text to `limit` code points, with a note about the rest."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters left out)"


def _text(value: object) -> str | None:
    """Return a text; some kernels send it as a list of lines, the form of notebook files."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        return "".join(value)
    return None


def _count(value: object) -> int | None:
    # MessagePack has no larger integer.
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


# --- displays ---------------------------------------------------------------------------------------------------------


def _display(
    kind: Literal["display_data", "execute_result", "update_display_data"],
    content: Mapping[str, Any],
    origin: Origin,
    store: Store,
) -> Display:
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, Mapping) else None
    return Display(
        kind=kind,
        data=_bundle(content.get("data"), origin, store),
        metadata=_metadata(content.get("metadata"), origin),
        display_id=display_id if isinstance(display_id, str) and len(display_id) <= _MAX_NAME else None,
        execution_count=_count(content.get("execution_count")),
        **_fields(origin),
    )


def _bundle(data: object, origin: Origin, store: Store) -> dict[str, Any]:
    execution_id = origin.execution_id
    if not isinstance(data, Mapping):
        logger.warning("execution %s: skipped a display whose data are %s", execution_id, type(data).__name__)
        return {}
    bundle: dict[str, Any] = {}
    left = _MAX_BUNDLE
    for mime_type, raw in data.items():
        if not isinstance(mime_type, str) or len(mime_type) > _MAX_NAME or len(bundle) == _MAX_MIME_TYPES:
            logger.warning("execution %s: skipped a value of an odd MIME type, or of one too many", execution_id)
            continue
        value = _value(mime_type.lower(), raw, origin)
        if value is None:
            logger.warning("execution %s: skipped a %s for %s", execution_id, type(raw).__name__, mime_type)
            continue
        size = len(value) if isinstance(value, bytes) or value.isascii() else len(_encode(value))
        if size <= min(MAX_INLINE, left):
            bundle[mime_type] = value
            left -= size
        else:
            encoded = value if isinstance(value, bytes) else _encode(value)
            blob = Blob(sha256=store(encoded), size=size, text=isinstance(value, str))
            bundle[mime_type] = msgspec.to_builtins(blob)
    return bundle


def _value(mime_type: str, raw: object, origin: Origin) -> str | bytes | None:
    if _is_json(mime_type):
        return _json(raw)
    text = _text(raw)
    if text is not None and _is_binary(mime_type):
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            logger.warning("execution %s: a value for %s is not base64; it stays text", origin.execution_id, mime_type)
    return text


def _is_json(mime_type: str) -> bool:
    essence = mime_type.partition(";")[0].strip()
    return essence == "application/json" or essence.endswith("+json")


def _is_binary(mime_type: str) -> bool:
    essence = mime_type.partition(";")[0].strip()
    kind = essence.partition("/")[0]
    return (
        kind in {"audio", "font", "video"}
        or (kind == "image" and not essence.endswith("+xml"))
        or essence in _BINARY_APPLICATION
    )


def _json(value: object) -> str | None:
    try:
        # Non-finite numbers and lone surrogates must stay as they are; msgspec is faster, but rejects them.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return None


def _metadata(value: object, origin: Origin) -> str:
    if not isinstance(value, Mapping) or not value:
        return "{}"
    text = _json(value)
    if text is None or len(text) > MAX_INLINE // 4:
        logger.warning("execution %s: left out a display's metadata: unreadable or too large", origin.execution_id)
        return "{}"
    return text


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
