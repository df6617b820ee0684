"""What processes of their own do with a document: nobody waits for it, and whatever becomes of them nothing is lost."""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from runtimed import AsyncClient, Client, ExecutionEvent, Session, SessionError, StorageError
from runtimed.cli.doctor import examine
from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms import document_work
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.document_work import PATIENCE, REST, DocumentWork
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.worker import WORKER, Ended, Finding, Judgement, judge, run, work_on
from runtimed.document import editing
from runtimed.document.contents import Contents
from runtimed.document.stored import StoredNotebook, StoredRow
from runtimed.document.tasks import Merged, ReadAll, ReadVersion, Task, perform
from runtimed.document.worker import READY, Verdict
from runtimed.ids import CellId, ClientId, ExecutionId, SessionId
from runtimed.protocol.document_operations import MergeCopyReply, VersionContent
from runtimed.settings import read_settings
from runtimed.storage.audit import Actor
from runtimed.storage.rows import checksum
from runtimed.storage.session_store import SessionStore
from tests.conftest import command_of, processes_of, wait_until
from tests.daemon.conftest import until
from tests.document.edited import EditedDocument
from tests.large import database_of, large_document, source_of, write_document, write_large_notebook

MIB = 2**20
ME = ClientId("a" * 32)
ACTOR = Actor(ME, label=None, uid=0, pid=None)
ID = SessionId("n")
A = CellId("cell-a")
EDITS = 100


# --- what the end of a process proves ---


@pytest.mark.parametrize(
    ("code", "said", "free", "judgement", "reason"),
    [
        (0, READY, 0, "HEALTHY", ""),
        (Verdict.DAMAGED, READY + b"bad\n", 0, "DAMAGED", "bad"),
        (Verdict.NEWER, READY + b"schema 2\n", 0, "UNKNOWN", "schema 2"),
        (Verdict.NO_MEMORY, READY, 0, "UNKNOWN", "too little memory to load it: it needs more than 5 MiB"),
        (-signal.SIGABRT, READY + b"memory allocation of 17 bytes failed", 0, "UNKNOWN", "too little memory"),
        (-signal.SIGSEGV, READY, 6 * MIB, "DAMAGED", "crashes a process (SIGSEGV)"),
        (-signal.SIGABRT, READY, 6 * MIB, "DAMAGED", "crashes a process (SIGABRT)"),
        (-signal.SIGSEGV, READY, 4 * MIB, "UNKNOWN", "did not come to an end (SIGSEGV)"),
        (-signal.SIGKILL, READY, 6 * MIB, "UNKNOWN", "SIGKILL; the system does that when memory runs out"),
        (-signal.SIGTERM, READY, 6 * MIB, "UNKNOWN", "did not come to an end (SIGTERM); it had 5 MiB of memory"),
        (-signal.SIGBUS, READY, 6 * MIB, "UNKNOWN", "SIGBUS"),
        (-signal.SIGALRM, READY, 6 * MIB, "UNKNOWN", "not loaded within"),
        (None, b"", 6 * MIB, "UNKNOWN", "not loaded within"),
        (1, READY + b"Traceback", 6 * MIB, "UNKNOWN", "did not come to an end (exit code 1)"),
        (1, b"ImportError", 6 * MIB, "UNKNOWN", "does not work (exit code 1: ImportError)"),
        (Verdict.DAMAGED, b"bad\n", 6 * MIB, "UNKNOWN", "does not work"),
        (-signal.SIGSEGV, b"", 6 * MIB, "UNKNOWN", "does not work (SIGSEGV"),
    ],
)
def test_only_a_sentence_or_a_crash_of_the_process_itself_proves_damage(code, said, free, judgement, reason):
    finding = judge(Ended(code, b"", said, 5 * MIB, free))
    assert finding.judgement is Judgement[judgement]
    assert reason in finding.reason


def reading(data: bytes, check: int | None = None) -> ReadAll:
    row = StoredRow("snapshot", "snapshot", checksum(data) if check is None else check, data)
    return ReadAll(StoredNotebook(ID, [row], []))


