"""What one session's large notebook costs the others: how long their calls wait while something is done with it."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runtimed import Client, Session
from tests.bench.tools import Row, daemon, quantile, seconds
from tests.large import write_large_notebook

CELLS = 10_000
QUEUED = 20_000
MIB = 2**20

PROBER = """
import sys, time
from runtimed import Session
with Session("prober") as session:
    session.set_metadata("k", "v")
    print("ready", flush=True)
    waits, begin = [], time.perf_counter()
    end = False
    import select
    while not select.select([sys.stdin], [], [], 0)[0]:
        started = time.perf_counter()
        session.get_metadata("k")
        waits.append(time.perf_counter() - started)
        time.sleep(max(0.0, 0.005 - waits[-1]))
    print(*waits, flush=True)
"""
"""A client of another session, which asks for something small 200 times a second."""


class Waits:
    """How long the calls of another session wait while something is done."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    @contextlib.contextmanager
    def measured(self, what: str) -> Iterator[None]:
        """Measure while the block runs, and half a second longer."""
        with subprocess.Popen(
            [sys.executable, "-c", PROBER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as prober:
            assert prober.stdin is not None
            assert prober.stdout is not None
            prober.stdout.readline()
            started = time.perf_counter()
            yield
            took = time.perf_counter() - started
            time.sleep(0.5)
            prober.stdin.write("\n")
            prober.stdin.flush()
            waits = list(map(float, prober.stdout.read().split()))
        figure = f"{quantile(waits, 50) * 1e3:.1f} / {quantile(waits, 99) * 1e3:.1f} / {max(waits) * 1e3:.0f} ms"
        self.rows.append((f"… {what} ({took:.1f} s)", figure))


def documents() -> Iterator[Row]:
    """What a notebook of 10,000 cells costs everybody else."""
    folder = Path(os.environ["RUNTIMED_DATA_DIR"])
    os.environ["RUNTIMED_COMPACT_AFTER"] = "1500"
    write_large_notebook(folder, "large", CELLS)
    write_large_notebook(folder, "aside", CELLS, set_aside=True)
    waits = Waits()
    with Session("prober") as other:
        other.set_metadata("k", "v")
        before = daemon().memory_info().rss
        with waits.measured("nothing else is done"):
            time.sleep(2)
        with Session("large") as session:
            with waits.measured("a notebook of 10,000 cells is read from its document"):
                assert len(session.get_cell_ids()) == CELLS
            with waits.measured("its cells are read by a client"):
                assert len(session.get_cells()) == CELLS
            log = folder / "daemon.log"
            with waits.measured("3,000 of its cells are edited, and it is compacted"):
                for number in range(3000):
                    session.append_source(f"large-{number}", " token")
                _until(lambda: "compacted the document of session 'large'" in log.read_text())
            with waits.measured("a source of 1 MB is set and edited 20 times"):
                text = "x = 1  # of a long line\n" * 45_000
                for number in range(20):
                    session.set_source("large-0", f"{text}{number}\n{text[: number * 1000]}")
            with waits.measured("its kernel starts"):
                session.start_kernel()
            with waits.measured(f"{QUEUED:,} executions are queued"):
                queued = session.create_cell("import time; time.sleep(1000)")
                session.queue_cell(queued)
                others = session.create_cell("1")
                for _ in range(QUEUED):
                    session.queue_cell(others)
            with waits.measured(f"{QUEUED:,} queued executions are cancelled"):
                session.shutdown_kernel()
                _until(lambda: not session.get_queue())
        with Session("aside") as session, waits.measured("a notebook of 10,000 cells is restored"):
            assert Client().sessions.restore("aside") == CELLS
        closed = daemon().memory_info().rss
    yield "A call of another session waits, p50 / p99 / longest, while", ""
    yield from waits.rows
    yield "Memory of the daemon afterwards, above what it was before", f"{(closed - before) / MIB:.0f} MiB"
    yield from _restart()


def _restart() -> Iterator[Row]:
    """Eight live sessions of 2,000 cells each, and the daemon restarts."""
    for number in range(8):
        with Session(f"live {number}") as session:
            session.start_kernel()
            for cell in range(2000):
                session.create_cell(f"# cell {cell}\n" + "x = 1\n" * 20)
    Client().shutdown(keep_kernels=True)
    with Session("live 0") as session:
        first = seconds(lambda: session.run("1+1"))
    yield "A restarted daemon with 8 live sessions of 2,000 cells answers its first `run` after", f"{first:.2f} s"
    for number in range(8):
        Client().sessions.stop(f"live {number}")


def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.05)
