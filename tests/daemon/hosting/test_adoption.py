"""What a daemon finds when it starts: hosts that run, sleep, only begin, are unwanted, dead, or of another age."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from runtimed import Client, ExecutionCancelled, Session, StorageError
from runtimed.protocol.messages import PROTOCOL_VERSION
from runtimed.storage.aside import list_aside
from runtimed.storage.spool import Spool
from tests.conftest import command_of, processes_of, wait_until

SLEEP = "import time\nprint('on', flush=True)\ntime.sleep(60)"


def daemon_pid() -> int:
    status = Client().status()
    assert status is not None
    return status.pid


def is_gone(pid: int | None) -> bool:
    try:
        return pid is None or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def kill(*pids: int | None) -> None:
    for pid in pids:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(map(is_gone, pids)), "a killed process lives on")


def host_of(session: Session) -> int:
    pid = session.status().host_pid
    assert pid is not None
    return pid


def hosts(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "run").iterdir() if path.is_dir()]


def problems() -> str:
    status = Client().status()
    assert status is not None
    return "\n".join(status.problems)


def test_clients_that_come_back_at_once_find_the_kernels_of_all_sessions(data_dir):
    sessions = [Session(f"s{n}") for n in range(2)]
    for n, session in enumerate(sessions):
        session.run(f"x = {n}")
    kernels = [session.status().kernel_pid for session in sessions]
    kill(daemon_pid())

    printed: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: printed.update({n: sessions[n].run("print(x)").stdout})) for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert printed == {n: f"{n}\n" for n in range(2)}
    assert [session.status().kernel_pid for session in sessions] == kernels
    assert len(hosts(data_dir)) == 2
    for session in sessions:
        session.close()


def test_a_host_that_is_stopped_holds_up_nobody_goes_on_when_it_wakes_and_can_be_ended_in_its_sleep(data_dir):
    with Session("asleep") as asleep, Session("awake") as awake:
        asleep.run("x = 'kept'")
        awake.run("x = 'here'")
        host = host_of(asleep)
        os.kill(host, signal.SIGSTOP)
        kill(daemon_pid())

        assert awake.run("print(x)").stdout == "here\n"
        first, second = (asleep.queue_cell(asleep.create_cell(f"print(x, {n})")) for n in range(2))
        assert asleep.status().status == "active"
        Client().shutdown(keep_kernels=True)
        third = asleep.queue_cell(asleep.create_cell("print(x, 2)"))
        os.kill(host, signal.SIGCONT)

        assert [asleep.wait(each).stdout for each in (first, second, third)] == [f"kept {n}\n" for n in range(3)]
        assert asleep.status().host_pid == host

        os.kill(host, signal.SIGSTOP)
        kill(daemon_pid())
        asleep.stop()
        assert is_gone(host)
        awake.stop()
    assert hosts(data_dir) == []


def test_a_host_whose_session_was_stopped_when_the_daemon_died_is_ended_by_the_next(data_dir):
    with Session("s") as session:
        running = session.queue_cell(session.create_cell(SLEEP))
        waiting = session.queue_cell(session.create_cell("1"))
        wait_until(lambda: session.get_cells()[0].outputs, "the cell does not begin")
        status = session.status()
        host = host_of(session)
        os.kill(host, signal.SIGSTOP)
        stopping = threading.Thread(target=session.stop)
        stopping.start()
        wait_until(lambda: Client().sessions.get("s").status == "closed", "the session is not stopped")
        kill(daemon_pid())
        os.kill(host, signal.SIGCONT)
        stopping.join()
        wait_until(lambda: is_gone(host) and is_gone(status.kernel_pid), "the host of a stopped session lives on")

        session.connect()
        assert not session.wait(running).success
        with pytest.raises(ExecutionCancelled):
            session.wait(waiting)
        assert (session.status().status, session.status().close_reason) == ("closed", "stopped")
    wait_until(lambda: not hosts(data_dir), "the folder of the host is left")


def test_what_ran_and_waited_ends_when_daemon_and_host_are_killed_together(data_dir):
    with Session("s") as session:
        session.run("print('kept')")
        running = session.queue_cell(session.create_cell(SLEEP))
        waiting = session.queue_cell(session.create_cell("1"))
        wait_until(lambda: session.get_cells()[1].outputs, "the cell does not begin")
        kill(daemon_pid(), host_of(session))

        result = session.wait(running)
        assert result.stdout == "on\n"
        assert result.error is not None
        assert result.error.ename == "KernelDied"
        with pytest.raises(ExecutionCancelled, match="the kernel ended"):
            session.wait(waiting)
        assert (session.status().status, session.status().close_reason) == ("error", "host_lost")
        assert session.get_cells()[0].outputs[0].text == "kept\n"


def host_processes(data_dir: Path) -> list[psutil.Process]:
    return [process for process in processes_of(data_dir) if "runtimed.host" in command_of(process)]


@pytest.mark.parametrize("delay", [0.2, 0.5])
def test_a_daemon_killed_while_a_host_starts_leaves_one_host(data_dir, tmp_path, delay):
    # A kernel that is ready too early would leave nobody who needs a daemon, and so starts one.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nuntil [ -e {tmp_path}/go ]; do sleep 0.01; done\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with Session("s") as session:
        session.connect()
        starting = threading.Thread(target=session.start_kernel, kwargs={"env_source": f"python:{python}"})
        starting.start()
        wait_until(lambda: host_processes(data_dir), "no host is started")
        time.sleep(delay)
        (host,) = host_processes(data_dir)
        host.suspend()
        kill(daemon_pid())
        wait_until(Client().is_running, "no daemon is started")
        host.resume()
        (tmp_path / "go").touch()
        starting.join()

        assert session.run("print('runs')").stdout == "runs\n"
        assert session.status().host_pid == host.pid
        assert session.env_source == f"python:{python}"
        assert host_processes(data_dir) == [host]
        session.stop()
    wait_until(lambda: not host_processes(data_dir), "the host lives on")
    assert hosts(data_dir) == []


def test_events_that_a_host_of_no_known_session_has_left_are_kept(data_dir):
    (data_dir / "run").mkdir(mode=0o700)
    folder = data_dir / "run" / "0badcafe"
    with Spool(folder) as spool:
        spool.append(1, b"precious")
    with Session("s") as session:
        session.create_cell("")

    (kept,) = data_dir.glob("spool-0badcafe.damaged-*")
    assert list(Spool.read_dead(kept, 0)) == [(1, b"precious")]
    assert not folder.exists()
    assert str(kept) in problems()


def strike(path: Path) -> Path:
    """Let reading a file fail (ELOOP), and return where it is."""
    aside = path.with_suffix(".away")
    path.rename(aside)
    path.symlink_to(path.name)
    return aside


LATE = """
import pathlib, time
while not pathlib.Path({!r}).exists():
    time.sleep(0.01)
