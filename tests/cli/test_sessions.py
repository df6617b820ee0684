"""`sessions`, `cells`, `stop ID`, ids that try to do something to a terminal among them."""

import base64
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed import Client, Session
from tests.cli.conftest import Command
from tests.old_sessions import put_old_sessions


@pytest.fixture
def runtimed(in_process: Command, shared_daemon: Path) -> Iterator[Command]:
    """Run a command to its end, on a daemon that has no session before the test."""
    yield in_process
    for status in Client().sessions.list(page_size=100):
        Client().sessions.stop(status.session_id)
        Client().sessions.delete(status.session_id)


HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "two\nlines\r",
    "\x9b31m",
    "\u202eright to left",
    "[bold]markup[/bold] :smile:",
    "a\x00b\x7f\u2028c",
    "tab\there and \u200binvisible",
]

MARKUP = "[bold]label[/bold] :smile:"

ESCAPES = re.compile(r"[^\n\x20-\x7e]")


def test_sessions_are_listed_for_people_and_programs(runtimed: Command):
    runtimed("start")
    assert runtimed("sessions").stdout == "No sessions\n"
    assert json.loads(runtimed("sessions", "--json").stdout) == []
    with Session("first", label="a label") as session:
        session.run("1")
    with Session("second") as session:
        session.create_cell("2")
    people, programs = runtimed("sessions"), runtimed("sessions", "--json")
    lines = people.stdout.splitlines()
    assert lines[0].split() == ["SESSION", "STATUS", "KERNEL", "CLIENTS", "LASTED", "LAST", "USED", "LABEL"]
    assert re.match(r"second +active +none +0 ", lines[1])
    assert re.match(r"first +active +python idle \(pid \d+, current\) +0 .* a label *$", lines[2])
    statuses = {status.session_id: status for status in Client().sessions.list()}
    listed = {one["session_id"]: one for one in json.loads(programs.stdout)}
    assert list(listed) == ["second", "first"]
    for name, status in statuses.items():
        assert listed[name] == {
            "session_id": name,
            "kind": "kernel",
            "status": "active",
            "close_reason": None,
            "created_at": status.created_at.isoformat(),
            "closed_at": None,
            "last_accessed_at": status.last_accessed_at.isoformat(),
            "timeout_minutes": None,
            "max_duration_minutes": None,
            "duration": listed[name]["duration"],
            "peers": 0,
            "label": status.label,
            "error": None,
            "host_pid": status.host_pid,
            "kernel_type": status.kernel_type,
            "kernel_status": status.kernel_status,
            "kernel_pid": status.kernel_pid,
            "env_source": status.env_source,
            "file": None,
            "file_notice": None,
        }
        assert 0 < listed[name]["duration"] <= status.duration.total_seconds()


def test_sessions_can_be_told_apart_by_their_state(runtimed: Command):
    for name in ("kept", "ended"):
        with Session(name) as session:
            session.create_cell("1")
    Client().sessions.stop("ended")
    for state, names in {"active": ["kept"], "closed": ["ended"], "error": [], "timed_out": []}.items():
        found = json.loads(runtimed("sessions", "--json", "--status", state).stdout)
        assert [one["session_id"] for one in found] == names
    assert runtimed("sessions", "--status", "error").stdout == "No sessions are error\n"


def test_cells_are_shown_with_their_outputs(runtimed: Command):
    with Session("kept", label="an agent") as session:
        session.create_cell("# Title", "markdown")
        session.run("for i in range(20): print('line', i)")
        session.run("from IPython.display import Image\nImage(data=b'\\x89PNG\\r\\n\\x1a\\n bytes', format='png')")
        session.run("1 / 0")
        cells = session.get_cells()
    people = runtimed("cells", "kept")
    assert people.returncode == 0
    assert re.search(rf"^markdown +{cells[0].id} +an agent, \d+ s ago +# Title *$", people.stdout, re.MULTILINE)
    assert re.search(
        rf"^\[1\] +{cells[1].id} +an agent, \d+ s ago +for i in range\(20\).* line 0 *$", people.stdout, re.MULTILINE
    )
    assert re.search(r"^ +line 3 *\n +… 12 more lines *\n +line 16 *$", people.stdout, re.MULTILINE)
    assert "[image/png]" in people.stdout
    assert "ZeroDivisionError: division by zero" in people.stdout
    programs = json.loads(runtimed("cells", "kept", "--json").stdout)
    assert [(cell["id"], cell["source"], cell["execution_count"]) for cell in programs] == [
        (cell.id, cell.source, cell.execution_count) for cell in cells
    ]
    assert programs[1]["outputs"][0]["text"] == "".join(f"line {i}\n" for i in range(20))
    assert base64.b64decode(programs[2]["outputs"][0]["data"]["image/png"]) == b"\x89PNG\r\n\x1a\n bytes"
    assert (programs[3]["outputs"][0]["output_type"], programs[3]["outputs"][0]["ename"]) == (
        "error",
        "ZeroDivisionError",
    )


