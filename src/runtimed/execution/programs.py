"""Encodes a queued program: its source, with a first line that holds its call. Nothing here waits.

A program is a source that is run as `python FILE.py ARG…` runs it, in the names of the session. The document holds the
source alone.
"""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import Final

import msgspec

from runtimed.protocol.execution_operations import Program

__all__ = ["MARK", "code_to_execute", "is_program", "join", "split"]

MARK: Final = "# runtimed-program: "
"""How the first line of a stored program begins."""

_HELPER: Final = Path(__file__).parent.parent / "kernel_launcher" / "program.py"


def join(source: str, program: Program | None) -> str:
    """Return the stored form of an execution: the source, with its call if it is a program."""
    return source if program is None else f"{MARK}{msgspec.json.encode(program).decode()}\n{source}"


def split(stored: str) -> tuple[str, Program | None]:
    """Return the source and the call from what `join` made."""
    head, _, source = stored.partition("\n")
    if not head.startswith(MARK):
        return stored, None
    try:
        return source, msgspec.json.decode(head.removeprefix(MARK), type=Program)
    except (msgspec.MsgspecError, UnicodeEncodeError):  # a source that begins like this by itself
        return stored, None


def is_program(stored: str) -> bool:
    """Whether this is the stored form of a program."""
    return split(stored)[1] is not None


def code_to_execute(stored: str) -> str:
    """Return the code that a kernel executes for what `join` made."""
    source, program = split(stored)
    if program is None:
        return stored
    # However many quotes and control characters it has: a source that fits into a frame has to fit into the host's.
    call = {"source": base64.b64encode(source.encode()).decode(), **msgspec.structs.asdict(program)}
    return (
        f'exec(compile({_helper()!r}, "<runtimed>", "exec"), {{"__name__": "runtimed_program", "PROGRAM": {call!r}}})'
    )


@functools.cache
def _helper() -> str:
    return _HELPER.read_text("utf-8")
