"""The only importer of automerge: every hazard of automerge 0.2.0.dev4 stays in this module. Nothing here waits.

* Dropping a Document while its transaction is open crashes the process: `write` is the only way to open one, and only
  as a `with` block; callers check their values before they enter it.
* A Rust panic arrives as a BaseException. One in a write leaves a poisoned Document, and dropping that crashes too,
  even at the interpreter's exit: it is made immortal, and everything asked of it afterwards raises StorageError.
* Too little memory to unpack a chunk is a parse error by its type, and damage in no way: it comes from a MemoryError.
* A panic in a read (a Counter) does no harm: that value is not there for us.
* Heads that the document does not know read as an empty document, without a word: ask `knows` first.
* A snapshot followed by changes of which one is missing loads without those that depend on it: ask `knows`, too.

`tests/document/test_automerge.py` shows each of them.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from automerge import core

from runtimed.document.changes import HASH_SIZE
from runtimed.document.text_edit import TextEdit
from runtimed.errors import StorageError

__all__ = ["GENESIS", "ROOT", "Engine", "Node", "Writer"]

ROOT: Final[bytes] = core.ROOT

GENESIS: Final = bytes.fromhex(
    "856f4a8333458a3b0147001072756e74696d65642d67656e657369730101000000061517340142045604570170027d067363"
    "68656d61086d657461646174610563656c6c73037f0102007f140200010300"
)
"""The first change of every document: `schema` 1, and empty maps `metadata` and `cells`. Its bytes never change: two
documents that made these maps each by itself would lose the cells of one when they merge."""

_NO_MEMORY: Final = "out of memory"
"""How an error of automerge ends that unpacked a chunk and got no memory for it; elsewhere it aborts the process."""

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
    """What may be done inside a transaction; values have been checked before."""

    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    def put(self, node: bytes, key: str, value: str | int | None) -> None:
        """Set one value of a map."""
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
    """One Automerge document, whatever it holds."""

    def __init__(self, data: bytes) -> None:
        """Read a document from its bytes.

        Raises:
            StorageError: If automerge cannot read them.
        """
        self._document: Any = None
        self._broken: str | None = None
        with self._guard("load a document"):
            self._document = core.Document.load(data)

    @property
    def usable(self) -> bool:
        """False once automerge has broken this document."""
        return self._broken is None

    def save(self) -> bytes:
        """Return the whole document with its history, packed."""
        with self._guard("save a document"):
            return bytes(self._document.save())

    def heads(self) -> list[bytes]:
        """Return the hashes of the changes that nothing follows."""
        with self._guard("read the heads"):
            return list(self._document.get_heads())

    def knows(self, heads: Iterable[bytes]) -> bool:
        """Whether all of these changes are in this document."""
        with self._guard("look up a change"):
            # A root without keys is what automerge shows for an unknown change; every known one follows the genesis.
            return all(len(head) == HASH_SIZE and bool(self._document.keys(ROOT, [head])) for head in heads)

    def changes_since(self, heads: Sequence[bytes]) -> list[bytes]:
        """Return the changes that these heads do not include, each after those it depends on."""
        with self._guard("read changes"):
            return [bytes(change.bytes) for change in self._document.get_changes(list(heads))]

    def get(self, node: bytes, key: str) -> object:
        """Return one value of a map as a Node, str, int, … or None."""
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
        """Return an id for each element of a text, normally for each code point."""
        with self._guard("read a text"):
            return list(self._document.keys(node))

    @contextmanager
    def write(self, author: str) -> Iterator[Writer]:
        """Open a transaction; its end makes one change by `author`, or none if nothing was written.

        Raises:
            StorageError: If automerge fails, which it does not for checked values.
        """
        with self._guard("change a document"):
            self._document.set_actor(_actor(author))
            with self._document.transaction() as transaction:
                yield Writer(transaction)

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        """Turn every failure of automerge into a StorageError, and note if it cannot go on."""
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
        """Whether a read failed at a value that automerge cannot show, with the document as good as before."""
        return self.usable and exc.__cause__ is not None and _is_panic(exc.__cause__)

    def _answers(self) -> bool:
        with suppress(Exception):
            self._document.get_heads()
            return True
        return False


def _is_panic(exc: BaseException) -> bool:
    return type(exc).__name__ == "PanicException"  # pyo3_runtime, which cannot be imported


def _value(found: Any) -> object:
    value, node = found
    if isinstance(value, tuple):
        return value[1]
    return Node(next(name for kind, name in _KINDS if kind == value), node)


@lru_cache(maxsize=1024)
def _actor(author: str) -> bytes:
    """Return the actor id of an author: a uuid4's 16 bytes as they are, anything else hashed."""
    if len(author) == 32 and author.isalnum() and author.isascii():
        with suppress(ValueError):
            return bytes.fromhex(author)
    return hashlib.sha256(author.encode(errors="surrogatepass")).digest()[:16]
