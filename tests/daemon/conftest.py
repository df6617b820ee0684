"""A daemon inside the test's own loop, with a clock that the test moves; its hosts and kernels are real."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from runtimed.daemon.hosting.launcher import Launcher
from runtimed.daemon.hosting.local import LocalLauncher, reap_hosts
from runtimed.daemon.serving.daemon import Daemon
from runtimed.daemon.serving.server import own_data_folder, serve
from runtimed.settings import Settings, read_settings
from tests.conftest import wait_until


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def daemon_with_a_clock(
    steady: Callable[[], float] | None = None,
    launcher: Callable[[Settings], Launcher] = LocalLauncher,
    *,
    keep_kernels: bool = False,
) -> AsyncIterator[tuple[Clock, Daemon]]:
    clock = Clock()
    settings = read_settings()
    with own_data_folder(settings):
        daemon = Daemon(settings, clock, steady or clock, launcher)
        ready = asyncio.Event()
        running = asyncio.create_task(serve(daemon, on_ready=ready.set))
        await ready.wait()
        try:
            yield clock, daemon
            await daemon.shut_down(keep_kernels=keep_kernels)
        finally:
            daemon.request_end()
            await running


async def look(daemon: Daemon) -> None:
    """Let the daemon look for what is too old, now and to the end."""
    for _ in range(2):
        # One that had begun by itself may have been past what is to be seen.
        await daemon.retention.looked()
        daemon.retention.look_soon()
        daemon.tick()
    await daemon.retention.looked()


async def until(condition: Callable[[], object], message: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        result = condition()
        if await result if asyncio.iscoroutine(result) else result:
            return
        if time.monotonic() > deadline:
            pytest.fail(message)
        await asyncio.sleep(0.02)


@pytest.fixture
def own_folder(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    short_folder.chmod(0o700)
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    monkeypatch.delenv("RUNTIMED_SOCKET_PATH", raising=False)
    yield short_folder
    wait_until(lambda: reap_hosts() == 0, "a host lives on")
