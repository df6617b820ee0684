"""The interpreter that runs the daemon: this one where it has automerge, else a private environment that uv makes.

Automerge has no wheels for Python 3.13 and newer, and clients do not need it. Nothing here starts a daemon.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runtimed.errors import DaemonUnavailable

__all__ = ["DAEMON_PYTHON", "daemon_interpreter", "find_uv", "uv_patience"]

DAEMON_PYTHON: Final = ">=3.11,<3.13"
"""Versions of Python that can run the daemon."""

_asking_uv = threading.Lock()

_DISTRIBUTION: Final = "ipython-runtimed"
_PACKAGE: Final = Path(__file__).parent.parent
_KEPT: Final = 2
_LAST_WORDS: Final = 1000

_PATIENCE: Final = {"UV_HTTP_CONNECT_TIMEOUT": "5", "UV_HTTP_RETRIES": "1"}
"""With uv's own numbers an index that cannot be reached costs 10 to 120 seconds."""

_SILENCE: Final = {"UV_HTTP_TIMEOUT": "6"}
"""An index that says nothing is asked twice, with a pause between: it is given up after 12 to 16 seconds."""

_TIMEOUTS: Final = ("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "HTTP_TIMEOUT")
"""The names under which uv takes its timeout: the seconds that may pass without a byte."""

logger = logging.getLogger(__name__)


def daemon_interpreter(data_dir: Path) -> str:
    """Return the interpreter to start a daemon with; make its environment first if this one cannot be it.

    The caller holds the lock of the start, so nobody else makes it at the same time. What is in the environment is this
    very package, so both sides are of one version; it is made once for each.

    Args:
        data_dir: The daemon's data folder; the environment goes into its folder `home`.

    Raises:
        DaemonUnavailable: If there is none and none can be made; the sentence says why, and what to do.
    """
    if importlib.util.find_spec("automerge") is not None:
        return sys.executable
    homes = data_dir / "home"
    home = homes / _digest()
    if not home.is_dir():
        _make(home)
        _forget_old(homes, home)
    return str(home / "bin" / "python")


def find_uv(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the path of uv for this client: that of its interpreter's package `uv`, else the first on the PATH.

    Args:
        environment: The environment variables whose PATH counts.
    """
    if importlib.util.find_spec("uv") is not None:
        # One thread at a time: uv's package asks `sysconfig`, which is empty for others while the first one fills it
        # (CPython 3.11). A package without its executable has no such file.
        with _asking_uv, contextlib.suppress(FileNotFoundError):
            return str(importlib.import_module("uv").find_uv_bin())
    return shutil.which("uv", path=environment.get("PATH", os.defpath))


def uv_patience(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables for uv that make it give up a silent network soon, to stand behind those of the user.

    Args:
        environment: The user's; one that names a timeout means it.
    """
    return _PATIENCE if any(environment.get(name) for name in _TIMEOUTS) else {**_PATIENCE, **_SILENCE}


def _make(home: Path) -> None:
    uv = find_uv()
    if uv is None:
        raise _unavailable("uv, which could make one, is not installed")
    logger.warning("preparing an environment for runtimed's daemon in %s; this is done once", home)
    partial = home.with_name(f"{home.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Relocatable: it gets its name when it is whole.
        _run(uv, "venv", "--quiet", "--no-project", "--relocatable", "--python", DAEMON_PYTHON, str(partial))
        python = str(partial / "bin" / "python")
        _run(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *_requirements())
        (packages,) = partial.glob("lib/python*/site-packages")
        shutil.copytree(_PACKAGE, packages / _PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        _run(python, "-m", "compileall", "-q", str(packages / _PACKAGE.name))
        partial.rename(home)
    except OSError as exc:
        raise _unavailable(f"none can be made in {home}: {exc}") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run(*command: str) -> None:
    environment = {**uv_patience(os.environ), **os.environ}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd="/", env=environment
    )
    if done.returncode != 0:
        words = done.stderr.strip()[-_LAST_WORDS:] or f"exit code {done.returncode}"
        raise _unavailable(f"`{Path(command[0]).name} {command[1]}` could not make one: {words}")


def _requirements() -> list[str]:
    """Return what this package requires, without extras; uv reads the markers for the Python that it installs for."""
    requires = importlib.metadata.requires(_DISTRIBUTION) or []
    return [requirement for requirement in requires if "extra ==" not in requirement]


def _digest() -> str:
    """Name the environment after all that is in it, so that an edit of the source is a new version as well."""
    digest = hashlib.sha256("\n".join(_requirements()).encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(os.fsencode(path.relative_to(_PACKAGE)) + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _forget_old(homes: Path, present: Path) -> None:
    """Remove old environments but the newest: hosts that an earlier daemon has left run in that."""
    others = [path for path in homes.iterdir() if path != present]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)


def _unavailable(reason: str) -> DaemonUnavailable:
    return DaemonUnavailable(
        f"The daemon needs Python 3.11 or 3.12 with automerge, which {sys.executable} (Python "
        f"{sys.version.split()[0]}) is not, and {reason}. Install uv with `pip install 'ipython-runtimed[uv]'`, or run "
        "`runtimed start` from a Python 3.11 or 3.12; clients of any version then find that daemon"
    )
