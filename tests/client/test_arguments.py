"""Arguments that a call uses itself: what is wrong with them is said in one way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runtimed import Client, InvalidArgument, InvalidCell, RuntimedError, Session, VariableNotFound

LONG = "x" * 20_000_000


def nested() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.fixture(scope="module")
def session(shared_daemon) -> Iterator[Session]:
    with Session("arguments") as session:
        yield session


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "code must be a str, not int": lambda session, _: session.complete(5),
    "code must be a str, not NoneType": lambda session, _: session.inspect(None),
    "cursor_pos counts code points of the code, here from 0 to 1; not b'x'": lambda s, _: s.complete("x", b"x"),
    "cursor_pos counts code points of the code, here from 0 to 1; not 2": lambda s, _: s.inspect("x", 2),
    "cell_ids is a list of str; not 5": lambda session, _: session.subscribe(cell_ids=5),
    "event_types is a list of str; not b'done'": lambda session, _: session.subscribe(event_types=b"done"),
    "package is a str; not 5": lambda session, _: session.add_uv_dependency(5),
    "package is a str; not ['numpy']": lambda session, _: session.add_conda_dependency(["numpy"]),
    "package is a str; not None": lambda session, _: session.remove_uv_dependency(None),
    "packages is a list of str; not None": lambda session, _: session.add_uv_dependencies(None),
    "packages is a list: give ['numpy']": lambda session, _: session.add_conda_dependencies("numpy"),
    "page is an int, at least 1; not b'x'": lambda _, client: client.sessions.list(page=b"x"),
    "page_size is an int, from 1 to 1000; not True": lambda _, client: client.sessions.log("a", page_size=True),
    "on_event is a function or None; not 5": lambda session, _: session.submit(code="").follow(5),
    "after is what `read_past` returned, or None": lambda session, _: session.submit(code="").follow(after=5),
    "submit() takes the id of a cell, code, or both": lambda session, _: session.submit(),
    "patience must be a number, not negative, or None for no limit; not -1": lambda *_: Client(patience=-1),
    "timeout_secs must be a number, not negative, or None for no limit; not nan": (
        lambda session, _: session.run("1", timeout_secs=math.nan)
    ),
    "timeout_secs must be a number, not negative, or None for no limit; not [[[": (
        lambda session, _: session.run("1", timeout_secs=nested())
    ),
    "on_timeout is leave or interrupt; not 'xxx": lambda session, _: session.run("1", on_timeout=LONG),
}


@pytest.mark.parametrize("sentence", CALLS)
def test_a_wrong_argument_is_named_with_what_to_give_in_one_short_line(session, sentence):
    with pytest.raises(InvalidArgument) as caught:
        CALLS[sentence](session, Client())
    assert caught.value.message.startswith(sentence)
    assert len(caught.value.message) < 200


def test_an_empty_id_is_no_missing_one_and_a_long_value_is_not_repeated(session):
    wrong: dict[str, tuple[type[RuntimedError], Callable[[], object]]] = {
        "A cell id must not be empty": (InvalidCell, lambda: session.submit("", code="1")),
        "An execution id must not be empty": (InvalidCell, lambda: session.submit(code="1", execution_id="")),
        "An execution id may have at most 1024 bytes of UTF-8; this one has 2000: give a shorter one": (
            InvalidCell,
            lambda: session.submit(code="1", execution_id="e" * 2000),
        ),
        "A cell's type must be code, markdown or raw, not 'xxx": (InvalidCell, lambda: session.create_cell("", LONG)),
        "The name of a variable is an identifier of Python, not 1000": (
            VariableNotFound,
            lambda: session.get(10**4000),
        ),
    }
    for sentence, (error, call) in wrong.items():
        with pytest.raises(error) as caught:
            call()
        assert caught.value.message.startswith(sentence)
        assert len(caught.value.message) < 200
