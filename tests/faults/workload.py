"""What goes on in a session while something dies: clients that edit, queue, run, stream, subscribe, and wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from runtimed import AsyncSession, ExecutionEvent, ExecutionResult, NoKernel, Session

LINES = 25

PACE = 0.005
"""Seconds between two edits of one client: it is to be at work when something strikes, not to do as much as it can."""

CODE = """
import time
with open({witness!r}, "a") as witness:
    witness.write({name!r} + "\\n")
for n in range({lines}):
    print({name!r}, n, flush=True)
    time.sleep(0.004)
"""

SHOW_LARGE = """
from IPython.display import display
_ = display({{"text/plain": "shown", "text/x-large": {name!r} * 150_000}}, raw=True, display_id={name!r})
"""

UPDATE_LARGE = """
_ = display({{"text/plain": "updated", "text/x-large": {shown!r} * 100_000 + "!"}}, raw=True, display_id={shown!r},
            update=True)
"""

CLIENT = """
import itertools, sys, time, runtimed
session = runtimed.Session(sys.argv[1])
session.connect()
for name in sys.argv[3:]:
    cell_id = session.create_cell(sys.stdin.readline().encode().decode("unicode_escape"))
    print("queued", name, cell_id, session.queue_cell(cell_id), flush=True)
for n in itertools.count():
    session.append_source(sys.argv[2], f"<{{n}}>")
    print("appended", n, flush=True)
    time.sleep({pace})
