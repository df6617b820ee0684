"""Converts cookies of other tools into Playwright's form. No file is touched here.

A cookie is kept exactly, or refused with its place: it never lasts longer, or goes to more hosts, than written.
Chromium itself limits lifetimes to 400 days.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from runtimed.errors import BrowserError

__all__ = ["check_cookies", "is_netscape", "read_netscape", "write_netscape"]

_ANCESTOR: Final = "_crHasCrossSiteAncestor"
"""Playwright's field, without which a partitioned cookie would come back to the wrong site."""

_SAME_SITE: Final = {
    "strict": "Strict",
    "lax": "Lax",
    "none": "None",
    "no_restriction": "None",
    "unspecified": None,
    "": None,
}
"""Name of a field elsewhere → Playwright's name; None for what the browser sets by itself."""

_DATES: Final = ("expires", "expirationDate", "expiry")
_LAST: Final = 253_402_300_799
"""The last second of the year 9999, in Unix time."""

_HTTP_ONLY: Final = "#HttpOnly_"
_TITLE: Final = "# Netscape HTTP Cookie File"


def check_cookies(value: object) -> list[dict[str, Any]]:
    """Return cookies in Playwright's form.

    Args:
        value: A list of objects with `name`, `value`, `domain` or `url`, and perhaps `path`, `hostOnly`, `httpOnly`,
            `secure`, `sameSite`, `partitionKey`, and until when it lasts: `expires`, `expirationDate` or `expiry` (Unix
            seconds, or a date in ISO's form or HTTP's; -1 or nothing until the browser ends).

    Raises:
        BrowserError: If it is none; the sentence names the cookie, by its place from 1, and the field (attributes
            `cookie`, `field`).
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BrowserError("cookies are a list of objects")
    return [_Reader(one, place).read() for place, one in enumerate(value, 1)]


class _Reader:
    """Reads one cookie; places count from 1."""

    def __init__(self, one: object, place: int) -> None:
        if not isinstance(one, Mapping):
            raise BrowserError(f"cookie {place} is no object", cookie=place)
        self._one = one
        self._place = place
        self._name = ""

    def read(self) -> dict[str, Any]:
        name, content = self._text("name"), self._text("value")
        if name is None or content is None:
            missing = "name" if name is None else "value"
            raise self._error(f"it has no {missing}", missing)
        self._name = f" ({name})"
        cookie: dict[str, Any] = {"name": name, "value": content, "httpOnly": self._flag("httpOnly") or False}
        domain, url, secure = self._text("domain"), self._text("url"), self._flag("secure")
        if domain:
            cookie |= {"domain": self._domain(domain), "path": self._text("path") or "/", "secure": secure or False}
        elif url:
            cookie |= {"url": url} if secure is None else {"url": url, "secure": secure}
            secure = url.lower().startswith("https:") if secure is None else secure
        else:
            raise self._error("it has no domain", "domain")
        if (expires := self._expires()) is not None:
            cookie["expires"] = expires
        same_site = self._text("sameSite") or ""
        if same_site.lower() not in _SAME_SITE:
            raise self._error(f"sameSite is Strict, Lax or None, not {same_site!r}", "sameSite")
        known = _SAME_SITE[same_site.lower()]
        if known == "None" and not secure:
            raise self._error(
                f"sameSite {same_site!r} needs secure, without which no browser keeps it; let secure be true, or "
                "sameSite 'lax'",
                "sameSite",
            )
        return cookie | ({} if known is None else {"sameSite": known}) | self._partition()

    def _error(self, what: str, field: str) -> BrowserError:
        return BrowserError(f"cookie {self._place}{self._name}: {what}", cookie=self._place, field=field)

    def _text(self, field: str) -> str | None:
        found = self._one.get(field)
        if found is not None and not isinstance(found, str):
            raise self._error(f"{field} is no text", field)
        return found

    def _flag(self, field: str) -> bool | None:
        found = self._one.get(field)
        if not isinstance(found, bool | None):
            raise self._error(f"{field} is neither true nor false", field)
        return found

    def _domain(self, domain: str) -> str:
        """Return the domain in Playwright's form: with a dot if it includes subdomains."""
        host_only = self._flag("hostOnly")
        return domain if host_only is None else _with_hosts(domain, below=not host_only)

    def _expires(self) -> float | None:
        """Return the end of its lifetime in Unix seconds; None for a session cookie."""
        given = {field: self._one[field] for field in _DATES if self._one.get(field) is not None}
        times = {field: self._seconds(value, field) for field, value in given.items()}
        ends = [time for time in times.values() if time != -1]
        if ends and max(ends) - min(ends) > 1:
            raise self._error(f"{' and '.join(times)} are different times", next(iter(times)))
        if self._flag("session"):
            if any(end > 0 for end in ends):
                raise self._error("session is true, though there is a date until which it lasts", "session")
            return None
        if 0 in ends:
            raise self._error(
                "a date of 0 is long ago for some tools, and the end of the browser for others; write -1 for that",
                next(iter(times)),
            )
        return max(ends[0], 1.0) if ends else None  # Chromium removes an expired one, as when a page sets it

    def _seconds(self, value: object, field: str) -> float:
        seconds = value
        if isinstance(value, str):
            seconds = _date(value)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise self._error(f"{field} is no number of seconds and no date: {value!r}", field)
        if seconds > _LAST:
            raise self._error(f"{field} is after the year 9999; it counts seconds, not milliseconds", field)
        return float(seconds)

    def _partition(self) -> dict[str, Any]:
        partition: Any = self._one.get("partitionKey")
        ancestor = self._one.get(_ANCESTOR)
        if isinstance(partition, Mapping):
            partition, ancestor = partition.get("topLevelSite"), partition.get("hasCrossSiteAncestor", ancestor)
        if partition is None:
            return {}
        if not isinstance(partition, str) or not isinstance(ancestor, bool | None):
            raise self._error("partitionKey is no site", "partitionKey")
        return {"partitionKey": partition} | ({} if ancestor is None else {_ANCESTOR: ancestor})


