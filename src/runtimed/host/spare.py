"""A kernel's process that has imported everything and waits for its session. Nothing here chooses the session.

It waits before the kernel's application begins. So profiles, startup files, history and extensions are read with the
client's environment variables and in its folder. The rest of a start takes 30 ms of processor time instead of 300
(measured), and a waiting process takes none.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
from pathlib import Path
from typing import Final

from runtimed.host.guard import Guard
from runtimed.host.memory import Fence
from runtimed.host.process import KernelCommand, KernelProcess, existing_folder
from runtimed.host.wire import ConnectionFile

__all__ = ["Spare"]

HAND_OVER_TIMEOUT: Final = 1.0
"""Seconds within which the process must take its configuration; it has nothing else to do."""


class Spare:
    """The process until it belongs to a session; then it is an ordinary kernel's.

    Attributes:
        connection: Where it listens, once it has taken its configuration.

    Raises:
        OSError, ValueError: If the operating system refuses to start it.
    """

    def __init__(self, command: KernelCommand, guard: Guard, fence: Fence) -> None:
        self.connection: ConnectionFile | None = None
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        launcher = command.argv[: command.argv.index("-f")]
        try:
            with theirs:
                self.process = KernelProcess(
                    dataclasses.replace(command, argv=(*launcher, "--spare")), Path(), guard, fence, theirs.fileno()
                )
        except BaseException:
            self._socket.close()
            raise

    async def warm(self) -> bool:
        """Return when everything has been imported; False if the process has ended instead."""
        return bool(await self._loop.sock_recv(self._socket, 1))

    async def become(self, command: KernelCommand, connection: ConnectionFile) -> None:
        """Give it its configuration, and return when it has taken that.

        Args:
            command: The command of the kernel that it becomes; in the same interpreter.
            connection: Where it is to listen.

        Raises:
            OSError: If it does not take it in time; it must be ended then.
            KernelStartFailed: If the path of its sockets is too long.
        """
        connection.write()
        self.process.inherit(command.inherited)
        arguments = command.argv[command.argv.index("-f") :]
        message = {
            "environment": {_as_text(name): _as_text(value) for name, value in command.environment.items()},
            "cwd": _as_text(existing_folder(command.cwd, command.environment.get("HOME", ""))),
            "umask": None if command.inherited is None else command.inherited.umask,
            "arguments": [part.replace("{connection_file}", str(connection.path)) for part in arguments],
        }
        try:
            async with asyncio.timeout(HAND_OVER_TIMEOUT):
                await self._loop.sock_sendall(self._socket, json.dumps(message).encode())
                self._socket.shutdown(socket.SHUT_WR)
                taken = await self._loop.sock_recv(self._socket, 1)
        finally:
            self.close()
        if not taken:
            raise ConnectionError("its process has ended")
        self.connection = connection

    def close(self) -> None:
        """Release it. Idempotent; harmless after `become`."""
        self._socket.close()


def _as_text(value: str) -> str:
    """Return a text whose characters are the bytes that the operating system gets."""
    return os.fsencode(value).decode("latin-1")
