"""Performs actions on the tabs, and says what came of each."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, assert_never

import msgspec
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.actions import Action, Secret
from runtimed.browser import domains
from runtimed.browser.downloads import Downloads
from runtimed.browser.elements import Elements
from runtimed.browser.snapshot import Observer
from runtimed.browser.tabs import DialogOpened, OpenTab, TabGone, Tabs
from runtimed.browser.watching import end_watch, put_away, start_watch
from runtimed.errors import BrowserError, StaleElement
from runtimed.pages import ActionResult, BrowserConfig

if TYPE_CHECKING:
    from playwright.async_api import Locator, Page, Response

__all__ = ["Performed", "Performer"]

_TIMEOUT: Final = 10.0
_LONG_TIMEOUT: Final = 30.0
_ERROR_PAGE: Final = 1.0
_PARSING: Final = 3.0
"""Seconds that a page to which an action has led gets to be there as a whole, without what it shows and loads later."""
_MORE: Final = 5.0
"""Seconds beyond an action's own for all the questions to the page that belong to it."""
_LONG_URL: Final = 300
_MAX_DATA: Final = 8 * 2**20
"""Largest value that a page may give back, in bytes as it travels."""

# The page itself, or what scrolls in its middle where the page as a whole does not.
_SCROLL: Final = """amount => {
  const root = document.scrollingElement ?? document.documentElement;
  let box = root;
  if (root.scrollHeight <= innerHeight) {
    let around = document.elementFromPoint(innerWidth / 2, innerHeight / 2);
    while (around && !(around.scrollHeight > around.clientHeight
        && /auto|scroll/.test(getComputedStyle(around).overflowY))) around = around.parentElement;
    box = around ?? root;
  }
  const before = box.scrollTop;
  box.scrollBy({ top: amount ?? box.clientHeight * 0.9, behavior: 'instant' });
  return Math.round(box.scrollTop - before);
}"""

_SCROLL_ELEMENT: Final = """(element, amount) => {
  const before = element.scrollTop;
  element.scrollBy({ top: amount, behavior: 'instant' });
  return Math.round(element.scrollTop - before);
}"""

# Pictures of the page, and who watches it, must not show it either.
_HIDE_TEXT: Final = "element => { if (element.type !== 'password') element.style.webkitTextSecurity = 'disc'; }"

_IS_FILE_INPUT: Final = "element => ((element.control ?? element).type === 'file')"


class _Refused(BrowserError):
    """We refuse an action ourselves; `error` is the word for it."""


class Performed(msgspec.Struct, frozen=True):
    """An action that was performed, for the log.

    Attributes:
        selector: Finds the element that it was done to, on a later visit of the page; None if there is none.
        to_selector: The same for where something was dragged to.
    """

    action: Action
    result: ActionResult
    tab: str | None
    selector: str | None = None
    to_selector: str | None = None


class _Doing:
    """What an action in progress knows so far.

    Attributes:
        done: What was done, when that is over and only what it has led to is still asked for.
    """

    def __init__(self) -> None:
        self.tab: OpenTab | None = None
        self.done: str | None = None
        self.selectors: list[str | None] = []
        self.data: Any = None
        self.changed = False
        self.begun = False


