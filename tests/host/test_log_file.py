"""The log of a host stays small, whoever writes to it, and keeps what was written last."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.host.log_file import MAX_LOG, LogFile
from tests.conftest import wait_until
from tests.host.standin import HostProcess


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogFile]:
    file = LogFile(tmp_path / "host.log")
    yield file
    file.close()
    file.stream.close()
    os.close(file.fd)


def emit(log: LogFile, number: int) -> None:
    log.emit(logging.LogRecord("a", logging.INFO, "", 0, f"line {number:6d} " + "x" * 86, None, None))


def lines(folder: Path) -> list[str]:
    """What is still there, the oldest first."""
    found = [path.read_text() for path in (folder / "host.log.1", folder / "host.log") if path.exists()]
    return "".join(found).splitlines()


def test_whatever_is_logged_two_files_hold_the_last_of_it(log: LogFile, tmp_path: Path) -> None:
    emit(log, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["host.log"]
    for number in range(1, 40_000):
        emit(log, number)
        if number % 5000 == 0:
            assert (tmp_path / "host.log").stat().st_size <= MAX_LOG
    assert {path.name: oct(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        "host.log": "0o100600",
        "host.log.1": "0o100600",
    }
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * MAX_LOG
    numbers = [int(line.split()[1]) for line in lines(tmp_path)[1:]]
    assert numbers == list(range(numbers[0], 40_000))
    assert len(numbers) * 100 >= MAX_LOG - 1000


def test_what_others_write_to_the_descriptor_is_bounded_too(log: LogFile, tmp_path: Path) -> None:
    other = os.dup(log.fd)
    try:
        os.write(other, b"old\n" * MAX_LOG)
        os.write(other, b"new\n")
        log.tidy()
        assert (tmp_path / "host.log").read_bytes() == b""
        assert (tmp_path / "host.log.1").read_bytes() == b"old\n" * (MAX_LOG // 4 - 1) + b"new\n"
        os.write(other, b"and then\n")
        assert (tmp_path / "host.log").read_bytes() == b"and then\n"
    finally:
        os.close(other)


def test_a_log_that_cannot_be_kept_is_emptied_all_the_same(log: LogFile, tmp_path: Path) -> None:
    (tmp_path / "host.log.1").mkdir()
    os.write(log.fd, b"old\n" * MAX_LOG)
    emit(log, 1)
    assert (tmp_path / "host.log").read_bytes() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="only there may one process write to a descriptor of another")
def test_a_host_whose_libraries_print_for_days_fills_no_disk(host: HostProcess) -> None:
    log = host.folder / "host.log"
    stderr = Path(f"/proc/{host.process.pid}/fd/2")
    # It says that it is ready, and then lets go of the streams of whoever started it.
    wait_until(lambda: stderr.resolve() == log, "what it prints goes elsewhere")
    with stderr.open("ab") as file:
        file.write(b"a library complains\n" * 200_000)
    wait_until(lambda: log.stat().st_size < MAX_LOG, "the log is as long as it was")
    assert (host.folder / "host.log.1").stat().st_size == MAX_LOG
