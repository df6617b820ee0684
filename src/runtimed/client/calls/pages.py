"""Assembles replies that come in pieces: each piece leads on, and the whole is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from runtimed.client.calls.notebook import Notebook
from runtimed.client.flows import Flow, ask
from runtimed.errors import ProtocolError, StorageError
from runtimed.protocol import document_operations as document_ops
from runtimed.protocol import execution_operations as execution_ops
from runtimed.protocol.browser_operations import ReadReply
from runtimed.protocol.codec import unpack
from runtimed.protocol.operation import Operation

__all__ = ["Page", "Pages", "following", "read_blob", "read_content", "read_document", "read_rest"]


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A piece of something long.

    Attributes:
        items: Its items.
        next: Where the next page begins; None behind the last one.
    """

    items: list[T]
    next: int | None


@dataclass(frozen=True, slots=True)
class Pages(Generic[T]):
    """Something long that is read page by page. Only the daemon understands the positions.

    Attributes:
        read: Reads the page at a position.
        start: Position of the first page.
    """

    read: Callable[[int], Flow[Page[T]]]
    start: int = 0

    def page(self, at: int) -> Flow[Page[T]]:
        """Return the page at a position.

        Raises:
            ProtocolError: If it does not lead on.
        """
        found = yield from self.read(at)
        if found.next is not None:
            following(at, found.next)
        return found

    def each(self, visit: Callable[[T], object]) -> Flow[None]:
        """Call a function with each item, without holding all of them."""
        at: int | None = self.start
        while at is not None:
            page = yield from self.page(at)
            for item in page.items:
                visit(item)
            at = page.next

    def all(self) -> Flow[list[T]]:
        """Return all items."""
        items: list[T] = []
        yield from self.each(items.append)
        return items


def following(before: int, after: int) -> int:
    """Return the position of the next page.

    Raises:
        ProtocolError: If it is not behind this one's: the loop would never end.
    """
    if after <= before:
        raise ProtocolError(f"the daemon sent a page that ends at {after}, and should lead on from {before}")
    return after


def read_blob(notebook: Notebook, sha256: str, size: int) -> Flow[bytes]:
    """Read a blob, and check its content.

    Raises:
        StorageError: If its file contains something else, or less.
    """

    def read(offset: int) -> Flow[Page[bytes]]:
        reply = yield from ask(execution_ops.GetBlob(notebook_id=notebook.id, sha256=sha256, offset=offset))
        return _piece(reply.data, offset, size)

    content = b"".join((yield from Pages(read).all())) if size else b""
    # The reader of a value checks it: its name is the hash of its bytes.
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StorageError(
            f"A value of {size} bytes is damaged: its file {sha256} holds something else; run the cell that showed it "
            "again",
            sha256=sha256,
        )
    return content


def _piece(piece: bytes, offset: int, size: int) -> Page[bytes]:
    """Return a piece of something of this size; an empty piece is the last, even if bytes are missing."""
    end = offset + len(piece)
    return Page([piece], end if piece and end < size else None)


def read_content(notebook: Notebook, cell_id: str) -> Flow[tuple[str, dict[str, str]]]:
    """Read a cell's source and metadata, of any size, as of one moment.

    Raises:
        CellNotFound: If the cell was deleted.
        ProtocolError: If the daemon sends something else.
    """
    content = yield from _read_whole(
        lambda offset: document_ops.GetContent(notebook_id=notebook.id, cell_id=cell_id, offset=offset)
    )
    whole = unpack(content)
    return whole["source"], whole["metadata"]


def read_document(notebook: Notebook) -> Flow[bytes]:
    """Read the Automerge document, with all edits so far.

    Raises:
        StorageError: If the daemon cannot write them into it.
        ProtocolError: If the daemon sends something else.
    """
    return (yield from _read_whole(lambda offset: document_ops.GetDocument(notebook_id=notebook.id, offset=offset)))


def _read_whole(request_at: Callable[[int], Operation[document_ops.GetContentReply]]) -> Flow[bytes]:
    """Read something of any size in pieces, as of one moment."""
    content, sha256 = bytearray(), ""
    while True:
        offset = len(content)
        page = yield from ask(request_at(offset))
        if page.sha256 != sha256 and content:
            # It was edited meanwhile: the pieces would not fit together.
            content.clear()
            continue
        sha256 = page.sha256
        content += page.piece
        if len(content) >= page.size:
            break
        following(offset, len(content))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ProtocolError("the daemon sent something else than it announced")
    return bytes(content)


def read_rest(notebook: Notebook, reply_id: int, piece: bytes, size: int) -> Flow[bytes]:
    """Read the rest of a browser's long reply.

    Args:
        reply_id: The reply.
        piece: What has arrived of it.
        size: Bytes of the whole.

    Raises:
        ProtocolError: If it comes to another size.
    """

    def read(offset: int) -> Flow[Page[bytes]]:
        reply = yield from ask(ReadReply(notebook_id=notebook.id, reply_id=reply_id, offset=offset))
        return _piece(reply.piece, offset, size)

    content = piece + b"".join((yield from Pages(read, len(piece)).all()))
    if len(content) != size:
        raise ProtocolError(f"the daemon sent {len(content)} bytes of a reply of {size}")
    return content
