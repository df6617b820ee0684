"""Process attributes that a child inherits, beside environment and working directory. Nothing here sets them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from runtimed.protocol.bounds import MAX_ITEMS

__all__ = ["Inherited"]


Limit = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
Cpu = Annotated[int, Meta(ge=0, le=MAX_ITEMS)]


class Inherited(msgspec.Struct, frozen=True):
    """The attributes that a kernel gets as if it were a child of its client.

    Attributes:
        umask: File mode creation mask.
        limits: Soft and hard resource limits by name (`RLIMIT_NOFILE`), as `resource.getrlimit` returns them.
        niceness: Nice value, as `os.nice` returns it.
        cpus: CPU affinity: the processors on which it may run; None if unknown.
    """

    umask: Annotated[int, Meta(ge=0, le=0o777)]
    limits: Annotated[dict[str, tuple[Limit, Limit]], Meta(max_length=64)] = {}
    niceness: Annotated[int, Meta(ge=-20, le=20)] = 0
    cpus: Annotated[tuple[Cpu, ...], Meta(max_length=MAX_ITEMS)] | None = None
