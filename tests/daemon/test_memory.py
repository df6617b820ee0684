"""The memory limit of kernels as users meet it: set by a variable, named when it is exceeded, shown by the status."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runtimed import Client, Session
from runtimed.host.memory import find_mechanisms
from tests.conftest import own_daemon, wait_until

pytestmark = pytest.mark.slow

MIB = 2**20
HERE = find_mechanisms()
EXCEEDED = (
    "The kernel was killed because it and what it had started used more memory than its limit of 400 MiB "
    "(RUNTIMED_MAX_KERNEL_MEMORY)"
)

needs_cgroup = pytest.mark.skipif(
    not any(mechanism.parent for mechanism in HERE), reason="no cgroup can be made on this machine"
)


@pytest.fixture(scope="module")
def limited() -> Iterator[Path]:
    """The data folder of a daemon whose kernels may have 400 MiB; no test leaves a session in it."""
    folder = Path(tempfile.mkdtemp(prefix="rt"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIMED_MAX_KERNEL_MEMORY", "400M")
        with own_daemon(folder):
            yield folder
    shutil.rmtree(folder, ignore_errors=True)


def cgroups() -> list[Path]:
    """The cgroups of kernels, of any runtimed."""
    return [path for mechanism in HERE if mechanism.parent for path in mechanism.parent.glob("runtimed-*-*")]


def cgroup_of(pid: int) -> Path:
    found = [path for path in cgroups() if str(pid) in (path / "cgroup.procs").read_text().split()]
    assert len(found) == 1, found
    return found[0]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_the_status_tells_the_limit_and_what_keeps_it(limited: Path):
    with Session():
        status = Client().status()
    assert status is not None
    kept_by = HERE[0].kind if HERE else None
    assert status.limits["max_kernel_memory"] == 400 * MIB
    assert status.limits["kernel_memory_kept_by"] == kept_by


def test_without_a_limit_no_cgroup_is_made(data_dir: Path):
    with Session() as session:
        session.start_kernel()
        pid = session.status().kernel_pid
    assert not [path for path in cgroups() if str(pid) in (path / "cgroup.procs").read_text().split()]


@needs_cgroup
def test_a_session_says_that_its_kernel_exceeded_the_limit(limited: Path):
    with Session() as session:
        pid = int(session.run("import os; print(os.getpid())").stdout)
        cgroup = cgroup_of(pid)
        result = session.run(f"x = bytearray({800 * MIB})")
        assert result.error is not None
        assert (result.success, result.error.ename, result.error.evalue) == (False, "KernelDied", EXCEEDED)
        wait_until(lambda: session.status().status == "error", "the session does not end")
        status = session.status()
        assert (status.close_reason, status.error) == (
            "died",
            EXCEEDED,
        )
        assert not cgroup.exists()
        # The next kernel has the whole limit again.
        assert session.run(f"x = bytearray({200 * MIB})").success


@needs_cgroup
def test_a_daemon_clears_what_a_host_and_its_guard_have_left(limited: Path):
    with Session() as session:
        detached = "import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)"
        child = int(session.run(detached).stdout)
        status = session.status()
        assert status.host_pid is not None
        assert status.kernel_pid is not None
        cgroup = cgroup_of(status.kernel_pid)
        os.kill(status.host_pid, signal.SIGSTOP)  # so that it does not replace the guard
        for process in psutil.Process(status.host_pid).children():
            if process.name() in {"sh", "dash", "bash"}:
                process.kill()
        os.kill(status.host_pid, signal.SIGKILL)
        wait_until(lambda: session.status().status == "error", "the lost host is not noticed")
        wait_until(lambda: is_gone(child), "a detached child lives on")
        wait_until(lambda: not cgroup.exists(), "its cgroup is left")
        wait_until(lambda: not any((limited / "run").glob("*/")), "the host's folder is left")


@needs_cgroup
def test_a_daemon_that_a_kernel_started_outlives_that_kernel(limited: Path, tmp_path: Path):
    inner = limited / "inner"
    with Session() as session:
        code = f"""
import os, runtimed
os.environ["RUNTIMED_DATA_DIR"] = {str(inner)!r}
with runtimed.Session("t") as session:
    print(session.run("import os; print(os.getpid())").stdout, end="")
    print(runtimed.Client().status().pid)
"""
        result = session.run(code)
        assert result.success, result.outputs
        kernel, daemon = map(int, result.stdout.split())
    assert not is_gone(daemon)
    assert not is_gone(kernel)
    with own_daemon(inner), Session("t") as session:
        assert session.run("print(os.getpid())").stdout == f"{kernel}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="this system enforces no limit of memory")
def test_the_limit_takes_nothing_from_a_kernel(limited: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BASH_FUNC_module%%", "() { :\n}")
    with Session() as session:
        result = session.run("import os; print(repr(os.environ['BASH_FUNC_module%%']))\n!echo shell")
        assert result.stdout == "'() { :\\n}'\nshell\n"
