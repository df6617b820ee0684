"""What the measurements share."""

import contextlib
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from runtimed import Client, Session

Row = tuple[str, str]


@contextlib.contextmanager
def own_daemon() -> Iterator[None]:
    """A daemon with an empty data folder, for one measurement."""
    folder, before = tempfile.mkdtemp(prefix="rt"), os.environ.get("RUNTIMED_DATA_DIR", "")
    os.environ["RUNTIMED_DATA_DIR"] = folder
    os.environ["RUNTIMED_ENV"] = "current"
    os.environ["RUNTIMED_POOL_SIZE"] = "0"
    try:
        yield
    finally:
        os.environ["RUNTIMED_DATA_DIR"] = folder
        Client().shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        os.environ["RUNTIMED_DATA_DIR"] = before


def daemon() -> psutil.Process:
    status = Client().status()
    assert status is not None
    return psutil.Process(status.pid)


def host(session: Session) -> psutil.Process:
    pid = session.status().host_pid
    assert pid is not None
    return psutil.Process(pid)


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Peak:
    """The highest resident memory of some processes while a block runs, sampled every 10 ms."""

    def __init__(self, *processes: psutil.Process) -> None:
        self._processes = processes
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.mebibytes = [0.0] * len(processes)

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            for index, process in enumerate(self._processes):
                self.mebibytes[index] = max(self.mebibytes[index], process.memory_info().rss / 2**20)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()


def quantile(times: list[float], percent: int) -> float:
    """The time within which so many of a hundred calls were answered."""
    return statistics.quantiles(times, n=100)[percent - 1]
