"""The first reference document, written out: each of its sections as examples that run, on both faces.

The sections follow the document: constructor, properties, connection, kernel, document, execution, metadata, context
manager, complete example, `DaemonClient`, and `AsyncSession`.
"""

import asyncio
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runtimed
from runtimed import (
    AsyncSession,
    CellNotFound,
    Client,
    DaemonClient,
    ExecutionTimeout,
    InvalidCell,
    NoKernel,
    NotConnected,
    RuntimedError,
    Session,
)
from tests.conftest import wait_until

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture
def session(shared_daemon: Path, request: pytest.FixtureRequest) -> Iterator[Session]:
    """A connected session without a kernel, stopped afterwards."""
    session = Session(request.node.name)
    session.connect()
    yield session
    session.connect()
    session.stop()


@pytest.fixture(scope="module")
def with_kernel(shared_daemon: Path) -> Iterator[Session]:
    """A session with a kernel, for examples that do it no harm."""
    session = Session("with a kernel")
    session.start_kernel()
    yield session
    session.stop()


# --- constructor ------------------------------------------------------------------------------------------------------


def test_a_session_that_is_not_named_gets_a_random_id() -> None:
    first, second = Session(), Session()

    assert re.fullmatch(f"agent-session-{UUID4}", first.notebook_id)
    assert first.notebook_id != second.notebook_id


def test_the_notebook_id_is_the_first_argument_and_a_keyword() -> None:
    assert Session("my-analysis").notebook_id == "my-analysis"
    assert Session(notebook_id="my-analysis").notebook_id == "my-analysis"


def test_the_constructor_touches_no_daemon(data_dir: Path) -> None:
    session = Session("nothing happens")

    assert not session.is_connected
    assert not Client().is_running()
    assert list(data_dir.iterdir()) == []


def test_two_sessions_with_the_same_id_share_one_kernel_cells_and_outputs(with_kernel: Session) -> None:
    before = with_kernel.get_cells()
    with_kernel.run("x = 42")

    with Session(with_kernel.notebook_id) as other:
        assert other.kernel_started
        result = other.run("print(x)\nx += 1")
        assert result.stdout == "42\n"

    assert with_kernel.run("x").display_data[0].data == {"text/plain": "43"}
    ours = with_kernel.get_cells()[len(before) :]
    assert [cell.source for cell in ours] == ["x = 42", "print(x)\nx += 1", "x"]
    assert with_kernel.get_cell(result.cell_id).outputs == result.outputs


# --- properties -------------------------------------------------------------------------------------------------------


def test_the_properties_follow_a_session_through_its_life_and_a_new_kernel_knows_nothing(shared_daemon: Path) -> None:
    session = Session("properties")
    seen = []

    def look() -> None:
        seen.append((session.is_connected, session.kernel_started, session.env_source, repr(session)))

    look()
    session.connect()
    look()
    session.start_kernel()
    look()
    session.run("x = 1")
    session.shutdown_kernel()
    session.shutdown_kernel()  # without a kernel, too
    look()
    session.start_kernel()
    error = session.run("x").error
    session.stop()
    look()

    assert error is not None
    assert error.ename == "NameError"

    assert seen == [
        (False, False, None, "Session(id=properties, status=disconnected)"),
        (True, False, None, "Session(id=properties, status=connected)"),
        (True, True, "current", "Session(id=properties, status=kernel_running)"),
        (True, False, None, "Session(id=properties, status=connected)"),
        (False, False, None, "Session(id=properties, status=disconnected)"),
    ]


def test_properties_cannot_be_set() -> None:
    session = Session("read only")
    for name in ("notebook_id", "is_connected", "kernel_started", "env_source"):
        with pytest.raises(AttributeError):
            setattr(session, name, "x")


# --- connection -------------------------------------------------------------------------------------------------------


def test_connect_starts_the_daemon_if_none_answers(data_dir: Path) -> None:
    assert not DaemonClient().ping()
    session = Session("first of all")

    session.connect()
    session.connect()

    assert session.is_connected
    assert DaemonClient().ping()
    session.stop()


