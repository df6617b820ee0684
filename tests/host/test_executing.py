"""Code goes in, events come out: a real kernel, of one host for all that do not need a new one."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from runtimed.errors import RuntimedError
from runtimed.protocol.events import Blob, Clear, Display, Failed, Finished, InputRequested, Started
from runtimed.protocol.host_operations import Execute, HostInput, HostInterrupt, KernelAsk
from runtimed.protocol.replies import Done
from tests.host.standin import Daemon, HostProcess, client_environment, completion, in_loop, join, shapes


@in_loop
async def test_a_cell_gives_its_events_in_order(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    assert daemon.attached.epoch == host.bootstrap.epoch
    events = await daemon.run("print('a')\n1 + 1")
    assert shapes(events) == [
        ("Started",),
        ("stdout", "a\n"),
        ("execute_result", {"text/plain": "2"}),
        ("finished", "ok", None),
    ]
    assert [event.execution_count for event in (events[0], events[2], events[3])] == [1, 1, 1]
    assert all(event.cell_id == f"cell-of-{event.execution_id}" for event in events)
    await daemon.until(lambda: daemon.states[-1] == ("idle", 0))
    assert daemon.states == [("starting", 0), ("idle", 0), ("busy", 0), ("idle", 0)]
    assert daemon.numbers == list(range(1, len(daemon.numbers) + 1))
    state = await daemon.state("idle")
    assert (state.language, state.pid is not None) == ("python", True)


@in_loop
async def test_outputs_of_every_kind(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    code = r"""
import sys
from IPython.display import Image, JSON, clear_output, display
sys.stderr.write("to stderr")
sys.stdout.write("lone \ud800 surrogate")
sys.stdout.flush()
handle = display({"text/plain": "first"}, raw=True, display_id="d1")
handle.update({"text/plain": "second"}, raw=True)
display({"image/png": "iVBORw==", "image/svg+xml": "<svg/>", "application/json": {"n": [1, "é"]}}, raw=True,
        metadata={"image/png": {"width": 3}})
