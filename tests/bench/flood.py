"""What a session that floods costs the others, and the memory of the daemon.

A flood keeps four processes busy (kernel, host, daemon, follower), and with them the processors, whatever a daemon
does. So each kind of flood is measured twice: in the daemon whose other session makes the calls, and in a daemon of its
own on the same machine. All kinds take turns in short windows, and a ratio is always that of neighbouring windows.
"""

import contextlib
import fcntl
import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from runtimed import Session, default_socket_path
from runtimed.client.identity import Identity
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Stream
from runtimed.protocol.execution_operations import Watch
from runtimed.protocol.messages import EventFrame, Reply, Request, Welcome
from runtimed.transport.autostart import connect_socket
from tests.bench.tools import Peak, Row, daemon, host, own_daemon, quantile, seconds
from tests.wire import Wire

ROUNDS = 8
WINDOW = 2.5
"""Seconds of one kind of work, from which the first third of a second is not counted."""

QUIET = "import time; time.sleep(SECONDS)"
KINDS = {
    "spins and prints nothing": "pass",
    "prints 1 MB at a time": "print('y' * 1_000_000)",
    "prints lines, each flushed": "print('one line', flush=True)",
    "updates a display": "shown.update(time.time())",
}
LOOP = """
import time
from IPython.display import display
shown = display(0, display_id=True)
end = time.time() + SECONDS
while time.time() < end: """

READER = """
import sys, runtimed
session = runtimed.Session(sys.argv[1])
session.connect()
events = session.subscribe()
print("ready", flush=True)
for event in events: pass
"""
SLEEPER = READER.replace("for event in events: pass", "next(events); sys.stdin.read()")


@dataclass
class Kind:
    """One kind of work of the first session, and what the calls of the second one took meanwhile."""

    name: str
    session: Session
    cell_id: str
    shared: bool
    windows: list[dict[str, list[float]]] = field(default_factory=list)

    def medians(self, call: str) -> list[float]:
        return [statistics.median(window[call]) for window in self.windows]


def flood() -> Iterator[Row]:
    """Calls of one session while another one floods, with a follower that reads and one that does not."""
    with contextlib.ExitStack() as stack:
        quiet = stack.enter_context(Session())
        cell_id = quiet.create_cell("x = 1\n" * 30)
        calls: dict[str, Callable[[], object]] = {
            "get_cell": lambda: quiet.get_cell(cell_id),
            "create_cell": lambda: quiet.create_cell("y"),
            "run": lambda: quiet.run("1+1"),
        }
        shared = stack.enter_context(_flooder())
        here = os.environ["RUNTIMED_DATA_DIR"]
        stack.enter_context(own_daemon())
        apart = stack.enter_context(_flooder())
        flooded = daemon()
        idle = flooded.memory_info().rss / 2**20
        os.environ["RUNTIMED_DATA_DIR"] = here
        kinds = [Kind("quiet", shared, _cell(shared, QUIET), shared=True)]
        for name, statement in KINDS.items():
            sessions = [shared] if statement == "pass" else [shared, apart]
            kinds += [Kind(name, each, _cell(each, LOOP + statement), shared=each is shared) for each in sessions]
        for call in calls.values():
            for _ in range(20):
                call()
        with Peak(flooded) as peak:
            for _ in range(ROUNDS):
                for kind in kinds:
                    kind.windows.append(_window(kind, calls))
    yield from _rows(kinds, list(calls))
    memory = f"{idle:.0f} MiB / {peak.mebibytes[0]:.0f} MiB"
    yield "… memory of a daemon that has such a session alone, before / at most", memory


def _rows(kinds: list[Kind], calls: list[str]) -> Iterator[Row]:
    quiet, *others = kinds
    names = ", ".join(f"`{call}`" for call in calls)
    times = [[time for window in quiet.windows for time in window[call]] for call in calls]
    yield f"{names} while no other session does anything, p50", _list(statistics.median(each) * 1e3 for each in times)
    yield "… p99, in ms as well", _list(quantile(each, 99) * 1e3 for each in times)
    for kind in others:
        ratios = [
            statistics.median(one / other for one, other in zip(kind.medians(call), quiet.medians(call), strict=True))
            for call in calls
        ]
        where = "" if kind.shared else ", in a daemon of its own"
        yield f"… while one {kind.name}{where}: p50 / that of the quiet", _list(ratios)
        if kind.shared:
            times = [[time for window in kind.windows for time in window[call]] for call in calls]
            yield "… p99 in ms", _list(quantile(each, 99) * 1e3 for each in times)


