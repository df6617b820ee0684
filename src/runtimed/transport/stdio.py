"""A connection over the standard input and output of a child process: a worker, or a command that leads to a machine.

Both are one end of a socket pair, whose other end the parent has. Either process sees the other's death as the end of
the connection.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from runtimed.protocol.connection import Side
from runtimed.transport.channel import Channel, ChannelHandler

__all__ = ["connect_parent", "start_child"]

_INPUT: Final = 0
_OUTPUT: Final = 1
_ERRORS: Final = 2

S = TypeVar("S", bound=Side[Any])


async def start_child(
    argv: Sequence[str],
    side: S,
    handler: Callable[[Channel[S]], ChannelHandler[Any]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    stderr: int | None = None,
) -> tuple[Channel[S], subprocess.Popen[bytes]]:
    """Start a child and open a channel to it.

    The child sees end-of-file when the channel closes, and should end then; the caller waits for the process.

    Args:
        argv: The command and its arguments. The command is looked up in `PATH`.
        side: The parent's side of the connection.
        handler: Makes the channel's owner.
        env: The child's environment variables; None for this process's.
        cwd: The child's working directory; None for this process's.
        stderr: File descriptor of the child's standard error, or one of `subprocess`'s constants; None for this
            process's.

    Raises:
        OSError: If the command cannot be started.
    """
    near, far = socket.socketpair()
    try:
        with far:
            process = subprocess.Popen(  # noqa: ASYNC220  # takes 1 ms; nothing waits on it
                argv, stdin=far.fileno(), stdout=far.fileno(), stderr=stderr, env=env, cwd=cwd
            )
        channel = await _open(near, side, handler)
    except BaseException:
        near.close()
        raise
    return channel, process


async def connect_parent(side: S, handler: Callable[[Channel[S]], ChannelHandler[Any]]) -> Channel[S]:
    """Open the channel to the process that started this one with `start_child`.

    Afterwards standard input is empty and standard output is standard error: nothing that this process or a child of it
    prints gets between the frames.

    Args:
        side: The child's side of the connection.
        handler: Makes the channel's owner.

    Raises:
        OSError: If standard input is not a socket.
    """
    fd = os.dup(_INPUT)
    try:
        sock = socket.socket(fileno=fd)
    except OSError as exc:
        os.close(fd)
        raise OSError(exc.errno, "standard input is not a socket: another process of runtimed starts this one") from exc
    try:
        os.dup2(_ERRORS, _OUTPUT)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, _INPUT)
        os.close(null)
        return await _open(sock, side, handler)
    except BaseException:
        sock.close()
        raise


async def _open(sock: socket.socket, side: S, handler: Callable[[Channel[S]], ChannelHandler[Any]]) -> Channel[S]:
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    _transport, channel = await loop.create_unix_connection(lambda: Channel(side, handler), sock=sock)
    return channel
