"""The death of Playwright's driver, which may happen at any time. Nothing here imports Playwright."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

__all__ = ["expect_death"]


class _Read(asyncio.Future[None]):
    """A future whose exception counts as retrieved, also if no event loop runs any more."""

    def set_exception(self, exception: type | BaseException, /) -> None:
        super().set_exception(exception)
        self.exception()


def expect_death(manager: Any) -> None:
    """Keep asyncio from logging the death of the driver as an exception that was never retrieved.

    Playwright notes the end of the driver's pipe in a future that it reads only while it starts. The next call shows
    the death anyway.

    Args:
        manager: What `async_playwright()` or `sync_playwright()` returned, once it has started in this event loop.

    Source: playwright 1.65, `_impl/transport.py`, `PipeTransport.run`.
    """
    with contextlib.suppress(AttributeError):  # another version may keep it elsewhere
        manager._client._transport.on_error_future = _Read(loop=asyncio.get_running_loop())
