"""`start`, `stop`, `restart`, `status`, `logs`: on real daemons, with real kernels under them."""

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import psutil
import pytest

from runtimed import Client, Session, StorageError, __version__
from runtimed.cli import daemon as daemon_commands
from runtimed.cli.main import main
from runtimed.client import blocking
from runtimed.host.memory import find_mechanisms
from tests.cli.conftest import Begin, Command, interrupt, read_until
from tests.conftest import processes_of, wait_until


def test_start_starts_one_daemon(runtimed: Command, data_dir: Path):
    first = runtimed("start")
    status = Client().status()
    assert status is not None
    says = f"runtimed {status.version} runs (pid {status.pid})"
    assert (first.returncode, first.stdout) == (0, f"{says}, listening on {data_dir}/run/daemon.sock\n")
    second = runtimed("start")
    assert (second.returncode, second.stdout) == (0, f"{says} already, listening on {data_dir}/run/daemon.sock\n")


def test_start_says_why_it_cannot(runtimed: Command, data_dir: Path):
    data_dir.chmod(0o755)
    done = runtimed("start")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"chmod 700 {data_dir}" in done.stderr
    data_dir.chmod(0o700)


def test_status_tells_people_and_programs(runtimed: Command, in_process: Command, data_dir: Path):
    none = in_process("status", "--json")
    assert none.returncode == 3
    assert json.loads(none.stdout) == {
        "running": False,
        "socket_path": str(data_dir / "run/daemon.sock"),
        "data_dir": str(data_dir),
    }
    with Session("kept") as session:
        session.create_cell("1")
        people, programs = runtimed("status"), runtimed("status", "--json")
    status = Client().status()
    assert status is not None
    assert (people.returncode, programs.returncode) == (0, 0)
    assert [line.split("  ")[0] for line in people.stdout.splitlines()] == [
        *("daemon", "version", "started", "sessions", "clients", "spare kernels", "spare browsers", "socket", "data"),
        *(name.replace("_", " ") for name in status.limits),
    ]
    assert "1 active" in people.stdout
    assert "1 besides this command" in people.stdout
    assert "0 ready, 0 being made" in people.stdout
    assert json.loads(programs.stdout) == {
        "running": True,
        "pid": status.pid,
        "version": status.version,
        "socket_path": str(data_dir / "run/daemon.sock"),
        "data_dir": str(data_dir),
        "started_at": status.started_at.isoformat(),
        "sessions": 1,
        "peers": 2,
        "pool": dict(status.pool),
        "limits": dict(status.limits),
        "problems": [],
        "client_version": __version__,
        "unused_kernels": [],
    }


