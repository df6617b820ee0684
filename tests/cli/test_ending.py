"""`exec`, `attach`, `interrupt`, `stop`, `delete`, `prune`; and ids by their beginnings. Most run in this process."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pexpect
import pytest

from runtimed import Client, Session
from runtimed.cli import listing, printing
from runtimed.cli.main import main
from runtimed.models import SessionStatus
from tests.cli.conftest import RUNTIMED, interrupt, read_until
from tests.conftest import wait_until

Answer = tuple[int, str, str]


@pytest.fixture(autouse=True)
def daemon(shared_daemon: Path) -> None:
    """One daemon for all of them."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Answer]]:
    """Run a command with no terminal."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    with Path("/dev/null").open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield run


@pytest.fixture
def busy() -> Iterator[Session]:
    """A session whose cell runs until it is interrupted; its kernel is that of an earlier test, if that left one."""
    with Session("busy") as session:
        session.start_kernel()
        cell = session.create_cell("import time\nprint('begun')\nwhile True: time.sleep(.01)")
        execution = session.queue_cell(cell)
        wait_until(lambda: session.get_cell(cell).outputs, "it does not begin")
        yield session
        if Client().sessions.get("busy").kernel_status == "busy":
            session.interrupt()
            session.wait(execution)


def test_code_runs_in_a_session_and_shows_its_value(run: Callable[..., Answer]):
    with Session("co2-report") as session:
        session.create_cell("# nothing runs yet")
    assert run("exec", "co2-r", "x = 6\nprint('out')\nx * 7") == (0, "out\n42\n", "")
    code, out, err = run("exec", "co2-r", "1 / 0")
    assert (code, out) == (1, "")
    assert "ZeroDivisionError" in err
    code, out, _err = run("exec", "co2-r", "--json", "x")
    result = json.loads(out)
    assert (code, result["exit_code"], result["outputs"][0]["data"]) == (0, 0, {"text/plain": "6"})
    code, out, err = run("exec", "co2-reprot", "1")
    assert (code, out) == (4, "")
    assert err.endswith("it begins with its first cell or kernel. Did you mean co2-report?\n")


def test_code_runs_from_a_folder_that_was_deleted_as_long_as_a_kernel_does(
    run: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with Session("folderless") as session:
        session.start_kernel()
        monkeypatch.chdir(tmp_path)
        tmp_path.rmdir()
        assert run("exec", "folderless", "6 * 7") == (0, "42\n", "")
        session.stop()
    gone = "The folder in which the client works was deleted; change to another one (os.chdir, cd) and try again\n"
    assert run("exec", "folderless", "6 * 7") == (1, "", gone)


def test_what_ran_is_shown_again_by_execution_and_by_cell(run: Callable[..., Answer]):
    with Session("attached") as session:
        first, second = session.run("print('first')"), session.run("print('second')\n3")
        assert run("attach", "att") == (0, "second\n3\n", "")
        assert run("attach", "att", first.execution_id) == (0, "first\n", "")
        assert run("attach", "att", first.execution_id.removeprefix("execution-")[:8]) == (0, "first\n", "")
        assert run("attach", "att", second.cell_id[:13]) == (0, "second\n3\n", "")
        code, out, err = run("attach", "att", "execution-")
        assert (code, out) == (4, "")
        assert err.startswith("2 executions begin with 'execution-': 'execution-")
        assert run("attach", "att", "nothing")[0] == 4
        assert run("cells", "att", first.cell_id[5:13], "--json")[0] == 0
        session.set_metadata("key", "value")
    with Session("bare") as session:
        session.create_cell("1")
    assert run("attach", "bare") == (0, "Nothing ran in the session 'bare'\n", "")


def test_who_attaches_sees_all_of_it_and_leaves_with_ctrl_c_without_harm(busy: Session):
    with subprocess.Popen(
        [*RUNTIMED, "attach", "busy"], stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, encoding="utf-8"
    ) as process:
        assert read_until(process, "begun") == "begun\n"
        interrupt(process)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Left what goes on" in err
    assert busy.status().kernel_status == "busy"


def test_a_program_that_is_attached_to_ends_with_its_own_status(run: Callable[..., Answer], tmp_path: Path):
    file = tmp_path / "file.py"
    file.write_text("print('out')\nraise SystemExit(5)\n")
    assert run("run", "--detach", "--session", "co2-report", str(file))[0] == 0
    assert run("attach", "co2-report") == (5, "out\n", "")


def test_an_interrupt_ends_what_runs(run: Callable[..., Answer], busy: Session):
    assert run("interrupt", "bus") == (0, "Interrupted the session 'busy'\n", "")
    wait_until(lambda: busy.status().kernel_status == "idle", "it runs on")
    assert run("interrupt", "busy") == (0, "Nothing runs in the session 'busy'\n", "")
    busy.shutdown_kernel()
    assert run("interrupt", "busy") == (1, "", "No kernel running\n")


def test_nobody_who_is_not_asked_ends_what_is_busy(run: Callable[..., Answer], busy: Session):
    question = "'busy' is busy. End it all the same? There is no terminal to ask in; --yes answers beforehand\n"
    for command in (["stop"], ["stop", "busy"]):
        assert run(*command) == (1, "", question)
        assert busy.status().kernel_status == "busy"
    assert run("stop", "busy", "--keep-kernels")[0] == 2
    assert run("stop", "--yes", "busy")[:2] == (
        0,
        "The session 'busy' is closed. Its cells and outputs stay readable\n",
    )


def test_a_person_is_asked(busy: Session):
    command, *arguments = RUNTIMED
    for word, end in (("n", (1, "active")), ("", (1, "active")), ("y", (0, "closed"))):
        child = pexpect.spawn(command, [*arguments, "stop", "busy"], timeout=60, encoding="utf-8")
        child.expect_exact("'busy' is busy. End it all the same? [y/N] ")
        child.sendline(word)
        child.expect(pexpect.EOF)
        child.close()
        assert (child.exitstatus, busy.status().status) == end, word


def test_a_session_is_deleted_after_a_question(run: Callable[..., Answer]):
    with Session("old-one") as session:
        session.create_cell("1")
    assert run("delete", "old-one") == (
        1,
        "",
        "The session 'old-one' is active; --stop ends it first, with its running code\n",
    )
    code, out, err = run("delete", "old-one", "--stop")
    assert (code, out) == (1, "")
    assert err.startswith("Delete the session 'old-one' (it is active, last used ")
    assert err.endswith(" with all of its data? There is no terminal to ask in; --yes answers beforehand\n")
    assert run("delete", "old-o", "--stop", "-y") == (0, "The session 'old-one' is deleted\n", "")
    assert run("cells", "old-one")[0] == 4


def test_sessions_that_ended_long_ago_are_pruned_and_unused_kernels_named(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
):
    for name in ("ended-1", "ended-2", "active-1"):
        with Session(name) as session:
            session.create_cell("1")
    with Session("kernel-1") as session:
        session.start_kernel()
    for name in ("ended-1", "ended-2"):
        Client().sessions.stop(name)
    monkeypatch.setattr(listing, "UNUSED", -listing.UNUSED)
    listed = json.loads(run("prune", "--older-than", "0", "--dry-run", "--json")[1])
    assert {"ended-1", "ended-2"} <= set(listed["would_delete"])
    assert "active-1" not in listed["would_delete"]
    assert (listed["deleted"], "kernel-1" in listed["unused_kernels"]) == ([], True)
    assert "unused kernel" in run("status")[1]
    assert json.loads(run("status", "--json")[1])["unused_kernels"] == listed["unused_kernels"]
    assert run("prune", "--json")[1] == json.dumps(
        {"deleted": [], "would_delete": [], "unused_kernels": listed["unused_kernels"]}, indent=2
    ) + "\n"  # fmt: skip
    code, out, err = run("prune", "--older-than", "0")
    assert code == 1
    assert "ended-1" in out
    assert "The kernel of 'kernel-1' (pid " in out
    assert err.endswith("? There is no terminal to ask in; --yes answers beforehand\n")
    assert run("prune", "--older-than", "0", "--yes")[0] == 0
    left = [status.session_id for status in Client().sessions.list()]
    assert ({"ended-1", "ended-2"} & set(left), {"active-1", "kernel-1"} - set(left)) == (set(), set())
    Client().sessions.stop("kernel-1")


def test_beginnings_of_ids_are_enough_where_only_one_begins_so(run: Callable[..., Answer]):
    generated = Session()
    generated.connect()
    generated.create_cell("1")
    for name in ("alpha", "alpha-2", "alphabet"):
        with Session(name) as session:
            session.create_cell(name)
    short = generated.notebook_id.removeprefix("agent-session-")[:8]
    assert json.loads(run("cells", short, "--json")[1])[0]["source"] == "1"
    generated.close()
    assert json.loads(run("cells", "alpha", "--json")[1])[0]["source"] == "alpha"
    assert json.loads(run("cells", "alphab", "--json")[1])[0]["source"] == "alphabet"
    code, out, err = run("cells", "alph")
    assert (code, out) == (4, "")
    assert err == "3 sessions begin with 'alph': 'alpha', 'alpha-2', 'alphabet'. Type more of the id\n"


class _Terminal:
    """Standard output as a terminal of some width."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