print('late', flush=True)
time.sleep(60)
"""


def test_what_a_dead_host_has_left_waits_for_a_disk_that_fails_and_is_taken_when_it_works(data_dir, tmp_path):
    with Session("s") as session:
        running = session.queue_cell(session.create_cell(LATE.format(str(tmp_path / "go"))))
        wait_until(lambda: session.status().kernel_status == "busy", "the cell does not begin")
        host, daemon = host_of(session), daemon_pid()
        os.kill(daemon, signal.SIGSTOP)
        (tmp_path / "go").touch()
        (folder,) = hosts(data_dir)
        wait_until(lambda: keeps(folder, b"late"), "nothing is kept")
        kill(host, daemon)
        segments = sorted(folder.glob("*.events"))
        away = [strike(path) for path in segments]

        session.get_cell_ids()
        wait_until(lambda: "Too many levels of symbolic links" in problems(), "nobody is told")
        assert f"Session 's': What the host in {folder} has kept waits: " in problems()
        assert list(data_dir.glob("*.damaged-*")) == []
        for path, aside in zip(segments, away, strict=True):
            aside.replace(path)

        assert session.wait(running).stdout == "late\n"
        assert list(data_dir.glob("*.damaged-*")) == []
    wait_until(lambda: not hosts(data_dir), "the folder of the host is left")


def test_a_session_whose_dead_host_cannot_be_read_stops_at_once_and_what_was_left_is_taken_later(
    data_dir, tmp_path, caplog
):
    with Session("s") as session:
        for number, what in enumerate(("*.events", "lock")):
            gate = tmp_path / str(number)
            running = session.queue_cell(session.create_cell(LATE.format(str(gate))))
            wait_until(lambda: session.status().kernel_status == "busy", "the cell does not begin")
            host, daemon = host_of(session), daemon_pid()
            os.kill(daemon, signal.SIGSTOP)
            gate.touch()
            (folder,) = hosts(data_dir)
            wait_until(lambda: keeps(folder, b"late"), "nothing is kept")  # noqa: B023  # called here
            kill(host, daemon)
            struck = {path: strike(path) for path in sorted(folder.glob(what))}

            session.get_cell_ids()
            begun = time.monotonic()
            caplog.clear()
            session.stop()
            took = time.monotonic() - begun
            assert session.status().close_reason == "stopped"
            with pytest.raises(StorageError) as refused:
                session.start_kernel(env_source="current")
            for path, away in struck.items():
                away.replace(path)

            assert took < 8, "a host that can be read gets 10 s to end, and 10 s more to be killed"
            (path,) = struck
            told = [record.message for record in caplog.records if record.levelname == "WARNING"]
            assert len(told) == 1, what
            assert re.fullmatch(
                rf"Session 's' has ended\. What the host in {folder} had kept when it ended cannot be read: .*"
                rf"Too many levels of symbolic links: '{path}'\. It stays there, and is taken as soon as it can be",
                told[0],
            ), what
            assert refused.value.message == told[0].replace("Session 's' has ended.", "There is no new kernel yet.")
            assert session.wait(running).stdout == "late\n", what
            wait_until(lambda: not hosts(data_dir), "the folder of the host is left")
            assert list(data_dir.glob("*.damaged-*")) == []
        assert session.run("print('new')").stdout == "new\n"


def keeps(folder: Path, text: bytes) -> bool:
    """Whether a text is in what a host keeps."""
    return any(text in path.read_bytes() for path in folder.glob("*.events"))


@pytest.mark.parametrize("name", ["owner.json", "lock"])
def test_a_host_of_which_nothing_can_be_read_now_is_left_to_the_next_daemon(data_dir, name):
    (data_dir / "run").mkdir(mode=0o700)
    folder = data_dir / "run" / "0badcafe"
    with Spool(folder) as spool:
        spool.append(1, b"precious")
    (folder / "owner.json").write_text(
        '{"notebook_id":"old","epoch":"e","kind":"kernel","kernel_type":"python","env_source":"x"}'
    )
    away = strike(folder / name)
    with Session("s") as session:
        session.create_cell("")
        wait_until(lambda: "Too many levels of symbolic links" in problems(), "nobody is told")
        assert list(data_dir.glob("*.damaged-*")) == []
        assert away.exists()


# --- hosts of another age ---------------------------------------------------------------------------------------------

OTHER_AGE = f"""
import sys, runtimed.protocol.messages
for module in list(sys.modules.values()):
    if getattr(module, "PROTOCOL_VERSION", None) == {PROTOCOL_VERSION}:
        module.PROTOCOL_VERSION = {PROTOCOL_VERSION + 1}
