"""Daemons come and go; every event reaches the next one, once."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from runtimed.errors import ProtocolError, RuntimedError
from runtimed.host.outbox import SPOOLED
from runtimed.host.server import MAX_UNDER_WAY
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Finished, Stream
from runtimed.protocol.host_operations import (
    Execute,
    HostDetach,
    HostInterrupt,
    HostRequest,
    HostShutdown,
)
from runtimed.protocol.replies import Done
from runtimed.storage.spool import Spool
from tests.host.standin import Daemon, HostProcess, completion, eventually, in_loop, join

pytestmark = pytest.mark.slow


@in_loop
async def test_a_daemon_that_comes_back_gets_what_it_has_not_stored(host: HostProcess) -> None:
    """Connections break at many places; the numbers go on without a gap and without a double."""
    first = await Daemon().attach(host)
    lines = 3000
    execution_id = await first.start(f"for i in range({lines}): print(i, flush=True)")
    numbers, text, done = list[int](), "", False
    daemon = first
    rounds = 0
    while not done:
        rounds += 1
        await some_more(daemon)
        daemon.close()
        numbers += daemon.numbers
        text += daemon.text(execution_id)
        done = has_finished(daemon)
        daemon = await Daemon().attach(host, after=numbers[-1])
        assert daemon.attached.epoch == host.bootstrap.epoch
    assert rounds > 3
    assert numbers == list(range(1, len(numbers) + 1))
    assert text == "".join(f"{i}\n" for i in range(lines))


async def some_more(daemon: Daemon) -> None:
    count = len(daemon.numbers) + 200
    await daemon.until(lambda: len(daemon.numbers) >= count or has_finished(daemon))


def has_finished(daemon: Daemon) -> bool:
    return any(isinstance(event, Finished) for event in daemon.events)


@in_loop
async def test_what_was_sent_and_not_stored_is_sent_again(host: HostProcess) -> None:
    first = await Daemon(acknowledges=False).attach(host)
    execution_id = await first.start("print('once')\nimport time\ntime.sleep(1000)")
    await first.until(lambda: first.text(execution_id))
    first.close()
    second = await Daemon().attach(host, after=2)
    assert second.attached.executions == [execution_id]
    assert second.attached.last == first.numbers[-1]
    await second.until(lambda: second.text(execution_id))
    assert second.numbers == list(range(3, second.numbers[-1] + 1))
    assert second.events[: len(first.events) - 2] == first.events[2:]
    await second.ask(HostInterrupt())
    await second.finished(execution_id)


@in_loop
async def test_a_newer_daemon_takes_over(shared_host: HostProcess) -> None:
    first = await join(shared_host)
    await first.run("1")
    await first.state("idle")
    second = await Daemon().attach(shared_host, after=first.numbers[-1])
    await eventually(lambda: first.is_closed)
    assert "Another daemon" in (first.refusal or "")
    assert (await second.run("1"))[-1].status == "ok"
    assert second.numbers[0] == first.numbers[-1] + 1


@in_loop
async def test_who_speaks_another_protocol_is_refused_with_a_sentence(shared_host: HostProcess) -> None:
    daemon = Daemon()
    await daemon.greet(shared_host, protocol=999)
    assert "999" in (daemon.refusal or "")
    await eventually(lambda: daemon.is_closed)


@in_loop
async def test_nothing_is_done_for_who_is_not_attached(shared_host: HostProcess) -> None:
    daemon = Daemon()
    await daemon.greet(shared_host)
    with pytest.raises(ProtocolError, match="Attach"):
        await daemon.ask(Execute(execution_id="e", cell_id="c", code="1"))


@in_loop
async def test_a_host_starts_a_daemon_where_one_is_gone_and_none_where_it_took_its_leave(
    host: HostProcess, root: Path
) -> None:
    daemon = await Daemon().attach(host)
    await daemon.state("idle")
    assert await daemon.ask(HostDetach()) == Done()
    daemon.close()
    with pytest.raises(TimeoutError):
        await eventually((root / "started").exists, 2.0)
    again = await Daemon().attach(host, after=daemon.numbers[-1])
    execution_id = await again.start("import time; time.sleep(0.5); print('finished alone')")
    again.close()
    # The file is there before its line is.
    await eventually(lambda: (root / "started").exists() and (root / "started").read_text().endswith("\n"))
    started = (root / "started").read_text().splitlines()
    assert started[0] == f"{root / 'data'} {root / 'daemon.sock'}"
    last = await Daemon().attach(host)
    await last.finished(execution_id)
    assert last.text(execution_id) == "finished alone\n"


@in_loop
async def test_a_host_whose_daemon_runs_elsewhere_starts_none(
    start_host: Callable[..., HostProcess], root: Path
) -> None:
    host = start_host(socket_path="")
    daemon = await Daemon().attach(host)
    await daemon.state("idle")
    daemon.close()
    with pytest.raises(TimeoutError):
        await eventually((root / "started").exists, 2.0)
    again = await Daemon().attach(host, after=daemon.numbers[-1])
    assert (await again.run("1"))[-1].status == "ok"


@in_loop
async def test_the_dead_kernels_last_events_wait_for_a_daemon(host: HostProcess) -> None:
    first = await Daemon(acknowledges=False).attach(host)
    execution_id = await first.start("import os; os._exit(5)")
    await first.state("dead")
    first.close()
    await eventually(lambda: not (host.folder / "kernel.json").exists())
    assert host.process.poll() is None
    second = await Daemon().attach(host)
    assert second.attached.kernel_pid is None
    assert (await second.finished(execution_id)).status == "died"
    assert await host.ended() == 0
    assert second.numbers == list(range(1, len(second.numbers) + 1))


@in_loop
async def test_a_daemon_that_stalls_fills_the_spool_and_not_the_memory(host: HostProcess) -> None:
    stalled = await Daemon(acknowledges=False).attach(host)
    execution_id = await stalled.start("print('y' * 60_000_000)")
    await eventually(lambda: sum(path.stat().st_size for path in host.folder.glob("*.events")) > 60_000_000)
    assert stalled.received_bytes < 8 * 2**20
    # Requests are served all the same, and acknowledging brings the rest.
    assert await stalled.ask(Execute(execution_id=execution_id, cell_id="c", code="")) == Done()
    stalled.acknowledges = True
    stalled.acknowledge(stalled.numbers[-1])
    assert (await stalled.finished(execution_id)).status == "ok"
    assert stalled.text(execution_id) == "y" * 60_000_000 + "\n"
    assert stalled.numbers == list(range(1, len(stalled.numbers) + 1))
    assert host.memory < 200 * 2**20


@in_loop
async def test_a_kernel_waits_for_an_attached_daemon_and_goes_on_without_one(host: HostProcess) -> None:
    """A spool must not fill the disk only because its daemon is slower than the kernel."""
    stalled = await Daemon(acknowledges=False).attach(host)
    pieces = 110
    execution_id = await stalled.start(f"for _ in range({pieces}): print('y' * 999_999)")
    await eventually(lambda: spooled(host) > SPOOLED)
    with pytest.raises(TimeoutError):
        await eventually(lambda: spooled(host) > SPOOLED + 16 * 2**20, 2.0)
    # Requests are served all the same.
    assert await stalled.ask(Execute(execution_id=execution_id, cell_id="c", code="")) == Done()
    stalled.close()
    await eventually(lambda: spooled(host) > pieces * 10**6)
    second = await Daemon().attach(host)
    assert (await second.finished(execution_id)).status == "ok"
    assert second.text(execution_id) == ("y" * 999_999 + "\n") * pieces
    assert second.numbers == list(range(1, len(second.numbers) + 1))
    assert host.memory < 200 * 2**20


@in_loop
async def test_a_flood_that_waits_can_be_interrupted_and_its_kernel_stopped(host: HostProcess) -> None:
    stalled = await Daemon(acknowledges=False).attach(host)
    execution_id = await stalled.start("while True: print('y' * 999_999)")
    await eventually(lambda: spooled(host) > SPOOLED)
    await stalled.ask(HostInterrupt())
    stalled.acknowledges = True
    stalled.acknowledge(stalled.numbers[-1])
    assert (await stalled.finished(execution_id)).status == "error"
    stalled.acknowledges = False
    await stalled.start("while True: print('y' * 999_999)")
    await eventually(lambda: spooled(host) > SPOOLED)
    await stalled.ask(HostShutdown())
    assert stalled.attached.kernel_pid is not None
    assert not psutil.pid_exists(stalled.attached.kernel_pid)


def spooled(host: HostProcess) -> int:
    return sum(path.stat().st_size for path in host.folder.glob("*.events"))


@in_loop
async def test_thousands_of_flushed_lines_all_arrive(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    execution_id = await daemon.start("for i in range(2_000): print(i, flush=True)")
    assert (await daemon.finished(execution_id)).status == "ok"
    assert daemon.text(execution_id) == "".join(f"{i}\n" for i in range(2_000))
    assert shared_host.memory < 200 * 2**20


@in_loop
async def test_a_hundred_megabytes_arrive_in_bounded_memory(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    execution_id = await daemon.start("print('y' * 100_000_000)")
    await daemon.finished(execution_id)
    assert daemon.text(execution_id) == "y" * 100_000_000 + "\n"
    assert max(len(event.text) for event in daemon.of(execution_id, Stream)) <= 2**20
    assert shared_host.memory < 200 * 2**20


@in_loop
async def test_a_full_disk_stops_the_output_and_loses_nothing(start_host: Callable[..., HostProcess]) -> None:
    """RLIMIT_FSIZE stands for a full disk: what is beyond it cannot be written, until the limit is raised."""
    host = start_host()
    daemon = await Daemon().attach(host)
    await daemon.state("idle")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    before = resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
    assert before == unlimited
    execution_id = await daemon.start(f"print('z' * 3_000_000); print('end of {os.getpid()}')")
    await eventually(lambda: "the spool cannot be written" in host.log)
    assert not daemon.of(execution_id, Finished)
    assert await daemon.ask(Execute(execution_id=execution_id, cell_id="c", code="")) == Done()
    resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, unlimited)
    await daemon.finished(execution_id)
    assert daemon.text(execution_id) == "z" * 3_000_000 + f"\nend of {os.getpid()}\n"
    assert daemon.numbers == list(range(1, len(daemon.numbers) + 1))
    await daemon.ask(HostShutdown())
    assert await host.ended() == 0


@in_loop
async def test_everything_said_is_in_the_spool_before_it_is_sent(host: HostProcess) -> None:
    daemon = await Daemon(acknowledges=False).attach(host)
    await daemon.run("print('spooled')")
    host.process.kill()
    await eventually(lambda: not Spool.is_alive(host.folder))
    spooled = dict(Spool.read_dead(host.folder, 0))
    assert set(daemon.numbers) <= set(spooled)
    assert [decode_event(spooled[n]) for n in daemon.numbers] == daemon.events


@in_loop
async def test_who_takes_no_replies_is_read_no_more_and_loses_none(start_host: Callable[..., HostProcess]) -> None:
    request, count = b"x" * 50_000, 6_000
    host = start_host(request=request)
    daemon = await Daemon().attach(host)
    assert daemon.channel is not None
    execution_id = await daemon.start("for i in range(1000): print(i, flush=True)")
    daemon.channel.pause_reading()
    replies = [daemon.request(HostRequest()) for _ in range(count)]
    await eventually(lambda: spooled(host) > 50_000)  # the kernel goes on
    # Where nothing holds it, the host has read all of them by now: only its memory can tell.
    with pytest.raises(TimeoutError):
        await eventually(lambda: host.memory > 200 * 2**20, 2.0)
    daemon.channel.resume_reading()
    for reply in replies:
        assert (await asyncio.wait_for(reply, 60)).request == request
    assert (await daemon.finished(execution_id)).status == "ok"
    assert daemon.text(execution_id) == "".join(f"{i}\n" for i in range(1000))
    assert host.memory < 200 * 2**20


@in_loop
async def test_questions_beyond_what_a_kernel_can_answer_are_refused_and_nothing_else_is(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    kernel = (await daemon.state("starting")).pid
    assert kernel is not None
    await daemon.state("idle")
    os.kill(kernel, signal.SIGSTOP)
    questions = [daemon.request(completion("")) for _ in range(MAX_UNDER_WAY + 100)]
    for refused in questions[MAX_UNDER_WAY:]:
        with pytest.raises(RuntimedError, match=r"4,000 requests to this session wait for their answers already"):
            await asyncio.wait_for(refused, 60)
    assert await daemon.ask(HostInterrupt()) == Done()
    execution_id = await daemon.start("1")
    os.kill(kernel, signal.SIGKILL)
    assert (await daemon.finished(execution_id)).status == "died"
    # Each has an end, though the host, whose kernel is gone, may close the connection first.
    ends = await asyncio.wait_for(asyncio.gather(*questions, return_exceptions=True), 60)
    assert all(isinstance(end, RuntimedError) for end in ends)
