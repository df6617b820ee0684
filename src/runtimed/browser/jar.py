"""Keeps a browser's cookies in files: they are read at its start, written in use and at its end.

Chromium writes its own cookies to the disk only every 30 s, hardly ever as it ends, and never those without a date.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.async_api import Error as PlaywrightError

from runtimed.browser.cookies import read_cookie_file, write_cookie_file
from runtimed.errors import BrowserError

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext

__all__ = ["CookieJar"]

logger = logging.getLogger(__name__)

_PAUSE: Final = 1.0
"""Seconds between two looks at the cookies while the browser is in use: what a crash may lose."""
_IDLE: Final = 15.0
"""Seconds between two looks while nobody uses it: pages may set cookies by themselves."""

_IN_PROFILE: Final = "runtimed-cookies.json"


class CookieJar:
    """The cookies of a browser.

    Attributes:
        writing: Held while they are written. Who holds it keeps the files as they are.

    Args:
        profile: Its profile folder, which keeps them, too.
        file: The session's cookie file; None for none.
    """

    def __init__(self, profile: Path, file: Path | None) -> None:
        self._kept = profile / _IN_PROFILE
        self._file = file
        self._given: list[dict[str, Any]] | None = None
        self._context: BrowserContext | None = None
        self._written: list[dict[str, Any]] | None = None
        self.writing = asyncio.Lock()
        self._touched = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Read the file.

        Raises:
            BrowserError: If it holds something else than cookies; it is left as it is.
        """
        if self._file is not None:
            self._given = read_cookie_file(self._file)

    async def attach(self, context: BrowserContext) -> None:
        """Give a browser that has just been started its cookies: those of the file alone, else those of its profile.

        Raises:
            BrowserError: If Chromium refuses one; the sentence says which.
        """
        self._context = context
        given = self._given
        if self._file is None and self._kept.exists():
            given = await asyncio.to_thread(read_cookie_file, self._kept)
        if given is not None:
            await context.clear_cookies()  # what Chromium itself kept is older: one that was deleted stays deleted
            await self.add(given)
        self._keeper = asyncio.create_task(self._keep_writing())

    async def add(self, cookies: Sequence[dict[str, Any]]) -> None:
        """Add cookies.

        Raises:
            BrowserError: If Chromium refuses one; the sentence says which.
        """
        context = self._attached()
        try:
            if cookies:
                await context.add_cookies(list(cookies))  # type: ignore[arg-type]  # they were checked
        except PlaywrightError as exc:
            for place, cookie in enumerate(cookies, 1):
                try:
                    await context.add_cookies([cookie])  # type: ignore[list-item]  # they were checked
                except PlaywrightError as refusal:
                    raise BrowserError(
                        f"Chromium refuses cookie {place} ({cookie['name']}): {refusal.message}", cookie=place
                    ) from refusal
            raise BrowserError(f"Chromium refuses these cookies: {exc.message}") from exc
        self.touch()

    async def read(self) -> list[dict[str, Any]]:
        """Return all cookies.

        Raises:
            BrowserError: If Chromium is gone.
        """
        try:
            return [dict(cookie) for cookie in await self._attached().cookies()]
        except PlaywrightError as exc:
            raise BrowserError(f"Chromium does not tell its cookies: {exc.message}") from exc

    async def write(self) -> None:
        """Write the files, if there are other cookies now.

        Raises:
            BrowserError: If Chromium is gone.
            OSError: If there is no room for them.
        """
        async with self.writing:
            cookies = await self.read()
            if cookies != self._written:
                for file in (self._file, self._kept):
                    if file is not None:
                        await asyncio.to_thread(write_cookie_file, file, cookies)
                self._written = cookies

    def touch(self) -> None:
        """The browser is in use: its cookies may have changed."""
        self._touched.set()

    async def close(self) -> None:
        """Write the files for the last time, if the browser still answers."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            await self._try_to_write()

    async def _keep_writing(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE):
                    await self._touched.wait()
            self._touched.clear()
            await asyncio.sleep(_PAUSE)
            await self._try_to_write()

    async def _try_to_write(self) -> None:
        try:
            await self.write()
        except BrowserError:
            logger.debug("the browser is gone; its cookies stay as they were written last")
        except OSError as exc:
            logger.warning("the cookies cannot be written: %s", exc)

    def _attached(self) -> BrowserContext:
        if self._context is None:
            raise BrowserError("The browser has not started")
        return self._context
