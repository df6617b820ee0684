"""The commands for the daemon itself: `start`, `restart`, `status`."""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path
from typing import Final

import psutil

from runtimed.cli.as_json import jsonable, print_json
from runtimed.cli.exits import Exit
from runtimed.cli.listing import unused_kernels
from runtimed.cli.printing import ago, complain, print_table, say
from runtimed.cli.processes import wait_for_end
from runtimed.client import Client
from runtimed.display import readable_size
from runtimed.errors import DaemonUnavailable, ProtocolError, RuntimedError
from runtimed.models import DaemonStatus
from runtimed.settings import Settings, read_settings
from runtimed.transport.autostart import connect_socket, daemon_answers, ensure_daemon
from runtimed.transport.sockets import peer_credentials
from runtimed.version import __version__, version_note

__all__ = ["end_daemon", "no_daemon", "restart", "start", "status"]

END_DEADLINE: Final = 20.0
"""Seconds within which a daemon must end after it agreed to."""

TERM_DEADLINE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL for a daemon that does not answer."""


def start(arguments: argparse.Namespace) -> int:
    """Start a daemon unless one runs."""
    del arguments
    settings = read_settings()
    ran = daemon_answers(settings)
    ensure_daemon(settings)
    say(f"{_who(_status())}{' already' if ran else ''}, listening on {settings.socket_path}")
    return Exit.OK


def restart(arguments: argparse.Namespace) -> int:
    """Replace the daemon; kernels live on."""
    del arguments
    settings = read_settings()
    old = end_daemon(settings, keep_kernels=True) if daemon_answers(settings) else None
    ensure_daemon(settings)
    new = _status()
    before = "none ran before" if old is None else f"it replaces pid {old}"
    say(f"{_who(new)}, {before}; active sessions: {new.sessions}")
    return Exit.OK


def status(arguments: argparse.Namespace) -> int:
    """Print whether a daemon runs, and its status."""
    settings = read_settings()
    if not daemon_answers(settings):
        if arguments.json:
            print_json({"running": False, "socket_path": str(settings.socket_path), "data_dir": str(settings.data_dir)})
            return Exit.NO_DAEMON
        return no_daemon(settings.socket_path)
    found = _status()
    unused = unused_kernels(list(Client(label="runtimed").sessions.iter("active")))
    if arguments.json:
        ids = [one.session_id for one in unused]
        print_json({"running": True, **jsonable(found), "client_version": __version__, "unused_kernels": ids})
        return Exit.OK
    print_table(
        ["daemon", f"pid {found.pid}"],
        [
            ["version", found.version],
            *([["note", note]] if (note := version_note(found.version)) is not None else []),
            ["started", ago(found.started_at)],
            ["sessions", f"{found.sessions} active"],
            ["clients", f"{found.peers - 1} besides this command"],
            ["spare kernels", _spares(found, browsers=False)],
            ["spare browsers", _spares(found, browsers=True)],
            ["socket", found.socket_path],
            ["data", found.data_dir],
            *([name.replace("_", " "), _limit(name, value)] for name, value in found.limits.items()),
            *(["unused kernel", f"{one.session_id!r}, since {ago(one.last_accessed_at)}"] for one in unused),
            *(["problem", sentence] for sentence in found.problems),
        ],
    )
    return Exit.OK


def no_daemon(path: Path) -> int:
    """Complain that no daemon runs; return the exit code for that."""
    complain(f"No daemon is listening on {path}. `runtimed start` starts it; so does every command that needs it")
    return Exit.NO_DAEMON


def _status() -> DaemonStatus:
    found = Client(label="runtimed").status()
    if found is None:
        raise DaemonUnavailable("The daemon has just ended; `runtimed logs` may say why")
    return found


def _limit(name: str, value: float | str | None) -> str:
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if name.endswith(("_bytes", "_memory")):
        return readable_size(int(value))
    unit = {"max_request_rate": " a second", "idle_exit": " s"}.get(name, "")
    return f"{value:,.10g}{unit}"


def _spares(found: DaemonStatus, *, browsers: bool) -> str:
    counted = {name: number for name, number in found.pool.items() if name.startswith("browser_") == browsers}
    ready, warming = (
        sum(number for name, number in counted.items() if name.endswith(end)) for end in ("_available", "_warming")
    )
    return f"{ready} ready, {warming} being made"


def _who(found: DaemonStatus) -> str:
    return f"runtimed {found.version} runs (pid {found.pid})"


def end_daemon(settings: Settings, *, keep_kernels: bool) -> int | None:
    """End the listening daemon, and return its pid once it is gone: its data folder is free then.

    A daemon that hangs or speaks another version of the protocol cannot be asked; its process is ended instead. That is
    harmless: hosts and kernels live on for the next daemon.
    """
    process = _process(settings)
    if process is None:
        return None
    try:
        Client(label="runtimed").shutdown(keep_kernels)
    except (DaemonUnavailable, ProtocolError) as exc:
        complain(f"The daemon cannot be asked to end: {exc.message}. Ending process {process.pid} instead")
        _kill(process, settings)
        if not keep_kernels:
            # Only a daemon can end sessions.
            ensure_daemon(settings)
            end_daemon(settings, keep_kernels=False)
    if not wait_for_end(process, END_DEADLINE):
        raise RuntimedError(
            f"The daemon (pid {process.pid}) said that it ends and has not after {END_DEADLINE:g} s; its log is "
            f"{settings.log_path}",
            pid=process.pid,
        )
    return process.pid


def _process(settings: Settings) -> psutil.Process | None:
    pid = _listener(settings)
    if pid == 0:
        raise DaemonUnavailable("The daemon runs in another container; stop it from there")
    try:
        return None if pid is None else psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _listener(settings: Settings) -> int | None:
    """Return the pid of the listening process; None if there is none, 0 if it is in another pid namespace."""
    sock = connect_socket(settings.socket_path)
    if sock is None:
        return None
    with sock:
        return peer_credentials(sock).pid or 0


def _kill(process: psutil.Process, settings: Settings) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
        if not wait_for_end(process, TERM_DEADLINE):
            process.kill()
            wait_for_end(process, END_DEADLINE)
    # The system closes a dead process's io_uring, and the socket in it, some milliseconds later: until then the socket
    # takes connections, and whoever wants to know whether a daemon is needed would be told no.
    deadline = time.monotonic() + END_DEADLINE
    while _listener(settings) == process.pid and time.monotonic() < deadline:
        time.sleep(0.02)
