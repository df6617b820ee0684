"""Performs actions on the tabs, and returns their results."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeout

from runtimed import actions
from runtimed.actions import Action
from runtimed.browser.doing import TIMEOUT, Doing, NoEffect, Refused, allowance
from runtimed.browser.downloads import Downloads
from runtimed.browser.elements import GUESSED, Elements
from runtimed.browser.navigating import Navigator
from runtimed.browser.observing import Observer
from runtimed.browser.open_tab import DialogOpened, OpenTab, TabGone
from runtimed.browser.operating import Operator
from runtimed.browser.pointing import let_go
from runtimed.browser.tabs import Tabs
from runtimed.browser.waiting import wait
from runtimed.browser.watching import FrameWatches, end_watch, free_input, put_away, start_watch
from runtimed.browser.words import HIDDEN, explain, is_found, out_of_time, short
from runtimed.errors import BrowserError, StaleElement
from runtimed.pages import ActionResult, BrowserConfig

if TYPE_CHECKING:
    from playwright.async_api import Locator

__all__ = ["Performed", "Performer"]

_PARSING: Final = 3.0
"""Seconds for a page to which an action has led to be parsed, without what it shows and loads later."""
_MORE: Final = 5.0
"""Seconds beyond an action's own for all the questions to the page that belong to it."""


class Performed(msgspec.Struct, frozen=True):
    """An action that was performed, for the log.

    Attributes:
        selector: Finds its element on a later visit of the page; None if there is none.
        to_selector: The same for the target of a drag.
        element: Role, name and place that the element must have then, as far as known.
        to_element: The same for the target of a drag.
    """

    action: Action
    result: ActionResult
    tab: str | None
    selector: str | None = None
    to_selector: str | None = None
    element: dict[str, Any] = {}  # msgspec copies it for each
    to_element: dict[str, Any] = {}


