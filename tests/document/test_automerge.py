"""What automerge 0.2.0.dev4 does in bad cases: these tests say what the next version does otherwise.

`document.engine` answers for each of them. A test that fails with another version names what that module, or `changes`,
can leave out or has to add.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from automerge import core

Put = core.ScalarType
ROOT = core.ROOT
UNKNOWN = b"x" * 32


def a_document(changes: int = 3) -> Any:
    document: Any = core.Document(actor_id=b"actor")
    for number in range(changes):
        with document.transaction() as transaction:
            transaction.put(ROOT, f"key {number}", Put.Int, number)
    return document


def changes_of(document: Any) -> list[bytes]:
    return [bytes(change.bytes) for change in document.get_changes([])]


def a_text(content: str) -> tuple[Any, bytes]:
    document: Any = core.Document(actor_id=b"actor")
    with document.transaction() as transaction:
        text: bytes = transaction.put_object(ROOT, "text", core.ObjType.Text)
        transaction.splice_text(text, 0, 0, content)
    return document, text


def in_a_child(code: str) -> tuple[int, str]:
    """Run code beside a document `d`; return the exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", f"from automerge import core\nd = core.Document(actor_id=b'actor')\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "RUST_BACKTRACE": "0"},
    )
    return done.returncode, done.stdout


def test_plain_pip_would_choose_the_older_one_so_the_pin_is_exact():
    from importlib.metadata import requires, version

    assert version("automerge") == "0.2.0.dev4"
    assert "automerge==0.2.0.dev4" in (requires("ipython-runtimed") or [])


# A transaction that does not end


@pytest.mark.parametrize("end", ["del d, t", ""], ids=["dropped", "at the interpreter's exit"])
def test_a_document_that_goes_while_its_transaction_is_open_crashes_the_process(end: str):
    code = f"t = d.transaction().__enter__()\nprint('still here', flush=True)\n{end}"
    assert in_a_child(code) == (-signal.SIGABRT, "still here\n")


def test_an_open_transaction_refuses_another_one_and_saving_and_lets_its_writes_be_read():
    document = a_document()
    with document.transaction() as transaction:
        transaction.put(ROOT, "key", Put.Int, 1)
        for ask in (document.transaction, document.save, lambda: document.get_changes([])):
            with pytest.raises(Exception, match="transaction"):
                ask()
        assert "key" in document.keys(ROOT)


