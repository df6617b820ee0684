"""What `%runtimed` tells and does, and how the extension is loaded; with a real shell, daemon and kernel."""

import asyncio
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from runtimed import (
    CellNotFound,
    Client,
    NoKernel,
    Session,
    SessionNotFound,
)
from runtimed.ipython.failures import CellFailed
from tests.conftest import own_daemon, wait_until
from tests.ipython.conftest import Shell, last_stdout
from tests.old_sessions import put_old_sessions


def test_the_state_of_things_is_readable(shell: Shell, work: Session) -> None:
    text = shell.run("%runtimed")
    assert "session   none; the first %%runtimed cell starts one, `%runtimed connect ID` joins one\n" in text
    shell.run("%runtimed connect work")
    lines = dict(line.split("  ", 1) for line in shell.run("%runtimed").splitlines())
    assert list(lines) == ["daemon", "socket", "data", "sessions", "session", "status", "kernel", "env"]
    assert lines["session"].strip() == "work (joined)"
    assert lines["env"].strip() == "current"
    status = work.status()
    assert lines["kernel"].strip() == f"python, idle, process {status.kernel_pid}"


def test_without_a_daemon_the_state_says_so_and_starts_none(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNTIMED_SOCKET_PATH", str(tmp_path / "s"))
    text = shell.run("%runtimed")
    assert text.startswith("daemon   not running; it starts with the first cell\n")
    assert shell.run("%runtimed sessions") == "No sessions.\n"
    assert not Client().is_running()


def test_connecting_changes_nothing_unless_a_kernel_is_asked_for_and_stop_ends_the_session_for_everybody(
    shell: Shell,
) -> None:
    assert shell.run("%runtimed connect quiet") == ("Joined session quiet: no kernel runs; the first cell starts one\n")
    assert "quiet" not in [status.session_id for status in Client().sessions.list()]
    assert shell.run("%runtimed connect quiet --env current") == "Joined session quiet: a kernel runs, env current\n"
    shell.run("%%runtimed\nprint(1)")
    assert shell.run("%runtimed stop") == (
        "Stopped session quiet; its cells stay readable (`%runtimed connect quiet`)\n"
    )
    assert Client().sessions.get("quiet").status == "closed"
    assert shell.magics.sessions.current is None
    assert "print(1)" in shell.run("%runtimed cells quiet")


def test_sessions_are_listed(in_work: Shell) -> None:
    head, *rows = in_work.run("%runtimed sessions").splitlines()
    assert head.split() == ["ID", "KIND", "STATUS", "KERNEL", "ENV", "CLIENTS", "LASTED"]
    (row,) = [row for row in rows if row.startswith("*")]
    assert row.split()[:6] == ["*", "work", "kernel", "active", "idle", "current"]


def test_cells_are_listed(in_work: Shell, work: Session) -> None:
    first = work.create_cell("a = 1\nb = 2", index=0)
    head, row, *_ = in_work.run("%runtimed cells").splitlines()
    assert head.split() == ["ID", "TYPE", "COUNT", "STATE", "SOURCE"]
    assert row.split(maxsplit=4) == [first, "code", "-", "-", "a = 1 …"]
    in_work.run("%runtimed connect nobody")
    assert in_work.run("%runtimed cells") == "Session nobody has no cells.\n"


def test_a_source_that_is_larger_than_a_page_is_listed_by_its_first_line(in_work):
    with Session("work") as session:
        session.create_cell("first line\n" + "#" * 2 * 2**20)

    assert "first line …" in in_work.run("%runtimed cells")


def test_outputs_are_replayed(in_work: Shell, work: Session) -> None:
    cell_id = work.create_cell("print('line')\ndisplay('shown')")
    assert in_work.run(f"%runtimed replay {cell_id}") == f"Cell {cell_id} has no outputs.\n"
    work.execute_cell(cell_id)
    assert in_work.run(f"%runtimed replay {cell_id} work") == "line\n"
    assert [event["data"] for event in in_work.published] == [{"text/plain": "'shown'"}]
    failed = work.run("1/0")
    assert "ZeroDivisionError" in in_work.run(f"%runtimed replay {failed.cell_id}")
    error, _ = in_work.fail("%runtimed replay nope")
    assert type(error) is CellNotFound


def test_variables_are_copied_between_the_two_kernels(in_work: Shell, work: Session) -> None:
    work.run("theirs, other = {'n': 1}, 'x' * 2048")
    assert in_work.run("%runtimed pull theirs other") == (
        "Pulled theirs (dict, 21 bytes) from work\nPulled other (str, 2.018 KiB) from work\n"
    )
    assert in_work.run("%runtimed pull theirs --as mine") == "Pulled theirs as mine (dict, 21 bytes) from work\n"
    assert [in_work.magics.namespace[name] for name in ("theirs", "mine", "other")] == [{"n": 1}, {"n": 1}, "x" * 2048]
    in_work.run("mine['n'] = 2")
    assert work.get("theirs") == {"n": 1}, "it is a copy"
    assert in_work.run("%runtimed push mine --as theirs") == "Pushed mine as theirs (dict, 21 bytes) into work\n"
    assert work.get("theirs") == {"n": 2}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("%runtimed pull nothing_there", "The kernel has no variable 'nothing_there'"),
        ("%runtimed pull theirs made_here", "The variable 'made_here' cannot be handed over: "),
        ("%runtimed push made_here", "The value for 'made_here' cannot be pickled: "),
    ],
)
def test_what_cannot_be_copied_is_said_in_one_sentence(in_work: Shell, work: Session, line: str, sentence: str) -> None:
    work.run("theirs, made_here = 1, (lambda: 1)")
    in_work.run("made_here = lambda: 1")
    error, _ = in_work.fail(line)
    assert str(error).startswith(sentence)
    in_work.ip.run_cell("%runtimed push never_made_here")
    assert "UsageError: %runtimed push: there is no variable 'never_made_here' here" in in_work.capsys.readouterr().err


