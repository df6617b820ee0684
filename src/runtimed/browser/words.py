"""Sentences for refusals of pages, Playwright and Chromium. Nothing here waits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from playwright.async_api import Error as PlaywrightError
    from playwright.async_api import TimeoutError as PlaywrightTimeout

__all__ = [
    "HIDDEN",
    "WANTS_LOGIN",
    "bad_selector",
    "explain",
    "is_found",
    "late",
    "obstacle",
    "out_of_time",
    "performed",
    "sentence",
    "short",
]

HIDDEN: Final = "is hidden"
"""Obstacles to using an element that may show only after a while."""

_LONG_URL: Final = 300

WANTS_LOGIN: Final = "The site asks for a user and a password (http_credentials), or refuses them"

_REASONS: Final = {
    "ERR_NAME_NOT_RESOLVED": "There is no such host, or no network",
    "ERR_CONNECTION_REFUSED": "Nobody listens there",
    "ERR_INTERNET_DISCONNECTED": "There is no network",
    "ERR_TOO_MANY_REDIRECTS": "The address leads on and on, without an end",
    "ERR_UNSAFE_PORT": "Browsers ask nothing of that port",
    "ERR_CERT_": "Who the site is cannot be trusted: its certificate is not valid (ignore_https_errors takes it)",
    "ERR_INVALID_AUTH_CREDENTIALS": WANTS_LOGIN,
    "ERR_PROXY_CONNECTION_FAILED": "The proxy does not answer",
}
"""Chromium's error of a failed navigation → its meaning. Source: chromium.org, net/base/net_error_list.h."""


_UNREADABLE: Final = re.compile(r"while parsing (css )?selector|InjectedScript\._query|SelectorEvaluatorImpl")
"""Parts of Playwright's errors about a selector: their sentence, or the place in its own code."""

_ADVICE: Final = {
    "Cannot uncheck radio button": "is a radio button, which only another one of its group unchecks",
    "Not a checkbox or radio button": "is no checkbox, radio button or switch; click presses what else there is",
    "Element is not a <select>": "is no list of options of HTML's own; click opens it, and then clicks an option of it",
    "Element is not an <input>": "is no field; click it, and see with observe() whether that opens one",
}
"""Playwright's error for an element of another kind → what can be done."""


def explain(
    exc: PlaywrightError, selectors: Sequence[str | None], allowed_domains: Sequence[str] | None
) -> tuple[str, str]:
    """Return the sentence for one of Playwright's errors, and its kind.

    Args:
        exc: The error.
        selectors: The action's selectors, in order.
        allowed_domains: The only hosts that the session may reach.
    """
    wrong = bad_selector(exc, selectors[-1] if selectors else None)
    if wrong is not None:
        return wrong, "Refused"
    message = sentence(exc)
    several = re.search(r"strict mode violation.* resolved to (\d+) elements", message)
    if several is not None and selectors:
        first = f"{selectors[-1]} >> nth=0"
        advice = f"name one by its ref, by its role and name, or by its place (selector={first!r} is the first)"
        return f"{selectors[-1]!r} finds {several[1]} elements of the page; {advice}", "Refused"
    match = re.search(r"net::(ERR_\w+)", message)
    if match is None:
        other = next((hint for kind, hint in _ADVICE.items() if kind in message), None)
        return (message if other is None else f"{selectors[-1] if selectors else 'It'} {other}"), "Refused"
    if match[1] == "ERR_NAME_NOT_RESOLVED" and allowed_domains is not None:
        message += f"; only {', '.join(allowed_domains) or 'nothing'} may be asked in this session"
    reason = next((words for code, words in _REASONS.items() if match[1].startswith(code)), None)
    return message if reason is None else f"{reason}: {message}", "Navigation"


def bad_selector(exc: PlaywrightError, selector: str | None) -> str | None:
    """Return a sentence about an invalid selector; None if the error is another.

    Args:
        exc: The error.
        selector: The selector, if known.
    """
    if not _UNREADABLE.search(exc.message):
        return None
    said = re.sub(r"\x1b\[[0-9;]*m", "", exc.message).splitlines()[0]
    reason = re.sub(r"^(\w+\.\w+: )?(\w*Error: )?|Did you mean to CSS.escape it\?| >> visible=true", "", said)
    which = "That" if selector is None else repr(selector)
    return (
        f"{which} is no selector: {reason.strip().rstrip('.')}. Write CSS ('form button'), 'text=Buy' or "
        "'role=button[name=\"Buy\"]', or give role= and name="
    )


def out_of_time(exc: PlaywrightTimeout, seconds: float) -> str:
    """Return a sentence about what an action awaited until its time was over."""
    return re.sub(r"Timeout [\d.]+ms exceeded\.?", f"{seconds:g} s have passed", sentence(exc))


def obstacle(exc: PlaywrightTimeout) -> str | None:
    """Return a sentence about what kept an element from being used; None for another cause, or if it was used."""
    steps = [line.strip(" -") for line in exc.message.splitlines()]
    states = [line for line in steps if re.match(r"(element is |<.*intercepts|performing )", line)]
    if len(states) > 1 and states[-1].startswith("element is visible"):
        # It was about to check once more what the pointer would hit.
        states = [state for state in states[-2:] if re.search("intercepts|outside", state)]
    last = states[-1] if states else ""
    covering = re.match(r"(<.*>|<.*) intercepts pointer events", last)
    if covering is not None:
        return f"is covered by {covering[1]}"
    return {
        "element is not enabled": "is disabled",
        "element is not editable": "is read-only",
        "element is inert": "is inert, as what is behind an open dialog",
        "element is not visible": HIDDEN,
        "element is outside of the viewport": "is outside of the view, and does not scroll into it",
    }.get(last)


def is_found(exc: PlaywrightTimeout) -> bool:
    """Whether the element of an awaited condition existed."""
    return "resolved to" in exc.message or "element is not " in exc.message


def performed(exc: PlaywrightTimeout) -> bool:
    """Whether an action took effect though the page did not answer in time."""
    return any(line.strip(" -").startswith("performing ") for line in exc.message.splitlines())


def late(exc: PlaywrightTimeout) -> str:
    """Return a sentence about a page that did not load in time."""
    return f"The page did not load in time ({sentence(exc).rstrip('.')})."


def sentence(exc: PlaywrightError) -> str:
    """Return Playwright's message in one line: the error, and what it awaited last."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", exc.message)
    head, log, *_ = [*re.split(r"Call log:|=+ logs =+", text, maxsplit=1), ""]
    head = re.sub(r"\n +at .*", "", head)  # of code in a page, mostly Playwright's own stack
    first = re.sub(r"^[A-Z]\w+\.\w+: ", "", " ".join(head.split()).strip(" ="))
    steps = [line.strip(" -") for line in log.splitlines() if line.strip(" -=")]
    telling = [line for line in steps if re.search(r"not |intercept|inert|hidden|detached|outside|resolved to", line)]
    return f"{first}: {telling[-1]}" if telling else first


def short(url: str) -> str:
    """Shorten an address for a sentence."""
    return url if len(url) <= _LONG_URL else f"{url[:_LONG_URL]}…"
