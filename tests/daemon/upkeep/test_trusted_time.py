"""A clock that is set wrong deletes nothing: only time that was seen to pass makes anything old."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimed import AsyncSession, RuntimedError
from runtimed.daemon.upkeep.trusted_time import DRIFT, PROOF, SLACK, TrustedTime
from tests.daemon.conftest import daemon_with_a_clock, look

DAY = 86400.0
BEGIN = 1.7e9


def test_a_clock_that_jumps_ahead_is_believed_after_a_day_and_one_that_is_set_back_at_once(tmp_path):
    trusted = TrustedTime(tmp_path / "time.json")
    assert trusted.look(BEGIN, 0.0) == BEGIN
    assert trusted.look(BEGIN + 50, 50.0) == BEGIN + 50
    jumped = BEGIN + 31 * DAY
    assert trusted.look(jumped, 52.0) == BEGIN + 52
    assert trusted.look(jumped + 3600, 3652.0) == BEGIN + 3652
    assert trusted.look(jumped + DAY - 1, 51 + DAY) == BEGIN + 51 + DAY
    assert trusted.look(jumped + DAY, 52 + DAY) == jumped + DAY
    assert trusted.look(BEGIN, 60 + DAY) == BEGIN


def test_a_day_is_seen_by_whichever_daemons_run_and_time_without_one_is_no_proof(tmp_path):
    path, now, seen = tmp_path / "time.json", BEGIN, 0.0
    first = TrustedTime(path)
    first.look(now, 0.0)
    first.save()
    now += 40 * DAY  # a long holiday
    for _ in range(40):  # then an hour a day
        daemon = TrustedTime(path)
        daemon.look(now, 7.0)
        now += 3600
        found = daemon.look(now, 7.0 + 3600)
        daemon.save()
        seen += 3600
        assert (found == now) == (seen >= PROOF)
        now += 12 * 3600
    path.write_bytes(b"\x00 damaged")
    assert TrustedTime(path).look(BEGIN, 1.0) == BEGIN


steps = st.lists(
    st.tuples(
        st.floats(0, 3 * DAY),  # seconds that really pass
        st.one_of(st.just(0.0), st.floats(-400 * DAY, 400 * DAY)),  # by how much the clock is set then
        st.booleans(),  # whether there is another daemon then
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(steps)
def test_no_clock_makes_time_go_faster_than_it_was_seen_to_unless_it_kept_saying_so_for_a_day(tmp_path_factory, given):
    path = tmp_path_factory.mktemp("time") / "time.json"
    daemon, now, steady, stood = TrustedTime(path), BEGIN, 0.0, 0.0
    before = daemon.look(now, steady)
    for passed, jump, is_next in given:
        if is_next:
            daemon.save()
            daemon = TrustedTime(path)
        now, steady = now + passed + jump, steady + passed
        found = daemon.look(now, steady)
        stood = stood + passed if abs(jump) <= DRIFT else 0.0
        assert found <= now
        if found > before + passed + SLACK:
            assert stood >= PROOF
            assert found == now
        before = found


def test_executions_outlive_a_clock_that_jumps_for_a_month_and_go_when_the_month_has_passed(own_folder):
    steady = [0.0]

    async def scenario() -> None:
        async with daemon_with_a_clock(lambda: steady[0]) as (clock, daemon), AsyncSession("s") as session:
            hidden = (await session.run("print('hidden')")).execution_id
            (cell,) = await session.get_cells()
            await session.delete_cell(cell.id)
            daemon.tick()
            clock.now += 31 * DAY
            steady[0] += 2
            await look(daemon)
            assert (await session.wait(hidden)).stdout == "hidden\n"
            clock.now += PROOF
            steady[0] += PROOF
            await look(daemon)
            with pytest.raises(RuntimedError, match="kept for 30 days"):
                await session.wait(hidden)

    asyncio.run(scenario())
