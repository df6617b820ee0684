"""Measures runtimed against the stock Jupyter client on this machine, interleaved, and prints a Markdown table.

`python -m tests.bench` runs all of it (about ten minutes), `python -m tests.bench NAME …` some of it.
"""

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from jupyter_client.manager import start_new_kernel

from runtimed import Client, Session
from runtimed.environments.detection import decide
from runtimed.environments.facts import gather
from tests.bench.browser import browser
from tests.bench.documents import documents
from tests.bench.flood import flood, late
from tests.bench.frontends import frontends
from tests.bench.markdown import markdown
from tests.bench.spares import spare_browsers, spares
from tests.bench.tools import Peak, Row, daemon, host, own_daemon, quantile, seconds

WARM_UP = 20
ROUNDS = 300


def run() -> Iterator[Row]:
    """The whole way of `1+1`, in turns with the stock client on a stock kernel."""
    manager, stock = start_new_kernel()
    with Session() as session:
        session.start_kernel()
        ours, theirs, long = [], [], []
        source = "1+1  # " + "x" * 193
        for _ in range(WARM_UP + ROUNDS):
            # Each of ours follows one of theirs, so that the caches are as cold for the one as for the other.
            ours.append(seconds(lambda: session.run("1+1")))
            theirs.append(seconds(lambda: stock.execute_interactive("1+1", output_hook=_ignore)))
            long.append(seconds(lambda: session.run(source)))
            seconds(lambda: stock.execute_interactive("1+1", output_hook=_ignore))
    stock.stop_channels()
    manager.shutdown_kernel(now=True)
    ours, theirs, long = ours[WARM_UP:], theirs[WARM_UP:], long[WARM_UP:]
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    yield '`run("1+1")` / stock `execute_interactive`, median of ratios', f"{ratio:.2f}"
    yield "… medians", f"{statistics.median(ours) * 1e3:.1f} ms / {statistics.median(theirs) * 1e3:.1f} ms"
    ratio = statistics.median(one / other for one, other in zip(long, ours, strict=True))
    yield "`run` of 200 characters / of `1+1`, median of ratios", f"{ratio:.2f}"


