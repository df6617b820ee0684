"""Completions for the lines of the magics, and for the code of a `%%runtimed` cell."""

from __future__ import annotations

import builtins
import contextlib
import keyword
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from runtimed.client import Client
from runtimed.errors import RuntimedError
from runtimed.ipython.arguments import COMMANDS, OPTIONS
from runtimed.ipython.asking import DAEMON_PATIENCE, KERNEL_PATIENCE
from runtimed.ipython.browsing import ACTIONS, BROWSER_COMMANDS
from runtimed.ipython.routing import Place, positional

if TYPE_CHECKING:
    from runtimed.ipython.magics import RuntimedMagics

__all__ = ["RuntimedCompleter"]

ENVIRONMENTS: Final = ("auto", "conda:prewarmed", "current", "kernelspec:", "python:", "uv:prewarmed")
KERNEL_TYPES: Final = ("deno", "python")
KERNEL_OPTIONS: Final = ("--env", "--kernel-type")

_PYTHONS: Final = frozenset([*keyword.kwlist, *dir(builtins), "In", "Out", "exit", "quit", "get_ipython"])
"""Names that every kernel has."""

_LINE: Final = re.compile(
    r"\s*(?P<magic>%%runtimed_cell|%runtimed_cell|%%runtimed|%runtimed)\s+(?P<rest>.*)", re.DOTALL
)


