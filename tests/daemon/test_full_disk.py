"""The disk fills up: what is new is refused with a sentence, what goes on waits, and goes on when there is room."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from runtimed import Client, DaemonUnavailable, RuntimedError, Session, StorageError
from runtimed.storage.disk import RESERVE
from tests.conftest import lives, processes_of, wait_until
from tests.small_disk import SIZE, SmallDisk, on_a_small_disk

pytestmark = pytest.mark.slow

MIB = 2**20
LINES = 22
STILL = 2.0
"""Seconds after which nobody writes any more. Who waits for room looks for it each second."""
PRINT = f"for n in range({LINES}): print(n, 'y' * 999_990)"
PRINT_ON = "import itertools\nfor n in itertools.count(): print(n, 'y' * 999_990)"
WAIT = "import pathlib, time\nwhile not pathlib.Path('{}/release').exists(): time.sleep(0.01)\n"
SLEEP = "import time\nprint('on', flush=True)\ntime.sleep(600)"


def printed(lines: int) -> str:
    return "".join(f"{n} {'y' * 999_990}\n" for n in range(lines))


PRINTED = printed(LINES)


def daemon() -> psutil.Process:
    status = Client().status()
    assert status is not None
    return psutil.Process(status.pid)


def processes(session: Session) -> tuple[psutil.Process, psutil.Process]:
    """Of the host and of the kernel."""
    status = session.status()
    assert status.host_pid is not None
    assert status.kernel_pid is not None
    return psutil.Process(status.host_pid), psutil.Process(status.kernel_pid)


def is_dead(process: psutil.Process) -> bool:
    return not lives(process)


def log_of(disk: SmallDisk) -> str:
    return (disk.folder / "daemon.log").read_text()


def wait_until_full(disk: SmallDisk) -> None:
    """Wait until the host or the daemon has met the end of the disk, and nothing makes room there any more."""
    last_room = time.monotonic()

    def is_met() -> bool:
        hosts = [log.read_text() for log in disk.folder.glob("run/*/host.log")]
        return "they cannot be stored" in log_of(disk) or any("the spool cannot be written" in log for log in hosts)

    def is_full() -> bool:
        # What the daemon stores of it the host removes, and has room for more.
        nonlocal last_room
        if disk.free >= RESERVE:
            last_room = time.monotonic()
        return time.monotonic() - last_room > STILL

    wait_until(is_met, "everything is stored all the same")
    wait_until(is_full, "the disk is not full")


def assert_refused(disk: SmallDisk, *calls: Callable[[], object]) -> None:
    for call in calls:
        with pytest.raises(StorageError, match=r"the disk is full; free some space and try again, .* are free") as info:
            call()
        assert info.value.path.startswith(str(disk.folder))
        assert info.value.free < RESERVE


@on_a_small_disk
def test_a_cell_that_fills_the_disk_waits_and_goes_on_when_there_is_room(disk: SmallDisk) -> None:
    with Session("a") as session, Session("b") as other:
        session.run("x = 1")
        note = session.create_cell("kept")
        other.create_cell("other")
        cell_id = session.create_cell(PRINT)
        alive = [daemon(), *processes(session)]
        # So much that the log of the database gets long, and so little that it cannot be emptied.
        disk.leave(17 * MIB)
        execution_id = session.queue_cell(cell_id)
        wait_until_full(disk)

        assert_refused(
            disk,
            lambda: session.create_cell("refused"),
            lambda: session.set_source(note, "refused"),
            lambda: session.run("refused()"),
            lambda: session.queue_cell(note),
            lambda: session.set_metadata("refused", "1"),
            lambda: session.delete_cell(note),
            lambda: other.append_source(other.get_cell_ids()[0], "refused"),
            other.start_kernel,
            session.restart_kernel,
            Session("refused").connect,
        )
        outputs = session.get_cell_outputs(cell_id)
        assert outputs is not None
        assert PRINTED.startswith(outputs[0].text or "no text")
        assert [cell.source for cell in session.get_cells()] == ["x = 1", "kept", PRINT]
        assert [cell.source for cell in other.get_cells()] == ["other"]
        assert session.status().kernel_status == "busy"
        assert {each.session_id for each in Client().sessions.list()} == {"a", "b"}

        disk.make_room()
        result = session.wait(execution_id)

        assert (result.success, result.stdout) == (True, PRINTED)
        assert session.run("print(x)").stdout == "1\n"
        session.append_source(note, " and more")
        assert [cell.source for cell in session.get_cells()] == ["x = 1", "kept and more", PRINT, "print(x)"]
        assert [cell.source for cell in other.get_cells()] == ["other"]
        other.start_kernel()
        assert [daemon(), *processes(session)] == alive
        assert "Traceback" not in log_of(disk)


@on_a_small_disk
def test_a_disk_without_a_byte_left_costs_neither_processor_nor_log_and_stops_no_interrupt(disk: SmallDisk) -> None:
    with Session("a") as session, Session("b") as other:
        cell_id = session.create_cell("while True: print('y' * 999_999)")
        other.run("1")
        session.start_kernel()
        disk.leave(9 * MIB)
        execution_id = session.queue_cell(cell_id)
        wait_until_full(disk)
        disk.leave(0)
        busy, logged = daemon().cpu_times(), len(log_of(disk).splitlines())
        began = time.monotonic()
        session.interrupt()
        # The deadlines are looked at each second.
        wait_until(lambda: time.monotonic() - began > 4, "time stands still")

        now = daemon().cpu_times()
        assert now.user + now.system - busy.user - busy.system < 1.0
        assert len(log_of(disk).splitlines()) - logged < 10
        assert_refused(disk, lambda: session.create_cell("refused"), lambda: other.run("refused()"))

        disk.make_room()
        result = session.wait(execution_id)

        assert result.error is not None
        assert result.error.ename == "KeyboardInterrupt"
        assert set(result.stdout) == {"y", "\n"}
        assert other.run("print('goes on')").stdout == "goes on\n"
        assert [cell.source for cell in session.get_cells()] == ["while True: print('y' * 999_999)"]


@on_a_small_disk
def test_large_values_cancellations_and_what_is_queued_wait_for_room(disk: SmallDisk) -> None:
    show = "from IPython.display import display\ndisplay({'image/png': b'\\x89' * 4_000_000}, raw=True)"
    with Session("a") as session:
        session.start_kernel()
        disk.leave(6 * MIB)
        execution_id = session.queue_cell(session.create_cell(show))
        host, _kernel = processes(session)
        (log,) = disk.folder.glob("run/*/host.log")
        wait_until(lambda: "the spool cannot be written" in log.read_text(), "the host has stored it")
        assert list(disk.folder.glob("blobs/tmp/*")) == []
        disk.make_room()

        result = session.wait(execution_id)
        assert result.display_data[0].data == {"image/png": b"\x89" * 4_000_000}

        running = session.queue_cell(session.create_cell(SLEEP))
        waiting = session.queue_cell(session.create_cell("print('never')"))
        wait_until(lambda: session.status().kernel_status == "busy", "the cell does not begin")
        disk.leave(0)
        with pytest.raises(StorageError, match="the disk is full"):
            session.cancel(waiting)
        disk.make_room()
        session.cancel(waiting)
        session.cancel(running)
        with pytest.raises(RuntimedError, match="the client that queued it cancelled it"):
            session.wait(waiting)
        assert session.wait(running).error is not None

        # A cell ends, another one begins and fails, a third one is cancelled by that: all while nothing can be stored.
        sources = (WAIT.format(disk.folder) + "print('first')", "print('second')\n1 / 0", "print('third')")
        cells = [session.create_cell(source) for source in sources]
        first, second, third = (session.queue_cell(cell_id) for cell_id in cells)
        wait_until(lambda: session.status().kernel_status == "busy", "the cell does not begin")
        # An empty file needs no room.
        disk.leave(RESERVE // 2)
        (disk.folder / "release").touch()
        with pytest.raises(RuntimedError, match="timed out"):
            session.wait(second, timeout_secs=3)
        disk.make_room()

        assert session.wait(first).stdout == "first\n"
        failed = session.wait(second)
        assert (failed.stdout, failed.error and failed.error.ename) == ("second\n", "ZeroDivisionError")
        with pytest.raises(RuntimedError, match="queued before it failed"):
            session.wait(third)
        assert session.run("print('goes on')").stdout == "goes on\n"
        assert processes(session)[0] == host


@on_a_small_disk
def test_a_new_folder_on_a_full_disk_gets_no_daemon_but_a_sentence(disk: SmallDisk) -> None:
    disk.leave(0)
    with pytest.raises(DaemonUnavailable, match="the disk is full; free some space and try again"):
        Session("a").connect()
    wait_until(lambda: not processes_of(disk.folder), "it goes on without having started")
    disk.make_room()

    with Session("a") as session:
        assert session.run("print(1)").stdout == "1\n"


@on_a_small_disk
def test_a_daemon_that_starts_on_a_full_disk_shows_what_there_is_and_takes_over_its_hosts(disk: SmallDisk) -> None:
    with Session("a") as session, Session("closed") as closed:
        session.run("x = 41")
        closed.run("print('said')")
        closed.stop()
        closed.connect()
        cell_id = session.create_cell(PRINT)
        alive = processes(session)
        disk.leave(11 * MIB)
        execution_id = session.queue_cell(cell_id)
        wait_until_full(disk)
        disk.leave(0)
        first = daemon()
        first.kill()
        wait_until(lambda: is_dead(first), "the daemon lives")

        assert [cell.source for cell in session.get_cells()] == ["x = 41", PRINT]
        assert [cell.outputs[0].text for cell in closed.get_cells()] == ["said\n"]
        assert daemon() != first
        assert_refused(disk, lambda: session.create_cell("refused"), closed.start_kernel)
        disk.make_room()

        assert session.wait(execution_id).stdout == PRINTED
        assert session.run("print(x + 1)").stdout == "42\n"
        assert processes(session) == alive
        assert (closed.run("print('again')").stdout, closed.status().status) == ("again\n", "active")
        status = Client().status()
        assert status is not None
        assert status.problems == ()


@on_a_small_disk
def test_for_want_of_room_neither_a_session_nor_a_kernel_begins_and_both_do_later(
    disk: SmallDisk,
) -> None:
    with Session("there") as there:
        there.create_cell("there")
        for free in (0, RESERVE // 2):
            disk.leave(free)
            assert_refused(disk, Session("new").connect, lambda: Session("new").run("1"), there.start_kernel)
            assert there.status().kernel_status in ("not_started", "dead")
            assert [path for path in (disk.folder / "run").iterdir() if path.is_dir()] == []
            disk.make_room()

        there.start_kernel()
        assert there.run("print('started')").stdout == "started\n"
        with Session("new") as new:
            new.create_cell("begun")
            assert [cell.source for cell in new.get_cells()] == ["begun"]
        assert [path.name for path in disk.folder.glob("sessions/*damaged*")] == []


@on_a_small_disk
def test_what_a_dead_host_has_kept_is_stored_when_there_is_room(disk: SmallDisk) -> None:
    with Session("a") as session:
        session.start_kernel()
        execution_id = session.queue_cell(session.create_cell(f"{WAIT.format(disk.folder)}\n{PRINT_ON}"))
        wait_until(lambda: session.status().kernel_status == "busy", "the cell does not begin")
        host, kernel = processes(session)
        asleep = daemon()
        asleep.suspend()
        (disk.folder / "release").touch()
        wait_until(lambda: disk.free < 48 * MIB, "the host keeps nothing")
        disk.leave(0)
        asleep.resume()
        wait_until(lambda: "they cannot be stored" in log_of(disk), "everything is stored all the same")
        host.kill()
        wait_until(lambda: is_dead(kernel), "the kernel lives")
        wait_until(lambda: "has kept waits" in log_of(disk), "nobody looks after the dead host's events")
        spools = list(disk.folder.glob("run/*/*.events"))
        kept = sum(path.stat().st_size for path in spools)
        slow = spools[0].parent / "slow to be removed"
        slow.mkdir()
        for n in range(20_000):
            (slow / str(n)).touch()
        disk.make_room()

        result = session.wait(execution_id)
        assert printed(SIZE // 10**6 + 1).startswith(result.stdout)
        assert len(result.stdout) > kept - MIB
        assert result.error is not None
        assert result.error.ename == "KernelDied"
        assert session.status().status == "error"
        assert session.run("print('a new one')").stdout == "a new one\n"


@on_a_small_disk
def test_a_session_is_stopped_on_a_nearly_full_disk_and_its_output_is_stored_later(disk: SmallDisk) -> None:
    with Session("a") as session:
        session.start_kernel()
        disk.leave(9 * MIB)
        cell_id = session.create_cell(PRINT)
        session.queue_cell(cell_id)
        wait_until_full(disk)
        _host, kernel = processes(session)
        began = time.monotonic()
        session.stop()

        assert time.monotonic() - began < 9
        assert session.status().status == "closed"
        wait_until(lambda: is_dead(kernel), "the kernel lives")
        assert_refused(disk, session.start_kernel)
        disk.make_room()
        wait_until(lambda: not list(disk.folder.glob("run/*/host.log")), "the host does not end")
        outputs = session.get_cell_outputs(cell_id)
        assert outputs is not None
        assert PRINTED.startswith(outputs[0].text or "no text")
        assert session.run("print('again')").stdout == "again\n"


@on_a_small_disk
def test_a_log_that_is_rotated_on_a_full_disk_goes_on_later(disk: SmallDisk) -> None:
    (disk.folder / "daemon.log").write_bytes(b"x" * (MIB - 200) + b"\n")
    with Session("a") as session:
        session.create_cell("there")
        disk.leave(0)
        for number in range(20):
            assert_refused(disk, Session(f"new {number}").connect)
        pid = daemon().pid
        disk.make_room()
        session.start_kernel()
        session.stop()
        assert daemon().pid == pid
        assert "is closed (stopped)" in log_of(disk)
    assert (disk.folder / "daemon.log.1").exists()


@on_a_small_disk
def test_editors_on_a_disk_that_is_full_now_and_then_lose_nothing_that_was_acknowledged(disk: SmallDisk) -> None:
    acknowledged: list[str] = []
    refused: list[str] = []
    done = threading.Event()

    def edit() -> None:
        with Session("a") as session:
            number = 0
            while not done.is_set():
                name = f"cell {number} " + "x" * 20_000
                number += 1
                try:
                    session.create_cell(name)
                except StorageError:
                    refused.append(name)
                else:
                    acknowledged.append(name)

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        wait_until(lambda: len(acknowledged) > 10, "nothing is stored")
        for _ in range(3):
            for change, answers in ((lambda: disk.leave(0), refused), (disk.make_room, acknowledged)):
                before = len(answers)
                change()
                wait_until(lambda: len(answers) > before + 10, "nothing is answered")  # noqa: B023  # called here
    finally:
        done.set()
        editor.join()

    with Session("a") as session:
        assert [cell.source for cell in session.get_cells()] == acknowledged
        daemon().send_signal(signal.SIGKILL)
        assert [cell.source for cell in session.get_cells()] == acknowledged


@on_a_small_disk
def test_magics_and_commands_say_it_in_a_sentence(disk: SmallDisk) -> None:
    with Session("a") as session:
        session.create_cell("there")
        disk.leave(0)
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        magic = "%load_ext runtimed\nget_ipython().run_cell_magic('runtimed', 'a', 'print(1)')"
        shell = subprocess.run(
            [sys.executable, "-c", f"from IPython import start_ipython; start_ipython(['-c', {magic!r}])"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        command = subprocess.run(
            [sys.executable, "-m", "runtimed", "run", "--session", "a", "-"],
            input="print(1)",
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        disk.make_room()

    said = [line for line in (shell.stdout + shell.stderr).splitlines() if "disk is full" in line]
    assert len(said) == 1
    assert said[0].startswith("StorageError: ")
    assert "runtimed/client" not in shell.stdout + shell.stderr
    assert command.returncode != 0
    assert "the disk is full; free some space and try again" in command.stderr
    assert "Traceback" not in command.stderr