def environments() -> Iterator[Row]:
    """A new environment (`uv:inline`) with a warm cache, in turns with the cold start of a stock kernel."""
    versions = iter(f"iniconfig!=0.{n}" for n in range(100))

    def stock() -> float:
        started = time.perf_counter()
        manager, client = start_new_kernel()
        client.execute_interactive("1+1", output_hook=_ignore)
        took = time.perf_counter() - started
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        return took

    def ours() -> float:
        with Session() as session:
            session.connect()
            session.add_uv_dependency(next(versions))
            took = seconds(lambda: session.run("import iniconfig", timeout_secs=None))
            assert session.env_source == "uv:inline"
            return took

    del os.environ["RUNTIMED_ENV"]
    plain = ours()
    ours()
    pairs = [(ours(), stock()) for _ in range(5)]
    new, cold = zip(*pairs, strict=True)
    yield (
        "`uv:inline` with new dependencies in uv's cache, to its first result / that of a cold stock kernel, median",
        f"{statistics.median(one / other for one, other in pairs):.2f}",
    )
    yield "… medians", f"{statistics.median(new):.1f} s / {statistics.median(cold):.1f} s"
    yield "The first one of a data folder, which makes the plain environment", f"{plain:.1f} s"
    with tempfile.TemporaryDirectory() as top:
        (Path(top) / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\ndependencies = ["six"]\n')
        deep = Path(top).joinpath(*(f"level-{n}" for n in range(20)))
        deep.mkdir(parents=True)

        def detect() -> None:
            decide(gather(asked="auto", folder=str(deep), environment=os.environ, interpreter=sys.executable, uv=None))

        took = statistics.median(seconds(detect) for _ in range(200))
    yield "Detection of a project 20 folders above", f"{took * 1e3:.1f} ms"


def _ignore(_message: object) -> None:
    pass


def read() -> Iterator[Row]:
    """Calls that do not touch the kernel."""
    with Session() as session:
        cell_id = session.create_cell("x = 1\n" * 30)
        times = [seconds(lambda: session.get_cell(cell_id)) for _ in range(1000)]
        yield "`get_cell`, p50 / p99", f"{quantile(times, 50) * 1e3:.2f} ms / {quantile(times, 99) * 1e3:.2f} ms"


def lines() -> Iterator[Row]:
    """20,000 lines, each flushed."""
    with Session() as session:
        session.start_kernel()
        with Peak(daemon(), host(session)) as peak:
            started = time.perf_counter()
            result = session.run("for n in range(20_000): print(n, flush=True)", timeout_secs=None)
            took = time.perf_counter() - started
        assert result.stdout == "".join(f"{n}\n" for n in range(20_000))
        yield "20,000 lines printed with `flush=True`", f"all there, {took:.1f} s"
        yield "… peak memory of daemon / host", f"{peak.mebibytes[0]:.0f} MiB / {peak.mebibytes[1]:.0f} MiB"


def bulk() -> Iterator[Row]:
    """One print of 100 MB."""
    with Session() as session:
        session.start_kernel()
        with Peak(daemon(), host(session)) as peak:
            started = time.perf_counter()
            result = session.run('print("y" * 100_000_000)', timeout_secs=None)
            took = time.perf_counter() - started
        assert result.stdout == "y" * 100_000_000 + "\n"
        yield '`print("y" * 100_000_000)`', f"all there, {took:.1f} s"
        yield "… peak memory of daemon / host", f"{peak.mebibytes[0]:.0f} MiB / {peak.mebibytes[1]:.0f} MiB"


def crowd() -> Iterator[Row]:
    """Fifty clients watch one session."""
    with Session() as session:
        session.start_kernel()
        cell_id = session.create_cell("for n in range(1000): print(n, flush=True)")
        expected = "".join(f"{n}\n" for n in range(1000))
        streams = [session.subscribe([cell_id], ["output", "done"]) for _ in range(50)]
        started = time.perf_counter()
        session.execute_cell(cell_id)
        for stream in streams:
            text = ""
            for event in stream:
                if event.event_type == "done":
                    break
                assert event.output is not None
                text += event.output.text or ""
            stream.close()
            assert text == expected
        yield "50 clients watch 1,000 outputs", f"all complete and in order, {time.perf_counter() - started:.1f} s"


def parallel() -> Iterator[Row]:
    """Twenty sessions at once."""
    started = time.perf_counter()
    done: list[str] = []

    def work(number: int) -> None:
        with Session() as session:
            done.append(session.run(f"print({number})", timeout_secs=None).stdout)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(f"{number}\n" for number in range(20))
    yield "20 sessions started, used and stopped in parallel", f"{time.perf_counter() - started:.1f} s"


def join() -> Iterator[Row]:
    """Joining a session of 1,000 cells."""
    with Session("large") as session:
        for number in range(1000):
            session.create_cell(f"# cell {number}\n" + "x = 1\n" * 20)
        session.stop()
    loaded, closed = [], []
    for _ in range(5):
        Client().shutdown()
        with Session("another") as other:
            other.connect()
        with Session("large") as session:
            closed.append(seconds(lambda: _all_cells(session)))
        with Session("large") as session:
            loaded.append(seconds(lambda: _all_cells(session)))
    yield "Joining a closed session of 1,000 cells, and reading them", f"{statistics.median(closed) * 1e3:.0f} ms"
    yield "Joining one that is open, and reading them", f"{statistics.median(loaded) * 1e3:.0f} ms"


def _all_cells(session: Session) -> None:
    assert len(session.get_cells()) == 1000


def idle() -> Iterator[Row]:
    """What a daemon with five idle sessions costs."""
    sessions = [Session(f"idle {number}") for number in range(5)]
    for session in sessions:
        session.start_kernel()
    process = daemon()
    before = sum(process.cpu_times()[:2])
    time.sleep(10)
    share = (sum(process.cpu_times()[:2]) - before) / 10
    for session in sessions:
        session.close()
    yield "CPU of an idle daemon with 5 sessions", f"{share * 100:.1f} %"
    yield "… its memory", f"{process.memory_info().rss / 2**20:.0f} MiB"


MEASUREMENTS = (
    *(run, read, lines, bulk, flood, late, crowd, parallel, join, documents, idle),
    *(environments, spares, frontends, browser, spare_browsers, markdown),
)


def main(names: list[str]) -> None:
    """Measure what was asked for."""
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {Path(__file__).parent.parent.parent.name}\n")
    print("| measured | figure |\n| --- | --- |", flush=True)
    for measure in MEASUREMENTS:
        if not names or measure.__name__ in names:
            with own_daemon():
                for what, figure in measure():
                    print(f"| {what} | {figure} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
