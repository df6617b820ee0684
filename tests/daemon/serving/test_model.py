"""Two clients of a real daemon against a notebook in plain Python: random steps, and every few steps both agree.

One client is a `Session`, the other an `AsyncSession`; a third one looks. Kernels and daemons end now and then.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from runtimed import CellNotFound, Client, InvalidCell, NoKernel, Session, SessionNotFound
from tests.client.faces import AsyncFace

pytestmark = pytest.mark.slow

LENGTH = 280
"""Steps of a notebook at most."""

AVERAGE = 180
"""Steps of a notebook on the average, or more."""

LOOK_EVERY = 3
"""Steps from one comparison of all to the next: it takes four times as long as a step."""

COUNT = "n = globals().get('n', 0) + 1\nprint('n is', n)"
SHOW = "n"
FAIL = "1 / 0"
WARN = "import sys\nprint('warned', file=sys.stderr)"
RUN_FOREVER = "import time\nwhile True:\n    time.sleep(0.01)"
CODES = [COUNT, COUNT, SHOW, FAIL, WARN]

TEXTS = st.one_of(st.sampled_from(CODES), st.text(max_size=20), st.sampled_from(["a = 1\nb = 2\n", "é😀\r\n\0"]))
TYPES = st.sampled_from(["code", "code", "markdown", "raw"])
WHO = st.integers(0, 1)
PICK = st.integers(0, 2**16)

Shape = tuple[Any, ...]


@dataclass
class ModelCell:
    id: str
    cell_type: str
    source: str
    metadata: dict[str, str] = field(default_factory=dict)
    count: int | None = None
    outputs: list[Shape] = field(default_factory=list)

    def shape(self) -> Shape:
        return self.id, self.cell_type, self.source, self.metadata, self.count, self.outputs


@dataclass
class ModelKernel:
    """What the kernel remembers."""

    count: int = 1
    n: int | None = None

    def run(self, code: str) -> tuple[int, list[Shape], bool]:
        """Return the execution count, the outputs, and whether it succeeds."""
        count = self.count
        self.count += 1
        match code:
            case "n" if self.n is None:
                return count, [("error", "NameError")], False
            case "n":
                return count, [("execute_result", str(self.n), count)], True
            case _ if code == COUNT:
                self.n = (self.n or 0) + 1
                return count, [("stream", "stdout", f"n is {self.n}\n")], True
            case _ if code == WARN:
                return count, [("stream", "stderr", "warned\n")], True
            case _ if code == FAIL:
                return count, [("error", "ZeroDivisionError")], False
            case _:
                assert code == RUN_FOREVER
                return count, [("error", "KeyboardInterrupt")], False


def shape_of(output: Any) -> Shape:
    match output.output_type:
        case "stream":
            return "stream", output.name, output.text
        case "error":
            return "error", output.ename
        case kind:
            return kind, output.data["text/plain"], output.execution_count


class NotebookMachine(RuleBasedStateMachine):
    """The notebook as it should be, and what the clients do to it."""

    face: ClassVar[AsyncFace]
    numbers: ClassVar[itertools.count[int]] = itertools.count()
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        name = f"model {next(self.numbers)}"
        self.clients: list[Any] = [Session(name), self.face.session(name)]
        self.observer = Session(name)
        for session in (*self.clients, self.observer):
            session.connect()
        self.name = name
        self.cells: list[ModelCell] = []
        self.seen: list[dict[str, str]] = [{}, {}]
        self.metadata: dict[str, str] = {}
        self.status: str | None = None
        self.kernel: ModelKernel | None = None
        self.tokens = itertools.count()
        self.slow = 0

    @initialize(slow=st.integers(0, 3))
    def decide(self, slow: int) -> None:
        """Only so many steps of this example may start or end a process."""
        self.slow = slow

    def teardown(self) -> None:
        for session in (*self.clients, self.observer):
            session.close()
        if self.status is not None:
            Client().sessions.stop(self.name)

    # --- helpers ---

    def cell(self, pick: int) -> ModelCell:
        return self.cells[pick % len(self.cells)]

    def has_cells(self) -> bool:
        return bool(self.cells)

    def may_be_slow(self) -> bool:
        return self.slow > 0

    def can_run(self) -> bool:
        return self.kernel is not None or self.slow > 0

    def written(self) -> None:
        """A document that is written to for the first time makes a session; an ended session stays ended."""
        self.status = self.status or "active"

    def ran(self, cell: ModelCell) -> bool:
        if self.kernel is None:
            self.kernel = ModelKernel()
            self.slow -= 1
        self.status = "active"
        cell.count, cell.outputs, success = self.kernel.run(cell.source)
        return success

    def refuses(self, error: type[Exception], call: Callable[[], object]) -> None:
        with pytest.raises(error):
            call()

    # --- editing ---

    @rule(who=WHO, source=TEXTS, cell_type=TYPES, pick=st.none() | PICK)
    def create(self, who: int, source: str, cell_type: str, pick: int | None) -> None:
        index = None if pick is None else pick % (len(self.cells) + 1)
        cell_id = self.clients[who].create_cell(source, cell_type, index)
        self.cells.insert(len(self.cells) if index is None else index, ModelCell(cell_id, cell_type, source))
        self.seen[who][cell_id] = source
        self.written()

    @rule(who=WHO, beyond=st.integers(1, 5))
    def create_out_of_range(self, who: int, beyond: int) -> None:
        self.refuses(InvalidCell, lambda: self.clients[who].create_cell("", "code", len(self.cells) + beyond))
        self.written()

    @precondition(has_cells)
    @rule(who=WHO, pick=PICK, source=TEXTS)
    def replace_source(self, who: int, pick: int, source: str) -> None:
        """Whoever has just read a cell gives it the text that it wants."""
        cell = self.cell(pick)
        assert self.clients[who].get_cell_source(cell.id) == cell.source
        self.clients[who].set_source(cell.id, source)
        cell.source = self.seen[who][cell.id] = source

    @precondition(has_cells)
    @rule(who=WHO, pick=PICK)
    def insert_before_what_others_appended(self, who: int, pick: int) -> None:
        """Whoever has not seen what others appended keeps it, though its own text lacks it."""
        cell = self.cell(pick)
        seen = self.seen[who].get(cell.id)
        if not seen or not cell.source.startswith(seen):
            seen = self.seen[who][cell.id] = self.clients[who].get_cell_source(cell.id)
        token = f"<{next(self.tokens)}>"
        self.clients[who].set_source(cell.id, token + seen)
        cell.source = token + cell.source
        self.seen[who][cell.id] = token + seen

    @precondition(has_cells)
    @rule(who=WHO, pick=PICK)
    def append(self, who: int, pick: int) -> None:
        cell, token = self.cell(pick), f"[{next(self.tokens)}]"
        self.clients[who].append_source(cell.id, token)
        cell.source += token
        if cell.id in self.seen[who]:
            self.seen[who][cell.id] += token

    @precondition(has_cells)
    @rule(who=WHO, pick=PICK, behind=st.none() | PICK)
    def move(self, who: int, pick: int, behind: int | None) -> None:
        cell = self.cell(pick)
        after = None if behind is None else self.cell(behind)
        self.clients[who].move_cell(cell.id, None if after is None else after.id)
        if after is not cell:
            self.cells.remove(cell)
            self.cells.insert(0 if after is None else self.cells.index(after) + 1, cell)

    @precondition(lambda self: len(self.cells) > 3)
    @rule(who=WHO, pick=PICK)
    def delete(self, who: int, pick: int) -> None:
        cell, client = self.cell(pick), self.clients[who]
        client.delete_cell(cell.id)
        self.cells.remove(cell)
        for seen in self.seen:
            seen.pop(cell.id, None)
        self.refuses(CellNotFound, lambda: client.append_source(cell.id, "x"))
        assert client.get_cell_source(cell.id) is None

    @precondition(has_cells)
    @rule(who=WHO, pick=PICK, cell_type=TYPES)
    def change_type(self, who: int, pick: int, cell_type: Any) -> None:
        self.clients[who].set_cell_type(self.cell(pick).id, cell_type)
        self.cell(pick).cell_type = cell_type

    @precondition(has_cells)
    @rule(who=WHO, pick=PICK, key=st.sampled_from(["a", "ключ"]), value=st.text(max_size=5))
    def set_cell_metadata(self, who: int, pick: int, key: str, value: str) -> None:
        self.clients[who].set_cell_metadata(self.cell(pick).id, key, value)
        self.cell(pick).metadata[key] = value

    @rule(who=WHO, key=st.sampled_from(["a", "b"]), value=st.text(max_size=5))
    def set_metadata(self, who: int, key: str, value: str) -> None:
        self.clients[who].set_metadata(key, value)
        self.metadata[key] = value
        assert self.clients[1 - who].get_metadata(key) == value
        self.written()

    @precondition(has_cells)
    @rule(who=WHO, pick=PICK)
    def clear(self, who: int, pick: int) -> None:
        self.clients[who].clear_outputs(self.cell(pick).id)
        self.cell(pick).outputs, self.cell(pick).count = [], None

    # --- running ---

    @precondition(can_run)
    @rule(who=WHO, code=st.sampled_from(CODES))
    def run(self, who: int, code: str) -> None:
        result = self.clients[who].run(code)
        cell = ModelCell(result.cell_id, "code", code)
        self.cells.append(cell)
        success = self.ran(cell)
        assert (result.success, result.execution_count) == (success, cell.count)
        assert [shape_of(output) for output in result.outputs] == cell.outputs

    @precondition(lambda self: self.can_run() and self.has_cells())
    @rule(who=WHO, pick=PICK)
    def execute(self, who: int, pick: int) -> None:
        """One client queues, the other one waits."""
        cell = self.cell(pick)
        if cell.cell_type != "code":
            self.refuses(InvalidCell, lambda: self.clients[who].queue_cell(cell.id))
            self.written()
        elif cell.source in CODES:
            execution_id = self.clients[who].queue_cell(cell.id)
            success = self.ran(cell)
            assert self.clients[1 - who].wait(execution_id).success is success

    @precondition(lambda self: self.kernel is not None and self.slow > 0)
    @rule(who=WHO)
    def interrupt(self, who: int) -> None:
        self.slow -= 1
        cell_id = self.clients[who].create_cell(RUN_FOREVER)
        cell = ModelCell(cell_id, "code", RUN_FOREVER)
        self.cells.append(cell)
        self.seen[who][cell_id] = RUN_FOREVER
        execution_id = self.clients[who].queue_cell(cell_id)
        self.clients[1 - who].interrupt()
        self.ran(cell)
        assert not self.clients[who].wait(execution_id).success

    @precondition(lambda self: self.kernel is None)
    @rule(who=WHO)
    def ask_without_a_kernel(self, who: int) -> None:
        for ask in (self.clients[who].interrupt, self.clients[who].restart_kernel):
            self.refuses(NoKernel, ask)
        self.clients[who].shutdown_kernel()

    # --- life ---

    @precondition(lambda self: self.kernel is not None and self.slow > 0)
    @rule(who=WHO)
    def restart_kernel(self, who: int) -> None:
        self.slow -= 1
        self.clients[who].restart_kernel()
        self.kernel = ModelKernel()

    @precondition(lambda self: self.kernel is not None and self.slow > 0)
    @rule(who=WHO)
    def shut_kernel_down(self, who: int) -> None:
        self.slow -= 1
        self.clients[who].shutdown_kernel()
        self.kernel = None

    @precondition(lambda self: self.status is not None and self.slow > 0)
    @rule(who=WHO)
    def stop(self, who: int) -> None:
        self.slow -= 1
        self.clients[who].stop()
        self.clients[who].connect()
        self.status, self.kernel = "closed", None

    @precondition(may_be_slow)
    @rule(number=st.sampled_from([signal.SIGKILL, signal.SIGTERM]))
    def end_daemon(self, number: int) -> None:
        self.slow -= 1
        status = Client().status()
        if status is not None:  # one that was told to end before may have answered its last, and be gone by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(status.pid, number)

    @rule(who=WHO)
    def leave_and_return(self, who: int) -> None:
        self.clients[who].close()
        self.clients[who].connect()

    # --- agreement ---

    @invariant()
    def both_agree(self) -> None:
        type(self).steps += 1
        if self.steps % LOOK_EVERY == 0:
            self.compare()

    def compare(self) -> None:
        found = [
            (
                cell.id,
                cell.cell_type,
                cell.source,
                cell.metadata,
                cell.execution_count,
                list(map(shape_of, cell.outputs)),
            )
            for cell in self.observer.get_cells()
        ]
        assert found == [cell.shape() for cell in self.cells]
        for key in ("a", "b"):
            assert self.observer.get_metadata(key) == self.metadata.get(key)
        if self.status is None:
            self.refuses(SessionNotFound, self.observer.status)
        else:
            status = self.observer.status()
            assert (status.status, status.kernel_pid is not None) == (self.status, self.kernel is not None)


@pytest.mark.timeout(36_000)
def test_random_steps_agree_with_a_notebook_in_plain_python(shared_daemon, request):
    wanted = request.config.getoption("--steps")
    NotebookMachine.face = AsyncFace()
    try:
        run_state_machine_as_test(
            NotebookMachine,
            settings=settings(
                max_examples=math.ceil(wanted / AVERAGE),
                stateful_step_count=LENGTH,
                derandomize=True,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        NotebookMachine.face.close()
    print(f"{NotebookMachine.steps} steps agree")
    assert NotebookMachine.steps >= wanted
