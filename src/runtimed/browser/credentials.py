"""Logs in where a site or a proxy asks for a user and a password."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from playwright.async_api import Error as PlaywrightError

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

    from runtimed.pages import BrowserConfig

__all__ = ["Credentials"]


class Credentials:
    """Answers Chromium's login requests. Only if there is an answer: Chromium then asks before each request, too.

    Args:
        config: The credentials.
        headless: Whether there is no person to ask.
    """

    def __init__(self, config: BrowserConfig, *, headless: bool) -> None:
        # Otherwise Chromium opens a dialog without a window, and reloads at its end what the tab shows by then.
        self._refusal = "CancelAuth" if headless else "Default"
        self._sites = config.http_credentials
        self._proxy = config.proxy_login
        self._tried: set[str] = set()
        self._answers: set[asyncio.Task[None]] = set()

    async def watch(self, cdp: CDPSession) -> None:
        """Begin to answer.

        Args:
            cdp: A DevTools session with the browser itself, so that workers and frames of all sites are answered, too.
        """
        if self._sites is None and self._proxy is None:
            return
        cdp.on("Fetch.requestPaused", lambda event: self._go_on(cdp, event))
        cdp.on("Fetch.authRequired", lambda event: self._answer(cdp, event))
        await cdp.send("Fetch.enable", {"handleAuthRequests": True})

    async def close(self) -> None:
        """Stop answering. Idempotent."""
        for task in list(self._answers):
            task.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)

    def _go_on(self, cdp: CDPSession, event: dict[str, Any]) -> None:
        self._send(cdp, "Fetch.continueRequest", {"requestId": event["requestId"]})

    def _answer(self, cdp: CDPSession, event: dict[str, Any]) -> None:
        asked, challenge = event["requestId"], event["authChallenge"]
        login = self._proxy if challenge.get("source") == "Proxy" else self._login(challenge["origin"])
        key = f"{challenge.get('source')} {asked}"
        if login is None or key in self._tried:  # it was refused
            self._tried.discard(key)
            answer = {"response": self._refusal}
        else:
            self._tried.add(key)
            answer = {"response": "ProvideCredentials", "username": login[0], "password": login[1]}
        self._send(cdp, "Fetch.continueWithAuth", {"requestId": asked, "authChallengeResponse": answer})

    def _login(self, origin: str) -> tuple[str, str] | None:
        if self._sites is None:
            return None
        user, password, only = self._sites
        return (user, password) if only is None or only.rstrip("/").lower() == origin.rstrip("/").lower() else None

    def _send(self, cdp: CDPSession, method: str, data: dict[str, Any]) -> None:
        async def send() -> None:
            with contextlib.suppress(PlaywrightError):  # the request was cancelled, or Chromium is gone
                await cdp.send(method, data)

        task = asyncio.create_task(send())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)
