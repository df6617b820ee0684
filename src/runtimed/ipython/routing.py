"""Decides which cells of a notebook or terminal run in a session: those under `%%runtimed`, or all after it is on.

Nothing here does I/O.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from IPython.core.error import UsageError
from pygments.token import Token

from runtimed.ipython.arguments import VALUED_OPTIONS
from runtimed.notebook_names import short_name
from runtimed.texts import printable

__all__ = ["Place", "Router", "positional"]

_HEADER: Final = re.compile(r"\s*%%runtimed(?P<cell>_cell)?(?P<rest>[^\S\n][^\n]*)?\n")
_LOCAL_CELL: Final = re.compile(r"%%local\s*$")
_OWN_CELL: Final = re.compile(r"\?{0,2}%%(runtimed|runtimed_cell|local)(?![\w.])")
_OWN_LINE: Final = re.compile(
    r"\?{0,2}%(runtimed(_cell)?(?![\w.])|((re|un)?load_ext)\s+runtimed\s*$|config\s+RuntimedMagics\b)"
)
_LEAVE: Final = re.compile(r"(exit|quit)(\(\))?\s*$")


class Place(NamedTuple):
    """The position of a cursor in code that runs in a session.

    Attributes:
        notebook_id: The session that the cell names; None for the default one.
        code: The session's part of the cell.
        cursor: The cursor's position in it, in code points.
    """

    notebook_id: str | None
    code: str
    cursor: int


class Router:
    """Sends the cells of a shell to its session while it is on.

    Attributes:
        on: Whether every cell goes to the session unless it says otherwise.
    """

    def __init__(self, shell: Any, current: Callable[[], str | None]) -> None:
        """Create a router that is off.

        Args:
            shell: The IPython shell.
            current: Returns the id of the session that cells go to.
        """
        self._shell = shell
        self._current = current
        self._is_terminal = getattr(shell, "kernel", None) is None
        self.on = False

    def install(self) -> None:
        """Transform each cell before it runs, and show in a terminal's prompt where it goes."""
        self._shell.input_transformers_cleanup.append(self.transform)
        prompts = getattr(self._shell, "prompts", None)
        if prompts is not None:
            prompts.in_prompt_tokens = partial(self._prompt, prompts.in_prompt_tokens)

    def remove(self) -> None:
        """Undo `install`."""
        self.on = False
        transformers = self._shell.input_transformers_cleanup
        transformers[:] = [found for found in transformers if found != self.transform]
        prompts = getattr(self._shell, "prompts", None)
        if prompts is not None:
            vars(prompts).pop("in_prompt_tokens", None)  # uncovers the method of its class

    def transform(self, lines: list[str]) -> list[str]:
        """Put `%%runtimed` above a cell for the session, and remove `%%local` from one for this shell.

        Raises:
            UsageError: If a cell has lines for both.
        """
        first = next((number for number, line in enumerate(lines) if line.strip()), None)
        if first is None:
            return lines
        if _LOCAL_CELL.match(lines[first]):
            return lines[first + 1 :]
        if not self.on or self._is_background():
            return lines
        if self._stays_here(lines[first:]):
            return lines
        if any(_OWN_LINE.match(line.strip()) for line in lines):
            raise UsageError(
                "every cell goes to the session now (`%runtimed off` ends that), and `%runtimed` works here: put it "
                "into a cell of its own"
            )
        return ["%%runtimed\n", *lines[first:]]

    # A terminal asks after each line whether the cell is complete, which does not depend on where it runs.
    transform.has_side_effects = True  # type: ignore[attr-defined]  # IPython's way to say so: an attribute of a function

    def whole_cell(self) -> str | None:
        """Return the running cell as the frontend has it, if all of it goes to the session.

        Returns:
            None if a magic says where it runs, and in a terminal.
        """
        code = self._request().get("code")
        if not self.on or not isinstance(code, str) or self._stays_here(code.lstrip().splitlines() or [""]):
            return None
        return code

    def show_place(self, notebook_id: str) -> None:
        """Show above the outputs of a notebook's cell where it runs; a terminal's prompt shows it."""
        if self._is_terminal:
            return
        text = f"in session {printable(notebook_id)}"
        markup = f'<small style="opacity: 0.6">{html.escape(text)}</small>'
        self._shell.display_pub.publish({"text/plain": text, "text/html": markup})

    def place(self, text: str, cursor: int) -> Place | None:
        """Return the position of a cursor in code of a session; None in code that runs here, and in a magic's own line.

        Args:
            text: The whole cell.
            cursor: The cursor's position in it, in code points.
        """
        header = _HEADER.match(text)
        if header is not None:
            if cursor < header.end():
                return None
            words = positional((header["rest"] or "").split())
            names = words[1:] if header["cell"] else words
            return Place(names[0] if names else None, text[header.end() :], cursor - header.end())
        if not self.on or self._stays_here(text.lstrip().splitlines() or [""]):
            return None
        return Place(None, text, cursor)

    def _prompt(self, tokens: Callable[[], list[tuple[Any, str]]]) -> list[tuple[Any, str]]:
        """Return a terminal's prompt, with the session of the next cell in front."""
        notebook_id = self._current() if self.on else None
        mark = [] if notebook_id is None else [(Token.Prompt, f"{printable(short_name(notebook_id))} ")]
        return [*mark, *tokens()]

    def _stays_here(self, lines: Sequence[str]) -> bool:
        """Whether a cell, which begins with its first non-blank line, is for this shell."""
        if _OWN_CELL.match(lines[0]):
            return True
        code = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if self._is_terminal and len(code) == 1 and _LEAVE.match(code[0]):
            return True
        return bool(code) and all(_OWN_LINE.match(line) for line in code)

    def _is_background(self) -> bool:
        """Whether the frontend runs something by itself, such as for a list of variables."""
        content = self._request()
        return bool(content.get("silent")) or content.get("store_history") is False

    def _request(self) -> Mapping[str, Any]:
        """Return the content of the request that runs; empty in a terminal."""
        get_parent = getattr(self._shell, "get_parent", None)
        return {} if get_parent is None else (get_parent() or {}).get("content") or {}


def positional(words: Sequence[str]) -> list[str]:
    """Return the words that are neither options of the magics nor values of options."""
    return [
        word
        for previous, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and previous not in VALUED_OPTIONS
    ]
