"""Keeps a cookie file and a browser's cookies the same: it is read at the start, written in use and at the end."""

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
"""Chromium writes its own cookies to the disk only every 30 s, and none that end with the browser."""


class CookieJar:
    """The cookies of a browser.

    Args:
        file: The session's cookie file; None for none.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._given: list[dict[str, Any]] = []
        self._context: BrowserContext | None = None
        self._written: list[dict[str, Any]] | None = None
        self._touched = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Read the file.

        Raises:
            BrowserError: If it holds something else than cookies; it is left as it is.
        """
        if self._file is not None:
            self._given = read_cookie_file(self._file)

    async def attach(self, context: BrowserContext, profile: Path) -> None:
        """Give a browser that has just been started its cookies: those of the file alone, else those of its profile.

        Raises:
            BrowserError: If Chromium refuses one; the sentence says which.
        """
        self._context = context
        if self._file is not None:
            await context.clear_cookies()
            await self.add(self._given)
            self._written = None
            self._keeper = asyncio.create_task(self._keep_writing())
            return
        kept = profile / _IN_PROFILE
        if kept.exists():
            await self.add(await asyncio.to_thread(read_cookie_file, kept))
            kept.unlink()

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

    async def keep(self, profile: Path) -> None:
        """Write the cookies into a profile that is about to be stored."""
        await asyncio.to_thread(write_cookie_file, profile / _IN_PROFILE, await self.read())

    def touch(self) -> None:
        """The browser is in use: its cookies may have changed."""
        self._touched.set()

    async def close(self) -> None:
        """Write the file for the last time, if the browser still answers."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            await self._write()

    async def _keep_writing(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE):
                    await self._touched.wait()
            self._touched.clear()
            await asyncio.sleep(_PAUSE)
            await self._write()

    async def _write(self) -> None:
        if self._file is None:
            return
        try:
            cookies = await self.read()
            if cookies != self._written:
                await asyncio.to_thread(write_cookie_file, self._file, cookies)
                self._written = cookies
        except BrowserError:
            logger.debug("the browser is gone; its cookies stay as they were written last")
        except OSError as exc:
            logger.warning("the cookie file %s cannot be written: %s", self._file, exc)

    def _attached(self) -> BrowserContext:
        if self._context is None:
            raise BrowserError("The browser has not started")
        return self._context
