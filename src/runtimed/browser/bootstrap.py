"""The configuration of a browser's host; it arrives as that of a kernel's host does."""

from __future__ import annotations

from typing import Any, ClassVar

from runtimed.host.bootstrap import HostBootstrap

__all__ = ["BrowserBootstrap"]


class BrowserBootstrap(HostBootstrap, frozen=True, kw_only=True):
    """What the host of a browser needs to know, beside what every host does.

    Attributes:
        config: The fields of `BrowserConfig`.
        session_dir: The session's folder, which outlives the host. That of a spare becomes a session's, or is removed.
        timeout_minutes: The session's idle limit in minutes; None for no limit.
        max_duration_minutes: The session's total limit in minutes; None for no limit.
    """

    module: ClassVar[str] = "runtimed.browser"

    config: dict[str, Any]
    session_dir: str
    timeout_minutes: float | None = None
    max_duration_minutes: float | None = None
