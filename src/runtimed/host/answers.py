"""A kernel's answers to questions, cut to what fits into a reply: a kernel may offer millions of names."""

from __future__ import annotations

from typing import Any, Final

from runtimed.protocol.codec import pack

__all__ = ["MAX_ANSWER", "bounded"]

MAX_ANSWER: Final = 2**20
"""Largest answer that is passed on unchanged, in bytes."""

_SMALL: Final = 2**12
"""Bytes of any other field of an answer that is cut."""


def bounded(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a reply, with as many matches, comms, latest entries of a history, and text as fit.

    Raises:
        ProtocolError: If it contains what cannot be encoded.

    Source: Jupyter messaging 5.4, "Completion", "Introspection", "History" and "Comm info".
    """
    if len(pack(content)) <= MAX_ANSWER:
        return content
    kept: dict[str, Any] = {}
    for name, value in content.items():
        if name == "matches" and isinstance(value, list):
            kept[name] = _first(value)
        elif name == "history" and isinstance(value, list):
            kept[name] = _first(value[::-1])[::-1]
        elif name == "comms" and isinstance(value, dict):
            kept[name] = dict(_first(list(value.items())))
        elif name == "data" and isinstance(value, dict):
            kept[name] = {mime: _beginning(text) for mime, text in list(value.items())[:8] if isinstance(text, str)}
        elif name != "metadata" and len(pack(value)) <= _SMALL:
            kept[name] = value
    if "metadata" in content:
        # Its metadata would describe matches that are left out.
        kept["metadata"] = {}
    return kept


def _first(matches: list[Any]) -> list[Any]:
    left, kept = MAX_ANSWER, []
    for match in matches:
        left -= len(pack(match))
        if left < 0:
            break
        kept.append(match)
    return kept


def _beginning(text: str) -> str:
    limit = MAX_ANSWER // 32  # up to 8 texts, with up to 4 bytes per code point
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} characters left out)"
