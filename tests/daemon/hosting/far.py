"""A launcher of hosts in another folder, with another data directory, where only the streams of a bridge lead."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from runtimed.daemon.hosting.launcher import Owner, Place
from runtimed.execution.outputs import blobs_in
from runtimed.host.bootstrap import HostBootstrap
from runtimed.protocol.codec import decode_event, pack, unpack
from runtimed.protocol.connection import Side
from runtimed.settings import Settings
from runtimed.storage.blobs import BlobStore
from runtimed.transport.channel import Channel, ChannelHandler
from runtimed.transport.stdio import start_child

PROGRAM = Path(__file__).with_name("far_machine.py")

bridges: list[subprocess.Popen[bytes]] = []
"""Those that were built; each ends with its connection."""

S = TypeVar("S", bound=Side[Any])


class FarLauncher:
    """See `Launcher`."""

    def __init__(self, settings: Settings, far: Path) -> None:
        self.blobs: BlobStore | None = BlobStore(settings.data_dir / "blobs")
        self._far = far

    def ask(self, name: str, *words: Any, told: bytes = b"") -> Any:
        """Have the other machine do something."""
        argv = [sys.executable, str(PROGRAM), str(self._far), name, *map(str, words)]
        return unpack(subprocess.run(argv, input=told, stdout=subprocess.PIPE, check=True).stdout)

    def new_place(self, owner: Owner | None) -> Place:
        return Place(self.ask("new_place", told=msgspec.json.encode(owner)))

    def name_owner(self, place: Place, owner: Owner) -> None:
        self.ask("name_owner", place, told=msgspec.json.encode(owner))

    async def launch(self, place: Place, bootstrap: HostBootstrap) -> int | None:
        told = pack(msgspec.to_builtins(bootstrap))
        pid: int = await asyncio.to_thread(self.ask, "launch", place, told=told)
        return pid

    async def connect(self, place: Place, side: S, handler: Callable[[Channel[S]], ChannelHandler[Any]]) -> Channel[S]:
        argv = [sys.executable, str(PROGRAM), str(self._far), "bridge", place]
        channel, bridge = await start_child(argv, side, handler, stderr=subprocess.DEVNULL)
        bridges.append(bridge)
        return channel

    async def find_pid(self, place: Place) -> int | None:
        pid: int | None = await asyncio.to_thread(self.ask, "find_pid", place)
        return pid

    def is_alive(self, place: Place) -> bool:
        return bool(self.ask("is_alive", place))

    def runs(self, place: Place, pid: int) -> bool:
        return bool(self.ask("runs", place, pid))

    def signal(self, place: Place, pid: int, number: int) -> None:
        self.ask("signal", place, pid, int(number))

    def packages_dir(self, place: Place) -> Path | None:
        return None

    async def leftovers(
        self, place: Place, after: int, problem: Callable[[str], None]
    ) -> AsyncGenerator[tuple[int, bytes]]:
        assert self.blobs is not None
        for n, body in await asyncio.to_thread(self.ask, "leftovers", place, after):
            for blob in blobs_in(decode_event(body)):
                if not self.blobs.renew(blob.sha256):
                    self.blobs.put(await asyncio.to_thread(self.ask, "blob", place, blob.sha256))
            yield n, body

    def forget(self, place: Place) -> None:
        self.ask("forget", place)

    def reap(self) -> int:
        bridges[:] = [bridge for bridge in bridges if bridge.poll() is None]
        return len(bridges)

    def places(self) -> list[Place]:
        return [Place(place) for place in self.ask("places")]

    def find_owner(self, place: Place) -> Owner | None:
        owner = self.ask("find_owner", place)
        return None if owner is None else msgspec.convert(owner, Owner)

    def is_spare(self, place: Place) -> bool:
        return bool(self.ask("is_spare", place))

    def has_leftovers(self, place: Place) -> bool:
        return bool(self.ask("has_leftovers", place))

    def set_aside(self, place: Place) -> str:
        return str(self.ask("set_aside", place))

    def kept_events(self, stored: Mapping[Place, int]) -> Iterator[bytes]:
        return iter(())
