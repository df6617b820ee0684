"""`%%runtimed` and `%runtimed_cell`, with a real shell, daemon and kernel."""

import sys
from pathlib import Path

import pytest

from runtimed import (
    CellNotFound,
    Client,
    ExecutionResult,
    ExecutionTimeout,
    InvalidCell,
    RuntimedError,
    Session,
    SessionError,
)
from runtimed.ipython.arguments import COMMANDS, OPTIONS
from runtimed.ipython.failures import CellFailed
from tests.ipython.conftest import Shell


def test_a_cell_runs_in_the_named_session(shell: Shell, work: Session) -> None:
    assert shell.run("%%runtimed work\nx = 6\nprint('$HOME', f'{x}')\nx * 7") == "$HOME 6\n"
    assert [event["data"] for event in shell.published] == [{"text/plain": "42"}]
    cell = work.get_cells()[-1]
    assert cell.source == "x = 6\nprint('$HOME', f'{x}')\nx * 7"
    assert work.run("x").display_data[0].data == {"text/plain": "6"}


def test_the_first_named_session_is_used_where_none_is_named(shell: Shell, work: Session) -> None:
    shell.run("%%runtimed work\ny = 1")
    shell.run("%%runtimed other\ny = 2")
    assert shell.run("%%runtimed\nprint(y)") == "1\n"
    shell.run("%runtimed connect other")
    assert shell.run("%%runtimed\nprint(y)") == "2\n"


def test_without_a_session_a_new_one_is_made_and_its_id_said_once(shell: Shell) -> None:
    first = shell.run("%%runtimed --silent\na = 1")
    assert first == ""
    said, _, printed = shell.run("%%runtimed\nprint(a)").partition("\n")
    session_id = shell.magics.sessions.current
    assert said == f"New session {session_id} (`%runtimed connect {session_id}` joins it from anywhere)"
    assert printed == "1\n"
    assert shell.run("%%runtimed\nprint(a)") == "1\n"
    shell.run("%unload_ext runtimed")
    assert Client().sessions.get(session_id).status == "active", "what the magics open is durable"
    shell.run("%load_ext runtimed")
    assert shell.run(f"%%runtimed {session_id}\nprint(a)") == "1\n"
    shell.run("%runtimed stop")


def test_the_session_of_a_notebook_is_named_after_its_file(shell: Shell, work: Session) -> None:
    shell.ip.user_ns["__vsc_ipynb_file__"] = "/nowhere/of mine.ipynb"
    assert shell.run("%%runtimed\nimport os; print(os.getcwd())") == "/\n"
    assert Client().sessions.get("/nowhere/of mine.ipynb").status == "active"
    shell.run("%runtimed stop")
    assert Client().sessions.get("/nowhere/of mine.ipynb").status == "closed"
    shell.run("%%runtimed\npass")
    assert Client().sessions.get("/nowhere/of mine.ipynb").status == "active"
    shell.run("%runtimed connect work")
    assert shell.magics.sessions.current == "work"
    shell.run("%runtimed stop '/nowhere/of mine.ipynb'")
    assert shell.magics.sessions.current == "work"


def test_the_kernel_is_this_interpreter_unless_something_else_is_asked_for(shell: Shell) -> None:
    assert shell.run("%%runtimed other\nimport sys; print(sys.executable)") == f"{sys.executable}\n"
    assert Client().sessions.get("other").env_source == "current"
    shell.run(f"%%runtimed named --env python:{sys.executable}\npass")
    assert Client().sessions.get("named").env_source == f"python:{sys.executable}"
    shell.run("%runtimed stop named")