class Performer:
    """Performs actions.

    Args:
        config: Says which addresses may be opened.
        tabs: The tabs.
        observer: Knows what refs mean.
        downloads: Takes downloads.
    """

    def __init__(self, config: BrowserConfig, tabs: Tabs, observer: Observer, downloads: Downloads) -> None:
        self._config = config
        self._tabs = tabs
        self._elements = Elements(tabs, observer)
        self._navigator = Navigator(config, tabs, downloads)
        self._operator = Operator(self._elements, downloads)
        self._background: set[asyncio.Task[None]] = set()

    async def perform(self, action: Action) -> Performed:
        """Perform an action. A page's refusal is part of the result, never an exception."""
        started = datetime.now(UTC)
        doing = Doing()
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
        except Refused as exc:
            message, error = exc.message, str(exc.data["error"])
        except BrowserError as exc:
            message, error = exc.message, "Refused"
        except PlaywrightTimeout as exc:
            message, error = out_of_time(exc, allowance(action)), "Timeout"
            if doing.selectors and not is_found(exc):
                message = f"Nothing on the page is {doing.selectors[-1]} ({message.rstrip('.')})"
        except PlaywrightError as exc:
            message, error = explain(exc, doing.selectors, self._config.allowed_domains)
            if doing.tab is not None and await self._closed_itself(action, doing.tab):
                message, error, doing.changed = f"The tab {doing.tab.id} was closed", None, True
        if self._tabs.changes != tabs_before:
            await self._tabs.settled()
            doing.changed = True
            active = self._tabs.latest
            if active is not None and active is not doing.tab and doing.tab is not None:
                message = f"{message}; the active tab is {active.id} now"
        await self._elements.described(doing)
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
        selectors, elements = [*doing.selectors, None, None], [*doing.elements, {}, {}]
        return Performed(
            action, result, None if doing.tab is None else doing.tab.id, selectors[0], selectors[1], *elements[:2]
        )

    async def picture(self, target: actions.Target) -> bytes:
        """Return a picture of an element as PNG.

        Raises:
            BrowserError: If the page does not answer, or shows no such element, or several.
        """
        tab = await self._tab_showing(target.ref)
        doing = Doing()

        async def take() -> bytes:
            found, what = await self._elements.find(target, tab, doing, within=0)
            if found is None:
                raise BrowserError(f"There is no picture of {what}: name an element")
            if await found.count() == 1 and not await found.is_visible():
                raise BrowserError(f"There is no picture of {what}: it {HIDDEN}", tab=tab.id)
            return await found.screenshot(timeout=TIMEOUT * 1000)

        await tab.ready
        try:
            return await tab.run(take())
        except PlaywrightError as exc:
            message, _ = explain(exc, doing.selectors, self._config.allowed_domains)
            raise BrowserError(f"There is no picture of it: {message}", tab=tab.id) from exc

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
                return await self._tab_showing(getattr(action, "ref", None))

    async def _tab_showing(self, ref: str | None) -> OpenTab:
        """Return the tab that may contain a ref; the active one if there is none."""
        found = None if ref is None else self._elements.locate(ref)
        return await self._tabs.active() if found is None else found[0]

    async def _do(self, action: Action, doing: Doing) -> str:
        """Perform an action; return what was done."""
        if isinstance(action, actions.NewTab):
            return await self._navigator.new_tab(action, doing)
        tab = doing.tab or await self._tabs.active()
        match action:
            case actions.SwitchTab():
                self._tabs.activate(tab)
                if tab.dialog is None and not tab.crashed:
                    await tab.page.bring_to_front()
                return f"{tab.id} is active: {short(tab.address)}"
            case actions.CloseTab():
                await tab.page.close()
                doing.changed = True
                return f"Closed {tab.id}"
            case actions.HandleDialog():
                text = action.text.secret if isinstance(action.text, actions.Secret) else action.text
                with tab.acting():
                    answered = await tab.answer_dialog(accept=action.accept, text=text)
                doing.changed = True
                return answered if tab.dialog is None else f"{answered}. {tab.dialog_sentence()}"
            case _:
                pass
        await tab.let_client_answer()
        if tab.dialog is not None:
            raise Refused(tab.dialog_sentence(), error="Dialog")
        await tab.ready
        if tab.crashed:
            raise Refused(
                f"The page in {tab.id} crashed, and nothing can be loaded there again; "
                "new_tab opens another tab, close_tab removes this one",
                error="TabGone",
            )
        doing.begun = True
        if isinstance(action, actions.Wait):
            return await tab.run(wait(action, tab))
        with tab.acting():
            if isinstance(action, _NAVIGATES):
                return await tab.run(self._navigator.navigate(action, tab, doing))
            async with tab.busy:
                return await self._answering(action, tab, doing)

    async def _answering(self, action: Any, tab: OpenTab, doing: Doing) -> str:
        """Operate, while the page answers."""
        limit = allowance(action)
        try:
            async with asyncio.timeout(limit + _MORE):
                return await tab.run(self._operate(action, tab, doing))
        except TimeoutError:
            doing.changed = True
            if doing.done is not None:
                return f"{doing.done}; since then the page does not answer"
            what = "The code did not end" if isinstance(action, actions.EvaluateJs) else "The page did not answer"
            raise Refused(
                f"{what} within {limit:g} s; raise timeout=, or end a page that hangs with close_tab", error="Timeout"
            ) from None

    async def _operate(self, action: Any, tab: OpenTab, doing: Doing) -> str:
        """Operate an element or the page, and detect whether that changes the page."""
        doing.since = time.monotonic()
        sure = isinstance(action, _SURE)
        watched = not sure or isinstance(action, actions.Check)
        watching = doing.watching = asyncio.ensure_future(start_watch(tab)) if watched else None
        frames = FrameWatches(tab.page.frames[1:] if watched else [], tab.frame_watches)
        stopped = False
        try:
            if tab.pressed:
                await let_go(tab)
            await asyncio.sleep(0)  # its question is sent before those of the action, and so is answered first
            found, what = await self._elements.find(action, tab, doing, guess=isinstance(action, GUESSED))
            if watching is not None and found is None:
                await watching  # more questions to the page precede what is done to an element
            await self._elements.look_at(action, found, doing)
            changes = tab.changes
            doing.done = await self._touch(action, tab, found, what, doing)
            async with asyncio.timeout(_MORE):
                watch = None if watching is None else await watching
                doing.changed = doing.changed or sure
                if tab.changes != changes:
                    return doing.done + await self._await_page(tab)
                if watch is not None:
                    stopped = True
                    seen, changed = await asyncio.gather(end_watch(tab, watch), frames.end())
                    doing.changed = doing.changed or seen.changed or changed
                    if not seen.heard and isinstance(action, _BY_INPUT) and await free_input(tab):
                        doing.done, doing.changed = await self._touch(action, tab, found, what, doing), True
            return doing.done
        finally:
            if tab.pressed:
                self.later(let_go(tab))
            if watching is not None:
                self.later(put_away(tab, watching, frames, stopped=stopped))

    async def _touch(self, action: Any, tab: OpenTab, found: Locator | None, what: str, doing: Doing) -> str:
        try:
            return await self._operator.touch(action, tab, found, what, doing)
        except NoEffect:
            if not await free_input(tab):
                raise
        return await self._operator.touch(action, tab, found, what, doing)

    @staticmethod
    async def _await_page(tab: OpenTab) -> str:
        """Wait until the page is parsed, since the action may have led to another; return a remark about it."""
        try:
            await tab.page.wait_for_load_state("domcontentloaded", timeout=_PARSING * 1000)
        except PlaywrightTimeout:
            return "; the page is still loading"
        return ""

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something after the answer; it may fail because the page is gone."""

        async def quietly() -> None:
            with contextlib.suppress(PlaywrightError):
                await work

        task = asyncio.create_task(quietly())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


_NAVIGATES = actions.Goto | actions.GoBack | actions.GoForward | actions.Reload
_NEEDS_ANSWER = _NAVIGATES | actions.EvaluateJs | actions.Wait
"""Actions of which nothing was done if a dialog is in the way."""
_MAY_CLOSE = (
    actions.Click
    | actions.PressKey
    | actions.EvaluateJs
    | actions.Fill
    | actions.Type
    | actions.Check
    | actions.SelectOption
    | actions.Drag
)
"""Actions because of which a page may close itself."""
_BY_INPUT = actions.Click | actions.PressKey | actions.Type | actions.Hover
"""Actions that a page notices by its pointer and its keys."""
_SURE = actions.Fill | actions.Clear | actions.Check | actions.SelectOption | actions.UploadFile
"""Actions that change the page if they succeed."""
