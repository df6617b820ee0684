"""`runtimed replay` and browser sessions in tables: what was done in a browser is done again in another one."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

from runtimed import BrowserSession, Secret
from tests.cli.conftest import RUNTIMED, Command

PAGE = """data:text/html,<title>Sign in</title>
<label>Name <input></label><label>Password <input type=password></label>
<button onclick="document.title = `Hello ${document.querySelectorAll('input')[0].value}`">Go</button>"""


def test_what_was_done_is_done_again_in_a_new_browser_and_secrets_are_asked_for(data_dir: Path, runtimed: Command):
    with BrowserSession("first", label="Ada's script") as session:
        session.execute(type="goto", url=PAGE)
        name = next(element for element in session.observe().elements if element.name == "Name")
        session.execute(type="fill", ref=name.ref, value="Ada")
        session.execute(type="fill", role="textbox", name="Password", value=Secret("open sesame", name="the password"))
        session.execute(type="click", role="button", name="Nowhere", timeout=0.1)
        visitor = BrowserSession("first")
        visitor.execute(type="click", role="button", name="Go")
        visitor.close()
        assert session.observe().title == "Hello Ada"
        listed = runtimed("sessions", "--kind", "browser").stdout
        assert re.search(r"first +active +browser \(host \d+\) +1 ", listed)
        ports = next(line for line in runtimed("doctor").stdout.splitlines() if "browser ports" in line)
        found = re.search(
            r"first: (\d+) on loopback for who has a token; Chromium's own, \d+ on loopback, for every user", ports
        )
        assert found is not None
        assert f":{found[1]}/" in session.viewer_url

        no_cells = runtimed("cells", "first")
        assert (no_cells.returncode, no_cells.stdout) == (1, "")
        words = "`runtimed replay first --list` shows what was done in it\n"
        assert no_cells.stderr == f"The session 'first' is a browser: it has no cells. {words}"
        no_code = runtimed("run", "--session", "first", __file__)
        assert "'first' is a browser session; join it with BrowserSession" in no_code.stderr
        assert runtimed("stop", "first").stdout == f"The session 'first' is closed. {words}"

    shown = runtimed("replay", "first", "--list")
    assert (shown.returncode, shown.stderr) == (0, "")
    head, *lines = shown.stdout.splitlines()
    assert head.split() == ["WHEN", "WHO", "WHAT"]
    told = [re.fullmatch(r"\S+ \S+  (Ada's script|client \w{8}) +(failed: )?[A-Zrt].*", line) for line in lines]
    assert [line and (line[1][:6], line[2]) for line in told] == [
        ("Ada's ", None),
        ("Ada's ", None),
        ("Ada's ", None),
        ("Ada's ", "failed: "),
        ("client", None),
    ]
    as_json = json.loads(runtimed("replay", "first", "--list", "--json").stdout)
    assert [entry["action"]["type"] for entry in as_json] == ["goto", "fill", "fill", "click", "click"]
    assert [entry["label"] for entry in as_json] == ["Ada's script"] * 4 + [None]
    assert [entry["client_id"] == session.client_id for entry in as_json] == [True] * 4 + [False]
    assert "open sesame" not in shown.stdout + json.dumps(as_json)

    other = BrowserSession("second", timeout_minutes=10)
    other.start()
    done = in_terminal("replay", "first", "--session", "second", answer="another one\n")
    assert "the password: " in done
    assert done.splitlines()[-1].startswith("4 of 4: ")
    assert other.observe().title == "Hello Ada"
    typed = "document.querySelector('[type=password]').value === 'another one'"
    assert other.execute(type="evaluate_js", code=typed).data is True
    other.stop()

    assert runtimed("replay", "nobody").returncode == 4


def in_terminal(*arguments: str, answer: str) -> str:
    """Run a command that asks its terminal for something, and return what it printed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*RUNTIMED, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        said = b""
        while not said.rstrip().endswith(b"the password:"):
            said += os.read(ours, 1000)
        os.write(ours, answer.encode())
        try:
            while piece := os.read(ours, 1000):
                said += piece
        except OSError:  # how a terminal says that nobody has it open any more
            pass
        assert process.wait(30) == 0
    os.close(ours)
    return said.decode().replace("\r", "")