def test_damage_is_found_by_a_real_process():
    assert asyncio.run(work_on(reading(b"no document"))).judgement is Judgement.DAMAGED
    assert asyncio.run(work_on(reading(b"no document", 1))) == Finding(
        Judgement.DAMAGED, "snapshot is damaged: its bytes do not match their checksum"
    )
    found = asyncio.run(work_on(reading(large_document(3, ID))))
    assert found.judgement is Judgement.HEALTHY
    assert len(msgspec.msgpack.decode(found.answer, type=Contents).cells) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit is not kept")
@pytest.mark.parametrize(
    ("limit", "said"),
    [(60, b"bad document chunk: out of memory"), (110, b"memory allocation of")],
    ids=["while it is unpacked", "while it is loaded"],
)
def test_too_little_memory_is_no_damage_wherever_it_ends(limit: int, said: bytes):
    code = f"""
import os, resource
resource.setrlimit(resource.RLIMIT_DATA, ({limit * MIB}, {limit * MIB}))
os.execv({WORKER[0]!r}, [*{WORKER!r}, "60"])
"""
    data = msgspec.msgpack.encode(reading(bulky_document()))
    ended = asyncio.run(run([sys.executable, "-c", code], data, 60))
    assert said in ended.said
    assert judge(ended).judgement is Judgement.UNKNOWN
    assert "too little memory to load it" in judge(ended).reason


@cache
def bulky_document() -> bytes:
    """The snapshot of a notebook that needs some 120 MiB; each of its code points takes more memory than a byte."""
    document = EditedDocument.create(ID)
    for n in range(30):
        document.add_cell(CellId(f"large-{n}"), str(n % 10) * 2_000_000, "code", author=ME)
    return document.save()


def test_a_process_is_waited_for_even_if_the_event_loop_ends_as_it_starts(monkeypatch):
    started = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    async def begin() -> asyncio.Task[Ended]:
        return asyncio.create_task(run([sys.executable, "-c", "import time; time.sleep(60)"], b"", 60))

    monkeypatch.setattr(subprocess, "Popen", Noted)
    assert asyncio.run(begin()).cancelled()
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_what_is_found_once_and_not_again_is_no_damage(tmp_path):
    flag = tmp_path / "once"
    code = f"""
import os, sys
sys.stderr.write("ready\\nfound it damaged, try {{}}\\n".format(os.path.exists({str(flag)!r})))
open({str(flag)!r}, "w").close()
sys.exit({int(Verdict.DAMAGED)})
"""
    found = asyncio.run(work_on(reading(b""), worker=[sys.executable, "-c", code]))
    assert found.judgement is Judgement.UNKNOWN
    assert "in two ways" in found.reason


def test_a_process_that_somebody_has_ended_is_started_once_more(tmp_path):
    def ending(times: int) -> list[str]:
        tries = tmp_path / str(times)
        code = f"""
import os, sys
tries = {str(tries)!r}
open(tries, "a").write("x")
sys.stderr.write("ready\\n")
sys.stderr.flush()
if os.path.getsize(tries) <= {times}:
    os.kill(os.getpid(), 9)
sys.stdout.write("answer")
"""
        return [sys.executable, "-c", code]

    assert asyncio.run(work_on(reading(b""), worker=ending(1))) == Finding(Judgement.HEALTHY, answer=b"answer")
    assert asyncio.run(work_on(reading(b""), worker=ending(2))).judgement is Judgement.UNKNOWN


# --- what is written into a document, and when ---


