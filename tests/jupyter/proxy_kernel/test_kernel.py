"""The proxy kernel behind a real frontend: what a notebook, a console or nbclient does with its kernel."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from runtimed import Client, Session
from tests.conftest import wait_until
from tests.jupyter.proxy_kernel.conftest import TIMEOUT, Frontend, Start


def test_a_cell_appears_as_from_a_kernel(frontend: Frontend) -> None:
    parent = frontend.execute("print('out')\n6 * 7")
    count = frontend.reply(parent)["execution_count"]
    assert frontend.until_idle(parent) == [
        ("status", {"execution_state": "busy"}),
        ("execute_input", {"code": "print('out')\n6 * 7", "execution_count": count}),
        ("stream", {"name": "stdout", "text": "out\n"}),
        ("execute_result", {"data": {"text/plain": "42"}, "metadata": {}, "execution_count": count}),
        ("status", {"execution_state": "idle"}),
    ]


def test_an_error_is_published_and_in_the_reply(frontend: Frontend) -> None:
    reply, messages = frontend.run("1 / 0")
    assert reply["status"] == "error"
    error = {name: reply[name] for name in ("ename", "evalue", "traceback")}
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert "ZeroDivisionError" in "".join(error["traceback"])
    assert messages[1:] == [("error", error)]


def test_displays_are_updated_and_cleared(frontend: Frontend) -> None:
    messages = frontend.run(
        "from IPython.display import clear_output, display\n"
        "shown = display('old', display_id='d')\nshown.update('new')\nclear_output(wait=True)\ndisplay(1)"
    )[1]
    assert messages[1:] == [
        ("display_data", {"data": {"text/plain": "'old'"}, "metadata": {}, "transient": {"display_id": "d"}}),
        ("update_display_data", {"data": {"text/plain": "'new'"}, "metadata": {}, "transient": {"display_id": "d"}}),
        ("clear_output", {"wait": True}),
        ("display_data", {"data": {"text/plain": "1"}, "metadata": {}, "transient": {}}),
    ]
    later = frontend.run("shown.update('newer')")[1]
    assert [kind for kind, _ in later] == ["execute_input", "update_display_data"]


def test_values_come_as_json_has_them(frontend: Frontend) -> None:
    code = "from IPython.display import display; display({'image/png': b'PNG', 'application/json': [1]}, raw=True)"
    ((_, content),) = frontend.run(code.replace("b'PNG'", "'UE5H'"))[1][1:]
    assert content["data"] == {"image/png": "UE5H", "application/json": [1]}


def test_half_a_character_is_shown_with_what_stands_beside_it(frontend: Frontend) -> None:
    assert frontend.text("print('a\\ud800b')") == "a\ud800b\n"


def test_input_is_asked_of_the_frontend(frontend: Frontend) -> None:
    parent = frontend.execute("print('hello', input('name? '))", allow_stdin=True)
    asked = frontend.client.get_stdin_msg(timeout=TIMEOUT)
    assert asked["content"] == {"prompt": "name? ", "password": False}
    frontend.client.input("Ada")
    assert frontend.until_idle(parent)[2:-1] == [("stream", {"name": "stdout", "text": "hello Ada\n"})]
    assert frontend.reply(parent)["status"] == "ok"
    reply, _ = frontend.run("input()", allow_stdin=False)
    assert reply["ename"] == "StdinNotImplementedError"


@pytest.mark.parametrize("way", ["message", "signal"])
def test_an_interrupt_ends_the_cell_and_those_behind_it(frontend: Frontend, way: str) -> None:
    running = frontend.execute("import time\nprint('begun')\ntime.sleep(600)")
    behind = frontend.execute("print('never')")
    while frontend.next(running)["msg_type"] != "stream":
        pass
    if way == "message":
        frontend.manager.interrupt_kernel()
    else:
        frontend.manager.signal_kernel(2)
    assert frontend.reply(running)["ename"] == "KeyboardInterrupt"
    assert frontend.reply(behind) == {"status": "aborted"}
    assert [kind for kind, _ in frontend.until_idle(behind)] == ["status", "status"]


def test_a_failure_aborts_all_that_was_sent_before_it_was_known(frontend: Frontend, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    failing = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\n1 / 0"
    parents = [frontend.execute(failing), *(frontend.execute(f"print({n})") for n in range(30))]
    message = frontend.client.session.msg("connect_request", {})
    frontend.client.shell_channel.send(message)
    frontend.reply(message["header"]["msg_id"])  # the kernel has taken all that was sent before
    gate.touch()
    replies = [frontend.reply(parent)["status"] for parent in parents]
    assert replies == ["error"] + 30 * ["aborted"]
    going_on = [frontend.execute("1 / 0", stop_on_error=False), frontend.execute("'on'")]
    assert [frontend.reply(parent)["status"] for parent in going_on] == ["error", "ok"]


def test_options_of_a_request_are_kept(frontend: Frontend) -> None:
    before = frontend.run("7")[0]["execution_count"]
    reply, messages = frontend.run("print('quiet')\n7", silent=True)
    assert (reply["status"], [kind for kind, _ in messages]) == ("ok", ["stream"])
    reply, messages = frontend.run("7", store_history=False)
    assert [kind for kind, _ in messages] == ["execute_input", "execute_result"]
    reply, _ = frontend.run("n = 6", user_expressions={"seven": "n + 1", "wrong": "1 / 0"})
    assert reply["execution_count"] == before + 1
    assert reply["user_expressions"]["seven"]["data"] == {"text/plain": "7"}
    assert reply["user_expressions"]["wrong"]["ename"] == "ZeroDivisionError"
    with Session("shared") as session:
        assert [cell.source for cell in session.get_cells()][-1] == "n = 6"
        assert not any("quiet" in cell.source for cell in session.get_cells())


def test_questions_are_answered_by_the_sessions_kernel(frontend: Frontend) -> None:
    frontend.run("a_long_name = 1")
    info = frontend.client.kernel_info(reply=True, timeout=TIMEOUT)["content"]
    assert (info["implementation"], info["protocol_version"]) == ("ipython", "5.5")
    assert "debugger" not in info["supported_features"]
    assert "a_long_name" in frontend.client.complete("a_long", reply=True, timeout=TIMEOUT)["content"]["matches"]
    found = frontend.client.inspect("a_long_name", reply=True, timeout=TIMEOUT)["content"]
    assert (found["found"], found["status"]) == (True, "ok")
    assert frontend.reply(frontend.client.is_complete("for a in b:"))["status"] == "incomplete"
    tail = frontend.client.history(hist_access_type="tail", n=1, raw=True, reply=True, timeout=TIMEOUT)
    assert tail["content"]["history"][-1][2] == "a_long_name = 1"
    assert frontend.client.comm_info(reply=True, timeout=TIMEOUT)["content"]["status"] == "ok"


def test_a_malformed_request_is_refused_and_the_next_one_served(frontend: Frontend) -> None:
    message = frontend.client.session.msg("complete_request", {"cursor_pos": 1})
    frontend.client.shell_channel.send(message)
    assert frontend.reply(message["header"]["msg_id"])["ename"] == "InvalidArgument"
    message = frontend.client.session.msg("execute_request", {"code": 5})
    frontend.client.shell_channel.send(message)
    assert frontend.reply(message["header"]["msg_id"])["status"] == "error"
    assert frontend.text("print('on')") == "on\n"


def test_subshells_are_made_listed_and_deleted(frontend: Frontend) -> None:
    def ask(msg_type: str, content: dict[str, str]) -> dict[str, object]:
        message = frontend.client.session.msg(msg_type, content)
        frontend.client.control_channel.send(message)
        return dict(frontend.client.get_control_msg(timeout=TIMEOUT)["content"])

    made = ask("create_subshell_request", {})["subshell_id"]
    assert ask("list_subshell_request", {})["subshell_id"] == [made]
    assert ask("delete_subshell_request", {"subshell_id": str(made)})["status"] == "ok"
    assert ask("delete_subshell_request", {"subshell_id": str(made)})["status"] == "error"


def test_each_client_that_subscribes_is_welcomed(frontend: Frontend) -> None:
    for _ in range(2):
        client = frontend.manager.client()
        # The others would be closed while they are opened.
        client.start_channels(shell=False, stdin=False, hb=False, control=False)
        try:
            # What the kernel publishes meanwhile may come first.
            while client.get_iopub_msg(timeout=TIMEOUT)["msg_type"] != "iopub_welcome":
                pass
        finally:
            client.stop_channels()


def test_a_shutdown_leaves_the_session_and_the_next_frontend_finds_it(start: Start) -> None:
    first = start("lasting")
    first.run("name = 'kept'")
    began = time.monotonic()
    first.manager.shutdown_kernel()
    assert time.monotonic() - began < 5, "it left when it was asked to"
    assert Client().sessions.get("lasting").kernel_status == "idle"
    assert start("lasting").text("print(name)") == "kept\n"


def test_a_frontend_sees_what_others_run(frontend: Frontend) -> None:
    with Session("shared") as session:
        result = session.run("print('of another')")
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1]["content"] != {"execution_state": "idle"}:
            messages.append(frontend.next(result.execution_id))
        assert [(message["msg_type"], message["content"]) for message in messages[1:-1]] == [
            ("execute_input", {"code": "print('of another')", "execution_count": result.execution_count}),
            ("stream", {"name": "stdout", "text": "of another\n"}),
        ]
        assert messages[0]["parent_header"]["session"] == session.client_id


def test_a_restart_restarts_the_sessions_kernel_and_says_for_whom(start: Start) -> None:
    first = start("restarted")
    first.run("name = 1")
    with Session("restarted") as session:
        wait_until(lambda: session.status().peers > 1, "the frontend is a peer")
        others = session.status().peers - 1
        first.manager.restart_kernel()
        said = first.next()
        while said["msg_type"] != "stream":
            said = first.next()
        name = "client uses" if others == 1 else "clients use"
        assert said["content"]["text"] == (
            f"Restarting the kernel of the session 'restarted', which {others} other {name}\n"
        )
        first.client.wait_for_ready(timeout=TIMEOUT)
        assert first.text("print('name' in dir())") == "False\n"
        assert session.run("print('name' in dir())").stdout == "False\n"
