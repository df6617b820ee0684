"""The handle of one execution: submitted, found again, followed, answered and interrupted, on both faces."""

import asyncio
import json
import sys
import uuid

import pytest

from runtimed import (
    AsyncExecution,
    AsyncSession,
    CellNotFound,
    ExecutionCancelled,
    ExecutionNotFound,
    ExecutionTimeout,
    InvalidArgument,
    InvalidCell,
    NotConnected,
    RuntimedError,
)
from runtimed.protocol.events import Display, Finished, InputRequested, Stream
from tests.client.faces import on_one_face
from tests.conftest import wait_until
from tests.daemon.conftest import until

QUESTION = "name = input('Who? '); print('Hello', name)"


@pytest.fixture
def gate(tmp_path):
    """Code that waits for a file, and what makes the file."""
    path = tmp_path / "gate"
    yield f"import os, time\nprint('begun')\nwhile not os.path.exists({str(path)!r}): time.sleep(0.01)", path.touch
    path.touch()


async def has_changed(session: AsyncSession, before: str | None) -> bool:
    return (await session.status()).kernel_status != before


def seen(event):
    return (event.event_type, event.output.text if event.output is not None else event.message)


def test_code_becomes_a_cell_and_its_handle_waits_for_it(with_kernel):
    execution = with_kernel.submit(code="print(6 * 7)")

    assert execution.wait().stdout == "42\n"
    assert execution.wait().execution_id == execution.id, "it can be waited for again"
    cell = with_kernel.get_cell(execution.cell_id)
    assert (cell.source, cell.execution_id) == ("print(6 * 7)", execution.id)
    assert repr(execution) == f"Execution(id={execution.id}, cell={execution.cell_id})"


def test_expressions_are_evaluated_behind_the_code_and_their_end_tells_of_them(with_kernel):
    ends = []
    execution = with_kernel.submit(code="x = 20", user_expressions={"more": "x + 1", "wrong": "1 / 0"})
    execution.follow(lambda event: ends.append(event) if isinstance(event, Finished) else None)

    found = json.loads(ends[0].user_expressions)
    assert found["more"]["data"] == {"text/plain": "21"}
    assert found["wrong"]["ename"] == "ZeroDivisionError"


def test_a_cell_is_executed_as_it_is_or_gets_the_code_first(with_kernel):
    cell_id = with_kernel.create_cell("print('old')")

    assert with_kernel.submit(cell_id).wait().stdout == "old\n"
    execution = with_kernel.submit(cell_id, code="print('new')")
    assert (execution.cell_id, execution.wait().stdout) == (cell_id, "new\n")
    assert with_kernel.get_cell_source(cell_id) == "print('new')"


def test_what_cannot_be_submitted_is_refused(face, with_kernel):
    with pytest.raises(TypeError, match="a cell, code, or both"):
        with_kernel.submit()
    with pytest.raises(CellNotFound):
        with_kernel.submit("no cell")
    with pytest.raises(InvalidCell):
        with_kernel.submit(with_kernel.create_cell("text", "markdown"))
    with pytest.raises(InvalidCell):
        with_kernel.submit(code=b"bytes")
    with pytest.raises(NotConnected):
        face.session("never joined").execution("e")


def test_events_tell_of_a_question_which_the_handle_answers(with_kernel):
    execution = with_kernel.submit(code=QUESTION)
    found = []
    for event in execution.events():
        found.append(seen(event))
        if event.event_type == "input_requested":
            assert (event.execution_id, event.cell_id, event.password) == (execution.id, execution.cell_id, False)
            execution.answer("Ada")

    assert found[0][0] == "execution_started"
    assert found[1:] == [("input_requested", "Who? "), ("output", "Hello Ada\n"), ("done", None)]
    assert [seen(event) for event in execution.events()] == found, "they can be read again"


def test_a_secret_is_asked_for_as_one_and_no_answer_is_the_end_of_input(with_kernel):
    execution = with_kernel.submit(code="import getpass; getpass.getpass('Key? ')")
    questions = []
    for event in execution.events():
        if event.event_type == "input_requested":
            questions.append((event.message, event.password))
            execution.answer(None)

    assert questions == [("Key? ", True)]
    assert execution.wait().error.ename == "EOFError"
    with pytest.raises(RuntimedError):
        execution.answer("too late")


def test_without_somebody_who_answers_asking_raises(with_kernel):
    assert with_kernel.submit(code=QUESTION, stdin=False).wait().error.ename == "StdinNotImplementedError"


