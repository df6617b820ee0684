"""The process of a proxy kernel: `python -m runtimed.jupyter.proxy_kernel -f CONNECTION_FILE [--session ID]`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import uvloop

from runtimed.errors import RuntimedError
from runtimed.jupyter.proxy_kernel.kernel import ProxyKernel, Restart
from runtimed.jupyter.proxy_kernel.naming import Choice, choose

__all__ = ["main"]


def main() -> int:
    """Run the kernel until its frontend ends it; return the exit code."""
    parser = argparse.ArgumentParser(prog="runtimed.jupyter.proxy_kernel", description=__doc__)
    parser.add_argument("-f", "--connection-file", type=Path, required=True, help="where the frontend finds the ports")
    parser.add_argument("--session", help="the id of the session (default: RUNTIMED_NOTEBOOK_ID, or the notebook's)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="runtimed: %(message)s")
    try:
        path = arguments.connection_file.absolute()
        connection = _read(path)
        choice = choose(arguments.session, os.environ, (str(path), str(connection.get("key", ""))))
        uvloop.run(_serve(path, connection, choice))
    except RuntimedError as exc:
        print(f"runtimed: {exc.message}", file=sys.stderr)  # noqa: T201  # the frontend shows it
        return 1
    return 0


async def _serve(path: Path, connection: Mapping[str, Any], choice: Choice) -> None:
    if choice.is_new:
        logging.getLogger(__name__).warning("the new session %s", choice.session_id)
    kernel = ProxyKernel(choice, connection, restart=_restart())
    if any(connection.get(name) != port for name, port in kernel.ports.items()):
        text = json.dumps({**connection, **kernel.ports}, indent=2)
        path.write_text(text, "utf-8")  # noqa: ASYNC240  # nothing else happens yet
    await kernel.serve()


def _read(path: Path) -> Mapping[str, Any]:
    try:
        connection = json.loads(path.read_bytes())
    except (OSError, ValueError) as exc:
        raise RuntimedError(f"The connection file {path} cannot be read: {exc}") from exc
    if not isinstance(connection, dict) or not isinstance(connection.get("ip"), str):
        raise RuntimedError(f"{path} is no connection file of Jupyter's: it names no ip")
    return connection


def _restart() -> Restart:
    value = os.environ.get("RUNTIMED_RESTART", "").strip() or "kernel"
    if value not in get_args(Restart):
        raise RuntimedError(f"RUNTIMED_RESTART is {value!r}; it must be kernel or proxy", variable="RUNTIMED_RESTART")
    return cast("Restart", value)


if __name__ == "__main__":
    sys.exit(main())
