"""The configuration of a browser session as its events keep it: without passwords. Nothing here does I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from runtimed.pages import BrowserConfig

__all__ = ["record", "restore"]

_LOGINS: Final = {"proxy_login": "the proxy", "http_credentials": "sites"}
"""Fields with a user and a password → what asks for them."""

_SECRET: Final = re.compile("auth|cookie|credential|key|pass|secret|session|signature|token", re.IGNORECASE)
"""Parts of the names of headers whose values are credentials."""


def record(config: BrowserConfig) -> dict[str, Any]:
    """Return a config for storage: None replaces each password, and each header that is a credential."""
    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(config, profiles_dir=None))
    for field in _LOGINS:
        if field in found:
            user, _, *rest = found[field]
            found[field] = [user, None, *rest]
    if config.extra_http_headers:
        found["extra_http_headers"] = [
            [name, None if _SECRET.search(name) else value] for name, value in config.extra_http_headers
        ]
    return found


def restore(recorded: Mapping[str, Any], ask: Callable[[str], str]) -> BrowserConfig:
    """Return the config that was recorded.

    Args:
        recorded: See `record`.
        ask: Returns a missing value, given its description.

    Raises:
        msgspec.ValidationError: If that is no config.
    """
    whole = dict(recorded)
    for field, asker in _LOGINS.items():
        if field in whole:
            user, _, *rest = whole[field]
            whole[field] = [user, ask(f"the password of {user} for {asker}"), *rest]
    if "extra_http_headers" in whole:
        whole["extra_http_headers"] = [
            [name, ask(f"the header {name}") if value is None else value] for name, value in whole["extra_http_headers"]
        ]
    return msgspec.convert(whole, BrowserConfig)
