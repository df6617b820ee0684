"""What the tests of a daemon in their own loop share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.daemon.host_link import reap_hosts
from tests.conftest import wait_until


@pytest.fixture
def own_folder(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder for a daemon inside the test; its hosts end with the test."""
    short_folder.chmod(0o700)
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    monkeypatch.delenv("RUNTIMED_SOCKET_PATH", raising=False)
    yield short_folder
    wait_until(lambda: reap_hosts() == 0, "a host lives on")