def test_no_id_is_ever_broken(width: int, run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, capsys: Any):
    long_name = "a-session-with-a-rather-long-name-of-more-than-sixty-characters-in-all"
    with Session(long_name) as session:
        execution = session.run("print('x' * 50)")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")
    for command, ids in (
        (["sessions"], [long_name]),
        (["cells", long_name], [execution.cell_id[:13]]),
        (["log", long_name], [execution.cell_id[:13], execution.execution_id[:18]]),
    ):
        monkeypatch.setattr(sys, "stdout", _Terminal(sys.stdout))
        assert main(command) == 0
        out = capsys.readouterr().out
        monkeypatch.undo()
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "dumb")
        assert [one for one in ids if one not in out] == []
    assert printing.NARROWEST < 30


def test_a_kernel_counts_as_unused_after_a_day() -> None:
    now = datetime.now(UTC)

    def status(hours: float, kernel: Any, state: Any = "active") -> SessionStatus:
        fields: dict[str, Any] = dict.fromkeys(SessionStatus.__dataclass_fields__)
        used = datetime.fromtimestamp(time.time() - hours * 3600, UTC)
        return SessionStatus(
            **{**fields, "session_id": f"{hours}", "last_accessed_at": used, "kernel_status": kernel, "status": state}
        )

    sessions = [
        status(25, "idle"),
        status(23, "idle"),
        status(26, "busy"),
        status(27, None),
        status(28, "idle", "closed"),
    ]
    assert [one.session_id for one in listing.unused_kernels(sessions)] == ["25"]
    assert now <= datetime.now(UTC)
