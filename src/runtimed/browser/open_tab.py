"""One tab of a browser: its page, the documents it has shown, and the dialog in which it waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import urldefrag
from weakref import WeakKeyDictionary

from playwright.async_api import Error as PlaywrightError

from runtimed.browser import outline
from runtimed.browser.attached_client import SharedBrowser
from runtimed.browser.page_connection import PageConnection
from runtimed.errors import BrowserError
from runtimed.pages import Dialog

if TYPE_CHECKING:
    from playwright.async_api import CDPSession, Frame, JSHandle, Page
    from playwright.async_api import Dialog as OpenDialog

__all__ = ["ANSWER", "DialogOpened", "DocumentKey", "OpenTab", "Siblings", "TabGone", "TabsListener"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER: Final = 10.0
"""Seconds within which the browser must answer a small question."""
_TOLD: Final = 1.0
"""Seconds after the answer to a dialog within which Chromium reports that another client's came first."""
_OWN_ANSWER: Final = 1.0
"""Seconds for a client to answer a dialog that it caused, if it does so by itself."""
_FRAME: Final = 1.0
"""Seconds within which a tab must say whether a frame is in it."""

DocumentKey = tuple[str, str, int, int]
"""Tab id, prefix of a frame in it, and how many documents the tab and that frame have shown so far."""


class DialogOpened(BrowserError):
    """A dialog opened during a request to the page, which is answered once the dialog is."""


class TabGone(BrowserError):
    """The tab was closed, or its page crashed, during a request."""


class TabsListener:
    """Hears what tabs do by themselves; called in the event loop."""

    def tabs_changed(self) -> None:
        """The list of tabs, the active one, an address or a title has changed."""

    def tab_happened(self, tab: OpenTab, kind: str, text: str, data: dict[str, Any]) -> None:
        """Something for the log happened in a tab."""


class Siblings(Protocol):
    """What a tab needs of all tabs; see `Tabs`."""

    listener: TabsListener
    mask: Callable[[str], str]
    address: tuple[str, int]
    shared: SharedBrowser
    equip: Callable[[OpenTab], Coroutine[Any, Any, None]]

    @property
    def all(self) -> list[OpenTab]:
        """All open tabs."""

    def of_page(self, page: Page) -> OpenTab | None:
        """Return the tab of a page."""

    def leave(self, tab: OpenTab) -> bool:
        """Remove a tab from the list; return whether it was there."""

    def forget(self, tab: OpenTab) -> None:
        """Remove a closed tab."""

    def note_change(self) -> None:
        """Note that a tab has another address, title or dialog."""


