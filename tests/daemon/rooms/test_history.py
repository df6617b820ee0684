"""How a room reads the history of its notebook, and restores versions."""

import asyncio
from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtimed.daemon.rooms import history as room_history
from runtimed.daemon.rooms.history import RoomHistory
from runtimed.daemon.rooms.worker import Finding, Judgement
from runtimed.document import editing
from runtimed.document.tasks import Task, perform
from runtimed.errors import StorageError, VersionNotFound
from runtimed.ids import CellId, ExecutionId
from runtimed.protocol.document_operations import GetHistory, VersionContent
from tests.daemon.rooms.test_document_work import ACTOR, EDITS, ID, ME, A, Notebook, tokens


class Room(Notebook):
    """A notebook with its history; tasks are performed here, unless a test wants real workers."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.history = RoomHistory(ID, self.store, self.document, self.work)
        self.tasks: list[Task] = []
        self.document.edit("added", ACTOR, lambda cells: editing.add_cell(cells, A, "", "code"))

    async def perform_here(self, task: Task) -> Finding:
        self.tasks.append(task)
        return Finding(Judgement.HEALTHY, answer=msgspec.msgpack.encode(perform(task)))

    def page(self, **fields: Any) -> list[tuple[int, str]]:
        reply = self.history.page(GetHistory(notebook_id=ID, **fields))
        return [(edit.version, edit.action) for edit in reply.edits]

    def version(self, version: int) -> str:
        """The source of the one cell at a version."""
        content = b""
        while True:
            piece = asyncio.run(self.history.version(version, len(content)))
            content += piece.piece
            if len(content) >= piece.size:
                return "".join(cell.source or "" for cell in msgspec.msgpack.decode(content, type=VersionContent).cells)

    def restore(self, version: int) -> int:
        return asyncio.run(self.history.restore(version, ACTOR))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path / "s.db")
    yield room
    room.store.close()


@pytest.fixture
def here(room: Room, monkeypatch: pytest.MonkeyPatch) -> Room:
    """The room without processes of its own."""
    monkeypatch.setattr(room.work, "_work_on", room.perform_here)
    return room


async def turns_during(work: Coroutine[Any, Any, object]) -> int:
    """How often another task of the event loop has its turn."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await work
    counting.cancel()
    return turns


def test_a_long_history_is_read_and_restored_in_slices(here: Room):
    async def scenario() -> None:
        for number in range(300):
            add = partial(editing.add_cell, cell_id=f"cell-{number}", source="x", cell_type="code")
            here.document.edit("added", ACTOR, add)
        wanted = here.store.notebook.last_edit
        for number in range(3000):
            here.append(f"<{number}>")
        newest = here.store.notebook.last_edit
        assert await turns_during(here.history.version(newest, 0)) > newest // room_history.PAGE
        cost = newest // room_history.PAGE
        assert await turns_during(here.history.restore(wanted, ACTOR)) <= 5  # reads one page, and makes one edit
        assert await turns_during(here.history.restore(newest, ACTOR)) > cost
        deletions = 301 * room_history.EDIT // room_history.SLICE
        assert await turns_during(here.history.restore(0, ACTOR)) >= deletions
        assert here.store.notebook.count() == 0

    asyncio.run(scenario())


def test_a_damaged_edit_spoils_the_versions_behind_it_and_not_the_notebook(room: Room):
    for text in "1234":
        room.append(text)
    room.write()
    room.store.database.execute("UPDATE history SET delta = x'00' WHERE id = 4")
    assert room.version(3) == "12"
    for spoiled in (4, 5):
        with pytest.raises(StorageError, match=r"session 'n' cannot be read: edit 4 is damaged.*The cells are not aff"):
            room.version(spoiled)
    with pytest.raises(StorageError, match="edit 4 is damaged"):
        room.restore(5)
    assert room.source == room.source_in_document() == "1234"
    assert room.store.notebook.set_aside_at() == []
    assert [version for version, _action in room.page()] == [5, 4, 3, 2, 1]


