"""`%runtimed browser …`: a notebook's or a terminal's way to a browser session. It blocks, as all magics do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Final, get_args

from IPython.core.error import UsageError
from IPython.display import Markdown

from runtimed.actions import Action
from runtimed.client.browser_session import BrowserSession
from runtimed.ipython.reports import state_of
from runtimed.models import Image
from runtimed.pages import Observation
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
"""What `%runtimed browser` can do, beside the actions of `runtimed.actions`: those are `ACTION field=value …`."""

ACTIONS: Final = tuple(sorted({str(kind.__struct_config__.tag) for kind in get_args(Action)} - BROWSER_COMMANDS.keys()))
"""The actions that have no command of their own."""

_REF: Final = re.compile(r"(f\d+)?d\d+e\d+")
_FIELD: Final = re.compile(r"([a-z_]+)=(.*)", re.DOTALL)


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
        """Do what follows `%runtimed browser`, and return what is to be displayed.

        Args:
            line: What follows.
            label: What people call this client.
            timeout_minutes: Idle minutes after which a session that this starts times out.

        Raises:
            UsageError: If it makes no sense; one sentence says why.
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
            raise UsageError(
                f"%runtimed browser: there is no {name!r}, only {', '.join(BROWSER_COMMANDS)}, and the actions "
                f"{', '.join(ACTIONS)} as `ACTION field=value …`"
            )
        if self._session is None:
            if name == "status":
                self._say("No browser session; `%runtimed browser goto URL` starts one, `browser start ID` joins one")
                return None
            self._start([], label, timeout_minutes)
        assert self._session is not None  # noqa: S101  # _start made it
        return self._ask(self._session, name, arguments)

    def join(self, session_id: str, *, label: str, timeout_minutes: float | None) -> None:
        """Use the session of this id from now on, and say what it is and shows; one that has ended is left as it is."""
        session = BrowserSession(session_id, label=label, timeout_minutes=timeout_minutes)
        self.close()
        self._session = session
        self._status(session)

    def stop(self, session_id: str, *, label: str) -> None:
        """End a session for everybody, the one that is used here or another."""
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

    def _ask(self, session: BrowserSession, name: str, arguments: list[str]) -> Image | Observation | Markdown | None:
        match name:
            case "status":
                self._status(session)
            case "observe":
                scope = next(iter(_at_most(name, arguments, 1)), None)
                return session.observe(scope)
            case "scrape":
                content = session.scrape(next(iter(_at_most(name, arguments, 1)), None))
                return Markdown(content)  # type: ignore[no-untyped-call]  # IPython leaves it unannotated
            case "console" | "requests" | "downloads":
                _at_most(name, arguments, 0)
                self._say("\n".join(map(str, getattr(session, name)())) or "Nothing so far")
            case "view":
                _at_most(name, arguments, 0)
                session.open_viewer()
            case "screenshot":
                if arguments == ["--full-page"]:
                    return session.screenshot(full_page=True)
                if len(arguments) > 2 or "--full-page" in arguments:
                    raise UsageError("%runtimed browser: write screenshot, screenshot --full-page, or screenshot REF")
                return session.screenshot(_target(arguments) if arguments else None)
            case _:
                result = session.execute(type=name, raise_on_failure=True, **_fields(name, arguments))
                has_more = name in ("evaluate_js", "download_file")
                self._say(f"{result.message}\n{result.data}" if has_more else result.message)
        return None

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
        """Leave the session; it lives on. Closing twice is harmless."""
        if self._session is not None:
            self._session.close()
        self._session = None


def _fields(name: str, arguments: list[str]) -> dict[str, Any]:
    """Return the fields of an action from words: `field=value`, and for the common ones what needs no name."""
    plain: list[str] = []
    fields: dict[str, Any] = {}
    for word in arguments:
        match = None if name in ("goto", "click", "fill") else _FIELD.fullmatch(word)
        if match is None:
            plain.append(word)
        else:
            fields[match[1]] = _value(match[2])
    match name, plain:
        case "goto", [url]:
            return {"url": url}
        case "click", [_, *_] if len(plain) <= 2:
            return _target(plain)
        case "fill", [*target, value] if 1 <= len(target) <= 2:
            return {**_target(target), "value": value}
        case _ if name not in ("goto", "click", "fill") and not plain:
            return fields
    usage = {
        "goto": "goto URL",
        "click": 'click REF, click SELECTOR, or click ROLE "NAME"',
        "fill": 'fill REF "TEXT", fill SELECTOR "TEXT", or fill ROLE "NAME" "TEXT"',
    }
    raise UsageError(f"%runtimed browser: write {usage.get(name, f'{name} field=value …')}")


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