class Notebook:
    """A stored notebook with its work, without a daemon."""

    def __init__(self, path: Path, memory: int | None = None) -> None:
        self.now = 1000.0
        self.path = path
        self.store = SessionStore(path)
        self.reports: list[str] = []
        flow = self.flow = Flow(Demand(), ID)
        log = EventLog(ID, self.store, flow, None)
        self.document = SharedDocument(ID, self.store, log, lambda: self.now, on_doubt=self.doubted)
        self.work = DocumentWork(ID, path, self.store, self.document, flow, self.reports.append, EDITS, memory)

    def doubted(self) -> None:
        self.work.begin_reading()

    def append(self, text: str) -> None:
        self.document.edit("source", ACTOR, lambda cells: editing.append_source(cells, A, text))

    def write(self) -> None:
        asyncio.run(self.work.write(self.now))

    def is_due(self) -> bool:
        return self.work.is_due(self.now)

    @property
    def source(self) -> str:
        return self.document.cell(A).source

    def source_in_document(self) -> str:
        tables = self.store.notebook
        cells = StoredNotebook(ID, tables.rows(), tables.pending(-1)).load().cells()
        return "".join(cell.source for cell in cells if cell.id == A)


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    notebook = Notebook(tmp_path / "s.db")
    notebook.document.edit("added", ACTOR, lambda cells: editing.add_cell(cells, A, "", "code"))
    yield notebook
    notebook.store.close()


def tokens(count: int) -> str:
    return "".join(f"<{n}>" for n in range(count))