display({"text/html": "h" * 2_000_000}, raw=True)
clear_output(wait=True)
"""
    events = await daemon.run(code)
    displays = [event for event in events if isinstance(event, Display)]
    assert [(event.kind, event.display_id) for event in displays[:2]] == [
        ("display_data", "d1"),
        ("update_display_data", "d1"),
    ]
    assert displays[2].data == {
        "image/png": b"\x89PNG",
        "image/svg+xml": "<svg/>",
        "application/json": '{"n":[1,"é"]}',
    }
    assert json.loads(displays[2].metadata) == {"image/png": {"width": 3}}
    blob = displays[3].data["text/html"]
    assert (blob["t"], blob["size"], blob["text"]) == (Blob.__struct_config__.tag, 2_000_000, True)
    stored = shared_host.blobs / blob["sha256"][:2] / blob["sha256"][2:4] / blob["sha256"]
    assert stored.read_bytes() == b"h" * 2_000_000
    assert Clear(at=events[-2].at, execution_id=events[0].execution_id, cell_id=events[0].cell_id, wait=True) in events
    execution_id = events[0].execution_id
    assert daemon.text(execution_id) == "lone \ud800 surrogate"
    assert daemon.text(execution_id, "stderr") == "to stderr"


@in_loop
async def test_an_error_has_its_traceback_and_the_next_cell_runs(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    failing, following = await daemon.start("1 / 0"), await daemon.start("print('after')")
    assert (await daemon.finished(following)).status == "ok"
    assert shapes(daemon.of(failing)) == [
        ("Started",),
        ("failed", "ZeroDivisionError", "division by zero"),
        ("finished", "error", "ZeroDivisionError: division by zero"),
    ]
    assert any("1 / 0" in line or "division" in line for line in daemon.of(failing, Failed)[0].traceback)


@in_loop
async def test_an_enormous_error_fits_into_a_frame(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    events = await daemon.run("raise ValueError('x' * 30_000_000)")
    assert events[-1].status == "error"
    assert "characters left out" in events[-1].message
    assert 100_000 < len(next(e for e in events if isinstance(e, Failed)).evalue) < 1_000_000


@in_loop
async def test_what_a_pager_would_show_is_displayed(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    events = await daemon.run("print?")
    assert [(event.kind, "text/plain" in event.data) for event in events if isinstance(event, Display)] == [
        ("display_data", True)
    ]


@in_loop
async def test_an_execution_runs_once_however_often_it_is_sent(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    request = Execute(execution_id="once", cell_id="c", code="n = globals().get('n', 0) + 1; print(n)")
    assert await daemon.ask(request) == Done()
    assert await daemon.ask(request) == Done()
    await daemon.finished("once")
    assert await daemon.ask(request) == Done()
    last = await daemon.start("print(n)")
    await daemon.finished(last)
    assert (daemon.text("once"), daemon.text(last)) == ("1\n", "1\n")
    assert len(daemon.of("once", Finished)) == 1


@in_loop
async def test_input_goes_to_whoever_asked_for_it(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    execution_id = await daemon.start(
        "import getpass; print(input('name? ') + getpass.getpass('secret? '))", stdin=True
    )
    for number, (prompt, password, answer) in enumerate((("name? ", False, "ann "), ("secret? ", True, "é42"))):
        await daemon.count(execution_id, InputRequested, number + 1)
        asked = daemon.of(execution_id, InputRequested)[number]
        assert (asked.prompt, asked.password) == (prompt, password)
        assert await daemon.ask(HostInput(execution_id=execution_id, text=answer)) == Done()
    assert (await daemon.finished(execution_id)).status == "ok"
    assert daemon.text(execution_id) == "ann é42\n"
    with pytest.raises(RuntimedError, match="does not wait for input"):
        await daemon.ask(HostInput(execution_id=execution_id, text="late"))
    without = await daemon.start("input()")
    assert "StdinNotImplementedError" in ((await daemon.finished(without)).message or "")


@in_loop
async def test_an_interrupt_stops_the_cell_that_runs_and_no_other(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    assert await daemon.ask(HostInterrupt()) == Done()
    running = await daemon.start("import time\ntime.sleep(1000)")
    following = await daemon.start("print('next')")
    await daemon.until(lambda: daemon.of(running, Started))
    await daemon.ask(HostInterrupt())
    assert (await daemon.finished(running)).message == "KeyboardInterrupt"
    assert (await daemon.finished(following)).status == "ok"


@in_loop
async def test_an_interrupt_right_behind_an_execution_is_not_lost(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    for _ in range(5):
        execution_id = await daemon.start("import time\ntime.sleep(1000)")
        await daemon.ask(HostInterrupt())
        assert (await daemon.finished(execution_id)).status == "error"
    assert (await daemon.run("1"))[-1].status == "ok"


@in_loop
async def test_completions_and_inspections_come_while_a_cell_runs(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    execution_id = await daemon.start("import time\nhello_world = 1\nprint('on', flush=True)\ntime.sleep(1000)")
    await daemon.until(lambda: daemon.text(execution_id))
    completed = await daemon.ask(completion("hello_wor"))
    assert "hello_world" in completed.content["matches"]
    inspected = await daemon.ask(
        KernelAsk(msg_type="inspect_request", content={"code": "hello_world", "cursor_pos": 3, "detail_level": 0})
    )
    assert inspected.content["found"] is True
    await daemon.ask(HostInterrupt())
    await daemon.finished(execution_id)
    # Neither question shows as work of the kernel.
    await daemon.until(lambda: daemon.states[-1] == ("idle", 0))
    assert daemon.states == [("busy", 0), ("idle", 0)]


@in_loop
async def test_every_question_of_jupyter_reaches_the_kernel(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    await daemon.run("asked_before = 1")
    is_complete = await daemon.ask(KernelAsk(msg_type="is_complete_request", content={"code": "for x in y:"}))
    assert is_complete.content["status"] == "incomplete"
    history = await daemon.ask(
        KernelAsk(
            msg_type="history_request",
            content={"hist_access_type": "tail", "n": 1, "output": False, "raw": True, "session": 0},
        )
    )
    assert history.content["history"][-1][2] == "asked_before = 1"
    comms = await daemon.ask(KernelAsk(msg_type="comm_info_request", content={}))
    assert comms.content["comms"] == {}


@in_loop
async def test_user_expressions_are_evaluated_behind_the_code(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    await daemon.ask(
        Execute(execution_id="e", cell_id="c", code="x = 20", user_expressions={"sum": "x + 1", "wrong": "1 / 0"})
    )
    found = json.loads((await daemon.finished("e")).user_expressions)
    assert (found["sum"]["status"], found["sum"]["data"]["text/plain"]) == ("ok", "21")
    assert (found["wrong"]["status"], found["wrong"]["ename"]) == ("error", "ZeroDivisionError")
    assert (await daemon.run("1"))[-1].user_expressions == "{}"


@in_loop
async def test_a_completion_comes_during_a_flood_of_output(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    execution_id = await daemon.start("while True: print('flood' * 100, flush=True)")
    await daemon.until(lambda: len(daemon.events) > 100)
    completed = await daemon.ask(completion("prin"))
    assert "print" in completed.content["matches"]
    await daemon.ask(HostInterrupt())
    assert (await daemon.finished(execution_id)).message == "KeyboardInterrupt"


@in_loop
async def test_threads_and_tasks_write_to_the_cell_that_started_them_or_the_last_one(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    code = """
import asyncio, threading
gate = threading.Event()
def work():
    gate.wait()
    print("from the thread", flush=True)
