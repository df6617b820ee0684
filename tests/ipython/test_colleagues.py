"""What a console shows of the other clients of its session."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtimed import ConnectionLost, NotConnected, Session
from runtimed.ipython import colleagues
from runtimed.ipython.colleagues import MAX_LINE, SHOWN_LINES, Colleagues
from runtimed.protocol.events import KernelState
from runtimed.texts import without_colours
from tests.conftest import wait_until


class Seen:
    """What was printed, kept in the history, and counted."""

    def __init__(self, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
        self.session = session
        self._capsys = capsys
        self._text = ""
        self.codes: list[str] = []
        self.counts: list[int] = []

    def until(self, text: str) -> str:
        """Wait until a text is printed; return all that was printed since the last time."""
        assert self.comes(text, 30.0), f"{text!r} is not in {self._text!r}"
        text, self._text = self._text, ""
        return text

    def comes(self, text: str, timeout: float) -> bool:
        """Whether a text is printed within some seconds."""
        end = time.monotonic() + timeout
        while text not in self._text and time.monotonic() < end:
            time.sleep(0.01)
            self._text += without_colours("".join(self._capsys.readouterr()))
        return text in self._text


@pytest.fixture(scope="module")
def colleague(shared_daemon: Path) -> Iterator[Session]:
    """A client that runs code."""
    with Session("office", label="Ann") as session:
        session.start_kernel(env_source="current")
        yield session


@pytest.fixture
def seen(colleague: Session, capsys: pytest.CaptureFixture[str]) -> Iterator[Seen]:
    """What another client sees."""
    with Session("office", label="Bob") as session:
        seen = Seen(session, capsys)
        shown = Colleagues(session, contextlib.nullcontext(), seen.codes.append, seen.counts.append)
        shown.read_count()
        thread = threading.Thread(target=shown.watch)
        thread.start()
        for number in itertools.count():
            colleague.run(f"print('watched', {number})")
            if seen.comes(f"watched {number}\n", 1.0):
                break
        seen.until("watched")
        session.run("'its own code'")
        seen.codes.clear()
        yield seen
    thread.join(30)
    assert not thread.is_alive(), "a closed handle ends it"


def test_code_and_outputs_of_others_are_shown_with_their_names(seen: Seen, colleague: Session) -> None:
    result = colleague.run("for n in range(2):\n    print(n)\nn")
    head = f"Ann In [{result.execution_count}]: "
    indent = " " * (len(head) - 5) + "...: "
    assert seen.until("1\n1\n") == f"{head}for n in range(2):\n{indent}    print(n)\n{indent}n\n0\n1\n1\n"
    assert seen.codes == ["for n in range(2):\n    print(n)\nn"]
    assert seen.counts[-1] == (result.execution_count or 0) + 1


def test_only_whole_lines_and_last_versions_are_printed(seen: Seen, colleague: Session) -> None:
    colleague.run(
        "import sys\nfor part in 'abc': print(part, end='', flush=True)\nsys.stderr.write('x\\ny')\n"
        "shown = display('first', display_id=True)\nfor n in range(5): shown.update(f'version {n}')"
    )
    text = seen.until("'version 4'").split("version {n}')\n")[1]
    assert [line for line in text.splitlines() if line not in ("x", "y")] == ["abc", "'first'", "'version 4'"]
    colleague.run(f"print('x' * {MAX_LINE + 1}, end='', flush=True); input_ = None\nprint('later')")
    assert f"{'x' * (MAX_LINE + 1)}" in seen.until("later\n").replace("\n", "")


def test_long_code_is_cut_and_hostile_code_escaped(seen: Seen, colleague: Session) -> None:
    code = "\n".join(f"a = {n}" for n in range(SHOWN_LINES + 5)) + "\n'\x1b[2J'; print('en' 'd')"
    colleague.run(code)
    text = seen.until("end\n")
    assert "a = 19\n" in text
    assert "a = 20" not in text
    assert "… and 6 more lines" in text
    assert seen.codes == [code]
    colleague.run("'\x1b[2J'; print('en' 'd')")
    assert "'\\x1b[2J'" in seen.until("end\n")


def test_a_new_kernel_counts_from_one(seen: Seen, colleague: Session) -> None:
    colleague.run("1")
    wait_until(lambda: seen.counts[-1] > 2, "nothing was counted")
    colleague.restart_kernel()
    wait_until(lambda: seen.counts[-1] == 1, "it counts on")


def test_a_session_that_was_stopped_is_watched_when_it_goes_on(seen: Seen, colleague: Session) -> None:
    colleague.stop()
    colleague.run("print('goes', 'on')")
    seen.until("goes on\n")
    assert seen.counts[-1] == 2


def test_a_daemon_that_was_away_for_long_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(colleagues, "RETRY", 0.0)
    counts: list[int] = []

    class Faltering:
        notebook_id = "office"
        left: Iterator[Any] = iter(
            (ConnectionLost("away"), [], [KernelState(at=0.0, status="starting")], NotConnected("closed"))
        )

        def raw_events(self) -> Any:
            found = next(self.left)
            if isinstance(found, Exception):
                raise found
            return found

    faltering: Any = Faltering()
    Colleagues(faltering, contextlib.nullcontext(), str, counts.append).watch()
    assert counts == [1]


def test_the_line_of_ones_own_waiting_cell_is_cleared_first(seen: Seen, colleague: Session, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    colleague.submit(code=f"print('begun')\n{wait}\nprint('ended')")
    seen.until("begun\n")
    own = seen.session.submit(code="'own'")
    gate.touch()
    text = seen.until("ended\n")
    own.wait()
    later = colleague.run("print('later')")
    text += seen.until("later\n")
    assert text == f"\r\x1b[2Kended\nAnn In [{later.execution_count}]: print('later')\nlater\n"


def test_a_failure_is_shown_in_one_piece(seen: Seen, colleague: Session) -> None:
    colleague.run("print('before', end=''); 1/0")
    assert "\nbefore\n" in seen.until("ZeroDivisionError: division by zero")