def failing(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def use(monkeypatch: pytest.MonkeyPatch, worker: list[str]) -> None:
    async def work(task):
        return await work_on(task, worker=worker, deadline=1)

    monkeypatch.setattr(document_work, "work_on", work)


def test_edits_are_written_when_a_notebook_rests_or_many_are_pending(notebook: Notebook):
    assert not notebook.is_due()
    notebook.now += REST
    assert notebook.is_due()
    notebook.append("<0>")
    assert not notebook.is_due()
    for n in range(1, EDITS):
        notebook.append(f"<{n}>")
    assert notebook.is_due()
    notebook.write()
    assert notebook.store.notebook.pending_count == 0
    assert notebook.source_in_document() == notebook.source == tokens(EDITS)
    notebook.now += REST
    assert not notebook.is_due()


def test_what_is_edited_meanwhile_stays_pending_and_is_written_next(notebook: Notebook):
    done = 0

    async def scenario() -> None:
        nonlocal done
        writing = asyncio.create_task(notebook.work.write(notebook.now))
        while not writing.done():
            notebook.append(f"<{done}>")
            done += 1
            await asyncio.sleep(0.001)

    asyncio.run(scenario())
    assert done > 10
    assert 0 < notebook.store.notebook.pending_count <= done
    assert notebook.source_in_document() in tokens(done)
    notebook.write()
    assert notebook.source_in_document() == notebook.source == tokens(done)


BAD_WORKERS = [
    ("SIGABRT", failing("import os; os.abort()")),
    ("exit code 1: no automerge", failing("raise SystemExit('no automerge')")),
    ("not loaded within", failing("import time; time.sleep(1000)")),
    ("No such file", ["/nonexistent/python"]),
]


@pytest.mark.parametrize(("message", "worker"), BAD_WORKERS)
def test_a_process_that_fails_is_tried_again_later_and_nothing_is_lost(
    notebook: Notebook, caplog, monkeypatch, message: str, worker: list[str]
):
    notebook.append("1")
    with monkeypatch.context() as patch:
        use(patch, worker)
        notebook.write()
    (logged,) = caplog.records
    assert (logged.levelname, "session 'n'" in logged.getMessage()) == ("ERROR", True)
    assert message in logged.getMessage()
    assert (notebook.source, notebook.store.notebook.pending_count) == ("1", 2)
    notebook.now += PATIENCE - 1
    assert not notebook.is_due()
    notebook.now += 1
    assert notebook.is_due()
    notebook.write()
    assert (notebook.source_in_document(), notebook.store.notebook.pending_count) == ("1", 0)


def test_a_full_disk_leaves_edits_pending(notebook: Notebook, caplog):
    notebook.append("".join(random.Random(1).choices("abcdefgh", k=19_000)))
    (pages,) = notebook.store.database.row("PRAGMA page_count")
    notebook.store.database.execute(f"PRAGMA max_page_count = {pages}")
    notebook.write()
    assert "the disk is full" in caplog.text
    assert notebook.store.notebook.pending_count == 2
    notebook.store.database.execute("PRAGMA max_page_count = 100000")
    notebook.write()
    assert notebook.source_in_document() == notebook.source


def edited(notebook: Notebook, count: int, text: str) -> None:
    for _ in range(count):
        notebook.append(text)
    notebook.write()


def test_a_document_with_many_changes_is_compacted(notebook: Notebook):
    notebook.write()
    edited(notebook, EDITS - 1, "x")
    assert notebook.store.notebook.change_count == EDITS - 1
    notebook.append("é")
    notebook.write()
    assert notebook.store.notebook.change_count == 0
    task = StoredNotebook(ID, notebook.store.notebook.rows(), [])
    assert len(task.load().history()) == 3  # the first change, the id, the cell
    assert notebook.source_in_document() == notebook.source == "x" * (EDITS - 1) + "é"
    edited(notebook, 1, "!")
    assert notebook.store.notebook.change_count == 1


def test_a_document_is_compacted_for_a_history_of_twice_what_it_says(tmp_path: Path):
    notebook = Notebook(tmp_path / "s.db", memory=1_000_000)
    notebook.document.edit("added", ACTOR, lambda cells: editing.add_cell(cells, A, "x" * 500_000, "code"))
    notebook.write()
    # Each writes 500,000 code points, 3 bytes of memory for each; what it says now is a third.
    notebook.document.edit("added", ACTOR, lambda cells: editing.add_cell(cells, CellId("b"), "y" * 900_000, "code"))
    notebook.write()
    edited(notebook, 1, "x")
    assert notebook.store.notebook.change_count == 2
    edited(notebook, 2, "x")
    assert notebook.store.notebook.change_count == 0
    notebook.store.close()


def test_a_document_that_holds_what_we_do_not_know_keeps_its_history(tmp_path: Path):
    from automerge import core

    foreign = core.Document.load(large_document(2, ID))
    foreign.set_actor(b"a newer version")
    with foreign.transaction() as transaction:
        transaction.put(core.ROOT, "theme", core.ScalarType.Str, "dark")
    with SessionStore(tmp_path / "s.db") as store:
        store.notebook.put_snapshot(bytes(foreign.save()), 0, begins_at=1.0)
    notebook = Notebook(tmp_path / "s.db")
    notebook.document.edit("added", ACTOR, lambda cells: editing.add_cell(cells, A, "", "code"))
    edited(notebook, EDITS + 5, "x")
    assert notebook.store.notebook.change_count > EDITS
    notebook.store.close()


# --- copies that were edited elsewhere ---


def copied(notebook: Notebook, text: str) -> bytes:
    tables = notebook.store.notebook
    copy = EditedDocument.load(StoredNotebook(ID, tables.rows(), []).load().save(), [])
    copy.append_source(A, text, author=ClientId("b" * 32))
    return copy.save()


def merging(notebook: Notebook, copy: bytes) -> MergeCopyReply:
    def commit(merged: Merged) -> MergeCopyReply:
        with notebook.store.database.transaction():
            return notebook.document.merge(merged, ACTOR)

    return asyncio.run(notebook.work.merge(copy, commit))


@pytest.mark.parametrize("edits", [0, 1, 2, 3])
def test_an_edit_that_comes_while_a_copy_is_merged_is_kept_and_holds_the_next_ones_up(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, edits: int
):
    notebook.write()
    copy, held = copied(notebook, "there"), []

    async def edited_meanwhile(task: Task) -> Finding:
        finding = await work_on(task)
        held.append(notebook.flow.is_held)
        if len(held) <= edits:
            notebook.append(f"<{len(held)}>")
        return finding

    monkeypatch.setattr(document_work, "work_on", edited_meanwhile)
    if edits == 3:
        with pytest.raises(StorageError, match="edited all the time; nothing was merged"):
            merging(notebook, copy)
        assert notebook.source == "<1><2><3>"
    else:
        assert merging(notebook, copy).changed == [A]
        assert sorted(notebook.source) == sorted("there" + "".join(f"<{n + 1}>" for n in range(edits)))
        assert notebook.store.notebook.pending_count == 0
        assert notebook.source_in_document() == notebook.source
    assert held == [False, True, True][: edits + 1]
    assert not notebook.flow.is_held


def test_a_process_that_fails_while_it_merges_a_copy_damages_nothing(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch
):
    notebook.write()
    copy = copied(notebook, "there")
    use(monkeypatch, failing("import os, sys; sys.stderr.write('ready\\n'); sys.stderr.flush(); os.abort()"))
    with pytest.raises(StorageError, match="Nothing was merged into the notebook of session 'n': loading it crashes"):
        merging(notebook, copy)
    assert notebook.store.notebook.set_aside_at() == []
    monkeypatch.undo()
    assert merging(notebook, copy).changed == [A]


def test_a_copy_is_merged_into_a_notebook_that_has_no_document_yet(notebook: Notebook):
    before = EditedDocument.create(ID)
    before.set_entry("k", "v", author=ClientId("b" * 32))
    assert merging(notebook, before.save()) == MergeCopyReply(added=[], changed=[], deleted=[])
    assert notebook.document.content.metadata("k") == "v"
    assert notebook.source_in_document() == notebook.source
    stored = StoredNotebook(ID, notebook.store.notebook.rows(), []).load()
    assert stored.metadata("k") == "v"


# --- damage ---


def test_a_damaged_document_is_set_aside_and_written_anew_from_what_is_read(notebook: Notebook):
    notebook.append("1")
    notebook.write()
    notebook.store.database.execute("UPDATE snapshot SET checksum = checksum + 1")
    notebook.append("2")
    notebook.write()
    assert notebook.source == notebook.source_in_document() == "12"
    assert len(notebook.store.notebook.set_aside_at()) == 1
    assert (notebook.store.notebook.pending_count, notebook.store.notebook.needs_rebuild) == (0, False)
    notebook.append("3")
    notebook.write()
    assert notebook.source_in_document() == "123"


def test_an_edit_that_was_damaged_on_its_way_does_not_stop_those_behind_it(notebook: Notebook):
    notebook.write()
    notebook.append("1")
    notebook.store.database.execute("UPDATE pending SET delta = x'00'")
    notebook.append("2")
    notebook.write()
    assert (notebook.source_in_document(), notebook.store.notebook.pending_count) == ("12", 0)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE snapshot SET checksum = 'zz'",
        "UPDATE pending SET author = x'00FF'",
        "UPDATE pending SET checksum = x'00'",
    ],
)
def test_a_value_of_another_type_is_damage_like_any_other(notebook: Notebook, statement: str):
    notebook.write()
    notebook.append("1")
    notebook.store.database.execute(statement)
    notebook.write()
    assert (notebook.source_in_document(), notebook.store.notebook.pending_count) == ("1", 0)