def test_connect_respects_the_socket_path_of_the_environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session("elsewhere")  # settings are read at `connect`, not before
    path = data_dir / "sockets" / "mine.sock"
    path.parent.mkdir(mode=0o700)
    monkeypatch.setenv("RUNTIMED_SOCKET_PATH", str(path))

    session.connect()

    assert runtimed.default_socket_path() == path
    assert path.is_socket()
    status = Client().status()
    assert status is not None
    assert status.socket_path == str(path)
    # A script that has the variable joins the same session; one that names another socket does not find this daemon.
    code = "import os, runtimed; print(runtimed.Client().ping())\n"
    code += "os.environ['RUNTIMED_SOCKET_PATH'] += '.other'; print(runtimed.Client().ping())"
    script = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert script.stdout == "True\nFalse\n"
    session.stop()
    Client().shutdown()
    wait_until(lambda: not Client().is_running(), "the daemon does not end")


# --- kernel -----------------------------------------------------------------------------------------------------------


def test_the_kernel_is_python_in_a_detected_environment_if_nothing_is_asked_for() -> None:
    parameters = inspect.signature(Session.start_kernel).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "self"}

    assert defaults == {
        "kernel_type": "python",
        "env_source": "auto",
        "notebook_path": None,
        "source": None,
        "progress": None,
    }
    assert list(inspect.signature(AsyncSession.start_kernel).parameters) == list(parameters)


