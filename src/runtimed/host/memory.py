"""Memory limits of kernels: how much memory is available, how this machine can limit it, and the fence of a kernel.

A cgroup limits a kernel and all its children together. Where none can be made, RLIMIT_DATA limits each process by
itself. `find_mechanisms` changes nothing, and only cgroups that were made here are touched.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

import psutil

__all__ = [
    "ALLOWANCE",
    "CgroupV1",
    "CgroupV2",
    "DataLimit",
    "Fence",
    "Mechanism",
    "available_memory",
    "build_fence",
    "clear_leftovers",
    "find_mechanisms",
    "leave_fence",
]

logger = logging.getLogger(__name__)

ALLOWANCE: Final = 512 * 2**20
"""Bytes that RLIMIT_DATA allows beyond the limit: it counts stacks and buffers that are reserved and not used, 90 MiB
of them in an idle kernel, 160 MiB after `import pandas` on two cores (measured)."""

_WITHIN: Final = Path(__file__).parent.parent / "kernel_launcher" / "within.py"
_NAME: Final = re.compile(r"runtimed-[0-9a-f]{32}-\d+")
_REFUGE: Final = "runtimed-daemon"
_RECORD: Final = "cgroup-"
_HUGE_PAGE: Final = 2 * 2**20
_END_DEADLINE: Final = 5.0
_END_PAUSE: Final = 0.005
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


# --- what the machine offers ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A way to limit the memory of kernels.

    Attributes:
        kind: Its name.
        parent: The cgroup in which each kernel gets one of its own; None for RLIMIT_DATA.
    """

    kind: Literal["cgroup v2", "cgroup v1", "RLIMIT_DATA"]
    parent: Path | None = None


def find_mechanisms(
    pid: int | Literal["self"] = "self", *, proc: Path = Path("/proc"), platform: str = sys.platform
) -> tuple[Mechanism, ...]:
    """Find the ways to limit the memory of what a process starts, the best one first.

    Args:
        pid: The process that would start kernels. Its cgroup decides where it may make cgroups.
        proc: Where the operating system describes processes.
        platform: As `sys.platform`.

    Returns:
        Nothing on macOS, which enforces no such limit.
    """
    if platform != "linux":
        return ()
    found: dict[str, Mechanism] = {}
    for kind, own, mountpoint in _own_cgroups(proc / str(pid)):
        parent = _v2_parent(own, mountpoint) if kind == "cgroup v2" else _v1_parent(own)
        if parent is not None:
            found[kind] = Mechanism(kind, parent)
    return (*(found[kind] for kind in ("cgroup v2", "cgroup v1") if kind in found), Mechanism("RLIMIT_DATA"))


def _own_cgroups(process: Path) -> Iterator[tuple[Literal["cgroup v2", "cgroup v1"], Path, Path]]:
    """Yield the cgroups that contain a process, and the mount points of their hierarchies."""
    try:
        mounts = list(_mounts((process / "mountinfo").read_text()))
        paths = dict(_own_paths((process / "cgroup").read_text()))
    except OSError as exc:
        logger.warning("the cgroup of %s is unknown: %s", process, exc)
        return
    for kind, root, mountpoint in mounts:
        if kind in paths and PurePosixPath(paths[kind]).is_relative_to(root):
            yield kind, mountpoint / PurePosixPath(paths[kind]).relative_to(root), mountpoint


