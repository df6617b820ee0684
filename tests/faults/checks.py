"""What must hold when all have recovered: nothing acknowledged is lost, doubled or out of order, nothing ran twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count, takewhile
from pathlib import Path

import psutil

from runtimed import Client, ExecutionCancelled, NoKernel, RuntimedError, Session
from tests.faults.strikes import Fault
from tests.faults.workload import Seen, Workload
from tests.large import source_of

Problem = Callable[[str], None]

DEADLINE = 30.0


def eventually(condition: Callable[[], object]) -> bool:
    """Wait until a condition holds; return whether it came to."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def check_executions(workload: Workload, session: Session, fault: Fault, problem: Problem) -> int:
    """Check every execution that somebody knows of; return how many there were."""
    stored: dict[str, str] = {}
    for name, (cell_id, execution_id) in sorted(workload.queued.items()):
        seen = Seen("stored", name, execution_id=execution_id)
        try:
            result = session.wait(execution_id, timeout_secs=60)
        except RuntimedError as exc:
            seen.error = exc
        else:
            seen.take_result(result)
            if session.get_cell(cell_id).outputs != result.outputs and name not in workload.large:
                problem(f"{name}: its cell shows something else")
        _check_seen(workload, seen, fault, problem, is_acknowledged=True)
        stored[execution_id] = seen.text
    for seen in workload.seen:
        _check_seen(workload, seen, fault, problem, is_acknowledged=not fault.ends_kernel)
        if seen.execution_id is not None and seen.error is None:
            stored[seen.execution_id] = _stored_text(session, seen.execution_id)
            if stored[seen.execution_id] != seen.text:
                problem(f"{seen.kind} {seen.name}: saw {seen.text!r}, stored is {stored[seen.execution_id]!r}")
    ran = workload.ran()
    for name in sorted({name for name in ran if ran.count(name) > 1}):
        problem(f"{name} ran {ran.count(name)} times")
    for execution_id, text in stored.items():
        heard = workload.heard.get(execution_id) or Seen("subscribe", execution_id)
        if heard.text != text:
            problem(f"the subscriber heard {heard.text!r} of {execution_id}, stored is {text!r}")
        _check_events(heard, problem)
    if not eventually(lambda: Client().sessions.get(session.notebook_id).kernel_status != "busy"):
        problem("the kernel stays busy")
    return len(stored)


def _stored_text(session: Session, execution_id: str) -> str:
    try:
        return session.wait(execution_id).stdout
    except ExecutionCancelled:
        return ""


def _check_seen(workload: Workload, seen: Seen, fault: Fault, problem: Problem, *, is_acknowledged: bool) -> None:
    what = f"{seen.kind} {seen.name}"
    times = workload.ran().count(seen.name)
    if seen.error is not None:
        if not (fault.ends_kernel and isinstance(seen.error, ExecutionCancelled | NoKernel)):
            problem(f"{what} raised {seen.error!r}")
        elif times:
            problem(f"{what} raised {seen.error!r}, though it ran")
        return
    expected = workload.lines(seen.name)
    lines = [line for line in seen.text.splitlines() if line.startswith(f"{seen.name} ")]
    if lines != expected[: len(lines)]:
        problem(f"{what}: lines are missing or doubled: {lines}")
    if seen.success and lines != expected:
        problem(f"{what} succeeded without all its lines: {len(lines)} of {len(expected)}")
    if seen.success and times == 0:
        problem(f"{what} succeeded and never ran")
    if not fault.ends_kernel and is_acknowledged and not (seen.success and times == 1):
        problem(f"{what} was acknowledged, ran {times} times and ended {'well' if seen.success else 'badly'}: {lines}")
    if seen.events:
        _check_events(seen, problem)


def _check_events(seen: Seen, problem: Problem) -> None:
    """One beginning and one end; an execution that never began has no beginning."""
    if seen.events not in (["execution_started", "done"], ["execution_started", "error"], ["error"]):
        problem(f"{seen.kind} {seen.name or seen.execution_id}: its events are {seen.events}")


def check_large_value(workload: Workload, session: Session, fault: Fault, problem: Problem) -> None:
    """The large display of the first cell has the value that the last one gave it."""
    first, last = workload.large
    if fault.ends_kernel or not {first, last} <= workload.queued.keys():
        return
    shown = [output.data for output in session.get_cell(workload.queued[first][0]).outputs if output.data]
    if shown != [{"text/plain": "updated", "text/x-large": first * 100_000 + "!"}]:
        problem(f"the large value is {[{mime: len(value) for mime, value in data.items()} for data in shown]}")


