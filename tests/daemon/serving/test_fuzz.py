"""Frames that no honest client sends: the daemon serves the others all along, and does not grow."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Any

import psutil
import pytest

from runtimed import Client, Session, default_socket_path
from runtimed.protocol.browser_operations import StartBrowser
from runtimed.protocol.execution_operations import Enqueue
from runtimed.protocol.kernel_operations import StartKernel, TrustEnvironment
from runtimed.protocol.operation import Operation
from runtimed.protocol.session_operations import ShutdownDaemon
from tests.conftest import wait_until
from tests.fuzzing import Batch, batches

WARM_UP = 5_000
"""Frames after which the daemon has all that it keeps of them."""

PATIENCE = 5.0
"""Longest time that another client may wait for an answer meanwhile, in seconds."""

GROWTH = 8 * 2**20
"""Bytes by which the daemon may grow: the document that valid edits make has a history."""

NOTEBOOKS = 20
"""How many sessions the frames may open: each is a database."""


class Harmless:
    """Tells what may be sent: nothing that ends the daemon, starts kernels or browsers, or opens ever more sessions."""

    def __init__(self) -> None:
        self._notebooks: set[str] = set()

    def __call__(self, operation: Operation[Any]) -> bool:
        if isinstance(operation, ShutdownDaemon | StartBrowser):
            return False
        kernel = operation.kernel if isinstance(operation, StartKernel | TrustEnvironment | Enqueue) else None
        if kernel is not None and kernel.env_source != "none":
            return False
        notebook = getattr(operation, "notebook_id", "fuzz")
        if len(self._notebooks) < NOTEBOOKS:
            self._notebooks.add(notebook)
        return notebook in self._notebooks


def send(batch: Batch) -> None:
    """Send all frames on a connection of their own, and read what comes until the daemon closes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(str(default_socket_path()))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(batch.data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(2**18):
                pass


class Bystander(threading.Thread):
    """Another client, which edits and reads, and notes how long it had to wait."""

    def __init__(self, session: Session) -> None:
        super().__init__(daemon=True)
        self._session = session
        self._cell_id = session.create_cell("")
        self.slowest = 0.0
        self.calls = 0
        self.error: BaseException | None = None
        self.done = threading.Event()

    def run(self) -> None:
        try:
            while not self.done.wait(0.02):
                began = time.monotonic()
                if self.calls % 20 == 0:
                    self._session.append_source(self._cell_id, ".")
                assert self._session.get_cell_source(self._cell_id) == "." * (self.calls // 20 + 1)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.calls += 1
        except BaseException as exc:  # noqa: BLE001  # the test raises it
            self.error = exc

    def __enter__(self) -> Bystander:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        # Whatever the test has come to: its daemon ends soon.
        self.done.set()
        self.join()


@pytest.mark.timeout(36_000)
def test_mutated_frames_crash_nobody_hold_up_nobody_and_leave_nothing(data_dir, request):
    wanted = request.config.getoption("--frames")
    with Session("bystander") as session:
        session.create_cell("x = 1")
        status = Client().status()
        assert status is not None
        daemon = psutil.Process(status.pid)
        began = time.monotonic()
        frames = 0
        before: tuple[int, int] | None = None
        with Bystander(session) as bystander:
            for batch in batches(1, wanted, asked_of="daemon", may_be_sent=Harmless()):
                send(batch)
                frames += len(batch.frames)
                if before is None and frames >= WARM_UP:
                    before = daemon.memory_info().rss, daemon.num_fds()
        assert bystander.error is None
        wait_until(lambda: (Client().status() or status).peers == 2, "connections are left")
        after = daemon.memory_info().rss, daemon.num_fds()

        assert before is not None
        print(
            f"{frames} frames in {time.monotonic() - began:.0f} s; {bystander.calls} calls of another client, the "
            f"slowest {bystander.slowest * 1000:.0f} ms; memory {before[0] >> 20} to {after[0] >> 20} MiB, files "
            f"{before[1]} to {after[1]}"
        )
        assert frames == wanted
        assert (Client().status() or status).pid == status.pid
        assert bystander.slowest < PATIENCE
        assert bystander.calls > wanted / 100
        assert after[0] - before[0] < GROWTH
        assert after[1] <= before[1] + 2 * NOTEBOOKS
        assert session.get_cells()[0].source == "x = 1"
        assert session.run("print('served')").stdout == "served\n"