def test_status_tells_the_memory_limit_of_kernels(in_process: Command, data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RUNTIMED_MAX_KERNEL_MEMORY", "1.5G")
    in_process("start")
    shown = dict(re.split(" {2,}", line.rstrip(), maxsplit=1) for line in in_process("status").stdout.splitlines())
    kept_by = find_mechanisms()[0].kind if find_mechanisms() else "none"
    assert (shown["max kernel memory"], shown["kernel memory kept by"]) == ("1.5 GiB", kept_by)


def test_status_and_doctor_say_what_was_found_damaged(in_process: Command, data_dir: Path):
    with Session("kept") as session:
        session.create_cell("x = 1")
    assert in_process("stop").returncode == 0
    (data_dir / "registry.db").write_bytes(b"no database")
    assert in_process("start").returncode == 0
    (aside,) = data_dir.glob("registry.db.damaged-*")

    people, programs = in_process("status"), in_process("status", "--json")
    (problem,) = json.loads(programs.stdout)["problems"]
    assert problem.startswith("The list of sessions begins anew: ")
    assert [line.split(maxsplit=1) for line in people.stdout.splitlines()][-1] == ["problem", problem]
    checks = {check["name"]: check for check in json.loads(in_process("doctor", "--json").stdout)}
    assert (checks["problem"]["verdict"], checks["problem"]["found"]) == ("warn", problem)
    assert checks["damaged"]["found"] == f"{aside} was found damaged and set aside"
    assert aside.read_bytes() == b"no database"
    with Session("kept") as session:
        assert [cell.source for cell in session.get_cells()] == ["x = 1"]


def test_what_the_list_of_sessions_lost_is_said_by_every_later_daemon_until_it_is_dismissed(
    in_process: Command, data_dir: Path
):
    with Session("lost") as session:
        session.create_cell("x = 1")
    assert in_process("stop").returncode == 0
    connection = sqlite3.connect(data_dir / "registry.db")
    with connection:
        connection.execute("UPDATE sessions SET checksum = checksum + 1")
    connection.close()
    note = data_dir / "registry.db.aside"
    for _ in range(2):
        assert in_process("start").returncode == 0
        (problem,) = json.loads(in_process("status", "--json").stdout)["problems"]
        assert problem.startswith(
            "The rows of 'lost' in the list of sessions were found damaged and set aside, last on "
        )
        checks = {check["name"]: check for check in json.loads(in_process("doctor", "--json").stdout)}
        assert f"{checks['damaged']['found']}; {checks['damaged']['advice']}" == problem
        assert in_process("stop").returncode == 0
    assert (data_dir / "daemon.log").read_text().count(str(note)) == 2
    note.unlink()
    with Session("lost") as session:
        assert [cell.source for cell in session.get_cells()] == ["x = 1"]
    assert json.loads(in_process("status", "--json").stdout)["problems"] == []


def strike_table(database: Path, table: str) -> None:
    """Overwrite the first page of a table."""
    connection = sqlite3.connect(database)
    ((page, size),) = connection.execute(
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = ?", (table,)
    )
    connection.close()
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def test_restore_says_where_a_whole_database_is_kept_and_how_to_read_what_is_left(in_process: Command, data_dir: Path):
    with Session("lost") as session:
        session.run("x = 1")
    assert in_process("stop").returncode == 0
    (database,) = (data_dir / "sessions").glob("*.db")
    strike_table(database, "snapshot")
    assert in_process("start").returncode == 0
    with pytest.raises(StorageError, match="is damaged"), Session("lost") as session:
        session.get_cells()
    (kept,) = (path for path in (data_dir / "sessions").glob("*.damaged-*") if not path.name.endswith(("-wal", "-shm")))
    done = in_process("restore", "lost")
    assert done.returncode == 1
    assert f"The whole database of session 'lost' was found damaged and is kept as {kept};" in done.stderr
    if shutil.which("sqlite3"):
        ((program, file, query),) = map(shlex.split, re.findall("`(sqlite3 .*?)`", done.stderr))
        advised = subprocess.run([program, file, query], check=True, capture_output=True, text=True)
        assert advised.stdout == "x = 1\n"
    assert in_process("stop").returncode == 0
    assert in_process("start").returncode == 0
    (problem,) = json.loads(in_process("status", "--json").stdout)["problems"]
    assert problem == (
        f"{kept} was found damaged and set aside; remove it when you no longer need it; `sqlite3 {kept} 'SELECT source "
        "FROM executions ORDER BY sequence'` prints the executed code, as far as it is readable"
    )


def test_stop_ends_the_daemon_and_every_session(runtimed: Command, in_process: Command, data_dir: Path):
    with Session("kept") as session:
        session.run("1")
    done = runtimed("stop")
    assert done.returncode == 0
    assert "its sessions are ended" in done.stdout
    wait_until(lambda: processes_of(data_dir) == [], "a process lives on")
    again = in_process("stop")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.endswith("nothing to stop\n")
    in_process("start")
    assert Client().sessions.get("kept").close_reason == "stopped"


def test_restart_replaces_the_daemon_under_a_busy_kernel_and_stop_can_leave_it_for_the_next_one(
    runtimed: Command, in_process: Command, short_folder: Path
):
    go_on = short_folder / "go on"
    with Session("kept") as session:
        cell = session.create_cell(
            f"import pathlib, time\nprint('before')\nwhile not pathlib.Path({str(go_on)!r}).exists(): time.sleep(.01)\n"
            "print('after')"
        )
        session.start_kernel()
        execution = session.queue_cell(cell)
        before, kernel = Client().status(), session.status().kernel_pid
    done = runtimed("restart")
    after = Client().status()
    assert before is not None
    assert after is not None
    assert after.pid != before.pid
    assert done.returncode == 0
    assert done.stdout == (
        f"runtimed {after.version} runs (pid {after.pid}), it replaces pid {before.pid}; active sessions: 1\n"
    )
    assert in_process("stop", "--keep-kernels").returncode == 0
    assert kernel is not None
    assert psutil.pid_exists(kernel)
    in_process("start")
    go_on.touch()
    with Session("kept") as session:
        assert session.status().kernel_pid == kernel
        assert session.wait(execution).stdout == "before\nafter\n"


def test_restart_starts_a_daemon_where_none_ran(in_process: Command, data_dir: Path):
    done = in_process("restart")
    assert done.returncode == 0
    assert done.stdout.endswith("none ran before; active sessions: 0\n")


def test_a_daemon_that_hangs_is_ended_all_the_same(
    in_process: Command, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with Session("kept") as session:
        session.run("1")
    status = Client().status()
    assert status is not None
    os.kill(status.pid, signal.SIGSTOP)
    monkeypatch.setattr(blocking, "HANDSHAKE_DEADLINE", 0.5)
    monkeypatch.setattr(daemon_commands, "TERM_DEADLINE", 0.2)
    assert main(["stop"]) == 0
    assert f"Ending process {status.pid} instead" in capsys.readouterr().err
    wait_until(lambda: processes_of(data_dir) == [], "a process lives on")


def test_there_are_no_logs_before_the_first_daemon(in_process: Command, data_dir: Path):
    done = in_process("logs")
    assert (done.returncode, done.stdout) == (3, "")
    assert str(data_dir) in done.stderr


def test_logs_show_the_last_lines(runtimed: Command, in_process: Command, data_dir: Path):
    in_process("start")
    in_process("stop")
    lines = (data_dir / "daemon.log").read_text().splitlines(keepends=True)
    assert len(lines) >= 2
    done = runtimed("logs")
    assert (done.returncode, done.stdout) == (0, "".join(lines))
    assert in_process("logs", "-n", "1").stdout == lines[-1]
    assert in_process("logs", "-n", "0").stdout == ""


def test_logs_are_followed_through_a_rotation(begin: Begin, data_dir: Path):
    log = data_dir / "daemon.log"
    log.write_text("one\n\x1b[31mtwo\n")
    process = begin("logs", "-f")
    assert read_until(process, "two") == "one\n\\x1b[31mtwo\n"
    with log.open("a") as file:
        file.write("three\nfo")
        file.flush()
        assert read_until(process, "three") == "three\n"
        file.write("ur\n")
    log.rename(log.with_suffix(".1"))
    log.write_text("five\n")
    assert read_until(process, "five") == "four\nfive\n"
    interrupt(process)
    assert process.wait(30) == 130
    assert process.stderr is not None
    assert process.stderr.read() == ""