def refusal(session: Session, **asked: Any) -> str | None:
    """Start a kernel; return what is said if it cannot be had."""
    try:
        session.start_kernel(**asked)
    except (runtimed.EnvironmentFailed, runtimed.KernelStartFailed) as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("env_source", "what"), [("uv:prewarmed", r"\buv\b|package"), ("conda:prewarmed", r"conda channel|conda package")]
)
def test_a_prewarmed_environment_is_what_runs_or_is_refused_with_the_reason(
    session: Session, env_source: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Making one takes long, and is what the tests of environments show: here there is nothing to make it of.
    monkeypatch.setenv("UV_DEFAULT_INDEX", tmp_path.as_uri())
    refused = refusal(session, env_source=env_source)

    assert refused is None or re.search(what, refused)
    assert (session.kernel_started, session.env_source) == (refused is None, None if refused else env_source)


def test_a_deno_kernel_ignores_the_environment_or_is_refused_by_name(session: Session) -> None:
    refused = refusal(session, kernel_type="deno", env_source="uv:prewarmed")

    assert refused is None or "deno" in refused
    assert (session.kernel_started, session.env_source) == (refused is None, None if refused else "deno")


def test_starting_a_kernel_connects_and_a_running_one_is_kept_whatever_is_asked_for(
    shared_daemon: Path, tmp_path: Path
) -> None:
    session = Session("start_kernel connects")
    # It says where the notebook is, which need not exist.
    session.start_kernel(notebook_path=str(tmp_path / "analysis.ipynb"))
    assert (session.is_connected, session.kernel_started) == (True, True)
    assert session.run("import os; print(os.getcwd())").stdout == f"{tmp_path}\n"
    kernel_pid = session.status().kernel_pid

    session.start_kernel()
    with Session(session.notebook_id) as other:
        other.start_kernel(kernel_type="deno", env_source="conda:prewarmed")
        assert other.env_source == "current"

    assert session.status().kernel_pid == kernel_pid
    session.stop()


def test_an_interrupt_ends_the_cell_that_runs_and_keeps_the_kernel(with_kernel: Session) -> None:
    with_kernel.run("kept = 1")
    cell_id = with_kernel.create_cell("import time\nprint('on', flush=True)\nwhile True: time.sleep(0.05)")
    execution_id = with_kernel.queue_cell(cell_id)
    wait_until(lambda: with_kernel.get_cell(cell_id).outputs, "the cell does not begin")

    with_kernel.interrupt()

    result = with_kernel.wait(execution_id)
    assert result.error is not None
    assert (result.success, result.stdout, result.error.ename) == (False, "on\n", "KeyboardInterrupt")
    assert with_kernel.run("print(kept)").stdout == "1\n"


def test_an_interrupt_without_a_kernel_says_so(session: Session) -> None:
    with pytest.raises(NoKernel, match="^No kernel running$"):
        session.interrupt()


# --- document ---------------------------------------------------------------------------------------------------------


def test_a_cell_is_created_with_an_id_at_the_end(session: Session) -> None:
    first = session.create_cell("x = 1")
    last = session.create_cell("x + 1")

    assert re.fullmatch(f"cell-{UUID4}", first)
    assert [cell.id for cell in session.get_cells()] == [first, last]


def test_a_cell_is_empty_code_if_nothing_is_said(session: Session) -> None:
    cell = session.get_cell(session.create_cell())

    assert (cell.source, cell.cell_type, cell.execution_count, cell.outputs) == ("", "code", None, ())


@pytest.mark.parametrize("cell_type", ["code", "markdown", "raw"])
def test_a_cell_has_the_type_that_it_was_given(session: Session, cell_type: runtimed.models.CellType) -> None:
    cell_id = session.create_cell("# Title", cell_type=cell_type)

    assert session.get_cell(cell_id).cell_type == cell_type


def test_a_cell_is_inserted_at_its_index(session: Session) -> None:
    for source, index in [("b", None), ("d", None), ("a", 0), ("c", 2)]:
        session.create_cell(source, index=index)

    assert [cell.source for cell in session.get_cells()] == ["a", "b", "c", "d"]


def test_a_source_is_set_for_everybody(session: Session) -> None:
    cell_id = session.create_cell("x = 1")

    session.set_source(cell_id, "x = 2")

    with Session(session.notebook_id) as other:
        assert other.get_cell(cell_id).source == "x = 2"


def test_a_cell_tells_its_id_type_source_and_execution_count(with_kernel: Session) -> None:
    cell_id = with_kernel.create_cell("1 + 1")
    before = with_kernel.get_cell(cell_id)
    count = with_kernel.execute_cell(cell_id).execution_count
    after = with_kernel.get_cell(cell_id)

    assert (before.id, before.cell_type, before.source, before.execution_count) == (cell_id, "code", "1 + 1", None)
    assert (after.id, after.cell_type, after.source, after.execution_count) == (cell_id, "code", "1 + 1", count)
    assert isinstance(count, int)


def test_a_deleted_cell_is_gone_for_everybody(session: Session) -> None:
    kept, deleted = session.create_cell("kept"), session.create_cell("deleted")

    session.delete_cell(deleted)

    with Session(session.notebook_id) as other:
        assert [cell.id for cell in other.get_cells()] == [kept]
        with pytest.raises(CellNotFound):
            other.get_cell(deleted)


# --- execution --------------------------------------------------------------------------------------------------------


def test_a_cell_is_executed_with_its_source_in_the_document_and_a_kernel_starts_by_itself(session: Session) -> None:
    cell_id = session.create_cell("print('old')")
    with Session(session.notebook_id) as other:
        other.set_source(cell_id, "print('new')\n6 * 7")
    states = [session.kernel_started]

    result = session.execute_cell(cell_id)

    assert [*states, session.kernel_started] == [False, True]
    assert (result.cell_id, result.success, result.execution_count) == (cell_id, True, 1)
    assert (result.stdout, result.stderr, result.error) == ("new\n", "", None)
    assert [output.output_type for output in result.outputs] == ["stream", "execute_result"]
    assert result.display_data == result.outputs[1:]
    assert repr(result) == f"ExecutionResult(cell={cell_id}, status=ok, outputs=2)"


def test_run_creates_a_cell_executes_it_and_returns_the_result(with_kernel: Session) -> None:
    before = with_kernel.get_cells()
    result = with_kernel.run("print('hello')")

    assert result.stdout == "hello\n"
    (cell,) = with_kernel.get_cells()[len(before) :]
    assert (cell.id, cell.source, cell.outputs) == (result.cell_id, "print('hello')", result.outputs)
    assert cell.execution_count == result.execution_count


def test_the_cell_of_a_run_is_in_the_document_before_its_first_output_is_seen(with_kernel: Session) -> None:
    with Session(with_kernel.notebook_id) as other:
        with other.subscribe(event_types=["cell_changed", "output"]) as events:
            result = with_kernel.run("print('seen')")
            ours = []
            for event in events:
                if event.cell_id == result.cell_id:
                    ours.append(event)
                    if event.event_type == "output":
                        break
        assert ours[0].event_type == "cell_changed"
        assert other.get_cell(result.cell_id).source == "print('seen')"


def test_code_that_raises_is_a_result_and_no_exception(with_kernel: Session) -> None:
    result = with_kernel.run("print('before')\n1 / 0")

    assert result.error is not None
    assert (result.success, result.stdout) == (False, "before\n")
    assert (result.error.ename, result.error.evalue) == ("ZeroDivisionError", "division by zero")
    assert "1 / 0" in str(result.error)
    assert repr(result) == f"ExecutionResult(cell={result.cell_id}, status=error, outputs=2)"


@pytest.mark.parametrize("name", ["run", "execute_cell"])
def test_a_call_waits_sixty_seconds_if_nothing_is_said(name: str) -> None:
    for face in (Session, AsyncSession):
        assert inspect.signature(getattr(face, name)).parameters["timeout_secs"].default == 60.0


def test_a_timeout_ends_the_waiting_and_the_execution_goes_on(with_kernel: Session, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('done')"
    cell_id = with_kernel.create_cell(code)

    with pytest.raises(RuntimedError, match="^Execution timed out after 1 seconds;") as caught:
        with_kernel.execute_cell(cell_id, timeout_secs=1)
    gate.touch()

    assert isinstance(caught.value, ExecutionTimeout)
    assert with_kernel.wait(caught.value.execution_id).stdout == "done\n"


def test_a_queued_cell_runs_without_anybody_waiting_for_it(session: Session) -> None:
    cell_id = session.create_cell("print('queued')")

    execution_id = session.queue_cell(cell_id)  # it starts a kernel, too

    assert isinstance(execution_id, str)
    wait_until(lambda: session.get_cell(cell_id).outputs, "the cell does not run")
    assert session.get_cell_execution_count(cell_id) == 1
    assert session.wait(execution_id).stdout == "queued\n"


def test_queued_cells_run_in_order(with_kernel: Session) -> None:
    with_kernel.run("seen = []")
    cells = [with_kernel.create_cell(f"seen.append({number})") for number in range(10)]

    for cell_id in cells:
        last = with_kernel.queue_cell(cell_id)

    assert with_kernel.wait(last).success
    assert with_kernel.run("print(seen)").stdout == f"{list(range(10))}\n"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["get_cell", "delete_cell", "execute_cell", "queue_cell", "set_source"])
def test_an_unknown_cell_is_an_error_of_runtimed(with_kernel: Session, name: str) -> None:
    arguments = ["cell-unknown", "x"] if name == "set_source" else ["cell-unknown"]

    with pytest.raises(RuntimedError, match="^Cell not found: cell-unknown$") as caught:
        getattr(with_kernel, name)(*arguments)

    assert isinstance(caught.value, CellNotFound)
    assert caught.value.cell_id == "cell-unknown"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shutdown_kernel", ()),
        ("interrupt", ()),
        ("set_source", ("cell-1", "x")),
        ("get_cell", ("cell-1",)),
        ("get_cells", ()),
        ("delete_cell", ("cell-1",)),
        ("queue_cell", ("cell-1",)),
        ("status", ()),
        ("stop", ()),
    ],
)
def test_what_does_not_connect_by_itself_says_that_it_is_not_connected(name: str, arguments: tuple[str, ...]) -> None:
    with pytest.raises(RuntimedError, match="^Not connected$") as caught:
        getattr(Session("not connected"), name)(*arguments)

    assert isinstance(caught.value, NotConnected)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("create_cell", ("x = 1",)),
        ("run", ("x = 1",)),
        ("set_metadata", ("key", "value")),
        ("get_metadata", ("key",)),
    ],
)
def test_what_begins_the_work_connects_by_itself(shared_daemon: Path, name: str, arguments: tuple[str, ...]) -> None:
    session = Session(f"{name} connects")

    getattr(session, name)(*arguments)

    assert session.is_connected
    session.stop()


