"""Runs a task on a document in a worker process, and judges by the worker's end whether the document is damaged.

A document is damaged if its worker reports damage or crashes, twice in the same way. A worker that was killed from
outside, or had too little memory or time, proves nothing about the document.
"""

from __future__ import annotations

import asyncio
import enum
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import psutil

from runtimed.display import readable_size
from runtimed.document.tasks import Task
from runtimed.document.worker import READY, Verdict
from runtimed.texts import signal_name

__all__ = ["DEADLINE", "WORKER", "Ended", "Finding", "Judgement", "judge", "run", "work_on"]

WORKER: Final = (sys.executable, "-P", "-m", "runtimed.document.worker")
"""Command of a worker; the seconds that it may take are its last argument."""

DEADLINE: Final = 300
"""Seconds within which a worker must end. Reading 10,000 cells of 130 code points takes 5 on an idle machine."""

_SAMPLE: Final = 0.05
"""Seconds between two samples of the worker's memory."""

_LAST_WORDS: Final = 2000

_CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""Signals that a process brings upon itself. SIGBUS may be a disk's fault; all others come from outside."""

_FROM_OUTSIDE: Final = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
"""Exit codes of a worker that was killed: by a person, a shutdown, or the out-of-memory killer."""

_NO_MEMORY: Final = b"memory allocation of"
"""What Rust prints before it aborts because an allocation failed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a worker ended.

    Attributes:
        code: Its exit code; the negative number of a signal; None if it exceeded its deadline and was killed.
        answer: What it wrote to standard output.
        said: What it wrote to standard error.
        memory: Largest sampled resident memory, in bytes; 0 if it ended before the first sample.
        free: The machine's available memory right after its end, in bytes.
    """

    code: int | None
    answer: bytes
    said: bytes
    memory: int
    free: int

    @property
    def words(self) -> str:
        """The last part of its standard error."""
        said = self.said.removeprefix(READY).decode(errors="replace").strip()
        return said[-_LAST_WORDS:] or "it said nothing"


class Judgement(enum.Enum):
    """What a worker's end says about the document."""

    HEALTHY = enum.auto()
    DAMAGED = enum.auto()
    UNKNOWN = enum.auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about a document. The reason continues a sentence after "because"."""

    judgement: Judgement
    reason: str = ""
    answer: bytes = b""


def judge(ended: Ended) -> Finding:
    """Return what one run of a worker proves about its document."""
    memory = readable_size(ended.memory)
    needs = f": it needs more than {memory}" if ended.memory else ""
    if ended.code == Verdict.HEALTHY:
        return Finding(Judgement.HEALTHY, answer=ended.answer)
    if ended.code is None or ended.code == -signal.SIGALRM:
        return Finding(Judgement.UNKNOWN, f"it was not loaded within {DEADLINE} seconds")
    if ended.code == Verdict.NO_MEMORY or _NO_MEMORY in ended.said:
        return Finding(
            Judgement.UNKNOWN,
            f"there is too little memory to load it{needs}. Make memory free, or raise the limit",
        )
    if ended.code == Verdict.NEWER:
        return Finding(Judgement.UNKNOWN, ended.words)
    if not ended.said.startswith(READY):
        # It failed with a healthy document, before its task: the installation is just being replaced, for example.
        return Finding(
            Judgement.UNKNOWN, f"the process that loads documents does not work ({_end(ended.code)}: {ended.words})"
        )
    if ended.code == Verdict.DAMAGED:
        return Finding(Judgement.DAMAGED, ended.words)
    if ended.code < 0 and -ended.code in _CRASHES and ended.free > ended.memory:
        return Finding(Judgement.DAMAGED, f"loading it crashes a process ({_end(ended.code)})")
    killed = "; the system does that when memory runs out" if ended.code == -signal.SIGKILL else ""
    return Finding(
        Judgement.UNKNOWN,
        f"the process that loaded it did not come to an end ({_end(ended.code)}{killed}); it had {memory} of memory",
    )


async def work_on(task: Task, *, worker: Sequence[str] = WORKER, deadline: int = DEADLINE) -> Finding:
    """Perform a task in a worker process.

    Damage must be found twice, in the same way. A worker that is killed from outside is started again, once.
    """
    data = await asyncio.to_thread(msgspec.msgpack.encode, task)
    findings: list[Finding] = []
    was_ended = False
    while len(findings) < 2:
        ended = await run([*worker, str(deadline)], data, deadline)
        if ended.code in _FROM_OUTSIDE and not was_ended:
            was_ended = True
            continue
        finding = judge(ended)
        if finding.judgement is not Judgement.DAMAGED:
            return finding
        findings.append(finding)
    first, second = findings
    if first == second:
        return first
    return Finding(Judgement.UNKNOWN, f"it was found damaged in two ways: {first.reason}; {second.reason}")


async def run(command: Sequence[str], data: bytes, deadline: float) -> Ended:
    """Run a worker to its end; kill it if the caller is cancelled."""
    process = subprocess.Popen(  # noqa: ASYNC220  # takes 1 ms; a thread waits for it
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    )
    memory, observed = 0, psutil.Process(process.pid)
    # `communicate` with a timeout of its own would lose the input that is not written yet. It is no task: at the end of
    # the event loop all tasks are cancelled, also one that has not begun, and nobody would wait for the process.
    talk = asyncio.get_running_loop().run_in_executor(None, process.communicate, data)
    try:
        async with asyncio.timeout(deadline):
            while not talk.done():
                memory = max(memory, _resident(observed))
                await asyncio.wait({talk}, timeout=_SAMPLE)
        answer, said = talk.result()
        return Ended(process.returncode, answer, said, memory, psutil.virtual_memory().available)
    except TimeoutError:
        return Ended(None, b"", b"", memory, 0)
    finally:
        process.kill()
        await asyncio.wait({talk})


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _end(code: int) -> str:
    return signal_name(-code) if code < 0 else f"exit code {code}"
