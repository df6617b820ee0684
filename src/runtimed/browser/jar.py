"""Keeps a browser's cookies in files: they are read at its start, and written during use and at its end.

Chromium writes its own cookies only every 30 s, rarely at its end, and never session cookies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from playwright.async_api import Error as PlaywrightError

from runtimed.browser.cookies import read_cookie_file, write_cookie_file
from runtimed.errors import BrowserError, InvalidCookieFile

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext

__all__ = ["CookieJar"]

logger = logging.getLogger(__name__)

_PAUSE: Final = 1.0
"""Seconds between two saves of the cookies during use: what a crash may lose."""
_IDLE: Final = 15.0
"""Seconds between two saves without use: pages may set cookies by themselves."""

_LONGEST: Final = 400 * 86_400.0
_INEXACT: Final = 60.0
"""Tolerance for a cookie's expiry, in seconds: Chromium counts the longest lifetime from when it was set."""

_IN_PROFILE: Final = "runtimed-cookies.json"


class CookieJar:
    """The cookies of a browser.

    Attributes:
        writing: Held during a write. A holder keeps the files unchanged.

    Args:
        profile: Its profile folder, which has a copy.
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
            InvalidCookieFile: If it contains something else than cookies; it is not changed.
        """
        if self._file is not None:
            self._given = read_cookie_file(self._file)

    async def attach(self, context: BrowserContext) -> None:
        """Give a new browser its cookies: those of the file alone, else those of its profile.

        Raises:
            InvalidCookieFile: If Chromium refuses a cookie of the file; the sentence says which.
            BrowserError: If Chromium refuses a cookie of the profile.
        """
        self._context = context
        kept = None
        if self._file is None and self._kept.exists():
            kept = await asyncio.to_thread(read_cookie_file, self._kept)
        if self._given is not None or kept is not None:
            await context.clear_cookies()  # Chromium's own copy is older: a deleted cookie stays deleted
        if self._given is not None:
            await self._add_of_file(self._given, self._file)
        elif kept is not None:
            await self._add(context, kept)
        self._keeper = asyncio.create_task(self._keep_writing())

    async def add(self, cookies: Sequence[dict[str, Any]]) -> None:
        """Add cookies, and check that Chromium keeps them as given; an expired one removes its namesake.

        Raises:
            BrowserError: If Chromium refuses one, or changes it; the sentence says which. None is added.
        """
        context = self._attached()
        before = await self.read()
        try:
            await self._add(context, cookies)
            lost = _lost(cookies, await self.read())
            if lost is not None:
                place, what = lost
                raise BrowserError(
                    f"Chromium does not keep cookie {place} ({cookies[place - 1]['name']}) as it is: {what}",
                    cookie=place,
                )
        except BrowserError:
            with contextlib.suppress(PlaywrightError):  # Chromium is gone
                await context.clear_cookies()
                await context.add_cookies(before)  # type: ignore[arg-type]  # it gave them
            raise
        self.touch()

    async def add_file(self, file: Path) -> None:
        """Add the cookies of a file; see `add`.

        Raises:
            InvalidCookieFile: If it does not exist, contains something else, or Chromium refuses a cookie.
        """
        await self._add_of_file(await asyncio.to_thread(read_cookie_file, file, must_exist=True), file)

    async def _add_of_file(self, cookies: Sequence[dict[str, Any]], file: Path | None) -> None:
        try:
            await self.add(cookies)
        except BrowserError as exc:
            raise InvalidCookieFile(f"The cookie file {file}: {exc.message}", path=str(file), **exc.data) from exc

    @staticmethod
    async def _add(context: BrowserContext, cookies: Sequence[dict[str, Any]]) -> None:
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
        """Write the files if the cookies have changed.

        Raises:
            BrowserError: If Chromium is gone.
            OSError: If they cannot be written.
        """
        async with self.writing:
            cookies = await self.read()
            if cookies != self._written:
                for file in (self._file, self._kept):
                    if file is not None:
                        await asyncio.to_thread(write_cookie_file, file, cookies)
                self._written = cookies

    def touch(self) -> None:
        """Note that the browser is in use: its cookies may have changed."""
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


def _lost(given: Sequence[Mapping[str, Any]], kept: Sequence[Mapping[str, Any]]) -> tuple[int, str] | None:
    """Return the place of the first cookie that was not kept as given, and the difference; None if all were."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cookie in kept:
        found.setdefault((cookie["name"], _host(cookie["domain"])), []).append(cookie)
    now = time.time()
    latest = {(one["name"], _host_of(one), one.get("path")): place for place, one in enumerate(given, 1)}
    for (_, host, _), place in latest.items():
        cookie = given[place - 1]
        expires = cookie.get("expires", -1)
        if expires != -1 and expires <= now:
            continue
        same = [one for one in found.get((cookie["name"], host), ()) if one["path"] == cookie.get("path", one["path"])]
        if not same:
            return place, "it is not there afterwards"
        if not any(one["value"] == cookie["value"] for one in same):
            return place, "its value is another one"
        for field in ("domain", "httpOnly", "secure", "sameSite", "partitionKey"):
            expected = cookie.get(field)
            if field == "domain" and expected is not None:
                expected = f"{'.' if expected.startswith('.') else ''}{host}"
            if expected is not None and not any(one.get(field) == expected for one in same):
                return place, f"{field} is {same[0].get(field)!r} in place of {expected!r}"
        # Browsers keep none for more than 400 days. Source: RFC 6265bis, section 5.5.
        if not any(abs(one["expires"] - min(expires, now + _LONGEST)) < _INEXACT for one in same):
            return place, f"expires is {same[0]['expires']!r} in place of {expires!r}"
    return None


def _host_of(cookie: Mapping[str, Any]) -> str:
    return _host(cookie.get("domain") or urlsplit(cookie["url"]).hostname or "")


def _host(domain: str) -> str:
    """Return a host's name in Chromium's form."""
    host = domain.removeprefix(".").lower()
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host
