"""A client of the kernel that the host knows nothing of, as `jupyter console --existing` is one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jupyter_client.asynchronous.client import AsyncKernelClient

from runtimed.protocol.events import Display, Stream
from tests.host.standin import HostProcess, in_loop, join, shapes


@asynccontextmanager
async def another_client(host: HostProcess) -> AsyncIterator[AsyncKernelClient]:
    client = AsyncKernelClient(connection_file=str(host.folder / "kernel.json"))
    client.load_connection_file()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        client.context.term()


async def execute(client: AsyncKernelClient, code: str) -> str:
    """Execute code for that client, and return how it ended; its outputs have been published then."""
    reply = await client.execute_interactive(code, timeout=60, output_hook=lambda _message: None)
    status: str = reply["content"]["status"]
    return status


@in_loop
async def test_what_another_client_prints_goes_to_no_cell(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    await daemon.run("print('own')")
    async with another_client(shared_host) as client:
        code = "print('theirs'); display('theirs'); 'theirs'\n1 / 0"
        assert await execute(client, code) == "error"
    events = await daemon.run("print('own again')")
    assert shapes(events) == [("Started",), ("stdout", "own again\n"), ("finished", "ok", None)]
    assert [event.text for event in daemon.events if isinstance(event, Stream)] == ["own\n", "own again\n"]
    assert [event for event in daemon.events if isinstance(event, Display)] == []


@in_loop
async def test_a_thread_of_a_finished_cell_still_writes_to_it(shared_host: HostProcess, tmp_path: Path) -> None:
    daemon = await join(shared_host)
    go = tmp_path / "go"
    code = f"""
import pathlib, threading, time
def work():
    while not pathlib.Path({str(go)!r}).exists(): time.sleep(0.01)
    print("from the thread", flush=True)
threading.Thread(target=work).start()
"""
    cell = (await daemon.run(code))[0].execution_id
    async with another_client(shared_host) as client:  # ipykernel then writes under one of its questions
        await client.complete("prin", reply=True, timeout=60)
        go.touch()
        await daemon.until(lambda: daemon.text(cell))
    assert daemon.text(cell) == "from the thread\n"


@in_loop
async def test_another_client_may_change_a_widget_that_a_cell_shows(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    code = "import ipywidgets\nout, bar = ipywidgets.Output(), ipywidgets.IntProgress(max=10)\ndisplay(out, bar)"
    cell = (await daemon.run(code))[0].execution_id
    async with another_client(shared_host) as client:
        assert await execute(client, "bar.value = 5\nwith out: print('theirs')") == "ok"
        await daemon.until(lambda: len(daemon.of(cell, Display)) >= 4)
    assert {event.data["text/plain"] for event in daemon.of(cell, Display)[2:]} == {
        "theirs",
        "|██████████          | 5/10",
    }
    assert daemon.text(cell) == ""