class Performer:
    """Performs actions.

    Args:
        config: Says which addresses may be opened.
        tabs: The tabs.
        observer: Knows what refs mean.
        downloads: Takes what is downloaded.
    """

    def __init__(self, config: BrowserConfig, tabs: Tabs, observer: Observer, downloads: Downloads) -> None:
        self._config = config
        self._tabs = tabs
        self._elements = Elements(tabs, observer)
        self._downloads = downloads
        self._background: set[asyncio.Task[None]] = set()

    async def perform(self, action: Action) -> Performed:
        """Perform an action. What the page refuses is part of the result, never an exception."""
        started = datetime.now(UTC)
        doing = _Doing()
        tabs_before = self._tabs.changes
        message, error, detail = "", None, {}
        try:
            doing.tab = await self._tab_of(action)
            changes_before = doing.tab.changes if doing.tab is not None else 0
            message = await self._do(action, doing)
            if doing.tab is not None and doing.tab.changes != changes_before:
                doing.changed = True
        except DialogOpened as exc:
            doing.changed = True
            if doing.tab is not None and isinstance(action, _NEEDS_ANSWER):
                error, message = "Dialog", exc.message
            else:
                message = f"Done as far as the page answers. {exc.message}"
        except TabGone as exc:
            # A page that closes itself because of a click did what it was asked for.
            message, doing.changed = exc.message, True
            error = None if doing.begun and await self._closed_itself(action, doing.tab) else "TabGone"
        except StaleElement as exc:
            message, error, detail = exc.message, "StaleElement", dict(exc.data)
        except _Refused as exc:
            message, error = exc.message, str(exc.data["error"])
        except BrowserError as exc:
            message, error = exc.message, "Refused"
        except PlaywrightTimeout as exc:
            message, error = _sentence(exc), "Timeout"
            if doing.selectors and "resolved to" not in exc.message:
                message = f"Nothing on the page is {doing.selectors[-1]} ({message.rstrip('.')})"
        except PlaywrightError as exc:
            message, error = self._explain(exc, doing.selectors)
            if doing.tab is not None and await self._closed_itself(action, doing.tab):
                message, error, doing.changed = f"The tab {doing.tab.id} was closed", None, True
        if self._tabs.changes != tabs_before:
            await self._tabs.settled()
            doing.changed = True
            active = self._tabs.latest
            if active is not None and active is not doing.tab and doing.tab is not None:
                message = f"{message}; the active tab is {active.id} now"
        result = ActionResult(
            success=error is None,
            message=message,
            error=error,
            data=doing.data,
            started_at=started,
            ended_at=datetime.now(UTC),
            page_changed=doing.changed,
            detail=detail,
        )
        selectors = [*doing.selectors, None, None]
        return Performed(action, result, None if doing.tab is None else doing.tab.id, selectors[0], selectors[1])

    async def close(self) -> None:
        """Wait for what still runs for actions that are over."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _closed_itself(self, action: Action, tab: OpenTab | None) -> bool:
        """Whether a page has closed its tab because of an action, and not because the browser is gone."""
        closed = isinstance(action, _MAY_CLOSE) and tab is not None and tab.closed
        return closed and await self._tabs.trouble() is None

    # --- one action ---

    async def _tab_of(self, action: Action) -> OpenTab | None:
        match action:
            case actions.NewTab():
                return None
            case actions.SwitchTab() | actions.CloseTab() if action.tab is not None:
                return self._tabs.get(action.tab)
            case _:
                ref = getattr(action, "ref", None)
                found = None if ref is None else self._elements.locate(ref)
                return await self._tabs.active() if found is None else found[0]

    async def _do(self, action: Action, doing: _Doing) -> str:
        """Perform an action, return what was done."""
        if isinstance(action, actions.NewTab):
            return await self._new_tab(action, doing)
        tab = doing.tab or await self._tabs.active()
        match action:
            case actions.SwitchTab():
                self._tabs.activate(tab)
                if tab.dialog is None and not tab.crashed:
                    await tab.page.bring_to_front()
                return f"{tab.id} is active: {_short(tab.page.url)}"
            case actions.CloseTab():
                await tab.page.close()
                doing.changed = True
                return f"Closed {tab.id}"
            case actions.HandleDialog():
                dialog = await tab.answer_dialog(accept=action.accept, text=action.text)
                doing.changed = True
                answered = f"{'Accepted' if action.accept else 'Dismissed'} the {dialog.kind} {dialog.message!r}"
                return answered if tab.dialog is None else f"{answered}. {tab.dialog_sentence()}"
            case _:
                pass
        if tab.dialog is not None:
            raise _Refused(tab.dialog_sentence(), error="Dialog")
        await tab.ready
        if tab.crashed:
            raise _Refused(
                f"The page in {tab.id} crashed, and nothing can be loaded there again; "
                "new_tab opens another tab, close_tab removes this one",
                error="TabGone",
            )
        doing.begun = True
        if isinstance(action, _NAVIGATES):
            return await tab.run(self._navigate(action, tab, doing))
        if isinstance(action, actions.Wait):
            return await tab.run(self._wait(action, tab.page))
        async with tab.busy:
            return await self._answering(action, tab, doing)

    async def _answering(self, action: Any, tab: OpenTab, doing: _Doing) -> str:
        """Operate, as long as the page answers."""
        limit = action.timeout or (_LONG_TIMEOUT if isinstance(action, actions.DownloadFile) else _TIMEOUT)
        try:
            async with asyncio.timeout(limit + _MORE):
                return await tab.run(self._operate(action, tab, doing))
        except TimeoutError:
            doing.changed = True
            if doing.done is not None:
                return f"{doing.done}; since then the page does not answer"
            what = "The code did not end" if isinstance(action, actions.EvaluateJs) else "The page did not answer"
            raise _Refused(
                f"{what} within {limit:g} s; raise timeout=, or end a page that hangs with close_tab", error="Timeout"
            ) from None

    async def _new_tab(self, action: actions.NewTab, doing: _Doing) -> str:
        if action.url is not None:
            url = self._address(action.url)
        page = await self._tabs.context.new_page()
        tab = self._tabs.of_page(page)
        if tab is None:
            raise TabGone("The new tab was closed at once")
        doing.tab, doing.data = tab, tab.id
        await tab.ready
        if action.url is None:
            return f"Opened {tab.id}"
        await tab.run(self._go(tab, page.goto(url, timeout=_milliseconds(action, _LONG_TIMEOUT))))
        return f"Opened {tab.id} at {_short(page.url)}"

    async def _navigate(
        self, action: actions.Goto | actions.GoBack | actions.GoForward | actions.Reload, tab: OpenTab, doing: _Doing
    ) -> str:
        page = tab.page
        timeout = _milliseconds(action, _LONG_TIMEOUT)
        before, changes = page.url, tab.changes
        match action:
            case actions.Goto():
                response = await self._go(
                    tab, page.goto(self._address(action.url), wait_until=action.wait_until, timeout=timeout)
                )
            case actions.GoBack():
                response = await self._go(tab, page.go_back(timeout=timeout))
            case actions.GoForward():
                response = await self._go(tab, page.go_forward(timeout=timeout))
            case actions.Reload():
                response = await self._go(tab, page.reload(timeout=timeout))
            case _:
                assert_never(action)
        stayed = response is None and page.url == before and tab.changes == changes
        if stayed and isinstance(action, actions.GoBack | actions.GoForward):
            where = "back" if isinstance(action, actions.GoBack) else "forward"
            raise _Refused(f"There is no page to go {where} to", error="Refused")
        doing.changed = True
        doing.data = {"url": page.url, "status": None if response is None else response.status}
        return f"{tab.id} is at {_short(page.url)}" + ("" if response is None else f" (status {response.status})")

    @staticmethod
    async def _go(tab: OpenTab, going: Coroutine[Any, Any, Response | None]) -> Response | None:
        """Navigate; if that fails, wait until the browser shows why: that page would interrupt what comes next."""
        tab.arrived.clear()
        try:
            return await going
        except PlaywrightTimeout as exc:
            if tab.arrived.is_set():
                raise _Refused(f"{_late(exc)} What has come of it can be used", error="Timeout") from exc
            if tab.cdp is not None:
                # While it waits for the next page, Playwright does not look at the one that is shown.
                await tab.cdp.send("Page.stopLoading")
            raise _Refused(f"{_late(exc)} Nothing has come of it; raise timeout=", error="Timeout") from exc
        except PlaywrightError as exc:
            if "net::ERR_" in exc.message and "net::ERR_ABORTED" not in exc.message:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ERROR_PAGE):
                        await tab.arrived.wait()
            raise

    async def _wait(self, action: actions.Wait, page: Page) -> str:
        timeout = _milliseconds(action, _LONG_TIMEOUT)
        if action.seconds is not None:
            await asyncio.sleep(action.seconds)
            return f"Waited {action.seconds:g} s"
        if action.text is not None:
            await page.get_by_text(action.text).first.wait_for(timeout=timeout)
            return f"The text {action.text!r} is there"
        if action.selector is not None:
            await page.locator(action.selector).first.wait_for(timeout=timeout)
            return f"{action.selector} is there"
        if action.url is not None:
            await page.wait_for_url(action.url, wait_until="commit", timeout=timeout)
            return f"The page is at {_short(page.url)}"
        await page.wait_for_load_state(action.load_state or "load", timeout=timeout)
        return f"The page has reached {action.load_state}"

    async def _operate(self, action: Any, tab: OpenTab, doing: _Doing) -> str:
        """Do something to an element or to the page, and see whether that changes the page."""
        sure = isinstance(action, _SURE)
        watching = None if sure else asyncio.ensure_future(start_watch(tab))
        stopped = False
        try:
            await asyncio.sleep(0)  # its question is on its way before those of the action, and so is answered first
            found, what = await self._elements.find(action, tab, doing.selectors)
            if watching is not None and found is None:
                await watching  # what is done to an element is preceded by more questions to the page
            changes = tab.changes
            doing.done = await self._touch(action, tab, found, what, doing)
            async with asyncio.timeout(_MORE):
                watch = None if watching is None else await watching
                doing.changed = doing.changed or sure
                if tab.changes != changes:
                    return doing.done + await self._await_page(tab)
                if watch is not None:
                    stopped = True
                    doing.changed = doing.changed or await end_watch(tab, watch)
            return doing.done
        finally:
            if watching is not None:
                self.later(put_away(tab, watching, stopped=stopped))

    @staticmethod
    async def _await_page(tab: OpenTab) -> str:
        """Wait until the page is parsed, for the action may have led to another; return what there is to say of it."""
        try:
            await tab.page.wait_for_load_state("domcontentloaded", timeout=_PARSING * 1000)
        except PlaywrightTimeout:
            return "; the page is still loading"
        return ""

    async def _touch(self, action: Any, tab: OpenTab, found: Locator | None, what: str, doing: _Doing) -> str:
        if found is not None:
            return await self._touch_element(action, tab, found, what, doing)
        async with asyncio.timeout(action.timeout or _TIMEOUT):
            match action:
                case actions.EvaluateJs():
                    doing.data = _plain(await tab.page.evaluate(action.code))
                    return "Evaluated"
                case actions.PressKey():
                    await tab.page.keyboard.press(action.key)
                    return f"Pressed {action.key}"
                case actions.Scroll():
                    moved = await tab.page.evaluate(_SCROLL, action.amount)
                    return f"Scrolled by {moved} px" if moved else "There is nothing more to scroll"
        raise AssertionError(f"no way to perform {action!r}")

    async def _touch_element(self, action: Any, tab: OpenTab, found: Locator, what: str, doing: _Doing) -> str:
        limit = _milliseconds(action, _TIMEOUT)
        match action:
            case actions.Click():
                await found.click(
                    button=action.button, click_count=action.count, modifiers=list(action.modifiers), timeout=limit
                )
                return f"Clicked {what}"
            case actions.Fill():
                await self._fill(action, found)
                return f"Filled {what}"
            case actions.PressKey():
                await found.press(action.key, timeout=limit)
                return f"Pressed {action.key} in {what}"
            case actions.Check():
                await found.set_checked(action.value, timeout=limit)
                return f"{'Checked' if action.value else 'Unchecked'} {what}"
            case actions.SelectOption():
                chosen = await found.select_option(
                    action.value if isinstance(action.value, str) else list(action.value), timeout=limit
                )
                doing.data = chosen
                return f"Selected {', '.join(chosen) or 'nothing'} in {what}"
            case actions.Hover():
                await found.hover(timeout=limit)
                return f"The pointer is over {what}"
            case actions.Drag():
                target, where = await self._elements.find(action.to, tab, doing.selectors)
                await found.drag_to(target or found, timeout=limit)
                return f"Dragged {what} to {where}"
            case actions.UploadFile():
                return await self._upload(action, tab, found, what)
            case actions.DownloadFile():
                return await self._download(action, found, doing)
            case actions.Scroll():
                if action.amount is None:
                    await found.scroll_into_view_if_needed(timeout=limit)
                    return f"{what} is in view"
                moved = await found.evaluate(_SCROLL_ELEMENT, action.amount, timeout=limit)
                return f"Scrolled {what} by {moved} px" if moved else f"There is nothing more to scroll in {what}"
            case _:
                raise AssertionError(f"no way to perform {action!r}")

    async def _fill(self, action: actions.Fill, found: Locator) -> None:
        limit = _milliseconds(action, _TIMEOUT)
        secret = isinstance(action.value, Secret)
        text = action.value.secret if isinstance(action.value, Secret) else action.value
        if secret:
            await found.evaluate(_HIDE_TEXT, timeout=limit)
        if action.clear:
            await found.fill(text, timeout=limit)
        else:
            await found.press("ControlOrMeta+End", timeout=limit)
            await found.page.keyboard.insert_text(text)
        if action.press_enter:
            await found.press("Enter", timeout=limit)

    async def _upload(self, action: actions.UploadFile, tab: OpenTab, found: Locator, what: str) -> str:
        limit = _milliseconds(action, _TIMEOUT)
        paths = [action.path] if isinstance(action.path, str) else list(action.path)
        for path in paths:
            if not Path(path).is_absolute() or not await asyncio.to_thread(Path(path).is_file):
                raise _Refused(f"{path!r} is not the absolute path of a file", error="Refused")
        if await found.evaluate(_IS_FILE_INPUT, timeout=limit):
            await found.set_input_files(paths, timeout=limit)
        else:
            async with tab.page.expect_file_chooser(timeout=limit) as chooser:
                await found.click(timeout=limit)
            await (await chooser.value).set_files(paths, timeout=limit)
        names = ", ".join(Path(path).name for path in paths)
        return f"Gave {names} to {what}" if names else f"Took all files from {what}"

    async def _download(self, action: actions.DownloadFile, found: Locator, doing: _Doing) -> str:
        timeout = action.timeout or _LONG_TIMEOUT
        beginning = self._downloads.expect()
        try:
            async with asyncio.timeout(timeout):
                await found.click(timeout=timeout * 1000)
                download = await beginning
                path = await asyncio.shield(download.done)
        except TimeoutError:
            state = "did not begin" if beginning.cancelled() or not beginning.done() else "is not whole"
            raise _Refused(f"The download {state} after {timeout:g} s; raise timeout=", error="Timeout") from None
        finally:
            beginning.cancel()
        if path is None:
            raise _Refused(f"The download of {download.url} failed or was cancelled", error="Refused")
        doing.data = {
            "path": str(path),
            "suggested_filename": download.suggested,
            "url": download.url,
            "size": download.size,
        }
        return f"Downloaded {path.name} ({download.size} bytes)"

    # --- words ---

    def _address(self, url: str) -> str:
        """Return an address in full.

        Raises:
            _Refused: If it must not be opened.
        """
        url = url.strip()
        if not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://|(about|data|blob|javascript|file|chrome|view-source):", url):
            host = re.split(r"[/:?#]", url, maxsplit=1)[0]
            local = (
                host == "localhost" or host.endswith(".localhost") or host.startswith("127.") or url.startswith("[::1]")
            )
            url = f"{'http' if local else 'https'}://{url}"
        reason = domains.refusal(url, self._config.allowed_domains, allow_files=self._config.allow_files)
        if reason is not None:
            raise _Refused(f"{_short(url)} was not opened: {reason}", error="Refused")
        return url

    def _explain(self, exc: PlaywrightError, selectors: Sequence[str | None]) -> tuple[str, str]:
        message = _sentence(exc)
        several = re.search(r"strict mode violation.* resolved to (\d+) elements", message)
        if several is not None and selectors:
            first = f"{selectors[-1]} >> nth=0"
            advice = f"name one by its ref, by its role and name, or by its place (selector={first!r} is the first)"
            return f"{selectors[-1]!r} finds {several[1]} elements of the page; {advice}", "Refused"
        if message == "Download is starting":
            return "The address leads to a download, not a page; it is saved among the session's downloads", "Refused"
        match = re.search(r"net::(ERR_\w+)", message)
        if match is None:
            return message, "Refused"
        if match[1] == "ERR_NAME_NOT_RESOLVED" and self._config.allowed_domains is not None:
            message += f"; only {', '.join(self._config.allowed_domains) or 'nothing'} may be asked in this session"
        reason = next((words for code, words in _REASONS.items() if match[1].startswith(code)), None)
        return message if reason is None else f"{reason}: {message}", "Navigation"

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something be done after the answer; that it fails because the page is gone means nothing."""

        async def quietly() -> None:
            with contextlib.suppress(PlaywrightError):
                await work

        task = asyncio.create_task(quietly())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


