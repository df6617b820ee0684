"""`history`: who edited a session's notebook, for people and for programs."""

import json
import re
from pathlib import Path

import pytest

from runtimed import Client, Session
from runtimed.cli.as_json import jsonable
from tests.cli.conftest import Command


@pytest.fixture
def runtimed(in_process: Command, shared_daemon: Path) -> Command:
    """Run a command to its end, on one daemon for all of them."""
    return in_process


def test_the_history_is_shown_the_latest_first(runtimed: Command):
    with Session("kept", label="ann") as session:
        cell_id = session.create_cell("secret")
        session.append_source(cell_id, "!")
        session.set_metadata("a\x1b[31m", "secret")
        edits = list(session.history())
    with Session("kept") as nameless:
        nameless.delete_cell(cell_id)
        edits.insert(0, next(nameless.history()))
    Client().sessions.stop("kept")

    people, programs = runtimed("history", "kept"), runtimed("history", "kept", "--json")

    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    lines = [line.rstrip() for line in people.stdout.splitlines()]
    assert lines[0].split() == ["VERSION", "WHEN", "WHO", "WHAT", "CELL"]
    for line, expected in zip(
        lines[1:],
        [
            rf"4 +{moment} +client {nameless.client_id[:8]} +cell deleted +{cell_id}",
            rf"3 +{moment} +ann +metadata set \(a\\x1b\[31m\)",
            rf"2 +{moment} +ann +cell edited \(\+1 -0\) +{cell_id}",
            rf"1 +{moment} +ann +cell added \(code\) +{cell_id}",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, line), line
    assert json.loads(programs.stdout) == jsonable(edits)
    assert Client().sessions.get("kept").status == "closed"


def test_what_somebody_types_is_one_entry_for_people(runtimed: Command):
    with Session("typed", label="ann") as session, Session("typed", label="bob") as other:
        cell_id = session.create_cell("")
        for text in ("a", "bc", "def"):
            session.append_source(cell_id, text)
        session.set_source(cell_id, "")
        other.append_source(cell_id, "x")
        session.append_source(cell_id, "y")
        session.set_metadata("k", "1")
        session.set_metadata("l", "1")
        session.set_metadata("l", "2")

    def shown(*arguments: str) -> list[str]:
        return [row.rstrip() for row in runtimed("history", "typed", *arguments).stdout.splitlines()[1:]]

    rows = shown()
    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    for row, expected in zip(
        rows,
        [
            rf"10 +{moment} +ann +metadata set \(l\), 2 times since \d\d:\d\d:\d\d",
            rf"8 +{moment} +ann +metadata set \(k\)",
            rf"7 +{moment} +ann +cell edited \(\+1 -0\) +{cell_id}",
            rf"6 +{moment} +bob +cell edited \(\+1 -0\) +{cell_id}",
            rf"5 +{moment} +ann +cell edited \(\+6 -6\), 4 times since \d\d:\d\d:\d\d +{cell_id}",
            rf"1 +{moment} +ann +cell added \(code\) +{cell_id}",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, row), row
    assert shown("-n", "2") == rows[:2]
    assert len(json.loads(runtimed("history", "typed", "-n", "9", "--json").stdout)) == 9


def test_the_history_of_one_cell_is_found_by_a_prefix_or_after_its_end(runtimed: Command):
    with Session("cells") as session:
        first, second = session.create_cell("1"), session.create_cell("2")
        session.delete_cell(second)

    def versions(*arguments: str) -> list[int]:
        return [edit["version"] for edit in json.loads(runtimed("history", "cells", "--json", *arguments).stdout)]

    assert versions("--cell", first[:12]) == [1]
    assert versions("--cell", second) == [3, 2]
    assert versions("-n", "2") == [3, 2]
    unknown = runtimed("history", "cells", "--cell", "none")
    assert (unknown.returncode, unknown.stdout) == (4, "")
    assert "has no cell 'none'" in unknown.stderr


def test_a_version_is_restored(runtimed: Command):
    with Session("back") as session:
        cell_id = session.create_cell("1")
        session.append_source(cell_id, "2")
    Client().sessions.stop("back")

    done = runtimed("history", "back", "--restore", "1")
    assert done.stdout == "The notebook of session 'back' is again as version 1 was (1 edits)\n"
    assert (done.returncode, done.stderr) == (0, "")
    with session:
        assert session.get_cell_source(cell_id) == "1"
    assert Client().sessions.get("back").status == "closed"
    unknown = runtimed("history", "back", "--restore", "9")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "has no version 9: it goes from version 0 to 3" in unknown.stderr


def test_the_lines_of_a_cell_are_shown_with_who_wrote_them(runtimed: Command):
    with Session("lines", label="ann") as session:
        cell_id = session.create_cell("a = 1\nb = [0]")
        with Session("lines", label="bob") as other:
            other.append_source(cell_id, "\n\x1b[31m")
        lines = session.blame(cell_id)

    people, programs = (runtimed("history", "lines", "--cell", cell_id, "--blame", *json) for json in ([], ["--json"]))

    moment = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    shown = [line.rstrip() for line in people.stdout.splitlines()]
    assert shown[0].split() == ["VERSION", "WHEN", "WHO", "LINE", "SOURCE"]
    for line, expected in zip(
        shown[1:],
        [rf"1 +{moment} +ann +1 +a = 1", rf"1 +{moment} +ann +2 +b = \[0\]", rf"2 +{moment} +bob +3 +\\x1b\[31m"],
        strict=True,
    ):
        assert re.fullmatch(expected, line), line
    assert json.loads(programs.stdout) == jsonable(lines)
    without = runtimed("history", "lines", "--blame")
    assert (without.returncode, without.stdout) == (2, "")
    assert "--blame needs --cell CELL" in without.stderr
