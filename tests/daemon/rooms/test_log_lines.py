"""Every log line of a room names its session: one file has the lines of all sessions of a daemon."""

import ast
from pathlib import Path

from runtimed.daemon import rooms

LEVELS = ("debug", "info", "warning", "error", "exception")


def test_every_log_line_of_a_room_names_its_session():
    seen = 0
    for path in Path(rooms.__path__[0]).glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in {f"logger.{level}" for level in LEVELS}:
                seen += 1
                words = ast.unparse(call.args[0])
                assert "session %r" in words, f"{path.name}:{call.lineno} logs {words}"
    assert seen > 15