def test_a_long_backlog_is_written_before_the_rest_is_read(notebook: Notebook, monkeypatch):
    monkeypatch.setattr(document_work, "MANY", 10)
    for n in range(35):
        notebook.append(f"<{n}>")
    notebook.store.database.execute("UPDATE cells SET checksum = checksum + 1")
    assert read_again(notebook) == tokens(35)
    assert notebook.store.notebook.pending_count <= 10


def read_again(notebook: Notebook) -> str:
    async def scenario() -> str:
        with pytest.raises(StorageError, match="damaged"):
            notebook.document.cell(A)
        await until(lambda: not notebook.work.is_reading, "it is not read")
        return notebook.source

    return asyncio.run(scenario())


def test_a_damaged_row_is_read_from_the_document_and_the_edits_on_their_way_into_it(notebook: Notebook):
    notebook.append("1")
    notebook.write()
    notebook.append("2")
    notebook.store.database.execute("UPDATE cells SET checksum = checksum + 1")
    assert read_again(notebook) == "12"
    assert (notebook.store.notebook.set_aside_at(), notebook.reports) == ([], [])


def test_what_cells_show_is_known_again_with_their_rows(notebook: Notebook):
    """A daemon that died while it stored the rows of restored cells has not noted what they show."""
    notebook.document.set_execution(A, ExecutionId("e"), 1, author=ME)
    notebook.store.database.execute("DELETE FROM shown")
    notebook.store.database.execute("UPDATE cells SET checksum = checksum + 1")
    read_again(notebook)
    assert notebook.store.shown_executions() == {"e"}


