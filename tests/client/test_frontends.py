"""What frontends need of a session: raw events, questions, and executions that belong to no cell."""

import asyncio
import itertools

import pytest

from runtimed import AsyncSession, InvalidArgument, NoKernel
from runtimed.protocol.events import Clear, Display, Finished, Started, Stream
from runtimed.protocol.events import Comm as CommEvent

UPDATES = """
from IPython.display import clear_output, display
shown = display("old", display_id=True)
shown.update("new")
clear_output(wait=True)
print("last")
"""
LARGE = "from IPython.display import display; display({'text/plain': 'x' * 2**21}, raw=True)"


def run_and_take(session, code, count, *kinds):
    """Run code, and return its first events of these kinds."""
    events = session.raw_events()
    done = session.submit(code=code)
    done.wait()
    found = list(itertools.islice((event for event in events if isinstance(event, kinds)), count))
    assert [event for event in found if event.execution_id != done.id] == []
    return found


def test_raw_events_tell_an_update_and_a_clear_from_an_output(with_kernel):
    *displays, clear, text = run_and_take(with_kernel, UPDATES, 4, Display, Clear, Stream)
    assert [(event.kind, event.data["text/plain"]) for event in displays] == [
        ("display_data", "'old'"),
        ("update_display_data", "'new'"),
    ]
    assert displays[0].display_id == displays[1].display_id is not None
    assert (clear.wait, text.text) == (True, "last\n")


def test_raw_events_have_large_values_in_their_places(with_kernel):
    (event,) = run_and_take(with_kernel, LARGE, 1, Display)
    assert event.data == {"text/plain": "x" * 2**21}


def test_raw_events_have_messages_of_comms(with_kernel):
    events = with_kernel.raw_events()
    with_kernel.run("pass")
    assert isinstance(next(event for event in events if isinstance(event, Started)), Started)
    with_kernel.run("from comm import create_comm; opened = create_comm(target_name='x')")
    event = next(event for event in events if isinstance(event, CommEvent))
    assert event.message.msg_type == "comm_open"


def test_a_kernel_tells_of_itself_while_a_cell_runs(with_kernel):
    running = with_kernel.submit(code="import time; time.sleep(600)")
    next(running.events())
    try:
        info = with_kernel.ask_kernel("kernel_info_request")
        assert (info["implementation"], info["language_info"]["name"]) == ("ipython", "python")
        assert with_kernel.ask_kernel("is_complete_request", {"code": "if a:"})["status"] == "incomplete"
        assert with_kernel.ask_kernel("comm_info_request")["status"] == "ok"
    finally:
        running.interrupt()
        running.wait()
    with_kernel.run("'in the history'")
    asked = {"hist_access_type": "tail", "n": 1, "raw": True, "output": False}
    assert with_kernel.ask_kernel("history_request", asked)["history"][-1][2] == "'in the history'"


def test_a_history_is_cut_to_its_latest_entries(with_kernel):
    with_kernel.run("# " + "x" * 2**20)
    with_kernel.run("'the last'")
    asked = {"hist_access_type": "tail", "n": 2, "raw": True, "output": False}
    assert [entry[2] for entry in with_kernel.ask_kernel("history_request", asked)["history"]] == ["'the last'"]


def test_only_a_frontends_questions_are_asked(with_kernel, session):
    with pytest.raises(InvalidArgument, match="msg_type"):
        with_kernel.ask_kernel("execute_request", {"code": "1"})
    with pytest.raises(NoKernel):
        session.ask_kernel("kernel_info_request")


@pytest.mark.parametrize("option", [{"silent": True}, {"store_history": False}])
def test_code_that_a_frontend_runs_for_itself_belongs_to_no_cell(with_kernel, option):
    cells = with_kernel.get_cell_ids()
    count = with_kernel.run("1").execution_count
    result = with_kernel.submit(code="print(6 * 7)\n1 + 1", **option).wait()
    assert (result.success, result.stdout) == (True, "42\n")
    assert len(result.display_data) == (0 if "silent" in option else 1)
    assert with_kernel.run("2").execution_count == count + 1
    assert len(with_kernel.get_cell_ids()) == len(cells) + 2


@pytest.mark.parametrize(("stops", "status"), [(True, "cancelled"), (False, "ok")])
def test_a_failure_cancels_what_is_behind_it_if_it_shall(with_kernel, stops, status):
    events = with_kernel.raw_events()
    gate = with_kernel.submit(code="input()")
    failing = with_kernel.submit(code="1 / 0", stop_on_error=stops)
    behind = with_kernel.submit(code="pass")
    next(event for event in gate.events() if event.event_type == "input_requested")
    gate.answer("")
    ends = {}
    for event in events:
        if isinstance(event, Finished):
            ends[event.execution_id] = event.status
        if len(ends) == 3:
            break
    assert ends == {gate.id: "ok", failing.id: "error", behind.id: status}


@pytest.mark.parametrize(("stops", "status"), [(True, "cancelled"), (False, "ok")])
def test_what_was_sent_before_a_failure_was_known_is_cancelled_as_if_it_had_waited(with_kernel, stops, status):
    failing = with_kernel.submit(code="1 / 0", stop_on_error=stops)
    failing.wait()
    behind = with_kernel.submit(code="pass", unless_failed=failing.id)
    assert behind.follow().success == (status == "ok")
    assert behind.past().finished.status == status


def test_raw_events_are_awaited_in_an_event_loop(the_kernel):
    async def both() -> str:
        async with AsyncSession(the_kernel) as session:
            events = await session.raw_events()
            await session.run("print('seen')")
            async for event in events:
                if isinstance(event, Stream):
                    await events.aclose()
                    return event.text
        raise AssertionError

    assert asyncio.run(both()) == "seen\n"
