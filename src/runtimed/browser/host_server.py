"""The requests of a daemon to a browser's host: idempotent by key, with long replies in pieces."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from runtimed.actions import parse_action, parse_target
from runtimed.browser.hosted import HostedBrowser
from runtimed.errors import BrowserError, ProtocolError
from runtimed.host.blobs import HostBlobs
from runtimed.host.outbox import Outbox
from runtimed.host.server import Answer, HostServer
from runtimed.protocol.browser_operations import (
    Act,
    BrowserOperation,
    GetBrowserAddress,
    GetBrowserAddressReply,
    GetCookies,
    Observe,
    Piece,
    ReadReply,
    SaveProfile,
    Scrape,
    Screenshot,
    SetCookies,
)
from runtimed.protocol.codec import pack
from runtimed.protocol.host_operations import (
    AttachReply,
    HostBecomeBrowser,
    HostBrowserUsed,
    HostOperation,
    HostShutdown,
    HostWarm,
)
from runtimed.protocol.operation import ReplyBody
from runtimed.protocol.replies import Done, InPieces

T = TypeVar("T")

__all__ = ["BrowserServer"]

PIECE: Final = 2**20
"""Longest reply in one piece, and longest piece of a longer one, in bytes."""

MAX_REPLY: Final = 256 * 2**20
"""Longest reply, in bytes, and most memory for replies that are read in pieces."""

KEPT: Final = 60.0
"""Seconds for which a reply in pieces can be read."""

REMEMBERED: Final = 100
"""Number of the newest actions whose results are kept, for a daemon that asks again."""


class BrowserServer(HostServer):
    """Serves the connections to the host of a browser; the arguments are those of `HostServer`."""

    def __init__(
        self,
        epoch: str,
        browser: HostedBrowser,
        outbox: Outbox,
        tasks: asyncio.TaskGroup,
        daemon_changed: Callable[[], None],
        blobs: HostBlobs,
    ) -> None:
        super().__init__(epoch, browser, outbox, tasks, daemon_changed, blobs)
        self._browser = browser
        self._works: dict[str, asyncio.Task[ReplyBody]] = {}
        self._results: OrderedDict[str, ReplyBody] = OrderedDict()
        self._replies: OrderedDict[int, bytes] = OrderedDict()
        self._last_reply = 0

    def facts(self) -> AttachReply:
        """See `HostServer`."""
        browser = self._browser
        return AttachReply(
            epoch=self.epoch,
            last=self.outbox.last,
            status=browser.status,
            pid=browser.pid,
            used_at=browser.used_at,
            profile=browser.kept_profile,
        )

    def perform(self, operation: HostOperation) -> Answer:
        """See `HostServer`."""
        match operation:
            case HostWarm():
                return _nothing_after(self._browser.warm())
            case HostBecomeBrowser():
                return _nothing_after(self._browser.work(self._browser.become(operation)))
            case HostBrowserUsed():
                self._browser.lifespan.use(time.time())
                return Done()
            case HostShutdown():
                return _nothing_after(self._browser.stop())
            case ReadReply(reply_id=reply_id, offset=offset):
                return self._read_reply(reply_id, offset)
            case (
                Observe()
                | Act()
                | Scrape()
                | Screenshot()
                | GetCookies()
                | SetCookies()
                | SaveProfile()
                | GetBrowserAddress()
            ):
                return self._once(operation)
            case _:
                raise ProtocolError(f"The host of a browser does not know the operation {type(operation).__name__}")

    def cancelled(self, task: asyncio.Task[None]) -> None:
        """See `HostServer`: cancels what nobody waits for, so that others need not wait for it."""
        task.cancel()

    async def _once(self, operation: BrowserOperation) -> ReplyBody:
        """Perform a request, or wait for its result if it was made already: a new daemon asks again."""
        key = operation.key
        if key in self._results:
            return self._results[key]
        work = self._works.get(key)
        if work is None:
            work = self._works[key] = self._browser.work(self._do(operation))
            work.add_done_callback(lambda _work: self._works.pop(key, None))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.cancel()
            raise

    async def _do(self, operation: BrowserOperation) -> ReplyBody:
        browser = self._browser.browser
        match operation:
            case Observe():
                observation = await browser.observe(
                    scope=operation.scope,
                    depth=operation.depth,
                    interactive_only=operation.interactive_only,
                    max_chars=operation.max_chars,
                    start=operation.start,
                    since=operation.since,
                )
                return self._in_pieces(observation)
            case Act():
                result = await browser.execute(
                    parse_action(operation.action), client_id=operation.client_id, label=operation.label
                )
                reply = self._in_pieces(result)
                self._remember(operation.key, reply)
                return reply
            case Scrape():
                content = await browser.scrape(
                    selector=operation.selector,
                    only_main_content=operation.only_main_content,
                    links=operation.links,
                    images=operation.images,
                    schema=operation.schema,
                )
                return self._in_pieces(content)
            case Screenshot():
                target = None if operation.target is None else parse_target(operation.target)
                return self._in_pieces(await browser.screenshot(target, full_page=operation.full_page))
            case GetCookies():
                return self._in_pieces(await browser.cookies())
            case SetCookies():
                if operation.cookie_file is None:
                    await browser.set_cookies(operation.cookies)
                else:
                    await browser.set_cookie_file(Path(operation.cookie_file))
            case SaveProfile():
                await browser.save_profile(operation.name)
            case GetBrowserAddress():
                return GetBrowserAddressReply(
                    cdp_url=browser.cdp_url,
                    viewer_url=browser.viewer_url,
                    viewer_page=str(browser.viewer_page),
                    target=await browser.active_target(),
                    dialogs=await browser.dialogs(),
                    silent=await browser.silent() if operation.attaching else [],
                )
        return Done()

    # --- what came of it ---

    def _remember(self, key: str, reply: ReplyBody) -> None:
        self._results[key] = reply
        if len(self._results) > REMEMBERED:
            self._results.popitem(last=False)

    def _in_pieces(self, value: T) -> InPieces[T]:
        """Return a value as bytes that only the client decodes, or the first piece of a long one.

        Raises:
            BrowserError: If it exceeds the longest reply.
        """
        packed = pack(msgspec.to_builtins(value, builtin_types=(bytes,)))
        if len(packed) <= PIECE:
            return InPieces(piece=packed, size=len(packed))
        if len(packed) > MAX_REPLY:
            raise BrowserError(
                f"What the page holds is too much to be returned: {len(packed):,} bytes, where {MAX_REPLY:,} are the "
                "most; ask for a part of it",
                size=len(packed),
            )
        self._last_reply += 1
        self._replies[self._last_reply] = packed
        while sum(map(len, self._replies.values())) > MAX_REPLY:
            self._replies.popitem(last=False)
        asyncio.get_running_loop().call_later(KEPT, self._replies.pop, self._last_reply, None)
        return InPieces(reply_id=self._last_reply, piece=packed[:PIECE], size=len(packed))

    def _read_reply(self, reply_id: int, offset: int) -> Piece:
        packed = self._replies.get(reply_id)
        if packed is None or not 0 <= offset < len(packed):
            raise BrowserError("The rest of that reply is there no more; ask for it again")
        return Piece(piece=packed[offset : offset + PIECE])


async def _nothing_after(work: Awaitable[object]) -> Done:
    await work
    return Done()
