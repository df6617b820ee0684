"""What a kernel has from its client as if that had started it: umask, limits, niceness. Beside a real child."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtimed import Client, Session
from tests.conftest import processes_of, wait_until

SHOW = """
import os, pathlib, resource
umask = os.umask(0)
os.umask(umask)
pathlib.Path("private").unlink(missing_ok=True)
pathlib.Path("private").touch()
limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("NOFILE", "CORE", "FSIZE", "AS", "DATA")]
cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
print(oct(umask), oct(os.stat("private").st_mode), os.getpriority(os.PRIO_PROCESS, 0), cpus, limits)
"""

CLIENT = """
import os, resource, subprocess, sys
import runtimed
os.umask(0o077)
os.nice(5)
for name, soft, hard in (("NOFILE", 200, 300), ("CORE", 0, 1000), ("FSIZE", 10**8, 10**9), ("AS", 2**42, 2**43)):
    resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, hard))
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
show = sys.argv[1]
print(subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout, end="")
with runtimed.Session("inherits") as session:
    print(session.run(show).stdout, end="")
    host = session.status().host_pid
    session.restart_kernel()
    print(session.run(show).stdout, end="")
    print(host)
    session.shutdown_kernel()
"""


def figures() -> dict[str, int]:
    status = Client().status()
    assert status is not None
    return {name: number for name, number in status.pool.items() if number and name.startswith("current")}


linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux sets the limits of another process")


@linux
@pytest.mark.parametrize("pool", ["0", "1"], ids=["cold", "spare"])
def test_a_kernel_has_the_umask_the_limits_and_the_niceness_of_its_client(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    monkeypatch.setenv("RUNTIMED_POOL_SIZE", pool)
    monkeypatch.chdir(tmp_path)
    with Session() as session:
        # Not what the client's child shows: the daemon and its hosts are those of this process.
        before = session.run(SHOW).stdout
        wait_until(lambda: figures() == ({"current_available": 1} if pool == "1" else {}), "there is no spare")
        there = {process.pid for process in processes_of(data_dir)}
    command = [sys.executable, "-c", CLIENT, SHOW]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    child, kernel, restarted, host = done.stdout.splitlines()
    assert child.startswith("0o77 0o100600 ")
    assert (kernel, restarted) == (child, child)
    assert before.strip() != child
    assert (int(host) in there) == (pool == "1")


def test_limits_that_may_not_be_raised_are_kept_as_far_as_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for anybody but root."""
    import resource

    from runtimed.host.inherited import give
    from runtimed.protocol.inherited import Inherited

    if not hasattr(resource, "prlimit"):
        pytest.skip("only Linux sets the limits of another process")
    real = resource.prlimit

    def refuse(pid: int, which: int, limits: tuple[int, int] | None = None) -> tuple[int, int]:
        if limits is None:
            return real(pid, which)
        if limits[1] == resource.RLIM_INFINITY or limits[1] > real(pid, which)[1] != resource.RLIM_INFINITY:
            raise PermissionError
        return real(pid, which, limits)

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        real(child.pid, resource.RLIMIT_NOFILE, (100, 200))
        real(child.pid, resource.RLIMIT_DATA, (2**40, 2**40))
        monkeypatch.setattr(resource, "prlimit", refuse)
        for wanted, given in (((150, 300), (150, 200)), ((-1, -1), (200, 200)), ((50, 80), (50, 80))):
            limits = {"RLIMIT_NOFILE": wanted, "RLIMIT_DATA": (2**30, 2**30), "RLIMIT_OF_ANOTHER_SYSTEM": (1, 1)}
            give(child.pid, Inherited(umask=0, limits=limits), fenced=True)
            assert real(child.pid, resource.RLIMIT_NOFILE) == given
        assert real(child.pid, resource.RLIMIT_DATA) == (2**40, 2**40)
        give(child.pid, Inherited(umask=0, limits=limits), fenced=False)
        assert real(child.pid, resource.RLIMIT_DATA) == (2**30, 2**30)
        child.communicate(b"\n")
