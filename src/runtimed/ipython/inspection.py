"""Shift-Tab in the code of a session's cell: the session's kernel knows the names of its own code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from runtimed.client import Client
from runtimed.errors import RuntimedError
from runtimed.ipython.asking import KERNEL_PATIENCE

if TYPE_CHECKING:
    from runtimed.ipython.magics import RuntimedMagics

__all__ = ["Inspector"]

logger = logging.getLogger(__name__)


class Inspector:
    """Replaces a kernel's `do_inspect`, the only part of a kernel that gets the code and the position."""

    def __init__(self, magics: RuntimedMagics, local: Callable[..., Any]) -> None:
        """Describe whom to ask.

        Args:
            magics: They know which code runs in which session.
            local: The kernel's own `do_inspect`.
        """
        self._magics = magics
        self.local = local

    def __call__(self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Iterable[str] = ()) -> Any:
        """Answer an inspect_request. See `ipykernel.kernelbase.Kernel.do_inspect`."""
        place = self._magics.router.place(code, cursor_pos)
        if place is None:
            return self.local(code, cursor_pos, detail_level, omit_sections)
        try:
            notebook_id = self._magics.chosen(place.notebook_id)
            if notebook_id is not None:
                sessions = Client(patience=KERNEL_PATIENCE).sessions
                return sessions.inspect(notebook_id, place.code, place.cursor, detail_level)
        except RuntimedError:
            # The name is unknown then; what this kernel has under that name is something else.
            logger.debug("the kernel of %s cannot be asked", place.notebook_id, exc_info=True)
        return {"status": "ok", "found": False, "data": {}, "metadata": {}}
