"""`runtimed doctor`: checks this installation and says how to fix it. It changes and starts nothing."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import psutil
from packaging.requirements import Requirement
from rich.text import Text

from runtimed.browser.chromium import sandbox_problem
from runtimed.browser.find import find_chromium
from runtimed.cli.as_json import print_json
from runtimed.cli.exits import Exit
from runtimed.cli.printing import open_console
from runtimed.client import Client
from runtimed.display import readable_size
from runtimed.environments.uv_program import find_uv
from runtimed.errors import BrowserUnavailable, RuntimedError
from runtimed.host.memory import Mechanism, find_mechanisms
from runtimed.host.process import find_deno
from runtimed.settings import MAX_SOCKET_PATH, Settings, read_settings
from runtimed.storage.aside import list_aside
from runtimed.texts import printable
from runtimed.version import __version__, version_note

__all__ = ["Check", "doctor", "examine"]

Verdict = Literal["ok", "warn", "fail"]

LOCAL_SPACE: Final = 200 * 2**20
"""Free space on the data folder's disk below which there is a warning, in bytes."""

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        *("9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.sshfs", "gpfs", "lustre", "nfs", "nfs4"),
        *("smb3", "smbfs", "webdav"),
    }
)
"""File systems on which SQLite's write-ahead log or Unix sockets fail."""

LONGEST_SOCKET_NAME: Final = 24
"""Bytes that a host's folder and socket add to the path of the sockets' folder."""

_STYLES: Final[dict[Verdict, str]] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check.

    Attributes:
        name: The subject.
        verdict: `fail` if runtimed cannot work, `warn` if a part of it cannot.
        found: The finding.
        advice: How to fix it; empty if nothing is wrong.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def doctor(arguments: argparse.Namespace) -> int:
    """Print every check; fail if one does."""
    checks = examine(read_settings())
    if arguments.json:
        print_json(checks)
    else:
        width = max(len(check.name) for check in checks)
        console = open_console()
        for check in checks:
            line = Text(f"{check.verdict:<4}", style=_STYLES[check.verdict])
            line.append(f"  {check.name:<{width}}  {printable(check.found)}", style="default not bold")
            console.print(line, soft_wrap=True)
            if check.advice:
                console.print(Text(f"{'':<{width + 8}}→ {printable(check.advice)}", style="italic"), soft_wrap=True)
    return Exit.FAILED if any(check.verdict == "fail" for check in checks) else Exit.OK


def examine(settings: Settings) -> list[Check]:
    """Run all checks, in an order in which the first failure explains the later ones."""
    examinations: list[Callable[[Settings], Iterator[Check]]] = [
        _python,
        _packages,
        _data_folder,
        _damaged,
        _socket_path,
        _daemon,
        _environments,
        _deno,
        _browser,
    ]
    return [check for examination in examinations for check in examination(settings)]


def _python(settings: Settings) -> Iterator[Check]:
    del settings
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check(name="runtimed", verdict="ok", found=f"{__version__}, Python {version} at {sys.executable}")
    if sys.platform not in ("linux", "darwin"):
        yield Check(
            name="system",
            verdict="fail",
            found=f"{sys.platform} has no Unix sockets as runtimed needs them",
            advice="use Linux or macOS; on Windows, WSL 2",
        )


def _packages(settings: Settings) -> Iterator[Check]:
    del settings
    yield _package("documents", "automerge==0.2.0.dev4", "this interpreter cannot run the daemon")
    yield _package("kernels", "ipykernel>=7", "this interpreter cannot be a kernel's")
    yield _package("magics", "ipython>=9", "%load_ext runtimed cannot work")
    jupyter = {name: _version(name) for name in ("jupyterlab", "notebook", "jupyter_server")}
    present = [f"{name} {version}" for name, version in jupyter.items() if version is not None]
    if present:
        yield Check(name="jupyter", verdict="ok", found=", ".join(present))
    else:
        yield Check(
            name="jupyter",
            verdict="warn",
            found="no Jupyter in this environment; scripts, agents and IPython work without it",
            advice=f"for notebooks: {sys.executable} -m pip install jupyterlab",
        )