def test_interrupting_strikes_what_runs_and_leaves_what_waits(with_kernel, gate):
    code, open_gate = gate
    running, waiting = with_kernel.submit(code=code), with_kernel.submit(code="print('next')")
    wait_until(lambda: with_kernel.get_queue()[0].status == "running", "it does not begin")

    waiting.interrupt()
    assert [entry.execution_id for entry in with_kernel.get_queue()] == [running.id, waiting.id]
    open_gate()
    assert waiting.wait().stdout == "next\n"
    running.interrupt()
    assert running.wait().success, "it had ended"

    endless = with_kernel.submit(code="import time\nwhile True: time.sleep(0.01)")
    wait_until(lambda: with_kernel.get_queue()[0].status == "running", "it does not begin")
    endless.interrupt()
    assert endless.wait().error.ename == "KeyboardInterrupt"


def test_cancelling_takes_it_from_the_queue(with_kernel, gate):
    code, open_gate = gate
    running, waiting = with_kernel.submit(code=code), with_kernel.submit(code="print('never')")
    waiting.cancel()

    with pytest.raises(ExecutionCancelled):
        waiting.wait()
    assert waiting.follow().success is False, "whoever follows hears of it as of any end"
    open_gate()
    assert running.wait().success


def test_an_execution_is_found_again_by_another_client(face, with_kernel, gate):
    code, open_gate = gate
    execution = with_kernel.submit(code=code)
    with face.session(with_kernel.notebook_id) as other:
        found = other.execution(execution.id)
        assert (found.id, found.cell_id) == (execution.id, execution.cell_id)
        open_gate()
        assert found.wait().stdout == "begun\n"
        assert other.execution(execution.id).wait().stdout == "begun\n", "it has ended"
        for wrong in (execution.id[:-1], "", "none"):
            with pytest.raises(ExecutionNotFound, match="has no execution"):
                other.execution(wrong)


def test_waiting_ends_in_time_and_the_execution_goes_on(with_kernel, gate):
    code, open_gate = gate
    execution = with_kernel.submit(code=code)
    with pytest.raises(ExecutionTimeout) as caught:
        execution.wait(0.05)
    assert caught.value.execution_id == execution.id
    with pytest.raises(ExecutionTimeout):
        execution.follow(timeout_secs=0.05)
    open_gate()
    assert execution.wait().success


def test_the_same_code_of_a_cell_is_queued_once_where_that_is_asked_for(with_kernel, gate):
    code, open_gate = gate
    cell_id = with_kernel.create_cell(code)
    first = with_kernel.submit(cell_id)
    assert with_kernel.submit(cell_id, code=code, unless_queued=True).id == first.id
    again = with_kernel.submit(cell_id)
    assert again.id != first.id
    open_gate()
    assert again.wait().success


def test_asking_again_while_the_kernel_starts_queues_it_once_and_an_id_is_refused_for_other_code(shared_daemon):
    async def scenario() -> None:
        async with AsyncSession("asked again") as session:
            cell_id = await session.create_cell("runs = globals().get('runs', 0) + 1")
            before = (await session.status()).kernel_status
            starting = asyncio.create_task(session.submit("cell", code="1", execution_id="once"))
            await until(lambda: has_changed(session, before), "no kernel starts")
            again = [session.submit(cell_id, unless_queued=True) for _ in range(4)]
            named = [session.submit("cell", code=code, execution_id="once") for code in ("2", "1")]
            *asked, other, same = await asyncio.gather(*again, *named, return_exceptions=True)
            first = await starting
            handles = [one for one in asked if isinstance(one, AsyncExecution)]
            assert len(handles) == 4
            assert len({execution.id for execution in handles}) == 1
            for execution in handles:
                assert (await execution.wait()).success
            assert await session.get("runs") == 1
            assert (await first.wait()).value == 1
            assert "was queued with other code" in str(other)
            assert isinstance(same, AsyncExecution)
            assert (same.id, same.cell_id) == ("once", "cell")
            await session.stop()

    asyncio.run(scenario())


def test_submitting_again_under_the_same_id_runs_nothing_twice(with_kernel):
    with_kernel.run("ran = 0")
    execution_id = str(uuid.uuid4())
    handles = [with_kernel.submit(code="ran += 1", execution_id=execution_id) for _ in range(2)]
    assert with_kernel.run("print(ran)").stdout == "1\n"
    assert {(handle.id, handle.cell_id) for handle in handles} == {(execution_id, handles[0].wait().cell_id)}
    assert with_kernel.submit(handles[0].cell_id, execution_id=execution_id).cell_id == handles[0].cell_id


