"""Keeps the environment of a kernel from being deleted: its users hold a shared lock on its marker."""

from __future__ import annotations

import fcntl
import os

from runtimed.errors import KernelStartFailed

__all__ = ["Lease"]


class Lease:
    """The lock on one environment at a time; none for an environment without a marker."""

    def __init__(self) -> None:
        self._fd = -1

    def take(self, marker: str) -> None:
        """Hold this environment from now on, and release the previous one.

        Args:
            marker: The file to lock; empty for none.

        Raises:
            KernelStartFailed: If the environment was deleted; the previous one is still held.
        """
        fd = _locked(marker) if marker else -1
        self.close()
        self._fd = fd

    def close(self) -> None:
        """Release the environment. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _locked(marker: str) -> int:
    fd = -1
    try:
        fd = os.open(marker, os.O_RDONLY | os.O_CLOEXEC)
        # A deletion holds the lock only while it renames the folder.
        fcntl.flock(fd, fcntl.LOCK_SH)
        if not os.path.samestat(os.fstat(fd), os.stat(marker)):  # noqa: PTH116  # next to fstat
            raise FileNotFoundError(marker)
    except OSError as exc:
        if fd >= 0:
            os.close(fd)
        raise KernelStartFailed(f"The environment of {marker} was deleted; start the kernel again") from exc
    return fd
