"""Kills what a host owns when the host dies, however it dies. Nothing here knows whether that is a kernel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
from pathlib import Path
from typing import Final

from runtimed.host.group import forget_group, note_group

__all__ = ["Guard"]

logger = logging.getLogger(__name__)

_GUARD_PAUSE: Final = 1.0

# Reads what to guard, line by line: a process group, 0 for none, and a cgroup, if there is one. The end of the input is
# the end of the host. A cgroup can be removed when it is empty; its processes may be many, and start others.
_GUARD_SCRIPT: Final = """
trap '' HUP INT TERM
group=0
while read -r number path; do group=$number folder=$path; done
[ "$group" -gt 0 ] && kill -s KILL -- "-$group"
tries=0
while [ -n "$folder" ] && [ -d "$folder" ] && [ $tries -lt 200 ]; do
    while read -r pid; do [ "$pid" -gt 0 ] && kill -s KILL "$pid"; done < "$folder/cgroup.procs"
    rmdir "$folder" || sleep 0.02
    tries=$((tries + 1))
done
"""


class Guard:
    """A tiny process that kills a process group when its host is gone.

    It waits on a pipe whose other end only the host holds; the operating system closes it with the host. One mechanism
    for Linux and macOS, and unlike PR_SET_PDEATHSIG it reaches the children, too. If the guard is killed itself, the
    host sees the end of its output, and starts another one.

    Args:
        folder: The host's folder, which records what is guarded: host and guard may be killed together.

    Raises:
        OSError: If the operating system refuses to start it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.get_running_loop()
        self._line = b"0\n"
        self._retry: asyncio.TimerHandle | None = None
        self._start()

    def watch(self, group: int | None, cgroup: Path | None) -> None:
        """Guard this process group and this cgroup, or none: their processes are killed and the cgroup is removed."""
        if group is None:
            forget_group(self._folder)
        else:
            note_group(self._folder, group)
        self._line = f"{group or 0} {cgroup or ''}\n".encode()
        if self._retry is None:
            self._tell()

    def close(self) -> None:
        """End it, as the end of the host would."""
        if self._retry is None:
            self._let_go()
        else:
            self._retry.cancel()

    def _start(self) -> None:
        read_end, self._write_end = os.pipe()
        self._output_end, output = os.pipe()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD_SCRIPT],
                stdin=read_end,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._write_end)
            os.close(self._output_end)
            raise
        finally:
            os.close(read_end)
            os.close(output)
        self._started_at = self._loop.time()
        self._loop.add_reader(self._output_end, self._ended)
        self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # `_ended` is about to be called
            os.write(self._write_end, self._line)

    def _let_go(self) -> None:
        self._loop.remove_reader(self._output_end)
        os.close(self._output_end)
        os.close(self._write_end)
        self._process.wait()

    def _ended(self) -> None:
        """Start another guard; if this one ended soon after its start, with a delay."""
        logger.warning("the guard was killed; starting another one")
        self._let_go()
        if self._loop.time() - self._started_at < _GUARD_PAUSE:
            self._retry = self._loop.call_later(_GUARD_PAUSE, self._start_again)
        else:
            self._start_again()

    def _start_again(self) -> None:
        try:
            self._start()
        except OSError as exc:
            logger.warning("no guard can be started: %s", exc)
            self._retry = self._loop.call_later(_GUARD_PAUSE, self._start_again)
        else:
            self._retry = None
