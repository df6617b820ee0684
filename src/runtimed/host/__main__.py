"""`python -P -m runtimed.host`: the process that owns one kernel."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from runtimed.host.bootstrap import Bootstrap
from runtimed.host.kernel import Kernel
from runtimed.host.kernel_server import KernelServer
from runtimed.host.lease import Lease
from runtimed.host.lifetime import Parts, live
from runtimed.host.owned import Owned
from runtimed.host.running import run_host
from runtimed.host.server import HostServer

__all__ = ["main"]


def main() -> int:
    """Run the host of a kernel; return its exit code."""
    return run_host(Bootstrap, _live)


async def _live(bootstrap: Bootstrap, ready: Callable[[], None]) -> None:
    with contextlib.closing(Lease()) as lease:
        lease.take(bootstrap.marker)

        def begin(parts: Parts) -> tuple[Owned, HostServer]:
            kernel = Kernel(bootstrap, parts.outbox, parts.blobs.put, parts.guard, lease)
            server = KernelServer(bootstrap.epoch, kernel, parts.outbox, parts.tasks, parts.daemon_changed, parts.blobs)
            return kernel, server

        await live(bootstrap, begin, ready)


if __name__ == "__main__":
    sys.exit(main())
