"""The magics in a real ipykernel, as frontends see them: messages, cell ids, questions, the stop button, Run All."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from runtimed import Client, Session
from tests.conftest import wait_until

TIMEOUT = 30.0
SHOWN = ("stream", "display_data", "update_display_data", "clear_output", "error", "execute_result")

Message = dict[str, Any]


class Frontend:
    """A notebook's frontend: executes cells under ids, and keeps what would be shown."""

    def __init__(self, manager: KernelManager) -> None:
        self.manager = manager
        self.client: BlockingKernelClient = manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(TIMEOUT)

    def send(self, code: str, cell_id: str | None = None, *, stdin: bool = False) -> str:
        """Send a cell as JupyterLab does; return the message's id."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": stdin, "stop_on_error": True}
        metadata = {} if cell_id is None else {"cellId": cell_id}
        message: Message = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def next(self, msg_id: str) -> Message:
        """Return the next message that is shown under a cell, or the one that says that it has ended."""
        while True:
            message: Message = self.client.get_iopub_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] in SHOWN or message["content"].get("execution_state") == "idle":
                return message

    def rest(self, msg_id: str) -> tuple[list[Message], Message]:
        """Return everything else that is shown, and the reply."""
        shown = []
        while (message := self.next(msg_id))["msg_type"] in SHOWN:
            shown.append(message)
        while (reply := self.client.get_shell_msg(timeout=TIMEOUT))["parent_header"].get("msg_id") != msg_id:
            pass
        return shown, reply["content"]

    def run(self, code: str, cell_id: str | None = None) -> list[Message]:
        """Run a cell that succeeds; return what it shows."""
        shown, reply = self.rest(self.send(code, cell_id))
        assert reply["status"] == "ok", reply
        return shown

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


def text_of(shown: list[Message]) -> str:
    return "".join(message["content"]["text"] for message in shown if message["msg_type"] == "stream")


def start(folder: Path, notebook: Path | None = None) -> Frontend:
    manager = KernelManager(kernel_name="python3")
    environment = {**os.environ, **({} if notebook is None else {"JPY_SESSION_NAME": str(notebook)})}
    manager.start_kernel(env=environment, cwd=str(folder))
    frontend = Frontend(manager)
    frontend.run("%load_ext runtimed")
    return frontend


@pytest.fixture(scope="module")
def frontend(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frontend]:
    """A notebook without a name, which has joined the session `work`."""
    frontend = start(tmp_path_factory.mktemp("notebook"))
    frontend.run("%runtimed connect work")
    yield frontend
    frontend.close()


@pytest.fixture(scope="module")
def observer(work: Session) -> Session:
    return work


def test_a_running_cell_of_the_notebook_keeps_its_document_cell(
    frontend: Frontend, observer: Session, world: Path
) -> None:
    before = observer.get_cell_ids()
    frontend.run("%%runtimed\nprint(1)", "aaa")
    frontend.run("%%runtimed\nprint('between')", "bbb")
    assert text_of(frontend.run("%%runtimed\nprint(2)", "aaa")) == "2\n"
    new = [cell for cell in observer.get_cells() if cell.id not in before]
    assert [(cell.source, [output.text for output in cell.outputs]) for cell in new] == [
        ("print(2)", ["2\n"]),
        ("print('between')", ["between\n"]),
    ]
    frontend.run("%%runtimed\nprint(3)")
    frontend.run("%%runtimed\nprint(3)")
    assert len(observer.get_cell_ids()) == len(before) + 4, "without a frontend's cell id each run adds a cell"


def test_a_restarted_notebook_finds_its_session_and_its_cells(world: Path, tmp_path: Path) -> None:
    notebook = tmp_path / "analysis.ipynb"
    for number in (1, 2):
        frontend = start(tmp_path, notebook)
        frontend.run(
            f"%%runtimed\nimport os\nkept = globals().get('kept', 0) + 1\nprint({number}, kept, os.getcwd())", "x"
        )
        frontend.close()
    with Session(str(notebook)) as session:
        (cell,) = session.get_cells()
        assert session.status().status == "active"
        assert cell.outputs[0].text == f"2 2 {tmp_path}\n"
        session.stop()


def test_outputs_stream_in_place_while_the_cell_runs(frontend: Frontend, observer: Session) -> None:
    gate = "import threading; gate = threading.Event()"
    frontend.run(f"%%runtimed\n{gate}")
    msg_id = frontend.send("%%runtimed\nimport sys\nprint('one')\nsys.stderr.write('two')\nprint(input())", stdin=True)
    first = frontend.next(msg_id)
    assert (first["msg_type"], first["content"]) == ("stream", {"name": "stdout", "text": "one\n"})
    assert frontend.next(msg_id)["content"] == {"name": "stderr", "text": "two"}
    question = frontend.client.get_stdin_msg(timeout=TIMEOUT)
    assert question["content"] == {"prompt": "", "password": False}
    frontend.client.input("three")
    shown, reply = frontend.rest(msg_id)
    assert text_of(shown) == "three\n"
    assert reply["status"] == "ok"


def test_getpass_asks_the_frontend_for_a_password(frontend: Frontend, observer: Session) -> None:
    msg_id = frontend.send("%%runtimed\nimport getpass\nprint(getpass.getpass('who? '))", stdin=True)
    question = frontend.client.get_stdin_msg(timeout=TIMEOUT)
    assert question["content"] == {"prompt": "who? ", "password": True}
    frontend.client.input("secret")
    assert text_of(frontend.rest(msg_id)[0]) == "secret\n"


def test_a_frontend_that_cannot_answer_is_not_asked(frontend: Frontend, observer: Session) -> None:
    shown, reply = frontend.rest(frontend.send("%%runtimed\ninput()"))
    assert reply["status"] == "error"
    assert [message["content"]["ename"] for message in shown] == ["StdinNotImplementedError", "CellFailed"]


def test_displays_and_their_updates_are_the_frontend_s(frontend: Frontend, observer: Session) -> None:
    shown = frontend.run(
        "%%runtimed\n"
        "from IPython.display import HTML, clear_output\n"
        "handle = display(HTML('a'), display_id='mine', metadata={'k': 1})\n"
        "handle.update(HTML('b'))\n"
        "clear_output(wait=True)\n"
        "display({'image/png': b'\\x89PNG', 'text/plain': 'p'}, raw=True)\n"
        "HTML('result')"
    )
    assert [message["msg_type"] for message in shown] == [
        "display_data",
        "update_display_data",
        "clear_output",
        "display_data",
        "display_data",
    ]
    first, update, clear, image, result = (message["content"] for message in shown)
    assert first["data"]["text/html"] == "a"
    assert first["metadata"] == {"k": 1}
    assert update["data"]["text/html"] == "b"
    assert update["transient"] == first["transient"]
    assert first["transient"]["display_id"] != "mine"
    assert clear == {"wait": True}
    assert image["data"] == {"image/png": "iVBORw==", "text/plain": "p"}
    assert result["data"]["text/html"] == "result"
    (later,) = frontend.run("%%runtimed\nhandle.update(HTML('c'))")
    assert (later["msg_type"], later["content"]["transient"]) == ("update_display_data", first["transient"])


def test_a_failing_cell_shows_the_remote_traceback_and_one_line(frontend: Frontend, observer: Session) -> None:
    shown, reply = frontend.rest(frontend.send("%%runtimed\n1/0"))
    remote, short = (message["content"] for message in shown)
    cell = observer.get_cells()[-1]
    assert tuple(remote["traceback"]) == cell.outputs[0].traceback
    assert (remote["ename"], remote["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert short["ename"] == "CellFailed"
    assert short["traceback"] == [f"CellFailed: {short['evalue']}"]
    assert (reply["status"], reply["ename"]) == ("error", "CellFailed")


def test_the_stop_button_interrupts_the_remote_code(frontend: Frontend, observer: Session) -> None:
    msg_id = frontend.send("%%runtimed\nimport time\nprint('begun')\ntry: time.sleep(60)\nfinally: print('cleaned up')")
    assert text_of([frontend.next(msg_id)]) == "begun\n"
    frontend.manager.interrupt_kernel()
    shown, reply = frontend.rest(msg_id)
    assert text_of(shown) == "cleaned up\n"
    assert [message["content"]["ename"] for message in shown if message["msg_type"] == "error"] == [
        "KeyboardInterrupt",
        "CellFailed",
    ]
    assert reply["status"] == "error"
    assert text_of(frontend.run("%%runtimed\nprint('alive')")) == "alive\n"
    wait_until(lambda: observer.status().kernel_status == "idle", "the remote kernel still works")


def test_the_stop_button_at_a_question_interrupts_the_remote_code(frontend: Frontend, observer: Session) -> None:
    msg_id = frontend.send("%%runtimed\ninput('? ')", stdin=True)
    frontend.client.get_stdin_msg(timeout=TIMEOUT)
    frontend.manager.interrupt_kernel()
    shown, _ = frontend.rest(msg_id)
    assert [m["content"]["ename"] for m in shown if m["msg_type"] == "error"] == ["KeyboardInterrupt", "CellFailed"]


def inspected(frontend: Frontend, code: str, position: int) -> dict[str, Any]:
    """What Shift-Tab shows at a place."""
    reply: Message = frontend.client.inspect(code, position, reply=True, timeout=TIMEOUT)
    assert reply["content"]["status"] == "ok"
    return dict(reply["content"])


def test_shift_tab_asks_the_session_s_kernel(frontend: Frontend, observer: Session) -> None:
    observer.run('def whose():\n    """Of the session."""')
    frontend.run('def whose():\n    """Of the notebook."""')
    code = "%%runtimed\nx = 1\nwhose()"
    there = inspected(frontend, code, len(code) - 2)
    assert there["found"]
    assert "Of the session." in there["data"]["text/plain"]
    assert "Of the notebook." in inspected(frontend, "whose()", 2)["data"]["text/plain"]
    assert not inspected(frontend, "%%runtimed no-such-session\nwhose", 30)["found"]
    assert "Run a cell in a live session" in inspected(frontend, code, 5)["data"]["text/plain"]

    frontend.run("%runtimed on")
    assert "Of the session." in inspected(frontend, "whose()", 2)["data"]["text/plain"]
    assert "Of the notebook." in inspected(frontend, "%%local\nwhose()", 10)["data"]["text/plain"]
    frontend.run("%runtimed off")


def test_every_cell_goes_to_the_session_and_says_so(frontend: Frontend, observer: Session) -> None:
    frontend.run("%runtimed on")
    place, *printed = frontend.run("print('routed')", cell_id="routed")
    assert place["content"]["data"]["text/plain"] == "in session work"
    assert text_of(printed) == "routed\n"
    assert observer.get_cells()[-1].source == "print('routed')"
    frontend.run("print('routed again')", cell_id="routed")
    assert observer.get_cells()[-1].source == "print('routed again')", "the same cell of the document"
    assert text_of(frontend.run("%runtimed off")) == "Cells run here again\n"
    here = frontend.run("print('here')")
    assert ({message["msg_type"] for message in here}, text_of(here)) == ({"stream"}, "here\n")


def test_cells_that_are_sent_whole_are_the_cells_of_the_notebook_s_file(world: Path, tmp_path: Path) -> None:
    import nbformat

    path = tmp_path / "whole.ipynb"
    sources = {"a": "\n\nprint('A')\n", "b": "print(42)", "c": "%%runtimed\nprint('c')"}
    cells = [nbformat.v4.new_code_cell(source, id=cell_id) for cell_id, source in sources.items()]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with Session(str(path)) as session:
        session.open_notebook(path)
        frontend = start(tmp_path, path)
        frontend.run("%runtimed on")
        for cell_id in ("a", "b", "b", "c", "c"):
            frontend.run(sources[cell_id], cell_id)
        frontend.run("%%local\nget_ipython().run_cell('of = \"another cell\"')", "b")
        frontend.close()
        kept: dict[str, Any] = {
            cell.id: (cell.source, [output.text for output in cell.outputs]) for cell in session.get_cells()
        }
        assert {cell_id: kept.pop(cell_id) for cell_id in sources} == {
            "a": ("\n\nprint('A')\n", ["A\n"]),
            "b": ("print(42)", ["42\n"]),
            "c": ("%%runtimed\nprint('c')", []),
        }
        assert sorted(kept.values()) == [('of = "another cell"', []), ("print('c')", ["c\n"])], "not as in the file"
        session.stop()


def test_the_stop_button_just_before_a_question_leaves_nobody_waiting_at_it(
    frontend: Frontend, observer: Session
) -> None:
    msg_id = frontend.send("%%runtimed\nprint('begun', flush=True)\ninput('? ')", stdin=True)
    assert text_of([frontend.next(msg_id)]) == "begun\n"
    frontend.manager.interrupt_kernel()
    shown, _ = frontend.rest(msg_id)
    assert [m["content"]["ename"] for m in shown if m["msg_type"] == "error"] == ["KeyboardInterrupt", "CellFailed"]


def test_many_lines_arrive_whole_and_in_order(frontend: Frontend, observer: Session) -> None:
    shown = frontend.run("%%runtimed\nfor i in range(20_000): print(i)")
    assert text_of(shown) == "".join(f"{i}\n" for i in range(20_000))


def notebook_of(*sources: str) -> Any:
    # Each worker collects all tests, and this takes it seconds.
    import nbformat

    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def test_a_notebook_runs_from_top_to_bottom_and_stops_at_a_failing_cell(world: Path, observer: Session) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = notebook_of(
        "%load_ext runtimed",
        "%%runtimed work --out result\nprint('x')\nhandle = display('a', display_id=True)\n6 * 7",
        "result",
        "%%runtimed\nhandle.update('b')",
        "%%runtimed work\nraise ValueError('no')",
        "after = 1",
    )
    with pytest.raises(CellExecutionError, match="ValueError: no"):
        NotebookClient(notebook, timeout=60).execute()
    live, again, _update, failed = (cell.outputs for cell in notebook.cells[1:5])
    assert [output.get("text") or output["data"]["text/plain"] for output in live] == ["x\n", "'b'", "42"]
    assert [output.get("text") or output["data"]["text/plain"] for output in again] == ["x\n", "'a'", "42"]
    assert [output["ename"] for output in failed] == ["ValueError", "CellFailed"]
    assert notebook.cells[5].execution_count is None


def test_the_frontend_s_kernel_leaves_its_sessions_alone(world: Path, tmp_path: Path) -> None:
    frontend = start(tmp_path)
    said = text_of(frontend.run("%%runtimed\nkept = 'kept'"))
    frontend.close()
    session_id = said.split()[2]
    wait_until(lambda: Client().sessions.get(session_id).peers == 0, "the kernel is still there")
    with Session(session_id) as session:
        assert session.run("kept").display_data[0].data == {"text/plain": "'kept'"}
        session.stop()
