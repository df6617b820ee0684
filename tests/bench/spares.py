"""Measures kernels that were ready against kernels that are started when they are asked for, in turns."""

import os
import statistics
import time
from collections.abc import Iterator

import psutil

from runtimed import Client, Session
from tests.bench.tools import Row, daemon, host

ROUNDS = 15
IDLE = 20.0


def spares() -> Iterator[Row]:
    """The first result of a spare kernel, and what a spare costs while it waits."""
    os.environ["RUNTIMED_POOL_SIZE"] = "1"
    with Session("first") as first:
        _first_result(first)
        warm: list[float] = []
        cold: list[float] = []
        for _ in range(ROUNDS):
            _wait_for_spare()
            for times in (warm, cold):
                with Session() as session:
                    times.append(_first_result(session))
        ratio = statistics.median(one / other for one, other in zip(warm, cold, strict=True))
        yield "First result of a kernel from a spare / of one started cold, median of ratios", f"{ratio:.2f}"
        yield "… medians", f"{statistics.median(warm) * 1e3:.0f} ms / {statistics.median(cold) * 1e3:.0f} ms"
        yield "… the fastest", f"{min(warm) * 1e3:.0f} ms / {min(cold) * 1e3:.0f} ms"
        _wait_for_spare()
        (spare,) = (child for child in daemon().children() if child not in (host(first), *_ended(daemon())))
        processes = [spare, *spare.children(recursive=True)]
        before = _processor_time(processes)
        time.sleep(IDLE)
        took = _processor_time(processes) - before
        memory = sum(process.memory_info().rss for process in processes)
        yield f"Processor time of a spare, its host included, in {IDLE:.0f} s", f"{took * 1e3:.0f} ms"
        yield "… its memory", f"{memory / 2**20:.0f} MiB"
        first.stop()


def _first_result(session: Session) -> float:
    # The request to the daemon, and no more of the client's own start.
    session.connect()
    started = time.perf_counter()
    session.start_kernel()
    result = session.run("1+1")
    took = time.perf_counter() - started
    assert result.success
    return took


def _wait_for_spare() -> None:
    def figures() -> dict[str, int]:
        status = Client().status()
        assert status is not None
        return dict(status.pool)

    while figures()["current_available"] != 1:
        time.sleep(0.05)
    # What made it has ended its work.
    time.sleep(0.5)


def _ended(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE]


def _processor_time(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
