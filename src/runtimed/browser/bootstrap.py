"""What the host of a browser is told when it starts; it comes as that of a kernel's host does."""

from __future__ import annotations

from typing import Any, ClassVar

from runtimed.host.bootstrap import HostBootstrap

__all__ = ["BrowserBootstrap"]


class BrowserBootstrap(HostBootstrap, frozen=True, kw_only=True):
    """What the host of a browser needs to know, beside what every host does.

    Attributes:
        config: The fields of `BrowserConfig`.
        session_dir: The session's own folder, which outlives the host. That of a spare becomes its session's, or goes.
        timeout_minutes: The session's idle minutes; None for no limit.
        max_duration_minutes: The session's minutes altogether; None for no limit.
    """

    module: ClassVar[str] = "runtimed.browser"

    config: dict[str, Any]
    session_dir: str
    timeout_minutes: float | None = None
    max_duration_minutes: float | None = None
