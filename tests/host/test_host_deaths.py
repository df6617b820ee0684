"""A host that is killed takes its kernel along: whatever the kernel does, and whenever it happens."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from runtimed.daemon.hosting.local import remove_host_folder
from runtimed.errors import ConnectionLost
from runtimed.host import group, process
from runtimed.protocol.host_operations import HostRestart, HostShutdown
from runtimed.storage.spool import Spool
from tests.host.standin import Daemon, HostProcess, eventually, in_loop, is_running

LAUNCH = Path(process.__file__).parent.parent / "kernel_launcher" / "launch.py"

IGNORES = """
import ctypes, signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(child.pid, flush=True)
while True:
    ctypes.PyDLL(None).sleep(1000)  # with the GIL held
"""


def processes_of(host: HostProcess) -> list[psutil.Process]:
    """The host, its guard and its kernel's processes: those with its folder on their command line, and children."""
    found: dict[int, psutil.Process] = {}
    for running in psutil.process_iter():
        try:
            if str(host.folder) in " ".join(running.cmdline()) or running.pid == host.process.pid:
                found |= {one.pid: one for one in (running, *running.children(recursive=True))}
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return list(found.values())


def guards_of(host: HostProcess) -> list[psutil.Process]:
    children = psutil.Process(host.process.pid).children()
    return [child for child in children if child.name() in {"sh", "dash", "bash"}]


async def all_die(processes: list[psutil.Process]) -> None:
    await eventually(lambda: not any(is_running(one.pid) for one in processes), 5)


async def kill_at_some_moment(host: HostProcess, moment: float) -> None:
    """Kill a host; everything that belongs to it dies."""
    await asyncio.sleep(moment)
    everybody = processes_of(host)
    host.process.kill()
    await all_die(everybody)
    await eventually(lambda: not processes_of(host), 5)


async def next_guard(host: HostProcess, after: int) -> psutil.Process:
    await eventually(lambda: [guard.pid for guard in guards_of(host)] not in ([], [after]))
    (guard,) = guards_of(host)
    return guard


@in_loop
async def test_a_kernel_that_ignores_signals_and_holds_the_gil_dies_with_its_children(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    execution_id = await daemon.start(IGNORES)
    await daemon.until(lambda: daemon.text(execution_id))
    everybody = processes_of(host)
    assert int(daemon.text(execution_id)) in {one.pid for one in everybody}
    host.process.kill()
    await all_die(everybody)


@in_loop
async def test_a_stopped_kernel_dies(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    state = await daemon.state("idle")
    assert state.pid is not None
    everybody = processes_of(host)
    os.killpg(state.pid, signal.SIGSTOP)
    host.process.kill()
    await all_die(everybody)


@in_loop
async def test_a_stopped_kernel_can_be_shut_down(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    state = await daemon.state("idle")
    assert state.pid is not None
    os.killpg(state.pid, signal.SIGSTOP)
    await daemon.ask(HostShutdown())
    assert (await daemon.state("dead")).signal == signal.SIGKILL
    assert await host.ended(10) == 0


@in_loop
async def test_a_guard_that_was_killed_is_replaced_at_once(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    await daemon.run("import subprocess; subprocess.Popen(['sleep', '1000'])")
    (guard,) = guards_of(host)
    for _ in range(2):  # the second one has lived for a moment only
        guard.kill()
        guard = await next_guard(host, after=guard.pid)
    everybody = processes_of(host)
    host.process.kill()
    await all_die(everybody)


@pytest.mark.skipif(sys.platform != "linux", reason="only the guard can tell, elsewhere")
@in_loop
async def test_a_kernel_dies_even_when_host_and_guard_die_together(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    execution_id = await daemon.start(IGNORES)
    await daemon.until(lambda: daemon.text(execution_id))
    child = int(daemon.text(execution_id))
    everybody = processes_of(host)
    host.process.send_signal(signal.SIGSTOP)  # so that it cannot replace the guard
    for guard in guards_of(host):
        guard.kill()
    host.process.kill()
    await all_die([one for one in everybody if one.pid != child])
    assert is_running(child)  # for children there is the guard alone, and whoever buries the host
    remove_host_folder(host.folder)
    await all_die(everybody)


def test_a_group_is_ended_only_if_it_is_the_one_that_was_noted(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(["/bin/sh", "-c", "sleep 1000 & exec sleep 1000"], start_new_session=True)

    with start() as noted, start() as other:
        group.note_group(tmp_path, noted.pid)
        number, boot, started = (tmp_path / "group").read_text().split()
        for record in (f"{other.pid} {boot} {started}", f"{number} another-boot {started}", f"{number} {boot}", ""):
            (tmp_path / "group").write_text(record)
            if record.startswith(str(other.pid)):
                (tmp_path / "group").write_text(f"{other.pid} {boot} {int(started) - 1}")
            group.end_group(tmp_path)
            assert noted.poll() is other.poll() is None
        (tmp_path / "group").write_text(f"{number} {boot} {started}")
        group.end_group(tmp_path)
        assert noted.wait(10) == -signal.SIGKILL
        assert other.poll() is None
        group.forget_group(tmp_path)
        group.end_group(tmp_path)
        os.killpg(other.pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="only the guard can tell, elsewhere")
def test_a_kernel_whose_host_died_before_it_began_does_not_begin(root: Path) -> None:
    """The moment between fork and the first word to the guard: the kernel finds another parent than its host."""
    environment = {**os.environ, "JPY_PARENT_PID": str(2**22 + 1)}
    arguments = [sys.executable, str(LAUNCH), "-f", str(root / "kernel.json")]
    done = subprocess.run(arguments, env=environment, start_new_session=True, timeout=60, check=False)
    assert done.returncode == 1
    assert not (root / "kernel.json").exists()


@in_loop
async def test_no_moment_of_a_start_is_a_bad_one_to_be_killed(start_host: Callable[..., HostProcess]) -> None:
    moments = random.Random(7)
    for _ in range(6):
        await kill_at_some_moment(start_host(), moments.uniform(0.0, 0.8))


@in_loop
async def test_no_moment_of_a_restart_is_a_bad_one_to_be_killed(start_host: Callable[..., HostProcess]) -> None:
    moments = random.Random(7)
    for _ in range(3):
        host = start_host()
        daemon = await Daemon(acknowledges=False).attach(host)
        await daemon.run("import os, time\nif not os.fork():\n    time.sleep(1000)")
        restarting = daemon.request(HostRestart())
        await kill_at_some_moment(host, moments.uniform(0.0, 1.0))
        await asyncio.wait({restarting}, timeout=30)
        assert restarting.done()
        assert restarting.exception() is None or isinstance(restarting.exception(), ConnectionLost)
        # Everything that was sent is in the spool, each number once and in order.
        host.end()
        numbers = [n for n, _ in Spool.read_dead(host.folder, 0)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert daemon.numbers == numbers[: len(daemon.numbers)]