def _list(numbers: Iterator[float] | list[float]) -> str:
    return ", ".join(f"{number:.2f}" for number in numbers)


def _cell(session: Session, source: str) -> str:
    return session.create_cell(source.replace("SECONDS", str(WINDOW)))


@contextlib.contextmanager
def _flooder() -> Iterator[Session]:
    """A session with a kernel, one client that reads all its events, and one that reads none."""
    with Session() as session, contextlib.ExitStack() as stack:
        session.start_kernel()
        for code in (READER, SLEEPER):
            follower = subprocess.Popen(
                [sys.executable, "-c", code, session.notebook_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            stack.callback(follower.communicate)
            stack.callback(follower.kill)
            assert follower.stdout is not None
            assert follower.stdout.readline() == b"ready\n"
        yield session


def _window(kind: Kind, calls: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Let one kind of work go on and measure the calls meanwhile; return when all of it is over."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    kind.session.queue_cell(kind.cell_id)
    time.sleep(WINDOW / 8)
    while time.perf_counter() - began < WINDOW * 7 / 8:
        for name, call in calls.items():
            times[name].append(seconds(call))
    # Behind all that it has printed, and until the followers have caught up with it.
    kind.session.run("pass", timeout_secs=None)
    while any(process.cpu_percent(0.05) > 10 for process in psutil.Process().children()):
        pass
    return times


def late() -> Iterator[Row]:
    """A daemon that finds a host with 1 GB of output, while others want something of it."""
    pieces = 1000
    with Session("late") as session, Session() as other:
        cell_id = other.create_cell("x = 1\n" * 30)
        code = f"for n in range({pieces}): print(f'{{n:06}}' + 'y' * 999_993)"
        session.start_kernel()
        spool = _spool_of(session)
        with _no_daemon_starts():
            execution_id = session.queue_cell(session.create_cell(code))
            daemon().kill()
            while _size(spool) < pieces * 10**6:
                time.sleep(0.05)
        other.get_cell(cell_id)
        process, waits = daemon(), list[float]()
        with Peak(process, host(session)) as peak:
            began = time.perf_counter()
            while _size(spool) > 2**23:
                waits.append(seconds(lambda: other.get_cell(cell_id)))
                time.sleep(0.005)
            took = time.perf_counter() - began
            with Peak(process) as reading:
                received = _digest("late", execution_id)
        expected = hashlib.sha256()
        for n in range(pieces):
            expected.update(f"{n:06}{'y' * 999_993}\n".encode())
        assert received == expected.hexdigest()
        session.stop()
    yield "A daemon finds a host with 1 GB of output, and stores it while it is asked for other things", f"{took:.1f} s"
    yield (
        "… `get_cell` of another session meanwhile, p50 / p99",
        f"{quantile(waits, 50) * 1e3:.2f} ms / {quantile(waits, 99) * 1e3:.1f} ms",
    )
    memory = max(peak.mebibytes[0], reading.mebibytes[0])
    yield "… peak memory of daemon / host", f"{memory:.0f} MiB / {peak.mebibytes[1]:.0f} MiB"


def _size(spool: Path) -> int:
    size = 0
    for path in spool.glob("*.events"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _spool_of(session: Session) -> Path:
    """The folder of a session's host, which works with `-m runtimed.host` and holds its lock open."""
    return Path(next(each.path for each in host(session).open_files() if each.path.endswith("/host.log"))).parent


@contextlib.contextmanager
def _no_daemon_starts() -> Iterator[None]:
    """Hold what whoever starts a daemon needs: a host that has lost its daemon would start one at once."""
    with default_socket_path().with_suffix(".start").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _digest(notebook_id: str, execution_id: str) -> str:
    """The SHA-256 of what an execution printed, received piece by piece."""
    sock = connect_socket(default_socket_path())
    assert sock is not None
    channel, digest = Wire(sock), hashlib.sha256()
    channel.send(Identity(None).hello())
    assert isinstance(channel.receive(time.monotonic() + 120), Welcome)
    channel.send(Request(1, Watch(notebook_id=notebook_id, execution_id=execution_id, whole=True)))
    while not isinstance(message := channel.receive(time.monotonic() + 120), Reply):
        assert isinstance(message, EventFrame)
        event = decode_event(message.event)
        if isinstance(event, Stream):
            digest.update(event.text.encode())
    channel.close()
    return digest.hexdigest()
