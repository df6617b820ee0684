"""The only importer of automerge: it contains every hazard of automerge 0.2.0.dev4. Nothing here waits.

* Dropping a Document with an open transaction crashes the process. So a transaction is only opened by `write`, a `with`
  block, and callers check their values before they enter it.
* A Rust panic arrives as a BaseException. A panic in a write poisons the Document; dropping that crashes the process
  too, even at the interpreter's exit. So it is made immortal, and every later call on it raises StorageError.
* A lack of memory while a chunk is decompressed is reported as a parse error; here its cause is a MemoryError.
* A panic in a read (a Counter) is harmless: that value is treated as missing.
* Reading at unknown heads silently gives an empty document: check them with `knows` first.
* Loading a snapshot with changes silently drops a change whose dependency is missing: check with `knows` afterwards.

`tests/document/test_automerge.py` demonstrates each of them.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from automerge import core

from runtimed.document.changes import HASH_SIZE, read_leb128
from runtimed.document.text_edit import TextEdit
from runtimed.errors import StorageError

__all__ = ["GENESIS", "ROOT", "Engine", "Node", "Writer", "identity_of"]

ROOT: Final[bytes] = core.ROOT

GENESIS: Final = bytes.fromhex(
    "856f4a8333458a3b0147001072756e74696d65642d67656e657369730101000000061517340142045604570170027d067363"
    "68656d61086d657461646174610563656c6c73037f0102007f140200010300"
)
"""The first change of every document: `schema` 1, and empty maps `metadata` and `cells`. Its bytes never change: two
documents that created these maps independently would lose the cells of one of them when they merge."""

_NO_MEMORY: Final = "out of memory"
"""Ends automerge's error for a lack of memory while decompressing a chunk; any other one aborts the process."""

_KINDS: Final[tuple[tuple[Any, Literal["map", "list", "text"]], ...]] = (
    (core.ObjType.Map, "map"),
    (core.ObjType.Text, "text"),
    (core.ObjType.List, "list"),
)


class Node(NamedTuple):
    """A map, list or text inside a document."""

    kind: Literal["map", "list", "text"]
    id: bytes


class Writer:
    """An open transaction. Values must have been checked before."""

    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    def put(self, node: bytes, key: str, value: str | int | None) -> None:
        """Set a value of a map."""
        match value:
            case None:
                scalar = core.ScalarType.Null
            case str():
                scalar = core.ScalarType.Str
            case _:
                scalar = core.ScalarType.Int  # Uint would be a BigInt in JavaScript
        self._transaction.put(node, key, scalar, value)

    def put_map(self, node: bytes, key: str) -> bytes:
        """Set a key of a map to a new empty map; return its id."""
        made: bytes = self._transaction.put_object(node, key, core.ObjType.Map)
        return made

    def put_text(self, node: bytes, key: str, content: str) -> bytes:
        """Set a key of a map to a new text; return its id."""
        made: bytes = self._transaction.put_object(node, key, core.ObjType.Text)
        self._transaction.splice_text(made, 0, 0, content)
        return made

    def delete(self, node: bytes, key: str) -> None:
        """Remove a key of a map."""
        self._transaction.delete(node, key)

    def edit_text(self, node: bytes, edits: Sequence[TextEdit]) -> None:
        """Apply ascending edits to a text."""
        for start, deleted, inserted in reversed(edits):
            self._transaction.splice_text(node, start, deleted, inserted)


