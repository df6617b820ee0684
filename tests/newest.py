"""Runs what may differ between versions of Python on the newest supported CPython of this machine.

The whole suite runs on the interpreter that was started, in CI the oldest supported one. Here run the tests of the
documents' wheels, of the client's use of sockets, threads, asyncio and pickles, and the reference notebook, which goes
through daemon, host and kernel. The other tests of clients are left out: most of their time is that of daemons and
kernels that they start, and the version changes nothing of what they look at.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from packaging.requirements import Requirement

from runtimed.environments.uv_program import find_uv

ROOT: Final = Path(__file__).resolve().parents[1]

TESTS: Final = (
    "tests/document",
    "tests/client/test_arguments.py",
    "tests/client/test_blocking_face.py",
    "tests/client/test_executions.py",
    "tests/client/test_iterating.py",
    "tests/client/test_loops.py",
    "tests/client/test_refusals.py",
    "tests/client/test_threads.py",
    "tests/client/test_values.py",
    "tests/client/test_without_a_daemon.py",
    "tests/e2e/test_reference.py",
)

NEEDED: Final = frozenset(
    {
        "hypothesis",
        "ipywidgets",
        "nbclient",
        "pandas",
        "pytest",
        "pytest-timeout",
        "pytest-xdist",
        "ruff",
        "tqdm",
    }
)
"""What these tests need of the extra `test`, beside all features."""

_IDENTIFY: Final = (
    "import sys; print(sys.implementation.name, *sys.version_info[:2], getattr(sys, '_is_gil_enabled', lambda: True)())"
)


class Interpreter(NamedTuple):
    """A CPython of this machine."""

    version: tuple[int, int]
    path: Path


def supported_versions() -> list[tuple[int, int]]:
    """Return the versions of Python that the package names, the newest first."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    found = [re.fullmatch(r"Programming Language :: Python :: (\d+)\.(\d+)", line) for line in classifiers]
    return sorted(((int(match[1]), int(match[2])) for match in found if match), reverse=True)


def find_newest() -> Interpreter | None:
    """Return the newest supported interpreter, from the PATH or pyenv's folder; None if none is newer than this one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in supported_versions():
        if version <= sys.version_info[:2]:
            return None
        name = f"python{version[0]}.{version[1]}"
        on_path = shutil.which(name)
        for path in [*([Path(on_path)] if on_path else []), *sorted(pyenv.glob(f"*/bin/{name}"), reverse=True)]:
            if _is(path, version):
                return Interpreter(version, path)
    return None


def _is(path: Path, version: tuple[int, int]) -> bool:
    """Whether this is a working CPython of the version; pyenv leaves shims on the PATH that refuse to run."""
    done = subprocess.run([path, "-c", _IDENTIFY], capture_output=True, text=True, check=False)
    return done.stdout == f"cpython {version[0]} {version[1]} True\n"


def requirements() -> list[str]:
    """Return what has to be installed beside the package, with its versions."""
    wanted = map(Requirement, importlib.metadata.requires("ipython-runtimed") or [])
    return sorted({f"{one.name}{one.specifier}" for one in wanted if one.name in NEEDED})


def run_on_newest(pytest_arguments: Sequence[str]) -> int:
    """Make an environment in a temporary folder, run the tests in it, and return the exit code."""
    newest, uv = find_newest(), find_uv()
    if newest is None:
        print(f"no supported Python newer than {sys.version_info[0]}.{sys.version_info[1]} on this machine")
        return 0
    if uv is None:
        print("uv, which belongs to the extra `test`, is missing")
        return 1
    with tempfile.TemporaryDirectory(prefix="rtnewest") as folder:
        python = Path(folder) / "bin" / "python"
        print(f"Python {newest.version[0]}.{newest.version[1]} at {newest.path}", flush=True)
        packages = ["-e", f"{ROOT}[all]", *requirements()]
        for command in (
            [uv, "venv", "--quiet", "--no-project", "--allow-existing", "--python", str(newest.path), folder],
            [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *packages],
            [str(python), "-m", "pytest", "-p", "no:cacheprovider", *TESTS, *pytest_arguments],
        ):
            environment = {name: value for name, value in os.environ.items() if name not in ("CI", "VIRTUAL_ENV")}
            code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
            if code:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(run_on_newest(["-q", *sys.argv[1:]]))
