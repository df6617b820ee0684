"""`runtimed env explain`: which environment a kernel would get, and why. It starts nothing and installs nothing."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from runtimed.cli.as_json import print_json
from runtimed.cli.console import complain
from runtimed.cli.exits import Exit
from runtimed.environments.detection import decide, explain
from runtimed.environments.facts import gather, read_document
from runtimed.environments.maker import with_settings

__all__ = ["env"]


def env(arguments: argparse.Namespace) -> int:
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
