"""A host's process: reads its bootstrap frame, reports that it listens, and runs until what it owns has ended."""

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
"""Written to standard output once the host listens. Any other text says why it does not."""


def run_host(kind: type[B], live: Callable[[B, Callable[[], None]], Coroutine[Any, Any, None]]) -> int:
    """Run a host; return its exit code.

    Args:
        kind: The struct of its configuration.
        live: Its life. It gets the configuration and a function to call when it listens.
    """
    try:
        bootstrap = read_bootstrap(sys.stdin.fileno(), kind)
        log = _open_log(Path(bootstrap.folder) / "host.log", bootstrap.notebook_label)
    except (RuntimedError, OSError) as exc:
        return _give_up(exc)
    os.chdir("/")  # keeps no mounted file system busy
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
    """Report to the process that started the host, and release the three standard streams."""
    with contextlib.suppress(OSError):  # nobody may be listening any more
        os.write(1, READY)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(log, 2)  # what this process or a library of it may print
    os.close(nothing)


def _give_up(error: Exception) -> int:
    """Write the reason to both streams, which lead nowhere once the host has been ready."""
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