def test_looking_at_the_cells_of_an_ended_session_starts_nothing(runtimed: Command):
    with Session("kept") as session:
        session.create_cell("1")
    Client().sessions.stop("kept")
    before = Client().sessions.get("kept")
    assert "[ ]" in runtimed("cells", "kept").stdout
    after = Client().sessions.get("kept")
    assert dataclasses.replace(after, last_accessed_at=before.last_accessed_at) == before


def test_a_session_without_cells_is_no_error(runtimed: Command):
    with Session("bare") as session:
        session.set_metadata("key", "value")
    done = runtimed("cells", "bare")
    assert (done.returncode, done.stdout) == (0, "The session 'bare' has no cells\n")
    assert json.loads(runtimed("cells", "bare", "--json").stdout) == []


def test_an_unknown_session_has_an_exit_code_of_its_own(runtimed: Command):
    runtimed("start")
    for command in ("cells", "stop", "log", "attach", "interrupt", "delete"):
        done = runtimed(command, "nobody\x1b[31m")
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == ("No session has the id 'nobody\\x1b[31m' yet; it begins with its first cell or kernel\n")
    assert Client().sessions.list() == []


def test_a_session_is_stopped_by_id_and_stopping_it_again_is_harmless(runtimed: Command):
    with Session("kept") as session:
        session.run("1")
    done = runtimed("stop", "kept")
    assert (done.returncode, done.stdout) == (0, "The session 'kept' is closed. Its cells and outputs stay readable\n")
    status = Client().sessions.get("kept")
    assert (status.status, status.close_reason, status.kernel_pid) == ("closed", "stopped", None)
    again = runtimed("stop", "kept")
    assert again.returncode == 0
    assert "The session 'kept' had ended before: closed (stopped). " in again.stdout


def test_an_id_cannot_do_anything_to_a_terminal(runtimed: Command, shared_daemon: Path):
    put_old_sessions(shared_daemon, HOSTILE, MARKUP)
    for name in HOSTILE:
        with Session(name, label=MARKUP) as session:
            session.create_cell(name)
            session.create_cell("# " + name, "markdown")
    people, programs = runtimed("sessions"), runtimed("sessions", "--json")
    outputs = [people, programs]
    for name in HOSTILE:
        outputs += [runtimed(command, name, *more) for command in ("cells", "log") for more in ([], ["--json"])]
        cells = json.loads(outputs[-3].stdout)
        assert [cell["source"] for cell in cells] == [name, "# " + name]
        outputs.append(runtimed("stop", name))
    outputs.append(runtimed("logs"))
    assert [done.returncode for done in outputs] == [0] * len(outputs)
    assert [ESCAPES.findall(done.stdout + done.stderr) for done in outputs] == [[]] * len(outputs)
    listed = [(one["session_id"], one["label"]) for one in json.loads(programs.stdout)]
    assert listed == [(name, MARKUP) for name in reversed(HOSTILE)]
    assert len(people.stdout.splitlines()) == 1 + len(HOSTILE)
    assert [name for name in HOSTILE if name.encode("unicode_escape").decode() not in people.stdout] == []


def test_outputs_cannot_do_anything_to_the_terminal_of_who_lists_them(runtimed: Command):
    with Session("kept") as session:
        session.run("print('\\x1b]0;title\\x07 \\x1b[2J \\x9b')")
    done = runtimed("cells", "kept")
    assert ESCAPES.findall(done.stdout) == []
    assert "\\x1b]0;title\\x07 \\x1b[2J" in done.stdout
