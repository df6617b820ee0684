"""The members of a session that need a kernel, on both faces, through a real daemon and real kernels."""

import base64
import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from runtimed import (
    EnvironmentFailed,
    ExecutionCancelled,
    ExecutionTimeout,
    InvalidArgument,
    InvalidCell,
    KernelStartFailed,
    NoKernel,
    Output,
    RuntimedError,
    SessionClosed,
)
from tests.client.faces import on_one_face
from tests.conftest import wait_until

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def stream(text: str, name: str = "stdout") -> Output:
    return Output(output_type="stream", name=name, text=text)


# --- the life of a kernel ---------------------------------------------------------------------------------------------


@on_one_face
def test_a_kernel_is_started_shared_restarted_and_shut_down(face, session):
    session.start_kernel()
    assert (session.kernel_started, session.env_source) == (True, "current")
    assert "kernel_running" in repr(session)
    pid = session.run("import os; print(os.getpid())").stdout

    other = face.session(session.notebook_id)
    other.start_kernel(env_source="python:/nonexistent")
    assert other.run("print(os.getpid())").stdout == pid
    other.close()

    session.restart_kernel()
    result = session.run("print('os' in dir())")
    assert (result.stdout, result.execution_count) == ("False\n", 1)

    session.shutdown_kernel()
    session.shutdown_kernel()
    assert (session.kernel_started, session.env_source, session.status().status) == (False, None, "active")
    with pytest.raises(NoKernel, match="^No kernel running$"):
        session.interrupt()
    with pytest.raises(NoKernel):
        session.restart_kernel()


@on_one_face
def test_a_kernel_works_in_the_nearest_folder_of_any_path_and_a_deleted_folder_is_a_sentence(
    session, tmp_path, monkeypatch
):
    session.start_kernel(notebook_path=tmp_path / "not" / ("a" * 300) / "nb.ipynb")
    assert session.run("import os; print(os.getcwd())").stdout == f"{tmp_path}\n"
    session.shutdown_kernel()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(KernelStartFailed, match="^The folder in which the client works was deleted"):
        session.start_kernel()
    with pytest.raises(KernelStartFailed, match="^The folder in which the client works was deleted"):
        session.run("1")


