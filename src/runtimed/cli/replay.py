"""The command `replay`: repeats the actions of a browser session in a new one. No model takes part."""

from __future__ import annotations

import argparse
import getpass
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from runtimed.actions import masked_secrets, repeatable
from runtimed.browser.recorded import restore
from runtimed.cli.as_json import print_json
from runtimed.cli.exits import Exit
from runtimed.cli.printing import complain, print_table, say
from runtimed.cli.reach import find_session, reach
from runtimed.client import BrowserSession, as_options
from runtimed.errors import BrowserError, InvalidAction, SessionError
from runtimed.pages import BrowserConfig, LogEntry
from runtimed.texts import client_name, printable

__all__ = ["replay"]


def replay(arguments: argparse.Namespace) -> int:
    """Perform the actions of a session again, in a browser with the same options; stop at the first failure."""
    client = reach("replay")
    session_id = find_session(client, arguments.id).session_id
    runs = BrowserSession(session_id, label="runtimed replay").read_runs()
    if arguments.list:
        _show([entry for run in runs for entry in run.actions], as_json=arguments.json)
        return Exit.OK
    try:
        parts = [
            (run.config, actions)
            for run in runs
            if (actions := [repeatable(entry.data) for entry in run.actions if entry.data.get("success")])
        ]
    except InvalidAction as exc:
        complain(f"{exc.message}; nothing was done")
        return Exit.FAILED
    if not parts:
        say(f"Nothing was done in session {session_id}")
        return Exit.OK
    count, number, name = sum(len(actions) for _, actions in parts), itertools.count(1), arguments.session
    for recorded, actions in parts:
        options = as_options(restore(recorded, _ask))
        with BrowserSession(name, **{**options, "headless": not arguments.window}, label="runtimed replay") as session:
            name = session.session_id
            _check_started(session, recorded)
            for action in actions:
                result = session.execute(_with_secrets(action))
                say(f"{next(number)} of {count}: {result.message}")
                if not result.success:
                    complain("The page refused this; the rest is left")
                    return Exit.FAILED
    return Exit.OK


def _check_started(session: BrowserSession, recorded: Mapping[str, Any]) -> None:
    """Check that the browser has the recorded options; one that was joined may have others.

    Raises:
        SessionError: If it has others.
    """
    newest = session.read_runs()[-1].config
    # Without passwords, which neither of them has.
    started, wanted = (restore(one, _nothing) for one in (newest, recorded))
    other = [
        field
        for field in BrowserConfig.__struct_fields__
        if field != "headless" and getattr(started, field) != getattr(wanted, field)
    ]
    if other:
        raise SessionError(
            f"Session {session.session_id!r} runs, and was started with another {', '.join(other)} than the session "
            "that is replayed; nothing was done in it. Stop it first, or choose another id"
        )


def _nothing(_what: str) -> str:
    return ""


def _show(entries: Iterable[LogEntry], *, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {"at": entry.at, "client_id": entry.client_id, "label": entry.label, "text": entry.text, **entry.data}
                for entry in entries
            ]
        )
        return
    print_table(
        ["WHEN", "WHO", "WHAT"],
        [
            [
                f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}",
                "" if entry.client_id is None else client_name(entry.client_id, entry.label),
                entry.text if entry.data.get("success") else f"failed: {entry.text}",
            ]
            for entry in entries
        ],
    )


def _with_secrets(action: dict[str, Any]) -> dict[str, Any]:
    """Return an action with its secrets, which are in no log: the user is asked for them."""
    asked = dict(action)
    for field, name in masked_secrets(action).items():
        place = action.get("selector") or action.get("name") or f"this {action['type']}"
        asked[field] = {**action[field], "secret": _ask(name or f"the secret for {place}")}
    return asked


def _ask(what: str) -> str:
    """Ask the user for a value that is in no log.

    Raises:
        BrowserError: If there is no terminal.
    """
    try:
        return getpass.getpass(f"{printable(what)}: ")
    except EOFError:
        raise BrowserError(
            f"{printable(what)} is in no log, and there is no terminal to ask for it: run this in a terminal"
        ) from None
