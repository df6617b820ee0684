"""`runtimed env`: which environment a kernel would get and why, consent to it, and existing environments.

It starts nothing and installs nothing; only consent needs a daemon.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from runtimed.cli.as_json import print_json
from runtimed.cli.exits import Exit
from runtimed.cli.printing import ago, complain, print_table, say
from runtimed.cli.reach import find_session, reach
from runtimed.client import working_folder
from runtimed.display import readable_size
from runtimed.environments.decision import explain
from runtimed.environments.detection import decide
from runtimed.environments.facts import gather, read_document
from runtimed.environments.maker import refusal, with_settings
from runtimed.environments.prune import Keep, StoredEnvironment, list_environments, prune
from runtimed.environments.uv_program import find_uv
from runtimed.errors import NotebookFileError
from runtimed.settings import read_settings

__all__ = ["env_explain", "env_list", "env_prune", "env_trust"]


def env_explain(arguments: argparse.Namespace) -> int:
    """Print which environment `auto` means for a notebook, a script or a folder."""
    path = working_folder() / Path(arguments.path).expanduser()
    if not os.path.exists(path):  # noqa: PTH110  # `Path.exists` raises where a name is too long
        complain(f"There is no {path}")
        return Exit.USAGE
    try:
        metadata, sources = read_document(path)
    except NotebookFileError as exc:
        complain(exc.message)
        return Exit.USAGE
    facts = gather(
        asked="auto",
        metadata=metadata,
        sources=sources,
        folder=str(path),
        environment=os.environ,
        interpreter=sys.executable,
        uv=find_uv(),
    )
    decision = with_settings(decide(facts), os.environ)
    refused = refusal(decision, read_settings().environments_dir)
    if arguments.json:
        print_json(
            {"env_source": decision.source, "reason": decision.reason, "file": decision.file, "refused": refused}
        )
    else:
        print(explain(decision))
        if refused is not None:
            complain(f"A kernel would not start: {refused}")
    return Exit.OK if refused is None else Exit.FAILED


def env_trust(arguments: argparse.Namespace) -> int:
    """Consent to installing what a session's document, or else the project of this folder, asks for."""
    client = reach("env trust")
    session_id = find_session(client, arguments.id).session_id  # joining would not report that there is none
    with client.Session(session_id) as session:
        say(f"The session {session_id!r} may install what it asks for:\n{session.trust_environment()}")
    return Exit.OK


def env_list(arguments: argparse.Namespace) -> int:
    """List the existing environments."""
    folder = read_settings().environments_dir
    environments = list_environments(folder)
    if arguments.json:
        print_json([_as_map(environment) for environment in environments])
        return Exit.OK
    if not environments:
        say(f"No environments in {folder}")
        return Exit.OK
    _print(environments)
    print(f"\n{_count(environments)} in {folder}, together {readable_size(sum(one.own_size for one in environments))}")
    return Exit.OK


def env_prune(arguments: argparse.Namespace) -> int:
    """Remove environments that no session uses."""
    settings = read_settings()
    if arguments.all:
        keep = Keep(count=0)
    elif arguments.older_than is not None:
        keep = Keep(seconds=arguments.older_than * 86400)
    else:
        keep = Keep.by_settings(settings)
    result = prune(settings.environments_dir, keep, dry_run=arguments.dry_run)
    if arguments.json:
        maps = {name: [_as_map(one) for one in getattr(result, name)] for name in ("removed", "kept")}
        print_json({**maps, "problems": result.problems})
    else:
        if result.removed:
            _print(result.removed)
            print()
        verb = "Would remove" if arguments.dry_run else "Removed"
        kept = sum(one.in_use for one in result.kept)
        say(f"{verb} {_count(result.removed)}; {len(result.kept)} stay, {kept} of them in use")
        for problem in result.problems:
            complain(problem)
    return Exit.FAILED if result.problems else Exit.OK


def _print(environments: Sequence[StoredEnvironment]) -> None:
    print_table(
        ("name", "kind", "packages", "size", "used"),
        (
            (
                one.name[:12],
                one.kind,
                one.project or ", ".join(one.packages) or "-",
                readable_size(one.size),
                "now" if one.in_use else ago(datetime.fromtimestamp(one.used_at, UTC)),
            )
            for one in environments
        ),
    )


def _as_map(environment: StoredEnvironment) -> dict[str, object]:
    return {**asdict(environment), "used_at": datetime.fromtimestamp(environment.used_at, UTC)}


def _count(environments: Sequence[StoredEnvironment]) -> str:
    return f"{len(environments)} environment{'' if len(environments) == 1 else 's'}"
