"""Runs the daemon in a process of its own, with a log file, and reports its start in one line."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import logging.handlers
import os
import signal
import sys
from io import TextIOWrapper

import uvloop

from runtimed.daemon.files import provide_files
from runtimed.daemon.serving.daemon import Daemon
from runtimed.daemon.serving.server import own_data_folder, serve
from runtimed.errors import DaemonUnavailable, RuntimedError
from runtimed.host.memory import leave_fence
from runtimed.settings import Settings, read_settings
from runtimed.texts import LineFormatter
from runtimed.transport.autostart import READY
from runtimed.version import __version__

logger = logging.getLogger("runtimed.daemon")


def main() -> int:
    """Run until the daemon ends.

    Writes `READY` to standard output once it listens, or the sentence that says why it cannot.
    """
    if os.fork():
        # The half that the client started ends here: the daemon is nobody's child.
        os._exit(0)
    try:
        settings = read_settings()
    except RuntimedError as exc:
        _say(f"{exc}\n".encode())
        return 1
    try:
        with own_data_folder(settings):
            _log_to_file(settings)
            leave_fence()
            uvloop.run(_serve(settings))
    except RuntimedError as exc:
        logger.error("cannot serve: %s", exc)  # noqa: TRY400  # a sentence, not a traceback
        _say(f"{exc}\n".encode())
        return 1
    except Exception as exc:
        logger.exception("the daemon failed")
        _say(f"The daemon failed: {exc!r}; its log is {settings.log_path}\n".encode())
        raise
    return 0


async def _serve(settings: Settings) -> None:
    daemon = Daemon(dataclasses.replace(settings, limits=provide_files(settings.limits)))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, daemon.request_end)
    loop.add_signal_handler(signal.SIGINT, daemon.request_end)
    logger.info("runtimed %s serves %s from %s", __version__, settings.socket_path, settings.data_dir)
    # What the imports made lives as long as the process; the garbage collector need not look at it again.
    gc.freeze()
    await serve(daemon, on_ready=lambda: _say(READY))
    logger.info("the daemon ends")


class _LogFile(logging.handlers.RotatingFileHandler):
    """A log whose every file is made with mode 0600, whatever the umask."""

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.fchmod(fd, 0o600)
        return TextIOWrapper(os.fdopen(fd, "ab"), encoding=self.encoding)


def _log_to_file(settings: Settings) -> None:
    try:
        handler = _LogFile(settings.log_path, maxBytes=2**20, backupCount=3, encoding="utf-8")
    except OSError as exc:
        raise DaemonUnavailable(f"The log {settings.log_path} cannot be written: {exc.strerror}; move it away") from exc
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])


def _say(line: bytes) -> None:
    """Write to the process that started this one, once; then standard output leads nowhere."""
    try:
        os.write(sys.stdout.fileno(), line)
    except OSError as exc:
        logger.info("the process that started this one is gone: %s", exc)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