def test_what_raises_inside_a_transaction_rolls_it_back():
    document = a_document()
    heads = document.get_heads()

    def interrupted() -> None:
        with document.transaction() as transaction:
            transaction.put(ROOT, "key", Put.Int, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (document.get_heads(), "key" in document.keys(ROOT)) == (heads, False)


# Panics


def test_writing_a_counter_poisons_the_document_and_dropping_it_crashes():
    code, printed = in_a_child(
        """
for ask in (
    lambda t: t.put(core.ROOT, 'n', core.ScalarType.Counter, 1),
    lambda t: t.put(core.ROOT, 'n', core.ScalarType.Int, 1),
):
    try:
        with d.transaction() as t:
            ask(t)
    except Exception as exc:
        print('poisoned' in str(exc))
try:
    d.get_heads()
except Exception as exc:
    print('poisoned' in str(exc), flush=True)
del d, t
"""
    )
    assert (code, printed) == (-signal.SIGABRT, "True\nTrue\nTrue\n")


def test_reading_a_counter_panics_with_a_base_exception_and_leaves_the_document_as_it_was():
    document = core.Document(actor_id=b"actor")
    with document.transaction() as transaction:
        transaction.put(ROOT, "count", Put.Int, 5)
    body = changes_of(document)[0][8:].replace(b"\x14", b"\x18")  # a value's type: Int becomes Counter
    counter = core.Document.load(resealed(b"\x85\x6f\x4a\x83" + b"\0" * 4 + body))
    for ask in (lambda: counter.get(ROOT, "count"), lambda: counter.values(ROOT)):
        with pytest.raises(BaseException, match="not yet implemented") as caught:
            ask()
        assert type(caught.value).__name__ == "PanicException"
        assert not isinstance(caught.value, Exception)
    assert counter.keys(ROOT) == ["count"]
    assert core.Document.load(counter.save()).get_heads() == counter.get_heads()


# Damaged and missing input


def resealed(chunk: bytes) -> bytes:
    """Return a chunk with a checksum that fits."""
    return chunk[:4] + hashlib.sha256(chunk[8:]).digest()[:4] + chunk[8:]


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def verdict(data: bytes) -> str:
    """What loading gives: an exception's name, or whether all that was read can be saved and loaded again."""
    try:
        document = core.Document.load(data)
        document.values(ROOT)
        core.Document.load(document.save())
    except BaseException as exc:  # noqa: BLE001  # a panic is one
        return type(exc).__name__
    return f"{len(document.keys(ROOT))} keys"


def test_truncated_bytes_are_refused_but_where_a_chunk_ends():
    document = a_document(2)
    snapshot, changes = bytes(document.save()), changes_of(document)
    assert Counter(verdict(snapshot[:size]) for size in range(len(snapshot))) == {
        "0 keys": 1,
        "Exception": len(snapshot) - 1,
    }
    joined = b"".join(changes)
    assert [verdict(joined[:size]) for size in range(len(joined))] == [
        {0: "0 keys", len(changes[0]): "1 keys"}.get(size, "Exception") for size in range(len(joined))
    ]


def test_each_flipped_bit_is_refused_by_the_checksum():
    document = a_document(2)
    for data in (bytes(document.save()), *changes_of(document)[:1]):
        assert {verdict(flipped(data, bit)) for bit in range(len(data) * 8)} == {"Exception"}


def test_a_flipped_bit_under_a_checksum_that_fits_may_panic_or_be_read_as_something_else(
    capfd: pytest.CaptureFixture[str],
):
    snapshot = bytes(a_text("hello world")[0].save())
    verdicts = Counter(verdict(resealed(flipped(snapshot, bit))) for bit in range(8 * 8, len(snapshot) * 8))
    capfd.readouterr()  # what Rust says of its panics
    assert verdicts.keys() == {"Exception", "PanicException", "1 keys"}


def test_a_missing_change_is_refused_among_changes_and_passed_over_behind_a_snapshot():
    first, second, third = changes_of(a_document())
    for data in (first + third, second + third, third + first):
        with pytest.raises(Exception, match="deps"):
            core.Document.load(data)
    snapshot = bytes(core.Document.load(first).save())
    assert core.Document.load(snapshot + third).keys(ROOT) == ["key 0"]
    assert core.Document.load(snapshot + third + second).keys(ROOT) == ["key 0", "key 1", "key 2"]


def test_unknown_heads_read_as_an_empty_document_and_give_all_changes():
    document = a_document()
    assert (document.keys(ROOT, [UNKNOWN]), document.get(ROOT, "key 0", [UNKNOWN])) == ([], None)
    assert len(document.get_changes([UNKNOWN])) == 3
    with pytest.raises(ValueError, match="slice"):
        document.keys(ROOT, [b"short"])


# Values


@pytest.mark.parametrize(
    "write",
    [
        lambda t, text: t.put(ROOT, "k", Put.Str, "a\ud800"),
        lambda t, text: t.splice_text(text, 0, 0, "a\ud800"),
    ],
)
def test_a_lone_surrogate_is_refused(write: Callable[[Any, bytes], object]):
    document, text = a_text("abc")
    with pytest.raises(UnicodeEncodeError), document.transaction() as transaction:
        write(transaction, text)
    assert document.text(text) == "abc"


def test_an_insertion_out_of_bounds_is_refused_and_a_deletion_is_cut():
    document, text = a_text("abc")
    with pytest.raises(Exception, match="out of bounds"), document.transaction() as transaction:
        transaction.splice_text(text, 4, 0, "x")
    with document.transaction() as transaction:
        transaction.splice_text(text, 1, 9, "")
    assert document.text(text) == "a"


def test_a_text_counts_code_points():
    document, text = a_text("e\u0301😀\0中")
    with document.transaction() as transaction:
        transaction.splice_text(text, 2, 1, "🙂🙂")
    assert (document.text(text), document.length(text)) == ("e\u0301🙂🙂\0中", 6)
    assert len(document.keys(text)) == 6


def test_a_wide_element_is_damaged_by_an_edit_within_it():
    document: Any = core.Document(actor_id=b"actor")
    with document.transaction() as transaction:
        text: bytes = transaction.put_object(ROOT, "text", core.ObjType.Text)
        transaction.insert(text, 0, Put.Str, "hello")
    assert (document.length(text), len(document.keys(text))) == (5, 1)
    with document.transaction() as transaction:
        transaction.splice_text(text, 2, 0, "AB")
    assert document.text(text) == "helloAB"


def test_a_long_text_takes_time_and_a_long_string_none():
    """A million code points: 1 s to insert, ten million 14 s. Hence `checks.MAX_TEXT`."""
    size = 1_000_000
    began = time.perf_counter()
    document, text = a_text("x" * size)
    inserting = time.perf_counter() - began
    assert document.length(text) == size
    began = time.perf_counter()
    with document.transaction() as transaction:
        transaction.put(ROOT, "string", Put.Str, "x" * 10 * size)
    putting = time.perf_counter() - began
    assert document.get(ROOT, "string")[0][1] == "x" * 10 * size
    assert inserting > 5 * putting


def test_deleting_costs_several_times_as_much_as_inserting():
    """11 µs for each code point. Hence `sources.write`."""
    began = time.perf_counter()
    document, text = a_text("x" * 20_000)
    inserting = time.perf_counter() - began
    began = time.perf_counter()
    with document.transaction() as transaction:
        transaction.splice_text(text, 0, 20_000, "")
    assert time.perf_counter() - began > 3 * inserting
