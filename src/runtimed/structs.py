"""Makes msgspec structs safe to decode in several threads."""

from __future__ import annotations

import msgspec

__all__ = ["prepare"]


def prepare(*kinds: type[msgspec.Struct]) -> None:
    """Let msgspec inspect the fields of structs recursively, at the import of their module.

    Otherwise msgspec 0.22 does so lazily, and two threads that decode a struct for the first time crash the process.
    """
    for kind in kinds:
        msgspec.json.Decoder(kind)
