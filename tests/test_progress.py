"""The one line that says how an environment is made: in a terminal, in a notebook, and where nobody looks."""

import contextlib
import io
from types import SimpleNamespace
from typing import Any

import pytest

from runtimed.progress import ProgressLine, progress_text

MIB = 2**20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_download_says_how_far_it_is():
    assert progress_text("Resolving six") == "Resolving six"
    assert progress_text("Downloading numpy", 0, 16 * MIB) == "Downloading numpy (0.0 of 16.0 MiB)"


def test_in_a_terminal_one_line_is_written_over_and_taken_away():
    stream = Terminal()
    with ProgressLine(stream=stream) as line:
        line.show("Resolving six\x1b[31m")
        line.show("Downloading numpy", MIB, 2 * MIB)
        line.close()
    assert stream.getvalue() == ("\r\x1b[2KResolving six?[31m …\r\x1b[2KDownloading numpy (1.0 of 2.0 MiB) …\r\x1b[2K")


def test_a_line_is_never_wider_than_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    ProgressLine(stream=stream).show("x" * 100)
    assert stream.getvalue() == f"\r\x1b[2K{'x' * 17} …"


def test_where_nobody_looks_nothing_is_written():
    stream = io.StringIO()
    with ProgressLine(stream=stream) as line:
        line.show("Resolving six")
    assert stream.getvalue() == ""


def test_a_stream_that_cannot_show_a_line_and_a_publisher_that_fails_leave_it_out(monkeypatch):
    refused: list[Any] = []

    def refuse(data: Any, **rest: Any) -> None:
        refused.append(data["text/plain"])
        raise RuntimeError("nothing is published here")

    monkeypatch.setattr("IPython.display.publish_display_data", refuse)
    nothing: Any = object()
    for line in (ProgressLine(stream=nothing), ProgressLine(SimpleNamespace(kernel=object()))):
        with line:
            line.show("Resolving six")
    assert refused[0] == "Resolving six …"


@pytest.mark.parametrize(
    ("error", "last"), [(None, "The kernel is ready"), (ValueError(), "The environment was not made")]
)
def test_in_a_notebook_one_display_is_updated_and_says_how_it_ended(monkeypatch, error, last):
    published: list[Any] = []
    monkeypatch.setattr(
        "IPython.display.publish_display_data", lambda data, **rest: published.append((data["text/plain"], rest))
    )
    expected = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with expected, ProgressLine(SimpleNamespace(kernel=object())) as line:
        line.show("Resolving six")
        line.show("Installing 1 package")
        if error is not None:
            raise error
    ids = {rest["transient"]["display_id"] for _text, rest in published}
    assert len(ids) == 1
    assert [(text, rest["update"]) for text, rest in published] == [
        ("Resolving six …", False),
        ("Installing 1 package …", True),
        (last, True),
    ]


def test_nothing_shown_leaves_nothing(monkeypatch):
    monkeypatch.setattr("IPython.display.publish_display_data", lambda *_args, **_kwargs: pytest.fail("shown"))
    with ProgressLine(SimpleNamespace(kernel=object())):
        pass
