"""`python -m tests [--fast] [pytest's arguments]`: everything that must hold, in order; the first failure ends it.

With arguments the tests run on this interpreter only, without them also on the newest one of the machine. `--fast`
leaves out the tests that are marked as slow.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chromium import Missing, ensure_chromium
from tests.newest import run_on_newest

ROOT = Path(__file__).resolve().parents[1]

IN_PARALLEL = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")
"""More than cores, as most tests wait for processes. Files of tests share nothing: each has its daemon, data folder and
sockets. The tests of one file share a daemon. The files come in the order of `tests/conftest.py`."""

FAST = "--fast"

LIMIT = 30
"""Seconds that a test of the fast run may take: ten times as many as the longest ones need. More is slow."""


def main(arguments: Sequence[str]) -> int:
    """Run every step; return the first failing one's exit code."""
    is_fast = FAST in arguments
    pytest_arguments = [argument for argument in arguments if argument != FAST]
    if is_fast:
        pytest_arguments[:0] = ["-m", "not slow", "--timeout", str(LIMIT), "--durations=5"]
    scripts = Path(sysconfig.get_path("scripts"))
    steps: list[tuple[str, Callable[[], int]]] = [
        *([] if is_fast else [("Chromium", _chromium)]),
        ("ruff check", _command(sys.executable, "-m", "ruff", "check")),
        ("ruff format", _command(sys.executable, "-m", "ruff", "format", "--check")),
        ("mypy", _command(sys.executable, "-m", "mypy")),
        ("import-linter", _command(str(scripts / "lint-imports"))),
        ("pytest", _command(sys.executable, "-m", "pytest", *IN_PARALLEL, *pytest_arguments)),
    ]
    if not pytest_arguments:
        # They choose tests, or name files, of the step before.
        steps.append(("pytest on the newest Python", lambda: run_on_newest(IN_PARALLEL)))
    for number, (name, step) in enumerate(steps, 1):
        print(f"== {number}/{len(steps)} {name}", flush=True)
        began = time.monotonic()
        code = step()
        took = f"{time.monotonic() - began:.1f} s"
        if code:
            print(f"== {name} failed after {took} (exit code {code}); what follows was not run", flush=True)
            return code
        print(f"== {name}: good, {took}", flush=True)
    return 0


def _command(*command: str) -> Callable[[], int]:
    # Where CI is set, pytest's summary says all of each failure again, instead of a line for each.
    environment = {name: value for name, value in os.environ.items() if name != "CI"}

    def run() -> int:
        print("$", shlex.join(command), flush=True)
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode

    return run


def _chromium() -> int:
    try:
        print(ensure_chromium())
    except Missing as exc:
        print(exc)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
