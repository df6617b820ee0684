"""When a session's file is due, and what the daemon and the process that keeps it tell each other."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed.ids import SessionId
from runtimed.notebook_file.keeping import (
    LONGEST,
    QUIET,
    REST,
    Keep,
    Leave,
    Saved,
    SaveFile,
    Schedule,
    Seen,
    decoded,
    encoded,
)

S = SessionId("a session é\n")


def test_a_file_is_due_when_nothing_has_changed_for_two_seconds():
    schedule = Schedule()
    assert (schedule.due_at, schedule.is_saved) == (None, True)
    schedule.changed(100.0)
    schedule.changed(101.0)
    assert (schedule.due_at, schedule.is_saved) == (101.0 + QUIET, False)


@given(st.lists(st.floats(0, 1.9), min_size=1, max_size=60))
def test_a_file_is_due_ten_seconds_after_the_first_change_however_many_follow(gaps):
    schedule, now = Schedule(), 1000.0
    for gap in gaps:
        schedule.changed(now)
        now += gap
    assert schedule.due_at is not None
    assert schedule.due_at <= 1000.0 + LONGEST


def test_what_changes_while_a_file_is_saved_is_saved_the_next_time():
    schedule = Schedule()
    schedule.changed(0.0)
    schedule.begin()
    assert (schedule.due_at, schedule.is_saved) == (None, False)
    schedule.changed(3.0)
    assert schedule.due_at is None
    schedule.end(4.0, 0.0)
    assert schedule.due_at == 3.0 + QUIET


def test_a_save_that_takes_long_is_followed_by_a_rest():
    schedule = Schedule()
    schedule.changed(0.0)
    schedule.begin()
    schedule.end(10.0, took=3.0)
    assert schedule.is_saved
    schedule.changed(11.0)
    assert schedule.due_at == 10.0 + 3.0 * REST


def test_a_file_that_was_not_saved_is_due_later_or_at_once_when_the_cause_is_over():
    schedule = Schedule()
    schedule.changed(0.0)
    schedule.begin()
    schedule.fail(10.0, took=0.1)
    assert schedule.due_at == 10.0 + LONGEST
    schedule.retry()
    assert schedule.due_at == 10.0 + QUIET


@pytest.mark.parametrize(
    "message",
    [
        Keep(session_id=S, path="/a b/é.ipynb"),
        Leave(session_id=S),
        SaveFile(session_id=S),
        Saved(session_id=S, took=0.5, problem="No.\nNever."),
        Seen(session_id=S),
    ],
)
def test_a_message_is_one_line(message):
    line = encoded(message)
    assert line.count(b"\n") == 1
    assert decoded(line) == message


def test_a_line_that_is_no_message_is_refused():
    with pytest.raises(msgspec.MsgspecError):
        decoded(b'{"t": "format", "session_id": "x"}\n')
