"""What cannot be stored is said once, and that it can be stored again."""

import logging

import pytest

from runtimed.daemon.trouble import Trouble
from runtimed.errors import NoKernel, StorageError


def test_trouble_is_said_once_for_each_thing_and_its_end_as_well(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trouble = Trouble()

    def attempt(what: str, error: StorageError | None = None) -> None:
        with trouble.noted(what):
            if error is not None:
                raise error

    attempt("a")
    for free in (3, 2, 1):
        attempt("a", StorageError(f"{free} bytes are free"))
        attempt("b", StorageError("no"))
    attempt("a")
    attempt("a")
    attempt("a", StorageError("full again"))

    assert [record.message for record in caplog.records] == [
        "a waits: 3 bytes are free",
        "b waits: no",
        "a succeeded again",
        "a waits: full again",
    ]


def test_a_session_is_named_in_the_log_where_the_report_names_it_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    told: list[str] = []
    trouble = Trouble(told.append, "session 's': ")

    def attempt(error: Exception | None = None) -> None:
        if error is not None:
            raise error

    for error in (StorageError("no"), None):
        with trouble.noted("a"):
            attempt(error)
    with trouble.contained("b"):
        attempt(ZeroDivisionError())

    assert caplog.messages == ["session 's': a waits: no", "session 's': a succeeded again", "session 's': b fails"]
    assert told == ["A waits: no", "B fails with ZeroDivisionError, a mistake of the daemon; its log has the details"]


def test_other_errors_pass() -> None:
    with pytest.raises(NoKernel), Trouble().noted("a"):
        raise NoKernel("none")