class Engine:
    """One Automerge document of any content."""

    def __init__(self, data: bytes) -> None:
        """Load a document.

        Raises:
            StorageError: If automerge cannot read them.
        """
        self._document: Any = None
        self._broken: str | None = None
        with self._guard("load a document"):
            self._document = core.Document.load(data)

    @property
    def usable(self) -> bool:
        """False once a panic in automerge has poisoned this document."""
        return self._broken is None

    def save(self) -> bytes:
        """Return the whole document with its history, compressed."""
        with self._guard("save a document"):
            return bytes(self._document.save())

    def heads(self) -> list[bytes]:
        """Return the hashes of the changes that no other one depends on."""
        with self._guard("read the heads"):
            return list(self._document.get_heads())

    def knows(self, heads: Iterable[bytes]) -> bool:
        """Whether all of these changes are in this document."""
        with self._guard("look up a change"):
            # At an unknown change automerge shows a root without keys; GENESIS, which all known ones follow, has some.
            return all(len(head) == HASH_SIZE and bool(self._document.keys(ROOT, [head])) for head in heads)

    def changes_since(self, heads: Sequence[bytes]) -> list[bytes]:
        """Return the changes since these heads, each after those it depends on."""
        with self._guard("read changes"):
            return [bytes(change.bytes) for change in self._document.get_changes(list(heads))]

    def get(self, node: bytes, key: str) -> object:
        """Return a value of a map: a Node, str, int, …; None if the key is not set."""
        try:
            with self._guard("read a value"):
                found = self._document.get(node, key)
        except StorageError as exc:
            if self._is_harmless(exc):
                return None
            raise
        return None if found is None else _value(found)

    def items(self, node: bytes) -> dict[str, object]:
        """Return a map's keys and values."""
        with self._guard("read a map"):
            keys = list(self._document.keys(node))
        try:
            with self._guard("read a map"):
                values = self._document.values(node)
        except StorageError as exc:
            if self._is_harmless(exc):
                return {key: self.get(node, key) for key in keys}
            raise
        return {key: _value(found) for key, found in zip(keys, values, strict=True)}

    def text(self, node: bytes) -> str:
        """Return a text."""
        with self._guard("read a text"):
            return str(self._document.text(node))

    def elements(self, node: bytes) -> list[str]:
        """Return the ids of a text's elements, normally one for each code point."""
        with self._guard("read a text"):
            return list(self._document.keys(node))

    @contextmanager
    def write(self, author: str) -> Iterator[Writer]:
        """Open a transaction, committed at the end of the block as one change by `author`; none if nothing was written.

        Raises:
            StorageError: If automerge fails, which checked values never cause.
        """
        with self._guard("change a document"):
            self._document.set_actor(_actor(author))
            with self._document.transaction() as transaction:
                yield Writer(transaction)

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        """Translate every failure of automerge into a StorageError, and detect a poisoned document."""
        if self._broken is not None:
            raise StorageError(f"this document broke earlier ({self._broken}); load it again from storage")
        try:
            yield
        except BaseException as exc:
            if not isinstance(exc, Exception) and not _is_panic(exc):
                raise
            if self._document is not None and not self._answers():
                self._broken = f"automerge cannot {doing}: {exc}"
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._document))
            cause = MemoryError(str(exc)) if str(exc).endswith(_NO_MEMORY) else exc
            raise StorageError(f"automerge cannot {doing}: {exc}") from cause

    def _is_harmless(self, exc: StorageError) -> bool:
        """Whether a read failed only because automerge cannot represent the value; the document is intact."""
        return self.usable and exc.__cause__ is not None and _is_panic(exc.__cause__)

    def _answers(self) -> bool:
        with suppress(Exception):
            self._document.get_heads()
            return True
        return False


def identity_of(node: bytes) -> tuple[bytes, int]:
    """Return the actor who made an object, and the number of the operation: the same in every copy of the document.

    The bytes of an id say in between which actor of their own document that is.

    Source: automerge 0.5, `ExId::to_bytes`.
    """
    start = 2 + node[1]
    _index, place = read_leb128(node, start)
    number, _ = read_leb128(node, place)
    return node[2:start], number


def _is_panic(exc: BaseException) -> bool:
    return type(exc).__name__ == "PanicException"  # pyo3_runtime, which cannot be imported


def _value(found: Any) -> object:
    value, node = found
    if isinstance(value, tuple):
        return value[1]
    return Node(next(name for kind, name in _KINDS if kind == value), node)


@lru_cache(maxsize=1024)
def _actor(author: str) -> bytes:
    """Return the actor id of an author: the 16 bytes of a uuid4 in hexadecimal, a hash of anything else."""
    if len(author) == 32 and author.isalnum() and author.isascii():
        with suppress(ValueError):
            return bytes.fromhex(author)
    return hashlib.sha256(author.encode(errors="surrogatepass")).digest()[:16]
