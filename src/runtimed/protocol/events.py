"""The events of a session, as frozen tagged values: hosts and rooms make them, storage keeps them, clients fold them.

Values of JSON MIME types stay JSON text, and large values are replaced by a `Blob` reference, so that an event always
fits into one frame.
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
    "CommsMissed",
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
"""Largest text or bytes value in an event, in bytes of UTF-8. Longer streams are split, other values become blobs."""


class Blob(msgspec.Struct, frozen=True, tag="blob", tag_field="t"):
    """A reference to a large value in the blob store.

    Attributes:
        sha256: SHA-256 of the value in hexadecimal, which is the blob's name.
        size: Size of the value in bytes.
        text: True for text (UTF-8, surrogates passed), False for bytes.
    """

    sha256: str
    size: int
    text: bool


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t"):
    """The fields of all events.

    Attributes:
        at: Unix time in seconds.
        execution_id: The execution that it belongs to.
        cell_id: The cell that it belongs to.
    """

    at: float
    execution_id: str | None = None
    cell_id: str | None = None


class Queued(_Event, frozen=True, tag="queued"):
    """An execution was queued. Made by the room."""

    author: str


class Started(_Event, frozen=True, tag="started"):
    """The kernel started an execution.

    `execution_count` comes from the kernel's execute_input message, None for a kernel that sends none.
    """

    execution_count: int | None = None


class Stream(_Event, frozen=True, tag="stream"):
    """Text written to `stdout` or `stderr`, at most MAX_INLINE bytes of UTF-8."""

    name: str
    text: str


class Display(_Event, frozen=True, tag="display"):
    """A display_data, execute_result or update_display_data message.

    `data` maps a MIME type to text, to bytes for binary types (decoded from base64), or to a `Blob` in map form. Values
    of JSON MIME types, and `metadata`, are JSON text.
    """

    kind: Literal["display_data", "execute_result", "update_display_data"]
    data: dict[str, Any]
    metadata: str = "{}"
    display_id: str | None = None
    execution_count: int | None = None


class Failed(_Event, frozen=True, tag="failed"):
    """The user's code raised an exception.

    Attributes:
        is_published: Whether the kernel published it as an output; else only its reply has it.
    """

    ename: str
    evalue: str
    traceback: tuple[str, ...] = ()
    is_published: bool = True


class Clear(_Event, frozen=True, tag="clear"):
    """A clear_output message."""

    wait: bool = False


class InputRequested(_Event, frozen=True, tag="input"):
    """The kernel waits for a line of input from the client that requested the execution."""

    prompt: str
    password: bool = False


class Finished(_Event, frozen=True, tag="finished"):
    """The end of an execution. Only late outputs may follow.

    Attributes:
        status: `cancelled` for an execution that never started; `died` if the kernel ended during it, with the details
            in the `Failed` event before.
        message: Why it did not succeed, a sentence.
        payload: JSON text: the payload of execute_reply, without pages, which become outputs.
        user_expressions: JSON text: the values of the requested user expressions, as in execute_reply.
        exit_code: Exit code of the kernel's process, if the execution may have ended it.
        signal: The signal that ended the process, likewise.
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
        generation: 0 for the first kernel of a host, incremented with each restart.
        exit_code: For `dead`, the exit code of the process; None if a signal ended it.
        signal: The signal that ended it.
        stderr: The last lines of its standard error.
        expected: Whether the end was requested.
        reason: What went wrong, a sentence; None for a requested end.
        language: The kernel's language, once known.
        keeps_queue: For `restarting`: whether the queue waits for the next kernel, since the code ended this one.
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
        expected: Whether the end was requested.
        reason: How it ended, or why it did not start, in sentences.
        error: Class name of the error that prevented the start; None for the general one.
        data: That error's attributes.
        config: For `starting`, the configuration; see `runtimed.browser.recorded`.
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
        entry: The fields of `LogEntry`, except `image`.
        image: The entry's screenshot, JPEG.
    """

    entry: dict[str, Any]
    image: Blob | None = None


class BrowserUsed(_Event, frozen=True, tag="used"):
    """A browser was used through its host's relay. Never stored: its number is 0."""


class EnvProgress(_Event, frozen=True, tag="env"):
    """Progress in making a kernel's environment. Made by the room.

    Attributes:
        message: The step for people, one line.
        done: Bytes downloaded so far, if known.
        total: Total size of the downloads that have started, in bytes, if known.
    """

    step: Literal["resolve", "download", "install", "start"]
    message: str
    done: int | None = None
    total: int | None = None


class Comm(_Event, frozen=True, tag="comm"):
    """The kernel sent a comm message. Never stored: it is delivered at most once, to the present subscribers.

    Its execution is the one whose code caused it, if any.
    """

    message: CommBody


class CommsMissed(_Event, frozen=True, tag="comms_missed"):
    """Messages of comms did not reach whoever follows them. Never stored.

    Attributes:
        count: How many; None if that is unknown, and may be none.
        message: Why, in a sentence; None if the reader was too slow.
    """

    count: int | None = None
    message: str | None = None


class CellChanged(_Event, frozen=True, tag="cell"):
    """A cell was added, edited, moved or deleted, or its outputs were cleared. Made by the room."""

    change: Literal["added", "source", "moved", "deleted", "metadata", "type", "cleared", "executed"]
    author: str


class Omitted(_Event, frozen=True, tag="omitted"):
    """Further outputs are omitted, since the execution has more of them than the daemon's limit.

    Made for one reader, never stored. It applies until a `Clear`. Before that, or at the end, it is sent again with the
    final size.

    Attributes:
        after: Number of the last event before the first omitted output.
        size: Size of the omitted outputs so far, in bytes.
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
    | CommsMissed
    | Omitted
)
