"""A kernel whose host runs where nothing of the daemon's is: frames on a bridge's streams get there."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed import AsyncSession
from runtimed.daemon.hosting.kernel_start import KernelRequest
from runtimed.daemon.hosting.launcher import Place
from runtimed.daemon.rooms.environment import KernelEnvironment
from runtimed.daemon.serving.daemon import Daemon
from runtimed.environments.decision import Decision
from runtimed.environments.recipes import UvRecipe
from runtimed.settings import Settings
from tests.daemon.conftest import daemon_with_a_clock, until
from tests.daemon.hosting.far import FarLauncher, bridges

LARGE = "from IPython.display import display\ndisplay({'text/plain': '%s' * 2_000_000}, raw=True)"
"""Shows a large value: a blob, which comes in two pieces."""

SIZE = 2_000_000


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RUNTIMED_POOL_SIZE", "0")
    path = Path("/tmp") / f"rtfar{os.getpid()}"
    path.mkdir(mode=0o700)
    yield path
    for bridge in bridges:
        bridge.wait(timeout=30)
    bridges.clear()
    assert list((path / "run").glob("*/host.sock")) == []
    shutil.rmtree(path)


def blobs_there(far: Path) -> list[Path]:
    return [path for path in far.glob("**/blobs/*/*/*") if path.is_file()]


WAIT = "import os, time\nwhile not os.path.exists({!r}):\n    time.sleep(0.05)\n"


async def gamma_is_named(_environment: KernelEnvironment, _request: KernelRequest) -> Decision:
    return Decision(source="uv:inline", reason="it is named", recipe=UvRecipe(dependencies=("gamma",)))


def test_a_kernel_elsewhere_starts_shows_large_values_outlives_its_daemon_and_ends(
    own_folder: Path, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KernelEnvironment, "choose_again", gamma_is_named)

    def launcher(settings: Settings) -> FarLauncher:
        return FarLauncher(settings, far)

    async def first(daemon: Daemon) -> tuple[str, str]:
        async with AsyncSession("far") as session:
            shown = await session.run(LARGE % "x")
            assert shown.outputs[0].data == {"text/plain": "x" * SIZE}
            [name] = daemon.blobs.older_than(float("inf"))
            await until(lambda: not blobs_there(far), "the host keeps what the daemon has")
            assert (await session.run("kept = 41\nprint('here')")).stdout == "here\n"
            added = await session.sync_environment()
            assert (added.success, added.needs_restart) == (False, True), "no folder there is within reach"
            cell = await session.create_cell(WAIT.format(str(far / "flag")) + "print('while away')")
            await session.queue_cell(cell)
            return cell, name

    async def second(daemon: Daemon, cell: str, name: str) -> None:
        async with AsyncSession("far") as session:
            assert (await session.run("print(kept + 1)")).stdout == "42\n"
            outputs = await session.get_cell_outputs(cell)
            assert [output.text for output in outputs or []] == ["while away\n"]
            assert daemon.blobs.read(name, 0, 3) == b"xxx"
            await session.stop()
            assert daemon.launcher.places() == []

    async def scenario() -> None:
        async with daemon_with_a_clock(launcher=launcher, keep_kernels=True) as (_clock, daemon):
            cell, name = await first(daemon)
        (far / "flag").touch()
        async with daemon_with_a_clock(launcher=launcher) as (_clock, daemon):
            await second(daemon, cell, name)

    asyncio.run(scenario())


def test_what_a_host_elsewhere_said_while_no_daemon_came_is_taken_after_its_death(own_folder: Path, far: Path) -> None:
    def launcher(settings: Settings) -> FarLauncher:
        return FarLauncher(settings, far)

    async def first(daemon: Daemon) -> tuple[str, Place, int | None]:
        async with AsyncSession("far") as session:
            await session.run("1")
            cell = await session.create_cell(WAIT.format(str(far / "flag")) + LARGE % "y" + "\ntime.sleep(600)")
            await session.queue_cell(cell)
            [place] = daemon.launcher.places()
            return cell, place, (await session.status()).host_pid

    async def second(daemon: Daemon, cell: str) -> None:
        async with AsyncSession("far") as session:

            async def is_taken() -> bool:
                outputs = await session.get_cell_outputs(cell)
                return bool(outputs and outputs[0].data == {"text/plain": "y" * SIZE})

            await until(is_taken, "what was shown is lost")
            assert (await session.status()).close_reason == "host_lost"
            await until(lambda: daemon.launcher.places() == [], "what the host has left stays")

    async def scenario() -> None:
        async with daemon_with_a_clock(launcher=launcher, keep_kernels=True) as (_clock, daemon):
            cell, place, pid = await first(daemon)
        (far / "flag").touch()
        assert pid is not None
        await until(lambda: blobs_there(far), "the kernel shows nothing while no daemon is there")
        await asyncio.to_thread(launcher(daemon.settings).signal, place, pid, signal.SIGKILL)
        async with daemon_with_a_clock(launcher=launcher) as (_clock, daemon):
            await second(daemon, cell)

    asyncio.run(scenario())
