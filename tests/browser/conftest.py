"""What the browser tests share: an event loop and a site for each module, and browsers that leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from playwright.async_api import Error as PlaywrightError

from runtimed.actions import Action, Goto, parse_action
from runtimed.browser.engine import Browser
from runtimed.browser.lifespan import Lifespan
from runtimed.browser.open_tab import OpenTab
from runtimed.lifecycle import Limits
from runtimed.pages import ActionResult, BrowserConfig, LogEntry, Observation
from tests.browser.server import Site, serve
from tests.chromium import ensure_chromium

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


class Heard:
    """Listens to a browser."""

    def __init__(self) -> None:
        self.lifespan = Lifespan("shop", Limits(timeout_minutes=3), time.time())
        self.pids: list[int] = []
        self.uses = 0
        self.entries: list[LogEntry] = []

    def started(self, pid: int) -> None:
        self.pids.append(pid)

    def used(self) -> None:
        self.uses += 1

    def logged(self, entry: LogEntry) -> None:
        self.entries.append(entry)


class Driven:
    """A browser that tests drive without writing `await`."""

    def __init__(self, run: Run[Any], browser: Browser, heard: Heard, folder: Path) -> None:
        self.run = run
        self.browser = browser
        self.heard = heard
        self.folder = folder

    def execute(self, action: Action | str, **fields: Any) -> ActionResult:
        parsed = parse_action(action) if not isinstance(action, str) else parse_action(type=action, fields=fields)
        result: ActionResult = self.run(self.browser.execute(parsed))
        return result

    def do(self, action: Action | str, **fields: Any) -> ActionResult:
        result = self.execute(action, **fields)
        assert result.success, result
        return result

    def goto(self, url: str) -> None:
        self.do(Goto(url))

    def observe(self, **options: Any) -> Observation:
        observation: Observation = self.run(self.browser.observe(**options))
        return observation

    def js(self, code: str) -> Any:
        return self.do("evaluate_js", code=code).data

    def ref(self, role: str, name: str) -> str:
        return ref_of(self.observe(), role, name)

    def addresses(self) -> list[str]:
        """The addresses of the active tab's frames."""
        tab = self.browser._tabs.latest
        return [] if tab is None else [frame.url for frame in tab.page.frames]

    def until(self, condition: Callable[[], object], message: str, timeout: float = 10.0) -> None:
        async def wait() -> None:
            async with asyncio.timeout(timeout):
                while not condition():  # noqa: ASYNC110  # conditions of any kind
                    await asyncio.sleep(0.01)

        try:
            self.run(wait())
        except TimeoutError:
            pytest.fail(message)


def ref_of(observation: Observation, role: str, name: str) -> str:
    found = [element.ref for element in observation.elements if (element.role, element.name) == (role, name)]
    assert len(found) == 1, f"{role} {name!r} is there {len(found)} times:\n{observation}"
    return found[0]


@contextlib.contextmanager
def browsing(run: Run[Any], folder: Path | None = None, **config: Any) -> Iterator[Driven]:
    """A browser for a block; afterwards none of its processes lives."""
    heard = Heard()
    own = folder or Path(tempfile.mkdtemp(prefix="rt"))
    with contextlib.ExitStack() as ends:
        if folder is None:
            ends.callback(shutil.rmtree, own)
        driven = Driven(run, run(Browser.open(_config(config), own, heard)), heard, own)
        try:
            yield driven
        finally:
            run(driven.browser.close())
            assert not processes_of(own)


@functools.cache
def _chromium() -> str:
    return str(ensure_chromium())


def _config(config: dict[str, Any]) -> BrowserConfig:
    return BrowserConfig(**{"chromium": _chromium(), **config})


def processes_of(folder: Path) -> list[psutil.Process]:
    """The processes of Chromium that use a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if str(folder) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.fixture(scope="module")
def run() -> Iterator[Run[Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def shared(run: Run[Any]) -> Iterator[Driven]:
    """The browser of one module."""
    with browsing(run) as driven:
        yield driven


@pytest.fixture
def browser(shared: Driven) -> Driven:
    """The module's browser, with a single tab, which shows whatever the last test has left there.

    The tab is a new one only if that page is of no use. An empty page for each test would take as much processor time
    as many tests do; where a test needs one, it goes there.
    """
    tab = shared.browser._tabs.latest
    if tab is None or not shared.run(_is_of_use(tab)):
        shared.do("new_tab")
    for other in shared.browser._tabs.all:
        if other is not shared.browser._tabs.latest:
            shared.do("close_tab", tab=other.id)
    shared.heard.entries.clear()
    return shared


async def _is_of_use(tab: OpenTab) -> bool:
    """Whether a page answers, and lets itself be left without a question."""
    if tab.dialog is not None or tab.crashed:
        return False
    try:
        async with asyncio.timeout(2):
            return bool(await tab.page.evaluate("dispatchEvent(new Event('beforeunload', { cancelable: true }))"))
    except (PlaywrightError, TimeoutError):
        return False
