"""Tab completion: the scripts for shells, and the candidates. It starts no daemon, and waits for none that hangs."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from runtimed.cli.exits import Exit
from runtimed.cli.parser import COMPLETED_BY, ENVIRONMENTS, make_parser
from runtimed.client import Client
from runtimed.errors import RuntimedError

__all__ = ["answer", "candidates", "completion"]

PATIENCE: Final = 1.0
"""Seconds that Tab waits for each answer of the daemon."""

_BASH: Final = r"""
_runtimed() {
    local IFS=$'\n' program="$1"
    [[ $program == jupyter-runtimed ]] || program=runtimed
    COMPREPLY=($("$program" __complete bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _runtimed runtimed jupyter-runtimed
"""

_ZSH: Final = r"""
_runtimed() {
    local -a found
    found=(${(f)"$(runtimed __complete zsh "${BUFFER[1,CURSOR]}" 2>/dev/null)"})
    if (( $#found )); then compadd -- $found; else _files; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _runtimed runtimed jupyter-runtimed
"""

_SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH}


def completion(arguments: argparse.Namespace) -> int:
    """Print the script for a shell."""
    sys.stdout.write(f'# eval "$(runtimed completion {arguments.shell})"{_SCRIPTS[arguments.shell]}')
    return Exit.OK


def answer(given: Sequence[str]) -> None:
    """Print what can follow a command line, one candidate a line, as the shell will insert it.

    Args:
        given: The shell, and the command line up to the cursor, the command's name included.
    """
    shell, line = (*given, "", "")[:2]
    words, typed = _split(line)
    for candidate in candidates(words[1:], typed):
        # An id that nobody can type, or that would control the terminal, is not offered.
        if candidate.startswith(typed) and candidate.isprintable():
            # zsh quotes what it inserts.
            sys.stdout.write((_as_inserted(candidate, line) if shell == "bash" else candidate) + "\n")


def candidates(words: Sequence[str], typed: str) -> Iterable[str]:
    """Return the words that can follow, at least those that begin with what is typed."""
    parser: argparse.ArgumentParser = make_parser()
    positionals = [action for action in parser._actions if not action.option_strings]
    given: list[str] = []
    valued: argparse.Action | None = None
    seen: set[str] = set()
    for word in words:
        if valued is not None:
            valued = None
        elif word.startswith("-") and word != "-":
            seen.add(word)
            action = parser._option_string_actions.get(word)
            valued = action if action is not None and action.nargs is None else None
        elif positionals and isinstance(positionals[0], argparse._SubParsersAction):
            chosen = positionals[0].choices.get(word)
            if chosen is None:
                return []
            parser, given, seen = chosen, [], set()
            positionals = [action for action in parser._actions if not action.option_strings]
        else:
            given.append(word)
            if positionals and positionals[0].nargs not in ("*", argparse.PARSER):
                positionals = positionals[1:]
    if valued is not None:
        return _values(valued, typed, given)
    options = [
        option
        for action in parser._actions
        if not seen & set(action.option_strings)
        for option in action.option_strings
        if option.startswith("--") and option.startswith(typed)
    ]
    if given and positionals and positionals[0].nargs == argparse.PARSER:  # arguments of a program
        return ()
    if typed.startswith("-"):
        return options
    return [*_values(positionals[0], typed, given)] if positionals else []


def _values(action: argparse.Action, typed: str, given: Sequence[str]) -> Iterable[str]:
    if action.choices is not None:
        return list(action.choices)
    match getattr(action, COMPLETED_BY, None):
        case "session":
            return _ids(lambda client: client.sessions.find(typed))
        case "cell" if given:
            return _ids(lambda client: client.sessions.find_cells(given[0], typed))
        case "env":
            return ENVIRONMENTS
        case _:  # the shell's own: a file
            return ()


def _ids(find: Callable[[Client], Sequence[str]]) -> Sequence[str]:
    try:
        return find(Client(label="runtimed completion", patience=PATIENCE))
    except RuntimedError:
        return []


def _split(line: str) -> tuple[list[str], str]:
    """Return the complete words of a line, and the one at the cursor."""
    for closing in ("", "'", '"'):
        try:
            words = shlex.split(line + closing)
        except ValueError:
            continue
        if not closing and (not line or line[-1].isspace()):
            return words, ""
        return words[:-1], words[-1] if words else ""
    return [], ""


def _as_inserted(candidate: str, line: str) -> str:
    """Return what bash inserts for a candidate: it takes a colon or an equals sign for the end of a word."""
    typed = line.rsplit(None, 1)[-1] if line and not line[-1].isspace() else ""
    if typed[:1] in ("'", '"'):
        return candidate
    after = max(typed.rfind(":"), typed.rfind("=")) + 1
    return shlex.quote(candidate[after:] if candidate.startswith(typed[:after]) else candidate)
