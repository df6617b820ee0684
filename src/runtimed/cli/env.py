"""`runtimed env`: which environment a kernel would get and why, and consent to it. Nothing is started or installed."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from runtimed.cli.as_json import print_json
from runtimed.cli.console import complain, say
from runtimed.cli.daemon import no_daemon
from runtimed.cli.exits import Exit
from runtimed.client.client import Client
from runtimed.environments.detection import decide, explain
from runtimed.environments.facts import gather, read_document
from runtimed.environments.maker import with_settings
from runtimed.settings import read_settings
from runtimed.transport.autostart import daemon_answers

__all__ = ["explain_path", "trust"]


def explain_path(arguments: argparse.Namespace) -> int:
    """Say which environment `auto` means for a notebook, a script or a folder."""
    path = Path(arguments.path).expanduser().absolute()
    try:
        metadata, first_cell = read_document(path)
    except ValueError as exc:
        complain(str(exc))
        return Exit.USAGE
    facts = gather(
        asked="auto",
        metadata=metadata,
        first_cell=first_cell,
        folder=str(path),
        environment=os.environ,
        interpreter=sys.executable,
    )
    decision = with_settings(decide(facts), os.environ)
    if arguments.json:
        print_json({"env_source": decision.source, "reason": decision.reason, "file": decision.file})
    else:
        print(explain(decision))
    return Exit.OK


def trust(arguments: argparse.Namespace) -> int:
    """Consent to installing what a session's document, or else the project of this folder, asks for."""
    settings = read_settings()
    if not daemon_answers(settings):
        return no_daemon(settings.socket_path)
    client = Client(label="runtimed env trust")
    client.sessions.get(arguments.id)  # joining would not say that there is none
    with client.Session(arguments.id) as session:
        say(f"The session {arguments.id!r} may install what it asks for:\n{session.trust_environment()}")
    return Exit.OK