def test_a_cell_runs_though_the_folder_of_the_notebook_was_deleted(
    in_work: Shell, work: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_work.run("%%runtimed\npass")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert in_work.run("%%runtimed\nprint(1)") == "1\n"
    assert in_work.run("%%runtimed --no-wait\nprint(2)").startswith("Queued execution ")


def test_each_start_of_a_kernel_says_which_environment_it_is_and_a_second_cell_says_nothing(
    shell: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    asked, by_variable = "it was asked for", "the variable RUNTIMED_ENV says so"
    lines = [("%%runtimed said", by_variable), ("%%runtimed said --no-wait", by_variable)]
    for line, why in [*lines, ("%runtimed connect said --env current", asked)]:
        for said in (f"\r\x1b[2Kkernel: current, since {why}\n", ""):
            assert shell.ip.run_cell(line + ("\nprint('later')" if "%%" in line else "")).success
            out, err = capsys.readouterr()
            assert err == said
            if "--no-wait" in line:
                with Session("said") as session:
                    assert session.wait(out.split()[2]).stdout == "later\n"
        shell.run("%runtimed stop")


def test_an_environment_that_is_asked_for_in_vain_is_mentioned(in_work: Shell) -> None:
    assert in_work.run("%%runtimed --env auto\nprint(1)") == "1\n"
    assert in_work.run("%%runtimed --env current\nprint(1)") == "1\n"
    assert in_work.run("%%runtimed --env uv:prewarmed\nprint(1)") == (
        "Session work has a kernel in the environment current; --env counts only when a kernel starts\n1\n"
    )


def test_a_language_that_is_asked_for_in_vain_is_refused(in_work: Shell, work: Session) -> None:
    before = work.get_cell_ids()
    for line in ("%%runtimed --kernel-type deno\n1", "%runtimed connect work --kernel-type deno"):
        error, printed = in_work.fail(line)
        assert type(error) is SessionError
        assert printed == (
            "SessionError: Session work has a python kernel, which --kernel-type does not change: `%runtimed stop "
            "work` ends it, or name another session\n"
        )
    assert work.get_cell_ids() == before
    assert in_work.run("%%runtimed --kernel-type python\nprint(1)") == "1\n"


def test_an_environment_that_cannot_be_had_is_one_sentence(shell: Shell) -> None:
    error, printed = shell.fail("%%runtimed nowhere --env python:/no/such/python\n1")
    assert isinstance(error, RuntimedError)
    assert printed == f"{type(error).__name__}: {error}\n"


def test_each_run_without_a_frontend_cell_adds_a_cell(in_work: Shell, work: Session) -> None:
    before = work.get_cell_ids()
    for _ in range(2):
        in_work.run("%%runtimed\n1")
    assert len(work.get_cell_ids()) == len(before) + 2


def test_a_named_cell_gets_the_code(in_work: Shell, work: Session) -> None:
    cell_id = work.create_cell("old")
    assert in_work.run(f"%%runtimed --cell {cell_id}\nprint('new')") == "new\n"
    assert work.get_cell(cell_id).source == "print('new')"
    error, printed = in_work.fail("%%runtimed --cell nope\n1")
    assert type(error) is CellNotFound
    assert printed == "CellNotFound: Cell not found: nope\n"
    error, _ = in_work.fail(f"%%runtimed --cell {work.create_cell('text', 'markdown')}\n1")
    assert type(error) is InvalidCell


def test_the_waiting_ends_but_not_the_execution(in_work: Shell, work: Session) -> None:
    error, printed = in_work.fail("%%runtimed --timeout 0.2\nimport time\ntime.sleep(1); print('end')")
    assert isinstance(error, ExecutionTimeout)
    cell_id = work.get_cell_ids()[-1]
    assert printed == (
        f"ExecutionTimeout: Execution timed out after 0.2 seconds; it goes on: `%runtimed replay {cell_id}` shows it, "
        "`%runtimed interrupt` ends it\n"
    )
    assert work.wait(error.execution_id).stdout == "end\n"


def test_no_wait_returns_at_once_with_ids(in_work: Shell, work: Session) -> None:
    said = in_work.run("%%runtimed --no-wait\ninput_from_future = 1; print('later')")
    _, _, execution_id, _, _, cell_id = said.split()
    result = work.wait(execution_id)
    assert (result.cell_id, result.stdout) == (cell_id, "later\n")


def test_the_result_goes_into_a_variable(in_work: Shell) -> None:
    assert in_work.run("%%runtimed --out result\nprint('seen')") == "seen\n"
    result = in_work.ip.user_ns["result"]
    assert isinstance(result, ExecutionResult)
    assert (result.success, result.stdout) == (True, "seen\n")
    in_work.fail("%%runtimed --out result\n1/0")
    assert in_work.ip.user_ns["result"].error.ename == "ZeroDivisionError"


def test_silent_shows_nothing_but_a_failure(in_work: Shell) -> None:
    code = "from IPython.display import clear_output\nprint('x'); clear_output(); display(1)\n1"
    assert in_work.run(f"%%runtimed --silent --out result\n{code}") == ""
    assert in_work.published == []
    assert len(in_work.ip.user_ns["result"].outputs) == 2
    error, printed = in_work.fail("%%runtimed --silent\n1/0")
    assert printed == f"CellFailed: {error}\n"


def test_a_failing_cell_shows_the_remote_traceback_and_a_short_exception(in_work: Shell, work: Session) -> None:
    error, printed = in_work.fail("%%runtimed\ndef f():\n    1/0\nf()")
    cell = work.get_cells()[-1]
    assert isinstance(error, CellFailed)
    assert error.result.error.ename == "ZeroDivisionError"
    remote = "\n".join(cell.outputs[0].traceback)
    assert printed == f"{remote}\nCellFailed: ZeroDivisionError: division by zero (cell {cell.id} of session work)\n"


def test_a_kernel_that_dies_says_so(shell: Shell) -> None:
    error, printed = shell.fail("%%runtimed doomed\nimport os; os._exit(3)")
    assert "exit code 3" in printed
    assert str(error).startswith("KernelDied: ")
    assert shell.run("%%runtimed\nprint('again')") == "again\n"
    shell.run("%runtimed stop")


def test_settings_change_the_defaults(in_work: Shell) -> None:
    listing = in_work.run("%config RuntimedMagics")
    assert "RuntimedMagics.env=<Unicode>" in listing
    in_work.run("%config RuntimedMagics.timeout = 20")
    assert in_work.run("%%runtimed\nprint(1)") == "1\n"
    in_work.run("%config RuntimedMagics.timeout = 0.2")
    error, _ = in_work.fail("%%runtimed\nimport time; time.sleep(0.5)")
    assert isinstance(error, ExecutionTimeout)
    assert in_work.run("%%runtimed --timeout 20\nprint(1)") == "1\n"


def test_bad_input_is_a_usage_error(in_work: Shell) -> None:
    _, printed = in_work.fail("%%runtimed --timeout soon\n1")
    assert printed == (
        "UsageError: %%runtimed: argument --timeout: must be a number of seconds, not negative, or "
        "`none` for no limit; not 'soon' "
        "(`%%runtimed?` explains)\n"
    )
    _, printed = in_work.fail("%runtimed fly")
    assert printed.startswith("UsageError: %runtimed: there is no 'fly', only connect, ")
    _, printed = in_work.fail(f"%%runtimed {'x' * 2000}\n1")
    assert printed == "SessionError: A session id may have at most 1024 bytes; this one has 2000\n"


def test_the_question_mark_explains_everything(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.ip.run_cell("%%runtimed?")
    text = capsys.readouterr().out
    assert not [option for option in OPTIONS if option not in text]
    assert not [command for command in COMMANDS if f"%runtimed {command}" not in text]


# --- %runtimed_cell ---


def test_a_cell_of_the_document_is_executed_as_it_is(in_work: Shell, work: Session) -> None:
    cell_id = work.create_cell("print('from the document')")
    assert in_work.run(f"%runtimed_cell {cell_id}") == "from the document\n"
    assert in_work.run(f"%runtimed_cell {cell_id} work --out r --silent") == ""
    assert in_work.ip.user_ns["r"].cell_id == cell_id
    error, _ = in_work.fail("%runtimed_cell nope")
    assert type(error) is CellNotFound


def test_as_a_cell_magic_it_sets_the_source_first(in_work: Shell, work: Session) -> None:
    cell_id = work.create_cell("old")
    assert in_work.run(f"%%runtimed_cell {cell_id}\nprint('new')") == "new\n"
    assert work.get_cell(cell_id).source == "print('new')"
    _, printed = in_work.fail(f"%%runtimed_cell {cell_id}\n\n")
    assert printed == "UsageError: %%runtimed_cell: there is no code; `%runtimed_cell` executes the cell as it is\n"
    assert work.get_cell(cell_id).source == "print('new')"


def test_a_cell_without_a_session_is_a_usage_error(shell: Shell) -> None:
    _, printed = shell.fail("%runtimed_cell c1")
    assert printed == "UsageError: %runtimed: no session is joined; `%runtimed connect ID` joins one\n"
