"""Validates the configuration of a browser session, without starting anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from runtimed.browser import domains
from runtimed.errors import BrowserError
from runtimed.pages import BrowserConfig

__all__ = ["PERMISSIONS", "check_config", "name_of"]

PERMISSIONS: Final = (
    "accelerometer", "ambient-light-sensor", "background-sync", "camera", "clipboard-read", "clipboard-write",
    "geolocation", "gyroscope", "local-fonts", "local-network-access", "magnetometer", "microphone", "midi",
    "midi-sysex", "notifications", "payment-handler", "screen-wake-lock", "storage-access",
)  # fmt: skip
"""Permissions of pages, by Playwright's names for Chromium."""

_ATTACH: Final = "session.cdp_url, where others attach"
_READ: Final = "observe(), scrape() or screenshot()"
_SETTLED: Final = {
    "dump-dom": _READ,
    "force-device-scale-factor": "device_scale_factor=",
    "headless": "headless=",
    "print-to-pdf": _READ,
    "profile-directory": "profile=, which names what the browser begins with",
    "remote-allow-origins": _ATTACH,
    "remote-debugging-address": _ATTACH,
    "remote-debugging-pipe": _ATTACH,
    "remote-debugging-port": _ATTACH,
    "screenshot": _READ,
    "user-data-dir": "profile=, which names what the browser begins with",
    "window-size": "viewport_width= and viewport_height=",
}
"""Refused switches → what to use instead."""

_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Source: RFC 9110, section 5.1."""


def check_config(config: BrowserConfig) -> None:
    """Check a configuration, as far as that is possible without a browser.

    Raises:
        BrowserError: If it is invalid; the sentence says why, and what to use.
    """
    domains.check_domains(config.allowed_domains)
    domains.check_arguments(config.chrome_args, config.allowed_domains)
    _check_arguments(config.chrome_args)
    _check_permissions(config.permissions)
    for name, value in config.extra_http_headers:
        if not _HEADER.fullmatch(name) or re.search(r"[\0\r\n]", value):
            raise BrowserError(
                "extra_http_headers holds names of letters, digits and hyphens, and values of one line; "
                f"{name!r} is not so"
            )
    if config.locale is not None and not _LOCALE.fullmatch(config.locale):
        raise BrowserError(f"A locale is a language, and perhaps a region, such as 'de-DE'; not {config.locale!r}")
    if config.timezone_id is not None:
        import zoneinfo  # noqa: PLC0415  # few name a time zone, and everybody who imports runtimed would wait for it

        zones = zoneinfo.available_timezones()  # none where the machine has no list of them
        if zones and config.timezone_id not in zones:
            raise BrowserError(f"A timezone_id is one such as 'Europe/Berlin'; not {config.timezone_id!r}")
    if config.proxy_server is not None and config.allowed_domains is not None:
        raise BrowserError("allowed_domains and proxy exclude each other: a proxy asks whomever it likes")


def _check_arguments(given: Iterable[str]) -> None:
    """Check that no argument is one that the session sets itself, or that an option replaces."""
    for argument in given:
        instead = _SETTLED.get(name_of(argument))
        if instead is not None:
            raise BrowserError(f"chrome_args cannot have {argument!r}; use {instead}", argument=argument)


def _check_permissions(given: Sequence[str]) -> None:
    unknown = [one for one in given if one not in PERMISSIONS]
    if unknown:
        raise BrowserError(f"There is no permission {unknown[0]!r}, only {', '.join(PERMISSIONS)}")


def name_of(argument: str) -> str:
    """Return the name of a switch as Chromium reads it: one dash or two, whatever spaces stand around it."""
    return argument.strip().lstrip("-").partition("=")[0]
