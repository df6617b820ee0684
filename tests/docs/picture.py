"""`python -m tests.docs.picture` runs `runtimed demo` in a terminal and draws what it shows: docs/images/demo.svg."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "demo.svg"
COLUMNS = 100
SHOWN = 2
"""Lines of the report that are drawn at the begin and at the end of each part."""


def run_demo() -> str:
    """Run the demo in a terminal of its own, and return what it wrote, colours included."""
    screen, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "runtimed", "demo"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"COLUMNS": str(COLUMNS), "TERM": "xterm-256color"},
    ) as demo:
        os.close(terminal)
        written = io.BytesIO()
        while True:
            try:
                piece = os.read(screen, 65536)
            except OSError:  # Linux says so when the last process has closed the terminal
                break
            if not piece:
                break
            written.write(piece)
    os.close(screen)
    if demo.returncode:
        raise SystemExit("the demo failed: there is nothing to show")
    return written.getvalue().decode().replace("\r\n", "\n")


def shortened(text: str) -> list[str]:
    """Leave out the middle of each run of lines of the report."""
    lines, run = [], list[str]()
    for line in [*text.splitlines(), ""]:
        if re.search(r"\d+ of 44: ", line):
            run.append(line)
            continue
        lines += run if len(run) <= 2 * SHOWN + 1 else [*run[:SHOWN], " …", *run[-SHOWN:]]
        run = []
        lines.append(line)
    return lines[:-1]


def draw(lines: list[str]) -> str:
    """Return the SVG of a terminal with these lines."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text("$ runtimed demo", style="bold"))
    for line in lines:
        console.print(Text.from_ansi(line), overflow="crop", no_wrap=True)
    return console.export_svg(title="runtimed demo", unique_id="runtimed")


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(shortened(run_demo())), encoding="utf-8")
    print(PICTURE)
