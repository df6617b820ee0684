"""Performs a kernel's requests to the frontend: the next input, as of `%load` and `%recall`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runtimed.display import show_note
from runtimed.texts import printable

__all__ = ["act_on"]


def act_on(shell: Any, payload: Iterable[Mapping[str, Any]], header: str) -> None:
    """Give a next input to the shell, and print the name of a file to be edited.

    A session's pages are among the outputs, and its host handles `exit()`.

    Args:
        shell: The IPython shell.
        payload: As `ExecutionResult.payload`.
        header: The line above the code in this shell; empty if `%runtimed on` adds it.
    """
    for entry in payload:
        match entry:
            case {"source": "set_next_input", "text": str(text)}:
                # In a notebook with `replace`, this cell becomes the text, and must go to the same session again.
                shell.set_next_input(f"{header}\n{text}" if header else text, replace=entry.get("replace") is True)
            case {"source": "edit_magic", "filename": str(name)}:
                show_note(printable(f"[the session's kernel asks to edit {name}]"))
            case _:
                pass
