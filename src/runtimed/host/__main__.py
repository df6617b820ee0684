"""`python -P -m runtimed.host`: reads its bootstrap frame, listens, starts the kernel, and lives until it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from runtimed.errors import RuntimedError
from runtimed.host.bootstrap import read_bootstrap
from runtimed.host.lifetime import label_log, live

__all__ = ["main"]

logger = logging.getLogger(__name__)

READY: Final = b"ready\n"
"""Written to the standard output when the host listens; anything else is the sentence that says why not."""


def main() -> int:
    """Run a host; return its exit code."""
    try:
        bootstrap = read_bootstrap(sys.stdin.fileno())
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
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    handler = logging.StreamHandler(os.fdopen(os.dup(fd), "w", encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    label_log(label)
    return fd


def _say_ready(log: int) -> None:
    """Tell whoever started the host, and let go of the three standard streams."""
    with contextlib.suppress(OSError):  # nobody may be listening any more
        os.write(1, READY)
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(log, 2)  # what this process or a library of it may print
    os.close(nothing)
    os.close(log)


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


if __name__ == "__main__":
    sys.exit(main())
