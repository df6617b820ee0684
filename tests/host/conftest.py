"""Folders short enough for sockets, and hosts that are gone when a test is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.standin import HostProcess


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="rh-", dir="/tmp"))
    yield folder
    for attempt in range(100):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # a kernel whose host a test killed may still be dying
            if attempt == 99:
                raise
        else:
            return


@pytest.fixture
def start_host(root: Path) -> Iterator[Callable[..., HostProcess]]:
    hosts: list[HostProcess] = []

    def start(**options: Any) -> HostProcess:
        hosts.append(HostProcess(root, **options))
        assert hosts[-1].said == b"ready\n"
        return hosts[-1]

    yield start
    for host in hosts:
        host.end()


@pytest.fixture(scope="module")
def shared_root() -> Iterator[Path]:
    """A folder for the hosts that the tests of one module share."""
    folder = Path(tempfile.mkdtemp(prefix="rh-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared_host(shared_root: Path) -> Iterator[HostProcess]:
    """A host, and so a kernel, for the tests of one module: they `join` it."""
    host = HostProcess(shared_root)
    assert host.said == b"ready\n"
    yield host
    host.end()


@pytest.fixture
def host(start_host: Callable[..., HostProcess]) -> HostProcess:
    return start_host()
