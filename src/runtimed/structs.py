"""Structs that several threads may decode. Nothing here knows one."""

from __future__ import annotations

import msgspec

__all__ = ["prepare"]


def prepare(*kinds: type[msgspec.Struct]) -> None:
    """Let msgspec look at the fields of structs now, as their module is imported, and at all that they hold.

    Else it does so when one is first decoded; where two threads are the first, each sees what the other has half done,
    and the process crashes (msgspec 0.22).
    """
    for kind in kinds:
        msgspec.json.Decoder(kind)