def test_of_a_damaged_row_and_a_damaged_document_the_other_rows_stay(notebook: Notebook):
    other = CellId("other")
    notebook.document.edit("added", ACTOR, lambda cells: editing.add_cell(cells, other, "kept", "code"))
    notebook.write()
    notebook.store.database.execute("UPDATE snapshot SET checksum = checksum + 1")
    notebook.store.database.execute(f"UPDATE cells SET checksum = checksum + 1 WHERE cell_id = '{A}'")

    async def scenario() -> None:
        with pytest.raises(StorageError, match="damaged"):
            notebook.document.cell(A)
        await until(lambda: not notebook.work.is_reading, "it is not read")

    asyncio.run(scenario())
    assert [cell.source for cell in notebook.document.content.cells()] == ["kept"]
    assert [f"lost what was damaged, cell {A}" in report for report in notebook.reports] == [True]
    notebook.write()
    tables = notebook.store.notebook
    document = StoredNotebook(ID, tables.rows(), tables.pending(-1)).load()
    assert [cell.source for cell in document.cells()] == ["kept"]


# --- the daemon ---


def daemon_pid() -> int:
    status = Client().status()
    assert status is not None
    return status.pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), "the daemon lives on")


def end_daemon() -> None:
    pid = daemon_pid()
    Client().shutdown(keep_kernels=True)
    wait_until(lambda: not psutil.pid_exists(pid), "the daemon lives on")


def workers(data_dir: Path) -> list[psutil.Process]:
    return [process for process in processes_of(data_dir) if WORKER[-1] in command_of(process)]


def test_a_notebook_of_an_earlier_release_stays_however_often_daemons_die_while_it_is_read(data_dir):
    write_large_notebook(data_dir, "s", 1500)
    with Session("s") as session:
        readers: list[threading.Thread] = []
        found: list[list[str]] = []

        def read() -> None:
            found.append([cell.source for cell in session.get_cells()])

        for _ in range(3):
            reader = threading.Thread(target=read)
            readers.append(reader)
            reader.start()
            # A worker of the daemon that was killed last may still live while the next daemon starts.
            wait_until(lambda: found or (workers(data_dir) and Client().status()), "nothing is read")
            if not found:
                kill(daemon_pid())
        for reader in readers:
            reader.join()
        assert found == [[source_of(n) for n in range(1500)]] * 3
        assert (data_dir / "daemon.log").read_text().count("reading the notebook of session 's' from its document") > 1
        assert len(session.get_cell_ids()) == 1500
        status = Client().status()
        assert status is not None
        assert status.problems == ()
    assert "read the notebook of session 's' from its document" in (data_dir / "daemon.log").read_text()


def test_what_was_set_aside_is_named_everywhere_and_comes_back_with_what_was_written_since(data_dir):
    database = write_large_notebook(data_dir, "s", 4, set_aside=True)
    with Session("s") as session, session.subscribe() as events:
        new = session.create_cell("written since")
        advice = "`runtimed restore s` brings it back"
        for _ in range(2):
            status = Client().status()
            assert status is not None
            assert [problem.split(" was ")[0] for problem in status.problems] == ["The notebook of session 's'"]
            assert advice in status.problems[0]
            assert advice in (Client().sessions.get("s").error or "")
            assert [check.advice for check in examine(read_settings()) if check.name == "damaged"] == [advice]
            end_daemon()
            session.get_cell_ids()
        assert (data_dir / "daemon.log").read_text().count(advice) == 2
        done = runtimed("restore", "s")
        assert "4 cells of the session 's' are back" in done.stdout
        assert [cell.source for cell in session.get_cells()] == [*map(source_of, range(4)), "written since"]
        changed = [next(events).cell_id for _ in range(5)]
        assert changed == [new, *(f"large-{n}" for n in range(4))]
        status = Client().status()
        assert status is not None
        assert (status.problems, Client().sessions.get("s").error) == ((), None)
        assert Client().sessions.log("s")[0].action == "notebook_restored"
        with pytest.raises(SessionError, match="Nothing of the notebook of session 's' was set aside"):
            asyncio.run(AsyncClient().sessions.restore("s"))
    end_daemon()
    assert database.exists()