@pytest.mark.parametrize("cell_type", ["markdown", "raw"])
def test_only_code_is_executed(with_kernel: Session, cell_type: runtimed.models.CellType) -> None:
    cell_id = with_kernel.create_cell("# Title", cell_type)

    with pytest.raises(InvalidCell):
        with_kernel.execute_cell(cell_id)


def test_a_cell_of_an_unknown_type_is_refused(session: Session) -> None:
    with pytest.raises(InvalidCell, match="code, markdown or raw"):
        session.create_cell("x", "python")  # type: ignore[arg-type]
    assert session.get_cells() == []


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_metadata_is_text_for_everybody_and_none_where_nothing_is_set(session: Session) -> None:
    value = json.dumps({"dependencies": ["pandas"], "title": "Übersicht"})

    assert session.get_metadata("study") is None
    session.set_metadata("study", value)

    with Session(session.notebook_id) as other:
        assert other.get_metadata("study") == value
        other.set_metadata("study", "{}")
    assert session.get_metadata("study") == "{}"


# --- context manager --------------------------------------------------------------------------------------------------


def test_a_block_connects_and_stops_the_session_that_it_started_which_shares_nothing(with_kernel: Session) -> None:
    with_kernel.run("x = 42")

    with Session() as session:
        result = session.run("x")
        inside = (session.is_connected, session.status().status, session.status().close_reason)

    outside = (session.is_connected, session.status().status, session.status().close_reason)
    assert [inside, outside] == [(True, "active", None), (False, "closed", "stopped")]
    assert session.status().kernel_pid is None
    assert not result.success
    assert result.error is not None
    assert (result.error.ename, result.error.evalue) == ("NameError", "name 'x' is not defined")


