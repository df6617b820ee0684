"""A kernel's memory limit: how it would be kept here, what is written for it, and that it is kept for real."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from runtimed.host import memory
from runtimed.host.memory import (
    ALLOWANCE,
    CgroupV1,
    CgroupV2,
    DataLimit,
    Fence,
    Mechanism,
    available_memory,
    build_fence,
    clear_leftovers,
    find_mechanisms,
    leave_fence,
)
from runtimed.protocol.events import Failed, KernelState
from runtimed.protocol.host_operations import HostRestart, HostShutdown
from tests.host.standin import Daemon, HostProcess, client_environment, eventually, in_loop, is_running

MIB = 2**20
LIMIT = 400 * MIB
EXCEEDED = (
    "The kernel was killed because it and what it had started used more memory than its limit of 400 MiB "
    "(RUNTIMED_MAX_KERNEL_MEMORY)"
)
WITHIN = str(Path(memory.__file__).parent.parent / "kernel_launcher" / "within.py")
HERE = find_mechanisms()

needs_cgroup = pytest.mark.skipif(
    not any(mechanism.parent for mechanism in HERE), reason="no cgroup can be made on this machine"
)
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="this system enforces no limit of memory")


# --- what the machine offers, told by a tree that looks like one ------------------------------------------------------


class Machine:
    """Files as the operating system has them in /proc and in its cgroups."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.cgroups = root / "cgroups of\x01it"
        (self.proc / "self").mkdir(parents=True)
        self.cgroups.mkdir()
        self.in_cgroups()

    def mount(self, *lines: str) -> None:
        place = str(self.cgroups).replace(" ", "\\040").replace("\x01", "\\001")
        mounts = "".join(f"{line.replace('@', place)}\n" for line in ("21 1 8:1 / / rw - ext4 /dev/sda1 rw", *lines))
        (self.proc / "self" / "mountinfo").write_text(mounts)

    def in_cgroups(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def v2(self, path: str, *, controllers: str = "memory pids", children: str = "", processes: str = "") -> Path:
        folder = self.cgroups / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.controllers").write_text(f"{controllers}\n")
        (folder / "cgroup.subtree_control").write_text(f"{children}\n")
        (folder / "cgroup.procs").write_text(processes)
        if path:
            (folder / "cgroup.type").write_text("domain\n")
        return folder

    def find(self) -> tuple[Mechanism, ...]:
        return find_mechanisms(proc=self.proc, platform="linux")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    def may_write(path: Path, _: int) -> bool:
        return path.exists() and bool(path.stat().st_mode & 0o200)

    monkeypatch.setattr(os, "access", may_write)  # root may write anywhere
    return Machine(tmp_path)


V2 = "30 21 0:26 / @ rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 21 0:30 / @/memory rw - cgroup cgroup rw,memory"
RLIMIT = Mechanism("RLIMIT_DATA")


def test_a_terminal_of_a_desktop_has_its_cgroups_beside_it(machine: Machine):
    machine.mount(V2)
    machine.in_cgroups("0::/user.slice/user@1000.service/app.slice/terminal.scope")
    machine.v2("", children="memory pids", processes="1\n")
    machine.v2("user.slice", children="memory pids")
    machine.v2("user.slice/user@1000.service", children="memory pids")
    app = machine.v2("user.slice/user@1000.service/app.slice", children="memory pids")
    machine.v2("user.slice/user@1000.service/app.slice/terminal.scope", processes="4711\n")
    assert machine.find() == (Mechanism("cgroup v2", app), RLIMIT)


def test_a_service_with_a_delegated_subtree_has_its_cgroups_there(machine: Machine):
    machine.mount(V2)
    machine.in_cgroups("0::/system.slice/hub.service/daemon")
    machine.v2("", children="memory pids").chmod(0o500)
    machine.v2("system.slice", children="memory pids").chmod(0o500)
    service = machine.v2("system.slice/hub.service")
    machine.v2("system.slice/hub.service/daemon", processes="4711\n")
    assert machine.find() == (Mechanism("cgroup v2", service), RLIMIT)


def test_a_place_whose_processes_cannot_be_moved_is_none(machine: Machine):
    machine.mount(V2)
    machine.in_cgroups("0::/user.slice/session-3.scope")
    for path in ("", "user.slice"):
        folder = machine.v2(path, children="memory pids")
        (folder / "cgroup.procs").chmod(0o400)
    machine.v2("user.slice/session-3.scope", processes="4711\n")
    assert machine.find() == (RLIMIT,)


def test_a_container_in_its_own_topmost_cgroup_has_no_place_for_another(machine: Machine):
    machine.mount(V2)
    machine.in_cgroups("0::/")
    folder = machine.v2("", processes="1\n")
    (folder / "cgroup.type").write_text("domain\n")
    assert machine.find() == (RLIMIT,)
    # The topmost one of a machine has no type, and may have both children and processes.
    (folder / "cgroup.type").unlink()
    assert machine.find() == (Mechanism("cgroup v2", folder), RLIMIT)


def test_a_unified_hierarchy_without_the_memory_controller_gives_way_to_the_old_one(machine: Machine):
    machine.mount(V2.replace("@", "@/unified"), V1, V1.replace("memory", "cpu"))
    machine.in_cgroups("5:cpu:/", "4:freezer,memory:/jobs/one", "0::/")
    machine.v2("unified", controllers="hugetlb", processes="1\n")
    own = machine.cgroups / "memory" / "jobs" / "one"
    own.mkdir(parents=True)
    assert machine.find() == (RLIMIT,)
    (own / "memory.limit_in_bytes").touch()
    assert machine.find() == (Mechanism("cgroup v1", own), RLIMIT)
    own.chmod(0o500)
    assert machine.find() == (RLIMIT,)


def test_a_container_sees_its_part_of_the_old_hierarchy(machine: Machine):
    machine.mount("33 21 0:30 /docker/abc @/memory rw - cgroup cgroup rw,memory")
    own = machine.cgroups / "memory" / "inner"
    own.mkdir(parents=True)
    (own / "memory.limit_in_bytes").touch()
    machine.in_cgroups("4:memory:/docker/abc/inner")
    assert machine.find() == (Mechanism("cgroup v1", own), RLIMIT)
    machine.in_cgroups("4:memory:/docker/def")
    assert machine.find() == (RLIMIT,)


def test_the_unified_hierarchy_comes_first(machine: Machine):
    machine.mount(V1, V2.replace("@", "@/unified"))
    machine.in_cgroups("4:memory:/", "0::/")
    unified = machine.v2("unified", children="memory")
    old = machine.cgroups / "memory"
    old.mkdir()
    (old / "memory.limit_in_bytes").touch()
    assert machine.find() == (Mechanism("cgroup v2", unified), Mechanism("cgroup v1", old), RLIMIT)


def test_without_proc_there_is_still_a_limit_for_each_process(machine: Machine):
    shutil.rmtree(machine.proc)
    assert machine.find() == (RLIMIT,)


def test_macos_enforces_none():
    assert find_mechanisms(platform="darwin") == ()


# --- how much there is ------------------------------------------------------------------------------------------------


def test_a_container_has_no_more_memory_than_its_cgroup_leaves(machine: Machine):
    machine.mount(V2)
    machine.in_cgroups("0::/kubepods/pod/container")
    for path, limit, used in (("", "max", 0), ("kubepods/pod", str(90 * MIB), 70 * MIB), ("kubepods", "max", 0)):
        folder = machine.v2(path)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {10 * MIB}\n")
    own = machine.v2("kubepods/pod/container")
    (own / "memory.max").write_text("max\n")
    assert available_memory(proc=machine.proc) == 30 * MIB
    (machine.cgroups / "kubepods/pod/memory.current").write_text(f"{200 * MIB}\n")
    assert available_memory(proc=machine.proc) == 0


def test_a_container_of_the_old_hierarchy_has_no_more_memory_than_its_cgroup_leaves(machine: Machine):
    machine.mount(V1)
    machine.in_cgroups("4:memory:/jobs/one")
    own = machine.cgroups / "memory/jobs/one"
    own.mkdir(parents=True)
    (own / "memory.limit_in_bytes").write_text(f"{50 * MIB}\n")
    (own / "memory.usage_in_bytes").write_text(f"{45 * MIB}\n")
    (own / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {20 * MIB}\n")
    (own.parent / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert available_memory(proc=machine.proc) == 25 * MIB


def test_without_a_limit_the_memory_is_the_machine_s(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    class Found:
        available = 7 * MIB

    monkeypatch.setattr(psutil, "virtual_memory", Found)
    machine.mount(V2)
    machine.in_cgroups("0::/")
    (machine.v2("") / "memory.max").write_text("max\n")
    assert available_memory(proc=machine.proc) == 7 * MIB
    assert available_memory(proc=machine.proc / "nowhere") == 7 * MIB


# --- what is written --------------------------------------------------------------------------------------------------

FILES_V2 = {
    "cgroup.procs": "",
    "cgroup.kill": "",
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
    "memory.oom.group": "0\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 0\noom_kill 0\noom_group_kill 0\n",
}
FILES_V1 = {
    "cgroup.procs": "",
    "cgroup.event_control": "",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.memsw.limit_in_bytes": "9223372036854771712\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
    "memory.max_usage_in_bytes": "0\n",
}


class Cgroups:
    """A folder that behaves as the file system of cgroups: a new folder has its files, one without processes can go."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parent = root / "parent"
        self.records = root / "host"
        self.files: dict[str, str] = {}
        self.parent.mkdir()
        self.records.mkdir()
        (self.parent / "cgroup.subtree_control").write_text("pids\n")
        mkdir = Path.mkdir
        monkeypatch.setattr(Path, "mkdir", lambda path, **options: self._mkdir(path, mkdir, options))
        monkeypatch.setattr(Path, "rmdir", self._rmdir)

    def _mkdir(self, path: Path, mkdir: Callable[..., None], options: dict[str, bool]) -> None:
        mkdir(path, **options)
        for name, content in self.files.items():
            (path / name).write_text(content)

    @staticmethod
    def _rmdir(path: Path) -> None:
        if (path / "cgroup.procs").read_text():
            raise OSError(errno.EBUSY, "Device or resource busy")
        shutil.rmtree(path)

    def content(self, name: str) -> dict[str, str]:
        """What was written into a cgroup."""
        found = {path.name: path.read_text() for path in (self.parent / name).iterdir()}
        return {name: text for name, text in found.items() if text != self.files.get(name)}


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cgroups:
    return Cgroups(tmp_path, monkeypatch)


NAME = f"{uuid.uuid4().hex}-3"


def test_a_v2_cgroup_limits_memory_without_swap_and_ends_as_one(cgroups: Cgroups):
    cgroups.files = FILES_V2
    fence = build_fence(LIMIT, NAME, cgroups.records, [Mechanism("cgroup v2", cgroups.parent), RLIMIT])
    folder = cgroups.parent / f"runtimed-{NAME}"
    assert isinstance(fence, CgroupV2)
    assert (cgroups.parent / "cgroup.subtree_control").read_text() == "+memory"
    assert cgroups.content(folder.name) == {
        "memory.max": str(LIMIT),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
    }
    assert fence.prefix == (sys.executable, "-I", "-S", WITHIN, "cgroup", f"{folder}/cgroup.procs")
    assert (fence.folder, fence.alarm) == (folder, None)
    assert [path.read_text() for path in cgroups.records.iterdir()] == [str(folder)]
    assert not fence.end()
    assert not folder.exists()
    assert list(cgroups.records.iterdir()) == []


def test_a_v2_cgroup_leaves_what_its_parent_allows_already(cgroups: Cgroups):
    cgroups.files = {name: content for name, content in FILES_V2.items() if name != "memory.swap.max"}
    (cgroups.parent / "cgroup.subtree_control").write_text("cpu memory\n")
    fence = build_fence(LIMIT, NAME, cgroups.records, [Mechanism("cgroup v2", cgroups.parent)])
    assert (cgroups.parent / "cgroup.subtree_control").read_text() == "cpu memory\n"
    assert cgroups.content(f"runtimed-{NAME}") == {"memory.max": str(LIMIT), "memory.oom.group": "1"}
    fence.end()


@pytest.mark.parametrize(
    ("events", "exceeded"),
    [
        ("max 12\noom 1\noom_kill 3\n", True),
        ("max 12\noom 0\noom_kill 1\n", False),  # an ancestor's limit, or the machine's memory
        ("max 12\noom 1\noom_kill 0\n", False),  # an allocation failed, and the program took it
    ],
)
def test_a_v2_cgroup_knows_whose_limit_killed(cgroups: Cgroups, events: str, exceeded: bool):
    cgroups.files = FILES_V2
    fence = build_fence(LIMIT, NAME, cgroups.records, [Mechanism("cgroup v2", cgroups.parent)])
    (cgroups.parent / f"runtimed-{NAME}" / "memory.events").write_text(events)
    assert fence.end() == exceeded


def test_a_v2_cgroup_is_killed_as_a_whole(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch):
    cgroups.files = FILES_V2
    fence = build_fence(LIMIT, NAME, cgroups.records, [Mechanism("cgroup v2", cgroups.parent)])
    folder = cgroups.parent / f"runtimed-{NAME}"
    (folder / "cgroup.procs").write_text("1\n")  # it must not be killed by number
    monkeypatch.setattr(memory, "_END_DEADLINE", 0.0)
    fence.end()
    assert (folder / "cgroup.kill").read_text() == "1"
    # What could not be removed is remembered, and the daemon tries again.
    (folder / "cgroup.procs").write_text("")
    assert clear_leftovers(cgroups.records)
    assert not folder.exists()


def test_a_v1_cgroup_limits_memory_with_swap_and_has_an_alarm(cgroups: Cgroups):
    cgroups.files = FILES_V1
    fence = build_fence(LIMIT, NAME, cgroups.records, [Mechanism("cgroup v1", cgroups.parent), RLIMIT])
    folder = cgroups.parent / f"runtimed-{NAME}"
    assert isinstance(fence, CgroupV1)
    written = cgroups.content(folder.name)
    assert re.fullmatch(rf"{fence.alarm} \d+", written.pop("cgroup.event_control"))
    assert written == {"memory.limit_in_bytes": str(LIMIT), "memory.memsw.limit_in_bytes": str(LIMIT)}
    assert fence.prefix == (sys.executable, "-I", "-S", WITHIN, "cgroup", f"{folder}/cgroup.procs")
    assert not fence.end()
    assert not folder.exists()
    fence.close()
    fence.close()
    assert fence.alarm is None


def test_an_alarm_ends_everything_if_the_limit_was_reached(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch):
    cgroups.files = FILES_V1
    fence = build_fence(LIMIT, NAME, cgroups.records, [Mechanism("cgroup v1", cgroups.parent)])
    folder = cgroups.parent / f"runtimed-{NAME}"
    monkeypatch.setattr(memory, "_END_DEADLINE", 0.0)
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        (folder / "cgroup.procs").write_text(f"0\n{sleeper.pid}\n")
        fence.heed_alarm()
        assert sleeper.poll() is None  # the limit of an ancestor
        (folder / "memory.max_usage_in_bytes").write_text(str(LIMIT))
        fence.heed_alarm()
        assert sleeper.wait(30) == -signal.SIGKILL
    (folder / "cgroup.procs").write_text("")
    assert fence.end()
    fence.close()


def test_a_v1_cgroup_knows_whose_limit_killed(cgroups: Cgroups):
    cgroups.files = {**FILES_V1, "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"}
    for usage, exceeded in ((LIMIT - 3 * MIB, False), (LIMIT - MIB, True)):
        fence = build_fence(LIMIT, NAME, cgroups.records, [Mechanism("cgroup v1", cgroups.parent)])
        (cgroups.parent / f"runtimed-{NAME}" / "memory.max_usage_in_bytes").write_text(str(usage))
        assert fence.end() == exceeded
        fence.close()


def test_what_cannot_be_made_gives_way_to_the_next_and_leaves_nothing(
    cgroups: Cgroups, caplog: pytest.LogCaptureFixture
):
    cgroups.files = {"cgroup.procs": ""}  # neither what v2 nor what v1 needs
    shutil.rmtree(cgroups.parent)
    mechanisms = [Mechanism("cgroup v2", cgroups.parent), Mechanism("cgroup v1", cgroups.parent), RLIMIT]
    fence = build_fence(LIMIT, NAME, cgroups.records, mechanisms)
    assert isinstance(fence, DataLimit)
    assert fence.prefix == (sys.executable, "-I", "-S", WITHIN, "data", str(LIMIT + ALLOWANCE))
    assert list(cgroups.records.iterdir()) == []
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "the kernel gets no cgroup v2",
        "the kernel gets no cgroup v1",
    ]


def test_where_nothing_keeps_a_limit_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    fence = build_fence(LIMIT, NAME, tmp_path, [])
    assert type(fence) is Fence
    assert (fence.prefix, fence.end()) == ((), False)
    assert caplog.messages == [f"nothing on this machine can limit the kernel to {LIMIT} bytes"]


def test_nobody_elses_cgroup_is_touched(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch):
    for name in ("user.slice", f"runtimed-{NAME}-more", "runtimed-daemon"):
        (cgroups.parent / name).mkdir()
        (cgroups.parent / name / "cgroup.procs").write_text("")
        (cgroups.records / f"cgroup-{name}").write_text(str(cgroups.parent / name))
    assert clear_leftovers(cgroups.records)
    assert len(list(cgroups.parent.iterdir())) == 4


@pytest.mark.parametrize(("line", "refuge"), [("0::/{}", "runtimed-daemon"), ("4:memory:/{}", ".")])
def test_a_daemon_leaves_the_cgroup_of_the_kernel_that_started_it(machine: Machine, line: str, refuge: str):
    machine.mount(V2 if line.startswith("0") else V1.replace("@/memory", "@"))
    own = machine.cgroups / f"runtimed-{NAME}"
    for folder in (own, machine.cgroups / refuge):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.procs").write_text("")
    machine.in_cgroups(line.format("elsewhere"))
    leave_fence(machine.proc)
    assert (machine.cgroups / refuge / "cgroup.procs").read_text() == ""
    machine.in_cgroups(line.format(own.name))
    leave_fence(machine.proc)
    assert (machine.cgroups / refuge / "cgroup.procs").read_text() == "0"
    assert (own / "cgroup.procs").read_text() == ""


# --- the real thing ---------------------------------------------------------------------------------------------------


def cgroup_of(host: HostProcess, generation: int = 0) -> Path:
    (parent,) = (mechanism.parent for mechanism in HERE[:1])
    assert parent is not None
    return parent / f"runtimed-{host.bootstrap.epoch}-{generation}"


def members(cgroup: Path) -> set[int]:
    return {int(line) for line in (cgroup / "cgroup.procs").read_text().split()}


def processes_below(pid: int) -> set[int]:
    return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}


def kernel_pid(daemon: Daemon) -> int:
    return next(e.pid for e in reversed(daemon.events) if isinstance(e, KernelState) and e.pid is not None)


@needs_cgroup
@in_loop
async def test_a_kernel_over_its_limit_is_killed_and_the_limit_is_named(
    start_host: Callable[..., HostProcess],
) -> None:
    host = start_host(max_memory=LIMIT)
    daemon = await Daemon().attach(host)
    execution_id = await daemon.start(f"x = bytearray({2 * LIMIT})")
    died = await daemon.finished(execution_id)
    assert (died.status, died.message) == ("died", EXCEEDED)
    (failed,) = daemon.of(execution_id, Failed)
    assert (failed.ename, failed.evalue) == ("KernelDied", EXCEEDED)
    dead = await daemon.state("dead")
    assert (dead.reason, dead.signal, dead.expected) == (EXCEEDED, signal.SIGKILL, False)
    assert await host.ended() == 0
    assert not cgroup_of(host).exists()
    assert not list(host.folder.glob("cgroup-*"))


@needs_cgroup
@in_loop
async def test_what_a_kernel_starts_counts_and_ends_with_it(start_host: Callable[..., HostProcess]) -> None:
    host = start_host(max_memory=LIMIT)
    daemon = await Daemon().attach(host)
    code = f"""
import subprocess, sys
print(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid, flush=True)
subprocess.run([sys.executable, "-c", "x = bytearray({2 * LIMIT})"], start_new_session=True)
"""
    execution_id = await daemon.start(code)
    assert (await daemon.finished(execution_id)).message == EXCEEDED
    assert not is_running(int(daemon.text(execution_id)))
    assert await host.ended() == 0
    assert not cgroup_of(host).exists()


@needs_cgroup
@in_loop
async def test_the_first_instruction_runs_inside_and_the_host_stays_outside(
    start_host: Callable[..., HostProcess], root: Path
) -> None:
    wrapper = root / "python"
    wrapper.write_text(f'#!/bin/sh\ncat /proc/self/cgroup > {root}/first\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    host = start_host(max_memory=LIMIT, interpreter=str(wrapper))
    daemon = await Daemon().attach(host)
    state = await daemon.state("idle")
    assert cgroup_of(host).name in (root / "first").read_text()
    assert state.pid is not None
    assert members(cgroup_of(host)) == processes_below(state.pid)
    assert host.process.pid not in members(cgroup_of(host))
    # As without a limit: one process, the host's child, the leader of its group.
    code = "import os; print(os.getpid(), os.getppid(), os.getpgrp())"
    seen = daemon.text((await daemon.run(code))[0].execution_id)
    assert seen == f"{state.pid} {host.process.pid} {state.pid}\n"


@needs_cgroup
@in_loop
async def test_a_restarted_kernel_has_a_fresh_cgroup(start_host: Callable[..., HostProcess]) -> None:
    host = start_host(max_memory=LIMIT)
    daemon = await Daemon().attach(host)
    await daemon.run("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
    before = members(cgroup_of(host))
    await daemon.ask(HostRestart())
    assert not cgroup_of(host).exists()
    assert not any(map(is_running, before))
    assert members(cgroup_of(host, 1)) == processes_below(kernel_pid(daemon))
    await daemon.ask(HostShutdown())
    assert (await daemon.state("dead", 1)).expected
    assert await host.ended() == 0
    assert not cgroup_of(host, 1).exists()


@needs_cgroup
@in_loop
async def test_a_kernel_killed_by_somebody_is_not_blamed_on_its_limit(start_host: Callable[..., HostProcess]) -> None:
    host = start_host(max_memory=LIMIT)
    daemon = await Daemon().attach(host)
    await daemon.state("idle")
    os.kill(kernel_pid(daemon), signal.SIGKILL)
    dead = await daemon.state("dead")
    assert (dead.reason, dead.signal) == (
        "The kernel died (killed by SIGKILL, perhaps because memory ran out)",
        signal.SIGKILL,
    )


@needs_cgroup
@in_loop
async def test_detached_children_die_with_a_host_that_is_killed(start_host: Callable[..., HostProcess]) -> None:
    host = start_host(max_memory=LIMIT)
    daemon = await Daemon().attach(host)
    await daemon.run("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
    inside = members(cgroup_of(host))
    host.process.kill()
    await eventually(lambda: not any(map(is_running, inside)), 5)
    await eventually(lambda: not cgroup_of(host).exists(), 5)


@needs_cgroup
@in_loop
async def test_what_host_and_guard_leave_when_both_are_killed_can_be_cleared(
    start_host: Callable[..., HostProcess],
) -> None:
    host = start_host(max_memory=LIMIT)
    daemon = await Daemon().attach(host)
    await daemon.run("import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)")
    inside = members(cgroup_of(host))
    host.process.send_signal(signal.SIGSTOP)  # so that it does not replace the guard
    for child in psutil.Process(host.process.pid).children():
        if child.name() in {"sh", "dash", "bash"}:
            child.kill()
    host.process.kill()
    host.process.wait()
    assert clear_leftovers(host.folder)
    await eventually(lambda: not any(map(is_running, inside)), 5)
    assert not cgroup_of(host).exists()
    assert clear_leftovers(host.folder)


def test_what_is_left_in_a_real_cgroup_is_ended(tmp_path: Path):
    """Cgroups of any kind serve, so that `cgroup.kill` of v2 is tested where the memory controller is v1's."""
    of_this_process = memory._own_cgroups(Path("/proc/self"))  # noqa: SLF001  # as the host finds them
    hierarchies = [own for _, own, _ in of_this_process if os.access(own, os.W_OK)]
    if not hierarchies:
        pytest.skip("no cgroup can be made on this machine")
    for own in hierarchies:
        folder = own / f"runtimed-{uuid.uuid4().hex}-0"
        folder.mkdir()
        (tmp_path / "cgroup-0").write_text(str(folder))
        prefix = (sys.executable, "-I", "-S", WITHIN, "cgroup", f"{folder}/cgroup.procs")
        command = ["sh", "-c", "setsid sleep 1000 & echo $!; exec sleep 1000"]
        with subprocess.Popen([*prefix, *command], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            child = int(process.stdout.readline())
            assert members(folder) == {process.pid, child}
            assert clear_leftovers(tmp_path)
            assert process.wait(10) == -signal.SIGKILL
        assert not folder.exists()
        assert not is_running(child)


@needs_linux
@in_loop
async def test_with_rlimit_a_python_kernel_raises_memory_error_and_lives_on(
    start_host: Callable[..., HostProcess], root: Path
) -> None:
    folder = root / "jupyter" / "kernels" / "limited"
    folder.mkdir(parents=True)
    launch = str(Path(WITHIN).with_name("launch.py"))
    argv = [*DataLimit(256 * MIB).prefix, sys.executable, launch, "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "L", "language": "python"}))
    environment = {**client_environment(), "JUPYTER_PATH": str(root / "jupyter")}
    host = start_host(env_source="kernelspec:limited", environment=environment)
    daemon = await Daemon().attach(host)
    (failed,) = (e for e in await daemon.run(f"x = bytearray({256 * MIB + ALLOWANCE})") if isinstance(e, Failed))
    assert failed.ename == "MemoryError"
    assert (await daemon.run("x = bytearray(200 * 2**20)"))[-1].status == "ok"


@needs_linux
def test_the_limit_changes_nothing_that_the_kernel_is_given():
    environment = {"LANG": "C", "A": "b=c", "BASH_FUNC_module%%": "() { :\n}", "PATH": "/bin:/usr/bin"}
    command = ["sh", "-c", "cat /proc/self/environ; grep SigIgn /proc/self/status"]
    plain = subprocess.run(command, env=environment, capture_output=True, check=True)
    within = subprocess.run([*DataLimit(LIMIT).prefix, *command], env=environment, capture_output=True, check=True)
    assert within.stdout == plain.stdout


@needs_linux
def test_a_kernel_that_cannot_be_started_within_its_limit_says_why(tmp_path: Path):
    for how, limit, command, reason in (
        ("data", "1000000000", "/no/such/kernel", "No such file or directory: '/no/such/kernel'"),
        ("cgroup", f"{tmp_path}/gone/cgroup.procs", "true", f"No such file or directory: '{tmp_path}/gone"),
    ):
        done = subprocess.run(
            [sys.executable, "-I", "-S", WITHIN, how, limit, command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 126
        assert done.stderr.startswith(f"{command} cannot be started within its memory limit: [Errno 2] {reason}")
