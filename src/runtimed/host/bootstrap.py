"""The configuration of a host: one frame on its standard input.

Standard input keeps it from other users. It contains the client's environment variables, which may be secrets; a
command line, a file or the host's own environment could be read by others.
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
"""Subfolder of a host's folder for packages added to the running kernel. The launcher knows this name, too."""

_LENGTH: Final = struct.Struct(">I")


class HostBootstrap(msgspec.Struct, frozen=True, kw_only=True):
    """What every host needs to know. The launcher fills in what depends on the place.

    Attributes:
        folder: The host's folder, of mode 0700, with a path short enough for sockets: spool, log, sockets.
        epoch: The host's id; its events are numbered within it.
        data_dir: The daemon's data folder.
        socket_path: The daemon's socket; empty if the daemon runs on another machine.
        blobs_dir: The daemon's folder for large values; empty if the host keeps them until they are fetched.
        notebook_label: The session's name in the log.
        environment: The client's environment variables. Never written anywhere.
        spare: Whether this host prepares for a session that is named later (`HostBecome`, `HostBecomeBrowser`).
            Until then `environment` contains only what cannot be changed later.
        lock: Descriptor of the folder's lock, inherited from the process that starts the host.
    """

    module: ClassVar[str]
    """Module that the host's process runs."""

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
        kernel_type: The kind that was asked for, for the log.
        env_source: `current`, `python:/path/of/an/interpreter`, `kernelspec:NAME`, or the label of an environment that
            was made for it (`uv:inline`).
        interpreter: The client's Python, or that of the environment that was made.
        request: The client's request (`KernelRequest`, encoded), from which the daemon chooses anew at a restart. It
            contains the environment variables, too, and stays in memory.
        marker: A file of that environment, on which the host holds a shared lock while it lives; empty for none.
        cwd: The kernel's working directory.
        inherited: What the kernel gets from its client; None for what the host has.
        max_memory: Limit for the kernel and its child processes together, in bytes; None for no limit.
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
        ProtocolError: If it exceeds the largest frame.
    """
    body = pack(msgspec.to_builtins(bootstrap))
    if len(body) > MAX_FRAME:
        raise ProtocolError(f"what the host is told, environment variables included, is too large: {len(body)} bytes")
    return _LENGTH.pack(len(body)) + body


def read_bootstrap(fd: int, kind: type[B]) -> B:
    """Read the frame from a file descriptor; blocks until it is complete.

    Args:
        fd: The descriptor.
        kind: The struct to decode.

    Raises:
        ProtocolError: If the input ends early or is something else.
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
