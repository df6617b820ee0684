"""A stand-in for the daemon: starts host processes, attaches to them, keeps what they say."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil

from runtimed.host.bootstrap import Bootstrap, encode_bootstrap
from runtimed.protocol.codec import decode_event
from runtimed.protocol.connection import AskingEvent, AskingSide, Ended, Greeted, Numbered, Replied
from runtimed.protocol.connection import Failed as Refused
from runtimed.protocol.events import Display, Event, Failed, Finished, KernelState, Stream
from runtimed.protocol.host_operations import Attach, AttachReply, Execute, KernelAsk
from runtimed.protocol.messages import PROTOCOL_VERSION, Hello
from runtimed.protocol.operation import Operation, ReplyT, read_reply
from runtimed.storage.spool import Spool
from runtimed.transport.channel import Channel, ChannelHandler
from runtimed.transport.unix import connect

DEADLINE = 60.0

Waiter = tuple[Operation[Any], asyncio.Future[Any]]

_daemons: list[Daemon] = []


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test, under a deadline, and close the connections that it made."""

    async def run(*args: Any, **kwargs: Any) -> None:
        try:
            async with asyncio.timeout(110):
                await test(*args, **kwargs)
        finally:
            while _daemons:
                _daemons.pop().close()
            await asyncio.sleep(0)  # asyncio closes sockets in its next turn

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        asyncio.run(run(*args, **kwargs))

    return wrapper


async def eventually(condition: Callable[[], bool], seconds: float = DEADLINE) -> None:
    """Wait until something is true that nobody announces."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def client_environment() -> dict[str, str]:
    """What a client would hand over; where it finds pytest's variable, ipykernel does not capture file descriptors."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def fake_daemon(root: Path) -> Path:
    """Let `python -m runtimed.daemon` only say that it was started: a test's host must not leave a daemon behind."""
    folder = root / "site"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if sys.orig_argv[-2:] == ['-m', 'runtimed.daemon']:\n"
        f"    with open({str(root / 'started')!r}, 'a') as file:\n"
        "        print(os.environ['RUNTIMED_DATA_DIR'], os.environ['RUNTIMED_SOCKET_PATH'], file=file)\n"
        "    print('not today', flush=True)\n"
        "    os._exit(1)\n"
    )
    return folder


