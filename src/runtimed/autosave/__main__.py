"""Keeps notebook files until standard input ends: when the daemon needs it no more, or is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from runtimed.autosave.keeper import Keeper
from runtimed.notebook_file.keeping import Report, encoded

_OUTPUT = 1


def _report(report: Report) -> None:
    line = memoryview(encoded(report))
    while line:
        line = line[os.write(_OUTPUT, line) :]


async def _main() -> None:
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    keeper = Keeper(_report)
    try:
        while line := await commands.readline():
            keeper.take(line)
    finally:
        await keeper.close()


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    asyncio.run(_main())
