"""What a process inherits from its parent, beside variables and folder. Nothing here asks for it or sets it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from runtimed.protocol.bounds import MAX_ITEMS

__all__ = ["Inherited"]


Limit = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
Cpu = Annotated[int, Meta(ge=0, le=MAX_ITEMS)]


class Inherited(msgspec.Struct, frozen=True):
    """What a kernel is to have as if its client had started it itself.

    Attributes:
        umask: Bits that the files which it makes do not get.
        limits: The soft and the hard limit by name (`RLIMIT_NOFILE`), as `resource.getrlimit` gives them.
        niceness: As `os.nice` counts it.
        cpus: Numbers of the processors on which it may run; None where the system does not say.
    """

    umask: Annotated[int, Meta(ge=0, le=0o777)]
    limits: Annotated[dict[str, tuple[Limit, Limit]], Meta(max_length=64)] = {}
    niceness: Annotated[int, Meta(ge=-20, le=20)] = 0
    cpus: Annotated[tuple[Cpu, ...], Meta(max_length=MAX_ITEMS)] | None = None
