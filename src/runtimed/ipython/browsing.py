"""`%runtimed browser …`: a notebook's or terminal's interface to a browser session. It blocks, as all magics do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

from IPython.core.error import UsageError
from IPython.display import Markdown

from runtimed.actions import Action, parse_action
from runtimed.client import BrowserSession
from runtimed.ipython.reports import state_of
from runtimed.suggestions import did_you_mean
from runtimed.texts import printable

__all__ = ["ACTIONS", "BROWSER_COMMANDS", "Browsing"]

BROWSER_COMMANDS: Final = {
    "start": "start a browser, or join the one of an id",
    "goto": "open an address",
    "observe": "show the page as text, with refs for actions",
    "click": "click an element",
    "fill": "write into a field",
    "scrape": "show the page's content as Markdown",
    "screenshot": "show the page, or an element of it, as a picture",
    "console": "show what pages wrote to their consoles",
    "requests": "show what pages asked for, and the answers",
    "downloads": "show which files were downloaded",
    "view": "watch it live, in your own browser",
    "status": "say which browser this is, and what it shows",
    "stop": "end the browser session for everybody",
}
"""The commands of `%runtimed browser`, beside the actions of `runtimed.actions` in the form `ACTION field=value …`."""

ACTIONS: Final = tuple(sorted({str(kind.__struct_config__.tag) for kind in get_args(Action)} - BROWSER_COMMANDS.keys()))
"""The actions without a command of their own."""

_REF: Final = re.compile(r"(f\d+)?d\d+e\d+")
_KINDS: Final = {kind.__struct_config__.tag: kind for kind in get_args(Action)}
_PLAIN: Final = {
    "goto": "goto URL",
    "click": 'click REF, click SELECTOR, click ROLE "NAME", or click field=value …',
    "fill": 'fill REF "TEXT", fill SELECTOR "TEXT", fill ROLE "NAME" "TEXT", or fill field=value …',
}
"""The short forms of actions whose fields need no names."""
_TEXTS: Final = ("url", "name", "value")
"""Fields whose values are always text."""
_FIELD: Final = re.compile(r"([a-z_]+)=(.*)", re.DOTALL)


class _Text(Markdown):
    """Markdown that a notebook renders and a terminal prints."""

    def __repr__(self) -> str:
        return str(self.data)


class Browsing:
    """The browser session that the magics of one shell use."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._session: BrowserSession | None = None

    @property
    def session_id(self) -> str | None:
        """The session's id; None before there is one."""
        return None if self._session is None else self._session.session_id

    def perform(self, line: str, *, label: str, timeout_minutes: float | None) -> Any:
        """Perform a command, and return what is to be displayed.

        Args:
            line: The text behind `%runtimed browser`.
            label: This client's name for people.
            timeout_minutes: Idle minutes after which a session that this starts times out.

        Raises:
            UsageError: If the command is invalid; one sentence says why.
            ActionFailed: If the page refuses an action.
        """
        try:
            words = shlex.split(line)
        except ValueError as exc:
            raise UsageError(f"%runtimed browser: {str(exc).lower()}") from None
        name, arguments = (words[0], words[1:]) if words else ("status", [])
        if name == "start":
            return self._start(_at_most(name, arguments, 1), label, timeout_minutes)
        if name == "stop":
            _at_most(name, arguments, 0)
            if self.session_id is None:
                self._say("No browser session")
                return None
            return self.stop(self.session_id, label=label)
        if name not in BROWSER_COMMANDS and name not in ACTIONS:
            if meant := did_you_mean(name, [*BROWSER_COMMANDS, *ACTIONS]):
                raise UsageError(f"%runtimed browser: there is no {name!r}.{meant}")
            raise UsageError(
                f"%runtimed browser: there is no {name!r}, only {', '.join(BROWSER_COMMANDS)}, and the actions "
                f"{', '.join(ACTIONS)} as `ACTION field=value …`"
            )
        work = self._work(name, arguments)
        if self._session is None:
            if name == "status":
                self._say("No browser session; `%runtimed browser goto URL` starts one, `browser start ID` joins one")
                return None
            self._start([], label, timeout_minutes)
        assert self._session is not None  # noqa: S101  # _start made it
        return work(self._session)

    def join(self, session_id: str, *, label: str, timeout_minutes: float | None) -> None:
        """Use the session of this id from now on, and print its state; an ended one is not started."""
        session = BrowserSession(session_id, label=label, timeout_minutes=timeout_minutes)
        self.close()
        self._session = session
        self._status(session)

    def stop(self, session_id: str, *, label: str) -> None:
        """End a session for everybody, the one in use here or another."""
        BrowserSession(session_id, label=label).stop()
        self._say(f"Stopped browser session {session_id}")
        if session_id == self.session_id:
            self.close()

    def _start(self, arguments: Sequence[str], label: str, timeout_minutes: float | None) -> None:
        session = BrowserSession(next(iter(arguments), None), label=label, timeout_minutes=timeout_minutes)
        try:
            session.start()
        except BaseException:
            session.close()
            raise
        self.close()
        self._session = session
        self._say(
            f"Browser session {session.session_id} (`runtimed.BrowserSession({str(session.session_id)!r})` joins it "
            "from anywhere)"
        )

    def _work(self, name: str, arguments: list[str]) -> Callable[[BrowserSession], Any]:
        """Return a function that performs the command on a session.

        Raises:
            UsageError: If the command is invalid.
        """
        match name:
            case "observe" | "scrape":
                what = next(iter(_at_most(name, arguments, 1)), None)
                if name == "observe":
                    return lambda session: session.observe(what)
                return lambda session: _Text(session.scrape(what))  # type: ignore[no-untyped-call]  # IPython's
            case "status" | "view" | "console" | "requests" | "downloads":
                _at_most(name, arguments, 0)
                if name == "status":
                    return self._status
                if name == "view":
                    return lambda session: session.open_viewer()
                return lambda session: self._say("\n".join(map(str, getattr(session, name)())) or "Nothing so far")
            case "screenshot":
                if arguments == ["--full-page"]:
                    return lambda session: session.screenshot(full_page=True)
                if len(arguments) > 2 or "--full-page" in arguments:
                    raise UsageError("%runtimed browser: write screenshot, screenshot --full-page, or screenshot REF")
                target = _target(arguments) if arguments else None
                return lambda session: session.screenshot(target)
            case _:
                return self._action(name, _fields(name, arguments))

    def _action(self, name: str, fields: dict[str, Any]) -> Callable[[BrowserSession], None]:
        parse_action(type=name, fields=fields)

        def act(session: BrowserSession) -> None:
            result = session.execute(type=name, raise_on_failure=True, **fields)
            has_more = name in ("evaluate_js", "download_file")
            self._say(f"{result.message}\n{result.data}" if has_more else result.message)

        return act

    def _status(self, session: BrowserSession) -> None:
        status = session.status()
        lines = [f"Browser session {session.session_id}: {state_of(status)}"]
        if status.status == "active":
            lines += [
                f"{'*' if tab.active else ' '} {tab.id}  {tab.title}  {tab.url}"
                for tab in session.observe(depth=1).tabs
            ]
            lines.append(f"Watch it at {session.viewer_url}")
            lines.append("`%runtimed browser observe` shows the page as text, `%runtimed?` what else can be done")
        else:
            lines += [] if status.error is None else [status.error]
            lines.append(
                f"`%runtimed browser start {session.session_id}` starts it again, with the profile that it had"
            )
        self._say("\n".join(lines))

    def close(self) -> None:
        """Leave the session; it lives on. Idempotent."""
        if self._session is not None:
            self._session.close()
        self._session = None