class OpenTab:
    """One tab.

    Attributes:
        page: Playwright's page.
        cdp: A DevTools session with the tab, once it is ready.
        target: Chromium's own id of it, once it is ready.
        connection: Our own connection to its page, once it is ready and while it exists.
        busy: Held by an action, so that those of several clients do not mix.
        arrived: Set when its page shows another address, or the same again.
        dialog: The dialog in which its page waits.
        guarded: Whether it is kept from files.
        first_watch: The first watch of its document, with which later ones begin; see `start_watch`.
        frame_watches: The same of the documents in its frames.
        pressed: Whether a drag holds a button of its mouse.
        releasing: Held while that is released.
        generation: Counts what may have changed the page's address, its document or its frames.
    """

    def __init__(self, tab_id: str, page: Page, tabs: Siblings) -> None:
        loop = asyncio.get_running_loop()
        self.id = tab_id
        self.page = page
        self.cdp: CDPSession | None = None
        self.target = ""
        self.connection: PageConnection | None = None
        self.busy = asyncio.Lock()
        self.dialog: Dialog | None = None
        self.title = ""
        self.crashed = False
        self.first_watch: str | None = None
        self.frame_watches: WeakKeyDictionary[Frame, JSHandle] = WeakKeyDictionary()
        self.guarded = False
        self.pressed = False
        self.releasing = asyncio.Lock()
        self.arrived = asyncio.Event()
        self.changes = 0
        self.generation = 0
        self._open_dialog: OpenDialog | None = None
        self._last_answer = ""
        self._ended: tuple[Dialog, str, bool] | None = None
        self._is_answering = False
        self._is_ours = True
        self._is_known: asyncio.Future[None] = loop.create_future()
        self._reading: asyncio.Task[None] | None = None
        self._holding_up: asyncio.Task[None] | None = None
        self._tabs = tabs
        self._dialog_opened: asyncio.Future[None] = loop.create_future()
        self._dialog_closed: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[str] = loop.create_future()
        self._held_up: asyncio.Future[OpenTab] = loop.create_future()
        self._main_documents = 0
        self._frame_documents: dict[Frame, tuple[int, str]] = {}
        self._frames: dict[str, Frame] = {}
        page.on("close", lambda _: self._end("was closed"))
        page.on("crash", lambda _: self._crash())
        page.on("framenavigated", self._on_navigated)
        page.on("domcontentloaded", self._on_loaded)
        page.on("load", self._on_loaded)
        self.ready = asyncio.create_task(self._prepare())

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self.page.is_closed()

    @property
    def address(self) -> str:
        """Its page's address without secrets and passwords."""
        return self._tabs.mask(self.page.url)

    async def _prepare(self) -> None:
        """Apply the session's settings to the tab."""
        try:
            self.cdp = await self.page.context.new_cdp_session(self.page)
            self.cdp.on("Page.frameNavigated", self._on_document)
            self.cdp.on("Page.javascriptDialogClosed", self._on_dialog_closed)
            answers = await asyncio.gather(self.cdp.send("Page.enable"), self.cdp.send("Target.getTargetInfo"))
            info = answers[1]["targetInfo"]
            self.target = str(info["targetId"])
            self._is_ours = self._tabs.shared.is_ours(info)
            self._is_known.set_result(None)
            if self._is_ours:
                await self._tabs.equip(self)  # First: it is guarded whatever fails after it.
                self.connection = await PageConnection.open(self._tabs.address, self.target)
            else:
                await self._let_go(self.cdp)
        except PlaywrightError as exc:
            if not self.closed:
                logger.warning("tab %s cannot be prepared: %s", self.id, exc)
        finally:
            if not self._is_known.done():
                self._is_known.set_result(None)

    async def _let_go(self, cdp: CDPSession) -> None:
        """Leave the tab to the client whose browser context contains it: Playwright takes it for one of ours."""
        self.page.remove_listener("framenavigated", self._on_navigated)
        self.page.remove_listener("domcontentloaded", self._on_loaded)
        self.page.remove_listener("load", self._on_loaded)
        self._tabs.leave(self)
        await cdp.detach()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something of the page, while the page can answer.

        Raises:
            DialogOpened: If a dialog is open, or opens meanwhile; the work goes on once it is answered.
            TabGone: If the tab closes or crashes meanwhile.
        """
        task = asyncio.ensure_future(work)
        held_up = self._held_up
        try:
            waited: list[asyncio.Future[Any]] = [task, self._dialog_opened, self._gone, held_up]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            return task.result()
        task.add_done_callback(_forget)
        if self._gone.done():
            raise TabGone(f"The tab {self.id} {self._gone.result()}", tab=self.id)
        cause = held_up.result() if held_up.done() else self
        raise DialogOpened(cause.dialog_sentence(), tab=cause.id)

    def dialog_sentence(self) -> str:
        """Return a sentence about the dialog in the way."""
        what = "" if self.dialog is None else f" ({self.dialog.kind}): {self.dialog.message!r}"
        if self.dialog is not None and self.dialog.default:
            what += f" with the default {self.dialog.default!r}"
        return f"The page in {self.id} waits in a dialog{what}; handle_dialog answers it"

    async def answer_dialog(self, *, accept: bool, text: str | None) -> str:
        """Answer the open dialog; return a sentence about its outcome, as Chromium reports it.

        Raises:
            BrowserError: If none is open, or another client has given another answer.
        """
        opened, dialog = self._open_dialog, self.dialog
        if opened is None or dialog is None:
            others = "".join(f". {tab.dialog_sentence()} after switch_tab" for tab in self._tabs.all if tab.dialog)
            raise BrowserError(f"The tab {self.id} shows no dialog{self._last_answer}{others}", tab=self.id)
        self._is_answering = True
        try:
            async with asyncio.timeout(ANSWER):
                await (opened.accept(text or "") if accept else opened.dismiss())
            if self._open_dialog is opened:  # a page that began with it: Chromium reports its end only to the driver
                self._on_dialog_closed({"result": accept, "userInput": text or ""})
        except TimeoutError:
            raise BrowserError(f"Chromium does not close the {dialog.kind} of {self.id}", tab=self.id) from None
        except PlaywrightError as exc:
            await asyncio.wait([self._dialog_closed], timeout=_TOLD)
            if self._open_dialog is opened:
                raise BrowserError(f"The {dialog.kind} of {self.id} stays: {exc.message}", tab=self.id) from exc
            self._tell_end(by_another=True)
            raise BrowserError(f"The tab {self.id} shows no dialog{self._last_answer}", tab=self.id) from exc
        finally:
            self._is_answering = False
            self._tell_end()
        self._last_answer = ""
        with contextlib.suppress(DialogOpened, TimeoutError, PlaywrightError):  # the page is left, for example
            # The page goes on, or shows its next dialog.
            async with asyncio.timeout(ANSWER):
                await self.run(self.page.title())
        return f"{'Accepted' if accept else 'Dismissed'} the {dialog.kind} {dialog.message!r}"

    async def answers(self, within: float) -> bool:
        """Return whether the page answers within these seconds; a closed one counts as answering."""
        if self.cdp is None:
            return True
        with contextlib.suppress(PlaywrightError, BrowserError):
            try:
                async with asyncio.timeout(within):
                    await self.run(self.cdp.send("Runtime.evaluate", {"expression": "0"}))
            except TimeoutError:
                return False
        return True

    async def let_client_answer(self) -> None:
        """Wait a moment for the end of a dialog that another client caused: Playwright answers it by itself."""
        if self.dialog is not None and self._tabs.shared.author.get(self.target) is not None:
            ends: set[asyncio.Future[Any]] = {self._dialog_closed, self._gone}
            await asyncio.wait(ends, timeout=_OWN_ANSWER, return_when=asyncio.FIRST_COMPLETED)

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Attribute what the page does in this block to an action, not to another client."""
        self._tabs.shared.begin_action(self.target)
        try:
            yield
        finally:
            self._tabs.shared.end_action(self.target)

    def elsewhere(self) -> Callable[[str], Awaitable[bool]]:
        """Return a function that says whether a frame, by Chromium's id, is in another of the present tabs."""
        others = [tab for tab in self._tabs.all if tab is not self]

        async def is_elsewhere(frame: str) -> bool:
            if frame == self.target or not others:
                return False
            if any(frame == tab.target for tab in others):
                return True
            mine, *theirs = await asyncio.gather(*(tab.has_frame(frame) for tab in (self, *others)))
            # A frame that no tab has is gone; a silent tab, as in a dialog, may have what this one lacks.
            return not mine and (True in theirs or (mine is False and None in theirs))

        return is_elsewhere

    async def has_frame(self, frame: str) -> bool | None:
        """Whether a frame, by Chromium's id, is in this tab; None if the tab does not say."""
        if self.cdp is None:
            return None
        try:
            async with asyncio.timeout(_FRAME):
                await self.cdp.send("DOM.getFrameOwner", {"frameId": frame})
        except TimeoutError:
            return None
        except PlaywrightError as exc:
            # Another process of Chromium shows the content of a frame of another site.
            return "does not belong to the target" in exc.message
        return True

    # --- documents: what a ref belongs to ---

    def document_key(self, prefix: str) -> DocumentKey:
        """Return the identity of the document that a frame shows now.

        Args:
            prefix: The frame's prefix in Playwright's refs; empty for the main frame.
        """
        if not prefix:
            return self.id, "", self._main_documents, 0
        frame = self._frames.get(prefix)
        count = 0 if frame is None else self._frame_documents.get(frame, (0, ""))[0]
        return self.id, prefix, self._main_documents, count

    async def learn_frames(self, snapshot: str) -> None:
        """Find the frames that a snapshot shows for the first time: a prefix is a frame's for good."""
        for prefix, owner in outline.frames(snapshot):
            if prefix in self._frames:
                continue
            with contextlib.suppress(PlaywrightError):  # gone again
                handle = await self.page.query_selector(f"aria-ref={owner}")
                frame = None if handle is None else await handle.content_frame()
                if frame is not None:
                    self._frames[prefix] = frame

    def frame_of(self, prefix: str) -> Frame:
        """Return the frame with this prefix in Playwright's refs; one without a parent is the main frame."""
        return self._frames.get(prefix, self.page.main_frame)

    # --- what happens to it ---

    def _on_document(self, event: dict[str, Any]) -> None:
        if "parentId" not in event["frame"]:
            self._main_documents += 1
            self.first_watch = None
            self.generation += 1
            self._frame_documents.clear()
            self._frames.clear()

    def _on_navigated(self, frame: Frame) -> None:
        self.changes += 1
        if frame.parent_frame is None:
            self.arrived.set()
            self._tabs.note_change()
            self._tell("tab", f"{self.id} is at {frame.url}", {"url": frame.url})
            return
        # Playwright does not distinguish a new document from a new fragment.
        count, url = self._frame_documents.get(frame, (0, ""))
        if urldefrag(url)[0] != urldefrag(frame.url)[0] or url == frame.url:
            count += 1
        self._frame_documents[frame] = (count, frame.url)
        self.generation += 1

    def _on_loaded(self, page: Page) -> None:
        async def read_title() -> None:
            with contextlib.suppress(PlaywrightError, BrowserError):  # gone, or in a dialog
                title = await self.run(page.title())
                if title != self.title:
                    self.title = title
                    self._tabs.note_change()

        self._reading = asyncio.create_task(read_title())

    def show_dialog(self, opened: OpenDialog) -> None:
        """Note a dialog that opens in the tab, in which its page waits."""
        self._open_dialog = opened
        mask = self._tabs.mask
        self.dialog = Dialog(
            kind=opened.type,  # type: ignore[arg-type]  # Playwright says str
            message=mask(opened.message),
            default=mask(opened.default_value),
        )
        self.changes += 1
        if not self._dialog_opened.done():
            self._dialog_opened.set_result(None)
            self._dialog_closed = asyncio.get_running_loop().create_future()
        self._holding_up = asyncio.create_task(self._hold_up_opener())
        data = {"kind": opened.type, "message": opened.message}
        self._tell("dialog", f"{opened.type}: {opened.message}", data)

    def _on_dialog_closed(self, event: dict[str, Any]) -> None:
        dialog = self.dialog
        if dialog is None:
            return
        self.dialog = self._open_dialog = None
        self._dialog_opened = asyncio.get_running_loop().create_future()
        self._dialog_closed.set_result(None)
        how = "accepted" if event["result"] else "dismissed"
        if event["result"] and dialog.kind == "prompt":
            how += f" with {self._tabs.mask(event['userInput'])!r}"
        self._ended = dialog, how, event["result"]
        if not self._is_answering:
            self._tell_end(by_another=True)

    def _tell_end(self, *, by_another: bool = False) -> None:
        """Report how the dialog has ended, if it has and that was not reported yet."""
        if self._ended is None:
            return
        (dialog, how, accepted), self._ended = self._ended, None
        how += " by another client" if by_another else ""
        self._last_answer = f": the {dialog.kind} {dialog.message!r} was {how}"
        data = {"kind": dialog.kind, "accepted": accepted}
        self._tell("dialog", f"{dialog.kind} {how}: {dialog.message}", data)

    def _crash(self) -> None:
        if not self._is_ours:
            return
        self.crashed = True
        self._tell("tab", f"the page in {self.id} crashed", {"url": self.page.url})
        self._end("shows a page that crashed")

    async def _hold_up_opener(self) -> None:
        """A page that opened this one waits for the answer to its dialog, too, if it does so just now."""
        page = await self.page.opener()
        opener = None if page is None else self._tabs.of_page(page)
        if opener is not None:
            held_up, opener._held_up = opener._held_up, asyncio.get_running_loop().create_future()
            held_up.set_result(self)

    def _tell(self, kind: str, text: str, data: dict[str, Any]) -> None:
        """Report something as soon as its tab is known."""
        if not self._is_known.done():
            self._is_known.add_done_callback(lambda _: self._tell(kind, text, data))
        elif self._is_ours:
            self._tabs.listener.tab_happened(self, kind, text, data)

    def _end(self, how: str) -> None:
        if not self._gone.done():
            self._gone.set_result(how)
        if self.connection is not None:
            self.connection.close()
        if self.closed:
            self._tabs.forget(self)


def _forget(task: asyncio.Future[Any]) -> None:
    """Consume the result of abandoned work, which asyncio would report otherwise."""
    if not task.cancelled():
        task.exception()
