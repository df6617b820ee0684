"""Kernelspecs, and kernels that are not ipykernel."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtimed.host.conversation import _REPLY_MISSING
from runtimed.host.executions import EXITS
from runtimed.protocol.events import Started, Stream
from runtimed.protocol.host_operations import HostInterrupt, HostRestart, HostShutdown
from tests.host.standin import Daemon, HostProcess, client_environment, completion, eventually, in_loop, join, shapes

ODD = Path(__file__).with_name("odd_kernel.py")


def odd_options(root: Path) -> dict[str, Any]:
    """What a host of the odd kernel is started with; it is found through the client's JUPYTER_PATH."""
    folder = root / "jupyter" / "kernels" / "odd"
    folder.mkdir(parents=True)
    spec = {
        "argv": ["python", str(ODD), "-f", "{connection_file}", "{resource_dir}"],
        "display_name": "Odd",
        "language": "odd",
        "interrupt_mode": "message",
        "env": {"ODD": "${EVEN} and odd"},
    }
    (folder / "kernel.json").write_text(json.dumps(spec))
    environment = {**client_environment(), "JUPYTER_PATH": str(root / "jupyter"), "EVEN": "even"}
    return {"env_source": "kernelspec:odd", "environment": environment}


@pytest.fixture
def odd(start_host: Callable[..., HostProcess], root: Path) -> HostProcess:
    return start_host(**odd_options(root))


@pytest.fixture(scope="module")
def shared_odd(shared_root: Path) -> Iterator[HostProcess]:
    """A host of the odd kernel that the tests of this module `join`."""
    host = HostProcess(shared_root, **odd_options(shared_root))
    yield host
    host.end()


@in_loop
async def test_a_kernelspec_has_its_environment_and_arguments(odd: HostProcess) -> None:
    daemon = await Daemon().attach(odd)
    events = await daemon.run("who")
    assert shapes(events)[1][1].startswith("even and odd ")
    assert (await daemon.state("idle")).language == "odd"


@in_loop
async def test_a_kernel_that_asks_for_its_end_is_replaced(odd: HostProcess) -> None:
    daemon = await Daemon().attach(odd)
    ending, following = await daemon.start("exit"), await daemon.start("who")
    assert (await daemon.finished(ending)).status == "ok"
    assert (await daemon.finished(following)).status in ("ok", "died")  # it was in the kernel's hands already
    assert shapes(daemon.of(ending))[-2:] == [("stderr", EXITS), ("finished", "ok", None)]
    assert shapes(await daemon.run("who"))[-1] == ("finished", "ok", None)
    assert (await daemon.state("restarting")).keeps_queue


@in_loop
async def test_a_kernel_is_interrupted_by_message_if_it_says_so(shared_odd: HostProcess) -> None:
    daemon = await join(shared_odd)
    execution_id = await daemon.start("sleep")
    await daemon.until(lambda: daemon.text(execution_id))
    await daemon.ask(HostInterrupt())
    finished = await daemon.finished(execution_id)
    assert (finished.status, finished.message) == ("error", "Interrupted: by message")
    # It published no error, so its reply's is one.
    assert shapes(daemon.of(execution_id))[-2] == ("failed", "Interrupted", "by message")
    assert (await daemon.run("fine"))[-1].status == "ok"


@in_loop
async def test_a_reply_that_came_while_the_host_was_stopped_is_no_missing_one(
    shared_odd: HostProcess, root: Path
) -> None:
    daemon = await join(shared_odd)
    reply_when, replied = root / "reply", root / "replied"
    execution_id = await daemon.start(f"early {reply_when} {replied}")
    await daemon.until(lambda: daemon.text(execution_id) == "idle")
    shared_odd.process.send_signal(signal.SIGSTOP)
    reply_when.touch()
    patience_ended = time.monotonic() + _REPLY_MISSING + 0.5
    await eventually(lambda: replied.exists() and time.monotonic() > patience_ended)
    shared_odd.process.send_signal(signal.SIGCONT)
    assert (await daemon.finished(execution_id)).status == "ok"


@in_loop
async def test_what_was_complete_when_the_kernel_died_has_not_died_of_it(odd: HostProcess, root: Path) -> None:
    daemon = await Daemon().attach(odd)
    reply_when, replied = root / "reply", root / "replied"
    execution_id = await daemon.start(f"early {reply_when} {replied}")
    await daemon.until(lambda: daemon.text(execution_id) == "idle")
    odd.process.send_signal(signal.SIGSTOP)
    reply_when.touch()
    sent = time.monotonic() + 1  # another thread of the kernel sends the reply
    await eventually(lambda: replied.exists() and time.monotonic() > sent)
    pid = (await daemon.state("starting")).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    odd.process.send_signal(signal.SIGCONT)
    assert (await daemon.finished(execution_id)).status == "ok"
    assert (await daemon.state("dead")).signal == signal.SIGKILL


@in_loop
async def test_a_result_after_idle_comes_before_the_end(shared_odd: HostProcess) -> None:
    daemon = await join(shared_odd)
    for _ in range(10):
        events = await daemon.run("late")
        assert shapes(events)[1:] == [("execute_result", {"text/plain": "late result"}), ("finished", "ok", None)]


@in_loop
async def test_junk_is_skipped(shared_odd: HostProcess) -> None:
    daemon = await join(shared_odd)
    events = await daemon.run("junk")
    assert ("stdout", "after the junk") in shapes(events)
    assert events[-1].status == "ok"
    assert "skipped" in shared_odd.log


@in_loop
async def test_an_aborted_execution_is_an_error(shared_odd: HostProcess) -> None:
    daemon = await join(shared_odd)
    events = await daemon.run("abort")
    assert shapes(events)[-1] == ("finished", "error", "The kernel skipped this execution")


@in_loop
async def test_much_on_standard_error_does_not_block_the_kernel(shared_odd: HostProcess) -> None:
    daemon = await join(shared_odd)
    assert (await daemon.run("stderr"))[-1].status == "ok"
    await daemon.ask(HostRestart())
    assert (await daemon.run("fine"))[-1].status == "ok"


@in_loop
async def test_silent_executions_start_too(shared_odd: HostProcess) -> None:
    daemon = await join(shared_odd)
    events = await daemon.run("fine", silent=True)
    assert isinstance(events[0], Started)
    for is_begun in (False, True):
        running = await daemon.start("sleep", silent=True)
        if is_begun:
            await daemon.count(running, Stream, 1)
        await daemon.ask(HostInterrupt())
        assert (await daemon.finished(running)).status == "error"


@in_loop
async def test_the_stock_kernelspec_works_untouched(start_host: Callable[..., HostProcess]) -> None:
    host = start_host(env_source="kernelspec:python3")
    daemon = await Daemon().attach(host)
    lines = 800  # more than 1000 messages at once, and a stock kernel drops some when the machine is busy (measured)
    execution_id = await daemon.start(f"for i in range({lines}): print(i, flush=True)")
    assert (await daemon.finished(execution_id)).status == "ok"
    assert daemon.text(execution_id) == "".join(f"{i}\n" for i in range(lines))
    who = (await daemon.run("import sys; print(sys.executable, type(sys.stdout).__name__)"))[0].execution_id
    assert daemon.text(who) == f"{sys.executable} OutStream\n"
    await daemon.ask(HostShutdown())
    assert await host.ended() == 0


@in_loop
async def test_a_kernel_that_does_not_complete_says_nothing_found(shared_odd: HostProcess) -> None:
    daemon = await join(shared_odd)
    assert (await daemon.ask(completion("x"))).content["matches"] == []
