"""A data folder that is removed under its daemon: whatever is acknowledged afterwards is kept."""

import contextlib
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from runtimed import Client, RuntimedError, Session
from tests.conftest import own_daemon, wait_until


@pytest.fixture(params=["inside", "elsewhere"])
def folder(request, short_folder: Path, monkeypatch):
    data_dir = short_folder / "d"
    data_dir.mkdir(mode=0o700)
    with own_daemon(data_dir):
        if request.param == "elsewhere":
            (short_folder / "s").mkdir(mode=0o700)
            monkeypatch.setenv("RUNTIMED_SOCKET_PATH", str(short_folder / "s" / "socket"))
        yield data_dir
        Client().shutdown()
        monkeypatch.undo()


def test_what_is_acknowledged_after_the_data_folder_was_removed_is_kept_and_the_old_daemon_ends(folder):
    with Session("s") as session:
        session.create_cell("before")
        status = Client().status()
        assert status is not None
        daemon = psutil.Process(status.pid)
        shutil.rmtree(folder)
        kept = []
        for number in range(300):
            with contextlib.suppress(RuntimedError):
                kept.append(session.create_cell(str(number)))
        wait_until(lambda: not daemon.is_running(), "the daemon goes on without its folder")
        with contextlib.suppress(RuntimedError):
            kept.append(session.create_cell("last"))
        status = Client().status()
        if status is not None:
            os.kill(status.pid, signal.SIGKILL)
            wait_until(lambda: not psutil.pid_exists(status.pid), "the daemon lives on")
        assert set(kept) <= set(session.get_cell_ids())
        assert len(session.get_cell_ids()) == len(kept)