class RuntimedCompleter:
    """A matcher for `Completer.custom_matchers`.

    It starts no daemon and no kernel, never raises, and gives up soon if daemon or kernel do not answer.
    """

    def __init__(self, magics: RuntimedMagics) -> None:
        self._magics = magics

    @context_matcher()  # type: ignore[untyped-decorator]  # IPython leaves it unannotated
    def matcher(self, context: CompletionContext) -> SimpleMatcherResult:
        """Return the completions. They replace IPython's own, which are names of this kernel."""
        try:
            return self._complete(context)
        except RuntimedError:
            return _result([], "", "")

    def _complete(self, context: CompletionContext) -> SimpleMatcherResult:
        lines = context.full_text.split("\n")
        line = _LINE.fullmatch(context.text_until_cursor)
        if line is None or (line["magic"].startswith("%%") and "".join(lines[: context.cursor_line]).strip()):
            before = "\n".join([*lines[: context.cursor_line], context.text_until_cursor])
            place = self._magics.router.place(context.full_text, len(before))
            return _result([], "", "") if place is None else self._code(place, context.token)
        words = line["rest"].split(" ")
        typed = words[-1]
        return _result(self._words(line["magic"], [word for word in words[:-1] if word], typed), typed, "param")

    def _words(self, magic: str, words: list[str], typed: str) -> Iterable[str]:
        """Return the possible next words, at least those that begin with what is typed."""
        match words[-1:]:
            case ["--cell"]:
                return self._cell_ids(typed, words[:-1])
            case ["--env"]:
                return ENVIRONMENTS
            case ["--kernel-type"]:
                return KERNEL_TYPES
            case ["--out"]:
                return self._local_names()
            case ["--timeout" | "--as"]:
                return ()
        plain = positional(words)
        left = [option for option in OPTIONS if option not in words]
        match magic.strip("%"):
            case "runtimed_cell":
                left = [option for option in left if option != "--cell"]
                ids = [self._cell_ids, _notebooks]
                return [*(ids[len(plain)](typed) if len(plain) < len(ids) else ()), *left]
            case _ if magic == "%%runtimed":
                return [*(() if plain else _notebooks(typed)), *left]
            case _:
                return self._command_words(plain, words, typed)

    def _command_words(self, plain: list[str], words: list[str], typed: str) -> Iterable[str]:
        match plain:
            case []:
                return COMMANDS
            case ["connect"]:
                return [*_sessions(typed), *KERNEL_OPTIONS]
            case ["connect", _]:
                return [option for option in KERNEL_OPTIONS if option not in words]
            case ["replay"]:
                return self._cell_ids(typed)
            case ["on"]:
                return _notebooks(typed)
            case ["env"]:
                return ["trust", *_notebooks(typed)]
            case ["browser"]:
                return (*BROWSER_COMMANDS, *ACTIONS)
            case ["browser", "start"]:
                return _sessions(typed, status="active", kind="browser")
            case ["push", *names]:
                return [*(name for name in self._local_names() if name not in names), "--as"]
            case ["pull", *names]:
                return [*(name for name in self._remote_names(typed) if name not in names), "--as"]
            case ["stop"]:
                return _sessions(typed)
            case ["replay", _] | ["cells" | "interrupt" | "restart"] | ["env", "trust"]:
                return _notebooks(typed)
            case _:
                return ()

    def _local_names(self) -> list[str]:
        return [name for name in self._magics.namespace if not name.startswith("_")]

    def _remote_names(self, typed: str) -> list[str]:
        """Return names of the session's kernel that begin with what is typed, but for those of Python itself."""
        notebook_id = self._notebook([])
        if notebook_id is None:
            return []
        try:
            reply = Client(patience=KERNEL_PATIENCE).sessions.complete(notebook_id, typed)
        except RuntimedError:
            return []
        return [name for name in reply["matches"] if name.isidentifier() and name not in _PYTHONS]

    def _cell_ids(self, typed: str, words: Iterable[str] = ()) -> list[str]:
        notebook_id = self._notebook(positional(list(words)))
        if notebook_id is None:
            return []
        return _quoted(lambda client: client.sessions.find_cells(notebook_id, _unquoted(typed)))

    def _notebook(self, plain: list[str]) -> str | None:
        return self._magics.chosen(plain[0] if plain else None)

    def _code(self, place: Place, typed: str) -> SimpleMatcherResult:
        """Ask the session's kernel, which knows the names of its own code."""
        matches: list[str] = []
        with contextlib.suppress(RuntimedError):
            notebook_id = self._notebook([] if place.notebook_id is None else [place.notebook_id])
            if notebook_id is not None:
                reply = Client(patience=KERNEL_PATIENCE).sessions.complete(notebook_id, place.code, place.cursor)
                matches = reply["matches"]
                typed = place.code[reply["cursor_start"] : place.cursor] if matches else typed
        # With nothing to offer, IPython would hear the others, who know the names of this kernel: what is typed changes
        # nothing.
        found = _result(matches or [typed], typed, "")
        # `%runtimed` and `%%local` are magics of this shell.
        return SimpleMatcherResult({**found, "suppress": not typed.startswith("%")})


def _quoted(find: Callable[[Client], Sequence[str]]) -> list[str]:
    """Return ids in shell quotes; none if the daemon does not answer."""
    try:
        return [shlex.quote(found) for found in find(Client(patience=DAEMON_PATIENCE))]
    except RuntimedError:
        # Options need no daemon, and are completed in any case.
        return []


def _sessions(
    typed: str, *, status: Literal["active"] | None = None, kind: Literal["kernel", "browser"] | None = None
) -> list[str]:
    return _quoted(lambda client: client.sessions.find(_unquoted(typed), status, kind))


def _notebooks(typed: str) -> list[str]:
    return _sessions(typed, kind="kernel")


def _unquoted(typed: str) -> str:
    """Return the beginning of an id from the beginning of its form in shell quotes."""
    return typed.removeprefix("'").split("'")[0]


def _result(candidates: Iterable[str], typed: str, kind: str) -> SimpleMatcherResult:
    # An id that nobody can type, or that would control the terminal, is not offered.
    fitting = [text for text in candidates if text.startswith(typed) and text.isprintable()]
    return SimpleMatcherResult(
        completions=[SimpleCompletion(text=text, type=kind or "unknown") for text in fitting],
        suppress=True,
        matched_fragment=typed,
    )