def _fields(name: str, arguments: list[str]) -> dict[str, Any]:
    """Parse the fields of an action: `field=value`, and the short forms of common actions."""
    plain: list[str] = []
    fields: dict[str, Any] = {}
    # A text to fill in may look like a field: only a command that begins with fields means them.
    has_fields = name != "fill" or any(_named(name, word) for word in arguments[:1])
    for word in arguments:
        match = _named(name, word) if has_fields else None
        if match is None:
            plain.append(word)
        else:
            fields[match[1]] = match[2] if name in _PLAIN and match[1] in _TEXTS else _value(match[2])
    match name, plain:
        case "goto", [url]:
            return {"url": url, **fields}
        case "click", [_, *_] if len(plain) <= 2:
            return {**_target(plain), **fields}
        case "fill", [value] if fields:
            return {**fields, "value": value}
        case "fill", [*target, value] if 1 <= len(target) <= 2 and not fields:
            return {**_target(target), "value": value}
        case _ if not plain and (fields or name not in _PLAIN):
            return fields
    raise UsageError(f"%runtimed browser: write {_PLAIN.get(name, f'{name} field=value …')}")


def _named(action: str, word: str) -> re.Match[str] | None:
    """Parse a field of an action with its value; None for other words, such as an address or a selector."""
    match = _FIELD.fullmatch(word)
    if match is None or action not in _PLAIN:
        return match
    is_selector = match[1] == "role" and not match[2].isalpha()  # of Playwright's, with a name in brackets
    return match if match[1] in _KINDS[action].__struct_fields__ and not is_selector else None


def _target(words: list[str]) -> dict[str, str]:
    if len(words) == 2:
        return {"role": words[0], "name": words[1]}
    return {"ref": words[0]} if _REF.fullmatch(words[0]) else {"selector": words[0]}


def _value(text: str) -> str | int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _at_most(name: str, arguments: list[str], count: int) -> list[str]:
    if len(arguments) > count:
        raise UsageError(f"%runtimed browser {name}: {printable(arguments[count])!r} is too much")
    return arguments
