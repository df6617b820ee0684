"""`runtimed console`: a terminal on a session, with people at its keys."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed import BrowserSession, Client, Session
from runtimed.cli.main import main
from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.slow

UP = "\x1b[A"
CTRL_D, CTRL_R = "\x04", "\x12"


@contextlib.contextmanager
def opened(folder: Path, *arguments: str) -> Iterator[Terminal]:
    """A console at its prompt."""
    terminal = Terminal(folder, dict(os.environ), ("runtimed", "console", *arguments))
    try:
        yield terminal
    finally:
        terminal.close()


def press_until(terminal: Terminal, key: str, text: str) -> None:
    """Press a key that does nothing before the history is there, until it shows a text."""
    while not terminal.sees(text, 3.0):
        terminal.type(key)


@pytest.fixture
def work(shared_daemon: Path) -> Iterator[Session]:
    """A session with a kernel, for one test."""
    with Session("work") as session:
        session.start_kernel(env_source="current")
        yield session
        session.stop()
    Client().sessions.delete("work")


def test_every_cell_runs_in_the_session_which_stays(work: Session, tmp_path: Path) -> None:
    work.run("theirs = 6 * 7")
    with opened(tmp_path, "work") as terminal:
        terminal.see("work In [2]:")
        terminal.enter("for part in 'ab':\rprint(part, theirs)\r")
        assert "a 42\r\nb 42" in terminal.see("work In [3]:")
        terminal.enter("1/0")
        shown = terminal.see("work In [4]:")
        assert shown.count("ZeroDivisionError: division by zero") == 1, "the remote traceback is enough"
        terminal.enter("theirs?")
        terminal.see("String form: 42")
        terminal.see("work In [5]:")
        terminal.enter("%%local", "import os; print('here', os.getpid())")
        terminal.see(f"here {terminal.pid}")
        terminal.see("work In [5]:")
        terminal.type(CTRL_D)
        terminal.see("Left session work, which lives on")
        terminal.wait_for_the_end()
    assert work.run("part").value == "b"
    sources = [cell.source for cell in work.get_cells(outputs=False)]
    assert sources == ["theirs = 6 * 7", "for part in 'ab':\n    print(part, theirs)", "1/0", "theirs?", "part"]


def test_a_kernel_is_started_for_a_new_session(shared_daemon: Path, tmp_path: Path) -> None:
    with opened(tmp_path, "begun-here", "--new", "--env", "current") as terminal:
        terminal.see("begun-here In [1]:")
        terminal.see("kernel: current, since it was asked for")
        assert Client().sessions.get("begun-here").kernel_pid is not None
        terminal.type("exit\r")
        terminal.wait_for_the_end()
    assert Client().sessions.get("begun-here").status == "active"
    Client().sessions.stop("begun-here")


def test_a_kernel_that_cannot_be_started_says_so_above_the_prompt(shared_daemon: Path, tmp_path: Path) -> None:
    with opened(tmp_path, "barren", "--new", "--env", "python:/nowhere") as terminal:
        terminal.see("/nowhere")
        terminal.see("barren In [1]:")
        terminal.enter("%runtimed")
        terminal.see("session   barren (joined)")


def test_a_browser_has_no_prompt(shared_daemon: Path, tmp_path: Path) -> None:
    with BrowserSession("pages"), opened(tmp_path, "pages") as terminal:
        terminal.see("The session 'pages' is a browser: it runs no code")
        terminal.wait_for_the_end()


def test_two_people_see_what_the_other_runs_above_their_prompts(work: Session, tmp_path: Path) -> None:
    with opened(tmp_path, "work") as ann, opened(tmp_path, "work") as bob:
        ann.see("work In [1]:")
        bob.see("work In [1]:")
        ann.enter("shared = 'from' + ' Ann'; print(shared)")
        assert ann.see("work In [2]:").count("from Ann\r\n") == 1
        head = bob.see("from Ann")
        assert "@pts/" in head
        assert "shared = 'from' + ' Ann'; print(shared)" in head
        bob.see("work In [2]:")
        press_until(bob, UP, "shared = 'from' + ' Ann'")
        bob.enter("; 'by' ' Bob'")
        bob.see("by Bob")
        assert "@pts/" in ann.see("by Bob")
        work.run("1/0")
        for person in (ann, bob):
            person.see("1/0")
            person.see("ZeroDivisionError: division by zero")
        labels = {entry.label for entry in Client().sessions.log("work") if "@pts/" in str(entry.label)}
        assert len(labels) == 2, "each has a name of its own"


def test_the_history_is_that_of_the_session(work: Session, tmp_path: Path) -> None:
    work.run("first = 'one'")
    cell_id = work.create_cell("'never ran'")
    work.run("'two'")
    work.execute_cell(work.create_cell("print('th' + 'ree')", index=0))
    assert cell_id in work.get_cell_ids()
    with opened(tmp_path, "work") as terminal:
        terminal.see("work In [4]:")
        press_until(terminal, UP, "print('th' + 'ree')")
        terminal.type(UP)
        terminal.see("'two'")
        terminal.type(CTRL_R + "first")
        terminal.see("first = 'one'")
        terminal.type("\r\x05; print('fo' 'und', first)\r")
        terminal.see("found one")


def test_questions_are_answered_and_ctrl_c_interrupts_the_remote_code(work: Session, tmp_path: Path) -> None:
    with opened(tmp_path, "work") as terminal:
        terminal.see("work In [1]:")
        terminal.enter("'<' + input('na' 'me? ') + '>'")
        terminal.see("name? ")
        terminal.type("Ann\r")
        terminal.see("<Ann>")
        terminal.see("work In [2]:")
        terminal.enter("import time; print('be' 'gun'); time.sleep(60)")
        terminal.see("begun")
        terminal.press_ctrl_c()
        terminal.see("KeyboardInterrupt")
        terminal.see("work In [3]:")
        terminal.enter("'ali' 've'")
        terminal.see("alive")


def test_tab_knows_the_names_of_the_session(work: Session, tmp_path: Path) -> None:
    work.run("remarkable = 41")
    work.complete("rema")
    with opened(tmp_path, "work") as terminal:
        terminal.see("work In [2]:")
        terminal.type("1 + remarka\t")
        terminal.see("remarkable")
        terminal.enter("")
        terminal.see("42")


def test_a_killed_daemon_is_replaced_under_it(work: Session, tmp_path: Path) -> None:
    with opened(tmp_path, "work") as terminal:
        terminal.see("work In [1]:")
        terminal.enter("kept = 'ke' 'pt'; 'do' 'ne'")
        terminal.see("done")
        daemon = Client().status()
        assert daemon is not None
        os.kill(daemon.pid, signal.SIGKILL)
        terminal.enter("kept + '!'")
        terminal.see("kept!")
        work.run("print('colleagues' + ' are seen')")
        terminal.see("colleagues are seen")


def test_an_open_bracket_of_typescript_goes_on(shared_daemon: Path, tmp_path: Path) -> None:
    with opened(tmp_path, "typed", "--new", "--kernel-type", "deno") as terminal:
        terminal.see("typed In [1]:")
        terminal.enter("function twice(n: number) {")
        terminal.enter("return 2 * n }", "twice(21)", "")
        terminal.see("42")
    Client().sessions.stop("typed")


def test_the_session_s_end_ends_it(work: Session, tmp_path: Path) -> None:
    with opened(tmp_path, "work") as terminal:
        terminal.see("work In [1]:")
        terminal.enter("%runtimed stop")
        terminal.see("Stopped session work")
        terminal.wait_for_the_end()
    assert work.status().status == "closed"


def test_without_a_terminal_it_names_what_needs_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["console", "work"]) == 2
    assert "`runtimed exec` runs code in a session without one" in capsys.readouterr().err


def test_an_id_that_never_was_is_refused(work: Session, tmp_path: Path) -> None:
    with opened(tmp_path, "wrok") as terminal:
        terminal.see("No session has the id 'wrok' yet; it begins with its first cell or kernel. Did you mean work?")
        terminal.see("--new begins one")
        terminal.wait_for_the_end()
