"""Whose bulk waits for whom."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from runtimed.daemon.flow import CREDIT, LATELY, SHARE, Demand, Flow


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # the clock makes no event
            await asyncio.sleep(0.001)


def test_a_session_that_nobody_competes_with_never_waits():
    async def main() -> None:
        demand = Demand()
        flow = Flow(demand, "a")
        flow.spent(10.0)
        assert flow.is_open
        demand.note("a")
        demand.note("a")
        assert flow.is_open

    run(main)


def test_what_is_within_the_credit_never_waits():
    async def main() -> None:
        demand = Demand()
        flow = Flow(demand, "a")
        demand.note("b")
        flow.spent(CREDIT)
        assert flow.is_open

    run(main)


def test_a_session_beyond_its_share_waits_while_others_ask_and_no_longer():
    async def main() -> None:
        demand = Demand()
        flow, other = Flow(demand, "a"), Flow(demand, "b")
        demand.note("b")
        demand.note("a")
        flow.spent(1000.0)
        other.spent(CREDIT / 2)
        assert not flow.is_open
        assert other.is_open
        # b asks no more: a is alone again, however much it has had.
        await until(lambda: flow.is_open)
        demand.note("b")
        assert not flow.is_open

    run(main)


def test_who_waits_goes_on_when_its_share_allows_it():
    async def main() -> None:
        demand = Demand()
        flow = Flow(demand, "a")
        spent = 2 * CREDIT
        flow.spent(spent)
        done: list[float] = []
        demand.note("b")
        started = time.monotonic()
        flow.later(lambda: done.append(time.monotonic()))
        while not done:
            demand.note("b")
            await asyncio.sleep(0.001)
        assert done[0] - started >= 0.9 * spent / SHARE

    run(main)


def test_a_session_that_had_much_while_it_was_alone_has_its_share_all_the_same():
    async def main() -> None:
        demand = Demand()
        flow = Flow(demand, "a")
        flow.spent(1000.0)
        done: list[int] = []
        flow.later(lambda: done.append(1))
        async with asyncio.timeout(20):
            while not done:
                demand.note("b")
                await asyncio.sleep(0.001)

    run(main)


def test_who_waits_goes_on_when_nobody_asks_any_more():
    async def main() -> None:
        demand = Demand()
        flow = Flow(demand, "a")
        demand.note("b")
        flow.spent(1000.0)
        done: list[int] = []
        flow.later(lambda: done.append(1))
        await until(lambda: done)

    run(main)


def test_each_piece_has_a_turn_of_its_own_in_the_order_of_asking():
    async def main() -> None:
        flow = Flow(Demand(), "a")
        done: list[str] = []
        for name in ("one", "two", "three"):
            flow.later(lambda name=name: done.append(name))  # type: ignore[misc]  # a default
            asyncio.get_running_loop().call_soon(done.append, "somebody else")
        await until(lambda: "three" in done)
        assert [name for name in done if name != "somebody else"] == ["one", "two", "three"]
        assert done.index("two") - done.index("one") > 1

    run(main)


def test_while_it_is_held_nothing_goes_on_and_what_only_needs_the_storage_goes_first():
    async def main() -> None:
        flow = Flow(Demand(), "a")
        done: list[str] = []
        flow.later(lambda: done.append("bulk"))
        flow.hold()
        flow.when_released(lambda: done.append("request"))
        assert not flow.is_open
        await asyncio.sleep(2 * LATELY)
        assert done == []
        flow.release()
        await until(lambda: len(done) == 2)
        assert done == ["request", "bulk"]
        assert flow.is_open

    run(main)


def test_a_piece_that_fails_does_not_stop_the_next():
    async def main() -> None:
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context["exception"]))
        flow = Flow(Demand(), "a")
        done: list[int] = []
        error = ValueError("no")

        def fail() -> None:
            raise error

        flow.later(fail)
        flow.later(lambda: done.append(1))
        await until(lambda: done)
        assert failures == [error]

    run(main)
