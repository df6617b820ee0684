"""What runs at the other end, on a machine that shares nothing with the daemon's; `far.py` has the near end.

Bytes come and go by standard input and output alone.
"""

import asyncio
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec

from runtimed.daemon.hosting.launcher import Owner, Place
from runtimed.daemon.hosting.local import LocalLauncher
from runtimed.host.bootstrap import Bootstrap
from runtimed.protocol.codec import pack, unpack
from runtimed.settings import read_settings
from runtimed.storage.blobs import BlobStore


class Machine(LocalLauncher):
    """Launches hosts that reach no daemon: one comes to them."""

    def surroundings(self) -> dict[str, str]:
        return {"data_dir": "", "socket_path": "", "blobs_dir": ""}


def main(data_dir: str, name: str, *words: str) -> None:
    machine = Machine(read_settings({"HOME": os.environ["HOME"], "RUNTIMED_DATA_DIR": data_dir}))
    if name == "bridge":
        bridge(Path(words[0]) / "host.sock")
    else:
        told = sys.stdin.buffer.read()
        sys.stdout.buffer.write(pack(perform(machine, name, words, told)))


def perform(machine: Machine, name: str, words: tuple[str, ...], told: bytes) -> Any:
    place = Place(words[0]) if words else Place("")
    match name:
        case "new_place":
            return machine.new_place(msgspec.json.decode(told, type=Owner | None))
        case "name_owner":
            return machine.name_owner(place, msgspec.json.decode(told, type=Owner))
        case "find_owner":
            owner = machine.find_owner(place)
            return None if owner is None else msgspec.to_builtins(owner)
        case "launch":
            return asyncio.run(machine.launch(place, msgspec.convert(unpack(told), Bootstrap)))
        case "leftovers":
            return asyncio.run(leftovers(machine, place, int(words[1])))
        case "find_pid":
            return asyncio.run(machine.find_pid(place))
        case "blob":
            store = BlobStore(Path(place) / "blobs")
            return store.read(words[1], 0, 2**30)
        case _:
            return getattr(machine, name)(place, *map(json.loads, words[1:])) if words else getattr(machine, name)()


async def leftovers(machine: Machine, place: Place, after: int) -> list[list[Any]]:
    problems: list[str] = []
    return [list(event) async for event in machine.leftovers(place, after, problems.append)]


def bridge(path: Path) -> None:
    """Join standard input and output to a host's socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))

        def send() -> None:
            while data := os.read(0, 65536):
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        while data := sock.recv(65536):
            while data:
                data = data[os.write(1, data) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
