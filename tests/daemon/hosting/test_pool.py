"""Spare kernels: real daemons, hosts and kernels, handed over, killed, dropped."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from runtimed import Client, DaemonClient, RuntimedError, Session
from runtimed.daemon.hosting.folder import name_owner
from runtimed.daemon.hosting.launcher import Owner
from runtimed.daemon.serving.daemon import TICK
from tests.conftest import command_of, lives, processes_of, wait_until
from tests.daemon.test_memory import EXCEEDED, MIB, cgroups, needs_cgroup

pytestmark = pytest.mark.slow

NONE = dict.fromkeys(
    (f"{family}_{state}" for family in ("uv", "conda", "current", "browser") for state in ("available", "warming")),
    0,
)
WAITING = {**NONE, "current_available": 1}


@pytest.fixture(scope="module", autouse=True)
def one_spare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let every daemon of these tests keep one spare, for clients with a history and startup files of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIMED_POOL_SIZE", "1")
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        yield


@pytest.fixture(scope="module")
def first(shared_daemon: Path, one_spare: None) -> Iterator[Session]:
    """The one session that lives as long as these tests: the others, and the spare, are beside it."""
    with started() as session:
        yield session


@pytest.fixture
def pool(shared_daemon: Path, first: Session) -> Path:
    """The data folder of a daemon that most tests share, with a spare that waits."""
    ensure_spare(WAITING, lambda: started().stop())
    return shared_daemon


def ensure_spare(waiting: dict[str, int], start: Callable[[], None]) -> None:
    """Wait for a spare, and start what it is for if the daemon has started none since it runs: it makes none then.

    Args:
        waiting: The figures of a pool in which it waits.
        start: Starts a session of its kind, and stops it.
    """
    began = time.monotonic()
    wait_until(lambda: figures() != NONE or time.monotonic() - began > 3 * TICK, "time stands still")
    if figures() == NONE:
        start()
    wait_for_spare(waiting)


def figures() -> dict[str, int]:
    status = Client().status()
    assert status is not None
    return dict(status.pool)


def wait_for_spare(waiting: dict[str, int] = WAITING) -> None:
    wait_until(lambda: figures() == waiting, "there is no spare", timeout=60)


def kernels(data_dir: Path) -> dict[int, psutil.Process]:
    """The processes that are kernels or spare ones."""
    return {p.pid: p for p in processes_of(data_dir) if "launch.py" in " ".join(command_of(p))}


def hosts(data_dir: Path) -> dict[int, psutil.Process]:
    return {p.pid: p for p in processes_of(data_dir) if command_of(p)[-1:] == ["runtimed.host"]}


def spare_of(data_dir: Path, *sessions: Session) -> tuple[psutil.Process, psutil.Process]:
    """The host and the kernel that belong to none of these sessions."""
    owned = {session.status().host_pid for session in sessions}
    # The host of a session that was stopped just now may still be ending.
    wait_until(lambda: len(hosts(data_dir).keys() - owned) == 1, "there is not one spare")
    (host,) = (process for pid, process in hosts(data_dir).items() if pid not in owned)
    (kernel,) = (child for child in host.children() if "launch.py" in " ".join(command_of(child)))
    return host, kernel


def folders(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "run").iterdir() if path.is_dir()]


def folder_of(data_dir: Path, host: psutil.Process) -> Path:
    """The folder that holds the socket on which a host listens."""
    listening = {str(connection.laddr) for connection in host.net_connections("unix")}
    (folder,) = (folder for folder in folders(data_dir) if str(folder / "host.sock") in listening)
    return folder


def problems() -> tuple[str, ...]:
    status = Client().status()
    assert status is not None
    return tuple(status.problems)


def kill_daemon(*others: psutil.Process) -> None:
    """Kill the daemon, and with it others of which it must not hear that they died before."""
    status = Client().status()
    assert status is not None
    daemon = psutil.Process(status.pid)
    daemon.suspend()
    for process in (*others, daemon):
        process.kill()
    wait_until(lambda: all(is_gone(process) for process in (*others, daemon)), "a killed process lives on")


def is_gone(process: psutil.Process) -> bool:
    return not lives(process)


def wait_gone(*processes: psutil.Process) -> None:
    wait_until(lambda: all(map(is_gone, processes)), "a spare lives on")


def started() -> Session:
    session = Session()
    session.start_kernel()
    return session


def text_of(session: Session, code: str) -> str:
    result = session.run(code)
    assert result.success, result
    return result.stdout


def test_a_spare_is_made_after_the_first_start_is_what_its_client_s_kernel_would_be_and_keeps_no_daemon_alive(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "3")
    look = (
        "import os, sys, json, locale\n"
        "print(json.dumps([sorted((k, v) for k, v in os.environ.items() if k != 'JPY_PARENT_PID'), os.getcwd(),\n"
        "    sys.argv[:2], sys.path, In, Out, sorted(n for n in globals() if not n.startswith('_')), seen,\n"
        "    get_ipython().execution_count, sorted(sys.modules), str(sys.flags),\n"
        "    os.path.samestat(os.fstat(0), os.stat(os.devnull)), locale.getlocale(), os.getpgrp() == os.getpid()]))"
    )
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (startup / "0.py").write_text("import os; seen = os.environ.get('MINE'), os.getcwd()")
    monkeypatch.setenv("MINE", "the first")
    monkeypatch.setenv("GONE", "x")
    monkeypatch.setenv("A_SECRET", "swordfish")
    with Session() as first:
        first.connect()
        assert figures() == NONE
        first.start_kernel()
        wait_for_spare()
        assert len(hosts(data_dir)) == 2
        status = DaemonClient().status()
        assert status is not None
        assert {name: status[name] for name in NONE} == {**NONE, "current_available": 1}
        _host, spare = spare_of(data_dir, first)
        assert "A_SECRET" not in spare.environ()

        folder = tmp_path / "elsewhere"
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MINE", "the second: ä\n" + "x" * 100_000)
        monkeypatch.delenv("GONE")
        with started() as second:
            assert second.status().kernel_pid == spare.pid
            warm = text_of(second, look)
            assert second.status().env_source == "current"
            assert [cell.execution_count for cell in second.get_cells()] == [1]
            random = text_of(second, "import random; print(random.random())")
            second.restart_kernel()
            assert text_of(second, "import os; print(os.environ['MINE'][:10], len(In))") == "the second 2\n"
            given = Path(f"/proc/{second.status().kernel_pid}/environ").read_bytes().split(b"\0")
            assert os.fsencode(f"MINE={os.environ['MINE']}") in given
        DaemonClient().flush_pool()
        with started() as third:
            assert third.status().kernel_pid != spare.pid
            assert text_of(third, look) == warm
            assert text_of(third, "import random; print(random.random())") != random
        assert "numpy" not in json.loads(warm)[9]
        assert "the second" in warm
        assert str(folder) in warm
        wait_for_spare()
    wait_until(lambda: not processes_of(data_dir), "something lives on")
    assert folders(data_dir) == []


def test_several_sessions_at_once_never_get_the_same_spare(pool: Path, first: Session) -> None:
    with ThreadPoolExecutor(2) as threads:
        sessions = list(threads.map(lambda _n: started(), range(2)))
    assert len({session.status().kernel_pid for session in (first, *sessions)}) == 3
    for number, session in enumerate(sessions):
        assert text_of(session, f"x = {number}; print(x)") == f"{number}\n"
    for number, session in enumerate(sessions):
        assert text_of(session, "print(x)") == f"{number}\n"
        session.stop()


@pytest.mark.parametrize("what", ["host", "kernel"])
def test_a_spare_that_was_killed_is_replaced_and_nobody_gets_it(pool: Path, first: Session, what: str) -> None:
    host, kernel = spare_of(pool, first)
    (host if what == "host" else kernel).kill()
    with started() as second:
        assert text_of(second, "print(1)") == "1\n"
        assert second.status().kernel_pid != kernel.pid
        second.stop()
    wait_gone(host)
    wait_for_spare()


@pytest.mark.parametrize("what", ["host", "kernel"])
def test_a_spare_that_hangs_is_not_waited_for(pool: Path, first: Session, what: str) -> None:
    host, kernel = spare_of(pool, first)
    (host if what == "host" else kernel).send_signal(signal.SIGSTOP)
    with started() as second:
        assert second.status().kernel_pid != kernel.pid
        assert text_of(second, "print(1)") == "1\n"
        second.stop()
    wait_gone(host, kernel)


def test_a_spare_ends_with_a_daemon_that_is_killed(pool: Path, first: Session) -> None:
    host, kernel = spare_of(pool, first)
    status = Client().status()
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(kernel.pid), "the spare kernel lives on")
    wait_until(lambda: not psutil.pid_exists(host.pid), "the host lives on")
    assert text_of(first, "print(1)") == "1\n"
    assert len(hosts(pool)) == 1


def test_the_folder_of_a_spare_that_died_with_its_daemon_is_removed_without_a_word(pool: Path, first: Session) -> None:
    kill_daemon(spare_of(pool, first)[0])
    assert len(folders(pool)) == 2
    assert text_of(first, "print(1)") == "1\n"
    wait_until(lambda: len(folders(pool)) == 1, "the folder is left")
    assert problems() == ()


def test_a_spare_that_sleeps_while_its_daemon_is_replaced_is_nobodys_and_ends_when_it_wakes(
    pool: Path, first: Session
) -> None:
    host, kernel = spare_of(pool, first)
    folder = folder_of(pool, host)
    host.suspend()
    kill_daemon()
    with started() as second:
        assert second.status().kernel_pid != kernel.pid
        second.stop()
    assert problems() == ()
    host.resume()
    wait_until(lambda: is_gone(kernel) and is_gone(host), "the spare lives on")
    wait_until(lambda: not folder.exists(), "its folder is left")


def test_a_spare_that_was_given_a_name_and_not_told_ends_and_its_session_gets_another_kernel(
    pool: Path, first: Session
) -> None:
    with Session("named") as second:
        second.create_cell("1")
        host, kernel = spare_of(pool, first)
        owner = Owner(notebook_id="named", epoch="e" * 32, kernel_type="python", env_source="current")
        folder = folder_of(pool, host)
        name_owner(folder, owner)
        kill_daemon()
        second.start_kernel()
        assert second.status().kernel_pid != kernel.pid
        assert text_of(second, "print(2)") == "2\n"
        wait_until(lambda: is_gone(kernel) and is_gone(host), "the spare lives on")
        wait_until(lambda: not folder.exists(), "its folder is left")
        assert problems() == ()
        second.stop()


@needs_cgroup
def test_a_spare_keeps_within_the_memory_limit_from_its_start_to_its_end(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIMED_MAX_KERNEL_MEMORY", "400M")
    before = set(cgroups())
    with started() as first:
        wait_for_spare()
        _host, spare = spare_of(data_dir, first)
        with started() as second:
            assert second.status().kernel_pid == spare.pid
            error = second.run(f"x = bytearray({800 * MIB})").error
            assert error is not None
            assert (error.ename, error.evalue) == ("KernelDied", EXCEEDED)
        wait_for_spare()
        DaemonClient().flush_pool()
    wait_until(lambda: set(cgroups()) <= before, "a cgroup is left")


@pytest.mark.parametrize("seed", range(3))
def test_whenever_the_daemon_is_killed_in_a_hand_over_the_kernel_is_somebodys_or_nobodys(
    pool: Path, first: Session, seed: int
) -> None:
    status = Client().status()
    assert status is not None
    killing = threading.Timer(0.018 * seed, os.kill, (status.pid, signal.SIGKILL))
    killing.start()
    second = Session(f"second-{seed}")
    try:
        second.start_kernel()
    except RuntimedError as exc:  # whichever it is: the session can be started again
        print(f"the start ended with {exc!r}")
    killing.join()
    second.start_kernel()
    assert text_of(second, "print(1)") == "1\n"
    assert text_of(first, "print(1)") == "1\n"
    ensure_spare(WAITING, lambda: started().stop())  # the second kernel may have been handed over before the kill
    host, _kernel = spare_of(pool, first, second)
    owners = {first.status().host_pid, second.status().host_pid, host.pid}
    wait_until(lambda: set(hosts(pool)) == owners, "a host that is nobody's lives on")
    wait_until(lambda: len(folders(pool)) == 3, "the folder of a host that is nobody's is left")
    assert problems() == ()
    second.stop()


def test_what_only_a_new_process_can_have_gets_one_and_flush_pool_drops_the_spares_until_the_next_start(
    pool: Path, first: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, kernel = spare_of(pool, first)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "7")
        with started() as second:
            assert second.status().kernel_pid != kernel.pid
            assert text_of(second, "import sys; print(sys.flags.hash_randomization)") == "1\n"
            second.stop()
    # There would be spares of both kinds.
    DaemonClient().flush_pool()
    assert figures() == NONE
    assert is_gone(kernel)
    wait_until(lambda: is_gone(host), "the host lives on")
    assert len(folders(pool)) == 1
    started().stop()
    wait_for_spare()


def test_a_waiting_spare_costs_no_processor_time(pool: Path, first: Session) -> None:
    host, kernel = spare_of(pool, first)
    before, of_host = kernel.cpu_times(), host.cpu_times()
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 2, "time stands still")
    assert kernel.cpu_times() == before
    # It looks every few seconds whether its folder is still there.
    assert host.cpu_times().user + host.cpu_times().system - of_host.user - of_host.system <= 0.02


def test_nothing_is_left_of_spares_when_the_daemon_ends_and_kernels_live_on(pool: Path, first: Session) -> None:
    kernel = first.status().kernel_pid
    assert kernel is not None
    Client().shutdown(keep_kernels=True)
    wait_until(lambda: list(kernels(pool)) == [kernel], "the spare lives on")
    wait_until(lambda: len(folders(pool)) == 1, "its folder is left")
    assert text_of(first, "print(1)") == "1\n"
