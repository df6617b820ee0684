"""The command `replay`: performs again what was done in a browser session, in a new one. No model takes part in it."""

from __future__ import annotations

import argparse
import getpass
from collections.abc import Iterable
from typing import Any

from runtimed.actions import repeatable
from runtimed.cli.as_json import print_json
from runtimed.cli.console import complain, print_table, say
from runtimed.cli.exits import Exit
from runtimed.cli.reach import find_session, reach
from runtimed.client.browser_session import BrowserSession
from runtimed.errors import InvalidAction
from runtimed.pages import LogEntry
from runtimed.texts import client_name, printable

__all__ = ["replay"]


def replay(arguments: argparse.Namespace) -> int:
    """Perform the actions of a session again; stop at the first that fails."""
    session_id = find_session(reach("replay"), arguments.id).session_id
    logged = BrowserSession(session_id, label="runtimed replay")
    entries = [entry for entry in logged.read_actions() if entry.kind == "action"]
    if arguments.list:
        _show(entries, as_json=arguments.json)
        return Exit.OK
    try:
        actions = [repeatable(entry.data) for entry in entries if entry.data.get("success")]
    except InvalidAction as exc:
        complain(f"{exc.message}; nothing was done")
        return Exit.FAILED
    if not actions:
        say(f"Nothing was done in session {session_id}")
        return Exit.OK
    with BrowserSession(arguments.session, headless=not arguments.window, label="runtimed replay") as session:
        for number, action in enumerate(actions, 1):
            result = session.execute(_with_secrets(action))
            say(f"{number} of {len(actions)}: {result.message}")
            if not result.success:
                complain("The page refused this; the rest is left")
                return Exit.FAILED
    return Exit.OK


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
    """Return an action with its secret, which is in no log: the user is asked for it."""
    value = action.get("value")
    if not isinstance(value, dict) or "secret" not in value:
        return action
    name = value.get("name") or f"the secret for {action.get('selector') or action.get('name') or 'this field'}"
    return {**action, "value": {**value, "secret": getpass.getpass(f"{printable(name)}: ")}}
