"""A small file system for a test: mounted as root, or by running the test once more in a user namespace of its own."""

import contextlib
import errno
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import own_daemon

SIZE = 64 * 2**20


class SmallDisk:
    """A data folder on a file system of its own, with a file that takes as much room on it as is wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @property
    def free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bfree * found.f_frsize

    def leave(self, free: int) -> None:
        """Fill the disk but for so many bytes; 0 fills it to the last one."""
        with self._ballast.open("ab") as file:
            while (more := self.free - free) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), more)
                except OSError as exc:
                    # Somebody else was faster.
                    if exc.errno != errno.ENOSPC:
                        raise

    def make_room(self) -> None:
        self._ballast.unlink()

    def be(self, *, read_only: bool) -> None:
        """Let nobody write on it, or everybody again."""
        how = "ro" if read_only else "rw"
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)

    def grow(self, size: int) -> None:
        """Be a disk of so many bytes."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)


def on_a_small_disk(test: Callable[[SmallDisk], None]) -> Callable[[pytest.FixtureRequest], None]:
    """Give a test a `SmallDisk` as its data folder; its daemon and all that belongs to it end with the test."""

    @functools.wraps(test)
    def wrapper(request: pytest.FixtureRequest) -> None:
        if not hasattr(os, "posix_fallocate"):
            pytest.skip("a small file system needs Linux")
        folder = Path(tempfile.mkdtemp(prefix="rt"))
        try:
            if not _mount(folder):
                _run_in_a_namespace(request.node.nodeid)
                return
            with _mounted(folder), own_daemon(folder):
                disk = SmallDisk(folder)
                try:
                    test(disk)
                finally:
                    with contextlib.suppress(FileNotFoundError):
                        disk.make_room()
        finally:
            shutil.rmtree(folder)

    del wrapper.__wrapped__  # pytest would ask it for its parameters
    return wrapper


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # Lazily: a process that a failed test has left behind must not keep it.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _run_in_a_namespace(test: str) -> None:
    """Run a test as root of a user namespace, in which everybody may mount a tmpfs."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if os.environ.get("RUNTIMED_TEST_IN_NAMESPACE") or not _works([*unshare, "true"]):
        pytest.skip("neither may this user mount a file system, nor make a namespace in which it may")
    done = subprocess.run(
        [*unshare, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        env={**os.environ, "RUNTIMED_TEST_IN_NAMESPACE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _works(command: list[str]) -> bool:
    return (
        shutil.which(command[0]) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )
