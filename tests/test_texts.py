"""Texts from anywhere do nothing to a terminal, and a log keeps one line for each record."""

import logging

import pytest

from runtimed import CellNotFound, Session
from runtimed.texts import MAX_LOG_LINE, LineFormatter, printable, without_colours


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, größe 数据 🎉", "plain, größe 数据 🎉"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x07\x08\x7f\x9b", "\\x07\\x08\\x7f\\x9b"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202e\u2066\u200b\ufeff\u2028", "\\u202e\\u2066\\u200b\\ufeff\\u2028"),
        ("\ud800\U000e0001", "\\ud800\\U000e0001"),
    ],
    ids=ascii,
)
def test_what_is_not_printable_is_escaped(text: str, shown: str):
    assert printable(text) == shown


def test_colours_go_and_nothing_else():
    assert without_colours("\x1b[0m\x1b[1;33mWarning\x1b[0m [0m") == "Warning [0m"


def test_line_breaks_can_be_kept():
    assert printable("a\nb\x1bc\n", "\n") == "a\nb\\x1bc\n"


def formatted(message: object, *arguments: object, error: Exception | None = None) -> str:
    info = None if error is None else (type(error), error, None)
    record = logging.LogRecord("name", logging.INFO, __file__, 1, message, arguments, info)
    return LineFormatter("%(levelname)s %(message)s").format(record)


def test_a_record_is_one_line_whatever_it_holds():
    assert (
        formatted("session %s", "a\nERROR forged\r\x1b[2J\u2028") == "INFO session a\\nERROR forged\\r\\x1b[2J\\u2028"
    )


def test_a_traceback_is_part_of_its_record_s_line():
    assert formatted("it failed", error=ValueError("two\nlines")) == "INFO it failed\\nValueError: two\\nlines"


def test_a_record_is_not_longer_than_a_line_may_be():
    line = formatted("x" * 10**6)
    assert line == "INFO " + "x" * (MAX_LOG_LINE - 5) + " …"


def test_an_error_shows_what_it_names_without_doing_anything_and_keeps_it_as_it_is():
    error = CellNotFound("Cell not found: \x1b[2J\u202e\n", cell_id="\x1b[2J\u202e\n")
    assert str(error) == "Cell not found: \\x1b[2J\\u202e\n"
    assert (error.message, error.cell_id) == ("Cell not found: \x1b[2J\u202e\n", "\x1b[2J\u202e\n")
    assert repr(Session("\x1b[2J\n")) == "Session(id=\\x1b[2J\\n, status=disconnected)"
