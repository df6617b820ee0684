"""The end of a kernel's process: brings it about, reads the rest of the output, and names the reason."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Final

from runtimed.display import readable_size
from runtimed.host.outbox import Outbox
from runtimed.host.process import Ended, KernelCommand, KernelProcess, missing_ipykernel
from runtimed.host.wire import Wire

__all__ = ["ask_to_end", "drain", "explain", "force_to_end"]

_POLITE: Final = 3.0
"""Seconds within which a kernel must end by itself."""

_POLITE_BUSY: Final = 1.0
"""The same for a kernel whose code has just been interrupted."""

_TERMINATE: Final = 0.5
"""Seconds between two signals."""

_HELD_OPEN: Final = 1.0
"""Seconds of silence after which a dead kernel's sockets are abandoned that a forked process keeps open."""


async def ask_to_end(process: KernelProcess, wire: Wire, *, restart: bool, is_busy: bool) -> None:
    """Ask a kernel to end, and force it if it does not.

    Args:
        process: The kernel's process.
        wire: The channels to the kernel.
        restart: Whether the kernel is told that another one takes its place.
        is_busy: Whether its code was interrupted for this.
    """
    wire.send("control", "shutdown_request", {"restart": restart})
    await _wait(process, _POLITE_BUSY if is_busy else _POLITE)
    await force_to_end(process)


async def force_to_end(process: KernelProcess) -> None:
    """Signal a process until it has ended; harmless if it has."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.ended.done():
            return
        process.send_signal(number)
        await _wait(process, _TERMINATE)


async def _wait(process: KernelProcess, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.shield(process.ended)


async def drain(wire: Wire, outbox: Outbox) -> None:
    """Read what a dead kernel has left in its sockets."""
    loop = asyncio.get_running_loop()
    quiet_since = loop.time()
    while loop.time() - quiet_since < _HELD_OPEN:
        is_connected = wire.is_connected()  # before the read: what was sent before the end is there
        if wire.drain() or outbox.stuck:
            quiet_since = loop.time()
        elif not is_connected:
            break
        await asyncio.sleep(0.005)


def explain(ended: Ended, max_memory: int | None, starting: KernelCommand | None) -> str:
    """Return a sentence that says why a kernel ended without being asked to.

    Args:
        ended: How its process ended.
        max_memory: Its memory limit, in bytes.
        starting: The command, if it ended before its first answer; else None.
    """
    if ended.over_limit and max_memory is not None:
        return (
            "The kernel was killed because it and what it had started used more memory than its limit of "
            f"{readable_size(max_memory)} (RUNTIMED_MAX_KERNEL_MEMORY)"
        )
    if starting is not None:
        missing = missing_ipykernel(starting, ended.stderr)
        return missing or f"The kernel ended while it started ({ended.sentence})"
    if ended.exit_code == 0:
        return "The kernel ended itself (exit code 0)"
    return f"The kernel died ({ended.sentence})"
