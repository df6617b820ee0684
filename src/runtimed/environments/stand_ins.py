"""Puts stand-ins for pip and uv into a shared environment. They refuse to change it, and say what to do instead."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final, Literal

__all__ = ["stand_in"]

_BEGIN: Final = """\
#!/bin/sh
# Made by runtimed: others share this environment, so one kernel must not change it.
own=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
words=
elsewhere=
for part; do
    case $part in
    -t | --target | --target=* | --prefix | --prefix=* | -p | --python | --python=*) elsewhere=yes ;;
    --dry-run | -h | --help) elsewhere=yes ;;
    -*) ;;
    *) words="$words $part" ;;
    esac
done
refuse() {{
    printf '%s\\n' {sentence} >&2
    exit 1
}}
"""
"""Options may have values, which are words, too: what is harmless is known by its first word, the rest by any word."""

_PIP: Final = """\
case "$elsewhere$words " in
yes*) ;;
" cache "* | " check "* | " completion "* | " config "* | " debug "* | " download "* | " freeze "* | " hash "*) ;;
" help "* | " index "* | " inspect "* | " list "* | " lock "* | " search "* | " show "* | " wheel "*) ;;
*" install "* | *" uninstall "*) refuse ;;
esac
"""

_OWN_PIP: Final = 'exec "$own/python" -m pip "$@"\n'

_OTHER_PIP: Final = """\
IFS=:
for place in $PATH; do
    pip=$place/pip
    # That of another environment, if it is new enough to work on this one.
    if [ "$place" != "$own" ] && [ -x "$pip" ] && "$pip" --python "$own/python" --version >/dev/null 2>&1; then
        exec "$pip" --python "$own/python" "$@"
    fi
done
echo "pip: not found; this environment has none, and no pip on the PATH is 22.3 or newer. Try: uv pip" >&2
exit 127
"""

_UV: Final = """\
[ "$VIRTUAL_ENV" = "${own%/bin}" ] || elsewhere=yes
case "$elsewhere$words " in
yes*) ;;
" pip check "* | " pip freeze "* | " pip list "* | " pip show "* | " pip tree "* | " run "* | " tool "*) ;;
*" pip install "* | *" pip uninstall "* | *" pip sync "*) refuse ;;
esac
IFS=:
for place in $PATH; do
    if [ "$place" != "$own" ] && [ -x "$place/uv" ]; then exec "$place/uv" "$@"; fi
done
echo "uv: not found" >&2
exit 127
"""

_MODULE: Final = """\
\"""Made by runtimed: others share this environment, so it holds no pip. This is the one beside its interpreter.\"""

import os
import subprocess
import sys

_PIP = os.path.join(sys.prefix, "bin", "pip")


def main(args=None):
    \"""Run pip; return its exit code.\"""
    return subprocess.call([_PIP, *(sys.argv[1:] if args is None else args)])


if __name__ == "__main__":
    os.execv(_PIP, [_PIP, *sys.argv[1:]])
"""


def stand_in(environment: Path, manager: Literal["uv", "conda"]) -> None:
    """Put them into a complete environment: `pip`, `pip3`, `python -m pip` where it has no pip, and `uv`.

    Everything harmless is passed on: to the client's uv, and to the environment's pip or else the client's.

    Raises:
        OSError: If the disk is full.
    """
    then = "session.sync_environment()" if manager == "uv" else "session.restart_kernel()"
    sentence = (
        f"Nothing is installed from here, since others share the environment of this kernel. Name what the session "
        f"needs: session.add_{manager}_dependency('NAME'), then {then}, with a runtimed.Session of the same id"
    )
    begin = _BEGIN.format(sentence=shlex.quote(sentence))
    lacking = [path for path in environment.glob("lib/python3*/site-packages") if not (path / "pip").exists()]
    for name in ("pip", "pip3"):
        _write(environment / "bin" / name, begin + _PIP + (_OTHER_PIP if lacking else _OWN_PIP))
    if not (environment / "bin/uv").exists():
        _write(environment / "bin/uv", begin + _UV)
    for packages in lacking:
        (packages / "pip.py").write_text(_MODULE)


def _write(path: Path, script: str) -> None:
    # What is there may have another name in a cache.
    path.unlink(missing_ok=True)
    path.write_text(script)
    path.chmod(0o755)