def check_edits(workload: Workload, session: Session, problem: Problem) -> int:
    """Check every acknowledged edit; return how many there were."""
    source = session.get_cell_source(workload.target) or ""
    pieces = source.count("<")
    if source != "".join(f"<{n}>" for n in range(pieces)):
        problem(f"appended pieces are missing, doubled or out of order: {source}")
    if pieces <= workload.appended:
        problem(f"{workload.appended + 1} pieces were acknowledged, {pieces} are there")
    cells = {str(cell.id): cell.source for cell in session.get_cells()}
    ids = session.get_cell_ids()
    if len(ids) != len(set(ids)):
        problem("a cell is there twice")
    places: dict[str, int] = {cell_id: place for place, cell_id in enumerate(ids)}
    for note in workload.notes:
        if not cells.get(note, "").endswith(" kept") or cells[note].count(" kept") != 1:
            problem(f"an acknowledged edit is lost or doubled: {cells.get(note)!r}")
    if sorted(workload.notes, key=lambda note: places.get(note, -1)) != workload.notes:
        problem("the cells of one client are out of order")
    return pieces + 2 * len(workload.notes)


def check_large_notebook(session: Session, cells: int, problem: Problem) -> None:
    """All that was in the notebook before the round is there, once, in its order."""
    found = [(cell.id, cell.source) for cell in session.get_cells() if cell.id.startswith("large-")]
    if found != [(f"large-{number}", source_of(number)) for number in range(cells)]:
        problem(f"of the {cells} cells of the notebook {len(found)} are there, or others")


def check_log(workload: Workload, fault: Fault, status: str, problem: Problem) -> None:
    """The session's log tells of each step of its life, and of each execution that was queued, once."""
    entries = [
        entry
        for page in takewhile(bool, (Client().sessions.log(workload.name, page, 1000) for page in count(1)))
        for entry in page
    ]
    steps = [entry.action for entry in reversed(entries) if entry.action.startswith("session_")]
    ends = {"session_closed", "session_error"}
    if set(steps[::2]) != {"session_started"} or not set(steps[1::2]) <= ends or steps[-1] != f"session_{status}":
        problem(f"the steps of its life are {steps}, and it is {status}")
    if len(steps) > 2 and not (fault.ends_kernel or fault.at_start):
        problem(f"the session ended and began again: {steps}")
    queued = [entry.execution_id for entry in entries if entry.action == "execution_queued"]
    acknowledged = {execution_id for _cell_id, execution_id in workload.queued.values()}
    if len(queued) != len(set(queued)) or not acknowledged <= set(queued):
        problem(f"of the acknowledged executions {acknowledged} these are in the log: {queued}")


def check_end(folder: Path, name: str, expected: tuple[str, str], said: str, problem: Problem) -> None:
    """Check how a session ended, that it says why, and that no host and no kernel of it is left."""

    def state() -> tuple[str, str | None]:
        status = Client().sessions.get(name)
        return status.status, status.close_reason

    if not eventually(lambda: state() == expected):
        problem(f"it should be {expected} and is {state()}")
    error = Client().sessions.get(name).error
    if said not in (error or ""):
        problem(f"its error should say {said!r} and is {error!r}")
    if not eventually(lambda: not list(left_by_hosts(folder))):
        problem(f"hosts left behind: {list(left_by_hosts(folder))}")


def left_by_hosts(folder: Path) -> Iterator[str]:
    """Say what hosts have left in a data folder all whose sessions have ended."""
    for path in (folder / "run").iterdir():
        if path.is_dir():
            yield f"the folder {path}"
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if any(f"{folder}/run/" in part for part in command) or (
                "runtimed.host" in command and process.environ().get("RUNTIMED_DATA_DIR") == str(folder)
            ):
                yield f"process {process.pid}: {command}"
        except psutil.Error:
            continue


def leftovers(folder: Path) -> Iterator[str]:
    """Say what a daemon has left behind after a shutdown."""
    yield from left_by_hosts(folder)
    for path in (folder / "run").iterdir():
        if path.name != "daemon.start":
            yield f"{path}"
    for path in (folder / "blobs" / "tmp").iterdir():
        yield f"half a blob: {path}"