_NAVIGATES = actions.Goto | actions.GoBack | actions.GoForward | actions.Reload
_NEEDS_ANSWER = _NAVIGATES | actions.EvaluateJs | actions.Wait
"""Those of which nothing was done if a dialog stands in the way."""
_MAY_CLOSE = actions.Click | actions.PressKey | actions.EvaluateJs | actions.Fill | actions.Check | actions.SelectOption
"""Those because of which a page may close itself."""
_SURE = actions.Fill | actions.Check | actions.SelectOption | actions.UploadFile
"""Those that change the page if they succeed."""


_REASONS: Final = {
    "ERR_NAME_NOT_RESOLVED": "There is no such host, or no network",
    "ERR_CONNECTION_REFUSED": "Nobody listens there",
    "ERR_INTERNET_DISCONNECTED": "There is no network",
    "ERR_TOO_MANY_REDIRECTS": "The address leads on and on, without an end",
    "ERR_UNSAFE_PORT": "Browsers ask nothing of that port",
    "ERR_CERT_": "Who the site is cannot be trusted: its certificate is not valid",
}
"""What Chromium's words for a failed navigation mean. Source: chromium.org, net/base/net_error_list.h."""


def _late(exc: PlaywrightTimeout) -> str:
    return f"The page did not load in time ({_sentence(exc).rstrip('.')})."


def _milliseconds(action: Any, default: float) -> float:
    return float((action.timeout or default) * 1000)


def _sentence(exc: PlaywrightError) -> str:
    """Return what Playwright says, in a line: the error, and the last thing that it was waiting for."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", exc.message)
    head, _, log = text.partition("Call log:")
    first = re.sub(r"^[A-Z]\w+\.\w+: ", "", " ".join(head.split()).strip(" ="))
    steps = [line.strip(" -") for line in log.splitlines() if line.strip(" -=")]
    telling = [line for line in steps if re.search(r"not |intercept|hidden|detached|outside|resolved to", line)]
    return f"{first}: {telling[-1]}" if telling else first


def _short(url: str) -> str:
    return url if len(url) <= _LONG_URL else f"{url[:_LONG_URL]}…"


def _plain(value: Any) -> Any:
    """Return what a page gave back in a form that can travel."""
    try:
        plain = msgspec.to_builtins(value)
        size = len(msgspec.msgpack.encode(plain))
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise _Refused(f"The value cannot be given back: {exc}", error="Refused") from exc
    if size > _MAX_DATA:
        raise _Refused(f"The value has {size} bytes, more than the {_MAX_DATA} that are allowed", error="Refused")
    return plain
