"""Structs that several threads may decode. Nothing here knows one."""

from __future__ import annotations

import msgspec

__all__ = ["prepare"]


def prepare(*kinds: type[msgspec.Struct]) -> None:
    """Let msgspec inspect the fields of structs now, while their module is imported, recursively.

    Otherwise it does so at the first decoding. Two threads that decode first see each other's half-done work, and the
    process crashes (msgspec 0.22).
    """
    for kind in kinds:
        msgspec.json.Decoder(kind)
