"""One round: clients work, something strikes, all recovers, and all is checked.

Everything random comes from the seed; what the seed cannot fix is the moment at which an operating system acts on it.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtimed import Client, RuntimedError, Session, SessionError
from tests.faults.checks import (
    check_edits,
    check_end,
    check_executions,
    check_large_notebook,
    check_large_value,
    check_log,
)
from tests.faults.strikes import Target, fault_of, kill, kill_daemons
from tests.faults.workload import Shell, Workload
from tests.large import write_large_notebook

CELLS = 1000
"""Of a large notebook, which takes some 0.4 s to load where nothing else runs."""

LARGE = 0.1
"""Share of the rounds with a large notebook, beside those whose fault needs one."""

ENDINGS = ("stopped", "stopped while the daemon dies", "kernel", "host")


@dataclass
class Figures:
    """What was done in all rounds.

    Attributes:
        large: Rounds with a notebook that takes a second to load.
        struck_workers: How often something was struck while a process worked on a document.
        problems: What was wrong; nothing, if all was right.
    """

    rounds: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    large: int = 0
    struck_workers: int = 0
    edits: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in self.rounds.items())
        return (
            f"{self.rounds.total()} rounds ({kinds}); {self.executions} executions and {self.edits} acknowledged "
            f"edits checked; {self.large} large notebooks, {self.struck_workers} "
            f"struck while a document was worked on; {len(self.problems)} problems"
        )


def run_round(seed: int, folder: Path, shell: Shell, figures: Figures) -> None:
    """Run one round in the data folder of a daemon."""
    fault = fault_of(seed)
    figures.rounds[fault.name] += 1

    def problem(text: str) -> None:
        figures.problems.append(f"seed {seed} ({fault.name}): {text}")
        print(figures.problems[-1], flush=True)

    name = f"faults-{seed}"
    numbers = random.Random(f"{seed} notebook")
    is_large = fault.is_large or numbers.random() < LARGE
    if is_large:
        is_aside = numbers.random() < 0.5
        write_large_notebook(folder, name, CELLS, set_aside=is_aside)
        figures.large += 1
    workload = Workload(seed, name, folder / f"witness-{seed}", shell)
    with Session(name) as session:
        session.connect()
        numbers = random.Random(f"{seed} strike")
        target = Target(folder, name, None, numbers)
        if fault.at_start:
            struck = _later(numbers.random(), lambda: fault.strike(target))
        session.start_kernel()
        if is_large and is_aside:
            restored = _later(numbers.random() * 2, lambda: _restore(name, problem))
        workload.begin(session)
        if not fault.at_start:
            target.client = workload.client
            struck = _later(0.3 + numbers.random() * 1.5, lambda: fault.strike(target))
        try:
            workload.work(session, random.Random(f"{seed} work"))
        finally:
            struck.join()
            figures.struck_workers += target.struck_workers
            workload.end(session)
            if is_large and is_aside:
                restored.join()
        if is_large:
            check_large_notebook(session, CELLS, problem)
        figures.executions += check_executions(workload, session, fault, problem)
        check_large_value(workload, session, fault, problem)
        figures.edits += check_edits(workload, session, problem)
        expected, said = _end(session, folder, random.Random(f"{seed} end"))
        check_end(folder, name, expected, said, problem)
        check_log(workload, fault, expected[0], problem)


def _restore(name: str, problem: Callable[[str], None]) -> None:
    """Bring the notebook back, through whatever strikes meanwhile."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with Session(name):  # starts a daemon where none runs
                Client().sessions.restore(name)
        except SessionError:  # nothing is set aside: a daemon that died has done it
            return
        except RuntimedError:
            time.sleep(0.05)
    problem("the notebook was not brought back within a minute")


def _later(delay: float, work: object) -> threading.Thread:
    thread = threading.Timer(delay, work)  # type: ignore[arg-type]  # any callable
    thread.start()
    return thread


def _end(session: Session, folder: Path, numbers: random.Random) -> tuple[tuple[str, str], str]:
    """End the session in one way or another; return the state it must come to, and a word that its error must hold."""
    ending = numbers.choice(ENDINGS)
    status = Client().sessions.get(session.notebook_id)
    if ending == "kernel" and status.kernel_pid is not None:
        kill(status.kernel_pid)
        return ("error", "died"), "SIGKILL"
    if ending == "host" and status.kernel_pid is not None:
        kill(status.host_pid)
        return ("error", "host_lost"), "process that owned the kernel"
    if status.status != "active":
        return (status.status, status.close_reason or ""), ""
    if ending == "stopped while the daemon dies":
        struck = _later(numbers.random() * 0.03, lambda: kill_daemons(folder))
        session.stop()
        struck.join()
        with contextlib.suppress(Exception):
            session.connect()
    else:
        session.stop()
    return ("closed", "stopped"), ""
