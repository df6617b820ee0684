"""Deadlines with a clock that the test moves: a daemon inside the test's own loop, real hosts and kernels."""

import asyncio

from runtimed import AsyncClient, AsyncSession
from runtimed.client.aio import AsyncConnection
from runtimed.client.identity import Identity
from runtimed.daemon.serving.daemon import PRUNE_EVERY, PRUNE_FIRST
from runtimed.daemon.serving.overview import daemon_status
from runtimed.protocol.execution_operations import Enqueue
from runtimed.protocol.session_operations import Join
from tests.daemon.conftest import daemon_with_a_clock, until
from tests.environments.test_prune import make


def test_an_idle_session_lives_to_its_deadline_and_not_beyond(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            session = AsyncSession("s", timeout_minutes=10)
            await session.run("1")

            async def ended() -> bool:
                return (await session.status()).status == "timed_out"

            clock.now += 599
            daemon.tick()
            assert not await ended()
            clock.now += 2
            await until(ended, "the session does not time out")
            assert (await session.status()).closed_at is not None
            await session.close()

    asyncio.run(scenario())


def test_a_running_cell_keeps_a_session_from_being_idle_but_not_from_lasting_too_long(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            session = AsyncSession("s", timeout_minutes=1, max_duration_minutes=60)
            await session.start_kernel()
            execution_id = await session.queue_cell(await session.create_cell("import time; time.sleep(1000)"))
            clock.now += 3000
            daemon.tick()
            assert (await session.status()).status == "active"
            clock.now += 601
            result = await session.wait(execution_id)
            assert not result.success
            status = await session.status()
            assert (status.status, status.close_reason) == ("timed_out", "max_duration")
            await session.close()

    asyncio.run(scenario())


def test_a_cell_that_asks_a_client_which_is_gone_is_interrupted_once_it_holds_others_up(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon), AsyncSession("s") as session:
            await session.start_kernel()
            asker = AsyncConnection(Identity(), Join(notebook_id="s"))
            await asker.open()
            operation = Enqueue(
                notebook_id="s", execution_id="e", cell_id="c", source="input('name? ')", watch=False, stdin=True
            )
            await asker.perform(_ask(operation))
            await until(lambda: daemon.room("s").kernel.executions.asking, "the cell does not ask")
            asker.close()
            await until(lambda: daemon_status(daemon).rooms[0].active_peers == 1, "the asker is still there")
            for _ in range(2):
                daemon.tick()
                clock.now += 31
            assert daemon.room("s").kernel.executions.asking, "somebody may come back and answer"
            await session.queue_cell(await session.create_cell("1"))
            for _ in range(2):
                daemon.tick()
                assert daemon.room("s").kernel.executions.asking
                clock.now += 31
            daemon.tick()
            result = await session.wait("e")
            assert result.error is not None
            assert result.error.ename == "KeyboardInterrupt"
            log = await AsyncClient().sessions.log("s")
            entry = next(entry for entry in log if entry.action == "execution_cancelled")
            assert (entry.action, entry.execution_id, entry.client_id) == ("execution_cancelled", "e", None)

    asyncio.run(scenario())


def test_environments_that_nobody_has_used_for_long_are_removed_by_and_by(own_folder, monkeypatch):
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "1e9")

    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            folder = daemon.settings.environments_dir
            old, new = make(folder, "a", 31, at=clock.now), make(folder, "b", 29, at=clock.now)
            clock.now += PRUNE_FIRST
            daemon.tick()
            await until(lambda: not old.exists(), "the old environment is still there")
            clock.now += PRUNE_EVERY - 1
            daemon.tick()
            assert new.exists()
            clock.now += 86400
            daemon.tick()
            await until(lambda: not new.exists(), "the other environment is still there")

    asyncio.run(scenario())


def _ask(operation: Enqueue):
    from runtimed.client.flows import ask

    yield from ask(operation)
