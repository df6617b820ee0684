"""Six sessions at work for minutes: everything is right all along, and neither daemon nor hosts grow.

`--soak MINUTES` says for how long. A session lives for two minutes; its document keeps its history as long as that.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psutil
import pytest

from runtimed import Client, Session
from tests.conftest import processes_of, wait_until
from tests.faults.checks import leftovers

SESSIONS: Final = 6
LIFE: Final = 120.0
"""Seconds after which a session is stopped, and another one begins."""

PAUSE: Final = 1.0
"""Seconds between two steps of one session, on the average: it is the time that is to pass here, not the work."""

SAMPLE_EVERY: Final = 1.0
"""Seconds."""

MAX_WARM_UP: Final = 300.0
DAEMON_GROWTH: Final = 5 * 2**20
HOST_GROWTH: Final = 5 * 2**20
MORE_FILES: Final = 12
"""Files that may be open for a moment: a kernel that starts, a client that asks for something."""

LINES = "for n in range(20): print('line', n)"
LARGE = "import sys\nfor n in range(100): print(str(n) * 5_000, flush=True)"
VALUE = "from IPython.display import display\ndisplay({'text/plain': 'v', 'text/x-v': 'v' * 1_500_000}, raw=True)"


class Worker(threading.Thread):
    """One session after the other, with a client that does everything a client does."""

    def __init__(self, number: int, end: float) -> None:
        super().__init__(daemon=True)
        self._numbers = random.Random(number)
        self._name = f"soak {number}"
        self._end = end
        self._pace = threading.Event()
        self.done: Counter[str] = Counter()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for generation in itertools.count():
                if time.monotonic() > self._end:
                    return
                self._live(f"{self._name}.{generation}", min(time.monotonic() + LIFE, self._end))
        except BaseException as exc:  # noqa: BLE001  # the test looks at it
            self.error = exc

    def _live(self, name: str, end: float) -> None:
        steps: list[tuple[int, Callable[[Session], None]]] = [
            (30, self._execute),
            (30, self._edit),
            (5, self._print_much),
            (5, self._show_value),
            (5, self._stream),
            (10, self._reconnect),
            (3, self._fail),
            (2, self._restart),
        ]
        weights, works = zip(*steps, strict=True)
        with Session(name) as session:
            self._cells = {code: session.create_cell(code) for code in (LINES, LARGE, VALUE, "1 / 0")}
            self._note = session.create_cell("", "markdown")
            for work in works:
                # To restart all kernels takes longer than a short run; some of six are restarted in any.
                if work != self._restart:
                    work(session)
            while time.monotonic() < end:
                (work,) = self._numbers.choices(works, weights)
                work(session)
                self.done[work.__name__.strip("_")] += 1
                self._pace.wait(2 * PAUSE * self._numbers.random())
            session.stop()

    def _execute(self, session: Session) -> None:
        assert session.execute_cell(self._cells[LINES]).stdout == "".join(f"line {n}\n" for n in range(20))

    def _edit(self, session: Session) -> None:
        # A few characters: a document remembers all that were ever there (4 KB for 20), which is not looked for here.
        text = f"note {self._numbers.randrange(10)}"
        session.set_source(self._note, text)
        session.append_source(self._note, "!")
        assert session.get_cell_source(self._note) == f"{text}!"

    def _print_much(self, session: Session) -> None:
        result = session.execute_cell(self._cells[LARGE])
        assert result.stdout == "".join(str(n) * 5_000 + "\n" for n in range(100))

    def _show_value(self, session: Session) -> None:
        (output,) = session.execute_cell(self._cells[VALUE]).display_data
        assert output.data is not None
        assert output.data["text/x-v"] == "v" * 1_500_000

    def _stream(self, session: Session) -> None:
        with session.subscribe(event_types=["done"]) as events:
            seen = list(session.stream_execute(self._cells[LINES]))
            assert seen[-1].event_type == "done"
            assert next(events).execution_id == seen[-1].execution_id

    def _reconnect(self, session: Session) -> None:
        session.close()
        session.connect()

    def _fail(self, session: Session) -> None:
        assert not session.execute_cell(self._cells["1 / 0"]).success

    def _restart(self, session: Session) -> None:
        if session.kernel_started:
            session.restart_kernel()


@dataclass(frozen=True)
class Sample:
    """What processes have at one time: by pid, bytes of memory and open files."""

    daemon: tuple[int, int]
    hosts: dict[int, tuple[int, int]]


def sample(daemon: psutil.Process) -> Sample:
    hosts = {}
    for host in daemon.children():
        try:
            hosts[host.pid] = host.memory_info().rss, host.num_fds()
        except psutil.NoSuchProcess:
            continue
    return Sample((daemon.memory_info().rss, daemon.num_fds()), hosts)


def least(samples: list[Sample]) -> tuple[int, int]:
    """The least memory and the fewest files of the daemon: what it has whatever it does at the moment."""
    return min(one.daemon[0] for one in samples), min(one.daemon[1] for one in samples)


def growth_of_hosts(samples: list[Sample]) -> dict[int, int]:
    """By how many bytes each host grew in the second half of its life, if that was long enough to tell."""
    lives: dict[int, list[int]] = {}
    for one in samples:
        for pid, (memory, _files) in one.hosts.items():
            if memory:  # one that is ending has none any more
                lives.setdefault(pid, []).append(memory)
    longest = max(map(len, lives.values()), default=0)
    return {pid: life[-1] - life[len(life) // 2] for pid, life in lives.items() if 2 * len(life) > longest}


@pytest.mark.timeout(36_000)
def test_six_sessions_work_for_minutes_and_nothing_grows(data_dir, request):
    duration = 60 * float(request.config.getoption("--soak"))
    warm_up = min(duration / 2, MAX_WARM_UP)
    began = time.monotonic()
    workers = [Worker(number, began + duration) for number in range(SESSIONS)]
    for worker in workers:
        worker.start()
    wait_until(lambda: Client().status(), "no daemon")
    status = Client().status()
    assert status is not None
    daemon = psutil.Process(status.pid)
    samples: list[tuple[float, Sample]] = []
    pace = threading.Event()
    while any(worker.is_alive() for worker in workers):
        assert [worker.error for worker in workers if worker.error is not None] == []
        samples.append((time.monotonic() - began, sample(daemon)))
        # Whatever worker ends first: samples taken at another pace at the end would make the hosts that end last seem
        # to have lived for most of the time.
        pace.wait(SAMPLE_EVERY)
    assert [worker.error for worker in workers if worker.error is not None] == []

    window = (duration - warm_up) / 4
    before = [one for at, one in samples if warm_up <= at < warm_up + window]
    after = [one for at, one in samples if duration - window <= at < duration]
    done = sum((worker.done for worker in workers), Counter[str]())
    (memory, files), (memory_after, files_after) = least(before), least(after)
    growth = growth_of_hosts([one for _at, one in samples])
    print(
        f"{duration / 60:g} minutes: {dict(done)}; daemon {memory / 2**20:.1f} to {memory_after / 2**20:.1f} MiB, "
        f"files {files} to {files_after}; hosts by {[round(bytes_ / 2**20, 1) for bytes_ in growth.values()]} MiB"
    )
    assert memory_after - memory < DAEMON_GROWTH
    assert files_after <= files + MORE_FILES
    assert len(growth) >= SESSIONS
    assert all(bytes_ < HOST_GROWTH for bytes_ in growth.values())
    assert done["execute"] > SESSIONS
    Client().shutdown()
    wait_until(lambda: not processes_of(data_dir), "a process of the test lives on")
    assert list(leftovers(data_dir)) == []
