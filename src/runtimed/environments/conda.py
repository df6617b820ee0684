"""Makes conda environments with py-rattler, in a worker process. Nothing here reads a project's files."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from runtimed.environments import conda_files
from runtimed.environments.conda_files import CondaSettings, with_channels
from runtimed.environments.processes import kill_group
from runtimed.environments.recipes import CondaRecipe, Progress, Report
from runtimed.errors import EnvironmentFailed
from runtimed.texts import signal_name

__all__ = ["MISSING", "build", "configured", "is_available"]

logger = logging.getLogger(__name__)

MISSING: Final = "Conda environments need py-rattler; install it with `pip install 'ipython-runtimed[conda]'`"
"""Error message if py-rattler is not installed."""
PATIENCE: Final = 8.0
"""Seconds of silence after which the channels are checked, and time limit of the check."""
STALL: Final = 60.0
"""Seconds without a byte after which a download is given up."""
_LINE: Final = 2**20
_STDERR: Final = 16 * 2**10

_MISLEADING: Final = frozenset({"CONDA_PREFIX", "UV_PYTHON", "UV_SYSTEM_PYTHON", "VIRTUAL_ENV"})
"""Variables of a client that name its own environment, not the one to be made; those of its Python do, too."""

_PATIENCE: Final = {
    "PIP_DEFAULT_TIMEOUT": "10",
    "PIP_RETRIES": "1",
    "UV_HTTP_CONNECT_TIMEOUT": "5",
    "UV_HTTP_RETRIES": "1",
    "UV_HTTP_TIMEOUT": "10",
}
"""Defaults: without a network, uv and pip would take minutes to report that."""


def is_available() -> bool:
    """Whether conda environments can be made here."""
    return importlib.util.find_spec("rattler") is not None


def configured(environment: Mapping[str, str] | None = None) -> CondaSettings:
    """Return the user's settings: `RUNTIMED_CONDA_CHANNELS`, then the user's .condarc, then the system's.

    Args:
        environment: Environment variables; None for this process's.

    Raises:
        EnvironmentFailed: If a .condarc is there and cannot be read.
    """
    env = os.environ if environment is None else environment
    home = Path(env.get("HOME") or Path.home())
    places = [
        *([Path(env["CONDARC"]).expanduser()] if env.get("CONDARC") else []),
        home / ".condarc",
        home / ".conda/.condarc",
        home / ".config/conda/.condarc",
        Path("/etc/conda/.condarc"),
    ]
    condarcs = []
    for path in places:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            try:
                condarcs.append((str(path), path.read_text(encoding="utf-8")))
            except (PermissionError, IsADirectoryError, UnicodeDecodeError) as exc:
                raise EnvironmentFailed(f"{path} cannot be read: {exc}", file=str(path)) from exc
    return conda_files.read_settings(env.get("RUNTIMED_CONDA_CHANNELS"), condarcs)


async def build(
    recipe: CondaRecipe,
    folder: Path,
    report: Report,
    *,
    environment: Mapping[str, str] | None = None,
    uv: str | None = None,
    lock: int | None = None,
) -> None:
    """Make an environment in which `folder/bin/python` runs ipykernel.

    The folder's path is written into files of packages, so the folder cannot be moved afterwards. If this raises or is
    cancelled, or this process dies, the content of the folder is unfinished and must not be used; nothing writes to it
    any more. Downloads are shared with pixi and every other tool on rattler, in `RATTLER_CACHE_DIR` or the user's cache
    folder; an environment has hard links to them if both are on one disk.

    Args:
        recipe: What to install; python and ipykernel are added if it lacks them. The result of
            `conda_files.with_channels` is installed, so take the digest of that.
        folder: An absolute path; does not exist, or is empty.
        report: Called with each step.
        environment: The client's environment variables, with its settings of channels, caches and proxies; None for
            this process's.
        uv: The uv executable, which installs the requirements under `pip:`; None for the environment's own pip.
        lock: A descriptor that every process of the making inherits.

    Raises:
        EnvironmentFailed: If it cannot be made. The sentence says which package, why, and what to do; attributes, as
            far as known, are `package`, `versions`, `channel`, `channels`, `conflict`, `pip`, `file`, `path`.
    """
    if not is_available():
        raise EnvironmentFailed(MISSING, extra="conda")
    variables = dict(os.environ if environment is None else environment)
    keep_open = [] if lock is None else [lock]
    job = {
        "dependencies": recipe.dependencies,
        "channels": with_channels(recipe, configured(variables)).channels,
        "pip": recipe.pip,
        "lock": recipe.lock,
        "folder": str(folder),
        "uv": uv,
        "keep_open": keep_open,
        "patience": PATIENCE,
        "stall": STALL,
    }
    own = {name: value for name, value in variables.items() if not name.startswith("PYTHON")}
    try:
        process = await asyncio.create_subprocess_exec(
            # -P: the daemon's folder must not shadow the worker's modules.
            *(sys.executable, "-P", "-m", "runtimed.environments.conda_worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**_PATIENCE, **{name: value for name, value in own.items() if name not in _MISLEADING}},
            pass_fds=keep_open,
            cwd="/",
            start_new_session=True,
            limit=_LINE,
        )
    except OSError as exc:
        raise EnvironmentFailed(f"The process that makes conda environments cannot be started: {exc}") from exc
    try:
        await _follow(process, job, report)
    finally:
        # The worker, with pip or whatever else it has started.
        await kill_group(process)


async def _follow(process: asyncio.subprocess.Process, job: Mapping[str, Any], report: Report) -> None:
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None and stdout is not None and stderr is not None  # noqa: PT018, S101  # they were asked for
    errors = asyncio.ensure_future(_tail(stderr))
    try:
        # The pipe stays open: the worker ends when it closes, however this process ends.
        stdin.write(json.dumps(job).encode() + b"\n")
        async for data in stdout:
            match json.loads(data):
                case {"made": True}:
                    return
                case {"failed": str(sentence), "data": dict(attributes)}:
                    raise EnvironmentFailed(sentence, **attributes)
                case step:
                    report(Progress(**step))
        code = await process.wait()
        words = (await errors).strip()
    finally:
        errors.cancel()
    logger.error("the worker for conda environments ended with %s: %s", code, words)
    last = words.splitlines()[-1] if words else "it said nothing"
    why = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
    raise EnvironmentFailed(f"The process that makes conda environments {why}: {last}", exit_code=code, stderr=words)


async def _tail(stream: asyncio.StreamReader) -> str:
    tail = b""
    while data := await stream.read(65536):
        tail = (tail + data)[-_STDERR:]
    return tail.decode(errors="replace")