def test_a_replay_follows_a_cell_that_still_runs(in_work: Shell, work: Session, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = (
        f"import os, time\nprint('before')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('after')"
    )
    cell_id = work.create_cell(code)
    work.queue_cell(cell_id)
    wait_until(lambda: "before" in last_stdout(work), "the cell printed nothing")
    opener = threading.Timer(0.3, gate.touch)
    opener.start()
    head, *shown = in_work.run(f"%runtimed replay {cell_id}").splitlines()
    assert re.fullmatch(rf'Cell {cell_id}: "import os, time …" of observer, running for \d+ s', head)
    assert shown == ["before", "after"]
    opener.join()


def test_interrupt_and_restart(in_work: Shell, work: Session) -> None:
    in_work.run("%%runtimed\nkept = 1")
    execution_id = in_work.run("%%runtimed --no-wait\nprint('x'); import time; time.sleep(60)").split()[2]
    wait_until(lambda: "x" in last_stdout(work), "the cell printed nothing")
    assert in_work.run("%runtimed interrupt") == "Interrupted what runs in session work\n"
    result = work.wait(execution_id)
    assert result.error is not None
    assert result.error.ename == "KeyboardInterrupt"
    assert in_work.run("%runtimed restart") == "The kernel of session work is a fresh one\n"
    error, _ = in_work.fail("%%runtimed\nkept")
    assert isinstance(error, CellFailed)


def test_without_a_kernel_there_is_nothing_to_interrupt_or_restart(shell: Shell) -> None:
    with Session("idle") as idle:
        idle.create_cell("1")
    for command in ("interrupt", "restart"):
        error, printed = shell.fail(f"%runtimed {command} idle")
        assert type(error) is NoKernel
        assert printed == "NoKernel: No kernel running\n"


@pytest.mark.parametrize("joined", [[], ["%runtimed connect work"]])
def test_an_id_that_no_session_has_is_refused_by_what_looks_or_ends(
    shell: Shell, work: Session, joined: list[str]
) -> None:
    for line in joined:
        shell.run(line)
    before = shell.magics.sessions.current
    for command in ("stop", "cells", "replay x", "interrupt", "restart", "env"):
        error, printed = shell.fail(f"%runtimed {command} wokr")
        assert type(error) is SessionNotFound
        assert printed == (
            "SessionNotFound: No session has the id 'wokr' yet; it begins with its first cell or kernel. Did you mean "
            "work?\n"
        )
        assert shell.magics.sessions.current == before, "the next cell goes where it would have gone"
        assert not shell.magics.sessions.is_joined("wokr")
    error, printed = shell.fail("%runtimed_cell x wokr")
    assert type(error) is SessionNotFound
    assert "wokr" not in Client().sessions.find()
    assert work.status().status == "active"


def test_env_says_what_is_chosen_and_why_and_what_runs(
    shell: Shell, work: Session, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "environment.yml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNTIMED_ENV")
    monkeypatch.setenv("RUNTIMED_CONDA_CHANNELS", "https://example.org/channel")
    shell.run("%config RuntimedMagics.env = 'current'")
    asked = (
        "A kernel that these magics start: python, env current: it was asked for\n"
        f"  interpreter: {sys.executable}\n"
        f"With --env auto: conda:env_yml: {tmp_path}/environment.yml is the nearest project file\n"
        "  channels: https://example.org/channel\n"
    )
    assert shell.run("%runtimed env") == f"{asked}No session is joined.\n"
    assert shell.run("%runtimed env work") == f"{asked}Running in session work: python, env current\n"
    with Session("kernelless") as kernelless:
        kernelless.create_cell("1")
    assert shell.run("%runtimed env kernelless") == f"{asked}Running in session kernelless: no kernel\n"

    with Session("declares") as session:
        session.create_cell("no code", "markdown")
        session.create_cell("# /// script\n# dependencies = ['six']\n# ///")
    shell.run("%config RuntimedMagics.env = 'auto'")
    assert shell.run("%runtimed env declares") == (
        "A kernel that these magics start: python, env uv:pep723: the notebook or the file has a script "
        "block (PEP 723)\n  packages: six\nRunning in session declares: no kernel\n"
    )
    (tmp_path / "pyproject.toml").write_text("[broken")
    assert f"env none: {tmp_path}/pyproject.toml is no valid TOML" in shell.run("%runtimed env")
    assert shell.run("%runtimed env trust declares") == (
        "Session declares may install what it asks for:\n"
        "uv:pep723: the notebook or the file has a script block (PEP 723)\n  packages: six\n"
    )


# --- the extension ---


def test_unloading_leaves_the_sessions_and_takes_everything_away(in_work: Shell, work: Session) -> None:
    assert work.status().peers == 2
    matchers = len(in_work.ip.Completer.custom_matchers)
    in_work.ip.run_cell("%reload_ext runtimed")
    assert len(in_work.ip.Completer.custom_matchers) == matchers
    in_work.ip.run_cell("%unload_ext runtimed")
    wait_until(lambda: work.status().peers == 1, "the shell is still there")
    assert len(in_work.ip.Completer.custom_matchers) == matchers - 1
    assert "runtimed" not in in_work.ip.magics_manager.magics["cell"]
    assert not [found for found in in_work.ip.configurables if type(found).__name__ == "RuntimedMagics"]
    assert work.status().status == "active"


def test_a_configuration_file_can_set_the_defaults(shell: Shell) -> None:
    shell.run("%unload_ext runtimed")
    shell.ip.config.RuntimedMagics.env = "auto"
    shell.run("%load_ext runtimed")
    assert shell.magics.env == "auto"


async def _inside_a_loop(ip: Any) -> Any:
    return ip.run_cell("%%runtimed work\nprint('in a loop')")


def test_the_magics_work_inside_a_running_loop(shell: Shell, work: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert asyncio.run(_inside_a_loop(shell.ip)).success
    assert capsys.readouterr().out == "in a loop\n"


HOSTILE = "evil\x1b]0;title\x07\x1b[2J\x9b31m\u202e\nforged"


def test_names_of_other_sessions_and_cells_do_nothing_to_the_terminal(shell: Shell, short_folder: Path) -> None:
    with own_daemon(short_folder):
        put_old_sessions(short_folder, [HOSTILE])
        _check_hostile_names(shell)


def _check_hostile_names(shell: Shell) -> None:
    with Session(HOSTILE) as other:
        other.create_cell(HOSTILE)
        texts = [shell.run("%runtimed sessions")]
        shell.magics.sessions.current = other.notebook_id
        texts += [shell.run("%runtimed"), shell.run("%runtimed env"), shell.run("%runtimed cells")]
        error, said = shell.fail("%runtimed replay nothing")
        texts += [said, str(error)]
        error, said = shell.fail("%%runtimed\nraise ValueError('\\x1b[2J\\x07\\u202e')")
        texts += [said.splitlines()[-1], str(error)]
        assert HOSTILE not in "".join(shell.complete("%%runtimed "))
        other.stop()

    for text in texts:
        assert [line for line in text.split("\n") if not line.isprintable()] == []
        assert "\nforged" not in text


def test_a_notebook_s_file_may_have_a_name_that_no_label_may_have(shell: Shell, work: Session, tmp_path: Path) -> None:
    path = tmp_path / ("two\nlines\x1b[2J" + "x" * 200 + ".ipynb")
    path.touch()
    shell.ip.user_ns["__vsc_ipynb_file__"] = str(path)
    shell.run("%runtimed connect work")
    execution_id = shell.run("%%runtimed work --no-wait\n1").split()[2]
    label = next(entry.label for entry in Client().sessions.log("work") if entry.execution_id == execution_id)
    work.wait(execution_id)

    assert label is not None
    assert label.startswith("two\\nlines\\x1b[2Jxxx")