class HostProcess:
    """A real host process in a folder of its own."""

    def __init__(self, root: Path, *, host_environment: dict[str, str] | None = None, **options: Any) -> None:
        self.folder = root / uuid.uuid4().hex[:8]
        self.folder.mkdir(mode=0o700)
        self.blobs = root / "blobs"
        self.bootstrap = Bootstrap(
            **{
                "folder": str(self.folder),
                "epoch": uuid.uuid4().hex,
                "data_dir": str(root / "data"),
                "socket_path": str(root / "daemon.sock"),
                "blobs_dir": str(self.blobs),
                "kernel_type": "python",
                "env_source": "current",
                "interpreter": sys.executable,
                "environment": {**client_environment(), "IPYTHONDIR": str(root / "ipython")},
                "cwd": str(root),
                "notebook_label": "test 100%",
                "lock": Spool.lock(self.folder),
                **options,
            }
        )
        self.errors = (self.folder / "host.err").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "runtimed.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "PYTHONPATH": str(fake_daemon(root)), **(host_environment or {})},
            cwd="/",
            start_new_session=True,
            pass_fds=(self.bootstrap.lock,),
        )
        os.close(self.bootstrap.lock)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.process.stdin as stdin:
            stdin.write(encode_bootstrap(self.bootstrap))
        self.said = self.process.stdout.readline()

    @property
    def log(self) -> str:
        return (self.folder / "host.log").read_text()

    @property
    def memory(self) -> int:
        """The most memory it ever had, in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")

    async def ended(self, seconds: float = DEADLINE) -> int:
        await eventually(lambda: self.process.poll() is not None, seconds)
        assert self.process.returncode is not None
        return self.process.returncode

    def end(self) -> None:
        """End it in any case; the guard ends its kernel, whose end this waits for."""
        descendants: list[psutil.Process] = []
        if self.process.poll() is None:
            descendants = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        _, alive = psutil.wait_procs(descendants, timeout=10)
        assert not alive
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()


class Daemon(ChannelHandler[AskingEvent[Waiter]]):
    """One connection to a host."""

    def __init__(self, *, acknowledges: bool = True) -> None:
        self.acknowledges = acknowledges
        self.numbers: list[int] = []
        self.events: list[Event] = []
        self.received_bytes = 0
        self.attached = AttachReply(epoch="", last=0)
        self.channel: Channel[AskingSide[Waiter]] | None = None
        self.refusal: str | None = None
        self.is_closed = False
        self._news = asyncio.Event()
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        _daemons.append(self)

    async def attach(self, host: HostProcess, after: int = 0) -> Daemon:
        await self.greet(host)
        self.attached = await self.ask(Attach(after=after))
        return self

    async def greet(self, host: HostProcess, protocol: int = PROTOCOL_VERSION) -> None:
        side = AskingSide[Waiter]("the host")
        self.channel = await connect(host.folder / "host.sock", side, lambda _channel: self)
        side.hello(Hello(protocol=protocol, version="0", client_id="daemon", label=None, pid=os.getpid()))
        self.channel.flush()
        await asyncio.wait_for(self._greeted, DEADLINE)

    def received(self, events: list[AskingEvent[Waiter]]) -> None:
        last = 0
        for event in events:
            match event:
                case Numbered(seq=seq, event=body):
                    self.received_bytes += len(body)
                    self.numbers.append(seq)
                    self.events.append(decode_event(body))
                    last = seq
                case Replied(waiter=(operation, reply), result=result):
                    reply.set_result(read_reply(operation, result))
                case Refused(waiter=(_, reply), error=error):
                    if not reply.done():
                        reply.set_exception(error)
                case Greeted():
                    self._greeted.set_result(None)
                case Ended(error=error):
                    self.refusal = error.message
                    if not self._greeted.done():
                        self._greeted.set_result(None)
                case _:
                    raise AssertionError(event)
        if last and self.acknowledges:
            self.acknowledge(last)
        self._news.set()

    def acknowledge(self, seq: int) -> None:
        assert self.channel is not None
        self.channel.side.acknowledge(seq)
        self.channel.flush()

    def closed(self, error: Exception | None) -> None:
        self.is_closed = True
        self._news.set()

    def request(self, operation: Operation[ReplyT]) -> asyncio.Future[ReplyT]:
        assert self.channel is not None
        reply: asyncio.Future[ReplyT] = asyncio.get_running_loop().create_future()
        self.channel.side.ask(operation, (operation, reply))
        self.channel.flush()
        return reply

    async def ask(self, operation: Operation[ReplyT]) -> ReplyT:
        return await asyncio.wait_for(self.request(operation), DEADLINE)

    async def until(self, condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
        async with asyncio.timeout(seconds):
            while not (found := condition()):
                assert not self.is_closed, "the host closed the connection"
                self._news.clear()
                await self._news.wait()
            return found

    async def state(self, status: str, generation: int = 0) -> KernelState:
        """Wait for a state of the kernel."""

        def find() -> KernelState | None:
            for event in self.events:
                if isinstance(event, KernelState) and (event.status, event.generation) == (status, generation):
                    return event
            return None

        found: KernelState = await self.until(find)
        return found

    async def start(self, code: str, *, execution_id: str | None = None, **options: Any) -> str:
        execution_id = execution_id or f"execution-{uuid.uuid4()}"
        await self.ask(Execute(execution_id=execution_id, cell_id=f"cell-of-{execution_id}", code=code, **options))
        return execution_id

    async def finished(self, execution_id: str) -> Finished:
        found: Finished = await self.until(lambda: next((e for e in self.of(execution_id, Finished)), None))
        return found

    async def count(self, execution_id: str, kind: type[Any], count: int) -> None:
        """Wait until an execution has this many events of a kind."""
        await self.until(lambda: len(self.of(execution_id, kind)) >= count)

    async def run(self, code: str, **options: Any) -> list[Any]:
        """Execute code and return its events."""
        execution_id = await self.start(code, **options)
        await self.finished(execution_id)
        return self.of(execution_id)

    def of(self, execution_id: str, kind: type[Event] | None = None) -> list[Any]:
        return [
            event
            for event in self.events
            if event.execution_id == execution_id and (kind is None or isinstance(event, kind))
        ]

    def text(self, execution_id: str, name: str = "stdout") -> str:
        return "".join(event.text for event in self.of(execution_id, Stream) if event.name == name)

    @property
    def states(self) -> list[tuple[str, int]]:
        return [(event.status, event.generation) for event in self.events if isinstance(event, KernelState)]

    def close(self) -> None:
        if self.channel is not None:
            self.channel.abort()


async def join(host: HostProcess) -> Daemon:
    """Attach to a host that other tests have used, once its kernel runs; the events are those from here on."""
    earlier = await Daemon().attach(host)
    await earlier.run("1")
    await earlier.until(lambda: earlier.states[-1][0] == "idle")
    earlier.close()
    return await Daemon().attach(host, after=earlier.numbers[-1])


def shapes(events: list[Any]) -> list[tuple[Any, ...]]:
    """The events without times and ids; the pieces in which a kernel happened to send a text are one."""
    result: list[tuple[Any, ...]] = []
    for event in events:
        match event:
            case Stream(name=name, text=text) if result and result[-1][0] == name:
                result[-1] = (name, result[-1][1] + text)
            case Stream(name=name, text=text):
                result.append((name, text))
            case Display(kind=kind, data=data):
                result.append((kind, data))
            case Failed(ename=ename, evalue=evalue):
                result.append(("failed", ename, evalue))
            case Finished(status=status, message=message):
                result.append(("finished", status, message))
            case _:
                result.append((type(event).__name__,))
    return result


async def gather(*works: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*works))


def completion(code: str) -> KernelAsk:
    """Ask for completions at the end of some code."""
    return KernelAsk(msg_type="complete_request", content={"code": code, "cursor_pos": len(code)})