def _package(name: str, needed: str, consequence: str) -> Check:
    requirement = Requirement(needed)
    version = _version(requirement.name)
    if version is not None and requirement.specifier.contains(version, prereleases=True):
        return Check(name=name, verdict="ok", found=f"{requirement.name} {version}")
    return Check(
        name=name,
        verdict="fail",
        found=f"{requirement.name} {version or 'is missing'}: {consequence}",
        advice=f"{sys.executable} -m pip install '{needed}'",
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _data_folder(settings: Settings) -> Iterator[Check]:
    folder = settings.data_dir
    yield _private(folder, "data folder", "name another place with RUNTIMED_DATA_DIR")
    place = next(place for place in (folder, *folder.parents) if place.exists())
    kind = _file_system(place)
    if kind in NETWORK_FILE_SYSTEMS:
        yield Check(
            name="disk",
            verdict="fail",
            found=f"{place} is on a network file system ({kind}), on which SQLite's write-ahead log and sockets fail",
            advice="name a folder on a local disk with RUNTIMED_DATA_DIR",
        )
        return
    free = shutil.disk_usage(place).free
    yield Check(
        name="disk",
        verdict="ok" if free >= LOCAL_SPACE else "warn",
        found=f"local ({kind or 'unknown file system'}), {free / 2**30:.1f} GiB free",
        advice="" if free >= LOCAL_SPACE else "outputs are kept on disk: make room, or name another RUNTIMED_DATA_DIR",
    )


def _damaged(settings: Settings) -> Iterator[Check]:
    """Name what a daemon has set aside, which users would not notice otherwise."""
    for one in list_aside(settings.data_dir):
        yield Check(name="damaged", verdict="warn", found=one.found, advice=one.advice)


def _private(folder: Path, name: str, elsewhere: str) -> Check:
    """Check a folder as the daemon does when it starts.

    Args:
        folder: Its path.
        name: Its purpose.
        elsewhere: The advice if this path cannot be used.
    """
    try:
        info = folder.lstat()
    except FileNotFoundError:
        place = next(place for place in folder.parents if place.exists())
        if os.access(place, os.W_OK | os.X_OK):
            return Check(name=name, verdict="ok", found=f"{folder} is created at the first start of the daemon")
        return Check(
            name=name,
            verdict="fail",
            found=f"{folder} cannot be created: you may not write to {place}",
            advice=elsewhere,
        )
    except OSError as exc:
        return Check(name=name, verdict="fail", found=f"{folder}: {exc.strerror}", advice=elsewhere)
    mode = stat.S_IMODE(info.st_mode)
    trouble, advice = "", ""
    if not stat.S_ISDIR(info.st_mode):
        trouble, advice = "is not a folder (or a link to one)", "move it away"
    elif info.st_uid != os.getuid():
        trouble, advice = f"belongs to user {info.st_uid}", elsewhere
    elif mode & 0o077:
        # Never for a folder that is meant to be shared, such as /tmp.
        shared = mode & stat.S_ISVTX
        trouble, advice = f"has mode {mode:04o}: others may enter it", elsewhere if shared else f"chmod 700 {folder}"
    elif open_place := _open_place(folder):
        return Check(
            name=name,
            verdict="warn",
            found=f"{folder} is yours, but everybody may write to {open_place} and put another folder in its place",
            advice=f"chmod o-w {open_place}, or {elsewhere}",
        )
    return Check(
        name=name,
        verdict="fail" if trouble else "ok",
        found=f"{folder} {trouble or f'is yours alone (mode {mode:04o})'}",
        advice=advice,
    )


def _open_place(folder: Path) -> Path | None:
    """Return an ancestor folder in which every user may rename others' files."""
    for place in folder.parents:
        mode = place.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return place
    return None


def _file_system(place: Path) -> str | None:
    """Return the type of a path's file system; None if the system does not say."""
    place = place.resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[part] for part in (place, *place.parents) if part in mounts), None)


def _socket_path(settings: Settings) -> Iterator[Check]:
    longest = max(len(os.fsencode(settings.socket_path)), len(os.fsencode(settings.hosts_dir)) + LONGEST_SOCKET_NAME)
    fits = longest <= MAX_SOCKET_PATH
    yield Check(
        name="socket path",
        verdict="ok" if fits else "fail",
        found=f"{settings.socket_path}: the longest socket path has {longest} bytes; the limit is {MAX_SOCKET_PATH}",
        advice="" if fits else "name a shorter one with RUNTIMED_SOCKET_PATH or RUNTIMED_DATA_DIR",
    )
    if settings.socket_path.parent != settings.data_dir:
        yield _private(
            settings.socket_path.parent,
            "socket folder",
            "name a socket in a folder of your own (mode 0700) with RUNTIMED_SOCKET_PATH",
        )


def _daemon(settings: Settings) -> Iterator[Check]:
    try:
        status = Client(label="runtimed doctor").status()
    except (RuntimedError, OSError) as exc:
        yield Check(
            name="daemon",
            verdict="fail",
            found=str(exc),
            advice="`runtimed restart` replaces it while kernels live on; `runtimed logs` may say more",
        )
        return
    if status is None:
        yield Check(name="daemon", verdict="ok", found="not running; the first `connect()` starts it")
        yield _memory(settings.limits.max_kernel_memory, find_mechanisms())
        return
    yield Check(name="daemon", verdict="ok", found=f"{status.version}, pid {status.pid}, {status.sessions} sessions")
    note = version_note(status.version)
    if note is not None:
        found, _, advice = note.partition(": ")
        yield Check(name="version", verdict="warn", found=found, advice=advice)
    for problem in status.problems:
        yield Check(name="problem", verdict="warn", found=problem, advice="`runtimed logs` may say more")
    yield _who_can_reach(settings, status.pid)
    yield from _who_can_reach_browsers()
    # A daemon makes cgroups at its own place, which may be elsewhere.
    yield _memory(status.limits["max_kernel_memory"], find_mechanisms(status.pid))


