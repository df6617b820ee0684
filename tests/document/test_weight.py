"""How heavy a history is: the same whether it is counted change by change or read from storage."""

from runtimed.document.changes import read_changes
from runtimed.document.weight import HistoryWeight, weight_of
from runtimed.ids import CellId, ClientId, SessionId
from tests.document.edited import EditedDocument

AUTHOR = ClientId("a" * 32)
CELL = CellId("c")


def test_operations_count_whatever_their_size_is():
    document = EditedDocument.create(SessionId("n"))
    document.add_cell(CELL, "", "code", author=AUTHOR)
    history = HistoryWeight()
    sizes = 0
    for _ in range(3):
        change = document.append_source(CELL, "x" * 1000, author=AUTHOR).change
        history.add(change)
        sizes += read_changes([change])[0].size
    # The latest change's operations count with the next one.
    assert history.bytes == 3 * sizes + 400 * 2 * 1000
    assert weight_of(document) == 400 * 3000


def test_a_value_that_is_written_as_a_whole_counts_by_its_size_not_as_it_is_packed():
    document = EditedDocument.create(SessionId("n"))
    document.add_cell(CELL, "x" * 100_000, "code", author=AUTHOR)
    history = HistoryWeight()
    packed = 0
    for _ in range(4):
        change = document.append_source(CELL, "x", author=AUTHOR).change
        history.add(change)
        packed += len(change)
    assert packed < 4000
    assert 1_200_000 < history.bytes < 1_205_000
    assert weight_of(document) == 3 * 100_004


def test_changes_of_one_piece_or_many_weigh_the_same():
    document = EditedDocument.create(SessionId("n"))
    document.add_cell(CELL, "some text", "code", author=AUTHOR)
    document.set_source(CELL, "another text", base=None, author=AUTHOR)
    document.set_entry("key", "value", author=AUTHOR)
    changes = document.history()
    one, many = HistoryWeight([b"".join(changes)]), HistoryWeight()
    for change in changes:
        many.add(change)
    assert one.bytes == many.bytes > 0
