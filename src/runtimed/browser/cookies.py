"""Cookie files: a JSON list, as browsers' extensions and test tools write it. Nothing here talks to a browser."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from runtimed.errors import BrowserError

__all__ = ["MAX_COOKIE_FILE", "check_cookies", "read_cookie_file", "write_cookie_file"]

MAX_COOKIE_FILE: Final = 16 * 2**20
"""Largest cookie file that is read, in bytes."""

_ANCESTOR: Final = "_crHasCrossSiteAncestor"
"""Playwright's field, without which a cookie that is kept apart for each site would come back to the wrong one."""

_SAME_SITE: Final = {
    "strict": "Strict",
    "lax": "Lax",
    "none": "None",
    "no_restriction": "None",
    "unspecified": None,
    "": None,
}
"""What the field is called by others, and by us; None for what the browser does by itself."""


def read_cookie_file(path: Path) -> list[dict[str, Any]]:
    """Read a cookie file; one that does not exist is an empty jar. Cookies that have expired are left out.

    Raises:
        BrowserError: If it holds something else; the sentence says at which place. The file is left as it is.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_COOKIE_FILE + 1)
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise BrowserError(f"The cookie file {path} cannot be read: {exc.strerror}", path=str(path)) from exc
    if len(data) > MAX_COOKIE_FILE:
        raise BrowserError(f"The cookie file {path} has more than {MAX_COOKIE_FILE} bytes", path=str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BrowserError(
            f"The cookie file {path} is not UTF-8 at byte {exc.start}; it is left as it is", path=str(path)
        ) from exc
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as exc:
        where = (
            f"line {exc.lineno}, column {exc.colno}: {exc.msg}" if isinstance(exc, json.JSONDecodeError) else str(exc)
        )
        raise BrowserError(f"The cookie file {path} is no JSON ({where}); it is left as it is", path=str(path)) from exc
    # Playwright's storage state holds them under this key.
    if isinstance(value, dict) and "cookies" in value:
        value = value["cookies"]
    try:
        return check_cookies(value)
    except BrowserError as exc:
        raise BrowserError(f"The cookie file {path}: {exc.message}; it is left as it is", path=str(path)) from exc


def write_cookie_file(path: Path, cookies: Sequence[Mapping[str, Any]]) -> None:
    """Write all cookies, mode 0600, so that a reader sees the old file or the new one, whatever happens.

    Raises:
        OSError: If the folder cannot be written to.
    """
    text = json.dumps([dict(cookie) for cookie in cookies], indent=2, ensure_ascii=False) + "\n"
    path = path.resolve()  # where it is a link, what it leads to is written
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def check_cookies(value: object) -> list[dict[str, Any]]:
    """Return cookies in Playwright's form; those that have expired are left out.

    Args:
        value: A list of objects with `name`, `value`, `domain` or `url`, and perhaps `path`, `expires` or
            `expirationDate` (Unix seconds; -1 or nothing until the browser ends), `httpOnly`, `secure`, `sameSite`.

    Raises:
        BrowserError: If it is none; the sentence names the cookie, by its place from 1, and the field.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BrowserError("cookies are a list of objects")
    now = time.time()
    cookies = []
    for place, one in enumerate(value, 1):
        cookie = _check(one, place)
        if cookie.get("expires", -1) == -1 or cookie["expires"] > now:
            cookies.append(cookie)
    return cookies


def _check(one: object, place: int) -> dict[str, Any]:
    if not isinstance(one, Mapping):
        raise BrowserError(f"cookie {place} is no object", cookie=place)

    def text(field: str) -> str | None:
        found = one.get(field)
        if found is not None and not isinstance(found, str):
            raise BrowserError(f"cookie {place}: {field} is no text", cookie=place, field=field)
        return found

    def flag(field: str) -> bool:
        found = one.get(field, False)
        if not isinstance(found, bool | None):
            raise BrowserError(f"cookie {place}: {field} is neither true nor false", cookie=place, field=field)
        return bool(found)

    name, content = text("name"), text("value")
    domain, url = text("domain"), text("url")
    if name is None or content is None:
        missing = "name" if name is None else "value"
        raise BrowserError(f"cookie {place} has no {missing}", cookie=place, field=missing)
    if not domain and not url:
        raise BrowserError(f"cookie {place} ({name}) has no domain", cookie=place, field="domain")
    cookie: dict[str, Any] = {"name": name, "value": content, "httpOnly": flag("httpOnly"), "secure": flag("secure")}
    if domain:
        cookie |= {"domain": domain, "path": text("path") or "/"}
    else:
        cookie["url"] = url
    expires = one.get("expires", one.get("expirationDate"))
    if isinstance(expires, bool) or not isinstance(expires, int | float | None):
        raise BrowserError(f"cookie {place} ({name}): expires is no number of seconds", cookie=place, field="expires")
    if expires is not None and expires > 0:
        cookie["expires"] = float(expires)
    same_site = text("sameSite") or ""
    if same_site.lower() not in _SAME_SITE:
        raise BrowserError(
            f"cookie {place} ({name}): sameSite is Strict, Lax or None, not {same_site!r}",
            cookie=place,
            field="sameSite",
        )
    known = _SAME_SITE[same_site.lower()]
    if known is not None:
        cookie["sameSite"] = known
    partition = one.get("partitionKey")
    if isinstance(partition, str):
        cookie["partitionKey"] = partition
        if isinstance(ancestor := one.get(_ANCESTOR), bool):
            cookie[_ANCESTOR] = ancestor
    return cookie
