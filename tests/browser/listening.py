"""Listens where nobody should ask: what arrives, by TCP, by UDP and by multicast DNS."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator

__all__ = ["Listening", "listen"]

_MDNS = ("224.0.0.251", 5353)


class Listening:
    """What has arrived so far.

    Attributes:
        port: Of 127.0.0.1, TCP and UDP.
        paths: What was asked for by HTTP; the bytes that came first if it was no HTTP; empty if none came.
        packets: The number of UDP packets.
        names: The packets of multicast DNS, from whomever.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.paths: set[str] = set()
        self.packets = 0
        self.names: list[bytes] = []


@contextlib.contextmanager
def listen() -> Iterator[Listening]:
    """Listen for as long as the block lasts. Each connection is closed after what came first."""
    with contextlib.ExitStack() as ends:
        tcp = ends.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
        udp = ends.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(tcp.getsockname())
        names = ends.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        names.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        names.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        names.bind(("", _MDNS[1]))
        names.setsockopt(
            socket.IPPROTO_IP,
            socket.IP_ADD_MEMBERSHIP,
            struct.pack("4sl", socket.inet_aton(_MDNS[0]), socket.INADDR_ANY),
        )
        listening = Listening(tcp.getsockname()[1])
        ended, end = socket.socketpair()
        ends.enter_context(ended)
        thread = threading.Thread(target=_serve, args=(listening, tcp, udp, names, ended))
        thread.start()
        try:
            yield listening
        finally:
            end.close()
            thread.join()


def _serve(
    listening: Listening, tcp: socket.socket, udp: socket.socket, names: socket.socket, ended: socket.socket
) -> None:
    with selectors.DefaultSelector() as selector:
        for one in (tcp, udp, names, ended):
            selector.register(one, selectors.EVENT_READ)
        while True:
            events = selector.select()
            if [key.fileobj for key, _ in events] == [ended]:  # all that arrived was read
                for key in list(selector.get_map().values()):
                    if key.fileobj not in (tcp, udp, names, ended):
                        key.fileobj.close()  # type: ignore[union-attr]  # a socket
                return
            for key, _ in events:
                if key.fileobj is tcp:
                    selector.register(tcp.accept()[0], selectors.EVENT_READ)
                elif key.fileobj is udp:
                    udp.recv(65_536)
                    listening.packets += 1
                elif key.fileobj is names:
                    listening.names.append(names.recv(65_536))
                elif key.fileobj is not ended:
                    _read(listening, key.fileobj)  # type: ignore[arg-type]  # a socket
                    selector.unregister(key.fileobj)


def _read(listening: Listening, connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        first = connection.recv(4096).decode("latin-1")
        words = first.split(" ", 2)
        listening.paths.add(words[1] if len(words) == 3 and words[1].startswith("/") else first[:20])
