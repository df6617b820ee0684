"""A kernel that ends while it runs something: what whoever sees that end can rely on; real hosts and kernels."""

import asyncio
import re

import pytest

from runtimed import AsyncSession
from runtimed.daemon.hosting.kernel_start import KernelRequest
from runtimed.daemon.rooms.environment import KernelEnvironment
from runtimed.daemon.rooms.kernel import RoomKernel
from runtimed.environments.decision import Decision
from runtimed.errors import ExecutionCancelled, RuntimedError
from runtimed.ids import HostEpoch
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Finished
from tests.daemon.conftest import daemon_with_a_clock, until


def test_whoever_sees_an_execution_die_sees_a_dead_kernel_and_gets_a_new_one(own_folder, monkeypatch):
    seen: list[tuple[str, int | None]] = []
    take = RoomKernel.host_events

    def take_one_by_one(kernel: RoomKernel, epoch: HostEpoch, events: list[tuple[int, bytes]]) -> None:
        for event in events:
            take(kernel, epoch, [event])
            if isinstance(finished := decode_event(event[1]), Finished) and finished.status == "died":
                seen.append((kernel.status, kernel.pid))

    monkeypatch.setattr(RoomKernel, "host_events", take_one_by_one)

    async def scenario() -> None:
        async with daemon_with_a_clock(), AsyncSession("s") as session:
            result = await session.run("import os; os._exit(3)")
            assert result.error is not None
            assert result.error.ename == "KernelDied"
            status = await session.status()
            assert (status.status, status.close_reason) == ("error", "died")

            assert (await session.run("print('again')")).stdout == "again\n"
            assert (await session.status()).status == "active"

    asyncio.run(scenario())
    assert seen == [("dead", None)]


def test_what_is_queued_while_a_kernel_is_replaced_runs_in_the_next(own_folder):
    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon), AsyncSession("s") as session:
            running = await session.queue_cell(await session.create_cell("import time; time.sleep(60)"))
            behind = await session.queue_cell(await session.create_cell("print('dropped')"))
            kernel = daemon.room("s").kernel
            await until(lambda: kernel.status == "busy", "the cell does not run")

            restarting = asyncio.create_task(session.restart_kernel())
            await until(lambda: kernel.status == "restarting", "the kernel is not replaced")
            following = await session.queue_cell(await session.create_cell("print('next')"))
            await restarting

            result = await session.wait(running)
            assert (result.error and result.error.ename) == "KeyboardInterrupt"
            with pytest.raises(ExecutionCancelled, match="restarted"):
                await session.wait(behind)
            assert (await session.wait(following)).stdout == "next\n"

    asyncio.run(scenario())


def test_a_start_that_fails_as_nobody_foresaw_leaves_a_session_that_can_start_another_kernel(
    own_folder, monkeypatch, caplog
):
    choose, mistakes = KernelEnvironment.choose, ["first"]

    async def choose_badly(environment: KernelEnvironment, request: KernelRequest) -> Decision:
        if mistakes:
            raise ZeroDivisionError(mistakes.pop())
        return await choose(environment, request)

    monkeypatch.setattr(KernelEnvironment, "choose", choose_badly)

    async def scenario() -> None:
        async with daemon_with_a_clock(), AsyncSession("s") as session:
            with pytest.raises(RuntimedError, match="The daemon made a mistake"):
                await session.start_kernel()
            assert (await session.status()).kernel_status == "not_started"
            assert (await session.run("print('again')")).stdout == "again\n"

    asyncio.run(scenario())
    (line,) = (record.getMessage() for record in caplog.records if record.exc_info)
    assert re.fullmatch(r"StartKernel \(session 's'\) of client \S+ failed", line)
