"""Change chunks as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.document.changes import heads_of, read_changes
from runtimed.ids import CellId, ClientId, SessionId
from tests.document.edited import EditedDocument

AUTHOR = ClientId("a" * 32)


def a_history() -> tuple[list[bytes], tuple[bytes, ...]]:
    document = EditedDocument.create(SessionId("n"))
    document.add_cell(CellId("c"), "x" * 3, "code", author=AUTHOR)
    document.set_source(CellId("c"), "a long text that is stored compressed\n" * 50, base=None, author=AUTHOR)
    return document.history(), document.heads


def test_the_hash_of_the_last_change_is_the_head_of_its_document():
    changes, heads = a_history()
    read = read_changes(changes)
    assert [change.data for change in read] == changes
    assert tuple(change.hash for change in heads_of(read)) == heads
    assert [change.deps for change in read] == [(), *((change.hash,) for change in read[:-1])]
    assert {change.data[8] for change in read} == {1, 2}  # plain and compressed ones


def test_changes_joined_in_one_piece_are_read_like_single_ones():
    changes, _ = a_history()
    assert read_changes([b"".join(changes)]) == read_changes(changes)


@given(st.data())
def test_a_change_with_one_flipped_bit_or_a_missing_end_is_refused(data: st.DataObject):
    changes, _ = a_history()
    change = bytearray(data.draw(st.sampled_from(changes)))
    place = data.draw(st.integers(0, len(change) - 1))
    if data.draw(st.booleans()):
        del change[place:]
        if not change:
            return
    else:
        change[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match=r"chunk|change"):
        read_changes([bytes(change)])


@given(st.binary(min_size=1, max_size=200))
def test_arbitrary_bytes_are_no_changes(data: bytes):
    with pytest.raises(ValueError, match="no Automerge chunk"):
        read_changes([data])


def test_a_snapshot_is_no_change():
    with pytest.raises(ValueError, match="not a change"):
        read_changes([EditedDocument.create(SessionId("n")).save()])
