"""Ends a browser's pages, so that everything they stored is on disk.

When Chromium ends, its storage process ends, too, often before it has written everything (measured under load: one stop
in seven lost the local storage of the last five seconds). It writes at once what no page has open any more. Source:
Chromium, components/services/storage/dom_storage/local_storage_impl.cc, `OnNoBindings`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, CDPSession

__all__ = ["end_pages"]

_CLOSED: Final = 1.0
"""Seconds for a page to act on its end; one that hangs has stored what it stored."""
_GONE: Final = 1.0
"""Seconds within which killed processes are gone."""


async def end_pages(context: BrowserContext, cdp: CDPSession, group: int) -> None:
    """Close all pages, which learn of it, and return once what they stored is on disk.

    Afterwards no page works, and no new one either.

    Args:
        context: The browser's default context.
        cdp: A DevTools session with the browser itself.
        group: Chromium's process group.

    Raises:
        playwright.async_api.Error: If Chromium has ended.
    """
    pages = list(context.pages)
    blank = await context.new_page()  # only a page can ask for what is stored
    storage = await context.new_cdp_session(blank)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSED):
            await asyncio.gather(*(page.close() for page in pages))
    # A process outlives its pages for a while, and has open what they stored.
    processes = (await cdp.send("SystemInfo.getProcessInfo"))["processInfo"]
    await asyncio.to_thread(_kill, [process["id"] for process in processes if process["type"] == "renderer"], group)
    for _ in range(2):
        # Nothing is removed, but it is done in turn, after all that is to be written. The first one makes sure that the
        # end of the processes has been heard of before the second one is asked for.
        await storage.send(
            "Storage.clearDataForOrigin", {"origin": "https://runtimed.invalid", "storageTypes": "local_storage"}
        )


def _kill(pids: list[int], group: int) -> None:
    processes = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if os.getpgid(pid) == group:
                process.kill()
                processes.append(process)
    psutil.wait_procs(processes, timeout=_GONE)
