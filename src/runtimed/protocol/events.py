"""What happens in a session, as frozen tagged values: the host makes them, storage keeps them, clients fold them.

Text of JSON MIME types stays JSON text, and large values are replaced by a `Blob` that names them, so that an event
always fits into one frame.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from runtimed.protocol.comms import CommBody

__all__ = [
    "MAX_INLINE",
    "Blob",
    "BrowserLogged",
    "BrowserState",
    "BrowserUsed",
    "CellChanged",
    "Clear",
    "Comm",
    "Display",
    "EnvProgress",
    "Event",
    "Failed",
    "Finished",
    "InputRequested",
    "KernelState",
    "Omitted",
    "Queued",
    "Started",
    "Stream",
]

MAX_INLINE: Final = 2**20
"""Largest text or bytes value inside an event, in UTF-8 bytes; longer streams are split, other values become blobs."""


class Blob(msgspec.Struct, frozen=True, tag="blob", tag_field="t"):
    """A large value, kept in the blob folder.

    Attributes:
        sha256: The value's SHA-256 in hexadecimal; its name.
        size: Its length in bytes.
        text: True if the value is text (UTF-8, with surrogates passed), False for bytes.
    """

    sha256: str
    size: int
    text: bool


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t"):
    """Common to all: when it happened (Unix time in seconds), and to which execution of which cell."""

    at: float
    execution_id: str | None = None
    cell_id: str | None = None


class Queued(_Event, frozen=True, tag="queued"):
    """An execution was accepted. Made by the room."""

    author: str


class Started(_Event, frozen=True, tag="started"):
    """The kernel began with an execution.

    `execution_count` is that of the kernel's execute_input message, None for a kernel that sends none.
    """

    execution_count: int | None = None


class Stream(_Event, frozen=True, tag="stream"):
    """Text written to `stdout` or `stderr`, at most MAX_INLINE bytes."""

    name: str
    text: str


class Display(_Event, frozen=True, tag="display"):
    """A display_data, execute_result or update_display_data message.

    `data` maps a MIME type to text, to bytes for binary types (already decoded from base64), or to the map form of a
    `Blob`; the value of a JSON MIME type is its JSON text. `metadata` is JSON text as well.
    """

    kind: Literal["display_data", "execute_result", "update_display_data"]
    data: dict[str, Any]
    metadata: str = "{}"
    display_id: str | None = None
    execution_count: int | None = None


class Failed(_Event, frozen=True, tag="failed"):
    """An error message of the kernel: the user's code raised."""

    ename: str
    evalue: str
    traceback: tuple[str, ...] = ()


class Clear(_Event, frozen=True, tag="clear"):
    """A clear_output message."""

    wait: bool = False


class InputRequested(_Event, frozen=True, tag="input"):
    """The kernel waits for a line from the client that started the execution."""

    prompt: str
    password: bool = False


class Finished(_Event, frozen=True, tag="finished"):
    """The last event of an execution, but for late outputs.

    `cancelled` executions never began. `died` says that the kernel ended under it; a `Failed` event before says how.
    `payload` is JSON text: the list of what the kernel asks of the frontend that ran the cell, without what it shows.
    `user_expressions` is JSON text: what came of each of those that were asked for, as execute_reply has it.
    `exit_code` or `signal` says how the kernel's process ended where the execution itself may have ended it.
    """

    status: Literal["ok", "error", "cancelled", "died"]
    execution_count: int | None = None
    message: str | None = None
    payload: str = "[]"
    user_expressions: str = "{}"
    exit_code: int | None = None
    signal: int | None = None


class KernelState(_Event, frozen=True, tag="kernel"):
    """The kernel's status changed.

    Attributes:
        pid: The kernel's process id while it lives.
        generation: 0 for the first kernel of a host, one more after each restart.
        exit_code: Of the ended process, for `dead`; None when a signal ended it.
        signal: The signal that ended it.
        stderr: The last lines it wrote to its standard error before it ended.
        expected: True if somebody asked for the end.
        reason: What went wrong, in a sentence; None for an end that was asked for.
        language: The kernel's language, once known.
        keeps_queue: For `restarting`: what waits is for the next kernel, since the code itself ended this one.
    """

    status: Literal["starting", "idle", "busy", "restarting", "dead"]
    pid: int | None = None
    generation: int = 0
    exit_code: int | None = None
    signal: int | None = None
    stderr: str = ""
    expected: bool = False
    reason: str | None = None
    language: str | None = None
    keeps_queue: bool = False


class BrowserState(_Event, frozen=True, tag="browser"):
    """The state of a session's browser changed.

    Attributes:
        pid: Chromium's process id while it lives.
        expected: True if somebody asked for the end.
        reason: How it ended, or why it did not start, in sentences.
        error: The name of the error for which it did not start; None for one of no other kind.
        data: That error's attributes.
        config: What it starts with, while it does; see `runtimed.browser.recorded`.
    """

    status: Literal["starting", "ready", "dead"]
    pid: int | None = None
    expected: bool = False
    reason: str | None = None
    error: str | None = None
    data: dict[str, Any] = {}  # msgspec copies it for each
    config: dict[str, Any] = {}  # as above


class BrowserLogged(_Event, frozen=True, tag="logged"):
    """One entry of a browser session's action log.

    Attributes:
        entry: The fields of `LogEntry`, but for `image`.
        image: The entry's picture, JPEG.
    """

    entry: dict[str, Any]
    image: Blob | None = None


class BrowserUsed(_Event, frozen=True, tag="used"):
    """A browser was used by way of its host's relay. Never stored: it comes as an event of number 0."""


class EnvProgress(_Event, frozen=True, tag="env"):
    """One step in the making of a kernel's environment. Made by the room.

    Attributes:
        message: The step for people, one line.
        done: Bytes of the downloads so far, where that is known.
        total: Bytes of the downloads that have begun, where that is known.
    """

    step: Literal["resolve", "download", "install", "start"]
    message: str
    done: int | None = None
    total: int | None = None


class Comm(_Event, frozen=True, tag="comm"):
    """The kernel has sent a message of a comm. Never stored: it is sent at most once, to those who follow the session.

    Its execution is the one whose code has caused it, if any did.
    """

    message: CommBody


class CellChanged(_Event, frozen=True, tag="cell"):
    """A cell was added, edited, moved or deleted, or its outputs were cleared. Made by the room."""

    change: Literal["added", "source", "moved", "deleted", "metadata", "type", "cleared", "executed"]
    author: str


class Omitted(_Event, frozen=True, tag="omitted"):
    """From here on, outputs are not for whoever reads: the execution gave more of them than the daemon's limit.

    Made for one reader, and never stored. It counts until a `Clear`; before that, or at the end, it comes again with
    the final size.

    Attributes:
        after: Number of the last event before the first of those outputs.
        size: Their bytes, as far as they are stored now.
    """

    after: int
    size: int


Event = (
    Queued
    | Started
    | Stream
    | Display
    | Failed
    | Clear
    | InputRequested
    | Finished
    | KernelState
    | BrowserState
    | BrowserLogged
    | BrowserUsed
    | EnvProgress
    | CellChanged
    | Comm
    | Omitted
)
