"""Encodes a queued program: its source behind a first line with its call. Nothing here waits.

A program is a source that runs as `python FILE.py ARG…` does, in the namespace of the session. The notebook contains
the source alone.
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
"""Prefix of a stored program's first line."""

_HELPER: Final = Path(__file__).parent.parent / "kernel_launcher" / "program.py"


def join(source: str, program: Program | None) -> str:
    """Return the stored form of an execution's source, with the call of a program."""
    return source if program is None else f"{MARK}{msgspec.json.encode(program).decode()}\n{source}"


def split(stored: str) -> tuple[str, Program | None]:
    """Split a stored form into the source and the call; inverse of `join`."""
    head, _, source = stored.partition("\n")
    if not head.startswith(MARK):
        return stored, None
    try:
        return source, msgspec.json.decode(head.removeprefix(MARK), type=Program)
    except (msgspec.MsgspecError, UnicodeEncodeError):  # a source that happens to start with the mark
        return stored, None


def is_program(stored: str) -> bool:
    """Whether a stored form is that of a program."""
    return split(stored)[1] is not None


def code_to_execute(stored: str) -> str:
    """Return the code that the kernel executes for a stored form."""
    source, program = split(stored)
    if program is None:
        return stored
    # Base64, since escaped quotes and control characters could make a source too large for the host's frame.
    call = {"source": base64.b64encode(source.encode()).decode(), **msgspec.structs.asdict(program)}
    return (
        f'exec(compile({_helper()!r}, "<runtimed>", "exec"), {{"__name__": "runtimed_program", "PROGRAM": {call!r}}})'
    )


@functools.cache
def _helper() -> str:
    return _HELPER.read_text("utf-8")
