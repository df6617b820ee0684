"""A daemon that is older than its client is named, once, with what to do; nothing else changes."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtimed import AsyncSession, Client, Session, __version__
from runtimed.cli.main import main
from runtimed.client import identity
from runtimed.ipython.reports import state_report
from runtimed.version import version_note

OLDER = "import runtimed.version\nruntimed.version.__version__ = '0.0.9'\n"
NOTE = (
    f"The daemon is runtimed 0.0.9, older than this client's {__version__}: `runtimed restart` replaces it, and "
    "kernels live on"
)


@pytest.mark.parametrize(
    ("daemon", "client", "how"),
    [
        ("0.1.0", "0.1.0", None),
        ("0.0.9", "0.1.0", "older than"),
        ("0.9", "0.10", "older than"),
        ("1.0", "0.10.3", "newer than"),
        ("1.0rc1", "1.0", "not"),
        ("1.0", "1.0.0", "not"),
        ("unknown", "1.0", "older than"),
    ],
)
def test_versions_are_compared_by_their_numbers(daemon: str, client: str, how: str | None):
    note = version_note(daemon, client)
    assert note is None if how is None else f"runtimed {daemon}, {how} this client's {client}: " in (note or "")


def test_an_older_daemon_is_named_wherever_one_looks_and_restart_replaces_it(
    data_dir: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    (tmp_path / "sitecustomize.py").write_text(OLDER)
    subprocess.run(
        [sys.executable, "-m", "runtimed", "start"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
    )
    monkeypatch.setattr(identity, "_named", set())

    with caplog.at_level(logging.WARNING, identity.__name__):
        with Session("kept") as session:
            session.run("x = 6")
        with Session("kept") as session:
            kernel = session.status().kernel_pid

        async def look() -> None:
            async with AsyncSession("kept") as session:
                await session.get_cells()

        asyncio.run(look())
    assert [record.getMessage() for record in caplog.records if record.name == identity.__name__] == [NOTE]
    status = Client().status()
    assert status is not None
    assert status.version == "0.0.9"
    assert NOTE in state_report(None, False, None, all_cells=False)

    assert main(["status"]) == 0
    assert NOTE in capsys.readouterr().out
    main(["doctor", "--json"])
    (check,) = [one for one in json.loads(capsys.readouterr().out) if one["name"] == "version"]
    assert (check["verdict"], f"{check['found']}: {check['advice']}") == ("warn", NOTE)
    assert main(["restart"]) == 0
    status = Client().status()
    assert status is not None
    assert status.version == __version__
    with Session("kept") as session:
        assert (session.run("print(x)").stdout, session.status().kernel_pid) == ("6\n", kernel)
