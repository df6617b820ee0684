"""One round: clients edit and execute, a random process is killed or a socket cut, all recovers, and all is checked.

Everything random comes from the seed; what the seed cannot fix is the moment at which an operating system acts on it.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from runtimed import Client, ExecutionCancelled, NoKernel, RuntimedError, Session
from tests.conftest import wait_until

LINES = 40

CODE = """
import os, time
with open({witness!r}, "a") as witness:
    witness.write({name!r} + "\\n")
for n in range({lines}):
    print({name!r}, n, flush=True)
    time.sleep(0.005)
"""

KILLABLE = ["daemon", "daemon", "daemon twice", "host", "kernel", "client", "cut", "daemon and client", "nothing"]

CLIENT = """
import sys, runtimed
session = runtimed.Session(sys.argv[1])
session.connect()
for name in sys.argv[3:]:
    cell_id = session.create_cell(sys.stdin.readline().encode().decode("unicode_escape"))
    print("queued", name, cell_id, session.queue_cell(cell_id), flush=True)
for n in range(1000):
    session.append_source(sys.argv[2], f"<{n}>")
    print("appended", n, flush=True)
"""


@dataclass
class Round:
    """What was done and acknowledged in one round, for the checks."""

    seed: int
    folder: Path
    fault: str = ""
    queued: dict[str, tuple[str, str]] = field(default_factory=dict)
    appended: int = -1
    edits: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def check(self, fact: object, problem: str) -> None:
        """Note a problem unless the fact holds."""
        if not fact:
            self.problems.append(f"seed {self.seed} ({self.fault}): {problem}")


def run_round(seed: int, folder: Path) -> list[str]:
    """Run one round in the data folder of a daemon; return what was wrong, nothing if all was right."""
    numbers = random.Random(seed)
    this = Round(seed, folder, fault=numbers.choice(KILLABLE))
    name = f"faults {seed}"
    witness = folder / f"witness-{seed}"
    with Session(name) as session:
        session.start_kernel()
        target = session.create_cell("", "markdown")
        names = [f"theirs{seed}x{n}" for n in range(2)]
        client = _client(name, target, names, witness)
        reader = threading.Thread(target=_read_acknowledgements, args=(client, this))
        reader.start()
        hit = threading.Thread(target=_strike, args=(this, session, client, numbers))
        hit.start()
        try:
            _work(this, session, witness, numbers)
        finally:
            hit.join()
            client.kill()
            client.communicate()
            reader.join()
        _check_round(this, session, target, witness)
        session.stop()
    return this.problems


def _client(name: str, target: str, names: list[str], witness: Path) -> "subprocess.Popen[str]":
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, name, target, *names],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert client.stdin is not None
    for each in names:
        code = CODE.format(witness=str(witness), name=each, lines=LINES)
        client.stdin.write(code.encode("unicode_escape").decode() + "\n")
    client.stdin.flush()
    return client


def _read_acknowledgements(client: "subprocess.Popen[str]", this: Round) -> None:
    assert client.stdout is not None
    with contextlib.suppress(ValueError):
        for line in client.stdout:
            match line.split():
                case ["queued", name, cell_id, execution_id]:
                    this.queued[name] = cell_id, execution_id
                case ["appended", number]:
                    this.appended = int(number)


def _work(this: Round, session: Session, witness: Path, numbers: random.Random) -> None:
    """The part of the client that lives in this process: it queues cells and edits through whatever happens."""
    for n in range(3):
        name = f"ours{this.seed}x{n}"
        cell_id = session.create_cell(CODE.format(witness=str(witness), name=name, lines=LINES))
        with contextlib.suppress(NoKernel):
            this.queued[name] = cell_id, session.queue_cell(cell_id)
        for edit in range(numbers.randint(100, 200)):
            note = session.create_cell(f"note {n} {edit}", "raw")
            session.append_source(note, " kept")
            this.edits.append(note)
        time.sleep(numbers.random() * 0.2)


def _strike(this: Round, session: Session, client: "subprocess.Popen[str]", numbers: random.Random) -> None:
    deadline = time.monotonic() + 10
    while this.appended < 0 and time.monotonic() < deadline:
        time.sleep(0.01)  # until the other client is at work, too
    time.sleep(numbers.random() * 0.6)
    match this.fault:
        case "daemon" | "daemon twice":
            _kill_daemon()
            if this.fault == "daemon twice":
                time.sleep(numbers.random() * 0.3)
                _kill_daemon()
        case "host" | "kernel":
            status = _status(session)
            pid = status.host_pid if this.fault == "host" else status.kernel_pid
            if pid is not None:
                _kill(pid)
        case "client":
            client.kill()
        case "cut":
            channel = session._connection._channel
            if channel is not None and channel.is_open:
                with contextlib.suppress(OSError):
                    channel._sock.shutdown(2)
        case "daemon and client":
            client.kill()
            _kill_daemon()


def _status(session: Session):
    return Client().sessions.get(session.notebook_id)


def _kill_daemon() -> None:
    with contextlib.suppress(RuntimedError):
        status = Client().status()
        if status is not None:
            _kill(status.pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _check_round(this: Round, session: Session, target: str, witness: Path) -> None:
    host_lived = this.fault not in ("host", "kernel")
    ran = witness.read_text().splitlines() if witness.exists() else []
    for name, (cell_id, execution_id) in sorted(this.queued.items()):
        try:
            result = session.wait(execution_id, timeout_secs=60)
        except ExecutionCancelled:
            this.check(not host_lived, f"{name} was cancelled")
            this.check(name not in ran, f"{name} was cancelled and ran")
            continue
        ran = witness.read_text().splitlines() if witness.exists() else []
        times = ran.count(name)
        this.check(times <= 1, f"{name} ran {times} times")
        numbered = [line for line in result.stdout.splitlines() if line]
        expected = [f"{name} {n}" for n in range(LINES)]
        this.check(numbered == expected[: len(numbered)], f"{name}: lines are missing or doubled: {numbered}")
        if host_lived:
            this.check(times == 1, f"{name} was acknowledged and ran {times} times")
            this.check(result.success, f"{name} did not succeed: {result.outputs[-1:]}")
            this.check(numbered == expected, f"{name}: {len(numbered)} of {LINES} lines")
        else:
            # A kernel may be killed between a cell's last line and its end: all lines, and still no success.
            this.check(not result.success or numbered == expected, f"{name}: it succeeded without all its lines")
        this.check(session.get_cell(cell_id).outputs == result.outputs, f"{name}: its cell shows something else")
    for line in ran:
        this.check(ran.count(line) == 1, f"{line} ran twice")
    source = session.get_cell_source(target) or ""
    tokens = [f"<{n}>" for n in range(source.count("<"))]
    this.check(source == "".join(tokens), f"appended pieces are missing, doubled or out of order: {source}")
    this.check(len(tokens) > this.appended, f"{this.appended + 1} pieces were acknowledged, {len(tokens)} are there")
    for note in this.edits:
        text = session.get_cell_source(note)
        this.check(text is not None and text.endswith(" kept"), f"an acknowledged edit is lost: {text!r}")
    ids = session.get_cell_ids()
    this.check(len(ids) == len(set(ids)), "a cell is there twice")
    if not host_lived:
        wait_until(lambda: _status(session).status in ("error", "active"), "no state")


def leftovers(folder: Path, processes: Callable[[Path], list[psutil.Process]]) -> Iterator[str]:
    """Say what a data folder and its daemon left behind after a shutdown."""
    for process in processes(folder):
        yield f"process {process.pid} lives on: {process.cmdline()}"
    for path in (folder / "run").iterdir():
        if path.is_dir():
            yield f"the folder of a host is left: {path}"
