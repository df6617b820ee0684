"""Puts programs into an environment that stand where pip and uv would change what others share. They say what to do."""

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
    -t | --target | --target=* | --prefix | --prefix=* | -p | --python | --python=* | --dry-run) elsewhere=yes ;;
    -*) ;;
    *) words="$words $part" ;;
    esac
done
"""

_PIP: Final = """\
case "$elsewhere$words " in
" install "* | " uninstall "*)
    printf '%s\\n' {sentence} >&2
    exit 1
    ;;
esac
exec "$own/python" -m pip "$@"
"""

_UV: Final = """\
[ "$VIRTUAL_ENV" = "${{own%/bin}}" ] || elsewhere=yes
case "$elsewhere$words " in
" pip install "* | " pip uninstall "* | " pip sync "*)
    printf '%s\\n' {sentence} >&2
    exit 1
    ;;
esac
IFS=:
for place in $PATH; do
    if [ "$place" != "$own" ] && [ -x "$place/uv" ]; then exec "$place/uv" "$@"; fi
done
echo "uv: not found" >&2
exit 127
"""

_MODULE: Final = '''\
"""Made by runtimed: others share this environment, so it holds no pip."""

import sys


def main(*_args):
    """Say what to do instead."""
    sys.exit({sentence!r})


if __name__ == "__main__":
    main()
'''


def stand_in(environment: Path, manager: Literal["uv", "conda"]) -> None:
    """Put them into an environment that is complete: `pip`, `pip3`, `python -m pip` where it has no pip, and `uv`.

    `uv` is that of the client, but for what would change this environment.

    Raises:
        OSError: If the disk is full.
    """
    then = "session.sync_environment()" if manager == "uv" else "session.restart_kernel()"
    sentence = (
        f"Nothing is installed from here, since others share the environment of this kernel. Name what the session "
        f"needs: session.add_{manager}_dependency('NAME'), then {then}, with a runtimed.Session of the same id"
    )
    quoted = shlex.quote(sentence)
    for name in ("pip", "pip3"):
        _write(environment / "bin" / name, _BEGIN + _PIP.format(sentence=quoted))
    if not (environment / "bin/uv").exists():
        _write(environment / "bin/uv", _BEGIN + _UV.format(sentence=quoted))
    for packages in environment.glob("lib/python3*/site-packages"):
        if not (packages / "pip").exists():
            (packages / "pip.py").write_text(_MODULE.format(sentence=sentence))


def _write(path: Path, script: str) -> None:
    # What is there may have another name in a cache.
    path.unlink(missing_ok=True)
    path.write_text(script)
    path.chmod(0o755)
