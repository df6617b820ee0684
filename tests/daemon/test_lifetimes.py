"""What outlives what: clients, daemons, hosts and kernels are killed for real."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runtimed import Client, DaemonUnavailable, Session
from runtimed.settings import read_settings
from runtimed.transport.autostart import ensure_daemon
from tests.conftest import command_of, processes_of, wait_until
from tests.daemon.conftest import daemon_with_a_clock

COUNT = "import time\nfor n in range({}):\n    print(n, flush=True)\n    time.sleep(0.02)"


def lines(last: int) -> str:
    return "".join(f"{n}\n" for n in range(last))


def daemon_pid() -> int:
    status = Client().status()
    assert status is not None
    return status.pid


def kill_daemon() -> None:
    pid = daemon_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), "the daemon lives on")


@pytest.fixture(scope="module")
def kernel(shared_daemon: Path) -> int:
    """The kernel of the session "kept", which no test harms; there is a new daemon whenever one was killed."""
    with Session("kept") as session:
        session.run("x = 'kept'")
        pid = session.status().kernel_pid
    assert pid is not None
    return pid


@pytest.fixture
def kept(kernel: int) -> Iterator[Session]:
    """The session whose kernel outlives whatever is killed."""
    with Session("kept") as session:
        yield session
        assert session.run("print(x)").stdout == "kept\n"
        assert session.status().kernel_pid == kernel


TWENTY_CLIENTS = """
import runtimed, threading
pids = []
def connect():
    runtimed.Session("s").connect()
    pids.append(runtimed.Client().status().pid)
