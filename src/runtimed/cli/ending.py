"""The commands that end things: `stop`, `interrupt`, `delete`, `prune`. They ask before work is lost."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from runtimed.cli.as_json import print_json
from runtimed.cli.daemon import end_daemon
from runtimed.cli.exits import Exit
from runtimed.cli.listing import ending, unused_kernels
from runtimed.cli.printing import ago, complain, confirm, print_table, say
from runtimed.cli.reach import find_session, reach
from runtimed.client import Client
from runtimed.errors import DaemonUnavailable, ProtocolError, SessionError, SessionNotFound
from runtimed.models import SessionStatus
from runtimed.settings import read_settings
from runtimed.transport.autostart import daemon_answers, ensure_daemon

__all__ = ["delete", "interrupt", "prune", "stop"]


def stop(arguments: argparse.Namespace) -> int:
    """End a session, or the daemon with its sessions unless `--keep-kernels` says otherwise."""
    if arguments.id is None:
        return _stop_daemon(keep_kernels=arguments.keep_kernels, yes=arguments.yes)
    if arguments.keep_kernels:
        complain("--keep-kernels goes with stopping the daemon; the kernel of a session ends with the session")
        return Exit.USAGE
    client = reach("stop")
    before = find_session(client, arguments.id)
    if not _may_end([before] if _is_busy(before) else [], yes=arguments.yes):
        return Exit.FAILED
    client.sessions.stop(before.session_id)
    what = "is closed" if before.status == "active" else f"had ended before: {ending(before)}"
    rest = "Its cells and outputs stay readable"
    if before.kind == "browser":
        rest = f"`runtimed replay {before.session_id} --list` shows what was done in it"
    say(f"The session {before.session_id!r} {what}. {rest}")
    return Exit.OK


def _stop_daemon(*, keep_kernels: bool, yes: bool) -> int:
    settings = read_settings()
    if not daemon_answers(settings):
        say(f"No daemon is listening on {settings.socket_path}; nothing to stop")
        return Exit.OK
    if not keep_kernels and not yes:
        try:
            active = list(Client(label="runtimed stop").sessions.iter("active"))
        except (DaemonUnavailable, ProtocolError):
            # A daemon that does not answer is replaced, which is harmless: the next one knows its kernels.
            end_daemon(settings, keep_kernels=True)
            ensure_daemon(settings)
            active = list(Client(label="runtimed stop").sessions.iter("active"))
        if not _may_end([session for session in active if _is_busy(session)], yes=False):
            return Exit.FAILED
    sessions = "its sessions live on" if keep_kernels else "its sessions are ended"
    say(f"The daemon (pid {end_daemon(settings, keep_kernels=keep_kernels)}) is gone, {sessions}")
    return Exit.OK


def interrupt(arguments: argparse.Namespace) -> int:
    """Interrupt a session's running code."""
    client = reach("interrupt")
    found = find_session(client, arguments.id)
    with client.Session(found.session_id) as session:
        session.interrupt()
    what = "Interrupted" if found.kernel_status == "busy" else "Nothing runs in"
    say(f"{what} the session {found.session_id!r}")
    return Exit.OK


def delete(arguments: argparse.Namespace) -> int:
    """Delete a session with its data."""
    client = reach("delete")
    found = find_session(client, arguments.id)
    name = repr(found.session_id)
    if found.status == "active" and not arguments.stop:
        complain(f"The session {name} is active; --stop ends it first, with its running code")
        return Exit.FAILED
    how = f"it is {'busy' if _is_busy(found) else 'active'}" if found.status == "active" else f"{ending(found)}"
    asked = f"Delete the session {name} ({how}, last used {ago(found.last_accessed_at)}) with all of its data?"
    if not confirm(asked, yes=arguments.yes):
        return Exit.FAILED
    if found.status == "active":
        client.sessions.stop(found.session_id)
    client.sessions.delete(found.session_id)
    say(f"The session {name} is deleted")
    return Exit.OK


def prune(arguments: argparse.Namespace) -> int:
    """Delete the sessions that ended long ago; name the unused kernels."""
    client = reach("prune")
    sessions = list(client.sessions)
    before = datetime.now(UTC) - timedelta(days=min(arguments.older_than, 36500))
    old = [session for session in sessions if session.status != "active" and _last_use(session) <= before]
    unused = unused_kernels(sessions)
    deleted: list[str] = []
    agreed = True
    if not arguments.json:
        _show(old, unused)
    if old and not arguments.dry_run:
        what = f"{len(old)} session{'s' if len(old) > 1 else ''}"
        agreed = confirm(f"Delete {what} with all of {'their' if len(old) > 1 else 'its'} data?", yes=arguments.yes)
        if agreed:
            deleted = _delete_all(client, old)
    if arguments.json:
        print_json(
            {
                "deleted": deleted,
                "would_delete": [one.session_id for one in old] if arguments.dry_run else [],
                "unused_kernels": [one.session_id for one in unused],
            }
        )
    elif deleted:
        say(f"Deleted {len(deleted)} of {len(old)}")
    return Exit.OK if agreed and (arguments.dry_run or len(deleted) == len(old)) else Exit.FAILED


def _show(old: list[SessionStatus], unused: list[SessionStatus]) -> None:
    if old:
        print_table(
            ["SESSION", "STATUS", "LAST USED", "LABEL"],
            [[one.session_id, ending(one), ago(_last_use(one)), one.label or ""] for one in old],
            ids=["SESSION"],
        )
    else:
        say("No ended session is that old")
    for one in unused:
        say(
            f"The kernel of {one.session_id!r} (pid {one.kernel_pid}) was last used {ago(one.last_accessed_at)} and "
            f"runs on; `runtimed stop` and its id end it"
        )


def _delete_all(client: Client, old: list[SessionStatus]) -> list[str]:
    deleted = []
    for one in old:
        try:
            client.sessions.delete(one.session_id)
        except SessionNotFound:
            continue
        except SessionError as exc:  # started again meanwhile
            complain(exc.message)
        else:
            deleted.append(one.session_id)
    return deleted


def _is_busy(session: SessionStatus) -> bool:
    return session.status == "active" and session.kernel_status in ("busy", "starting", "restarting")


def _may_end(busy: list[SessionStatus], *, yes: bool) -> bool:
    if not busy:
        return True
    names = ", ".join(repr(one.session_id) for one in busy)
    one = len(busy) == 1
    return confirm(f"{names} {'is' if one else 'are'} busy. End {'it' if one else 'them'} all the same?", yes=yes)


def _last_use(session: SessionStatus) -> datetime:
    return max(session.last_accessed_at, session.closed_at or session.last_accessed_at)
