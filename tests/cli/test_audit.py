"""`log`: who did what in a session, for people and for programs."""

import json
import os
import re
from pathlib import Path

import pytest

from runtimed import Client, Session
from tests.cli.conftest import Command
from tests.conftest import wait_until


@pytest.fixture
def runtimed(in_process: Command, shared_daemon: Path) -> Command:
    """Run a command to its end, on one daemon for all of them."""
    return in_process


def test_the_log_of_a_session_is_shown_the_latest_first(runtimed: Command):
    with Session("kept", label="an agent") as session:
        cell_id = session.create_cell("secret")
        for _ in range(3):
            session.append_source(cell_id, "secret")
        session.set_cell_type(cell_id, "raw")
    with Session("kept") as nameless:
        nameless.delete_cell(cell_id)
    Client(label="a person").sessions.stop("kept")

    people, programs = runtimed("log", "kept"), runtimed("log", "kept", "--json")

    moment, agent = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", rf"an agent +{os.getuid()} +{os.getpid()}"
    lines = [line.rstrip() for line in people.stdout.splitlines()]
    assert lines[0].split() == ["WHEN", "WHO", "UID", "PID", "WHAT", "CELL", "EXECUTION"]
    for line, expected in zip(
        lines[1:],
        [
            rf"{moment} +a person +{os.getuid()} +{os.getpid()} +session closed \(stopped\)",
            rf"{moment} +client {nameless.client_id[:8]} +{os.getuid()} +{os.getpid()} +cell deleted +{cell_id}",
            rf"{moment} +{agent} +cell type set \(raw\) +{cell_id}",
            rf"{moment} +{agent} +cell edited, 3 times until \d\d:\d\d:\d\d +{cell_id}",
            rf"{moment} +{agent} +cell added +{cell_id}",
            rf"{moment} +{agent} +session started",
        ],
        strict=True,
    ):
        assert re.fullmatch(expected, line), line
    entries = Client().sessions.log("kept")
    assert json.loads(programs.stdout) == [
        {
            "at": entry.at.isoformat(),
            "until": entry.until.isoformat(),
            "action": entry.action,
            "count": entry.count,
            "client_id": entry.client_id,
            "label": entry.label,
            "uid": os.getuid(),
            "pid": os.getpid(),
            "cell_id": entry.cell_id,
            "execution_id": None,
            "detail": entry.detail,
        }
        for entry in entries
    ]
    assert "secret" not in people.stdout + programs.stdout


def test_a_session_that_ended_by_itself_says_so(runtimed: Command):
    with Session("short", max_duration_minutes=0.001) as session:
        session.create_cell("1")
    wait_until(lambda: Client().sessions.get("short").status == "timed_out", "the session does not time out")

    assert re.search(r" \(by itself\) +session timed out \(max_duration\) *\n", runtimed("log", "short").stdout)


def test_so_many_entries_are_shown_as_are_asked_for(runtimed: Command):
    with Session("long") as session:
        for _ in range(501):
            session.create_cell("1")

    counts = {n: len(json.loads(runtimed("log", "long", "--json", "-n", str(n)).stdout)) for n in (0, 1, 501, 9000)}

    assert counts == {0: 0, 1: 1, 501: 501, 9000: 502}
    assert len(json.loads(runtimed("log", "long", "--json").stdout)) == 100
    assert runtimed("log", "long", "-n", "x").returncode == 2


def test_an_unknown_session_has_an_exit_code_of_its_own(runtimed: Command):
    unknown = runtimed("log", "nobody\x1b[31m")
    assert (unknown.returncode, unknown.stdout) == (4, "")
    assert unknown.stderr == "No session has the id 'nobody\\x1b[31m' yet; it begins with its first cell or kernel\n"