def runtimed(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "runtimed", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_damaged_notebook_of_an_earlier_release_is_told_once_and_brought_back_only_when_it_is_whole(data_dir):
    database = write_large_notebook(data_dir, "s", 4)
    damage(database, "UPDATE snapshot SET checksum = checksum + 1")
    with Session("s") as session:
        with pytest.raises(StorageError, match="was set aside, because snapshot is damaged"):
            session.get_cells()
        assert session.get_cells() == []
        session.create_cell("written since")
        for _again in range(2):
            with pytest.raises(StorageError, match="cannot be brought back: snapshot is damaged"):
                Client().sessions.restore("s")
            assert [cell.source for cell in session.get_cells()] == ["written since"]
            assert "snapshot is damaged" in (Client().sessions.get("s").error or "")
        end_daemon()
        damage(database, "UPDATE set_aside SET checksum = checksum - 1")
        session.get_cells()
        assert Client().sessions.restore("s") == 4
        assert [cell.source for cell in session.get_cells()] == [*map(source_of, range(4)), "written since"]


def test_a_daemon_that_meets_damaged_rows_serves_what_the_document_says(data_dir):
    with Session("s") as session:
        cells = [session.create_cell(str(n)) for n in range(3)]
        end_daemon()
        damage(database_of(data_dir, "s"), f"UPDATE cells SET data = x'00' WHERE cell_id = '{cells[1]}'")
        assert [cell.source for cell in session.get_cells()] == ["0", "1", "2"]


def damage(database: Path, statement: str) -> None:
    connection = sqlite3.connect(database)
    with connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


LITTLE_MEMORY = """
import resource, sys
from runtimed import Client, Session, StorageError

with Session("other") as other:
    other.create_cell("1")
pid = Client().status().pid
(taken,) = [line.split()[1] for line in open(f"/proc/{pid}/status") if line.startswith("VmData:")]
limit = int(taken) * 1024 + 30 * 2**20
resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # for the daemons that this client starts
with Session("s") as session:
    try:
        print(len(session.get_cells()))
    except StorageError as exc:
        print("refused:", exc)
    except Exception as exc:
        print("unexpected:", repr(exc))
with Session("other") as other:
    print([cell.source for cell in other.get_cells()])
print(Client().status().problems)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit is not kept")
def test_with_too_little_memory_the_notebook_is_refused_stays_whole_and_the_others_are_served(data_dir):
    write_document(data_dir, "s", bulky_document())
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True, check=False, timeout=110
    )
    refused, others, problems = done.stdout.splitlines()
    assert "too little memory to load it" in refused, done.stderr
    assert others == "['1']"
    assert "too little memory" in problems
    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "the daemon lives on")
    with Session("s") as session:
        assert [cell.source for cell in session.get_cells()] == [str(n % 10) * 2_000_000 for n in range(30)]


class Writer(threading.Thread):
    """A client that appends to its own cell until it is stopped, through whatever happens to the daemon."""

    def __init__(self, session_id: str) -> None:
        super().__init__()
        self.session = Session(session_id)
        self.cell_id = self.session.create_cell()
        self.appended = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.002):
            self.session.append_source(self.cell_id, f"<{self.appended}>")
            self.appended += 1

    def __enter__(self) -> "Writer":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.done.set()
        self.join()
        self.session.close()


def goes_on(writer: Writer) -> None:
    appended = writer.appended
    wait_until(lambda: writer.appended > appended + 5, "a client does not go on")


def compactions(data_dir: Path) -> int:
    path = data_dir / "daemon.log"
    return path.read_text().count("compacted the document of session 's'") if path.exists() else 0


def test_clients_that_stream_into_a_notebook_notice_nothing_of_its_compaction(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "300")
    with Session("s") as session:
        stream = session.subscribe(event_types=["cell_changed"])
        seen: list[ExecutionEvent] = []
        with Writer("s") as one, Writer("s") as other:
            wait_until(lambda: compactions(data_dir) >= 2, "the document is not compacted")
            goes_on(one)
            goes_on(other)
        expected = {one.cell_id: tokens(one.appended), other.cell_id: tokens(other.appended)}
        # Each cell was added once.
        for event in stream:
            seen.append(event)
            if len(seen) == one.appended + other.appended + 2:
                break
        stream.close()
        cells = session.get_cells()
    assert {cell.id: cell.source for cell in cells} == expected
    for writer in (one, other):
        assert sum(event.cell_id == writer.cell_id for event in seen) == writer.appended + 1
    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "the daemon lives on")
    assert changes_behind(data_dir) < one.appended + other.appended
    with Session("s") as session:
        assert session.get_cells() == cells


def changes_behind(data_dir: Path) -> int:
    """See that document and history of an ended daemon say what its rows say; return how many changes there are."""
    with SessionStore(database_of(data_dir, "s")) as store:
        stored = StoredNotebook(SessionId("s"), store.notebook.rows(), store.notebook.pending(-1))
        document = stored.load()
        stored.write_pending(document)
        assert document.cells() == list(store.notebook.cells())
        base, upto = store.notebook.history.base(), store.notebook.last_edit
        edits = store.notebook.history.deltas(0 if base is None else base.number, upto, 2**31)
        found = perform(ReadVersion(store.notebook.base_rows(), edits))
        assert isinstance(found, VersionContent)
        assert [(cell.id, cell.source) for cell in found.cells] == [(cell.id, cell.source) for cell in document.cells()]
        return store.notebook.change_count


def kill_worker(data_dir: Path) -> bool:
    """Kill a process that works on a document, if there is one."""
    for process in workers(data_dir):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            return True
    return False


@pytest.mark.parametrize("victim", ["daemon", "worker"])
def test_whoever_is_killed_while_a_document_is_written_nothing_is_lost(data_dir, monkeypatch, victim: str):
    monkeypatch.setenv("RUNTIMED_COMPACT_AFTER", "100")
    with Session("s") as session, Writer("s") as one, Writer("s") as other:
        # A worker is started once more at once, and after that a minute later.
        for _ in range(3 if victim == "daemon" else 2):
            if victim == "daemon":
                wait_until(lambda: workers(data_dir), "the document is not written")
                kill(daemon_pid())
            else:
                wait_until(lambda: kill_worker(data_dir), "the document is not written")
            goes_on(one)
            goes_on(other)
        one.done.set()
        other.done.set()
        one.join()
        other.join()
        assert {cell.id: cell.source for cell in session.get_cells()} == {
            one.cell_id: tokens(one.appended),
            other.cell_id: tokens(other.appended),
        }
    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "the daemon or a worker lives on")
    changes_behind(data_dir)
    assert "Traceback" not in (data_dir / "daemon.log").read_text()


def test_a_large_notebook_takes_no_memory_of_the_daemon_once_it_was_read(data_dir):
    write_large_notebook(data_dir, "s", 3_000)
    with Session("other") as other:
        other.create_cell("1")
        daemon = psutil.Process(daemon_pid())
        before = daemon.memory_info().rss
        with Session("s") as session:
            assert len(session.get_cells()) == 3_000
            session.append_source("large-0", "!")
        time.sleep(1)
        assert daemon.memory_info().rss - before < 15 * MIB
