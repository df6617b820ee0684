"""What strikes in a round: real processes are killed, ended, stopped for a while, or lose their connections."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from runtimed import Client, RuntimedError, SessionStatus, default_socket_path
from runtimed.daemon.rooms.worker import WORKER
from runtimed.protocol.host_operations import Attach
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello, Reply, Request
from tests.conftest import command_of, processes_of
from tests.wire import Wire

__all__ = ["FAULTS", "Target", "fault_of", "kill", "kill_daemons"]


@dataclass
class Target:
    """What there is to strike.

    Attributes:
        folder: The data folder.
        name: The session.
        client: The process of the other client.
        numbers: Decides what is left to chance.
        struck_workers: How often something was struck while a process worked on a document.
    """

    folder: Path
    name: str
    client: subprocess.Popen[str] | None
    numbers: random.Random
    struck_workers: int = 0

    def status(self) -> SessionStatus | None:
        """The session's state, if there is somebody to say."""
        with contextlib.suppress(RuntimedError):
            return Client().sessions.get(self.name)
        return None

    def pid(self, who: str) -> int | None:
        """The process of the daemon, the host, the kernel or the client."""
        if who == "client":
            return None if self.client is None else self.client.pid
        if who == "daemon":
            return next(iter(daemons(self.folder)), None)
        status = self.status()
        return None if status is None else status.host_pid if who == "host" else status.kernel_pid

    def pause(self, longest: float) -> None:
        """Let some time pass."""
        time.sleep(self.numbers.random() * longest)


def daemons(folder: Path) -> list[int]:
    """The processes that are the daemon of a folder, or are about to become it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "runtimed.daemon" in process.cmdline() and process.environ().get("RUNTIMED_DATA_DIR") == str(folder):
                found.append(process.pid)
    return found


def kill(pid: int | None, number: int = signal.SIGKILL) -> None:
    """Send a signal, if there is anybody to get it."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_daemons(folder: Path) -> None:
    """Kill the daemon, even one that only begins."""
    for pid in daemons(folder):
        kill(pid)


# --- the faults -------------------------------------------------------------------------------------------------------


def _nothing(target: Target) -> None:
    """The round itself must be right."""


def _daemon(target: Target) -> None:
    kill_daemons(target.folder)


def _daemon_thrice(target: Target) -> None:
    """The later ones strike while the daemon starts, or takes over the hosts."""
    for _ in range(3):
        kill_daemons(target.folder)
        target.pause(0.5)


def _daemon_ends(target: Target) -> None:
    kill(target.pid("daemon"), signal.SIGTERM)


def _daemon_stopped_and_killed(target: Target) -> None:
    pid = target.pid("daemon")
    kill(pid, signal.SIGSTOP)
    target.pause(1.0)
    kill(pid)


def _daemon_beside_its_worker(target: Target) -> None:
    """Each dies while a process works on a document: reads the notebook from it, or writes what was edited into it."""
    for _ in range(3):
        if _worker_begins(target):
            kill_daemons(target.folder)


def _worker(target: Target) -> None:
    """That process itself dies."""
    for _ in range(3):
        if _worker_begins(target):
            for process in _workers(target.folder):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def _worker_begins(target: Target) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if _workers(target.folder):
            target.struck_workers += 1
            return True
        time.sleep(0.005)
    return False


def _workers(folder: Path) -> list[psutil.Process]:
    return [process for process in processes_of(folder) if WORKER[-1] in command_of(process)]


def _restart(target: Target) -> None:
    """An upgrade: the daemon is replaced under waiting clients and running kernels."""
    subprocess.run([sys.executable, "-m", "runtimed", "restart"], stdout=subprocess.DEVNULL, timeout=60, check=True)


def _host(target: Target) -> None:
    kill(target.pid("host"))


def _host_ends(target: Target) -> None:
    kill(target.pid("host"), signal.SIGTERM)


def _host_stopped_and_killed(target: Target) -> None:
    pid = target.pid("host")
    kill(pid, signal.SIGSTOP)
    target.pause(0.5)
    kill(pid)


def _kernel(target: Target) -> None:
    kill(target.pid("kernel"))


def _client(target: Target) -> None:
    kill(target.pid("client"))


