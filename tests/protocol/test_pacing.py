"""The token bucket: never more than it should, never longer than it says."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.protocol.pacing import TokenBucket

RATES = st.floats(1, 10_000)


def test_a_second_s_worth_goes_at_once_and_then_one_at_a_time():
    bucket = TokenBucket(10)
    assert [bucket.take(5.0) for _ in range(10)] == [0.0] * 10
    assert bucket.take(5.0) == pytest.approx(0.1)
    assert bucket.take(5.05) == pytest.approx(0.05)
    assert bucket.take(5.1) == 0.0
    assert bucket.take(5.1) == pytest.approx(0.1)
    assert [bucket.take(100.0) for _ in range(11)] == [0.0] * 10 + [pytest.approx(0.1)]


@given(RATES, st.lists(st.floats(0, 5), max_size=200))
def test_in_no_stretch_of_time_more_goes_through_than_the_rate_and_one_second_s_worth(rate, pauses):
    bucket, now = TokenBucket(rate), 0.0
    taken: list[float] = []
    for pause in pauses:
        now += pause
        while bucket.take(now) == 0.0 and len(taken) < 20_000:
            taken.append(now)
            if len(taken) % 500 == 0:
                break
    for first in range(0, len(taken), 97):
        for last in range(first, len(taken), 89):
            assert last - first + 1 <= rate * (taken[last] - taken[first]) + rate + 1


@given(RATES, st.floats(-1e6, 1e6), st.integers(1, 200))
def test_who_waits_as_long_as_it_says_goes_through(rate, start, count):
    bucket, now, passed = TokenBucket(rate), start, []
    for _ in range(count):
        delay = bucket.take(now)
        if delay:
            assert 0 < delay <= 1 / rate + 1e-9
            now += delay + 1e-9 * abs(start)
            assert bucket.take(now) == 0.0
        passed.append(now)
    assert all(a <= b for a, b in pairwise(passed))


@given(RATES, st.lists(st.floats(-1e9, 1e9), max_size=50))
def test_a_clock_that_goes_back_lets_nothing_more_through_and_stops_nobody_for_long(rate, times):
    bucket = TokenBucket(rate)
    for now in times:
        assert 0 <= bucket.take(now) <= 1 / rate + 1e-9
    taken = 0
    while bucket.take(-1e9) == 0.0:
        taken += 1
    assert taken <= rate + 1