"""


@dataclass
class Seen:
    """What a client that waited through the fault saw of one execution.

    Attributes:
        kind: How it waited.
        name: Names the execution: it is in each of its lines.
        text: All that was printed, as the client got it.
        success: Whether the client was told that it succeeded.
        error: What the client got instead of an end.
        events: The types of its events that are no output, if it got events.
        execution_id: Of the execution, if the client was told.
    """

    kind: str
    name: str
    text: str = ""
    success: bool = False
    error: Exception | None = None
    events: list[str] = field(default_factory=list)
    execution_id: str | None = None

    def take_result(self, result: ExecutionResult) -> None:
        self.text, self.success, self.execution_id = result.stdout, result.success, result.execution_id

    def take_event(self, event: ExecutionEvent) -> None:
        self.execution_id = event.execution_id
        if event.event_type != "output":
            self.events.append(event.event_type)
            self.success = event.event_type == "done"
        elif event.output is not None and event.output.name == "stdout":
            self.text += event.output.text or ""


class Workload:
    """The clients of one round, and what was acknowledged to them.

    Attributes:
        queued: By name, the cells and executions whose queueing was acknowledged.
        appended: The last piece whose appending the other process was told of.
        notes: Cells whose creation and edit were acknowledged.
        seen: What each waiting client saw.
        heard: By execution, what the subscriber got.
        large: Names of the executions that show a large value, and that update it.
    """

    def __init__(self, seed: int, name: str, witness: Path, shell: Shell) -> None:
        self.seed = seed
        self.name = name
        self.witness = witness
        self.queued: dict[str, tuple[str, str]] = {}
        self.appended = -1
        self.notes: list[str] = []
        self.seen: list[Seen] = []
        self.heard: dict[str, Seen] = {}
        self.large = (f"ours{seed}x0", f"ours{seed}x2")
        self.target = ""
        self._shell = shell
        self._curtain = ""
        self._threads: list[threading.Thread] = []
        self._sessions: list[Session] = []
        self.client: subprocess.Popen[str] | None = None

    def code(self, name: str) -> str:
        code = CODE.format(witness=str(self.witness), name=name, lines=LINES)
        first, last = self.large
        if name == first:
            code += SHOW_LARGE.format(name=first)
        if name == last:
            code += UPDATE_LARGE.format(shown=first)
        return code

    def lines(self, name: str) -> list[str]:
        """What an execution prints if it ends well."""
        return [f"{name} {n}" for n in range(LINES)]

    def ran(self) -> list[str]:
        """The names of the executions whose code really ran, one for each time that it did."""
        return self.witness.read_text().splitlines() if self.witness.exists() else []

    # --- clients that wait ---

    def begin(self, session: Session) -> None:
        """Let all the others begin; they go on by themselves through whatever happens."""
        self.target = session.create_cell("", "markdown")
        # Whoever subscribes before the others begin hears all of them.
        self._watch(session.subscribe(event_types=["execution_started", "output", "done", "error", "cell_changed"]))
        self._begin_client()
        for kind, wait in (("run", self._run), ("stream_execute", self._stream)):
            own = Session(self.name)
            own.connect()
            self._sessions.append(own)
            self._wait(kind, wait, own)
        self._go(self._wait_with_asyncio)
        self._wait("%%runtimed", self._run_magic)

    def work(self, session: Session, numbers: random.Random) -> None:
        """Queue cells and edit, as the client that lives in this thread."""
        for n in range(3):
            name = f"ours{self.seed}x{n}"
            cell_id = session.create_cell(self.code(name))
            with contextlib.suppress(NoKernel):
                self.queued[name] = cell_id, session.queue_cell(cell_id)
            for edit in range(numbers.randint(20, 60)):
                note = session.create_cell(f"note {n} {edit}", "raw")
                session.append_source(note, " kept")
                self.notes.append(note)
                time.sleep(2 * PACE)

    def end(self, session: Session) -> None:
        """Wait until everybody has got all they wait for."""
        assert self.client is not None
        self.client.kill()
        self.client.communicate()
        subscriber, *others = self._threads
        for thread in others:
            thread.join()
        for name, (_cell_id, execution_id) in self.queued.items():
            with contextlib.suppress(Exception):  # the checks wait again, and tell
                session.wait(execution_id, timeout_secs=60)
            self.heard.setdefault(execution_id, Seen("subscribe", name))
        self._curtain = session.create_cell("", "raw")
        # The subscriber may have heard of the cell before this thread did: it hears of it once more.
        session.append_source(self._curtain, "the end")
        subscriber.join()
        for own in self._sessions:
            own.close()

    def _go(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        thread.start()
        self._threads.append(thread)

    def _wait(self, kind: str, work: Callable[..., None], *arguments: Any) -> None:
        seen = Seen(kind, f"{kind.strip('%')}{self.seed}")
        self.seen.append(seen)

        def wait() -> None:
            try:
                work(seen, *arguments)
            except Exception as exc:  # noqa: BLE001  # the checks say which ones may be
                seen.error = exc

        self._go(wait)

    def _run(self, seen: Seen, session: Session) -> None:
        seen.take_result(session.run(self.code(seen.name)))

    def _stream(self, seen: Seen, session: Session) -> None:
        for event in session.stream_execute(session.create_cell(self.code(seen.name))):
            seen.take_event(event)

    def _wait_with_asyncio(self) -> None:
        run, stream = (Seen(f"async {kind}", f"async_{kind}{self.seed}") for kind in ("run", "stream_execute"))
        self.seen += [run, stream]

        async def follow(session: AsyncSession) -> None:
            cell_id = await session.create_cell(self.code(stream.name))
            async for event in await session.stream_execute(cell_id):
                stream.take_event(event)

        async def main() -> None:
            session = AsyncSession(self.name)
            await session.connect()
            ends = await asyncio.gather(session.run(self.code(run.name)), follow(session), return_exceptions=True)
            for seen, end in zip((run, stream), ends, strict=True):
                if isinstance(end, Exception):
                    seen.error = end
                elif isinstance(end, ExecutionResult):
                    seen.take_result(end)
            await session.close()

        asyncio.run(main())

    def _run_magic(self, seen: Seen) -> None:
        seen.text, seen.success = self._shell.run(f"%%runtimed {self.name}\n{self.code(seen.name)}")

    def _watch(self, events: Any) -> None:
        def watch() -> None:
            with events:
                for event in events:
                    if event.event_type == "cell_changed":
                        if event.cell_id == self._curtain:
                            return
                    elif event.execution_id is not None:
                        self.heard.setdefault(event.execution_id, Seen("subscribe", "")).take_event(event)

        self._go(watch)

    # --- a client in a process of its own ---

    def _begin_client(self) -> None:
        names = [f"theirs{self.seed}x{n}" for n in range(2)]
        self.client = subprocess.Popen(
            [sys.executable, "-c", CLIENT.format(pace=PACE), self.name, self.target, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.client.stdin is not None
        for name in names:
            self.client.stdin.write(self.code(name).encode("unicode_escape").decode() + "\n")
        self.client.stdin.flush()
        self._go(self._read_acknowledgements, self.client.stdout)

    def _read_acknowledgements(self, lines: IO[str]) -> None:
        with contextlib.suppress(ValueError):
            for line in lines:
                match line.split():
                    case ["queued", name, cell_id, execution_id]:
                        self.queued[name] = cell_id, execution_id
                    case ["appended", number]:
                        self.appended = int(number)


class Shell:
    """An IPython shell with the magics, in a process of its own that lives through all rounds."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.shell", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, cell: str) -> tuple[str, bool]:
        """Run a cell; return what it printed, and whether it succeeded."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(cell), file=self._process.stdin, flush=True)
        printed, success = json.loads(self._process.stdout.readline())
        return printed, success

    def close(self) -> None:
        """End it; it ends when its input does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
