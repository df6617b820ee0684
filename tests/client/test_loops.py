"""One asynchronous handle in several event loops, in turn and at the same time, and streams that are left."""

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from runtimed import (
    AsyncBrowserSession,
    AsyncClient,
    AsyncSession,
    ConnectionLost,
    NotConnected,
    RuntimedError,
    Session,
)
from runtimed.client.aio import AHEAD, AsyncConnection
from runtimed.protocol.events import MAX_INLINE
from tests.conftest import wait_until

LINES = "for n in range(3): print(n, flush=True)"


@pytest.fixture(scope="module")
def work(shared_daemon) -> Iterator[Session]:
    """A session with a kernel, which counts what runs in it."""
    with Session("loops", label="tests") as session:
        session.run("ran = 0")
        yield session
        session.stop()


@pytest.fixture(autouse=True)
def silence(capfd, recwarn, monkeypatch) -> Iterator[None]:
    """Nothing may be said by whoever collects what was left: neither warnings nor exceptions that nobody sees."""
    unseen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unseen.append)
    yield
    gc.collect()
    assert unseen == []
    assert [str(warning.message) for warning in recwarn] == []
    assert capfd.readouterr().err == ""


def loop_that_complains() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


def run(coroutine: Any) -> Any:
    """`asyncio.run`, whose loop tells of what it finds left behind."""
    found: list[Any] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: found.append(context))
        result = await coroutine
        gc.collect()
        return result

    with asyncio.Runner(loop_factory=loop_that_complains) as runner:
        result = runner.run(main())
    assert found == []
    return result


# --- loops ------------------------------------------------------------------------------------------------------------


def test_a_handle_works_in_one_loop_after_the_other_and_runs_everything_once(work):
    session = AsyncSession("loops")
    work.run("ran = 0")
    run(session.connect())
    for n in range(1, 4):
        assert run(session.run("ran += 1; print(ran)")).stdout == f"{n}\n"
        assert run(session.is_connected())
    assert run(session.get_cell_ids()) == work.get_cell_ids()
    assert run(session.status()).peers == 2
    run(session.close())
    wait_until(lambda: work.status().peers == 1, "it is still there")
    with pytest.raises(NotConnected):
        run(session.get_cells())


def test_a_handle_works_in_loops_that_are_closed_without_a_word(work):
    session = AsyncSession("loops")
    for n in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(session.connect())
        assert loop.run_until_complete(session.run(f"print({n})")).stdout == f"{n}\n"
        loop.close()
    run(session.close())


def test_what_a_loop_left_unfinished_runs_on_and_another_loop_waits_for_it(work, tmp_path):
    gate = tmp_path / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('once')"
    session = AsyncSession("loops")

    async def begin() -> str:
        cell_id = await session.create_cell(code)
        task = asyncio.create_task(session.execute_cell(cell_id))
        while (await session.get_cell(cell_id)).execution_id is None:
            pass
        del task  # which ends with the loop
        return (await session.get_cell(cell_id)).execution_id or ""

    run(session.connect())
    execution_id = run(begin())
    gate.touch()
    assert run(session.wait(execution_id)).stdout == "once\n"
    run(session.close())


