"""The magics in a terminal: a real IPython with its prompt, its keys and a person at them."""

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtimed import ExecutionTimeout, Session
from tests.conftest import wait_until
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Terminal]:
    """A terminal with the extension."""
    terminal = Terminal(folder, dict(os.environ))
    terminal.see_prompt()
    terminal.enter("%load_ext runtimed")
    terminal.see_prompt()
    yield terminal
    terminal.close()


@pytest.fixture
def terminal(shared_daemon: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A terminal for one test, which may end it."""
    with opened(tmp_path) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def lasting(shared_daemon: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal for the tests that leave it at its prompt, and whose own session is `shared`."""
    with opened(tmp_path_factory.mktemp("lasting")) as terminal:
        terminal.enter("%%runtimed shared", "'be' 'gun'")
        terminal.see("begun")
        terminal.see_prompt()
        yield terminal


def test_a_person_works_in_a_shared_session(lasting: Terminal) -> None:
    terminal = lasting
    terminal.enter("%%runtimed shared", "print('he' 'llo'); 6 * 7")
    assert "hello\r\n42" in terminal.see_prompt()

    with Session("shared") as colleague:
        cells = colleague.get_cells()
        assert cells[-1].source == "print('he' 'llo'); 6 * 7"
        colleague.run("theirs = 'from ' + 'elsewhere'")
        terminal.enter("%%runtimed", "print(theirs)")
        assert "from elsewhere" in terminal.see_prompt()
        assert [cell.source for cell in colleague.get_cells()[len(cells) :]] == [
            "theirs = 'from ' + 'elsewhere'",
            "print(theirs)",
        ]

    terminal.enter("%%runtimed", "1/0")
    shown = terminal.see_prompt()
    assert "ZeroDivisionError: division by zero" in shown
    assert "CellFailed: ZeroDivisionError: division by zero (cell " in shown
    assert "site-packages" not in shown
    assert "runtimed/ipython" not in shown

    terminal.enter("%runtimed sessions")
    assert re.search("shared +kernel +active", terminal.see_prompt())


def test_ctrl_c_in_the_middle_interrupts_the_remote_code(lasting: Terminal) -> None:
    terminal = lasting
    terminal.enter("%%runtimed shared", "import time; print('be' 'gun'); time.sleep(60)")
    terminal.see("begun")
    terminal.press_ctrl_c()
    shown = terminal.see_prompt()
    assert "KeyboardInterrupt" in shown
    assert "CellFailed: KeyboardInterrupt" in shown
    terminal.enter("%%runtimed", "print('ali' 've')")
    assert "alive" in terminal.see_prompt()


def test_input_asks_in_the_terminal(lasting: Terminal) -> None:
    terminal = lasting
    terminal.enter(
        "%%runtimed shared", "import getpass; print('<' + input('na' 'me? ') + getpass.getpass('pin' '? ') + '>')"
    )
    terminal.see("name? ")
    terminal.type("Ann\r")
    terminal.see("pin? ")
    terminal.type("1234\r")
    shown = terminal.see_prompt()
    assert "<Ann1234>" in shown
    assert shown.count("1234") == 1, "the password was echoed"


def test_every_cell_goes_to_the_session_that_the_prompt_names(terminal: Terminal) -> None:
    with Session("colleague", label="observer") as session:
        session.start_kernel(env_source="current")
        terminal.enter("%runtimed on colleague")
        terminal.see_prompt("colleague ")
        terminal.type("for i in range(2):\rprint('line', i)\r\r")
        terminal.see("line 1")
        terminal.see_prompt("colleague ")
        assert session.get_cells()[-1].source == "for i in range(2):\n    print('line', i)"
        terminal.enter("%runtimed off")
        terminal.see("Cells run here again")
        assert "colleague" not in terminal.see_prompt()
        terminal.enter("%runtimed on")
        terminal.see_prompt("colleague ")
        terminal.enter("exit")
        wait_until(lambda: session.status().peers == 1, "the terminal is still there")
        assert session.run("print(i)").stdout == "1\n", "the kernel is the same"


def test_tab_completes(lasting: Terminal) -> None:
    terminal = lasting
    with Session("a-session-of-somebody") as session:
        session.create_cell("1")
    terminal.type("%%runtimed a-sess\t")
    terminal.see("a-session-of-somebody")
    terminal.type(" --sil\t")
    terminal.see("--silent")
    terminal.enter("", "print('not ' 'shown')")
    assert "not shown" not in terminal.see_prompt()
    with Session("a-session-of-somebody") as session:
        assert session.get_cells()[-1].outputs[0].text == "not shown\n"


def test_a_person_uses_the_page_of_a_browser_between_the_prompts(lasting: Terminal) -> None:
    terminal = lasting
    terminal.enter("from runtimed import BrowserSession; session = BrowserSession(); session.start()")
    terminal.see_prompt()
    terminal.enter("session.page.goto('data:text/html,<title>One</title>').ok")
    terminal.see_prompt()
    terminal.enter("page = session.page; page.evaluate('document.title += 2')")
    assert "'One2'" in terminal.see_prompt()
    terminal.enter("import asyncio; await asyncio.sleep(0, 'awaited')")
    assert "'awaited'" in terminal.see_prompt()
    terminal.enter("page.title()")
    assert "'One2'" in terminal.see_prompt()
    terminal.enter("session.stop(); asyncio.run(asyncio.sleep(0, 'run'))")
    assert "'run'" in terminal.see_prompt()


def hang_up(terminal: Terminal) -> None:
    terminal.send_signal(signal.SIGHUP)


def terminate(terminal: Terminal) -> None:
    terminal.send_signal(signal.SIGTERM)


def close_the_window(terminal: Terminal) -> None:
    terminal.close_the_window()


@pytest.mark.parametrize("way", [hang_up, terminate, close_the_window])
def test_the_end_of_the_terminal_leaves_the_session_alone(
    terminal: Terminal, tmp_path: Path, way: Callable[[Terminal], None]
) -> None:
    gate = tmp_path / "gate"
    code = f"import os, time; print('be' 'gun')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    with Session("colleague") as session:
        before = len(session.get_cells())
        terminal.enter("%%runtimed colleague --no-wait", code.replace("\n", "\r"), "print('first')")
        terminal.see_prompt()
        terminal.enter("%%runtimed colleague", "print('second')")
        wait_until(lambda: len(session.get_cells()) == before + 2, "the second is not queued")
        way(terminal)
        wait_until(lambda: session.status().peers == 1, "the terminal is still there")
        gate.touch()
        results = [session.wait(str(cell.execution_id)) for cell in session.get_cells()[before:]]
        assert [result.stdout for result in results] == ["begun\nfirst\n", "second\n"]


def test_exit_leaves_what_was_queued(terminal: Terminal) -> None:
    with Session("colleague") as session:
        terminal.enter("%%runtimed colleague --no-wait", "input_ = __import__('time').sleep(1); print('done')")
        terminal.see_prompt()
        terminal.type("exit\r")
        wait_until(lambda: session.status().peers == 1, "the terminal is still there")
        assert session.wait(str(session.get_cells()[-1].execution_id)).stdout == "done\n"
        assert session.status().status == "active"


def test_a_window_that_is_closed_at_a_question_answers_nothing(terminal: Terminal) -> None:
    terminal.enter("import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    terminal.see_prompt()
    terminal.enter("%%runtimed colleague", "input('na' 'me? ')")
    terminal.see("name? ")
    with Session("colleague") as session:
        terminal.close_the_window()
        wait_until(lambda: session.status().peers == 1, "the terminal is still there")
        execution_id = str(session.get_cells()[-1].execution_id)
        with pytest.raises(ExecutionTimeout):
            session.wait(execution_id, timeout_secs=0.5)
        session.interrupt()
        assert not session.wait(execution_id).success
