"""The log of a browser session: what was asked of it, what its pages said and did. Sizes are capped, secrets masked.

Entries are given to a listener and, for who watches live, kept for a while. Nothing here writes to a disk.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import quote, quote_plus

import msgspec

from runtimed.actions import Secret, masked
from runtimed.browser.perform import Performed
from runtimed.pages import LogEntry

__all__ = ["MAX_TEXT", "ActionLog", "Secrets"]

MAX_TEXT: Final = 2000
"""Longest text in an entry, in characters."""

_KEPT: Final = 200
_BURST: Final = 200.0
_RATE: Final = 20.0
"""Entries about console and network: so many at once, and so many a second in the long run."""

_SHORT: Final = 4
_NOISY: Final = frozenset({"console", "network"})
Kind = Literal["action", "picture", "console", "network", "tab", "dialog", "download", "omitted"]


class Secrets:
    """The texts that were typed as secrets, and a way to take them out of other texts."""

    def __init__(self) -> None:
        self._pattern: re.Pattern[str] | None = None
        self._texts: set[str] = set()

    def add(self, secret: Secret) -> None:
        """Mask a text from now on, also as it stands in addresses."""
        for text in {secret.secret, quote(secret.secret), quote_plus(secret.secret)}:
            if text.strip():
                self._texts.add(text)
        # A short one would tear words apart wherever its letters stand.
        parts = [
            re.escape(text) if len(text) >= _SHORT else rf"(?<!\w){re.escape(text)}(?!\w)"
            for text in sorted(self._texts, key=len, reverse=True)
        ]
        self._pattern = re.compile("|".join(parts)) if parts else None

    def mask(self, text: str) -> str:
        """Return a text without secrets."""
        return text if self._pattern is None else self._pattern.sub("***", text)

    def mask_all(self, value: Any) -> Any:
        """Return plain values without secrets."""
        if self._pattern is None:
            return value
        match value:
            case str():
                return self.mask(value)
            case dict():
                return {key: self.mask_all(one) for key, one in value.items()}
            case list() | tuple():
                return [self.mask_all(one) for one in value]
            case _:
                return value


class ActionLog:
    """Numbers entries and gives them to who wants to know.

    Args:
        secrets: Masks texts.
        listeners: Called with each entry.
    """

    def __init__(self, secrets: Secrets, *listeners: Callable[[LogEntry], None]) -> None:
        self.listeners = list(listeners)
        self.recent: deque[LogEntry] = deque(maxlen=_KEPT)
        self._secrets = secrets
        self._count = 0
        self._allowance = _BURST
        self._refilled = time.monotonic()
        self._omitted = 0

    def add(self, kind: Kind, tab: str | None, text: str, data: dict[str, Any] | None = None, **fields: Any) -> int:
        """Add an entry; return its number, 0 for one that is left out because there are too many of its kind."""
        if kind in _NOISY and not self._admit():
            self._omitted += 1
            return 0
        if self._omitted:
            count, self._omitted = self._omitted, 0
            self.add("omitted", None, f"{count} entries about console and network were left out", {"count": count})
        self._count += 1
        entry = LogEntry(
            n=self._count,
            at=datetime.now(UTC),
            kind=kind,
            tab=tab,
            text=_capped(self._secrets.mask(text)),
            data={key: _capped_value(self._secrets.mask_all(value)) for key, value in (data or {}).items()},
            **fields,
        )
        if entry.image is None:
            self.recent.append(entry)
        for listener in self.listeners:
            listener(entry)
        return entry.n

    def add_action(self, performed: Performed, *, client_id: str | None, label: str | None) -> int:
        """Add an action with who asked for it and what came of it; return its number."""
        result = performed.result
        data = {
            "action": msgspec.to_builtins(masked(performed.action)),
            "selector": performed.selector,
            "to_selector": performed.to_selector,
            "success": result.success,
            "error": result.error,
            "page_changed": result.page_changed,
            "seconds": round((result.ended_at - result.started_at).total_seconds(), 4),
        }
        told = {k: v for k, v in data.items() if v is not None}
        return self.add("action", performed.tab, result.message, told, client_id=client_id, label=label)

    def _admit(self) -> bool:
        now = time.monotonic()
        self._allowance = min(_BURST, self._allowance + (now - self._refilled) * _RATE)
        self._refilled = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


def _capped(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def _capped_value(value: Any) -> Any:
    match value:
        case str():
            return value if len(value) <= 10 * MAX_TEXT else f"{value[: 10 * MAX_TEXT]}…"
        case dict():
            return {key: _capped_value(one) for key, one in value.items()}
        case _:
            return value