def test_a_block_only_leaves_a_session_whose_id_was_chosen(shared_daemon: Path) -> None:
    with Session("shared study") as session:
        session.run("x = 1")
    assert not session.is_connected
    assert session.status().status == "active"

    with Session("shared study") as session:
        assert session.run("print(x)").stdout == "1\n"
        session.stop()


def test_a_block_is_cleaned_up_when_it_fails(shared_daemon: Path) -> None:
    session = Session()

    with pytest.raises(ValueError, match="oh"), session:  # noqa: PT012  # what the block does is the example
        session.create_cell("x = 1")
        raise ValueError("oh")

    assert (session.status().status, session.status().close_reason) == ("closed", "error")


# --- complete example -------------------------------------------------------------------------------------------------

EXAMPLE = """\
import json

import runtimed

with runtimed.Session(notebook_id="complete-example") as session:
    session.start_kernel(kernel_type="python", env_source="auto")
    print(session)

    session.set_metadata("purpose", json.dumps({"by": "an agent"}))

    cell_id = session.create_cell("numbers = [1, 2, 3]")
    session.create_cell("# Sums", cell_type="markdown", index=0)
    print(session.execute_cell(cell_id).success)

    session.set_source(cell_id, "numbers = [1, 2, 3, 4]")
    session.execute_cell(cell_id, timeout_secs=30.0)

    result = session.run("print(sum(numbers))\\nsum(n * n for n in numbers)")
    print(result.stdout.strip(), result.display_data[0].data["text/plain"], result.execution_count)

    failed = session.run("numbers[10]")
    print(failed.success, failed.error.ename)

    try:
        session.get_cell("cell-of-nobody")
    except runtimed.RuntimedError as error:
        print(error)

    for cell in session.get_cells():
        print(cell.cell_type, cell.execution_count, repr(cell.source))

    session.shutdown_kernel()
    print(session.kernel_started, session.get_metadata("purpose"))
    session.stop()
"""


