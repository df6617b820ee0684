"""What all tests share: short private folders, and a daemon of their own that leaves nothing running."""

import compileall
import contextlib
import gc
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import hypothesis
import psutil
import pytest

import runtimed
from runtimed import Client

SLOW_FIXTURES: Final = frozenset({"browser", "data_dir", "host", "own_folder", "run", "start_host"})
"""Fixtures that start a daemon or a host for one test, or a Chromium."""

# Without it (PYTHONDONTWRITEBYTECODE) each worker would rewrite the assertions of all tests in each run.
sys.dont_write_bytecode = False

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Compile the package once: else each of the thousands of processes that the tests start may do it for itself."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(runtimed.__file__).parent, quiet=1)


def pytest_collection_finish() -> None:
    """Let garbage collections look at what tests make, and not at the hundreds of thousands of objects of all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def this_python() -> Iterator[None]:
    """Let kernels run in this Python: what other environments do, the tests of environments show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIMED_ENV", "current")
        # What spare kernels do, the tests of the pool show; here they would take time from kernels that are awaited.
        patch.setenv("RUNTIMED_POOL_SIZE", "0")
        # Tests that edit a file say themselves when it is merged; those of autosave turn it on.
        patch.setenv("RUNTIMED_AUTOSAVE", "off")
        yield


@pytest.fixture(scope="session", autouse=True)
def own_ipython_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let kernels write their history elsewhere than whoever runs the tests, or runs more of them beside these.

    All kernels of a folder write into one database; one that finds it locked for too long says so in the cell's output.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        yield


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A private folder with a path short enough for Unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="rt"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data_dir(short_folder: Path) -> Iterator[Path]:
    """A data folder for this test alone; its daemon and all that belongs to it end with the test."""
    with own_daemon(short_folder):
        yield short_folder


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Path]:
    """A data folder, and so a daemon, for the tests of one module."""
    folder = Path(tempfile.mkdtemp(prefix="rt"))
    with own_daemon(folder):
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def own_daemon(folder: Path) -> Iterator[None]:
    """Let clients find their daemon in this folder; afterwards nothing of it is left running."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIMED_DATA_DIR", str(folder))
        patch.delenv("RUNTIMED_SOCKET_PATH", raising=False)
        yield
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIMED_DATA_DIR", str(folder))
        patch.delenv("RUNTIMED_SOCKET_PATH", raising=False)
        Client().shutdown()
    wait_until(lambda: not processes_of(folder), "a process of the test lives on")


def processes_of(folder: Path) -> list[psutil.Process]:
    """The daemon, hosts and kernels that use a data folder."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            command = " ".join(process.cmdline())
            if str(folder) in command or (
                "runtimed" in command and process.environ().get("RUNTIMED_DATA_DIR") == str(folder)
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for process in found if lives(process)]


def lives(process: psutil.Process) -> bool:
    """Whether a process has not ended; one that was not waited for has."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def command_of(process: psutil.Process) -> list[str]:
    """What a process was started with; nothing if it has just ended, or was forked just now to be something else."""
    try:
        command, parent = list(process.cmdline()), process.parent()
    except psutil.NoSuchProcess:
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        if parent is not None and parent.cmdline() == command:
            return []
    return command


def wait_until(condition: Callable[[], object], message: str, timeout: float = 30.0) -> None:
    """Wait until a condition holds, or fail.

    Most conditions ask the daemon, or look at all processes: what takes longer is asked for less often.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > timeout:
            pytest.fail(message)
        time.sleep(min(0.01 + waited / 20, 0.05))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for long runs."""
    parser.addoption("--faults", type=int, help="rounds of tests/faults (one of each fault)")
    parser.addoption("--first-fault", type=int, default=0, help="the first seed of tests/faults (0)")
    parser.addoption("--frames", type=int, default=8_000, help="frames of tests/daemon/serving/test_fuzz.py (8,000)")
    parser.addoption("--steps", type=int, default=1_000, help="steps of tests/daemon/serving/test_model.py (1,000)")
    parser.addoption("--soak", type=float, default=0.4, help="minutes of tests/faults/test_soak.py (0.4)")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by what it uses, and begin with the files that may take longest.

    At the end no worker is left alone with one of them.
    """

    def patience(item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return 0.0 if marker is None else marker.args[0]

    longest: dict[Path, float] = {}
    slow: Counter[Path] = Counter()
    for item in items:
        fixtures = item.fixturenames if isinstance(item, pytest.Function) else ()
        if patience(item) or not SLOW_FIXTURES.isdisjoint(fixtures):
            item.add_marker("slow")
        longest[item.path] = max(longest.get(item.path, 0.0), patience(item))
        slow[item.path] += item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: (-longest[item.path], -slow[item.path]))
