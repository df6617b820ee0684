"""An error that nobody foresaw, in one host's folder or session, keeps no other host from being taken over."""

import asyncio
import itertools
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtimed.daemon.hosting.local import LocalLauncher
from runtimed.daemon.rooms.kernel import RoomKernel
from runtimed.daemon.serving import daemon as serving
from runtimed.daemon.serving.daemon import Daemon
from runtimed.daemon.upkeep import deletion
from runtimed.protocol.codec import encode_event
from runtimed.protocol.events import KernelState
from runtimed.storage.spool import Spool
from tests.daemon.conftest import daemon_with_a_clock, until

ERRORS = [
    OSError(5, "Input/output error"),
    sqlite3.OperationalError("disk I/O error"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    msgspec.ValidationError("Object missing required field `epoch`"),
    ValueError("embedded null byte"),
]


def leave(hosts_dir: Path, notebook_id: str) -> Path:
    """Make the folder of a dead host that has left an event; return it."""
    hosts_dir.mkdir(mode=0o700, exist_ok=True)
    folder = hosts_dir / notebook_id
    with Spool(folder) as spool:
        spool.append(1, encode_event(KernelState(at=1.0, status="dead", reason=f"{notebook_id} ended")))
    fields = {"notebook_id": notebook_id, "epoch": f"epoch of {notebook_id}", "kernel_type": "python", "env_source": ""}
    (folder / "owner.json").write_text(json.dumps(fields))
    return folder


def failing(real: Callable[..., Any], error: Exception, concerns: Callable[..., bool]) -> Callable[..., Any]:
    def fail(*args: Any, **fields: Any) -> Any:
        if concerns(*args):
            raise error
        return real(*args, **fields)

    return fail


def status_of(daemon: Daemon, notebook_id: str) -> str | None:
    row = daemon.registry.find(daemon.room(notebook_id).notebook_id)
    return None if row is None else row.status


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_in_the_folder_of_one_host_is_reported_and_the_others_are_taken_over(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    broken, whole = (leave(own_folder / "run", name) for name in ("broken", "whole"))
    found = failing(LocalLauncher.find_owner, error, lambda _launcher, place: place == str(broken))
    monkeypatch.setattr(LocalLauncher, "find_owner", found)

    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon):
            await until(lambda: not whole.exists(), "the other host is not taken over")
            assert status_of(daemon, "whole") == "error"
            assert list(daemon.problems) == [
                f"The host in {broken} is left alone until the next daemon starts: {type(error).__name__}: {error}; "
                "the daemon's log has the details"
            ]
            assert len(list(Spool.read_dead(broken, 0))) == 1, "nothing of it is lost"

    asyncio.run(scenario())


def test_an_error_in_the_session_of_one_host_is_reported_and_the_next_daemon_takes_it_over(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = broken, whole = tuple(leave(own_folder / "run", name) for name in ("broken", "whole"))
    adopt = failing(RoomKernel.adopt, ValueError("odd"), lambda _kernel, place, *_rest: place == str(broken))

    async def meets_the_error() -> None:
        async with daemon_with_a_clock() as (_clock, daemon):
            await until(lambda: not whole.exists(), "the other host is not taken over")
            assert list(daemon.problems) == [
                f"The host in {broken} of session 'broken' cannot be taken over: ValueError: odd; the daemon's log has "
                "the details"
            ]
            assert not daemon.room("broken").kernel.exists

    async def comes_next() -> None:
        async with daemon_with_a_clock() as (_clock, daemon):
            await until(lambda: not any(folder.exists() for folder in folders), "it is not taken over")
            assert list(daemon.problems) == []

    with monkeypatch.context() as patch:
        patch.setattr(RoomKernel, "adopt", adopt)
        asyncio.run(meets_the_error())
    asyncio.run(comes_next())


def test_an_error_while_a_dead_host_is_buried_is_reported_and_it_is_tried_again(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = leave(own_folder / "run", "s")
    calls = itertools.count(1)
    died = failing(RoomKernel.host_died, ValueError("odd"), lambda _kernel: next(calls) < 3)
    monkeypatch.setattr(RoomKernel, "host_died", died)

    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon):
            await until(lambda: not folder.exists(), "it is not tried again")
            assert list(daemon.problems) == [
                f"Session 's': The connection to the host in {folder} fails with ValueError, a mistake of the daemon; "
                "its log has the details"
            ]
            assert status_of(daemon, "s") == "error"
            assert next(calls) == 4

    asyncio.run(scenario())


def test_an_error_in_what_deleted_sessions_have_left_keeps_no_daemon_from_starting(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "finish_deletions", failing(deletion.finish_deletions, ERRORS[1], lambda *_: True))

    async def scenario() -> None:
        async with daemon_with_a_clock() as (_clock, daemon):
            assert list(daemon.problems) == [
                "The removal of files of deleted sessions fails with OperationalError, a mistake of the daemon; "
                "its log has the details"
            ]

    asyncio.run(scenario())