"""


@pytest.fixture
def of_another_age(tmp_path, monkeypatch):
    """Runs code with a runtimed that speaks another version of the protocol: client, daemon and hosts."""
    (tmp_path / "sitecustomize.py").write_text(OTHER_AGE)

    def run(code: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", f"import runtimed\n{code}"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    return run


def test_a_host_of_another_version_is_reported_and_taken_back_by_its_own(data_dir, of_another_age):
    host = int(of_another_age("s = runtimed.Session('s'); s.run('x = 6'); print(s.status().host_pid)"))
    of_another_age("runtimed.Client().shutdown(keep_kernels=True)")

    with Session("s") as session:
        status = session.status()
        assert (status.status, status.close_reason) == ("error", "host_lost")
        assert f"process {host}" in (status.error or "")
        assert f"speaks protocol {PROTOCOL_VERSION + 1}" in (status.error or "")
        assert f"'s': {status.error}" in problems()
        assert [cell.source for cell in session.get_cells()] == ["x = 6"]
    assert not is_gone(host)
    Client().shutdown(keep_kernels=True)
    wait_until(lambda: not Client().is_running(), "the daemon lives on")

    assert of_another_age("print(runtimed.Session('s').run('print(7 * x)').stdout)") == "42\n\n"
    assert of_another_age("print(runtimed.Client().sessions.get('s').status)") == "active\n"
    of_another_age("runtimed.Client().shutdown()")
    wait_until(lambda: is_gone(host), "the host lives on")


def test_a_host_of_another_version_whose_session_was_stopped_is_ended(data_dir, of_another_age):
    host = int(of_another_age("s = runtimed.Session('s'); s.run('x = 6'); print(s.status().host_pid)"))
    os.kill(host, signal.SIGSTOP)
    stop = (
        "import threading; threading.Thread(target=runtimed.Client().sessions.stop, args=('s',), daemon=True).start()"
    )
    of_another_age(
        f"{stop}\nimport time\nwhile runtimed.Client().sessions.get('s').status == 'active': time.sleep(0.01)\n"
        "import os; os.kill(runtimed.Client().status().pid, 9)"
    )
    os.kill(host, signal.SIGCONT)

    with Session("other") as session:
        session.create_cell("")
        wait_until(lambda: is_gone(host), "the host of a stopped session lives on")
        assert Client().sessions.get("s").close_reason == "stopped"


def damage_cells(data_dir: Path) -> None:
    """Let no row of the one session's cells be readable."""
    (path,) = (data_dir / "sessions").glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        assert database.execute("UPDATE cells SET checksum = checksum + 1").rowcount > 0


