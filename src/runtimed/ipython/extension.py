"""Loads the magics into an IPython shell, and unloads them."""

from __future__ import annotations

from typing import Any

from runtimed.ipython.completion import RuntimedCompleter
from runtimed.ipython.inspection import Inspector
from runtimed.ipython.magics import RuntimedMagics

__all__ = ["load", "unload"]

_MAGICS = (
    ("line", "runtimed"),
    ("cell", "runtimed"),
    ("line", "runtimed_cell"),
    ("cell", "runtimed_cell"),
    ("cell", "local"),
)


def load(shell: Any) -> None:
    """Register the magics, their completions, and their settings for `%config`, without any request. Idempotent."""
    if _loaded(shell) is not None:
        return
    magics = RuntimedMagics(shell)  # it enters itself into `shell.configurables`
    shell.register_magics(magics)
    magics.router.install()
    kernel = getattr(shell, "kernel", None)
    if kernel is not None:
        kernel.do_inspect = Inspector(magics, kernel.do_inspect)
    completer = getattr(shell, "Completer", None)
    if completer is not None:
        completer.custom_matchers.append(RuntimedCompleter(magics).matcher)


def unload(shell: Any) -> None:
    """Remove the magics and leave the sessions, which live on. Idempotent."""
    magics = _loaded(shell)
    if magics is None:
        return
    magics.sessions.close()
    magics.browsing.close()
    magics.router.remove()
    kernel = getattr(shell, "kernel", None)
    if kernel is not None and isinstance(kernel.do_inspect, Inspector):
        kernel.do_inspect = kernel.do_inspect.local
    shell.configurables.remove(magics)
    for kind, name in _MAGICS:
        shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(RuntimedMagics.__name__, None)
    completer = getattr(shell, "Completer", None)
    if completer is not None:
        completer.custom_matchers[:] = [
            matcher
            for matcher in completer.custom_matchers
            if not isinstance(getattr(matcher, "__self__", None), RuntimedCompleter)
        ]


def _loaded(shell: Any) -> RuntimedMagics | None:
    return next((found for found in shell.configurables if isinstance(found, RuntimedMagics)), None)
