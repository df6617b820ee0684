"""The engine of a browser session: one Chromium with everything that drives, guards and shows it.

It knows no daemon and no protocol; its owner is notified through a `BrowserListener`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from playwright.async_api import BrowserContext, CDPSession
from playwright.async_api import Error as PlaywrightError

from runtimed.actions import Action, Secret, Target, secrets_of
from runtimed.browser import reading
from runtimed.browser.action_log import ActionLog
from runtimed.browser.chromium import Chromium
from runtimed.browser.config_check import check_config
from runtimed.browser.cookie_forms import check_cookies
from runtimed.browser.credentials import Credentials
from runtimed.browser.downloads import Download, Downloads
from runtimed.browser.driver import drive, end_driver, start_driver
from runtimed.browser.emulation import emulate
from runtimed.browser.jar import CookieJar
from runtimed.browser.keeper import Keeper
from runtimed.browser.last_words import end_pages
from runtimed.browser.lifespan import Lifespan
from runtimed.browser.masking import Secrets
from runtimed.browser.observing import Observer
from runtimed.browser.perform import Performer
from runtimed.browser.pictures import Pictures
from runtimed.browser.profiles import load_profile, profiles_folder, store_profile
from runtimed.browser.relay import Relay
from runtimed.browser.screencast import Screencast
from runtimed.browser.tabs import Tabs
from runtimed.browser.viewer import TakePart, Viewer, write_door
from runtimed.browser.witness import Witness
from runtimed.errors import BrowserUnavailable
from runtimed.pages import ActionResult, BrowserConfig, LogEntry, Observation

__all__ = ["Browser", "BrowserListener"]

logger = logging.getLogger(__name__)

_WRITTEN_AFTER: Final = 1.5
"""Seconds after which what pages stored is on disk.