def test_the_history_of_a_document_that_was_damaged_begins_anew(room: Room):
    room.append("1")
    room.write()
    room.append("2")
    room.store.database.execute("UPDATE snapshot SET checksum = checksum + 1")
    room.write()
    room.append("3")
    assert room.page() == [(4, "cell_edited"), (3, "history_begins")]
    assert (room.version(3), room.version(4)) == ("12", "123")
    with pytest.raises(VersionNotFound, match="has no version 2: it goes from version 3 to 4"):
        room.version(2)
    assert room.restore(3) == 1
    assert room.source == "12"


def test_nothing_is_read_or_restored_upon_a_document_that_was_set_aside(here: Room):
    for _ in range(EDITS):
        here.append("x")
    here.write()
    (oldest, action), *_ = here.page()
    assert action == "history_begins"
    here.append("y")
    here.store.notebook.set_aside()
    for version in (oldest, oldest + 1):
        for use in (here.version, here.restore):
            with pytest.raises(StorageError, match="because its document was set aside as damaged. It begins anew"):
                use(version)
    assert here.source == "x" * EDITS + "y"


def test_a_history_that_is_dropped_while_a_version_waits_for_its_turn_is_said_to_be_gone(here: Room):
    for _ in range(EDITS):
        here.append("x")

    async def scenario() -> None:
        writing = asyncio.create_task(here.work.write(here.now))
        await asyncio.sleep(0)
        with pytest.raises(VersionNotFound, match=f"has no version 5: it goes from version {EDITS + 1}"):
            await here.history.version(5, 0)
        await writing

    asyncio.run(scenario())


def test_what_comes_in_pieces_is_made_once_and_then_forgotten(here: Room):
    for _ in range(3):
        here.append("y" * 600_000)
    assert here.version(4) == "y" * 1_800_000
    assert len(here.tasks) == 1
    for version in (4, 3, 4, 3):  # clients that read no further
        asyncio.run(here.history.version(version, 0))
    assert len(here.tasks) == 3
    asyncio.run(here.history.blame(A, 4, 0))
    asyncio.run(here.history.version(3, 0))
    assert len(here.tasks) == 4
    asyncio.run(here.history.version(4, 0))  # it had to make room
    assert len(here.tasks) == 5


def test_an_execution_that_is_no_longer_kept_is_not_restored(here: Room):
    e1, e2 = ExecutionId("e1"), ExecutionId("e2")
    for execution_id in (e1, e2):
        here.store.add_execution(execution_id, A, ME, "", queued_at=1.0)
        here.document.set_execution(A, execution_id, None, author=ME)
        here.store.update_execution(execution_id, status="ok", execution_count=7)
    here.document.edit("deleted", ACTOR, lambda cells: editing.delete_cell(cells, A))
    assert here.restore(3) == 1
    assert (here.document.cell(A).execution_id, here.document.cell(A).execution_count) == (e2, 7)
    assert here.store.shown_by_cells() == {A: e2}
    here.store.delete_execution(e1)
    assert here.restore(2) == 1
    assert (here.document.cell(A).execution_id, here.document.cell(A).execution_count) == (None, None)
    assert here.page()[0][1] == "outputs_cleared"
    assert here.store.shown_by_cells() == {}


def test_positions_that_edits_of_others_moved_are_as_they_were(here: Room):
    b = CellId("cell-b")
    here.document.edit("added", ACTOR, lambda cells: editing.add_cell(cells, b, tokens(2), "code"))
    wanted = here.store.notebook.last_edit
    here.document.edit("moved", ACTOR, lambda cells: editing.move_cell(cells, b, None))
    assert here.store.notebook.cell_ids() == [b, A]
    assert here.restore(wanted) == 1
    assert here.store.notebook.cell_ids() == [A, b]
