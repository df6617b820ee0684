"""The sockets of a kernel: reads and checks the frontend's messages, signs and sends the kernel's.

A message with a wrong signature is logged and dropped. A frontend that reads slowly loses nothing; see `iopub`.

Source: Messaging in Jupyter 5.5, "Introduction" and "The wire protocol"; JEP 65 for the welcome.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import zmq
from jupyter_client.session import DELIM, Session

from runtimed.errors import RuntimedError
from runtimed.jupyter.proxy_kernel.iopub import Publisher
from runtimed.jupyter.proxy_kernel.messages import AskInput, Outgoing, Publish, Reply, Request

__all__ = ["PORTS", "Sockets"]

logger = logging.getLogger(__name__)

PORTS: Final = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
"""The ports of a connection file."""

_LINGER: Final = 1000
"""Milliseconds that the sockets have to send their last messages."""

_NOTHING: Final[Mapping[str, Any]] = {}


class Sockets:
    """The five sockets, in the running event loop.

    Attributes:
        ports: The ports that are bound, by their names in a connection file.
    """

    def __init__(self, connection: Mapping[str, Any], receive: Callable[[Request], None]) -> None:
        """Bind them.

        Args:
            connection: The content of the connection file. Port 0 stands for a free one.
            receive: Called with each message of a frontend.

        Raises:
            RuntimedError: If one cannot be bound.
        """
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._session = Session(
            key=str(connection.get("key", "")).encode(),
            signature_scheme=connection.get("signature_scheme") or "hmac-sha256",
            username="runtimed",
        )
        self._context = zmq.Context()
        self._sent: set[Any] = set()
        self._parent, self._packed_parent = _NOTHING, _pack(_NOTHING)
        kinds = (zmq.ROUTER, zmq.XPUB, zmq.ROUTER, zmq.ROUTER, zmq.REP)
        self._sockets = dict(zip(PORTS, map(self._context.socket, kinds), strict=True))
        self._iopub = self._sockets["iopub_port"]
        self._publisher = Publisher(self._iopub)
        self.ports = {name: self._bind(socket, connection, name) for name, socket in self._sockets.items()}
        channels: tuple[Literal["shell", "control", "stdin"], ...] = ("shell", "control", "stdin")
        self._channels = {channel: self._sockets[f"{channel}_port"] for channel in channels}
        heart = self._sockets["hb_port"]
        self._takers: dict[Any, Callable[[Sequence[bytes]], object]] = {
            **{socket: functools.partial(self._heard, channel) for channel, socket in self._channels.items()},
            self._iopub: self._subscribed,
            heart: heart.send_multipart,
        }
        for socket in self._takers:
            self._loop.add_reader(socket.fileno(), self._drain, socket)
            self._drain(socket)

    @staticmethod
    def _bind(socket: Any, connection: Mapping[str, Any], name: str) -> int:
        socket.linger = _LINGER
        socket.rcvhwm = 0
        if name == "iopub_port":
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # each frontend that subscribes is welcomed
        elif name != "hb_port":
            socket.sndhwm = 0  # at a limit, ZMQ would drop replies
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a frontend that reconnects takes its identity along
        ip, port = connection["ip"], int(connection.get(name, 0))
        try:
            if connection.get("transport", "tcp") == "ipc":
                socket.bind(f"ipc://{ip}-{port}")
                return port
            if port == 0:
                return int(socket.bind_to_random_port(f"tcp://{ip}"))
            socket.bind(f"tcp://{ip}:{port}")
        except zmq.ZMQError as exc:
            raise RuntimedError(f"The {name} {port} of the connection file cannot be bound: {exc}") from exc
        return port

    def close(self) -> None:
        """Send what the sockets have taken, within a second, and close."""
        self._publisher.close()
        for socket in self._sockets.values():
            self._loop.remove_reader(socket.fileno())
            socket.close()
        self._context.term()

    # --- reading ---

    def _drain(self, socket: Any) -> None:
        # The descriptor is edge-triggered: whatever has arrived is read now.
        while not socket.closed and socket.get(zmq.EVENTS) & zmq.POLLIN:
            self._takers[socket](socket.recv_multipart(zmq.NOBLOCK))
        if socket is self._iopub and not socket.closed:
            self._publisher.flush()

    def _look_again(self) -> None:
        """Read what arrived at the sockets that sent in this turn of the loop."""
        sent, self._sent = self._sent, set()
        for socket in sent:
            self._drain(socket)

    def _heard(self, channel: Literal["shell", "control", "stdin"], parts: Sequence[bytes]) -> None:
        try:
            identities, rest = self._session.feed_identities(list(parts))
            message = self._session.deserialize(rest)
            request = Request(
                channel=channel,
                identities=identities,
                header=message["header"],
                metadata=message["metadata"],
                content=message["content"],
                buffers=[bytes(buffer) for buffer in message["buffers"]],
            )
        except Exception as exc:  # noqa: BLE001  # anybody may send anything
            logger.warning("dropped a message on %s: %s", channel, exc)
            return
        self._receive(request)

    def _subscribed(self, parts: Sequence[bytes]) -> None:
        frame = parts[0]
        if frame[:1] == b"\x01":
            content = {"subscription": frame[1:].decode("utf-8", "replace")}
            self._send(self._iopub, "iopub_welcome", content, ident=[frame[1:]] if frame[1:] else ())

    # --- writing ---

    async def published(self) -> None:
        """Wait until the frontends have room for more on IOPub."""
        await self._publisher.drained()

    def send(self, message: Outgoing) -> str:
        """Send a message; return its id."""
        match message:
            case Publish(msg_type=msg_type, content=content, parent=parent):
                topic = f"kernel.{self._session.session}.{msg_type}".encode()
                return self._send(
                    self._iopub,
                    msg_type,
                    content,
                    parent=parent,
                    ident=[topic],
                    metadata=message.metadata,
                    buffers=message.buffers,
                )
            case Reply(request=request, content=content, metadata=metadata):
                return self._send(
                    self._channels[request.channel],
                    request.msg_type.replace("_request", "_reply"),
                    content,
                    parent=request.header,
                    ident=request.identities,
                    metadata=metadata,
                )
            case AskInput(request=request, prompt=prompt, password=password):
                content = {"prompt": prompt, "password": password}
                stdin = self._channels["stdin"]
                return self._send(stdin, "input_request", content, parent=request.header, ident=request.identities)

    def _send(
        self,
        socket: Any,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        parent: Mapping[str, Any] = _NOTHING,
        ident: Sequence[bytes] = (),
        metadata: Mapping[str, Any] = _NOTHING,
        buffers: Sequence[bytes] = (),
    ) -> str:
        header = self._session.msg_header(msg_type)
        if parent is not self._parent:  # all messages of an execution have the same
            self._parent, self._packed_parent = parent, _pack(parent)
        signed = [_pack(header), self._packed_parent, _pack(metadata), _pack(content)]
        parts = [*ident, DELIM, self._session.sign(signed), *signed, *buffers]
        if socket is self._iopub:
            self._publisher.send(parts)
        else:
            socket.send_multipart(parts)
        # Sending may take the edge that would have announced a message.
        if not self._sent:
            self._loop.call_soon(self._look_again)
        self._sent.add(socket)
        return str(header["msg_id"])


def _pack(value: Mapping[str, Any]) -> bytes:
    """Return JSON in UTF-8. What has no encoding, a lone surrogate, is escaped, which every reader of JSON accepts."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, default=msgspec.to_builtins).encode("ascii")
