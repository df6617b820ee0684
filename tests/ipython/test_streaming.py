"""What a remote cell shows while it runs, what it asks, and how it is interrupted; with a real shell and kernel."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtimed import (
    Client,
    Execution,
    Session,
)
from runtimed.ipython.failures import CellFailed
from runtimed.ipython.streaming import Live
from runtimed.protocol.events import Event, Stream
from tests.conftest import wait_until
from tests.ipython.conftest import Shell


@contextmanager
def ctrl_c_when(condition: Any) -> Iterator[None]:
    """Send this process a SIGINT once a condition holds."""

    def press() -> None:
        wait_until(condition, "there was nothing to interrupt")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """What the magics have been told of, and have shown. Others may see it a moment before."""
    events: list[Event] = []
    take = Live.take

    def take_and_tell(live: Live, execution: Execution, event: Event) -> None:
        take(live, execution, event)
        events.append(event)

    monkeypatch.setattr(Live, "take", take_and_tell)
    return events


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Stream))


# --- outputs ---


def test_outputs_are_shown_with_their_metadata(in_work: Shell) -> None:
    in_work.run(
        "%%runtimed\n"
        "from IPython.display import display\n"
        "display({'text/html': '<b>', 'application/json': {'a': [1]}, 'text/plain': 'b'}, raw=True, metadata={'k': 1})"
    )
    assert in_work.published == [
        {
            "data": {"text/html": "<b>", "application/json": {"a": [1]}, "text/plain": "b"},
            "metadata": {"k": 1},
            "transient": {},
            "update": False,
        }
    ]


def test_a_large_value_comes_whole(in_work: Shell) -> None:
    in_work.run("%%runtimed\ndisplay({'text/html': 'x' * 3_000_000, 'text/plain': ''}, raw=True)")
    assert in_work.published[0]["data"]["text/html"] == "x" * 3_000_000


def test_displays_are_updated_in_place_also_by_later_cells(in_work: Shell) -> None:
    in_work.run("%%runtimed\nhandle = display('a', display_id='mine')\nhandle.update('b')")
    in_work.run("%%runtimed\nhandle.update('c')")
    shown = [(event["data"]["text/plain"], event["update"], event["transient"]) for event in in_work.published]
    transient = shown[0][2]
    assert transient["display_id"] not in ("mine", None)
    assert transient["display_id"].endswith("-mine")
    assert shown == [("'a'", False, transient), ("'b'", True, transient), ("'c'", True, transient)]


def test_clear_output_is_passed_on(in_work: Shell) -> None:
    in_work.run("%%runtimed\nfrom IPython.display import clear_output\nclear_output(wait=True)\nclear_output()")
    assert in_work.published == [{"clear": True, "wait": True}, {"clear": True, "wait": False}]


def test_a_widget_is_left_out_where_there_is_a_text(in_work: Shell) -> None:
    in_work.run("%%runtimed\nfrom ipywidgets import IntSlider\nIntSlider(3)")
    (shown,) = in_work.published
    assert list(shown["data"]) == ["text/plain"]
    assert shown["data"]["text/plain"].startswith("IntSlider(value=3")


def test_output_appears_before_the_cell_ends(in_work: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = tmp_path / "gate"

    class Opener(io.StringIO):
        """Lets the cell end once its first output is shown."""

        def write(self, text: str) -> int:
            if "first" in text:
                gate.touch()
            return super().write(text)

    monkeypatch.setattr("sys.stdout", opener := Opener())
    code = f"import os, time\nprint('first')\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('last')"
    assert in_work.ip.run_cell(f"%%runtimed --timeout 20\n{code}").success
    assert opener.getvalue() == "first\nlast\n"


# --- what cannot be shown ---


class Tee:
    """What people put in the place of sys.stdout: `write` and `flush`, and nothing else."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_a_stream_that_can_only_write_shows_everything(in_work: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", out := Tee())
    monkeypatch.setattr("sys.stderr", err := Tee())
    code = "import sys\nprint('é', '\\udc80')\nsys.stderr.write('two')\ndisplay('three')\nprint('four')"
    assert in_work.ip.run_cell(f"%%runtimed --out result\n{code}").success
    assert out.text == "é \\udc80\nfour\n"
    assert err.text == "two"
    assert in_work.published[0]["data"]["text/plain"] == "'three'"
    assert in_work.ip.run_cell("%runtimed cells").success
    assert "import sys …" in out.text
    assert [str(output) for output in in_work.ip.user_ns["result"].outputs] == [
        "é \udc80\n",
        "two",
        "'three'",
        "four\n",
    ]