def test_an_id_is_refused_for_another_cell_and_for_other_code(with_kernel):
    first = with_kernel.submit(with_kernel.create_cell("1"), execution_id=str(uuid.uuid4()))
    other = with_kernel.create_cell("2")
    cells = len(with_kernel.get_cell_ids())
    for call in ({"code": "1"}, {"cell_id": other}, {"cell_id": other, "unless_queued": True}):
        with pytest.raises(InvalidArgument, match=f"The execution '{first.id}' was queued for the cell") as caught:
            with_kernel.submit(execution_id=first.id, **call)
        assert caught.value.cell_id == first.cell_id
    with pytest.raises(InvalidArgument, match="was queued with other code; give this one an id of its own"):
        with_kernel.submit(first.cell_id, code="2", execution_id=first.id)
    assert with_kernel.get_cell_source(first.cell_id) == "1"
    assert len(with_kernel.get_cell_ids()) == cells
    assert first.wait().value == 1


@pytest.mark.parametrize("odd", [" ", "a/b\n", "\ta", "a ", "\x1b[2J", "a\u202eb"])
def test_a_new_cell_or_execution_gets_no_id_that_people_cannot_read_or_type(with_kernel, odd):
    before = with_kernel.get_cell_ids()
    for what, create in (
        ("A cell id", lambda: with_kernel.create_cell("1", cell_id=odd)),
        ("A cell id", lambda: with_kernel.submit(odd, code="1")),
        ("An execution id", lambda: with_kernel.submit(code="1", execution_id=odd)),
    ):
        with pytest.raises(InvalidCell, match=f"^{what} (is one line of plain text|must not begin or end with white)"):
            create()
    assert with_kernel.get_cell_ids() == before


def test_ids_may_have_slashes_inner_spaces_and_joined_emoji(with_kernel):
    for name in ("a/b c", "👩‍🔬", "café"):
        cell_id, execution_id = (f"{name} {uuid.uuid4()}" for _ in range(2))
        execution = with_kernel.submit(cell_id, code="1", execution_id=execution_id)
        assert (execution.wait().value, execution.id, execution.cell_id) == (1, execution_id, cell_id)


def test_what_follows_the_past_comes_once(with_kernel, gate):
    code, open_gate = gate
    execution = with_kernel.submit(code=f"{code}\nprint('end')\n1")
    wait_until(lambda: [output.text for output in execution.past().outputs] == ["begun\n"], "nothing is shown")
    before = execution.past()
    assert ([output.text for output in before.outputs], before.finished) == (["begun\n"], None)
    assert execution.past(outputs=False).outputs == ()

    later = []

    def take(event):
        later.append(event)
        open_gate()

    open_gate()
    result = execution.follow(take, after=before)
    assert result.stdout == "begun\nend\n"
    assert [event.text for event in later if isinstance(event, Stream)] == ["end\n"]
    assert [type(event) for event in later[-2:]] == [Display, Finished]
    shown = execution.public(later[-2])
    assert shown.output.data == {"text/plain": "1"}
    assert execution.past().finished.status == "ok"


def test_the_past_holds_the_question_that_stands(with_kernel):
    execution = with_kernel.submit(code=QUESTION)
    wait_until(lambda: execution.past().question is not None, "it does not ask")
    assert isinstance(execution.past().question, InputRequested)
    execution.answer("Bo")
    assert execution.wait().stdout == "Hello Bo\n"


def test_questions_come_to_a_subscriber_who_names_them(with_kernel):
    everything, questions = with_kernel.subscribe(), with_kernel.subscribe(event_types=["input_requested", "done"])
    execution = with_kernel.submit(code=QUESTION)
    for event in questions:
        if event.event_type == "done":
            break
        assert (event.event_type, event.message, event.execution_id) == ("input_requested", "Who? ", execution.id)
        execution.answer("Cy")
    types = []
    for event in everything:
        types.append(event.event_type)
        if event.event_type == "done":
            break
    assert "output" in types
    assert "input_requested" not in types


class Heard:
    """Hears how an environment is made."""

    def __init__(self):
        self.announced = []

    def show(self, message, done=None, total=None):
        assert message

    def announce(self, text):
        self.announced.append(text)


@on_one_face
def test_the_start_of_a_kernel_has_a_limit_and_the_execution_begins_when_it_is_there(session, tmp_path):
    slow = tmp_path / "python"
    slow.write_text(f'#!/bin/sh\nsleep 2\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    with pytest.raises(ExecutionTimeout) as caught:
        session.submit(code="print('late')", env_source=f"python:{slow}", timeout_secs=0.5)
    assert session.wait(caught.value.execution_id).stdout == "late\n"


@on_one_face
def test_a_kernel_is_started_where_none_runs_and_says_which(session):
    heard = Heard()
    assert session.submit(code="print(1)", env_source="current", progress=heard).wait().success
    assert session.submit(code="print(1)", env_source="uv:prewarmed", progress=heard).wait().success
    assert heard.announced == ["kernel: current, since it was asked for"]