threads = [threading.Thread(target=connect) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(pids), *set(pids))
"""


def test_twenty_clients_at_once_start_exactly_one_daemon(data_dir):
    clients = [
        subprocess.Popen([sys.executable, "-c", TWENTY_CLIENTS], stdout=subprocess.PIPE, text=True) for _ in range(5)
    ]

    pids = {client.communicate()[0] for client in clients}

    assert pids == {f"4 {daemon_pid()}\n"}
    assert len([p for p in processes_of(data_dir) if "runtimed.daemon" in command_of(p)]) == 1


def test_a_daemon_belongs_to_no_client_s_session_and_survives_ctrl_c(data_dir):
    script = "import runtimed, time; runtimed.Session('s').run('1'); print('on', flush=True); time.sleep(60)"
    client = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert client.stdout is not None
    client.stdout.readline()

    os.killpg(client.pid, signal.SIGINT)
    client.communicate()

    with Session("s") as session:
        assert session.kernel_started
        status = session.status()
    sessions = {os.getsid(pid) for pid in (daemon_pid(), status.host_pid, status.kernel_pid) if pid is not None}
    assert len(sessions) == 3
    assert os.getsid(0) not in sessions


def test_a_kernel_survives_the_death_of_its_clients_and_their_output_is_kept(kept):
    cell_id = kept.create_cell(COUNT.format(50))
    script = f"import runtimed; runtimed.Session('kept').execute_cell({cell_id!r})"
    client = subprocess.Popen([sys.executable, "-c", script])
    wait_until(lambda: kept.get_cell(cell_id).outputs, "the cell does not begin")
    client.kill()
    client.wait()
    wait_until(
        lambda: kept.get_cell(cell_id).outputs[0].text == lines(50), "the output of the dead client is not complete"
    )


def test_a_kernel_survives_the_death_of_the_daemon_and_a_waiting_client_misses_nothing(kept):
    cell_id = kept.create_cell(COUNT.format(100))
    events = kept.stream_execute(cell_id)
    seen = [next(events) for _ in range(10)]
    kill_daemon()
    seen += [next(events) for _ in range(20)]
    kill_daemon()
    seen += list(events)

    assert "".join(event.output.text or "" for event in seen if event.output) == lines(100)
    assert [event.event_type for event in seen if event.event_type != "output"] == ["execution_started", "done"]
    assert kept.get_cell(cell_id).outputs[0].text == lines(100)


def test_a_blocked_call_goes_on_with_the_next_daemon(kept):
    results = []
    cell_id = kept.create_cell(COUNT.format(100))
    thread = threading.Thread(target=lambda: results.append(kept.execute_cell(cell_id)))
    thread.start()
    with Session("kept") as other:
        wait_until(lambda: other.get_cell(cell_id).outputs, "the cell does not begin")
    kill_daemon()
    thread.join()

    assert [result.stdout for result in results] == [lines(100)]


def test_a_host_that_loses_its_daemon_starts_one_and_queued_work_goes_on(kernel, tmp_path):
    witness = tmp_path / "witness"
    with Session("kept") as session:
        first = session.create_cell(COUNT.format(50))
        second = session.create_cell(f"open({str(witness)!r}, 'a').write('ran\\n')")
        session.queue_cell(first)
        execution_id = session.queue_cell(second)
    kill_daemon()

    wait_until(witness.exists, "the queued cell does not run")

    with Session("kept") as session:
        assert session.wait(execution_id).success
        assert session.get_cell(first).outputs[0].text == lines(50)
        assert session.status().kernel_pid == kernel
    assert witness.read_text() == "ran\n"


def test_cells_outputs_and_history_are_there_after_a_daemon_s_restart(shared_daemon):
    with Session("stored") as session:
        session.set_metadata("title", "kept")
        result = session.run("print('kept')\n6 * 7")
        before = session.get_cells()
        session.stop()
    pid = daemon_pid()
    Client().shutdown(keep_kernels=True)
    wait_until(lambda: not psutil.pid_exists(pid), "the daemon lives on")

    with Session("stored") as session:
        assert session.get_cells() == before
        assert session.get_metadata("title") == "kept"
        assert session.wait(result.execution_id) == result
        status = session.status()
        assert (status.status, status.close_reason) == ("closed", "stopped")


def test_a_shutdown_that_keeps_the_kernels_hands_them_to_the_next_daemon(kept, kernel):
    pid = daemon_pid()
    Client().shutdown(keep_kernels=True)
    wait_until(lambda: not psutil.pid_exists(pid), "the daemon lives on")
    assert not Client().is_running()

    assert kept.run("print(x)").stdout == "kept\n"
    assert kept.status().kernel_pid == kernel


def test_a_client_that_comes_while_the_daemon_ends_gets_the_next_one(kernel):
    for _ in range(3):
        Client().shutdown(keep_kernels=True)
        with Session("kept") as session:
            assert session.run("print(x)").stdout == "kept\n"


def test_nobody_meets_a_daemon_that_has_said_that_it_ends(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon):
            path = daemon.settings.socket_path
            assert path.exists()
            await daemon.shut_down(keep_kernels=True)
            assert not path.exists()

    asyncio.run(scenario())


def test_a_terminated_daemon_ends_cleanly_and_leaves_the_kernels_to_the_next(shared_daemon, kept):
    log, pid = shared_daemon / "daemon.log", daemon_pid()
    said = log.read_text().count("the daemon ends")
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not psutil.pid_exists(pid), "the daemon lives on")

    assert kept.run("print(x)").stdout == "kept\n"
    assert log.read_text().count("the daemon ends") == said + 1


def test_a_host_that_is_killed_takes_its_kernel_along_and_its_spool_is_read(shared_daemon):
    with Session() as session:
        for killed in (signal.SIGKILL, signal.SIGTERM):
            child = session.run("import subprocess; print(subprocess.Popen(['sleep', '1000']).pid)")
            cell_id = session.create_cell(COUNT.format(1000))
            execution_id = session.queue_cell(cell_id)
            wait_until(lambda: session.get_cell(cell_id).outputs, "the cell does not begin")  # noqa: B023  # called here
            status = session.status()
            assert status.host_pid is not None
            os.kill(status.host_pid, killed)

            result = session.wait(execution_id)
            assert result.error is not None
            # A host that may still speak interrupts what runs before it ends its kernel.
            assert result.error.ename == ("KernelDied" if killed == signal.SIGKILL else "KeyboardInterrupt")
            assert lines(1000).startswith(result.stdout)
            wait_until(lambda: session.status().status == "error", "the session does not end")
            assert session.status().close_reason == ("host_lost" if killed == signal.SIGKILL else "died")
            ended = (status.kernel_pid, int(child.stdout))
            wait_until(lambda: all(map(is_gone, ended)), "the kernel or its child lives on")  # noqa: B023  # called here


def is_gone(pid: int | None) -> bool:
    try:
        return pid is None or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_data_folder_has_one_daemon_and_a_second_one_says_where_the_first_listens(shared_daemon, monkeypatch):
    with Session("s") as session:
        session.create_cell("x")
    monkeypatch.setenv("RUNTIMED_SOCKET_PATH", str(shared_daemon / "run" / "other.sock"))

    with pytest.raises(DaemonUnavailable, match=r"daemon\.sock"):
        Session("s").connect()


def test_a_daemon_that_nobody_needs_ends(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "0.3")
    with Session() as session:
        session.create_cell("x")
        pid = daemon_pid()
        time.sleep(1)
        assert psutil.pid_exists(pid)

    wait_until(lambda: not processes_of(data_dir), "the daemon lives on")


def test_a_daemon_that_is_to_end_at_once_waits_for_who_has_started_it(data_dir, monkeypatch):
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "0")
    ensure_daemon(read_settings())
    [daemon] = processes_of(data_dir)
    time.sleep(2)

    with Session() as session:
        session.create_cell("x")
        assert daemon_pid() == daemon.pid

    wait_until(lambda: not processes_of(data_dir), "the daemon lives on")


def test_an_ephemeral_session_is_abandoned_when_its_last_client_has_left(shared_daemon):
    session = Session(keep_alive=0.3)
    session.create_cell("1")
    session.close()

    wait_until(lambda: session.status().status == "closed", "the session is not abandoned")
    assert session.status().close_reason == "abandoned"


def test_an_ephemeral_session_waits_for_its_client_when_the_daemon_was_replaced(shared_daemon):
    with Session(keep_alive=0.3) as session:
        session.run("x = 'kept'")
        kernel = session.status().kernel_pid
        Client().shutdown(keep_kernels=True)
        wait_until(lambda: not Client().is_running(), "the daemon lives on")
        # Another client brings up the next daemon; this one does not know yet.
        with Session("other") as other:
            other.create_cell("")
        until = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > until, "the time does not pass")

        assert session.run("print(x)").stdout == "kept\n"
        assert session.status().kernel_pid == kernel
    assert session.status().close_reason == "stopped"


@pytest.mark.parametrize("code", ["s.run('1')", "s.create_cell('1')"], ids=["kernel", "document"])
def test_an_ephemeral_session_is_abandoned_when_its_client_died_with_the_daemon(shared_daemon, code):
    script = f"import runtimed, time\ns = runtimed.Session(keep_alive=0.3)\n{code}\nprint(s.notebook_id, flush=True)"
    client = subprocess.Popen([sys.executable, "-c", f"{script}\ntime.sleep(60)"], stdout=subprocess.PIPE, text=True)
    with client:
        assert client.stdout is not None
        name = client.stdout.readline().strip()
        kill_daemon()
        with Session("other") as other:
            other.create_cell("")
            assert Client().sessions.get(name).status == "active"
            client.kill()
            wait_until(lambda: Client().sessions.get(name).status == "closed", "the session is not abandoned")
    assert Client().sessions.get(name).close_reason == "abandoned"


def test_an_ephemeral_session_waits_for_what_runs_and_for_no_kernel_that_is_idle(shared_daemon):
    session = Session(keep_alive=0.1)
    session.start_kernel()
    execution_id = session.queue_cell(session.create_cell(COUNT.format(50)))
    session.close()
    wait_until(lambda: session.status().status == "closed", "the session is not abandoned")
    assert session.status().close_reason == "abandoned"

    with Session(session.notebook_id) as again:
        assert again.wait(execution_id).stdout == lines(50)


def test_an_idle_session_times_out_and_starts_again_by_its_id(shared_daemon):
    session = Session("idle", timeout_minutes=0.01)
    session.run("1")

    wait_until(lambda: session.status().status == "timed_out", "the session does not time out")
    status = session.status()
    assert (status.close_reason, status.timeout_minutes) == ("idle_timeout", 0.01)
    wait_until(lambda: session.status().kernel_pid is None, "the kernel lives on")
    assert session.run("1 + 1").success
    assert session.status().status == "active"
    session.close()


def test_a_session_lasts_no_longer_than_it_may(shared_daemon):
    session = Session("long", max_duration_minutes=0.12)
    session.start_kernel()
    result = session.run("import time; time.sleep(60)")

    assert not result.success
    assert (session.status().status, session.status().close_reason) == ("timed_out", "max_duration")
    session.close()


def test_a_daemon_that_is_killed_while_it_starts_is_started_again(data_dir, tmp_path, monkeypatch):
    killed, python = tmp_path / "killed", tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nif [ -e "{killed}" ]; then exec "{sys.executable}" "$@"; fi\ntouch "{killed}"\nkill -9 $$\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with Session("s") as session:
        assert session.create_cell("1")
    assert killed.exists()


def test_a_daemon_that_is_always_killed_while_it_starts_is_said_to_end(data_dir, tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho x >> "{tmp_path}/starts"\nkill -9 $$\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(DaemonUnavailable, match="The daemon ended while it started; its log is"):
        Session("s").connect()
    assert (tmp_path / "starts").read_text() == "x\n" * 3