def _mounts(mountinfo: str) -> Iterator[tuple[Literal["cgroup v2", "cgroup v1"], str, Path]]:
    """Yield kind, root and mount point of the cgroup file systems. Source: proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, details = before.split(), after.split()
        if len(fields) < 5 or len(details) < 3:
            continue
        root, mountpoint = (_OCTAL.sub(lambda match: chr(int(match[1], 8)), field) for field in fields[3:5])
        if details[0] == "cgroup2":
            yield "cgroup v2", root, Path(mountpoint)
        elif details[0] == "cgroup" and "memory" in details[2].split(","):
            yield "cgroup v1", root, Path(mountpoint)


def _own_paths(cgroup: str) -> Iterator[tuple[Literal["cgroup v2", "cgroup v1"], str]]:
    """Yield the path of a process in each hierarchy. Source: cgroups(7), /proc/pid/cgroup."""
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield "cgroup v2", path
        elif "memory" in controllers.split(","):
            yield "cgroup v1", path


def _v1_parent(own: Path) -> Path | None:
    return own if (own / "memory.limit_in_bytes").exists() and os.access(own, os.W_OK) else None


def _v2_parent(own: Path, mountpoint: Path) -> Path | None:
    """Return the nearest cgroup, from our own upwards, that may have children with a limit.

    A cgroup with processes of its own may not, except the root. To move a process, one must be able to write to the
    file of processes of the nearest common ancestor of both places, which is this cgroup. Source: cgroup-v2.rst of the
    Linux kernel, "No Internal Process Constraint" and "Delegation Containment".
    """
    for folder in (own, *own.parents):
        if os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK):
            with contextlib.suppress(OSError):
                if "memory" in (folder / "cgroup.subtree_control").read_text().split():
                    return folder
                is_offered = "memory" in (folder / "cgroup.controllers").read_text().split()
                is_topmost = not (folder / "cgroup.type").exists()
                if is_offered and (is_topmost or not (folder / "cgroup.procs").read_text().strip()):
                    return folder
        if folder == mountpoint:
            break
    return None


# --- how much there is ------------------------------------------------------------------------------------------------


def available_memory(*, proc: Path = Path("/proc")) -> int:
    """Return how many bytes this process and its children can still get: from the machine, or from its container.

    Args:
        proc: Where the operating system describes processes.
    """
    available: int = psutil.virtual_memory().available
    if not proc.exists():  # macOS has no cgroups
        return available
    for kind, own, mountpoint in _own_cgroups(proc / "self"):
        for folder in (own, *own.parents):
            available = min(available, _left_in(folder, kind, available))
            if folder == mountpoint:
                break
    return max(available, 0)


def _left_in(folder: Path, kind: Literal["cgroup v2", "cgroup v1"], unlimited: int) -> int:
    """Return what a cgroup's limit leaves. Cached files count as free: they are evicted before anything is refused."""
    limit, usage, cached = (
        ("memory.max", "memory.current", "inactive_file")
        if kind == "cgroup v2"
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return unlimited
        used = int((folder / usage).read_text()) - _counters(folder / "memory.stat").get(cached, 0)
        return int(most) - used
    except (OSError, ValueError):  # the root has no limit, and a cgroup out of sight has no files
        return unlimited


# --- fences -----------------------------------------------------------------------------------------------------------


class Fence:
    """What contains one kernel process and all its children. This one is open: it limits nothing.

    Attributes:
        prefix: Precedes the kernel's command, and puts the kernel into the fence before it runs.
        folder: The cgroup; None for none.
        alarm: A file descriptor that is readable when `heed_alarm` is to be called; None for none.
    """

    prefix: tuple[str, ...] = ()
    folder: Path | None = None
    alarm: int | None = None

    def heed_alarm(self) -> None:
        """Kill everything inside if the limit was exceeded."""

    def end(self) -> bool:
        """Kill what is left inside and remove the fence; waits some seconds at most.

        Returns:
            Whether the limit was exceeded, as far as that is known.
        """
        return False

    def close(self) -> None:
        """Close the alarm. Idempotent."""


class DataLimit(Fence):
    """RLIMIT_DATA, for each process by itself; a Python kernel that reaches it raises MemoryError and lives on.

    It counts private writable memory. RLIMIT_AS would count address space, of which V8 reserves more than 20 GiB
    without using it: Deno would not start (measured).
    """

    def __init__(self, limit: int) -> None:
        self.prefix = _prefix("data", limit + ALLOWANCE)


class _Cgroup(Fence):
    """A cgroup of its own.

    Args:
        folder: The cgroup, to be made.
        limit: In bytes, swap included.
        record: A file that names the cgroup while it exists.

    Raises:
        OSError: If the system refuses; nothing is left then.
    """

    def __init__(self, folder: Path, limit: int, record: Path) -> None:
        self.prefix = _prefix("cgroup", folder / "cgroup.procs")
        self.folder = self._folder = folder
        self._limit = limit
        self._record = record
        record.write_text(str(folder))
        try:
            self._allow_children(folder.parent)
            folder.mkdir()
            for name, value, is_needed in self._settings():
                if is_needed or (folder / name).exists():
                    (folder / name).write_text(str(value))
            self._arm()
        except OSError:
            self.close()
            self._remove()
            raise

    def _settings(self) -> Sequence[tuple[str, int, bool]]:
        """Return the files to write, in order, and whether each must exist."""
        raise NotImplementedError

    def _allow_children(self, parent: Path) -> None:
        """Allow the parent's children to have limits."""

    def _arm(self) -> None:
        """Have the system report an exceeded limit, if that is needed."""

    def _is_exceeded(self) -> bool:
        raise NotImplementedError

    def end(self) -> bool:
        """See `Fence.end`."""
        _empty(self._folder)
        try:
            is_exceeded = self._is_exceeded()
        except OSError as exc:
            logger.warning("whether the kernel exceeded its memory limit is unknown: %s", exc)
            is_exceeded = False
        self._remove()
        return is_exceeded

    def _remove(self) -> None:
        """Remove the cgroup, and then the record. `clear_leftovers` removes a cgroup that is not empty yet."""
        if _remove(self._folder):
            self._record.unlink(missing_ok=True)


class CgroupV2(_Cgroup):
    """In the unified hierarchy, where the system kills all processes when one of them exceeds the limit."""

    def _settings(self) -> Sequence[tuple[str, int, bool]]:
        return (("memory.max", self._limit, True), ("memory.swap.max", 0, False), ("memory.oom.group", 1, True))

    def _allow_children(self, parent: Path) -> None:
        control = parent / "cgroup.subtree_control"
        if "memory" not in control.read_text().split():
            control.write_text("+memory")

    def _is_exceeded(self) -> bool:
        # `oom` counts this limit alone; `oom_kill` also kills by an ancestor's limit or the machine's.
        events = _counters(self._folder / "memory.events")
        return events.get("oom", 0) > 0 and events.get("oom_kill", 0) > 0


class CgroupV1(_Cgroup):
    """In the hierarchy of the memory controller, where the system kills one process, and `heed_alarm` the others."""

    _control: int | None = None
    _rang = False

    def _settings(self) -> Sequence[tuple[str, int, bool]]:
        return (("memory.limit_in_bytes", self._limit, True), ("memory.memsw.limit_in_bytes", self._limit, False))

    def _arm(self) -> None:
        # Source: cgroup-v1/memory.rst of the Linux kernel, section 10, "OOM Control".
        self.alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._control = os.open(self._folder / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        (self._folder / "cgroup.event_control").write_text(f"{self.alarm} {self._control}")

    def heed_alarm(self) -> None:
        """See `Fence.heed_alarm`. An ancestor's limit and the removal of the cgroup raise the alarm, too."""
        if self.alarm is None:
            return
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.alarm)
        with contextlib.suppress(OSError):  # it is being removed
            if self._was_full():
                self._rang = True
                _kill(self._folder)

    def _is_exceeded(self) -> bool:
        killed = _counters(self._folder / "memory.oom_control").get("oom_kill", 0) > 0
        return (killed or self._rang) and self._was_full()

    def _was_full(self) -> bool:
        # memory.failcnt stays 0 if the limit with swap is the exceeded one (Linux 6.18, measured).
        return int((self._folder / "memory.max_usage_in_bytes").read_text()) > self._limit - _HUGE_PAGE

    def close(self) -> None:
        """See `Fence.close`."""
        for fd in (self.alarm, self._control):
            if fd is not None:
                os.close(fd)
        self.alarm = self._control = None


def build_fence(limit: int, name: str, records: Path, mechanisms: Sequence[Mechanism]) -> Fence:
    """Build a fence by the first mechanism that works; an open one, with a warning, if none does.

    Args:
        limit: In bytes, for the kernel and all its children together.
        name: The cgroup's name: the host's epoch and the kernel's generation.
        records: The host's folder, which notes the cgroup for `clear_leftovers`.
        mechanisms: As `find_mechanisms` returns them.
    """
    for mechanism in mechanisms:
        if mechanism.parent is None:
            logger.info("RLIMIT_DATA limits each process of the kernel to %d bytes", limit + ALLOWANCE)
            return DataLimit(limit)
        kind = CgroupV2 if mechanism.kind == "cgroup v2" else CgroupV1
        folder = mechanism.parent / f"runtimed-{name}"
        try:
            fence = kind(folder, limit, records / f"{_RECORD}{name}")
        except OSError as exc:
            logger.warning("the kernel gets no %s: %s", mechanism.kind, exc)
        else:
            logger.info("%s limits the kernel to %d bytes", folder, limit)
            return fence
    logger.warning("nothing on this machine can limit the kernel to %d bytes", limit)
    return Fence()


def _prefix(how: str, limit: Path | int) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(_WITHIN), how, str(limit))