@on_one_face
def test_a_session_goes_on_when_the_folder_of_its_client_is_deleted(face, session, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    session.start_kernel()
    gone.rmdir()
    assert session.run("1 + 1").success
    cell_id = session.create_cell("print(2)")
    assert session.wait(session.queue_cell(cell_id)).stdout == "2\n"
    assert [event.event_type for event in session.stream_execute(cell_id)][-1] == "done"
    # The home folder takes its place.
    session.restart_kernel()
    assert session.run("import os; print(os.path.samefile(os.getcwd(), os.path.expanduser('~')))").stdout == "True\n"
    again = face.session(session.notebook_id)
    assert again.run("print(3)").stdout == "3\n"
    again.close()


@on_one_face
def test_an_interpreter_and_a_kernelspec_can_be_named_and_its_kernel_drops_no_output_either(session, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    session.start_kernel(env_source="python:python3")
    assert session.env_source == f"python:{Path(sys.executable).with_name('python3')}"
    session.shutdown_kernel()
    session.start_kernel(env_source="kernelspec:python3")
    assert session.env_source == "kernelspec:python3"
    # Twice as many messages as a socket of ZeroMQ keeps by itself.
    result = session.run("for n in range(2000): print(n, flush=True)\n6 * 7")
    assert result.stdout == "".join(f"{n}\n" for n in range(2000))
    assert result.display_data[0].data == {"text/plain": "42"}


@on_one_face
def test_a_kernel_that_cannot_start_says_why_and_one_that_can_has_the_variables_and_the_folder_of_its_client(
    session, monkeypatch, tmp_path
):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 7\n")
    broken.chmod(0o755)
    for asked, error, sentence in (
        ({"env_source": "kernelspec:nonesuch"}, KernelStartFailed, "nonesuch"),
        ({"env_source": "python:/nonexistent/python"}, KernelStartFailed, "/nonexistent/python"),
        ({"env_source": f"python:{broken}"}, KernelStartFailed, "(?s)7.*out of order"),
        ({"env_source": "poetry"}, EnvironmentFailed, "'poetry' is not available"),
        ({"kernel_type": "cobol"}, EnvironmentFailed, "cobol"),
    ):
        with pytest.raises(error, match=sentence) as caught:
            session.start_kernel(**asked)
        assert not session.kernel_started
        if str(broken) in str(asked):
            assert caught.value.exit_code == 7
            assert "out of order" in caught.value.stderr

    monkeypatch.setenv("OF_THIS_CLIENT", "é \U0001f600")
    monkeypatch.chdir(tmp_path)
    session.start_kernel()
    result = session.run("import os, sys; print(os.environ['OF_THIS_CLIENT'], os.getcwd(), sys.executable, sep='|')")
    assert result.stdout == f"é \U0001f600|{tmp_path}|{sys.executable}\n"


DEATHS = {"import os; os._exit(3)": "3"}
# Only Linux has real-time signals.
SIGNAL = ("signal.SIGRTMIN + 6", "signal 40") if sys.platform == "linux" else ("9", "SIGKILL")
DEATHS[f"import os, signal; os.kill(os.getpid(), {SIGNAL[0]})"] = SIGNAL[1]


@on_one_face
def test_a_kernel_that_dies_ends_its_execution_its_queue_and_the_session(session):
    session.start_kernel()
    for code, how in DEATHS.items():
        waiting = session.create_cell("print('never')")
        dying = session.create_cell("import time; time.sleep(0.3); print('last', flush=True); time.sleep(0.3); " + code)
        first = session.queue_cell(dying)
        second = session.queue_cell(waiting)

        result = session.wait(first)
        assert (result.success, result.stdout) == (False, "last\n")
        assert result.error.ename == "KernelDied"
        assert how in result.error.evalue
        with pytest.raises(ExecutionCancelled, match="kernel"):
            session.wait(second)
        assert session.get_cell_outputs(waiting) == []
        status = session.status()
        assert (status.status, status.close_reason, status.kernel_status) == ("error", "died", "not_started")
        assert how in status.error

        assert session.run("print('again')").stdout == "again\n"
        assert session.status().status == "active"


@on_one_face
def test_a_kernel_that_eats_all_memory_it_may_have_fails_in_its_cell_and_lives(with_kernel):
    result = with_kernel.run(
        "import psutil, resource\n"
        "before = resource.getrlimit(resource.RLIMIT_AS)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**28, before[1]))\n"
        "data = []\n"
        "while True: data.append(bytearray(2**25))"
    )

    assert result.error is not None
    assert result.error.ename == "MemoryError"
    code = "del data; resource.setrlimit(resource.RLIMIT_AS, before); print('lives')"
    assert with_kernel.run(code).stdout == "lives\n"


@on_one_face
def test_a_session_is_stopped_while_its_kernel_still_starts(face, session, tmp_path):
    mute = tmp_path / "python"
    mute.write_text("#!/bin/sh\nexec sleep 1000\n")
    mute.chmod(0o755)
    failures = []

    def start() -> None:
        try:
            session.start_kernel(env_source=f"python:{mute}")
        except SessionClosed as exc:
            failures.append(exc)

    starting = threading.Thread(target=start)
    starting.start()
    other = face.session(session.notebook_id)
    other.connect()
    wait_until(lambda: other.kernel_started, "the kernel does not start")
    began = time.monotonic()
    other.stop()
    starting.join()

    assert len(failures) == 1
    assert time.monotonic() - began < 20
    assert other.status().status == "closed"


@on_one_face
def test_what_was_queued_for_a_kernel_that_does_not_start_says_why_it_never_ran(face, session, tmp_path):
    broken = tmp_path / "python"
    broken.write_text(f"#!/bin/sh\nuntil [ -e {tmp_path}/go ]; do sleep 0.01; done\necho out of order >&2\nexit 7\n")
    broken.chmod(0o755)
    failures = []

    def start() -> None:
        try:
            session.start_kernel(env_source=f"python:{broken}")
        except KernelStartFailed as exc:
            failures.append(exc)

    starting = threading.Thread(target=start)
    starting.start()
    other = face.session(session.notebook_id)
    other.connect()
    wait_until(lambda: other.kernel_started, "the kernel does not start")
    waiting = other.queue_cell(other.create_cell("print('never')"))
    (tmp_path / "go").touch()
    starting.join()

    assert len(failures) == 1
    with pytest.raises(ExecutionCancelled, match="(?s)no kernel for it. The kernel did not start: .*out of order"):
        other.wait(waiting)
    other.close()


# --- running ----------------------------------------------------------------------------------------------------------


def test_running_code_gives_a_result_with_everything_in_it(with_kernel):
    before = datetime.now(UTC) - timedelta(seconds=1)

    result = with_kernel.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")

    assert result.success
    assert result.cell_id.startswith("cell-")
    assert result.stdout == "out\n"
    assert result.stderr == "err\n"
    assert result.error is None
    assert [output.data for output in result.display_data] == [{"text/plain": "42"}]
    assert result.display_data[0].execution_count == result.execution_count
    assert before < result.started_at <= result.ended_at < datetime.now(UTC) + timedelta(seconds=1)
    assert repr(result) == f"ExecutionResult(cell={result.cell_id}, status=ok, outputs=3)"
    cell = with_kernel.get_cell(result.cell_id)
    assert (cell.execution_count, cell.outputs) == (result.execution_count, result.outputs)


def test_code_that_raises_is_an_output_not_an_exception(with_kernel):
    result = with_kernel.run("def f():\n    raise ValueError('no \U0001f600')\nf()")

    assert not result.success
    assert (result.error.ename, result.error.evalue) == ("ValueError", "no \U0001f600")
    assert any("f()" in line for line in result.error.traceback)
    assert repr(result).endswith("status=error, outputs=1)")


def test_a_syntax_error_is_an_output_too(with_kernel):
    result = with_kernel.run("1 +")

    assert (result.success, result.error.ename) == (False, "SyntaxError")


def test_rich_outputs_keep_their_types_and_metadata(with_kernel):
    result = with_kernel.run(
        "from IPython.display import display\n"
        f"display({{'image/png': {base64.b64encode(PIXEL).decode()!r}, 'application/json': {{'a': [1, 10**30]}},\n"
        "  'text/html': '<b>é</b>', 'application/vnd.x+json': [1]}, raw=True, metadata={'image/png': {'width': 7}})"
    )

    output = result.display_data[0]
    assert output.output_type == "display_data"
    assert output.metadata == {"image/png": {"width": 7}}
    assert output.data == {
        "image/png": PIXEL,
        "application/json": {"a": [1, 10**30]},
        "text/html": "<b>é</b>",
        "application/vnd.x+json": [1],
    }


def test_large_values_come_whole(with_kernel):
    result = with_kernel.run(
        "from IPython.display import display\n"
        "display({'text/html': 'é' * 3_000_000, 'application/json': {'a': 'x' * 2_000_000}}, raw=True)"
    )

    assert result.display_data[0].data == {"text/html": "é" * 3_000_000, "application/json": {"a": "x" * 2_000_000}}
    assert with_kernel.get_cell(result.cell_id).outputs == result.outputs


def test_streams_merge_in_the_order_in_which_they_happened(with_kernel):
    result = with_kernel.run(
        "import sys\n"
        "for n in range(3): print(n, flush=True)\n"
        "print('a', file=sys.stderr, flush=True)\n"
        "print('10%', end='\\r', flush=True); print('99%', flush=True)\n"
        "print('\\x1b[31mred\\x1b[0m')"
    )

    assert list(result.outputs) == [stream("0\n1\n2\n"), stream("a\n", "stderr"), stream("99%\n\x1b[31mred\x1b[0m\n")]


def test_outputs_are_cleared_and_updated_as_the_code_says(with_kernel):
    result = with_kernel.run(
        "from IPython.display import display, clear_output\n"
        "print('gone'); clear_output(wait=True); print('kept')\n"
        "handle = display('first', display_id='here')\n"
        "display('other')\n"
        "handle.update('second')"
    )

    assert [output.data or output.text for output in result.outputs] == [
        "kept\n",
        {"text/plain": "'second'"},
        {"text/plain": "'other'"},
    ]

    later = with_kernel.run("handle.update('third')")
    assert later.outputs == ()
    shown = with_kernel.get_cell_outputs(result.cell_id)
    assert [output.data for output in shown[1:]] == [{"text/plain": "'third'"}, {"text/plain": "'other'"}]


def test_a_lone_surrogate_is_printed_but_cannot_be_a_source(with_kernel):
    assert with_kernel.run("1; print('a\\ud800b'.encode('utf-8', 'surrogatepass'))").success
    with pytest.raises(InvalidCell, match="surrogate"):
        with_kernel.run("print('\ud800')")


def test_input_is_refused_at_once_where_nobody_can_answer(with_kernel):
    result = with_kernel.run("input('name? ')")

    assert result.error.ename == "StdinNotImplementedError"


def test_a_result_shows_itself_in_plain_python(with_kernel, capsys):
    result = with_kernel.run("print('hello')\n6 * 7")
    result._ipython_display_()

    assert capsys.readouterr().out == "hello\n42\n"


# --- executing cells --------------------------------------------------------------------------------------------------


def test_a_cell_runs_with_the_source_that_the_document_holds(face, with_kernel):
    cell_id = with_kernel.create_cell("print('old')")
    other = face.session(with_kernel.notebook_id)
    other.connect()
    other.set_source(cell_id, "print('new')")
    other.close()

    result = with_kernel.execute_cell(cell_id)

    assert (result.cell_id, result.stdout) == (cell_id, "new\n")


def test_clearing_outputs_leaves_the_execution_readable(with_kernel):
    result = with_kernel.run("print('kept')")
    with_kernel.clear_outputs(result.cell_id)

    cell = with_kernel.get_cell(result.cell_id)
    assert (cell.outputs, cell.execution_count) == ((), None)
    assert with_kernel.wait(result.execution_id) == result


@pytest.mark.parametrize("cell_type", ["markdown", "raw"])
def test_only_code_cells_execute(with_kernel, cell_type):
    cell_id = with_kernel.create_cell("x", cell_type)
    for use in (with_kernel.execute_cell, with_kernel.queue_cell, with_kernel.stream_execute):
        with pytest.raises(InvalidCell, match=f"is a {cell_type} cell"):
            _consume(use(cell_id))


def test_what_cannot_be_executed_starts_no_kernel(session, face):
    cell_id = session.create_cell("x", "markdown")
    with pytest.raises(InvalidCell):
        session.execute_cell(cell_id)
    with pytest.raises(RuntimedError, match="Cell not found"):
        session.queue_cell("cell-unknown")
    assert session.status().kernel_pid is None


def _consume(result):
    if hasattr(result, "__next__"):
        list(result)


@pytest.mark.parametrize("use", ["execute_cell", "queue_cell", "stream_execute"])
def test_an_unknown_cell_does_not_execute(with_kernel, use):
    with pytest.raises(RuntimedError, match="^Cell not found: cell-unknown$"):
        _consume(getattr(with_kernel, use)("cell-unknown"))


def test_a_queued_cell_is_awaited_by_another_client_later(face, with_kernel):
    cell_id = with_kernel.create_cell("print('queued')")
    execution_id = with_kernel.queue_cell(cell_id)
    other = face.session(with_kernel.notebook_id)
    other.connect()

    assert other.wait(execution_id).stdout == "queued\n"
    assert other.wait(execution_id) == with_kernel.wait(execution_id)
    other.close()


@pytest.mark.parametrize("use", ["wait", "cancel"])
def test_an_unknown_execution_is_named(with_kernel, use):
    with pytest.raises(RuntimedError, match="no execution 'execution-unknown'"):
        getattr(with_kernel, use)("execution-unknown")


def test_a_timeout_ends_the_waiting_and_not_the_execution(with_kernel):
    with pytest.raises(ExecutionTimeout) as caught:
        with_kernel.run("import time; time.sleep(1); print('done')", timeout_secs=0.2)

    assert isinstance(caught.value, TimeoutError)
    execution_id = caught.value.execution_id
    assert str(caught.value) == (
        f"Execution timed out after 0.2 seconds; it runs on: session.wait('{execution_id}') waits for it, "
        f"session.cancel('{execution_id}') ends it"
    )
    assert with_kernel.wait(caught.value.execution_id).stdout == "done\n"


def test_a_timeout_can_interrupt(with_kernel):
    with pytest.raises(
        ExecutionTimeout, match=r"^Execution timed out after 0\.3 seconds; it was interrupted$"
    ) as caught:
        with_kernel.run("import time; time.sleep(60)", timeout_secs=0.3, on_timeout="interrupt")

    assert with_kernel.wait(caught.value.execution_id).error.ename == "KeyboardInterrupt"


@pytest.mark.parametrize("timeout", [-1, "5", float("nan"), True])
def test_a_timeout_that_is_none_is_refused_before_anything_is_sent(with_kernel, timeout):
    cells = with_kernel.get_cell_ids()
    for wait in (with_kernel.run, with_kernel.execute_cell, with_kernel.wait, with_kernel.stream_execute):
        with pytest.raises(ValueError, match="^timeout_secs must be a number, not negative, or None for no limit; not"):
            wait("1", timeout_secs=timeout)
    assert with_kernel.get_cell_ids() == cells


@pytest.mark.parametrize(
    "timeout", [None, float("inf"), 3e6, 2.2e6, sys.maxsize, 10**400, 1e308, Fraction(9)], ids=repr
)
def test_a_timeout_may_be_as_long_as_one_likes(with_kernel, timeout):
    assert with_kernel.run("print(1)", timeout_secs=timeout).stdout == "1\n"
    cell_id = with_kernel.create_cell("print(2)")
    assert with_kernel.execute_cell(cell_id, timeout_secs=timeout).stdout == "2\n"
    assert with_kernel.wait(with_kernel.queue_cell(cell_id), timeout_secs=timeout).stdout == "2\n"
    events = list(with_kernel.stream_execute(cell_id, timeout_secs=timeout))
    assert [events[0].event_type, events[-1].event_type] == ["execution_started", "done"]


def test_executions_queue_and_an_error_cancels_what_the_same_client_queued(face, with_kernel):
    other = face.session(with_kernel.notebook_id)
    other.connect()
    slow = with_kernel.create_cell("import time; time.sleep(0.5); 1 / 0")
    quick = with_kernel.create_cell("print('ran')")

    first = with_kernel.queue_cell(slow)
    behind = with_kernel.queue_cell(quick)
    theirs = other.queue_cell(quick)

    assert with_kernel.wait(first).error.ename == "ZeroDivisionError"
    with pytest.raises(ExecutionCancelled, match="same client queued before it failed") as caught:
        with_kernel.wait(behind)
    assert caught.value.execution_id == behind
    assert with_kernel.wait(theirs).stdout == "ran\n"
    other.close()


def test_a_waiting_execution_is_cancelled_and_a_running_one_interrupted(face, with_kernel):
    slow = with_kernel.create_cell("import time\nprint('on', flush=True)\ntime.sleep(60)")
    running = with_kernel.queue_cell(slow)
    waiting = with_kernel.queue_cell(with_kernel.create_cell("print('never')"))

    with_kernel.cancel(waiting)
    with pytest.raises(ExecutionCancelled, match="^Cancelled: the client that queued it cancelled it$"):
        with_kernel.wait(waiting)
    for label, who in ((None, "another client"), ("Ann's notebook", '"Ann\'s notebook"')):
        theirs = with_kernel.queue_cell(with_kernel.create_cell("print('never')"))
        other = face.session(with_kernel.notebook_id, label=label)
        other.connect()
        other.cancel(theirs)
        other.close()
        with pytest.raises(ExecutionCancelled, match=f"^Cancelled: {who} cancelled it$"):
            with_kernel.wait(theirs)
    wait_until(lambda: with_kernel.get_cell_outputs(slow), "the cell does not begin")
    with_kernel.cancel(running)
    assert with_kernel.wait(running).error.ename == "KeyboardInterrupt"
    with_kernel.cancel(running)


def test_an_interrupt_before_during_and_after_a_cell_is_harmless(with_kernel):
    with_kernel.interrupt()
    cell_id = with_kernel.create_cell("import time\nprint('on', flush=True)\ntime.sleep(60)")
    execution_id = with_kernel.queue_cell(cell_id)
    wait_until(lambda: with_kernel.get_cell_outputs(cell_id), "the cell does not begin")
    with_kernel.interrupt()
    assert with_kernel.wait(execution_id).error.ename == "KeyboardInterrupt"
    with_kernel.interrupt()
    assert with_kernel.run("1 + 1").success


def test_an_interrupt_works_from_another_thread_while_a_call_waits(face, with_kernel):
    cell_id = with_kernel.create_cell("import time\nprint('on', flush=True)\ntime.sleep(60)")
    results = []
    waiting = threading.Thread(target=lambda: results.append(with_kernel.execute_cell(cell_id)))
    waiting.start()
    other = face.session(with_kernel.notebook_id)
    other.connect()
    wait_until(lambda: other.get_cell_outputs(cell_id), "the cell does not begin")
    other.close()

    with_kernel.interrupt()
    waiting.join()

    assert results[0].error.ename == "KeyboardInterrupt"


def test_completion_and_inspection_answer_while_a_cell_runs(with_kernel):
    cell_id = with_kernel.create_cell("import os, time\nprint('on', flush=True)\ntime.sleep(3)")
    execution_id = with_kernel.queue_cell(cell_id)
    wait_until(lambda: with_kernel.get_cell_outputs(cell_id), "the cell does not begin")

    completed = with_kernel.complete("os.getp")
    inspected = with_kernel.inspect("os.getpid", 9)

    assert "getpid" in [match.rpartition(".")[2] for match in completed["matches"]]
    assert "process" in inspected["data"]["text/plain"]
    assert with_kernel.get_cell(cell_id).execution_count is not None
    with_kernel.cancel(execution_id)
    with_kernel.wait(execution_id)


@pytest.mark.parametrize("place", [-1, 5])
def test_a_cursor_outside_of_the_code_is_a_sentence_at_once(with_kernel, place):
    sentence = f"^cursor_pos counts code points of the code, here from 0 to 4; not {place}$"
    for ask in (with_kernel.complete, with_kernel.inspect):
        with pytest.raises(ValueError, match=sentence):
            ask("impo", place)


# --- events -----------------------------------------------------------------------------------------------------------


def test_a_streamed_execution_begins_shows_outputs_and_ends_once(with_kernel):
    cell_id = with_kernel.create_cell("print(1, flush=True)\nprint(2, flush=True)\n3")

    events = list(with_kernel.stream_execute(cell_id))

    first, *outputs, last = events
    assert (first.event_type, last.event_type) == ("execution_started", "done")
    assert {event.event_type for event in outputs} == {"output"}
    assert {event.cell_id for event in events} == {cell_id}
    assert len({event.execution_id for event in events}) == 1
    *texts, result = [event.output for event in outputs]
    # In how many pieces a text comes is the kernel's affair.
    assert {(text.output_type, text.name) for text in texts} == {("stream", "stdout")}
    assert "".join(text.text for text in texts) == "1\n2\n"
    assert (result.output_type, result.data) == ("execute_result", {"text/plain": "3"})
    assert first.execution_count == last.execution_count


def test_a_streamed_execution_that_fails_ends_with_one_error(with_kernel):
    cell_id = with_kernel.create_cell("1 / 0")

    events = list(with_kernel.stream_execute(cell_id))

    assert [event.event_type for event in events] == ["execution_started", "output", "error"]
    assert events[1].output.ename == "ZeroDivisionError"
    assert "ZeroDivisionError" in events[2].error_message


def test_a_streamed_output_arrives_before_the_cell_ends(with_kernel):
    cell_id = with_kernel.create_cell("import time\nprint('early', end='', flush=True)\ntime.sleep(60)")
    events = with_kernel.stream_execute(cell_id)

    started = next(events)
    early = next(events)
    with_kernel.cancel(started.execution_id)

    assert early.output.text == "early"
    assert list(events)[-1].event_type == "error"


def test_a_stream_times_out_while_it_is_read(with_kernel):
    cell_id = with_kernel.create_cell("import time; time.sleep(60)")

    with pytest.raises(ExecutionTimeout) as caught:
        list(with_kernel.stream_execute(cell_id, timeout_secs=0.3))
    with_kernel.cancel(caught.value.execution_id)
    with_kernel.wait(caught.value.execution_id)


def test_a_subscriber_sees_everybodys_work_in_order(face, with_kernel):
    other = face.session(with_kernel.notebook_id)
    other.connect()
    events = with_kernel.subscribe()

    result = other.run("print('theirs')")

    seen = []
    for event in events:
        seen.append(event)
        if event.event_type == "done":
            break
    events.close()
    other.close()
    ours = [event for event in seen if event.cell_id == result.cell_id]
    kinds = [event.event_type for event in ours]
    assert kinds[0] == "cell_changed"
    assert ours[0].status == "added"
    assert [kind for kind in kinds if kind != "cell_changed"] == ["execution_started", "output", "done"]
    assert next(event for event in ours if event.output).output.text == "theirs\n"
    assert {"busy"} <= {event.status for event in seen if event.event_type == "kernel_status"}


def test_a_subscriber_can_choose_cells_and_types(with_kernel):
    wanted = with_kernel.create_cell("print('wanted')")
    other = with_kernel.create_cell("print('other')")
    events = with_kernel.subscribe([wanted], ["output"])

    with_kernel.execute_cell(other)
    with_kernel.execute_cell(wanted)

    event = next(events)
    events.close()
    assert (event.cell_id, event.output.text) == (wanted, "wanted\n")
    with pytest.raises(ValueError, match="'noise'"):
        with_kernel.subscribe(event_types=["noise"])


# --- the session ------------------------------------------------------------------------------------------------------


def test_running_starts_a_kernel_and_a_generated_session_that_a_block_started_is_stopped_with_it(face):
    with face.session() as session:
        assert not session.kernel_started
        assert session.run("1 + 1").display_data[0].data["text/plain"] == "2"
        assert session.kernel_started
        assert session.status().status == "active"

    status = session.status()
    assert (status.status, status.close_reason, status.kernel_pid) == ("closed", "stopped", None)
    session.stop()
    assert session.status().status == "closed"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block_ends_its_session_with_the_reason_error(face, error):
    with pytest.raises(error), face.session() as session:  # noqa: PT012  # what the block does is the test
        session.create_cell()
        raise error

    status = session.status()
    assert (status.status, status.close_reason) == ("closed", "error")


@on_one_face
def test_a_chosen_or_joined_session_is_only_left(face):
    name = f"chosen {face.name}"
    with face.session(name) as session:
        session.run("x = 1")
    assert session.status().status == "active"

    with face.session() as creator:
        cell_id = creator.create_cell("y = 1")
        with face.session(creator.notebook_id) as joined:
            assert joined.get_cell_source(cell_id) == "y = 1"
        assert creator.status().status == "active"

    with face.session(name) as again:
        assert again.run("print(x)").stdout == "1\n"
        again.stop()


@on_one_face
def test_the_cells_of_a_stopped_session_stay_and_it_starts_again_by_id(face, session):
    result = session.run("print('kept')")
    session.stop()
    assert not session.is_connected

    again = face.session(session.notebook_id)
    again.connect()
    assert again.get_cell(result.cell_id).outputs == result.outputs
    assert again.status().status == "closed"
    with pytest.raises(NoKernel):
        again.interrupt()

    assert again.execute_cell(result.cell_id).stdout == "kept\n"
    assert again.status().status == "active"
    again.close()


def test_the_status_of_a_session_tells_all_of_it(face, with_kernel):
    status = with_kernel.status()

    assert (status.session_id, status.kind, status.status) == (with_kernel.notebook_id, "kernel", "active")
    assert (status.close_reason, status.closed_at, status.error) == (None, None, None)
    assert status.created_at.tzinfo is not None
    assert timedelta() < status.duration < timedelta(minutes=10)
    assert status.peers >= 1
    assert (status.kernel_type, status.kernel_status, status.env_source) == ("python", "idle", "current")
    assert status.kernel_pid != status.host_pid


def test_a_filter_that_would_match_nothing_is_refused(face, session):
    for sentence, ask in {
        "^cell_ids is a list: give \\['cell-1'\\]$": lambda: session.subscribe(cell_ids="cell-1"),
        "^event_types is a list: give \\['done'\\]$": lambda: session.subscribe(event_types="done"),
        "^There are no events of the type 'end'; ": lambda: session.subscribe(event_types=["end"]),
        "^status is active, closed, error, timed_out or None; not 'happy'$": (
            lambda: face.client().sessions.list(status="happy")
        ),
        "^kind is kernel, browser or None; not 'page'$": lambda: face.client().sessions.list(kind="page"),
    }.items():
        with pytest.raises(InvalidArgument, match=sentence):
            ask()


def test_sessions_are_listed_found_and_stopped_by_id(face, session):
    client = face.client()
    session.create_cell()

    listed = client.sessions.list(status="active", kind="kernel")
    assert session.notebook_id in [status.session_id for status in listed]
    assert client.sessions.list(kind="browser") == []
    assert len(client.sessions.list(page_size=1)) == 1
    assert client.sessions.get(session.notebook_id).status == "active"
    client.sessions.stop(session.notebook_id)
    client.sessions.stop(session.notebook_id)
    assert client.sessions.get(session.notebook_id).status == "closed"
    assert session.notebook_id in [status.session_id for status in client.sessions.list(status="closed")]


def test_reading_the_status_is_no_use_of_a_session(with_kernel):
    with_kernel.get_cell_ids()
    first = with_kernel.status().last_accessed_at
    time.sleep(0.01)

    assert with_kernel.status().last_accessed_at == first
    with_kernel.get_cell_ids()
    assert with_kernel.status().last_accessed_at > first


def test_json_survives_the_way_through_document_and_kernel(with_kernel):
    value = {"é": [1, 2.5, None, True, "\u2028"]}
    with_kernel.set_metadata("value", json.dumps(value))

    assert json.loads(with_kernel.get_metadata("value")) == value
