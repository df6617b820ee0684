"""Frames over the standard input and output of a real child process, on both event loops that the product runs on."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from runtimed.errors import ConnectionLost
from runtimed.protocol.connection import AskingEvent, AskingSide, Ended, Failed, Greeted, Replied
from runtimed.protocol.document_operations import GetCell
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello
from runtimed.transport.channel import Channel, ChannelHandler
from runtimed.transport.stdio import start_child

CHILD = textwrap.dedent(
    """
    import asyncio, os, subprocess, sys
    from runtimed.protocol.codec import decode_asked_of_daemon
    from runtimed.protocol.connection import Asked, Greeting, ServingSide
    from runtimed.protocol.handshake import check_client
    from runtimed.transport.channel import ChannelHandler
    from runtimed.transport.stdio import connect_parent

    class Echo(ChannelHandler):
        def __init__(self, channel):
            self.channel = channel
            self.is_closed = asyncio.Event()

        def received(self, events):
            for event in events:
                match event:
                    case Greeting():
                        self.channel.side.welcome()
                    case Asked():
                        print("printed", flush=True)
                        os.write(1, b"written\\n")
                        subprocess.run([sys.executable, "-c", "print(f'printed below: {input()!r}')"])
                        self.channel.side.reply(event, {"said": event.operation.cell_id})
            self.channel.flush()

        def closed(self, error):
            self.is_closed.set()

    async def main():
        side = ServingSide(decode_asked_of_daemon, check_client, "0", os.getpid())
        handlers = []

        def accept(channel):
            handlers.append(Echo(channel))
            return handlers[0]

        await connect_parent(side, accept)
        await handlers[0].is_closed.wait()
        sys.exit(7)

    asyncio.run(main())
    """
)

LARGE = 9 * 2**20
"""More than the socket and both buffers hold."""

Event = AskingEvent[str]


class Collector(ChannelHandler[Event]):
    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.is_closed = asyncio.Event()

    def received(self, events: list[Event]) -> None:
        for event in events:
            self.events.put_nowait(event)

    def writable(self) -> None:
        pass

    def closed(self, error: Exception | None) -> None:
        self.is_closed.set()


Child = tuple[Channel[AskingSide[str]], Collector, "subprocess.Popen[bytes]"]


@asynccontextmanager
async def child_greeted(errors: Path) -> AsyncIterator[Child]:
    collector = Collector()
    with errors.open("wb") as stderr:
        channel, process = await start_child(
            [sys.executable, "-c", CHILD], asking(), lambda _channel: collector, stderr=stderr.fileno()
        )
    try:
        channel.side.hello(Hello(PROTOCOL_VERSION, "0", "parent", None, 1))
        channel.flush()
        assert await collector.events.get() == Greeted("0", process.pid)
        yield channel, collector, process
    finally:
        channel.close()
        await collector.is_closed.wait()
        await asyncio.to_thread(process.wait)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run(main: Coroutine[Any, Any, None]) -> None:
        async def timed() -> None:
            async with asyncio.timeout(60):
                await main

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(timed())

    return run


def asking() -> AskingSide[str]:
    return AskingSide("the child")


def asked(text: str) -> GetCell:
    return GetCell(notebook_id="n", cell_id=text)


def test_what_the_child_and_its_own_children_print_goes_to_standard_error(run, tmp_path):
    async def main() -> None:
        async with child_greeted(tmp_path / "err") as (channel, collector, _process):
            number = channel.side.ask(asked("héllo"), "waiter")
            channel.flush()
            assert await collector.events.get() == Replied(number, "waiter", {"said": "héllo"})

    run(main())
    printed, written, *below = (tmp_path / "err").read_text().splitlines()
    assert (printed, written) == ("printed", "written")
    assert below[-1] == "EOFError: EOF when reading a line", "frames must not be another's input"


def test_large_messages_go_both_ways(run, tmp_path):
    async def main() -> None:
        async with child_greeted(tmp_path / "err") as (channel, collector, _process):
            numbers = [channel.side.ask(asked(letter * LARGE), letter) for letter in "ab"]
            channel.flush()
            for number, letter in zip(numbers, "ab", strict=True):
                assert await collector.events.get() == Replied(number, letter, {"said": letter * LARGE})

    run(main())


def test_the_death_of_the_child_ends_the_connection(run, tmp_path):
    async def main() -> None:
        async with child_greeted(tmp_path / "err") as (channel, collector, process):
            process.kill()
            channel.side.ask(asked("never read"), "waiter")
            failed, ended = await collector.events.get(), await collector.events.get()
            assert isinstance(failed, Failed)
            assert failed.waiter == "waiter"
            assert isinstance(ended, Ended)
            assert isinstance(ended.error, ConnectionLost)
            await collector.is_closed.wait()
            assert not channel.is_open
            assert await asyncio.to_thread(process.wait) == -9

    run(main())


def test_a_child_whose_parent_closes_the_channel_sees_its_end(run, tmp_path):
    async def main() -> None:
        async with child_greeted(tmp_path / "err") as (channel, _collector, process):
            channel.close()
            assert await asyncio.to_thread(process.wait) == 7

    run(main())


def test_the_child_has_the_variables_and_the_folder_that_it_is_given(run, tmp_path):
    code = "import os; print(os.getcwd(), dict(os.environ), file=open('seen', 'w'))"

    async def main() -> None:
        collector = Collector()
        argv = [sys.executable, "-S", "-E", "-c", code]
        _channel, process = await start_child(
            argv, asking(), lambda _channel: collector, env={"LC_ALL": "C.UTF-8"}, cwd=tmp_path
        )
        await collector.is_closed.wait()
        assert await asyncio.to_thread(process.wait) == 0

    run(main())
    assert (tmp_path / "seen").read_text() == f"{tmp_path} {{'LC_ALL': 'C.UTF-8'}}\n"


def test_a_command_that_is_not_there_is_an_error(run):
    async def main() -> None:
        with pytest.raises(FileNotFoundError, match="no-such-command"):
            await start_child(["no-such-command"], asking(), lambda _channel: Collector())

    run(main())


def test_a_child_that_nobody_of_ours_started_says_so():
    child = subprocess.run([sys.executable, "-c", CHILD], input=b"", capture_output=True, check=False)
    assert child.returncode == 1
    assert b"standard input is not a socket" in child.stderr.splitlines()[-1]
