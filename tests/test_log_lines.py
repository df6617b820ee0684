"""Log lines name the session and the execution that they are about: one file has the lines of all."""

import ast
from collections.abc import Iterator
from pathlib import Path

import runtimed

SOURCE = Path(runtimed.__file__).parent
LEVELS = ("debug", "info", "warning", "error", "exception")


def log_lines(*paths: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the format of each log line in these files."""
    for path in paths:
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in {f"logger.{level}" for level in LEVELS}:
                yield f"{path.name}:{call.lineno}", ast.unparse(call.args[0])


def test_every_log_line_of_a_room_names_its_session():
    lines = dict(log_lines(*(SOURCE / "daemon" / "rooms").glob("*.py")))
    assert len(lines) > 15
    assert {place: line for place, line in lines.items() if "session %r" not in line} == {}


def test_every_log_line_about_a_message_of_a_kernel_names_its_execution():
    lines = dict(log_lines(SOURCE / "execution" / "jupyter_messages.py"))
    assert len(lines) > 5
    assert {place: line for place, line in lines.items() if "execution %s" not in line} == {}
