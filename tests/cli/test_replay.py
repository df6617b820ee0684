"""`runtimed replay` and browser sessions in tables: what was done in a browser is done again in another one."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtimed import BrowserSession, Secret
from runtimed.browser.recorded import record, restore
from runtimed.client.browser_options import as_options
from tests.cli.conftest import RUNTIMED, Command

pytestmark = pytest.mark.slow

PAGE = """data:text/html,<title>Sign in</title>
<label>Name <input></label><label>Password <input type=password></label>
<button onclick="document.title = `Hello ${document.querySelectorAll('input')[0].value}`">Go</button>"""


def test_what_was_done_is_done_again_in_a_new_browser_and_secrets_are_asked_for(data_dir: Path, in_process: Command):
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
        listed = in_process("sessions", "--kind", "browser").stdout
        assert re.search(r"first +active +browser \(host \d+\) +1 ", listed)
        ports = next(line for line in in_process("doctor").stdout.splitlines() if "browser ports" in line)
        found = re.search(
            r"first: (\d+) on loopback, with a token; Chromium's own, \d+ on loopback, for every user", ports
        )
        assert found is not None
        assert f":{found[1]}/" in session.viewer_url

        no_cells = in_process("cells", "first")
        assert (no_cells.returncode, no_cells.stdout) == (1, "")
        words = "`runtimed replay first --list` shows what was done in it\n"
        assert no_cells.stderr == f"The session 'first' is a browser: it has no cells. {words}"
        no_code = in_process("run", "--session", "first", __file__)
        assert "'first' is a browser session; join it with BrowserSession" in no_code.stderr
        assert in_process("stop", "first").stdout == f"The session 'first' is closed. {words}"

    shown = in_process("replay", "first", "--list")
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
    as_json = json.loads(in_process("replay", "first", "--list", "--json").stdout)
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

    assert in_process("replay", "nobody").returncode == 4


def test_a_replay_starts_its_browsers_as_the_session_did_and_asks_for_passwords(data_dir: Path, runtimed: Command):
    seen: list[tuple[str | None, ...]] = []

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = self.headers
            knows = told["Authorization"] is not None or self.path.startswith("/open")
            self.send_response(200 if knows else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            if knows and "favicon" not in self.path:
                seen.append((self.path, told["Accept-Language"], told["X-A"], told["X-Token"], told["Authorization"]))

        def log_message(self, *_: object) -> None:
            pass

    told = "await fetch('/told?' + [Intl.DateTimeFormat().resolvedOptions().timeZone, innerWidth, devicePixelRatio])"
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with BrowserSession(
            "first",
            locale="de-DE",
            timezone_id="Asia/Tokyo",
            viewport_width=500,
            device_scale_factor=2,
            extra_http_headers={"X-A": "1", "X-Token": "open sesame"},
            http_credentials=("ann", "correct horse"),
        ) as session:
            session.execute(type="goto", url=f"{url}/page")
            session.execute(type="evaluate_js", code=told)
        with BrowserSession("first", locale="fr-FR") as session:
            session.execute(type="goto", url=f"{url}/open")
        assert [one[:3] for one in seen] == [
            ("/page", "de-DE,de;q=0.9", "1"),
            ("/told?Asia/Tokyo,500,2", "de-DE,de;q=0.9", "1"),
            ("/open", "fr-FR,fr;q=0.9", None),
        ]
        answers = {"the password of ann for sites": "correct horse", "the header X-Token": "open sesame"}
        stored = [path.read_bytes() for path in data_dir.rglob("*") if path.is_file()]
        assert [word for word in answers.values() if any(word.encode() in data for data in stored)] == []

        first, seen[:] = seen[:], []
        typed = "".join(f"{word}\n" for word in answers.values())
        done = runtimed("replay", "first", input=typed)
        assert (done.returncode, done.stdout.count("\n")) == (0, 3), done.stderr
        assert seen == first
        assert all(what in done.stderr for what in answers)

        unanswered = runtimed("replay", "first")
        assert unanswered.returncode == 1
        assert "the password of ann for sites is in no log, and there is no terminal to ask for it" in unanswered.stderr
        with BrowserSession("other", locale="de-DE"):
            joined = runtimed("replay", "first", "--session", "other", input=typed)
        assert joined.returncode == 1
        assert (
            "Session 'other' runs, and was started with another viewport_width, timezone_id, http_credentials, "
            "extra_http_headers, device_scale_factor than the session that is replayed"
        ) in joined.stderr
        assert seen == first
        server.shutdown()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "headless": False,
            "viewport_width": 500,
            "user_agent": "me",
            "cookie_file": "/a/b.json",
            "profile": "work",
            "persist_profile": False,
            "chrome_args": ["--x"],
            "allow_files": True,
            "downloads_dir": "/a/d",
            "chromium": "/a/c",
            "interactive_viewer": True,
            "geolocation": {"latitude": 1, "longitude": 2, "accuracy": 3},
            "permissions": ["midi"],
            "proxy": {"server": "http://proxy:1", "bypass": "a,b", "username": "ann", "password": "p"},
            "http_credentials": {"username": "bob", "password": "q", "origin": "http://a"},
            "ignore_https_errors": True,
            "extra_http_headers": {"Authorization": "r", "X-A": "1"},
            "accept_downloads": False,
        },
        {"allowed_domains": ["example.com"], "persist_profile": False},  # not beside a proxy
    ],
)
def test_no_option_of_a_browser_is_lost_on_the_way_through_the_log(options: dict[str, Any]):
    config = BrowserSession(**options)._config
    secrets = {
        "the password of ann for the proxy": "p",
        "the password of bob for sites": "q",
        "the header Authorization": "r",
    }
    recorded = msgspec.msgpack.decode(msgspec.msgpack.encode(record(config)))
    assert restore(recorded, secrets.__getitem__) == config
    assert restore({}, secrets.__getitem__) == BrowserSession()._config
    assert BrowserSession(**as_options(config))._config == config


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