def test_a_handle_works_in_several_loops_of_several_threads_at_the_same_time(work):
    session = AsyncSession("loops")
    run(session.connect())
    results: dict[int, str] = {}
    together = threading.Barrier(4)

    async def main(n: int) -> None:
        together.wait()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(session.run(f"print({n}, {m})")) for m in range(3)]
            await session.get_cell_ids()
            events = session.subscribe()
            await session.create_cell(f"# {n}")
            assert (await anext(events)).event_type is not None
            del events
        results[n] = "".join(task.result().stdout for task in tasks)

    threads = [threading.Thread(target=asyncio.run, args=(main(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {n: f"{n} 0\n{n} 1\n{n} 2\n" for n in range(4)}
    run(session.close())


def test_closing_in_one_loop_ends_what_waits_in_another_thread_s(work):
    session = AsyncSession("loops")
    ended: list[BaseException | None] = []

    async def wait() -> None:
        await session.connect()
        events = session.subscribe(cell_ids=["none"])
        waiting = [
            asyncio.create_task(session.run("import time; time.sleep(60)")),
            asyncio.ensure_future(anext(events)),
        ]
        await asyncio.wait(waiting[:1])
        ended.append(waiting[0].exception())
        waiting[1].cancel()
        await asyncio.wait(waiting)

    thread = threading.Thread(target=asyncio.run, args=(wait(),))
    thread.start()
    wait_until(lambda: work.status().kernel_status == "busy", "it does not run")
    run(session.close())
    thread.join(60)
    work.interrupt()
    assert [str(exc) for exc in ended] == ["The connection to the daemon is closed"]


def test_closing_the_handle_ends_its_streams_in_every_loop(work):
    session = AsyncSession("loops")
    past = work.run(LINES).execution_id
    ended: list[str] = []
    waits, is_closed = threading.Event(), threading.Event()

    async def consume(events: Any) -> None:
        try:
            async for event in events:
                assert event.event_type != "output"
        except NotConnected as exc:
            ended.append(str(exc))
        assert [event async for event in events] == []

    async def wait() -> None:
        await session.connect()
        execution = await session.submit(code="import time; time.sleep(60)")
        streams = [session.subscribe(cell_ids=["none"]), execution.events(), (await session.execution(past)).events()]
        assert (await anext(streams[2])).event_type == "execution_started"  # the others have arrived
        consumers = [asyncio.create_task(consume(await events)) for events in streams[:2]]
        await asyncio.sleep(0)
        waits.set()
        await asyncio.wait(consumers)
        await asyncio.to_thread(is_closed.wait, 60)
        await session.connect()
        await consume(streams[2])  # although the handle is connected again

    thread = threading.Thread(target=asyncio.run, args=(wait(),))
    thread.start()
    wait_until(waits.is_set, "nobody waits")
    closing = AsyncConnection.close

    def close_last(connection: AsyncConnection) -> None:
        if connection is session._connection:
            wait_until(lambda: len(ended) >= 2, "a stream may find the handle closed before it has ended")
        closing(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncConnection, "close", close_last)
        run(session.close())
    is_closed.set()
    thread.join(60)
    work.interrupt()
    run(session.close())
    assert ended == 3 * ["Not connected: this handle of session 'loops' was closed; connect() joins the session again"]


@pytest.mark.parametrize("moment", ["the first", "after a break"])
def test_a_handle_that_is_closed_while_it_connects_ends_the_call_and_stays_closed(work, moment):
    async def main() -> None:
        session = AsyncSession("loops")
        if moment == "after a break":
            await session.connect()
            link = session._connection._home().link
            assert link is not None
            link.close()
        opening = AsyncConnection._connect

        async def close_meanwhile(connection: AsyncConnection, *args: Any) -> None:
            patch.undo()
            await session.close()
            await opening(connection, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AsyncConnection, "_connect", close_meanwhile)
            with pytest.raises(ConnectionLost, match="The connection to the daemon is closed"):
                await session.create_cell("never written")
        assert not await session.is_connected()

    run(main())
    assert "never written" not in [cell.source for cell in work.get_cells()]


@pytest.mark.parametrize("whose", ["stream", "session"])
def test_a_stream_that_is_closed_while_it_begins_has_ended(work, whose):
    async def main() -> Any:
        async with AsyncSession("loops") as session:
            events = session.subscribe()
            first = asyncio.create_task(anext(events, None))
            opening = AsyncConnection._connect

            async def close_meanwhile(connection: AsyncConnection, *args: Any) -> None:
                await opening(connection, *args)
                patch.undo()
                await (events.aclose() if whose == "stream" else session.close())

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(AsyncConnection, "_connect", close_meanwhile)
                await asyncio.wait([first], timeout=30)
            assert not events._connection.is_open
            return first.exception() or first.result()

    assert type(run(main())) is {"stream": type(None), "session": NotConnected}[whose]


def test_a_client_and_a_browser_s_handle_have_no_favourite_loop_either(work):
    client, browser = AsyncClient(), AsyncBrowserSession("no-browser")
    for _ in range(2):
        assert run(client.ping())
        assert "loops" in [status.session_id for status in run(client.sessions.list())]
        assert run(browser.status()).status == "not_started"
        with pytest.raises(RuntimedError):
            run(browser.observe())


def test_a_stream_belongs_to_the_loop_in_which_it_began_and_says_so(work):
    session = AsyncSession("loops")
    run(session.connect())

    async def begin() -> Any:
        return session.subscribe()

    events = run(begin())
    with pytest.raises(RuntimedError, match="This stream belongs to another event loop; make one in this loop"):
        run(anext(events))
    with pytest.raises(RuntimedError, match=r"subscribe\(\) counts from the call"):
        session.subscribe()
    run(events.aclose())
    run(session.close())


# --- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_that_nobody_reads_holds_little_and_loses_nothing(work):
    async def main() -> None:
        async with AsyncSession("loops") as session:
            execution = await session.submit(code="for n in range(40): print(str(n % 10) * 1_000_000)")
            events = execution.events()
            await anext(events)
            await execution.wait()
            assert events._events is not None
            assert sum(map(len, events._events._arrived)) <= AHEAD + MAX_INLINE + 1000
            texts = [event.output.text or "" async for event in events if event.output is not None]
            assert "".join(texts) == "".join(f"{str(n % 10) * 1_000_000}\n" for n in range(40))

    run(main())


def test_a_loop_over_events_is_left_without_a_word(work):
    async def main() -> None:
        async with AsyncSession("loops") as session:
            for cell_id in [await session.create_cell(LINES) for _ in range(3)]:
                async for event in session.stream_execute(cell_id):
                    assert event.event_type == "execution_started"
                    break
                with pytest.raises(ZeroDivisionError):
                    await _fail_within(session.stream_execute(cell_id))
            async for _event in session.subscribe():
                await session.create_cell("# left")
                break

    async def events() -> None:
        session = AsyncSession("loops")
        await session.connect()
        cell_id = await session.create_cell(LINES)
        session.stream_execute(cell_id)
        session.subscribe()
        kept = session.stream_execute(cell_id)
        await anext(kept)
        await kept.aclose()
        await kept.aclose()
        assert [event async for event in kept] == []
        await session.close()

    run(_with_edits(work, main()))
    run(events())
    wait_until(lambda: work.status().peers == 1, "a stream lives on")


async def _fail_within(events: Any) -> None:
    async for _event in events:
        raise ZeroDivisionError


async def _with_edits(session: Session, coroutine: Any) -> None:
    """Let somebody edit while a coroutine works, so that there are events."""
    stop = threading.Event()

    def edit() -> None:
        with Session("loops") as other:
            while not stop.wait(0.05):
                other.create_cell("# by another")

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        await coroutine
    finally:
        stop.set()
        thread.join()


def test_a_cancelled_task_leaves_its_stream_as_it_was_and_nothing_is_lost(work):
    async def main() -> list[str]:
        async with AsyncSession("loops") as session:
            stream = session.stream_execute(
                await session.create_cell("ran += 1\nimport time; time.sleep(0.5)\n" + LINES)
            )
            texts = ""
            impatient = 0
            while True:
                try:
                    async with asyncio.timeout(0.002 * impatient):
                        event = await anext(stream)
                except TimeoutError:
                    impatient += 1
                    continue
                except StopAsyncIteration:
                    break
                if event.output is not None:
                    texts += event.output.text or ""
            return [texts]

    work.run("ran = 0")
    assert run(main()) == ["0\n1\n2\n"]
    assert work.run("print(ran)").stdout == "1\n"


def test_two_tasks_do_not_share_a_stream(work):
    async def main() -> None:
        async with AsyncSession("loops") as session:
            stream = session.subscribe(cell_ids=["none"])
            first = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            with pytest.raises(RuntimedError, match="Another task waits for the next event of this stream"):
                await anext(stream)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            waiting = asyncio.create_task(anext(stream))
            await asyncio.sleep(0.05)
            await stream.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting

    run(main())


def test_a_program_ends_with_streams_and_calls_open_and_says_nothing(work):
    script = """
import asyncio, sys
from runtimed import AsyncSession

session = AsyncSession("loops")

async def main():
    await session.connect()
    global events, stream
    events = session.subscribe()
    stream = session.stream_execute(await session.create_cell("print(1)"))
    await anext(stream)
    asyncio.create_task(anext(events)).add_done_callback(lambda task: None)
    global task
    task = asyncio.create_task(session.run("import time; time.sleep(0.2)"))
    await asyncio.sleep(0.05)

asyncio.run(main())
asyncio.run(session.get_cell_ids())
loop = asyncio.new_event_loop()
loop.run_until_complete(session.get_cell_ids())
print("done")
loop.close()
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


# --- subscribing ------------------------------------------------------------------------------------------------------


def test_a_subscription_counts_from_the_call_in_whichever_loop(work):
    session = AsyncSession("loops")
    run(session.connect())

    async def main(*, connected: bool) -> list[str]:
        if connected:
            await session.connect()
        events = session.subscribe(event_types=["cell_changed"])
        # On another connection, which the daemon reads in no order with that of the subscriber.
        expected = [await asyncio.to_thread(work.create_cell, f"# {n}") for n in range(3)]
        assert [str((await anext(events)).cell_id) for _ in expected] == expected
        await events.aclose()
        return expected

    for _ in range(5):
        run(main(connected=True))
    run(main(connected=False))
    run(session.close())


def test_a_blocking_subscription_counts_from_the_call_too(work):
    events = work.subscribe(event_types=["cell_changed"])
    with Session("loops") as other:
        expected = [other.create_cell(f"# {n}") for n in range(3)]
    assert [next(events).cell_id for _ in expected] == expected
    events.close()