PRINT = "import time\nfrom IPython.display import display\nfor n in range(40): print(n, flush=True); time.sleep(0.1)"
SHOWN = "handle = display('begin', display_id='d')\nhandle.update('end')\nprint('all')"


def test_a_daemon_that_takes_over_a_running_kernel_reads_its_notebook_when_it_is_needed(data_dir):
    """Its outputs are taken, updates of displays included, without a look into the notebook."""
    with Session("s") as session:
        session.run("1")
        execution_id = session.queue_cell(session.create_cell(f"{PRINT}\n{SHOWN}"))
        wait_until(lambda: session.get_queue()[0].started_at is not None, "it does not begin")
    kill(daemon_pid())
    damage_cells(data_dir)
    with Session("s") as session:
        wait_until(lambda: session.status().kernel_status == "idle", "the cell does not end", timeout=60)
        page = session.read_outputs(execution_id)
        outputs = list(page.outputs)
        while page.next is not None:
            page = session.read_outputs(execution_id, page.next)
            outputs += page.outputs
        assert "".join(output.text or "" for output in outputs) == "".join(f"{n}\n" for n in range(40)) + "all\n"
        assert [output.data for output in outputs if output.data] == [
            {"text/plain": "'begin'"},
            {"text/plain": "'end'"},
        ]
        assert "is damaged" not in (data_dir / "daemon.log").read_text()
        assert [cell.source for cell in session.get_cells()] == ["1", f"{PRINT}\n{SHOWN}"]
        assert list_aside(data_dir) == []
