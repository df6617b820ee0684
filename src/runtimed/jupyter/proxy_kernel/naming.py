"""Which session a proxy kernel joins, and which of its executions a request asks for. Nothing here waits."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runtimed.ids import SessionId, check_session_id
from runtimed.notebook_names import notebook_path, session_id_of

__all__ = ["PROGRAM", "Choice", "attached_in", "choose", "given_in"]

PROGRAM: Final = "runtimed.jupyter.proxy_kernel"
"""The module that a kernelspec of a proxy kernel runs."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The session of a proxy kernel.

    Attributes:
        session_id: Its id.
        notebook: The notebook's file, if the frontend named one.
        is_new: Whether nobody named it, so that only this kernel knows its id.
    """

    session_id: SessionId
    notebook: Path | None = None
    is_new: bool = False


def choose(given: str | None, environment: Mapping[str, str], connection: tuple[str, str]) -> Choice:
    """Return the session: the given one, RUNTIMED_NOTEBOOK_ID, the notebook's, or one of this kernel alone.

    The last stays the same when a frontend restarts the kernel, as the connection does.

    Args:
        given: The id on the command line.
        environment: The environment variables; Jupyter Server sets JPY_SESSION_NAME to the notebook's path.
        connection: The connection file's path, and its key.

    Raises:
        SessionError: If an id is invalid.
    """
    notebook = notebook_path(environment.get("JPY_SESSION_NAME"))
    named = given or environment.get("RUNTIMED_NOTEBOOK_ID")
    if named:
        return Choice(check_session_id(named), notebook)
    if notebook is not None:
        return Choice(session_id_of(notebook), notebook)
    digest = hashlib.sha256("\0".join(connection).encode("utf-8", "surrogateescape")).hexdigest()
    return Choice(SessionId(f"kernel-{digest[:32]}"), is_new=True)


def given_in(command: Sequence[str]) -> str | None:
    """Return the session's id in the command of a kernelspec; None if it names none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--session")
    try:
        known, _ = parser.parse_known_args(list(command))
    except argparse.ArgumentError:  # it ends with the option, and starts no kernel
        return None
    given: str | None = known.session
    return given


def attached_in(metadata: Mapping[str, Any]) -> str | None:
    """Return the id of the execution whose outputs a request asks for; None if it runs its code, as all others do.

    The extension of JupyterLab sends it for a cell that runs, or waits, when its notebook is opened again.
    """
    named = metadata.get("runtimed")
    value = named.get("attach") if isinstance(named, Mapping) else None
    return value if isinstance(value, str) and value else None