Source: Chromium, components/services/storage/dom_storage/storage_area_impl.cc, `ComputeCommitDelay`: one second with
the argument `--enable-aggressive-domstorage-flushing`.
"""

_PAGES_END: Final = 2.5
"""Seconds for pages to end and for their storage to be written, before Chromium ends."""

_SUSPICIOUS: Final = frozenset({"Refused", "Timeout"})
"""Errors of actions after which the driver is checked."""


class BrowserListener(Protocol):
    """Listens to a browser; called in its event loop, must not block.

    Attributes:
        lifespan: The session, and its limits.
    """

    lifespan: Lifespan

    def started(self, pid: int) -> None:
        """Chromium runs: in a process group of this number, to be killed if this process dies."""

    def used(self) -> None:
        """A client uses the browser through the relay."""

    def logged(self, entry: LogEntry) -> None:
        """The action log has a new entry."""


class Browser:
    """A running browser session.

    Attributes:
        pid: Chromium's process id.
        headless: Whether there is no window: by request, or without a display.
        ended: Resolves with the reason, a sentence, when Chromium ends without `close()`.
    """

    def __init__(self, config: BrowserConfig, folder: Path, listener: BrowserListener) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._config = config
        self._folder = folder
        self._profile = folder / "profile"
        self._listener = listener
        self._secrets = Secrets()
        self._log = ActionLog(self._secrets, listener.logged)
        self._cast = Screencast()
        self._exit = contextlib.AsyncExitStack()
        self._closing: asyncio.Task[None] | None = None
        self._saving = asyncio.Lock()
        self._known_as = folder

    @classmethod
    async def open(cls, config: BrowserConfig, folder: Path, listener: BrowserListener) -> Browser:
        """Start a Chromium.

        Args:
            config: Its configuration.
            folder: The session's folder, mode 0700. Its content of an earlier start is used again.
            listener: Learns what the browser does.

        Raises:
            BrowserUnavailable: If there is no Chromium, or it does not start.
            BrowserError: If the config is invalid: a cookie file without cookies, a domain that is none.
        """
        _check(config)
        browser = cls(config, folder, listener)
        jar = browser._read_cookies()
        if config.profile is not None:
            profiles = profiles_folder(config.profiles_dir, config.profile)
            await asyncio.to_thread(load_profile, profiles, config.profile, browser._profile)
        try:
            await browser._start()
            await browser._set_up(jar)
        except BaseException:
            await browser._exit.aclose()
            raise
        return browser

    @classmethod
    async def warm(cls, config: BrowserConfig, folder: Path, listener: BrowserListener) -> Browser:
        """Start a Chromium for a session that is named later. Only `become` and `close` may follow.

        Args:
            config: What Chromium gets at its start; the session's config must agree.
            folder: See `open`; it becomes the session's.
            listener: See `open`.

        Raises:
            BrowserUnavailable: See `open`.
        """
        browser = cls(config, folder, listener)
        try:
            await browser._start()
        except BaseException:
            await browser._exit.aclose()
            raise
        return browser

    async def become(self, config: BrowserConfig, folder: Path) -> None:
        """Become a session's browser: from now on it is as if it had been opened.

        Args:
            config: The session's config, without a profile.
            folder: The session's folder, which will be a link to this browser's.

        Raises:
            BrowserError: As `open`, or if Chromium has ended meanwhile. It must be closed then.
        """
        _check(config)
        self._config = config
        self._known_as = folder
        await self._set_up(self._read_cookies())

    @property
    def cdp_url(self) -> str:
        """Address at which Playwright and others attach (`connect_over_cdp`). It gives full control of the browser."""
        return self._relay.cdp_url

    @property
    def viewer_url(self) -> str:
        """Address of the viewer."""
        return self._relay.viewer_url

    @property
    def viewer_page(self) -> Path:
        """A file, readable by this user only, that leads to the viewer."""
        return self._known_as / "viewer.html"

    async def active_target(self) -> str:
        """Return Chromium's own id of the active tab, by which a client finds it among its pages."""
        with contextlib.suppress(PlaywrightError):  # Chromium is gone
            # The answer follows earlier messages of Chromium, such as a tab that another client opens.
            await self._cdp.send("Browser.getVersion")
        await self._tabs.settled()
        tab = await self._tabs.active()
        await tab.ready
        return tab.target

    async def dialogs(self) -> dict[str, str]:
        """Return the tabs that wait in a dialog: Chromium's own id → a sentence that says so."""
        await asyncio.gather(*(tab.let_client_answer() for tab in self._tabs.all))
        return {tab.target: tab.dialog_sentence() for tab in self._tabs.all if tab.dialog is not None}

    async def silent(self) -> list[str]:
        """Return a sentence for each tab that does not answer within seconds though no dialog holds it up."""
        return await reading.find_silent(self._tabs.all)

    # --- what it is asked ---

    async def observe(
        self,
        *,
        scope: str | None = None,
        depth: int | None = None,
        interactive_only: bool = False,
        max_chars: int | None = None,
        since: str | None = None,
        start: str | None = None,
    ) -> Observation:
        """Return what the active tab shows.

        Args:
            scope: A ref or a selector: only that element and its content.
            depth: Number of levels.
            interactive_only: Only elements that people operate, as a flat list.
            max_chars: Largest size of the outline, in characters.
            since: Id of an earlier observation: only the differences. An observation that is forgotten, or of another
                tab, gives everything.
            start: A ref: elements before it are left out, except its ancestors.

        Raises:
            StaleElement: If `scope` or `start` is the ref of an element that is gone.
            BrowserError: If `scope` is a selector that finds nothing, `depth` or `max_chars` is below 1, `since` is no
                observation, this outline does not show `start`, or the page does not answer.
        """
        self._jar.touch()
        with self._pictures.hold(), self._secrets.mask_errors():
            observation = await self._observer.observe(
                scope=scope,
                depth=depth,
                interactive_only=interactive_only,
                max_chars=max_chars,
                since=since,
                start=start,
            )
        return self._secrets.mask_observation(observation)

    async def execute(self, action: Action, *, client_id: str | None = None, label: str | None = None) -> ActionResult:
        """Perform an action. A page's refusal is part of the result, never an exception.

        Args:
            action: The action.
            client_id: The client that asks for it, for the log.
            label: That client's label.
        """
        for secret in secrets_of(action).values():
            self._secrets.add(secret)
        performed = await self._performer.perform(action)
        performed = msgspec.structs.replace(performed, result=self._secrets.mask_result(performed.result))
        self._pictures.performed(self._log.add_action(performed, client_id=client_id, label=label))
        if performed.result.error in _SUSPICIOUS:
            self._performer.later(self._check_driver())
        self._jar.touch()
        return performed.result

    async def scrape(
        self,
        *,
        selector: str | None = None,
        only_main_content: bool = True,
        links: bool = True,
        images: bool = False,
        schema: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what the active tab shows as Markdown, or, with a schema, as the data that it describes.

        Raises:
            BrowserError: If the selector finds nothing, the schema cannot be met, or the page does not answer.
        """
        tab = await self._tabs.active()
        with self._secrets.mask_errors():
            shown = await reading.scrape(
                tab,
                selector=selector,
                only_main_content=only_main_content,
                links=links,
                images=images,
                schema=schema,
            )
        return self._secrets.mask_all(shown)

    async def screenshot(self, target: Target | None = None, *, full_page: bool = False) -> bytes:
        """Return a picture of the active tab, or of an element, as PNG.

        Raises:
            BrowserError: If the page does not answer, or shows no such element, or several.
        """
        if target is not None:
            return await self._performer.picture(target)
        return await reading.take_picture(await self._tabs.active(), full_page=full_page)

    async def cookies(self) -> list[dict[str, Any]]:
        """Return all cookies.

        Raises:
            BrowserError: If Chromium is gone.
        """
        return await self._jar.read()

    async def set_cookies(self, cookies: Sequence[Mapping[str, Any]]) -> None:
        """Add cookies. One of the same name, domain and path is replaced; an expired one removes it.

        Raises:
            BrowserError: If one is invalid; the sentence says which. None of them is set then.
        """
        await self._jar.add(check_cookies(cookies))

    async def set_cookie_file(self, file: Path) -> None:
        """Add the cookies of a file; see `set_cookies`.

        Raises:
            InvalidCookieFile: If the file does not exist, or contains something else; the sentence names the place.
        """
        await self._jar.add_file(file)

    async def save_profile(self, name: str) -> None:
        """Store the present profile under a name.

        Takes about two seconds, since Chromium writes what pages stored after one.

        Raises:
            BrowserError: If the name is invalid, or there is no folder of profiles.
            OSError: If it cannot be written.
        """
        profiles = profiles_folder(self._config.profiles_dir, name)
        async with self._saving:
            await self._jar.write()
            await asyncio.wait([self._chromium.ended], timeout=_WRITTEN_AFTER)
            async with self._jar.writing:
                # A stopped Chromium's databases are consistent, as after a crash, from which they recover.
                os.killpg(self.pid, signal.SIGSTOP)
                try:
                    await asyncio.to_thread(store_profile, self._profile, profiles, name)
                finally:
                    os.killpg(self.pid, signal.SIGCONT)

    async def close(self) -> None:
        """Save the cookies and the profile, then end Chromium. Idempotent."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._exit.aclose())
        await asyncio.shield(self._closing)

    async def discard(self) -> None:
        """Kill Chromium without saving anything. Idempotent."""
        self._chromium.kill()
        await self.close()

    # --- its start and its end ---

    def _read_cookies(self) -> CookieJar:
        file = self._config.cookie_file
        jar = CookieJar(self._profile, None if file is None else Path(file))
        jar.load()
        return jar

    async def _start(self) -> None:
        """Start Chromium and its driver, and connect them."""
        self._profile.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._exit.push_async_callback(self._put_away)
        driver = asyncio.create_task(start_driver())
        try:
            self._chromium = await Chromium.start(self._config, self._profile, self._folder, self._listener.started)
        except BaseException:
            await end_driver(driver)
            raise
        self._exit.push_async_callback(self._chromium.close)
        self._exit.push_async_callback(end_driver, driver)
        self.pid, self.headless = self._chromium.pid, self._chromium.headless
        host, port = self._chromium.address
        playwright = await driver
        try:
            self._context, self._cdp = await drive(
                playwright, f"ws://{host}:{port}{self._chromium.path}", self._folder / "artifacts"
            )
        except PlaywrightError as exc:
            raise self._undriven(exc) from exc
        self._chromium.ended.add_done_callback(self._on_ended)

    def _undriven(self, error: PlaywrightError) -> BrowserUnavailable:
        reason = self._chromium.ended.result() if self._chromium.ended.done() else error.message
        return BrowserUnavailable(f"Chromium cannot be driven: {reason}")

    async def _set_up(self, jar: CookieJar) -> None:
        """Apply the config to the browser, and open its relay."""
        self._jar = jar
        try:
            await self._equip_all(self._context, self._cdp)
        except PlaywrightError as exc:
            raise self._undriven(exc) from exc

    async def _equip_all(self, context: BrowserContext, cdp: CDPSession) -> None:
        config = self._config
        self._exit.push_async_callback(self._jar.close)
        self._exit.callback(self._log.tell_omitted)
        own = None if config.downloads_dir is None else Path(config.downloads_dir)
        self._downloads = downloads = Downloads(
            own or self._folder / "downloads",
            own or self._known_as / "downloads",
            self._folder / "partial",
            self._on_download,
            lambda: self._log.leave_out("download"),
            self._secrets.mask_told,
            accepts=config.accept_downloads,
        )
        self._exit.push_async_callback(downloads.close)
        credentials = Credentials(config, headless=self.headless)
        self._exit.push_async_callback(credentials.close)
        for login in (config.http_credentials, config.proxy_login):
            if login is not None:
                self._secrets.add(Secret(login[1]))
        witness = Witness(context, self._log, self._cast)
        self._tabs = Tabs(context, witness, self._secrets.mask_told, self._chromium.address)
        keeper = Keeper(config, self._tabs, downloads, cdp, self._on_used)
        self._tabs.begin(keeper.equip)
        self._exit.push_async_callback(self._end_pages)
        self._observer = Observer(self._tabs, self._secrets.mask)
        self._performer = Performer(config, self._tabs, self._observer, downloads)
        self._exit.push_async_callback(self._performer.close)
        self._exit.push_async_callback(self._cast.close)
        self._pictures = Pictures(self._tabs, self._log)
        self._exit.push_async_callback(self._pictures.close)
        take_part = TakePart(self.execute, self._on_used) if config.interactive_viewer else None
        viewer = Viewer(self._tabs, self._cast, self._log, self._listener.lifespan, take_part)
        self._relay = Relay(self._chromium.address, self._chromium.path, viewer, keeper)
        self._exit.push_async_callback(keeper.close)
        self._exit.push_async_callback(self._relay.close)
        await self._relay.open()
        door = self._folder / self.viewer_page.name
        self._exit.callback(door.unlink, missing_ok=True)
        write_door(door, self.viewer_url)
        # In parallel: each waits for answers of Chromium, and a client waits for all of them.
        await asyncio.gather(
            self._jar.attach(context),
            credentials.watch(cdp),
            emulate(context, config),
            downloads.watch(cdp),
            witness.watch(self._tabs, cdp),
            *(tab.ready for tab in self._tabs.all),
        )

    async def _end_pages(self) -> None:
        """Close the pages before Chromium ends, so that what they stored is kept."""
        self._tabs.end()
        if self._chromium.ended.done() or not self._config.persist_profile:
            return
        try:
            async with asyncio.timeout(_PAGES_END):
                await end_pages(self._context, self._cdp, self.pid)
        except (PlaywrightError, TimeoutError) as exc:
            logger.info("what the pages stored in their last second may be lost: %s", str(exc) or "they do not end")

    async def _put_away(self) -> None:
        """Once Chromium has ended, store its profile or remove it."""
        config = self._config
        try:
            if not config.persist_profile:
                await asyncio.to_thread(shutil.rmtree, self._profile, ignore_errors=True)
            elif config.profile is not None and self._profile.exists():
                profiles = profiles_folder(config.profiles_dir, config.profile)
                await asyncio.to_thread(store_profile, self._profile, profiles, config.profile)
        except OSError as exc:
            logger.warning("the profile %s cannot be stored: %s", config.profile, exc)

    # --- what happens ---

    def _on_ended(self, ended: asyncio.Future[str]) -> None:
        if self._closing is None and not self.ended.done():
            self.ended.set_result(ended.result())

    async def _check_driver(self) -> None:
        """Check whether Chromium can still be driven. Playwright does not report the death of its driver."""
        exc = await self._tabs.trouble()
        if exc is None or self._chromium.ended.done() or self._closing is not None or self.ended.done():
            return
        self.ended.set_result(f"Chromium's driver ended: {str(exc) or 'it does not answer'}")

    def _on_used(self) -> None:
        self._jar.touch()
        self._listener.used()

    def _on_download(self, download: Download, path: Path | None) -> None:
        data = {"url": download.url, "suggested_filename": download.suggested, "size": download.size}
        if path is None:
            reason = "failed or was cancelled" if download.error is None else f"failed: {download.error}"
            self._log.add("download", None, f"the download of {download.suggested} {reason}", data)
        else:
            self._log.add("download", None, f"downloaded {path.name}", {**data, "path": str(path)})


def _check(config: BrowserConfig) -> None:
    check_config(config)
    if config.profile is not None:
        profiles_folder(config.profiles_dir, config.profile)
