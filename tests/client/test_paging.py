"""Replies in pages from a daemon that sends too little: an end with a sentence, and no loop without one.

The flows are driven by hand: no daemon of ours sends such replies.
"""

import asyncio
import hashlib
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from runtimed import Image, ProtocolError, StorageError
from runtimed.client import calls
from runtimed.client.async_pages import AsyncItems
from runtimed.client.calls import Notebook
from runtimed.client.calls.pages import Page, Pages, read_blob
from runtimed.client.pages import Items
from runtimed.ids import SessionId
from runtimed.models import SessionStatus
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol import execution_operations as execution_ops
from runtimed.protocol.browser_operations import Piece, ReadReply
from runtimed.protocol.codec import encode_event, pack
from runtimed.protocol.events import Blob, BrowserLogged
from runtimed.protocol.operation import ReplyBody
from runtimed.protocol.replies import EventPage, GetBlobReply, InPieces
from runtimed.protocol.session_operations import GetSession, GetSessionReply

STATUS = SessionStatus(
    session_id="n",
    kind="browser",
    status="active",
    close_reason=None,
    created_at=datetime.now(UTC),
    closed_at=None,
    last_accessed_at=datetime.now(UTC),
    timeout_minutes=None,
    max_duration_minutes=None,
    duration=timedelta(0),
    peers=0,
    label=None,
    error=None,
    host_pid=None,
)
NOTEBOOK = Notebook(SessionId("n"))
VALUE = b"0123456789"
SHA = hashlib.sha256(VALUE).hexdigest()


def drive(flow: Any, answer: Any, most: int = 20) -> Any:
    """Let a flow run with a daemon that answers so; fail if it asks on and on."""
    try:
        step = next(flow)
        for _ in range(most):
            reply = (
                GetSessionReply(session=STATUS) if isinstance(step.operation, GetSession) else answer(step.operation)
            )
            step = flow.send(msgspec.to_builtins(reply, builtin_types=(bytes,)))
    except StopIteration as stop:
        return stop.value
    pytest.fail(f"it asks on and on: {step}")


@pytest.mark.parametrize("size", [1, 3, 10])
def test_a_blob_in_pieces_is_put_together(size):
    assert drive(read_blob(NOTEBOOK, SHA, 10), lambda asked: GetBlobReply(data=VALUE[asked.offset :][:size])) == VALUE


@pytest.mark.parametrize(
    "stored", [b"", VALUE[:4], VALUE[::-1], VALUE + b"!"], ids=["empty", "short", "another", "longer"]
)
def test_a_blob_that_is_not_what_was_asked_for_is_named(stored):
    with pytest.raises(StorageError, match=f"A value of 10 bytes is damaged: its file {SHA} holds something else"):
        drive(read_blob(NOTEBOOK, SHA, 10), lambda asked: GetBlobReply(data=stored[asked.offset :]))


def test_a_picture_of_the_action_log_is_checked_like_any_blob():
    entry = {"n": 1, "at": "2026-01-01T00:00:00Z", "kind": "picture"}
    logged = encode_event(BrowserLogged(at=0.0, entry=entry, image=Blob(sha256=SHA, size=10, text=False)))

    def answer(stored: bytes) -> Any:
        def answer(asked: Any) -> ReplyBody:
            if isinstance(asked, execution_ops.GetBlob):
                return GetBlobReply(data=stored[asked.offset :])
            return EventPage(events=[(1, logged)], last=1, more=False)

        return answer

    (found,) = drive(calls.browser.read_actions(NOTEBOOK, pictures=True), answer(VALUE))
    assert found.image == VALUE
    with pytest.raises(StorageError, match=SHA):
        drive(calls.browser.read_actions(NOTEBOOK, pictures=True), answer(b""))


def test_a_reply_of_a_browser_in_pieces_is_whole_or_an_error():
    whole = pack(b"png")

    def answer(rest: bytes) -> Any:
        def answer(asked: Any) -> ReplyBody:
            if isinstance(asked, ReadReply):
                return Piece(piece=(whole[:2] + rest)[asked.offset :])
            return InPieces[bytes](reply_id=1, piece=whole[:2], size=len(whole))

        return answer

    assert drive(calls.browser.screenshot(NOTEBOOK), answer(whole[2:])) == Image(data=b"png")
    for rest in (b"", whole[2:-1], whole[2:] + b"!"):
        with pytest.raises(ProtocolError, match=f"the daemon sent .* bytes of a reply of {len(whole)}"):
            drive(calls.browser.screenshot(NOTEBOOK), answer(rest))


@pytest.mark.parametrize(
    ("flow", "page"),
    [
        (calls.get_cells, document_ops.GetCellsReply(cells=[], next=0)),
        (calls.get_cell_ids, document_ops.GetCellsReply(cells=[], next=0)),
        (calls.browser.read_actions, EventPage(events=[], last=0, more=True)),
    ],
    ids=["cells", "ids", "actions"],
)
def test_a_page_that_does_not_lead_on_is_an_error(flow, page):
    with pytest.raises(ProtocolError, match="the daemon sent a page that ends at 0, and should lead on from 0"):
        drive(flow(NOTEBOOK), lambda _asked: page)


def test_outputs_of_a_cell_that_do_not_lead_on_are_an_error():
    cell = document_ops.StoredCell(
        id="c", cell_type="code", source="", metadata={}, position="a", more=7, execution_id="e"
    )

    def answer(asked: Any) -> ReplyBody:
        if isinstance(asked, document_ops.GetCell):
            return document_ops.GetCellReply(cell=cell)
        return EventPage(events=[], last=7, more=True)

    with pytest.raises(ProtocolError, match="ends at 7, and should lead on from 7"):
        drive(calls.get_cell(NOTEBOOK, "c"), answer)


class Numbers:
    """A daemon that has so many numbers, and gives three at a time."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[int] = []

    def read(self, at: int) -> Any:
        self.asked.append(at)
        yield None
        end = min(at + 3, self.count)
        return Page(list(range(at, end)), end if end < self.count else None)


def perform(flow: Any) -> Any:
    try:
        while True:
            next(flow)
    except StopIteration as stop:
        return stop.value


async def perform_later(flow: Any) -> Any:
    return perform(flow)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_what_comes_in_pages_is_read_whole_or_one_after_another(count):
    async def read_all() -> list[int]:
        return [one async for one in AsyncItems(perform_later, Pages(Numbers(count).read))]

    expected = list(range(count))
    assert perform(Pages(Numbers(count).read).all()) == expected
    assert list(Items(perform, Pages(Numbers(count).read))) == expected
    assert asyncio.run(read_all()) == expected


def test_a_page_is_asked_for_when_the_one_before_is_used_up():
    numbers = Numbers(7)
    items = Items(perform, Pages(numbers.read))
    assert numbers.asked == []
    assert list(itertools.islice(items, 3)) == [0, 1, 2]
    assert numbers.asked == [0]
    assert next(items) == 3
    assert numbers.asked == [0, 3]


def test_a_page_that_leads_nowhere_ends_the_iteration():
    def read(at: int) -> Any:
        yield None
        return Page([at], at)

    with pytest.raises(ProtocolError, match="should lead on"):
        list(Items(perform, Pages(read)))
