"""A frontend that asks for the outputs of an execution that it did not begin, as a page does that is opened again."""

from __future__ import annotations

from pathlib import Path

from runtimed import Session
from tests.conftest import wait_until
from tests.jupyter.proxy_kernel.conftest import TIMEOUT, Frontend

GATED = "import os, time\nprint('first')\nwhile not os.path.exists({!r}): time.sleep(0.01)\nprint('last')\n6 * 7"


def attach(frontend: Frontend, execution_id: str) -> str:
    """Send the request of JupyterLab's extension; return its id."""
    client = frontend.client
    message = client.session.msg("execute_request", {"code": "print('not run')", "silent": False, "allow_stdin": True})
    message["metadata"] = {"runtimed": {"attach": execution_id}, "cellId": "any"}
    client.shell_channel.send(message)
    return str(message["header"]["msg_id"])


def test_all_outputs_of_a_running_execution_come_once_and_it_goes_on(frontend: Frontend, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with Session("shared") as session:
        execution = session.submit(code=GATED.format(str(gate)))
        wait_until(lambda: bool(execution.past().outputs), "nothing was printed")
        parent = attach(frontend, execution.id)
        messages = [frontend.next(parent) for _ in range(3)]
        assert [(one["msg_type"], one["content"].get("text")) for one in messages] == [
            ("status", None),
            ("execute_input", None),
            ("stream", "first\n"),
        ]
        gate.touch()
        rest = frontend.until_idle(parent)
        assert [(kind, content.get("text") or content.get("data")) for kind, content in rest] == [
            ("stream", "last\n"),
            ("execute_result", {"text/plain": "42"}),
            ("status", None),
        ]
        result = execution.wait()
        reply = frontend.reply(parent)
        assert (reply["status"], reply["execution_count"]) == ("ok", result.execution_count)
        assert result.stdout == "first\nlast\n"


def test_an_ended_execution_is_shown_and_nothing_runs_again(frontend: Frontend) -> None:
    with Session("shared") as session:
        failed = session.run("print('once')\n1 / 0")
        cells = session.get_cell_ids()
        parent = attach(frontend, failed.execution_id)
        kinds = [kind for kind, _ in frontend.until_idle(parent)]
        assert kinds == ["status", "execute_input", "stream", "error", "status"]
        assert frontend.reply(parent)["ename"] == "ZeroDivisionError"
        assert session.get_cell_ids() == cells


def test_only_the_open_question_is_asked_again(frontend: Frontend) -> None:
    with Session("shared") as session:
        execution = session.submit(code="print(input('one? '), input('two? '))")
        for event in execution.events():
            if event.event_type == "input_requested" and event.message == "one? ":
                execution.answer("a")
            elif event.event_type == "input_requested":
                break
        parent = attach(frontend, execution.id)
        assert frontend.client.get_stdin_msg(timeout=TIMEOUT)["content"]["prompt"] == "two? "
        frontend.client.input("b")
        assert frontend.reply(parent)["status"] == "ok"
        assert execution.wait().stdout == "a b\n"


def test_an_unknown_execution_is_refused_with_a_sentence(frontend: Frontend) -> None:
    parent = attach(frontend, "never")
    reply = frontend.reply(parent)
    assert (reply["status"], reply["ename"]) == ("error", "ExecutionNotFound")
    assert "has no execution 'never'" in reply["evalue"]
    assert frontend.text("print('on')") == "on\n"


def test_the_kernel_names_its_session(frontend: Frontend) -> None:
    parent = frontend.client.kernel_info()
    assert frontend.reply(parent)["runtimed"] == {"session_id": "shared"}
