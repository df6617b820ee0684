"""What a host is told when it starts: one frame on its standard input.

It comes this way because it holds the environment variables of the client, which may be secrets: a command line, a
file or the host's own environment could be read by others.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import msgspec

from runtimed.errors import ProtocolError
from runtimed.protocol.codec import MAX_FRAME, pack, unpack
from runtimed.protocol.inherited import Inherited

__all__ = ["PACKAGES", "Bootstrap", "HostBootstrap", "encode_bootstrap", "read_bootstrap"]

B = TypeVar("B", bound="HostBootstrap")

PACKAGES: Final = "packages"
"""Folder in the host's own one for what is added to the running kernel; the launcher knows this name, too."""

_LENGTH: Final = struct.Struct(">I")


class HostBootstrap(msgspec.Struct, frozen=True, kw_only=True):
    """What every host needs to know. What depends on where it is, its launcher fills in.

    Attributes:
        folder: Its own folder, of mode 0700, with a path short enough for sockets: spool, log, sockets.
        epoch: Its id; its events are numbered within it.
        data_dir: The daemon's data folder.
        socket_path: Where the daemon listens; empty if it runs elsewhere.
        blobs_dir: The daemon's folder for large values; empty if the host has to keep them until they are fetched.
        notebook_label: Names the session in the log.
        environment: The environment variables of the client. Never written anywhere.
        spare: Whether this host gets ready for a session that is named later (`HostBecome`, `HostBecomeBrowser`).
            Until then `environment` holds only what cannot be changed later.
        lock: The descriptor of the folder's lock, inherited from the process that starts the host and held by it.
    """

    module: ClassVar[str]
    """What the host's process runs."""

    folder: str = ""
    epoch: str
    data_dir: str = ""
    socket_path: str = ""
    blobs_dir: str = ""
    notebook_label: str = ""
    environment: dict[str, str] = {}
    spare: bool = False
    lock: int = -1

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<{type(self).__name__} epoch={self.epoch!r} folder={self.folder!r}>"


class Bootstrap(HostBootstrap, frozen=True, kw_only=True):
    """What the host of a kernel needs to know.

    Attributes:
        kernel_type: What was asked for, for the log.
        env_source: `current`, `python:/path/of/an/interpreter`, `kernelspec:NAME`, or the label of an environment that
            was made for it (`uv:inline`).
        interpreter: The client's Python, or that of the environment that was made.
        request: How the client had asked for the kernel (`StartKernel`, encoded), for the daemon to choose anew at a
            restart: it holds the environment variables too, and is kept in memory only.
        marker: A file of that environment on which the host holds a shared lock, as long as it lives; empty for none.
        cwd: The folder in which the kernel works.
        inherited: What the kernel is to have from its client; None for what the host has.
        max_memory: The most that the kernel and what it starts may use, in bytes; None for no limit.
    """

    module: ClassVar[str] = "runtimed.host"

    kernel_type: str
    env_source: str
    interpreter: str = ""
    marker: str = ""
    request: bytes = b""
    cwd: str = ""
    inherited: Inherited | None = None
    max_memory: int | None = None

    def __repr__(self) -> str:
        """Leave the environment out: a repr ends up in logs and tracebacks."""
        return f"<Bootstrap epoch={self.epoch!r} env_source={self.env_source!r} folder={self.folder!r}>"


def encode_bootstrap(bootstrap: HostBootstrap) -> bytes:
    """Return the frame for the host's standard input.

    Raises:
        ProtocolError: If it is larger than a frame may be.
    """
    body = pack(msgspec.to_builtins(bootstrap))
    if len(body) > MAX_FRAME:
        raise ProtocolError(f"what the host is told, environment variables included, is too large: {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


def read_bootstrap(fd: int, kind: type[B]) -> B:
    """Read the frame from a file descriptor, waiting for it.

    Args:
        fd: Where it comes.
        kind: What it says.

    Raises:
        ProtocolError: If it ends early or holds something else.
    """
    (length,) = _LENGTH.unpack(_read_exactly(fd, _LENGTH.size))
    if length > MAX_FRAME:
        raise ProtocolError(f"a frame of {length} bytes is larger than allowed ({MAX_FRAME} bytes)")
    value = unpack(_read_exactly(fd, length))
    try:
        bootstrap = msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise ProtocolError(f"not a bootstrap frame: {exc}") from exc
    if not Path(bootstrap.folder).is_dir():
        raise ProtocolError(f"the host's folder {bootstrap.folder} does not exist")
    return bootstrap


def _read_exactly(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        read = os.read(fd, size - len(data))
        if not read:
            raise ProtocolError(f"the standard input ended after {len(data)} of {size} bytes")
        data += read
    return bytes(data)