def test_an_output_that_cannot_be_shown_takes_no_other_with_it(in_work: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = in_work.ip.display_pub.publish

    def refuse_html(data: Any, **fields: Any) -> None:
        if "text/html" in data:
            raise ValueError("no HTML here")
        publish(data, **fields)

    def refuse_clear(wait: bool) -> None:
        raise OSError("nothing is cleared here")

    monkeypatch.setattr(in_work.ip.display_pub, "publish", refuse_html)
    monkeypatch.setattr(in_work.ip.display_pub, "clear_output", refuse_clear)
    code = (
        "from IPython.display import HTML, clear_output\n"
        "print('one')\nclear_output()\nhandle = display(HTML('a'), display_id='h')\nhandle.update(HTML('b'))\n"
        "print('two')\n'three'"
    )
    left_out = "[an output is left out here, as showing it failed: {}]\n"
    assert in_work.run(f"%%runtimed --out result\n{code}") == (
        f"one\n{left_out.format('OSError: nothing is cleared here')}{left_out.format('ValueError: no HTML here')}two\n"
    )
    assert in_work.published[-1]["data"]["text/plain"] == "'three'"
    result = in_work.ip.user_ns["result"]
    assert (result.success, len(result.outputs)) == (True, 3), "the result is whole"
    # Shown again, by whoever looks at it later.
    cell_id = result.cell_id
    assert left_out.format("ValueError: no HTML here") in in_work.run(f"%runtimed replay {cell_id}")
    in_work.ip.run_cell("result")
    assert in_work.published[-1]["data"]["text/plain"] == "'three'"


def test_a_stream_that_refuses_says_so_once_on_the_other_one(in_work: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(Tee):
        def write(self, text: str) -> None:
            raise ValueError("I/O operation on closed file")

    monkeypatch.setattr("sys.stdout", Closed())
    monkeypatch.setattr("sys.stderr", err := Tee())
    code = "import sys\nfor i in range(100): print(i, flush=True)\nsys.stderr.write('end')"
    assert in_work.ip.run_cell(f"%%runtimed --out result\n{code}").success
    assert err.text == (
        "[an output is left out here, as showing it failed: ValueError: I/O operation on closed file]\nend"
    )
    assert in_work.ip.user_ns["result"].stdout == "".join(f"{i}\n" for i in range(100))


def test_a_traceback_that_cannot_be_shown_is_named(in_work: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    show = in_work.ip._showtraceback  # noqa: SLF001  # which IPython names for frontends

    def refuse(etype: Any, evalue: Any, lines: Any) -> None:
        if etype.__name__ == "ZeroDivisionError":
            raise RuntimeError("no traceback here")
        show(etype, evalue, lines)

    monkeypatch.setattr(in_work.ip, "_showtraceback", refuse)
    error, printed = in_work.fail("%%runtimed\n1/0")
    assert isinstance(error, CellFailed)
    assert "showing it failed: RuntimeError: no traceback here]" in printed


def test_a_question_that_cannot_be_asked_is_an_end_of_input_there(
    in_work: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_prompt: str) -> str:
        raise RuntimeError("input(): lost sys.stdin")

    monkeypatch.setattr("builtins.input", lost)
    assert in_work.run("%%runtimed\ntry:\n    input('? ')\nexcept EOFError:\n    print('end')") == (
        "[the question '? ' could not be asked here: RuntimeError: input(): lost sys.stdin]\nend\n"
    )


# --- input ---


def test_input_and_getpass_ask_here(in_work: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return f"answer {len(asked)}"

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("getpass.getpass", answer)
    code = "import getpass\nname = input('name? ')\nprint(repr(name), repr(getpass.getpass('secret? ')))"
    assert in_work.run(f"%%runtimed\n{code}") == "'answer 1' 'answer 2'\n"
    assert asked == ["name? ", "secret? "]


def test_the_end_of_input_is_an_end_of_input_there(in_work: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", no_answer)
    assert in_work.run("%%runtimed\ntry:\n    input()\nexcept EOFError:\n    print('end')") == "end\n"


def test_ctrl_c_at_a_question_interrupts_the_remote_code(in_work: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    error, _ = in_work.fail("%%runtimed\ninput()")
    assert isinstance(error, CellFailed)
    assert error.result.error.ename == "KeyboardInterrupt"


# --- interrupts ---


def test_ctrl_c_interrupts_the_remote_code_and_shows_its_end(in_work: Shell, taken: list[Event]) -> None:
    code = "import time\nprint('begun')\ntry:\n    time.sleep(60)\nfinally:\n    print('cleaned up')"
    with ctrl_c_when(lambda: "begun" in text(taken)):
        error, printed = in_work.fail(f"%%runtimed\n{code}")
    assert isinstance(error, CellFailed)
    assert error.result.error.ename == "KeyboardInterrupt"
    assert printed.startswith("begun\ncleaned up\n")
    assert printed.count("begun") == 2, "once as output, once in the source that the traceback quotes"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert in_work.run("%%runtimed\nprint(1)") == "1\n"


def test_a_second_ctrl_c_leaves_and_the_code_goes_on(
    in_work: Shell, work: Session, taken: list[Event], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    code = f"""
import os, time
try:
    print("one")
    time.sleep(60)
except KeyboardInterrupt:
    print("two")
while not os.path.exists({str(gate)!r}):
    time.sleep(0.01)
print("end")"""
    with ctrl_c_when(lambda: "one" in text(taken)), ctrl_c_when(lambda: "two" in text(taken)):
        error, printed = in_work.fail(f"%%runtimed\n{code}")
    assert type(error) is KeyboardInterrupt
    execution_id = printed.partition("left execution ")[2].partition(",")[0]
    assert printed == (
        f"one\ntwo\nKeyboardInterrupt: left execution {execution_id}, which goes on; `%runtimed interrupt` interrupts "
        "it\n"
    )
    gate.touch()
    assert work.wait(execution_id).stdout == "one\ntwo\nend\n"


def test_ctrl_c_while_a_kernel_starts_gives_the_prompt_back(shell: Shell, tmp_path: Path) -> None:
    slow, gate = tmp_path / "python", tmp_path / "gate"
    slow.write_text(f'#!/bin/sh\nuntil test -e {gate}; do sleep 0.05; done\nexec {sys.executable} "$@"\n')
    slow.chmod(0o700)

    def starts() -> bool:
        started = Client().sessions.list(status="active")
        found = [(status.session_id, status.kernel_status, status.kernel_type) for status in started]
        return ("slow", "starting", "python") in found

    with ctrl_c_when(starts):
        error, printed = shell.fail(f"%%runtimed slow --env python:{slow}\n1")
    assert type(error) is KeyboardInterrupt
    assert printed == (
        "KeyboardInterrupt: the cell was given up; a kernel that is being started for it goes on starting: `%runtimed` "
        "shows it, `%runtimed stop` ends it with its session\n"
    )
    assert "\nkernel    python, starting\n" in shell.run("%runtimed")
    gate.touch()
    assert shell.run("%%runtimed slow\nprint('started')") == "started\n", "the start goes on, the code was not queued"
    with Session("slow") as observer:
        assert [cell.source for cell in observer.get_cells()] == ["print('started')"]
    shell.run("%runtimed stop")


def test_ctrl_c_takes_a_cell_that_waits_out_of_the_queue(in_work: Shell, taken: list[Event], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waiting = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('undisturbed')"
    with Session("work") as other:
        running = other.queue_cell(other.create_cell(waiting))
        with ctrl_c_when(lambda: taken):
            error, printed = in_work.fail("%%runtimed\nprint('never')")
        assert isinstance(error, CellFailed)
        assert printed.startswith("CellFailed: Cancelled: the client that queued it cancelled it (cell ")
        gate.touch()
        assert other.wait(running).stdout == "undisturbed\n"
