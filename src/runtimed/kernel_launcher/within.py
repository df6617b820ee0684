"""Applies a memory limit to itself and then becomes the kernel: same process, same environment.

Run by file path with `-I -S`, in the host's interpreter, so that no instruction of the kernel is run outside the limit.
Needs the standard library only.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

__all__ = ["main"]


def main(how: str, limit: str, *command: str) -> int:
    """Become the kernel; return only if that fails.

    Args:
        how: `cgroup`, or `data` for RLIMIT_DATA.
        limit: The cgroup's file of processes, or bytes.
        command: The kernel's, with its arguments.
    """
    try:
        if how == "cgroup":
            file = os.open(limit, os.O_WRONLY | os.O_CLOEXEC)
            os.write(file, b"0")  # whoever writes it
        else:
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            soft = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what is ignored stays so
        os.execvpe(command[0], command, _given_environment())  # noqa: S606  # that is its purpose
    except OSError as exc:
        sys.stderr.write(f"{command[0]} cannot be started within its memory limit: {exc}\n")
    return 126


def _given_environment() -> dict[bytes, bytes]:
    """Return the environment without what Python added: LC_CTYPE in place of the C locale (PEP 538)."""
    with open("/proc/self/environ", "rb") as file:  # noqa: PTH123  # pathlib is half of this program's time
        entries = file.read().split(b"\0")
    return {name: value for name, equals, value in (entry.partition(b"=") for entry in entries) if equals}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
