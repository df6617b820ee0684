"""Every state, every event, and the deadlines between them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.lifecycle import (
    STEPS,
    Activity,
    Limits,
    SessionEvent,
    SessionState,
    close_reason,
    next_deadline,
    step,
)

S, E = SessionState, SessionEvent

ENDINGS = {
    E.STOPPED: (S.CLOSED, "stopped"),
    E.BLOCK_FAILED: (S.CLOSED, "error"),
    E.ABANDONED: (S.CLOSED, "abandoned"),
    E.IDLE_TOO_LONG: (S.TIMED_OUT, "idle_timeout"),
    E.LASTED_TOO_LONG: (S.TIMED_OUT, "max_duration"),
    E.DIED: (S.ERROR, "died"),
    E.HOST_LOST: (S.ERROR, "host_lost"),
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product([None, *S], E)))
def test_every_state_takes_every_event_as_the_design_says(state, event):
    if event is E.STARTED:
        expected = None if state is S.ACTIVE else S.ACTIVE
    else:
        expected = ENDINGS[event][0] if state is S.ACTIVE else None

    assert step(state, event) is expected
    assert set(STEPS) == {None, *S}


@pytest.mark.parametrize("event", list(E))
def test_the_close_reason_says_how_a_session_ended(event):
    assert close_reason(event) == (None if event is E.STARTED else ENDINGS[event][1])


def activity(**changes) -> Activity:
    return Activity(**{"started_at": 100.0, "used_at": 200.0, "peers": 0, "left_at": 150.0, "busy": False, **changes})


def test_a_durable_session_without_limits_never_ends_by_itself():
    assert next_deadline(Limits(), activity()) is None


def test_an_idle_session_times_out_after_its_last_use():
    assert next_deadline(Limits(timeout_minutes=0.5), activity()) == (230.0, E.IDLE_TOO_LONG)
    assert next_deadline(Limits(timeout_minutes=0.5), activity(busy=True)) is None


def test_an_ephemeral_session_is_abandoned_when_everybody_left():
    limits = Limits(ephemeral=True, keep_alive=30)

    assert next_deadline(limits, activity()) == (180.0, E.ABANDONED)
    assert next_deadline(limits, activity(peers=1)) is None
    assert next_deadline(limits, activity(busy=True)) is None


def test_the_longest_duration_counts_even_while_a_cell_runs():
    limits = Limits(max_duration_minutes=1, timeout_minutes=0.1)

    assert next_deadline(limits, activity(busy=True)) == (160.0, E.LASTED_TOO_LONG)


@given(
    st.floats(0, 10),
    st.floats(0, 10),
    st.booleans(),
    st.floats(0, 1000),
    st.floats(0, 1000),
    st.integers(0, 2),
    st.booleans(),
)
def test_the_deadline_is_the_earliest_that_applies(timeout, longest, ephemeral, used_at, left_at, peers, busy):
    limits = Limits(timeout_minutes=timeout, max_duration_minutes=longest, ephemeral=ephemeral, keep_alive=30)
    now = Activity(started_at=0, used_at=used_at, peers=peers, left_at=left_at, busy=busy)
    candidates = [longest * 60]
    if not busy:
        candidates.append(used_at + timeout * 60)
        if ephemeral and not peers:
            candidates.append(left_at + 30)

    deadline = next_deadline(limits, now)

    assert deadline is not None
    assert deadline[0] == min(candidates)
