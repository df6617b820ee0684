"""A host as a process: reads its bootstrap frame, says when it listens, and lives until what it owns has ended."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

from runtimed.errors import RuntimedError
from runtimed.host.bootstrap import HostBootstrap, read_bootstrap
from runtimed.host.lifetime import label_log
from runtimed.host.log_file import LogFile

__all__ = ["run_host"]

B = TypeVar("B", bound=HostBootstrap)

logger = logging.getLogger(__name__)

READY: Final = b"ready\n"
"""Written to the standard output when the host listens; anything else is the sentence that says why not."""


def run_host(kind: type[B], live: Callable[[B, Callable[[], None]], Coroutine[Any, Any, None]]) -> int:
    """Run a host; return its exit code.

    Args:
        kind: What it is told.
        live: Its life; is given what it was told, and is to call its second argument when it listens.
    """
    try:
        bootstrap = read_bootstrap(sys.stdin.fileno(), kind)
        log = _open_log(Path(bootstrap.folder) / "host.log", bootstrap.notebook_label)
    except (RuntimedError, OSError) as exc:
        return _give_up(exc)
    os.chdir("/")  # no mounted file system is kept busy
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(live(bootstrap, lambda: _say_ready(log)))
    except Exception as exc:
        logger.exception("the host ends")
        return _give_up(exc)
    logger.info("the host ends")
    return 0


def _open_log(path: Path, label: str) -> int:
    """Log to a file, and return its descriptor."""
    file = LogFile(path)
    logging.basicConfig(level=logging.INFO, handlers=[file])
    label_log(label)
    return file.fd


def _say_ready(log: int) -> None:
    """Tell whoever started the host, and let go of the three standard streams."""
    with contextlib.suppress(OSError):  # nobody may be listening any more
        os.write(1, READY)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(log, 2)  # what this process or a library of it may print
    os.close(nothing)


def _give_up(error: Exception) -> int:
    """Say why on both streams: they lead nowhere once the host has been ready."""
    sentence = f"The host cannot start: {error}\n".encode(errors="replace")
    for fd in (1, 2):
        with contextlib.suppress(OSError):
            os.write(fd, sentence)
    return 1


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        uvloop: Any = importlib.import_module("uvloop")
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