# --- what is left of them ---------------------------------------------------------------------------------------------


def clear_leftovers(records: Path) -> bool:
    """Kill what a dead host has left in its kernel's cgroup, and remove the cgroup; waits some seconds at most.

    Args:
        records: The host's folder.

    Returns:
        Whether nothing is left.
    """
    is_clear = True
    for record in records.glob(f"{_RECORD}*"):
        folder = Path(record.read_text())
        if _NAME.fullmatch(folder.name) and (folder / "cgroup.procs").exists():
            logger.info("killing what is left in the cgroup %s", folder)
            _empty(folder)
            is_clear = _remove(folder) and is_clear
    return is_clear


def leave_fence(proc: Path = Path("/proc")) -> None:
    """Move this process out of a kernel's cgroup, if it is in one.

    For daemons: a client inside a kernel starts one if none answers, and that daemon must not end with the kernel.

    Args:
        proc: Where the operating system describes processes.
    """
    for kind, own, _ in _own_cgroups(proc / "self"):
        if not _NAME.fullmatch(own.name):
            continue
        # In v2 the parent may have no processes itself, see `_v2_parent`.
        refuge = own.parent if kind == "cgroup v1" else own.parent / _REFUGE
        try:
            refuge.mkdir(exist_ok=True)
            (refuge / "cgroup.procs").write_text("0")
        except OSError as exc:
            logger.warning("this process stays in the cgroup %s, and ends with that kernel: %s", own, exc)


# --- cgroups ----------------------------------------------------------------------------------------------------------


def _empty(folder: Path) -> None:
    """Kill everything in a cgroup, repeatedly until it is empty, for at most _END_DEADLINE seconds."""
    deadline = time.monotonic() + _END_DEADLINE
    while _kill(folder) and time.monotonic() < deadline:
        time.sleep(_END_PAUSE)


def _kill(folder: Path) -> bool:
    """Kill the processes in a cgroup; return whether there were any."""
    try:
        pids = [int(line) for line in (folder / "cgroup.procs").read_text().split()]
        if pids and (folder / "cgroup.kill").exists():  # Linux 5.14, v2 only
            (folder / "cgroup.kill").write_text("1")
            return True
    except OSError:  # it was removed
        return False
    for pid in pids:
        if pid > 0:  # 0 is a process in another pid namespace
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
    return bool(pids)


def _remove(folder: Path) -> bool:
    """Remove a cgroup; return whether it is gone."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as exc:
        logger.warning("the cgroup %s cannot be removed: %s", folder, exc)
        return False
    return True


def _counters(file: Path) -> dict[str, int]:
    """Read a file whose lines have a name and a number."""
    return {name: int(value) for name, value in (line.split() for line in file.read_text().splitlines())}
