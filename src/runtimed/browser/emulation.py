"""Emulation: the place, language, time and permissions that a session's pages see.

Chromium gets at its start what cannot be set later (`arguments`, `variables`), and the rest afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.async_api import Error as PlaywrightError

from runtimed.errors import BrowserError
from runtimed.pages import BrowserConfig

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, ViewportSize

    from runtimed.browser.open_tab import OpenTab

__all__ = ["arguments", "emulate", "emulate_in", "variables"]


def arguments(config: BrowserConfig) -> list[str]:
    """Return the arguments of Chromium for a config."""
    found = []
    if config.locale is not None:
        language = config.locale.partition("-")[0]
        found.append(f"--accept-lang={config.locale}" + (f",{language}" if language != config.locale else ""))
    if config.proxy_server is not None:
        found.append(f"--proxy-server={config.proxy_server}")
    if config.proxy_bypass is not None:
        found.append(f"--proxy-bypass-list={config.proxy_bypass.replace(',', ';')}")
    if config.ignore_https_errors:
        found.append("--ignore-certificate-errors")
    if config.device_scale_factor is not None:
        found.append(f"--force-device-scale-factor={config.device_scale_factor}")
    return found


def variables(config: BrowserConfig) -> dict[str, str]:
    """Return the environment variables of Chromium for a config."""
    return {} if config.timezone_id is None else {"TZ": config.timezone_id}


async def emulate(context: BrowserContext, config: BrowserConfig) -> None:
    """Configure a running browser's emulation.

    Raises:
        BrowserError: If this Chromium does not know a permission.
    """
    if config.extra_http_headers:
        await context.set_extra_http_headers(dict(config.extra_http_headers))
    permissions = list(config.permissions)
    if config.geolocation is not None:
        latitude, longitude, accuracy = config.geolocation
        await context.set_geolocation({"latitude": latitude, "longitude": longitude, "accuracy": accuracy})
        permissions.append("geolocation")
    if permissions:
        try:
            await context.grant_permissions(permissions)
        except PlaywrightError as exc:
            raise BrowserError(f"The permissions cannot be given: {exc.message}") from exc


async def emulate_in(tab: OpenTab, config: BrowserConfig) -> None:
    """Configure a new tab's emulation.

    Raises:
        playwright.async_api.Error: If the tab is gone.
    """
    size: ViewportSize = {"width": config.viewport_width, "height": config.viewport_height}
    if config.device_scale_factor is None:
        await tab.page.set_viewport_size(size)
    elif tab.cdp is not None:
        # 0 is the scale that Chromium was started with; Playwright would say 1. With a scale that is said here, clicks
        # in a tab that has gone to another site hit other elements at times (5 of 57 on a busy machine).
        await tab.cdp.send("Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": 0, "mobile": False})
    if tab.cdp is None:
        return
    if config.locale is not None:
        try:
            await tab.cdp.send("Emulation.setLocaleOverride", {"locale": config.locale})
        except PlaywrightError as exc:
            if "Another locale override" not in exc.message:  # of a tab in the same process: the same one
                raise