def _memory(limit: int | None, mechanisms: Sequence[Mechanism]) -> Check:
    """Report how the memory limit of kernels is enforced, or would be.

    Args:
        limit: In bytes.
        mechanisms: The available mechanisms, the best first.
    """
    asked = "kernels have no limit" if limit is None else f"at most {readable_size(limit)} for each kernel"
    best = next(iter(mechanisms), None)
    if best is None:
        found, advice = (
            "this system enforces no limit",
            "macOS has no such limit; leave the variable unset, or use Linux",
        )
    elif best.parent is None:
        found = f"{best.kind} limits each process by itself: no cgroup can be made here"
        advice = "under systemd, `systemd-run --user --scope runtimed restart` gives the daemon a cgroup"
    else:
        found, advice = f"{best.kind} limits a kernel with all it starts, in {best.parent}", ""
    return Check(
        name="memory",
        verdict="warn" if limit is not None and advice else "ok",
        found=f"{asked}; {found}",
        advice=advice if limit is not None else "",
    )


def _who_can_reach(settings: Settings, pid: int) -> Check:
    name = "access"
    info = settings.socket_path.stat()
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.getuid() or mode & 0o077:
        return Check(
            name=name,
            verdict="fail",
            found=f"{settings.socket_path} (mode {mode:04o}, user {info.st_uid}): others reach the daemon",
            advice="runtimed restart",
        )
    ports = sorted(_tcp_ports(pid))
    if ports:
        return Check(
            name=name,
            verdict="warn",
            found=f"a socket of mode {mode:04o}, for you alone, and TCP ports: {', '.join(map(str, ports))}",
            advice="a daemon needs no TCP port; `runtimed restart`, and report this",
        )
    return Check(
        name=name,
        verdict="ok",
        found=f"only you, through a Unix socket of mode {mode:04o}; the daemon has no TCP port",
    )


def _who_can_reach_browsers() -> Iterator[Check]:
    """Report the ports on which browser sessions listen, and who can reach them."""
    for session in Client(label="runtimed doctor").sessions.list(status="active", kind="browser"):
        try:
            host = psutil.Process(session.host_pid)
            behind = sorted({port for child in host.children(recursive=True) for port in _tcp_ports(child.pid)})
        except (psutil.Error, ValueError):
            continue  # it is just starting or ending
        doors = ", ".join(map(str, sorted(_tcp_ports(host.pid)))) or "none"
        yield Check(
            name="browser ports",
            verdict="ok",
            found=(
                f"{session.session_id}: {doors} on loopback, with a token; Chromium's own, "
                f"{', '.join(map(str, behind)) or 'none'} on loopback, for every user of this machine"
            ),
        )


def _tcp_ports(pid: int) -> set[int]:
    """Return the TCP ports on which a process listens."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return set()
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


def _environments(settings: Settings) -> Iterator[Check]:
    del settings
    uv = find_uv()
    yield Check(
        name="uv",
        verdict="ok" if uv else "warn",
        found=uv or "not found; dependencies of notebooks and projects cannot be installed",
        advice="" if uv else "pip install 'ipython-runtimed[uv]'",
    )
    rattler = _version("py-rattler")
    yield Check(
        name="conda",
        verdict="ok" if rattler else "warn",
        found=f"py-rattler {rattler}" if rattler else "no py-rattler; only conda environments need it",
        advice="" if rattler else "pip install 'ipython-runtimed[conda]'",
    )


def _deno(settings: Settings) -> Iterator[Check]:
    del settings
    found = find_deno(os.environ.get("PATH", ""), sys.executable)
    yield Check(
        name="deno",
        verdict="ok" if found else "warn",
        found=found or "not found; only TypeScript kernels need it",
        advice="" if found else "pip install 'ipython-runtimed[deno]'",
    )


def _browser(settings: Settings) -> Iterator[Check]:
    del settings
    version = _version("playwright")
    if version is None:
        yield Check(
            name="browser",
            verdict="warn",
            found="playwright is missing; only browser sessions need it",
            advice="pip install 'ipython-runtimed[browser]'",
        )
    else:
        yield Check(
            name="browser",
            verdict="ok",
            found=f"playwright {version}; each browser session listens on loopback, behind a token",
        )
    try:
        chromium = find_chromium()
    except BrowserUnavailable as exc:
        yield Check(
            name="chromium",
            verdict="warn",
            found="not found; only browser sessions need it" if exc.program is None else exc.message,
            advice=(
                "Debian, Ubuntu: apt-get install chromium; macOS: brew install --cask chromium; anywhere: python -m "
                "playwright install chromium; or name one with RUNTIMED_CHROMIUM"
            ),
        )
        return
    yield Check(name="chromium", verdict="ok", found=f"{chromium.program} (found through {chromium.why})")
    problem = sandbox_problem()
    yield Check(
        name="sandbox",
        verdict="ok" if problem is None else "warn",
        found="Chromium's sandbox is on" if problem is None else f"Chromium's sandbox is off: {problem}",
        advice="" if problem is None else "until then, open only pages that you trust",
    )
