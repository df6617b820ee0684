"""What Tab offers on the lines of the magics, and in the code of a `%%runtimed` cell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from runtimed.client import calls
from runtimed.client.client import Client, SessionKind, SessionState
from runtimed.client.session import Session
from runtimed.errors import RuntimedError
from runtimed.ipython.arguments import COMMANDS, OPTIONS, VALUED_OPTIONS
from runtimed.ipython.browsing import ACTIONS, BROWSER_COMMANDS

if TYPE_CHECKING:
    from runtimed.ipython.magics import RuntimedMagics

__all__ = ["RuntimedCompleter"]

ENVIRONMENTS: Final = ("auto", "conda:prewarmed", "current", "kernelspec:", "python:", "uv:prewarmed")
KERNEL_TYPES: Final = ("deno", "python")
KERNEL_OPTIONS: Final = ("--env", "--kernel-type")

_LINE: Final = re.compile(
    r"\s*(?P<magic>%%runtimed_cell|%runtimed_cell|%%runtimed|%runtimed)\s+(?P<rest>.*)", re.DOTALL
)
_HEADER: Final = re.compile(r"\s*%%runtimed(_cell)?(?P<rest>[^\S\n][^\n]*)?\n")


class RuntimedCompleter:
    """A matcher for `Completer.custom_matchers`. It starts no daemon and no kernel, and never raises."""

    def __init__(self, magics: RuntimedMagics) -> None:
        self._magics = magics

    @context_matcher()  # type: ignore[untyped-decorator]  # IPython leaves it unannotated
    def matcher(self, context: CompletionContext) -> SimpleMatcherResult:
        """Return what fits; it takes the place of what IPython would offer, which is names of this kernel."""
        try:
            return self._complete(context)
        except RuntimedError:
            return _result([], "", "")

    def _complete(self, context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        before = "\n".join([*lines[: context.cursor_line], context.text_until_cursor])
        header = _HEADER.match(before)
        if header is not None:
            return self._code(header["rest"] or "", context.full_text[header.end() :], before[header.end() :])
        line = _LINE.fullmatch(context.text_until_cursor)
        if line is None or (line["magic"].startswith("%%") and "".join(lines[: context.cursor_line]).strip()):
            return _result([], "", "")
        words = line["rest"].split(" ")
        return _result(self._words(line["magic"], [word for word in words[:-1] if word]), words[-1], "param")

    def _words(self, magic: str, words: list[str]) -> Iterable[str]:
        """Return everything that can follow these words."""
        match words[-1:]:
            case ["--cell"]:
                return self._cell_ids(words[:-1])
            case ["--env"]:
                return ENVIRONMENTS
            case ["--kernel-type"]:
                return KERNEL_TYPES
            case ["--out"]:
                return [name for name in self._magics.namespace if not name.startswith("_")]
            case ["--timeout"]:
                return ()
        plain = _positional(words)
        left = [option for option in OPTIONS if option not in words]
        match magic.strip("%"):
            case "runtimed_cell":
                left = [option for option in left if option != "--cell"]
                ids = [self._cell_ids, self._session_ids]
                return [*(ids[len(plain)](()) if len(plain) < len(ids) else ()), *left]
            case _ if magic == "%%runtimed":
                return [*(() if plain else self._session_ids()), *left]
            case _:
                return self._command_words(plain, words)

    def _command_words(self, plain: list[str], words: list[str]) -> Iterable[str]:
        match plain:
            case []:
                return COMMANDS
            case ["connect"]:
                return [*_ids(), *KERNEL_OPTIONS]
            case ["connect", _]:
                return [option for option in KERNEL_OPTIONS if option not in words]
            case ["replay"]:
                return self._cell_ids()
            case ["env"]:
                return ["trust", *self._session_ids()]
            case ["browser"]:
                return (*BROWSER_COMMANDS, *ACTIONS)
            case ["browser", "start"]:
                return _ids(kind="browser", status="active")
            case ["stop"]:
                return _ids()
            case ["replay", _] | ["cells" | "interrupt" | "restart"] | ["env", "trust"]:
                return self._session_ids()
            case _:
                return ()

    def _session_ids(self, _words: Iterable[str] = ()) -> list[str]:
        return _ids(kind="kernel")

    def _cell_ids(self, words: Iterable[str] = ()) -> list[str]:
        session = self._session(_positional(list(words)))
        return (
            []
            if session is None
            else [shlex.quote(cell_id) for cell_id in session._apart(calls.get_cell_ids(session._notebook))]
        )

    def _session(self, plain: list[str]) -> Session | None:
        notebook_id = self._magics._chosen(plain[0] if plain else None)
        return None if notebook_id is None else Session(notebook_id)

    def _code(self, rest: str, code: str, before: str) -> SimpleMatcherResult:
        """Ask the session's kernel, which knows the names of its own code."""
        session = self._session(_positional(rest.split()))
        if session is None:
            return _result([], "", "")
        reply = session._apart(calls.complete(session._notebook, code, len(before)))
        return _result(reply["matches"], before[reply["cursor_start"] :], "")


def _positional(words: list[str]) -> list[str]:
    """Return the words that are neither options nor values of options."""
    return [
        word
        for previous, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and previous not in VALUED_OPTIONS
    ]


def _ids(kind: SessionKind | None = None, status: SessionState | None = None) -> list[str]:
    return [shlex.quote(found.session_id) for found in Client().sessions.list(kind=kind, status=status)]


def _result(candidates: Iterable[str], typed: str, kind: str) -> SimpleMatcherResult:
    # An id that nobody can type, or that would do something to the terminal, is not offered.
    fitting = [text for text in candidates if text.startswith(typed) and text.isprintable()]
    return SimpleMatcherResult(
        completions=[SimpleCompletion(text=text, type=kind or "unknown") for text in fitting],
        suppress=True,
        matched_fragment=typed,
    )
