"""The ZMQ channels to a kernel: signed Jupyter messages, on the event loop without a thread.

They are Unix sockets, or ports of the loopback interface for a kernel that supports nothing else.

Reading is synchronous and in slices, so that a flood of output leaves time for requests. Nothing here knows what a
message means.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import zmq
from jupyter_client.session import Session
from zmq.utils.monitor import recv_monitor_message

from runtimed.errors import KernelStartFailed
from runtimed.settings import MAX_SOCKET_PATH

__all__ = ["RECEIVE_HIGH_WATER", "ChannelName", "ConnectionFile", "KernelMessage", "Wire"]

logger = logging.getLogger(__name__)

ChannelName = Literal["shell", "control", "stdin", "iopub"]
KernelMessage = dict[str, Any]
"""A parsed message: channel, msg_type, parent_id, content, metadata, buffers; `foreign` if another client caused it."""

RECEIVE_HIGH_WATER: Final = 16
"""High-water mark of a kernel that waits for its reader, in messages. Kernels that drop messages instead have none."""

_SLICE: Final = 0.005
"""Time slice of reading, in seconds. Then the rest of the event loop has its turn."""
_BATCH_BYTES: Final = 2**20
"""Bytes of messages in one batch of a channel."""
_DELIMITER: Final = b"<IDS|MSG>"
_CHANNELS: Final = ("shell", "iopub", "stdin", "control", "hb")
_LOOPBACK: Final = "127.0.0.1"


class ConnectionFile:
    """The file that tells a kernel where to listen, and the key that signs its messages.

    Args:
        folder: The host's folder; contains the file and the sockets.
        generation: Number of the kernel within this host.
        kernel_name: The kernel's name in the file.
        transport: How the kernel can listen; for `tcp` free ports are chosen here.

    Raises:
        OSError: If there are no free ports.
    """

    def __init__(
        self, folder: Path, generation: int, kernel_name: str, transport: Literal["ipc", "tcp"] = "ipc"
    ) -> None:
        self.path = folder / "kernel.json"
        self.prefix = f"{folder}/z{generation}"
        self.key = secrets.token_hex(32).encode()
        self._kernel_name = kernel_name
        self._transport = transport
        numbers = range(1, len(_CHANNELS) + 1) if transport == "ipc" else _free_ports(len(_CHANNELS))
        self._ports = dict(zip(_CHANNELS, numbers, strict=True))

    def write(self) -> None:
        """Write it, readable by its owner only.

        Raises:
            KernelStartFailed: If the folder's path is too long for sockets.
            OSError: If it cannot be written.
        """
        size = len(os.fsencode(self.prefix)) + 2
        if self._transport == "ipc" and size > MAX_SOCKET_PATH:
            raise KernelStartFailed(
                f"The kernel's sockets would have paths of {size} bytes ({self.prefix}-1), the operating system takes "
                f"{MAX_SOCKET_PATH}; name a shorter data folder with RUNTIMED_DATA_DIR"
            )
        text = json.dumps(
            {
                "transport": self._transport,
                "ip": self.prefix if self._transport == "ipc" else _LOOPBACK,
                **{f"{channel}_port": port for channel, port in self._ports.items()},
                "key": self.key.decode(),
                "signature_scheme": "hmac-sha256",
                "kernel_name": self._kernel_name,
            },
            indent=2,
        )
        self.path.unlink(missing_ok=True)
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)

    def protect(self) -> None:
        """Restrict the sockets, which the kernel made by its umask, to their owner; ports have no mode."""
        if self._transport == "tcp":
            return
        for port in self._ports.values():
            with contextlib.suppress(FileNotFoundError):  # not every kernel has a heartbeat
                Path(f"{self.prefix}-{port}").chmod(0o600)

    def address(self, channel: ChannelName) -> str:
        """The ZMQ address of a channel."""
        port = self._ports[channel]
        return f"ipc://{self.prefix}-{port}" if self._transport == "ipc" else f"tcp://{_LOOPBACK}:{port}"

    def remove(self) -> None:
        """Remove the file and the sockets. Idempotent."""
        for path in (self.path, *(Path(f"{self.prefix}-{port}") for port in self._ports.values())):
            path.unlink(missing_ok=True)


class Wire:
    """The four channels to one kernel process.

    Args:
        connection: Where the kernel listens.
        received: Called on the event loop with the messages that arrived, in the order of each channel.
        waits: Whether the kernel waits while its output is not read. Else all of it must be read.
        soon: Whether the kernel's sockets appear within milliseconds; else within a second or so.
    """

    def __init__(
        self,
        connection: ConnectionFile,
        received: Callable[[list[KernelMessage]], None],
        *,
        waits: bool,
        soon: bool = False,
    ) -> None:
        self._connection = connection
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._session = Session(key=connection.key, username="runtimed", check_pid=False)
        self._session.pack = _dumper(self._session.pack)
        self._context = zmq.Context()
        self._sockets: dict[ChannelName, zmq.Socket[bytes]] = {}
        self._monitors: list[zmq.Socket[bytes]] = []
        self._connections = 0
        self._scheduled = False
        self._paused = False
        self._closed = False
        try:
            for channel in ("iopub", "shell", "stdin", "control"):
                self._sockets[channel] = self._connect(connection, channel, waits=waits, soon=soon)
        except BaseException:
            self.close()
            raise
        for sock in self._sockets.values():
            self._loop.add_reader(sock.fileno(), self._wake)
        self._wake()

    def _connect(
        self, connection: ConnectionFile, channel: ChannelName, *, waits: bool, soon: bool
    ) -> zmq.Socket[bytes]:
        sock = self._context.socket(zmq.SUB if channel == "iopub" else zmq.DEALER)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.RECONNECT_IVL, 1 if soon else 10)  # the kernel's sockets appear while it starts
        sock.setsockopt(zmq.RECONNECT_IVL_MAX, 2 if soon else 100)
        sock.setsockopt(zmq.SNDHWM, 0)
        sock.setsockopt(zmq.RCVHWM, RECEIVE_HIGH_WATER if channel == "iopub" and waits else 0)
        if channel == "iopub":
            sock.setsockopt(zmq.SUBSCRIBE, b"")
        else:
            # The identity of the shell channel routes an input_request.
            sock.setsockopt(zmq.IDENTITY, self._session.bsession)
        if channel in ("iopub", "shell"):
            self._monitors.append(sock.get_monitor_socket(zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED))
        sock.connect(connection.address(channel))
        return sock

    def send(
        self,
        channel: ChannelName,
        msg_type: str,
        content: dict[str, Any],
        *,
        msg_id: str | None = None,
        subshell_id: str | None = None,
        parent: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: Sequence[bytes] = (),
    ) -> str:
        """Send a message and return its id. A closed wire drops it."""
        header = self._session.msg_header(msg_type)
        if msg_id is not None:
            header["msg_id"] = msg_id
        if subshell_id is not None:
            header["subshell_id"] = subshell_id
        message = {"header": header, "parent_header": parent or {}, "metadata": metadata or {}, "content": content}
        sent_id: str = header["msg_id"]
        if self._closed:
            return sent_id
        frames = [*self._session.serialize(message), *buffers]
        self._sockets[channel].send_multipart(frames, zmq.NOBLOCK)
        self._wake()  # the descriptor is edge-triggered: a send may swallow the edge of a message that came meanwhile
        return sent_id

    def protect(self) -> None:
        """Restrict the kernel's sockets to their owner; call it once the kernel listens."""
        self._connection.protect()

    def pause_output(self) -> None:
        """Leave the output in the sockets, and then in the kernel, which waits."""
        self._paused = True

    def resume_output(self) -> None:
        """Read output again."""
        self._paused = False
        if not self._closed:
            self._wake()

    def drain(self) -> bool:
        """Read one slice now; True if anything arrived."""
        return not self._closed and self._read()[0]

    def is_connected(self) -> bool:
        """Whether the kernel can still send output or replies. If not, `drain` reads everything that it sent."""
        for monitor in self._monitors:
            with contextlib.suppress(zmq.Again):
                while True:
                    event = recv_monitor_message(monitor, zmq.NOBLOCK)["event"]
                    self._connections += 1 if event == zmq.EVENT_CONNECTED else -1
        return self._connections > 0

    def close(self) -> None:
        """Close all channels and drop unread messages. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for sock in self._sockets.values():
            self._loop.remove_reader(sock.fileno())
            sock.disable_monitor()
            sock.close(linger=0)
        for monitor in self._monitors:
            monitor.close(linger=0)
        self._context.term()

    # --- reading ---

    def _wake(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if not self._closed and self._read()[1]:
            self._wake()

    def _read(self) -> tuple[bool, bool]:
        """Hand over what is there, for one slice at most; return whether anything came, and whether more may wait."""
        deadline = time.monotonic() + _SLICE
        came = False
        while True:
            messages, more = self._batch(deadline)
            came = came or bool(messages)
            if messages:
                self._received(messages)
            if self._closed or not more:
                return came, False
            if time.monotonic() >= deadline:
                return came, True

    def _batch(self, deadline: float) -> tuple[list[KernelMessage], bool]:
        messages: list[KernelMessage] = []
        # Replies are few, and must not wait for the end of a flood; an execution's reply precedes its `idle`.
        more = self._take("shell", messages, None)
        more = self._take("control", messages, None) or more
        more = (not self._paused and self._take("iopub", messages, deadline)) or more
        if not more:  # a prompt waits for the text before it
            more = self._take("stdin", messages, None)
        return messages, more

    def _take(self, channel: ChannelName, messages: list[KernelMessage], deadline: float | None) -> bool:
        """Append what a channel has; return whether more may be there."""
        sock = self._sockets[channel]
        size = 0
        while True:
            try:
                frames = sock.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            message = self._parse(channel, frames)
            if message is not None:
                messages.append(message)
            size += sum(map(len, frames))
            if size >= _BATCH_BYTES or (deadline is not None and time.monotonic() >= deadline):
                return True

    def _parse(self, channel: ChannelName, frames: list[bytes]) -> KernelMessage | None:
        try:
            start = frames.index(_DELIMITER) + 1
            signature, header, parent, metadata, content = frames[start : start + 5]
            if not hmac.compare_digest(self._session.sign([header, parent, metadata, content]), signature):
                raise ValueError("its signature is wrong")
            parsed_header, parsed_parent = _load(header), _load(parent)
            return {
                "channel": channel,
                "msg_type": parsed_header["msg_type"],
                "parent_id": parsed_parent.get("msg_id") if isinstance(parsed_parent, dict) else None,
                "foreign": isinstance(parsed_parent, dict) and self._is_foreign(parsed_parent),
                "header": parsed_header,
                "metadata": _load(metadata),
                "content": _load(content),
                "buffers": frames[start + 5 :],
            }
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            logger.warning("skipped an unreadable message on %s: %s", channel, exc)
            return None

    def _is_foreign(self, parent: dict[str, Any]) -> bool:
        """Whether another client's code, or its widgets, caused the message.

        A question cannot cause one. What comes under a question is a thread's, since ipykernel 7 lets threads write
        under whatever request the kernel served last.
        """
        asker, asked = parent.get("session"), parent.get("msg_type")
        is_question = isinstance(asked, str) and asked.endswith("_request") and asked != "execute_request"
        return isinstance(asker, str) and asker != self._session.session and not is_question


def _free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that are free now."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind((_LOOPBACK, 0))
        return [sock.getsockname()[1] for sock in socks]


def _dumper(pack: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Let a lone surrogate in a cell's source reach the kernel, which decides about it."""

    def dump(value: Any) -> bytes:
        try:
            return pack(value)
        except UnicodeEncodeError:
            return json.dumps(value).encode("ascii")

    return dump


def _load(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Non-finite numbers and lone surrogates, which JSON forbids and Python's kernels send.
        return json.loads(data.decode("utf-8", "surrogateescape"))