thread = threading.Thread(target=work)
thread.start()
async def later():
    while not gate.is_set():
        await asyncio.sleep(0.01)
    print("from the task", flush=True)
task = asyncio.ensure_future(later())
"""
    first = (await daemon.run(code))[0].execution_id
    await daemon.ask(completion("prin"))  # ipykernel then writes under this request
    second = (await daemon.run("gate.set(); thread.join(); await task"))[0].execution_id
    await daemon.until(lambda: "from the task\n" in daemon.text(first))
    assert daemon.text(first).replace("from the thread\n", "") == "from the task\n"
    assert "from the thread\n" in daemon.text(first) + daemon.text(second)


@in_loop
async def test_a_silent_execution_counts_nothing(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    before = (await daemon.run("1"))[0].execution_count
    events = await daemon.run("print('quiet')", silent=True)
    assert shapes(events) == [("Started",), ("stdout", "quiet\n"), ("finished", "ok", None)]
    assert events[0].execution_count is None
    assert (await daemon.run("2"))[0].execution_count == before + 1


@in_loop
async def test_what_is_asked_before_the_kernel_is_ready_waits(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    ids = [await daemon.start(f"print({number})") for number in range(5)]
    for execution_id in ids:
        await daemon.finished(execution_id)
    assert [daemon.text(execution_id) for execution_id in ids] == [f"{number}\n" for number in range(5)]


@in_loop
async def test_the_kernel_has_the_clients_environment_and_folder(start_host: Callable[..., HostProcess]) -> None:
    environment = {**client_environment(), "SECRET_TOKEN": "sesame-12345", "PYTHONDONTWRITEBYTECODE": "1"}
    host = start_host(environment=environment, host_environment={"OF_THE_DAEMON": "1"}, cwd="/nowhere/at/all")
    daemon = await Daemon().attach(host)
    code = (
        "import os, sys; print(os.environ['SECRET_TOKEN'], os.environ.get('PYTHONDONTWRITEBYTECODE'), "
        "os.environ.get('OF_THE_DAEMON'), os.environ['JPY_PARENT_PID'] == str(os.getppid()), os.getcwd())"
    )
    execution_id = (await daemon.run(code))[0].execution_id
    assert daemon.text(execution_id) == f"sesame-12345 None None True {environment['HOME']}\n"
    for path in host.folder.iterdir():
        if path.is_file() and path.suffix != ".events":  # the spool holds what the cell printed
            assert "sesame" not in path.read_text(errors="replace"), path


@in_loop
async def test_the_folder_holds_private_files_only(shared_host: HostProcess) -> None:
    await join(shared_host)
    assert shared_host.folder.stat().st_mode & 0o777 == 0o700
    assert (shared_host.folder / "kernel.json").stat().st_mode & 0o777 == 0o600
    connection = json.loads((shared_host.folder / "kernel.json").read_text())
    assert (connection["transport"], len(connection["key"])) == ("ipc", 64)


@in_loop
async def test_a_source_with_a_lone_surrogate_is_the_kernels_business(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    assert (await daemon.run("'\ud800'"))[-1].status in {"ok", "error"}
    assert (await daemon.run("1"))[-1].status == "ok"
