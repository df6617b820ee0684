"""`python -P -m runtimed.browser`: the process that owns one Chromium."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from runtimed.browser.bootstrap import BrowserBootstrap
from runtimed.browser.host_server import BrowserServer
from runtimed.browser.hosted import HostedBrowser
from runtimed.host.lifetime import Parts, live
from runtimed.host.owned import Owned
from runtimed.host.running import run_host
from runtimed.host.server import HostServer
from runtimed.settings import MAX_SOCKET_PATH

__all__ = ["main"]

_SOCKET: Final = "org.chromium.Chromium.XXXXXX/SingletonSocket"
"""Source: Chromium, chrome/browser/process_singleton_posix.cc."""


def main() -> int:
    """Run the host of a browser; return its exit code."""
    return run_host(BrowserBootstrap, _live)


async def _live(bootstrap: BrowserBootstrap, ready: Callable[[], None]) -> None:
    # Display, proxy and Chromium are the client's choice. Only processes started from here on read these variables.
    os.environ.clear()
    os.environ.update(bootstrap.environment)
    _keep_temporary_files_in(Path(bootstrap.folder) / "tmp")

    def begin(parts: Parts) -> tuple[Owned, HostServer]:
        browser = HostedBrowser(bootstrap, parts.outbox, parts.blobs.put, parts.guard)
        server = BrowserServer(bootstrap.epoch, browser, parts.outbox, parts.tasks, parts.daemon_changed, parts.blobs)
        return browser, server

    await live(bootstrap, begin, ready)


def _keep_temporary_files_in(folder: Path) -> None:
    """Make the temporary folder of Chromium and its driver a part of the host's folder, which is removed with it.

    Chromium creates a socket there. Where the socket's path would be too long, the system's folder is used.
    """
    if len(os.fsencode(folder / _SOCKET)) <= MAX_SOCKET_PATH:
        folder.mkdir(mode=0o700)
        os.environ["TMPDIR"] = str(folder)


if __name__ == "__main__":
    sys.exit(main())
