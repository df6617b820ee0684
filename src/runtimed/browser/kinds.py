"""Matches spare browsers with starts, by everything that a running Chromium cannot change. Nothing here starts one.

Everything else (cookies, the folder for downloads, what may be opened) is set at hand-over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtimed.browser.find import find_chromium
from runtimed.errors import BrowserUnavailable
from runtimed.pages import BrowserConfig

__all__ = ["Kind", "kind_of"]

_FIXED: Final = (
    "CHROME",
    "CHROMIUM",
    "DBUS_",
    "FC_",
    "FONTCONFIG_",
    "GOOGLE_",
    "HOME",
    "HOSTALIASES",
    "LANG",
    "LC_",
    "LD_",
    "DYLD_",
    "LIBGL_",
    "LOCALDOMAIN",
    "MALLOC_",
    "GLIBC_",
    "MESA_",
    "NODE_",
    "NSS_",
    "PLAYWRIGHT_",
    "PW",
    "RES_OPTIONS",
    "SSL",
    "TEMP",
    "TMP",
    "TZ",
    "VK_",
    "XDG_",
    # The wrapper around it and its driver may search programs.
    "PATH",
)
"""Prefixes of variables that a headless Chromium, or its driver, reads at its start."""

_PROXIES: Final = ("_proxy", "_PROXY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of spare browser; equal kinds are interchangeable.

    Attributes:
        config: The part of a config that becomes arguments of Chromium; other fields have their defaults.
        variables: The variables that cannot be changed later, by name. Left out of the repr.
        stamp: Changes when Chromium is replaced by another version.
    """

    config: BrowserConfig
    variables: tuple[tuple[str, str], ...] = field(repr=False)
    stamp: tuple[int, int]

    def replaces(self, other: Kind) -> bool:
        """Whether no start will need the other kind any more, as its Chromium was replaced."""
        return dataclasses.replace(other, stamp=self.stamp) == self


def kind_of(config: BrowserConfig, environment: Mapping[str, str]) -> Kind | None:
    """Return the kind of spare that fits a start; None if none can.

    Args:
        config: The configuration of the start.
        environment: The client's environment variables.
    """
    # A window would show before anybody asked for it; a profile exists before its Chromium.
    if not config.headless or config.profile is not None or any(map(_is_for_one_only, config.chrome_args)):
        return None
    try:
        program = find_chromium(config.chromium, environment).program
        status = program.stat()
    except (BrowserUnavailable, OSError):
        return None
    if not program.is_absolute():
        return None
    variables = {
        name: value for name, value in environment.items() if name.startswith(_FIXED) or name.endswith(_PROXIES)
    }
    return Kind(
        config=BrowserConfig(
            chromium=str(program),
            viewport_width=config.viewport_width,
            viewport_height=config.viewport_height,
            user_agent=config.user_agent,
            allowed_domains=config.allowed_domains,
            chrome_args=config.chrome_args,
            locale=config.locale,
            timezone_id=config.timezone_id,
            proxy_server=config.proxy_server,
            proxy_bypass=config.proxy_bypass,
            ignore_https_errors=config.ignore_https_errors,
            device_scale_factor=config.device_scale_factor,
        ),
        variables=tuple(sorted(variables.items())),
        stamp=(status.st_ino, status.st_mtime_ns),
    )


def _is_for_one_only(argument: str) -> bool:
    """Whether two Chromiums with this argument conflict, or one that nobody asked for would be noticed.

    It may name a port or a file of its own, or a page to open.
    """
    name, _, value = argument.partition("=")
    is_path = Path(value).is_absolute() or value.startswith(("./", "../", "~"))
    return not name.startswith("--") or name.startswith("--remote-debugging") or is_path
