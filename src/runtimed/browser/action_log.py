"""The action log of a browser session: its actions, and what its pages said and did. Sizes are capped, secrets masked.

Entries of pages are rate-limited by their bytes and bounded in total; the log says how many were dropped. Entries of
actions are never dropped. Entries go to a listener, and are kept for a while for live watchers. Nothing here writes to
a disk.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from runtimed.actions import masked
from runtimed.browser.masking import Secrets
from runtimed.browser.perform import Performed
from runtimed.browser.rates import Allowance
from runtimed.pages import LogEntry

__all__ = ["MAX_TEXT", "ActionLog"]

MAX_TEXT: Final = 2000
"""Largest text in an entry, in characters."""

_LONG: Final = 20_000
"""Largest text among the fields of an action, such as evaluated code, in characters."""

_KEPT: Final = 100
"""Number of the newest entries of each kind that are kept."""
_TELL_EVERY: Final = 10.0
"""Seconds over which dropped entries are counted before the log reports them."""
_OVERHEAD: Final = 100
"""Size of an entry without any text, in bytes."""

Kind = Literal["action", "picture", "console", "network", "tab", "dialog", "download", "omitted"]


class ActionLog:
    """Numbers entries and passes them to a listener.

    Args:
        secrets: Masks texts.
        listeners: Called with each entry.
    """

    def __init__(self, secrets: Secrets, *listeners: Callable[[LogEntry], None]) -> None:
        self.listeners = list(listeners)
        self._recent: dict[Kind, deque[LogEntry]] = {}
        self._secrets = secrets
        self._count = 0
        self._allowances = {
            "console": Allowance(burst=2**18, rate=2**12, total=2**25),
            "network": Allowance(burst=2**19, rate=2**13, total=2**26),
            "tab": Allowance(burst=2**16, rate=2**11, total=2**24),
            "dialog": Allowance(burst=2**16, rate=2**11, total=2**24),
        }
        self._omitted: Counter[str] = Counter()
        self._omitted_since = datetime.now(UTC)
        self._telling: asyncio.TimerHandle | None = None

    def add(self, kind: Kind, tab: str | None, text: str, data: dict[str, Any] | None = None, **fields: Any) -> int:
        """Add an entry; return its number, 0 for one dropped by the rate limit of its kind."""
        given = data or {}
        allowance = self._allowances.get(kind)
        if allowance is not None and not allowance.take(_size(text, given), time.monotonic()):
            self.leave_out(kind)
            return 0
        if kind == "action":
            self.tell_omitted()
        self._count += 1
        longest = _LONG if kind == "action" else MAX_TEXT
        entry = LogEntry(
            n=self._count,
            at=datetime.now(UTC),
            kind=kind,
            tab=tab,
            text=_capped(self._secrets.mask_told(text), MAX_TEXT),
            data={key: _capped_value(self._secrets.mask_all_told(value), longest) for key, value in given.items()},
            **fields,
        )
        if entry.image is None:
            self._recent.setdefault(kind, deque(maxlen=_KEPT)).append(entry)
        for listener in self.listeners:
            listener(entry)
        return entry.n

    @property
    def recent(self) -> list[LogEntry]:
        """The newest entries of each kind, without pictures."""
        return sorted((entry for kept in self._recent.values() for entry in kept), key=lambda entry: entry.n)

    def leave_out(self, kind: Kind) -> None:
        """Count a dropped entry of a kind. The log reports it before the next action, or soon."""
        if not self._omitted:
            self._omitted_since = datetime.now(UTC)
            self._telling = asyncio.get_running_loop().call_later(_TELL_EVERY, self.tell_omitted)
        self._omitted[kind] += 1

    def tell_omitted(self) -> None:
        """Add an entry about the entries dropped since the last such entry, if any."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        omitted, self._omitted = self._omitted, Counter()
        if omitted:
            since = self._omitted_since
            counted = ", ".join(f"{count} {kind}" for kind, count in sorted(omitted.items()))
            self.add(
                "omitted",
                None,
                f"left out since {since:%H:%M:%S} UTC, as pages do more than is kept: {counted}",
                {"count": omitted.total(), "kinds": dict(omitted), "since": since.isoformat()},
            )

    def add_action(self, performed: Performed, *, client_id: str | None, label: str | None) -> int:
        """Add an action with its client and its result; return its number."""
        result = performed.result
        data = {
            "action": msgspec.to_builtins(masked(performed.action)),
            "selector": performed.selector,
            "to_selector": performed.to_selector,
            "element": performed.element or None,
            "to_element": performed.to_element or None,
            "success": result.success,
            "error": result.error,
            "page_changed": result.page_changed,
            "seconds": round((result.ended_at - result.started_at).total_seconds(), 4),
        }
        told = {k: v for k, v in data.items() if v is not None}
        return self.add("action", performed.tab, result.message, told, client_id=client_id, label=label)


def _size(text: str, data: Mapping[str, Any]) -> int:
    """Return the approximate size of a page's entry, in bytes."""
    return _OVERHEAD + sum(min(len(value), MAX_TEXT) for value in (text, *data.values()) if isinstance(value, str))


def _capped(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _capped_value(value: Any, longest: int) -> Any:
    match value:
        case str():
            return _capped(value, longest)
        case dict():
            return {key: _capped_value(one, longest) for key, one in value.items()}
        case _:
            return value
