"""A notebook is set aside only if a process of its own found it damaged; it is named everywhere, and comes back."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from runtimed import AsyncClient, Client, Session, SessionError, StorageError
from runtimed.daemon.flow import Demand, Flow
from runtimed.daemon.rooms.document import SharedDocument
from runtimed.daemon.rooms.events import EventLog
from runtimed.daemon.rooms.verifying import Ended, Finding, Judgement, judge, verify
from runtimed.document.stored import StoredRow, encode_stored
from runtimed.document.verifier import READY, Verdict
from runtimed.ids import SessionId
from runtimed.storage.rows import checksum
from runtimed.storage.session_store import _LOADS, SessionStore
from tests.conftest import processes_of, wait_until
from tests.large import large_document, source_of, write_large_notebook

MIB = 2**20

VERIFIED = "a process of its own has loaded the notebook of session 's'"


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


ROWS = [StoredRow("snapshot", "snapshot", checksum(b"no document"), b"no document")]


def test_damage_is_found_by_a_real_process_and_a_newer_schema_is_none():
    found = asyncio.run(verify("load", encode_stored(ROWS)))
    assert found.judgement is Judgement.DAMAGED
    wrong = [ROWS[0]._replace(checksum=1)]
    assert asyncio.run(verify("load", encode_stored(wrong))) == Finding(
        Judgement.DAMAGED, "snapshot is damaged: its bytes do not match their checksum"
    )
    data = large_document(3, SessionId("n"))
    assert asyncio.run(verify("load", encode_stored([ROWS[0]._replace(checksum=checksum(data), data=data)]))) == (
        Finding(Judgement.HEALTHY, answer=asyncio.run(verify("load", encode_stored(_row(data)))).answer)
    )


def _row(data: bytes) -> list[StoredRow]:
    return [StoredRow("snapshot", "snapshot", checksum(data), data)]


def test_what_is_found_once_and_not_again_is_no_damage(tmp_path):
    flag = tmp_path / "once"
    code = f"""
import os, sys
sys.stderr.write("ready\\nfound it damaged, try {{}}\\n".format(os.path.exists({str(flag)!r})))
open({str(flag)!r}, "w").close()
sys.exit({int(Verdict.DAMAGED)})
"""
    found = asyncio.run(verify("load", b"", verifier=[sys.executable, "-c", code]))
    assert found.judgement is Judgement.UNKNOWN
    assert "in two ways" in found.reason


# --- what a daemon makes of it ---


class Unreadable(SessionStore):
    """A store whose disk fails for a moment."""

    fails = False

    def load_document(self):
        if self.fails:
            raise StorageError("the disk reports an error", path="x")
        return super().load_document()


def test_an_error_while_reading_puts_the_document_in_doubt_and_leaves_it_where_it_is(tmp_path):
    with contextlib.closing(Unreadable(tmp_path / "s.db")) as store:
        store.put_snapshot(large_document(3, SessionId("n")))
        doubts: list[str] = []
        log = EventLog(store, Flow(Demand(), "n"), None)
        document = SharedDocument(SessionId("n"), store, log, lambda: 5.0, on_doubt=lambda: doubts.append("doubt"))
        store.fails = True
        with pytest.raises(StorageError, match="cannot be read now, because the disk reports an error"):
            document.load()
        store.fails = False
        with pytest.raises(StorageError, match="Nothing of it is lost"):
            document.load()
        assert doubts == ["doubt", "doubt"]
        assert store.set_aside_at() == []
        document.found_healthy()
        assert [record.source for record in document.load().cells()] == [source_of(n) for n in range(3)]


def daemon_pid(folder: Path) -> int | None:
    """The daemon that listens, even if it answers nobody at the moment."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(folder / "run" / "daemon.sock"))
        except OSError:
            return None
        pid, _user, _group = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def test_a_healthy_notebook_stays_however_often_daemons_die_while_they_load_it(data_dir):
    database = write_large_notebook(data_dir, "s", 1500)
    log, changes = data_dir / "daemon.log", database.with_name(f"{database.name}-wal")

    def begins_to_load() -> bool:
        # Only the daemon reads its database: the note that a load has begun is looked for where SQLite writes first.
        return changes.exists() and _LOADS.encode() in changes.read_bytes()

    with Session("s") as session, ThreadPoolExecutor() as threads:
        readers = [threads.submit(session.get_cells)]
        wait_until(begins_to_load, "nothing is loaded")
        kill(daemon_pid(data_dir))
        for count in (1, 2):
            # When a process of its own has loaded it, this daemon loads it; if it has done so before it was killed, the
            # next one does at once.
            reader = threads.submit(session.get_cells)
            readers.append(reader)
            while log.read_text().count(VERIFIED) < count and not reader.done():
                time.sleep(0.001)
            kill(daemon_pid(data_dir))
        for reader in readers:
            assert [cell.source for cell in reader.result()] == [source_of(n) for n in range(1500)]
        assert [cell.source for cell in session.get_cells()] == [source_of(n) for n in range(1500)]
        status = Client().status()
        assert status is not None
        assert status.problems == ()
    assert VERIFIED in log.read_text()


def end_daemon() -> None:
    status = Client().status()
    assert status is not None
    Client().shutdown(keep_kernels=True)
    wait_until(lambda: not psutil.pid_exists(status.pid), "the daemon lives on")


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), "the daemon lives on")


def test_what_an_earlier_daemon_set_aside_is_named_everywhere_and_comes_back_with_what_was_written_since(data_dir):
    database = write_large_notebook(data_dir, "s", 4)
    with SessionStore(database) as store:
        store.set_document_aside()
    with Session("s") as session, session.subscribe() as events:
        new = session.create_cell("written since")
        advice = "`runtimed restore s` brings it back"
        for _ in range(2):
            status = Client().status()
            assert status is not None
            assert [problem.split(" was ")[0] for problem in status.problems] == ["The notebook of session 's'"]
            assert advice in status.problems[0]
            assert advice in (Client().sessions.get("s").error or "")
            checks = json.loads(runtimed("doctor", "--json").stdout)
            assert [check["advice"] for check in checks if check["name"] == "damaged"] == [advice]
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


def runtimed(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "runtimed", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_damaged_notebook_is_set_aside_told_once_and_brought_back_only_when_it_is_whole(data_dir):
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
    write_large_notebook(data_dir, "s", 3000)
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
        assert len(session.get_cells()) == 3000