def _date(text: str) -> float | None:
    text = text.strip()
    for read in (float, _iso, _http):
        try:
            return read(text)
        except (ValueError, OverflowError):
            continue
    return None


def _iso(text: str) -> float:
    return _in_utc(datetime.fromisoformat(text))


def _http(text: str) -> float:
    return _in_utc(parsedate_to_datetime(text))


def _in_utc(time: datetime) -> float:
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


def _with_hosts(domain: str, *, below: bool) -> str:
    host = domain.removeprefix(".")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return f".{host}" if below else host
    return host  # an IP address has no subdomains


# --- cookies.txt. Source: curl, docs/HTTP-COOKIES.md ---


def is_netscape(text: str) -> bool:
    """Whether a text is a cookies.txt, and not JSON."""
    first = text.lstrip()[:1]
    return first not in ("", "[", "{") and ("\t" in text or text.lstrip().startswith("#"))


def read_netscape(text: str) -> list[dict[str, Any]]:
    """Return the cookies of a cookies.txt in Playwright's form.

    Raises:
        BrowserError: If a line is not a cookie; the sentence says which (attribute `line`).
    """
    cookies = []
    for number, line in enumerate(text.splitlines(), 1):
        is_http_only = line.startswith(_HTTP_ONLY)
        if not line.strip() or (line.startswith("#") and not is_http_only):
            continue
        fields = line.removeprefix(_HTTP_ONLY).split("\t")
        if len(fields) not in (6, 7):
            raise BrowserError(
                f"line {number} has {len(fields)} fields, parted by tabs, where a cookie has 7", line=number
            )
        domain, below, path, secure, expires, name = fields[:6]
        if {below.upper(), secure.upper()} - {"TRUE", "FALSE"}:
            raise BrowserError(f"line {number}: the second and the fourth field are TRUE or FALSE", line=number)
        seconds = _date(expires)
        if seconds is None or not 0 <= seconds <= _LAST:
            raise BrowserError(f"line {number}: {expires!r} is no number of seconds since 1970", line=number)
        if not domain.strip("."):
            raise BrowserError(f"line {number} has no domain", line=number)
        cookie = {
            "name": name,
            "value": fields[6] if len(fields) == 7 else "",
            "domain": _with_hosts(domain, below=below.upper() == "TRUE"),
            "path": path or "/",
            "httpOnly": is_http_only,
            "secure": secure.upper() == "TRUE",
        }
        cookies.append(cookie if seconds == 0 else {**cookie, "expires": seconds})
    return cookies


def write_netscape(cookies: Sequence[Mapping[str, Any]]) -> str:
    """Return cookies, in Playwright's form, as a cookies.txt, which has no field for `sameSite` and partitions."""
    lines = [_TITLE, ""]
    for cookie in cookies:
        domain = str(cookie["domain"])
        ends = math.ceil(cookie.get("expires", -1))
        fields = [
            f"{_HTTP_ONLY if cookie.get('httpOnly') else ''}{domain}",
            "TRUE" if domain.startswith(".") else "FALSE",
            str(cookie["path"]),
            "TRUE" if cookie.get("secure") else "FALSE",
            str(max(ends, 0)),
            str(cookie["name"]),
            str(cookie["value"]),
        ]
        if "partitionKey" not in cookie:  # otherwise it would be sent to more sites
            lines.append("\t".join(fields))
    return "\n".join(lines) + "\n"
