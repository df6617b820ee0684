"""A program with a prompt, in a pseudo-terminal, with a person at its keys."""

import contextlib
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pexpect
import pytest

TIMEOUT = 30.0
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[=>]|[()][0-9A-B])")


class Terminal:
    """An IPython, or another module of Python, in a pseudo-terminal. What was seen once is not seen again."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        module: Sequence[str] = ("IPython", "--no-banner", "--no-confirm-exit"),
    ) -> None:
        self._process = pexpect.spawn(
            sys.executable,
            ["-m", *module],
            cwd=str(folder),
            env={**environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "IPYTHONDIR": str(folder / "ipython")},
            dimensions=(50, 200),
            encoding="utf-8",
        )
        self._text = ""
        self._prompt = 0

    @property
    def pid(self) -> int:
        """The process."""
        return int(self._process.pid)

    def see(self, text: str) -> str:
        """Wait until a text is on the screen; return what came up to it."""
        if not self.sees(text, TIMEOUT):
            pytest.fail(f"{text!r} is not in {self._clean()!r}")
        before, _, self._text = self._clean().partition(text)
        return before

    def sees(self, text: str, timeout: float) -> bool:
        """Whether a text comes onto the screen within some seconds."""
        deadline = time.monotonic() + timeout
        while text not in self._clean():
            if time.monotonic() > deadline:
                return False
            with contextlib.suppress(pexpect.TIMEOUT):
                self._text += self._process.read_nonblocking(2**16, timeout=0.2)
        return True

    def _clean(self) -> str:
        return ESCAPES.sub("", self._text)

    def see_prompt(self, before: str = "") -> str:
        """Wait until IPython takes the next cell, with a prompt that begins with this; return what came up to that."""
        self._prompt += 1
        return self.see(f"{before}In [{self._prompt}]:")

    def type(self, keys: str) -> None:
        self._process.send(keys)

    def enter(self, *lines: str) -> None:
        """Type a cell and let it run."""
        # A cell magic ends with two empty lines.
        self.type("\r".join(lines) + ("\r" if len(lines) == 1 else "\r\r\r"))

    def press_ctrl_c(self) -> None:
        self._process.sendintr()

    def send_signal(self, number: int) -> None:
        self._process.kill(number)

    def close_the_window(self) -> None:
        """End the terminal itself, under the process."""
        self._process.ptyproc.fileobj.close()

    def wait_for_the_end(self) -> None:
        """Wait until the process has ended."""
        self._process.expect(pexpect.EOF, timeout=TIMEOUT)
        self._process.wait()

    def close(self) -> None:
        self._process.close(force=True)
