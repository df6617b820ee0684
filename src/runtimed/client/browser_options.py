"""Reads the structured options of a browser session."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from runtimed.errors import SessionError
from runtimed.pages import BrowserConfig

__all__ = ["as_options", "read_credentials", "read_geolocation", "read_headers", "read_proxy", "read_scale"]


_ELSEWHERE: Final = ("profiles_dir", "proxy_server", "proxy_bypass", "proxy_login")
"""Fields of a config that are no options by themselves."""


def as_options(config: BrowserConfig) -> dict[str, Any]:
    """Return the options of a `BrowserSession` with this config."""
    options = {name: getattr(config, name) for name in config.__struct_fields__ if name not in _ELSEWHERE}
    if config.geolocation is not None:
        options["geolocation"] = dict(zip(("latitude", "longitude", "accuracy"), config.geolocation, strict=True))
    options["extra_http_headers"] = dict(config.extra_http_headers)
    if config.http_credentials is not None:
        user, password, origin = config.http_credentials
        only = {} if origin is None else {"origin": origin}
        options["http_credentials"] = {"username": user, "password": password} | only
    if config.proxy_server is not None:
        options["proxy"] = proxy = {"server": config.proxy_server}
        if config.proxy_bypass is not None:
            proxy["bypass"] = config.proxy_bypass
        if config.proxy_login is not None:
            proxy["username"], proxy["password"] = config.proxy_login
    return options


def read_geolocation(given: Mapping[str, float] | None) -> tuple[float, float, float] | None:
    """Return latitude and longitude in degrees, and accuracy in metres.

    Raises:
        SessionError: If they are no position.
    """
    if given is None:
        return None
    _check_names("geolocation", given, ("latitude", "longitude"), ("accuracy",))
    place = (given["latitude"], given["longitude"], given.get("accuracy", 0))
    limits = (90.0, 180.0, math.inf)
    if not all(_is_number(one) and abs(one) <= limit for one, limit in zip(place, limits, strict=True)) or place[2] < 0:
        raise SessionError(f"geolocation is a latitude up to 90 and a longitude up to 180 degrees, not {dict(given)!r}")
    return place


def read_headers(given: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Return headers.

    Raises:
        SessionError: If one is no text, or has several lines.
    """
    headers = tuple((given or {}).items())
    for name, value in headers:
        if not all(isinstance(one, str) and "\n" not in one and "\r" not in one for one in (name, value)) or not name:
            raise SessionError(f"extra_http_headers holds names and values, texts of one line; {name!r} does not")
    return headers


def read_scale(given: float | None) -> float | None:
    """Return the device pixels per CSS pixel.

    Raises:
        SessionError: If the number is invalid.
    """
    if given is not None and not (_is_number(given) and 0 < given <= 10):
        raise SessionError(f"device_scale_factor is a number above 0, at most 10, not {given!r}")
    return given


def read_credentials(given: Mapping[str, str] | tuple[str, str] | None) -> tuple[str, str, str | None] | None:
    """Return user, password and the only origin that gets them; None for any.

    Raises:
        SessionError: If a field is missing or unknown.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        if isinstance(given, str) or len(given) != 2 or not all(isinstance(one, str) for one in given):
            raise SessionError("http_credentials are a user and a password")
        return given[0], given[1], None
    _check_names("http_credentials", given, ("username", "password"), ("origin",))
    return given["username"], given["password"], given.get("origin")


def read_proxy(given: str | Mapping[str, str] | None) -> dict[str, Any]:
    """Return the fields of a `BrowserConfig` for a proxy, whose address may contain its login.

    Raises:
        SessionError: If it is no proxy.
    """
    if given is None:
        return {}
    options = {"server": given} if isinstance(given, str) else given
    _check_names("proxy", options, ("server",), ("bypass", "username", "password"))
    server = options["server"] if "://" in options["server"] else f"http://{options['server']}"
    try:
        parts = urlsplit(server)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise SessionError(f"The server of a proxy is an address such as 'http://host:3128': {exc}") from None
    if not host or parts.scheme not in ("http", "https", "socks4", "socks5"):
        raise SessionError("The server of a proxy is an address such as 'http://host:3128' or 'socks5://host:1080'")
    user = options.get("username", unquote(parts.username or ""))
    where = f"[{host}]" if ":" in host else host
    return {
        "proxy_server": f"{parts.scheme}://{where}" + ("" if port is None else f":{port}"),
        "proxy_bypass": options.get("bypass"),
        "proxy_login": (user, options.get("password", unquote(parts.password or ""))) if user else None,
    }


def _check_names(what: str, given: Mapping[str, Any], needed: tuple[str, ...], more: tuple[str, ...]) -> None:
    if not isinstance(given, Mapping) or set(given) - {*needed, *more} or set(needed) - set(given):
        raise SessionError(f"{what} is a dict with {', '.join(needed)}, and perhaps {', '.join(more)}, nothing else")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