def _daemon_and_client(target: Target) -> None:
    kill(target.pid("client"))
    kill_daemons(target.folder)


def _daemon_and_host(target: Target) -> None:
    pids = [target.pid("host"), target.pid("daemon")]
    target.numbers.shuffle(pids)
    for pid in pids:
        kill(pid)


def _daemon_and_kernel(target: Target) -> None:
    pids = [target.pid("kernel"), target.pid("daemon")]
    target.numbers.shuffle(pids)
    for pid in pids:
        kill(pid)
        target.pause(0.005)


def _paused(target: Target) -> None:
    """The lid of the laptop is closed on one process."""
    pid = target.pid(target.numbers.choice(["daemon", "host", "kernel", "client"]))
    kill(pid, signal.SIGSTOP)
    target.pause(1.5)
    kill(pid, signal.SIGCONT)


def _paused_while_the_daemon_dies(target: Target) -> None:
    """A process that was stopped finds another daemon when it wakes."""
    pid = target.pid(target.numbers.choice(["host", "client"]))
    kill(pid, signal.SIGSTOP)
    kill_daemons(target.folder)
    target.pause(1.5)
    kill(pid, signal.SIGCONT)


def _cut(target: Target) -> None:
    """This process's connections to the daemon break, all or some of them."""
    path, share = str(default_socket_path()), target.numbers.choice([0.5, 1.0])
    for fd in [int(path.name) for path in Path("/dev/fd").iterdir()]:
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                with socket.socket(fileno=os.dup(fd)) as sock:
                    if sock.getpeername() == path and target.numbers.random() <= share:
                        sock.shutdown(socket.SHUT_RDWR)


def _stolen(target: Target) -> None:
    """The connection between daemon and host breaks: the host gives its events to whoever attached itself last."""
    for _ in range(target.numbers.randint(1, 3)):
        for path in target.folder.glob("run/*/host.sock"):
            with contextlib.suppress(OSError, RuntimedError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                channel = Wire(sock)
                channel.send(Hello(PROTOCOL_VERSION, "0", "thief", None, os.getpid()))
                channel.send(Request(1, Attach(after=0)))
                deadline = time.monotonic() + 5
                while not isinstance(channel.receive(deadline), Reply):
                    pass
                target.pause(0.05)
        target.pause(0.2)


@dataclass(frozen=True)
class Fault:
    """One way to strike.

    Attributes:
        ends_kernel: Whether the kernel, and so what runs, ends with it.
        at_start: Whether it strikes while the kernel is being started.
        is_large: Whether the notebook has to take a second to load.
    """

    name: str
    strike: Callable[[Target], None]
    ends_kernel: bool = False
    at_start: bool = False
    is_large: bool = False


FAULTS: Final = (
    Fault("nothing", _nothing),
    Fault("daemon", _daemon),
    Fault("daemon three times", _daemon_thrice),
    Fault("daemon beside its worker", _daemon_beside_its_worker, is_large=True),
    Fault("worker", _worker),
    Fault("daemon ends", _daemon_ends),
    Fault("daemon stopped and killed", _daemon_stopped_and_killed),
    Fault("daemon while a kernel starts", _daemon, at_start=True),
    Fault("daemon three times while a kernel starts", _daemon_thrice, at_start=True),
    Fault("restart", _restart),
    Fault("client", _client),
    Fault("daemon and client", _daemon_and_client),
    Fault("host", _host, ends_kernel=True),
    Fault("host ends", _host_ends, ends_kernel=True),
    Fault("host stopped and killed", _host_stopped_and_killed, ends_kernel=True),
    Fault("kernel", _kernel, ends_kernel=True),
    Fault("daemon and host", _daemon_and_host, ends_kernel=True),
    Fault("daemon and kernel", _daemon_and_kernel, ends_kernel=True),
    Fault("paused", _paused),
    Fault("paused while the daemon dies", _paused_while_the_daemon_dies),
    Fault("cut", _cut),
    Fault("stolen", _stolen),
)


def fault_of(seed: int) -> Fault:
    """The fault of a round; a row of seeds goes through all of them."""
    return FAULTS[seed % len(FAULTS)]