def test_the_complete_example_runs_as_a_script(shared_daemon: Path, tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(EXAMPLE)

    done = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == [
        "Session(id=complete-example, status=kernel_running)",
        "True",
        "10 30 3",
        "False IndexError",
        "Cell not found: cell-of-nobody",
        "markdown None '# Sums'",
        "code 2 'numbers = [1, 2, 3, 4]'",
        "code 3 'print(sum(numbers))\\nsum(n * n for n in numbers)'",
        "code 4 'numbers[10]'",
        'False {"by": "an agent"}',
    ]


# --- DaemonClient -----------------------------------------------------------------------------------------------------


def test_a_daemon_client_starts_no_daemon(data_dir: Path) -> None:
    client = DaemonClient()

    assert (client.ping(), client.is_running(), client.status(), client.list_rooms()) == (False, False, None, [])
    client.shutdown()
    assert list(data_dir.iterdir()) == []


def test_a_daemon_client_tells_status_and_rooms_in_dicts_and_ends_the_daemon(data_dir: Path) -> None:
    client = DaemonClient()
    session, empty = Session("room"), Session("empty room")
    session.start_kernel()
    empty.connect()
    empty.create_cell("x = 1")

    assert (client.ping(), client.is_running()) == (True, True)
    status = client.status()
    assert status is not None
    figures = ("uv_available", "uv_warming", "conda_available", "conda_warming")
    assert [type(status[name]) for name in figures] == [int] * 4
    assert (status["data_dir"], status["sessions"]) == (str(data_dir), 2)
    assert status["socket_path"] == str(runtimed.default_socket_path())
    assert status["version"] == runtimed.__version__

    assert sorted(client.list_rooms(), key=lambda room: str(room["notebook_id"])) == [
        {
            "notebook_id": "empty room",
            "active_peers": 1,
            "has_kernel": False,
            "kernel_type": None,
            "kernel_status": "not_started",
            "env_source": None,
        },
        {
            "notebook_id": "room",
            "active_peers": 1,
            "has_kernel": True,
            "kernel_type": "python",
            "kernel_status": "idle",
            "env_source": "current",
        },
    ]
    client.flush_pool()

    client.shutdown()
    wait_until(lambda: not client.is_running(), "the daemon does not end")
    assert (client.ping(), client.status(), client.list_rooms()) == (False, None, [])
    # The next daemon knows how they ended.
    assert (session.status().status, session.status().close_reason) == ("closed", "stopped")
    session.close()
    empty.close()


# --- AsyncSession -----------------------------------------------------------------------------------------------------


def test_an_async_session_asks_for_its_state_with_coroutines(shared_daemon: Path) -> None:
    async def main() -> list[object]:
        session = AsyncSession("async state")
        seen: list[object] = [session.notebook_id]
        seen += [await session.is_connected(), await session.kernel_started(), await session.env_source()]
        await session.start_kernel()
        seen += [await session.is_connected(), await session.kernel_started(), await session.env_source()]
        await session.stop()
        return [*seen, await session.is_connected(), repr(session)]

    assert asyncio.run(main()) == [
        *("async state", False, False, None, True, True, "current", False),
        "AsyncSession(id=async state, status=disconnected)",
    ]


def test_an_async_session_edits_and_executes_cells(shared_daemon: Path) -> None:
    async def main() -> None:
        async with AsyncSession() as session:
            cell_id = await session.create_cell("x = 1")
            await session.create_cell("# Title", cell_type="markdown", index=0)
            unwanted = await session.create_cell("unwanted", "raw")
            await session.delete_cell(unwanted)
            await session.set_source(cell_id, "print('x')\n2")
            assert [(cell.cell_type, cell.source) for cell in await session.get_cells()] == [
                ("markdown", "# Title"),
                ("code", "print('x')\n2"),
            ]

            result = await session.execute_cell(cell_id)
            assert (result.success, result.stdout, result.execution_count) == (True, "x\n", 1)
            assert (await session.get_cell(cell_id)).outputs == result.outputs
            assert (await session.run("print(3)")).stdout == "3\n"
            assert (await session.wait(await session.queue_cell(cell_id))).outputs[0] == result.outputs[0]

            await session.set_metadata("key", "value")
            assert (await session.get_metadata("key"), await session.get_metadata("other")) == ("value", None)
            await session.shutdown_kernel()
            assert not await session.kernel_started()
        assert ((await session.status()).status, (await session.status()).close_reason) == ("closed", "stopped")

    asyncio.run(main())


def test_an_async_session_and_a_session_of_the_same_id_share_one_kernel(with_kernel: Session) -> None:
    async def main() -> str:
        async with AsyncSession(with_kernel.notebook_id) as session:
            await session.run("from_async = 'hello'")
            return (await session.status()).session_id

    assert asyncio.run(main()) == with_kernel.notebook_id
    assert with_kernel.run("print(from_async)").stdout == "hello\n"


def test_async_sessions_work_at_the_same_time(shared_daemon: Path, tmp_path: Path) -> None:
    async def meet(mine: str, other: str) -> str:
        # Each ends only when the other one has begun.
        async with AsyncSession() as session:
            code = f"import pathlib, time\npathlib.Path({mine!r}).touch()\n"
            code += f"while not pathlib.Path({other!r}).exists(): time.sleep(0.01)\nprint('met')"
            return (await session.run(code)).stdout

    async def main() -> list[str]:
        first, second = str(tmp_path / "first"), str(tmp_path / "second")
        return list(await asyncio.gather(meet(first, second), meet(second, first)))

    assert asyncio.run(main()) == ["met\n", "met\n"]


def test_an_async_stream_is_iterated_or_awaited_first(with_kernel: Session) -> None:
    async def main() -> list[list[runtimed.models.EventType]]:
        async with AsyncSession(with_kernel.notebook_id) as session:
            cell_id = await session.create_cell("display(1)\ndisplay(2)")
            first = [event.event_type async for event in session.stream_execute(cell_id)]
            events = await session.stream_execute(cell_id)
            return [first, [event.event_type async for event in events]]

    assert asyncio.run(main()) == [["execution_started", "output", "output", "done"]] * 2


def test_an_async_session_raises_the_same_errors(with_kernel: Session) -> None:
    async def main() -> None:
        session = AsyncSession(with_kernel.notebook_id)
        with pytest.raises(NotConnected, match="^Not connected$"):
            await session.get_cells()
        await session.connect()
        with pytest.raises(CellNotFound, match="^Cell not found: cell-unknown$"):
            await session.execute_cell("cell-unknown")
        with pytest.raises(ExecutionTimeout, match=r"^Execution timed out after 0\.5 seconds;") as caught:
            await session.run("import time\nwhile True: time.sleep(0.05)", timeout_secs=0.5)
        await session.cancel(caught.value.execution_id)
        assert not (await session.wait(caught.value.execution_id)).success
        await session.close()
        async with AsyncSession("without a kernel") as other:
            await other.create_cell()
            with pytest.raises(NoKernel, match="^No kernel running$"):
                await other.interrupt()

    asyncio.run(main())


def test_an_async_block_is_cleaned_up_when_it_fails_or_is_cancelled(shared_daemon: Path) -> None:
    async def main() -> list[str | None]:
        failing, cancelled = AsyncSession(), AsyncSession()
        with pytest.raises(ValueError, match="oh"):  # noqa: PT012  # what the block does is the example
            async with failing:
                await failing.create_cell("x = 1")
                raise ValueError("oh")

        began = asyncio.Event()

        async def block() -> None:
            async with cancelled:
                await cancelled.run("x = 1")
                began.set()
                await cancelled.run("import time\nwhile True: time.sleep(0.05)", timeout_secs=None)

        task = asyncio.create_task(block())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return [(await session.status()).close_reason for session in (failing, cancelled)]

    assert asyncio.run(main()) == ["error", "error"]
