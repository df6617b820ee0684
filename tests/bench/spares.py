"""Measures kernels and browsers that were ready against those that are started when they are asked for, in turns."""

import os
import statistics
import time
from collections.abc import Iterator

import psutil

from runtimed import BrowserSession, Client, Session
from tests.bench.tools import Row, daemon, host, seconds

ROUNDS = 15
IDLE = 20.0


def spares() -> Iterator[Row]:
    """The first result of a spare kernel, and what a spare costs while it waits."""
    os.environ["RUNTIMED_POOL_SIZE"] = "1"
    with Session("first") as first:
        _first_result(first)
        warm: list[float] = []
        cold: list[float] = []
        handed_over: list[float] = []
        for _ in range(ROUNDS):
            _wait_for_spare("current")
            for times in (warm, cold):
                with Session() as session:
                    took, since_decision = _first_result(session)
                times.append(took)
                if times is warm:
                    handed_over.append(since_decision)
        ratio = statistics.median(one / other for one, other in zip(warm, cold, strict=True))
        yield "First result of a kernel from a spare / of one started cold, median of ratios", f"{ratio:.2f}"
        yield "… medians", f"{statistics.median(warm) * 1e3:.0f} ms / {statistics.median(cold) * 1e3:.0f} ms"
        yield "… the fastest", f"{min(warm) * 1e3:.0f} ms / {min(cold) * 1e3:.0f} ms"
        yield "… of the spare from its hand-over on, median", f"{statistics.median(handed_over) * 1e3:.0f} ms"
        _wait_for_spare("current")
        yield from _cost_of_spare("a spare", host(first))
        first.stop()


def spare_browsers() -> Iterator[Row]:
    """A browser session's start from a spare, and what a spare costs while it waits."""
    os.environ["RUNTIMED_POOL_SIZE"] = "1"
    first = BrowserSession("first")
    first.start()
    warm: list[float] = []
    cold: list[float] = []
    for _ in range(ROUNDS):
        _wait_for_spare("browser")
        sessions = BrowserSession(), BrowserSession()
        # The second one finds no spare.
        for session, times in zip(sessions, (warm, cold), strict=True):
            times.append(seconds(session.start))
        for session in sessions:
            session.stop()
    ratio = statistics.median(one / other for one, other in zip(warm, cold, strict=True))
    yield "`start()` of a browser session from a spare / of one started cold, median of ratios", f"{ratio:.2f}"
    yield "… medians", f"{statistics.median(warm) * 1e3:.0f} ms / {statistics.median(cold) * 1e3:.0f} ms"
    yield "… the fastest", f"{min(warm) * 1e3:.0f} ms / {min(cold) * 1e3:.0f} ms"
    _wait_for_spare("browser")
    # Chromium's own start goes on for seconds after it can be used.
    time.sleep(5)
    yield from _cost_of_spare("a spare browser", psutil.Process(first.status().host_pid))
    first.stop()


def _cost_of_spare(what: str, other: psutil.Process) -> Iterator[Row]:
    """What the host that is not the other one costs, with all that it started."""
    (spare,) = (child for child in daemon().children() if child not in (other, *_ended(daemon())))
    processes = [spare, *spare.children(recursive=True)]
    before = _processor_time(processes)
    time.sleep(IDLE)
    took = _processor_time(processes) - before
    # Chromium's processes share most of what each of them shows as its own.
    memory = sum(process.memory_full_info().pss for process in processes)
    yield f"Processor time of {what}, its host included, in {IDLE:.0f} s", f"{took * 1e3:.0f} ms"
    yield "… its memory", f"{memory / 2**20:.0f} MiB"


def _first_result(session: Session) -> tuple[float, float]:
    """Return the seconds to the first result: from the request on, and from the decision that the hand-over follows."""
    # The request to the daemon, and no more of the client's own start.
    session.connect()
    started = time.perf_counter()
    session.start_kernel()
    result = session.run("1+1")
    took, ended = time.perf_counter() - started, time.time()
    assert result.success
    log = Client().sessions.log(str(session.notebook_id))
    (decided,) = (entry.at.timestamp() for entry in log if entry.action == "kernel_start")
    return took, ended - decided


def _wait_for_spare(family: str) -> None:
    def figures() -> dict[str, int]:
        status = Client().status()
        assert status is not None
        return dict(status.pool)

    while figures()[f"{family}_available"] != 1:
        time.sleep(0.05)
    # What made it has ended its work.
    time.sleep(0.5)


def _ended(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE]


def _processor_time(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)
