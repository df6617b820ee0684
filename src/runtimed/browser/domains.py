"""The allow-list of hosts: rules for addresses, and the arguments by which Chromium itself enforces them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from runtimed.errors import BrowserError

__all__ = ["arguments", "check_arguments", "check_domains", "refusal"]

_INERT: Final = frozenset({"about", "data", "blob", "javascript"})
"""Schemes that send no request."""

_GUARD: Final = frozenset({
    "force-webrtc-ip-handling-policy",
    "host-resolver-rules",
    "host-rules",
    "proxy-auto-detect",
    "proxy-bypass-list",
    "proxy-pac-url",
    "proxy-server",
    "webrtc-ip-handling-policy",
})  # fmt: skip
"""Names of arguments that change the hosts to which Chromium connects. Source: chromium.org, "List of Chromium Command
Line Switches".
"""


def check_domains(domains: Sequence[str] | None) -> None:
    """Check that each domain is a host name or an address.

    Raises:
        BrowserError: If one is not (attribute `domain`).
    """
    for domain in domains or ():
        name = domain.removeprefix("*.")
        if not name or any(character in name for character in " */,:?#@\\") or name != name.strip("."):
            raise BrowserError(
                f"allowed_domains holds host names such as 'example.com', subdomains included; not {domain!r}",
                domain=domain,
            )


def arguments(domains: Sequence[str] | None) -> list[str]:
    """Return the arguments that let Chromium reach no other host: no request of any kind leaves, WebRTC included."""
    if domains is None:
        return []
    names = [domain.removeprefix("*.").lower() for domain in domains]
    exceptions = "".join(f", EXCLUDE {name}, EXCLUDE *.{name}" for name in names)
    return [
        f"--host-resolver-rules=MAP * ~NOTFOUND{exceptions}",
        # WebRTC connects to addresses without name resolution. Chromium versions know one name or the other.
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--no-proxy-server",  # a proxy would resolve the names
    ]


def check_arguments(given: Sequence[str], domains: Sequence[str] | None) -> None:
    """Check that no argument overrides one that keeps Chromium from other hosts.

    Args:
        given: More arguments for Chromium, which takes the last one of a name.
        domains: The allowed domains; None for all.

    Raises:
        BrowserError: If one does (attribute `argument`).
    """
    if domains is None:
        return
    for argument in given:
        # To Chromium one dash equals two, and spaces around an argument are ignored.
        name = argument.strip().lstrip("-").partition("=")[0]
        if name in _GUARD:
            raise BrowserError(
                f"chrome_args cannot have {argument!r} beside allowed_domains, which it would undo",
                argument=argument,
            )


def refusal(url: str, domains: Sequence[str] | None, *, allow_files: bool) -> str | None:
    """Return a sentence that says why an address must not be opened; None if it may."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
    except ValueError as exc:
        return f"{url!r} is no address: {exc}"
    scheme = parts.scheme.lower()
    if scheme in _INERT:
        return None
    if scheme == "file":
        return None if allow_files else "file: addresses are not opened; this session was not started with allow_files"
    if scheme not in {"http", "https", "ws", "wss"}:
        return f"{scheme}: addresses are not opened"
    if domains is None:
        return None
    names = [domain.removeprefix("*.").lower() for domain in domains]
    if any(host == name or host.endswith(f".{name}") for name in names):
        return None
    return f"{host or repr(url)} is not among the allowed domains of this session ({', '.join(domains) or 'none'})"
