"""Makes the blocking face of the client from the asynchronous one: `python -m tests.blocking_face`.

What is written once, with coroutines, in `client/async_*.py` stands in the repository a second time without them, so
that readers, type checkers and `help()` see plain code. Nobody edits the second one; a test compares it with what this
makes. What the faces do not share, how they wait, is written by hand: `async_handle.py` and `blocking_handle.py` for
example.

Nothing of runtimed is imported, so that it also mends what cannot be imported.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["MADE", "blocking", "main"]

CLIENT: Final = Path(__file__).parents[1] / "src" / "runtimed" / "client"

MADE: Final = {
    "async_browser_session.py": "browser_session.py",
    "async_client.py": "client.py",
    "async_execution.py": "execution.py",
    "async_pages.py": "pages.py",
    "async_session.py": "session.py",
}
"""The modules that are written, and those that are made of them."""

PROPERTIES: Final = ("is_connected", "kernel_started", "env_source", "viewer_url")
"""What the blocking face has as properties; a property cannot be awaited."""

_NAMES: Final = {
    "async_handle": "blocking_handle",
    "async_browser_handle": "blocking_browser_handle",
    "AsyncHandle": "BlockingHandle",
    "AsyncBrowserHandle": "BlockingBrowserHandle",
    "AsyncConnection": "Connection",
    "EventStream": "EventIterator",
    "runtimed.client.aio": "runtimed.client.blocking",
    "StopAsyncIteration": "StopIteration",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "asynccontextmanager": "contextmanager",
    "aclose": "close",
    "anext": "next",
    "Event loops and threads": "Threads",
}
"""Names and words of the asynchronous face that are not those of the blocking one with `async` before them."""

_STEPS: Final = (
    (r",? for asyncio\b", ""),
    *((rf"(?<!\w){re.escape(old)}(?!\w)", new) for old, new in _NAMES.items()),
    (rf"await (\w+(?:\.\w+)*\.(?:{'|'.join(PROPERTIES)}))\(\)", r"\1"),
    (rf"( *)async def ({'|'.join(PROPERTIES)})\b", r"\1@property\n\1def \2"),
    (r"\bAwaitable\[((?:[^][]|\[[^][]*\])*)\]", r"\1"),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\basync_(\w)", r"\1"),
    (r"\bAsync([A-Z]\w*)", r"\1"),
)


def blocking(name: str) -> str:
    """Return what the module made of an asynchronous one holds.

    Args:
        name: The file of the asynchronous one.
    """
    code = (CLIENT / name).read_text("utf-8")
    for pattern, replacement in _STEPS:
        code = re.sub(pattern, replacement, code)
    note = f"# Made from {name} by `python -m tests.blocking_face`: edit that one.\n\n"
    for arguments in (["check", "--select", "F401,I", "--fix"], ["format"]):
        command = [sys.executable, "-m", "ruff", *arguments, "-q", "--stdin-filename", str(CLIENT / MADE[name]), "-"]
        code = subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout
    return note + code


def main() -> None:
    """Write all of them."""
    for name, made in MADE.items():
        (CLIENT / made).write_text(blocking(name), "utf-8")


if __name__ == "__main__":
    main()
