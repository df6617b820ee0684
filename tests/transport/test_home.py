"""A client whose Python has no automerge: the daemon gets a Python of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from runtimed import Client
from runtimed.transport.home import daemon_interpreter, find_uv

SOURCE = Path(__file__).parents[2]
UV = find_uv() or "uv"

CLIENT = """
import sys, runtimed
with runtimed.Session("shared") as session:
    cell_id = session.create_cell("import sys; version")
    session.set_source(cell_id, "import sys; print(sys.version_info[:2]); 40 + 2")
    events = [event.event_type for event in session.stream_execute(cell_id)]
    result = session.run("1 / 0")
    assert result.error.ename == "ZeroDivisionError"
    print(session.get_cell(cell_id).outputs[0].text, end="")
    print(events)
"""

FAILING = """
import runtimed, runtimed.transport.home as home
home._requirements = lambda: ["a-package-that-nobody-has-published==1.2.3"]
try:
    runtimed.Session().connect()
except runtimed.DaemonUnavailable as exc:
    print(exc)
"""


def uv(*arguments: str | Path) -> str:
    """Run uv, and show what it says if it fails."""
    done = subprocess.run([UV, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def find_python_313() -> str | None:
    """Return a Python 3.13 of this machine, one that pyenv has put aside included."""
    done = subprocess.run([UV, "python", "find", "3.13"], capture_output=True, text=True, check=False)
    of_pyenv = sorted(Path.home().glob(".pyenv/versions/3.13.*/bin/python3.13"))
    return done.stdout.strip() or next(map(str, of_pyenv), None)


@pytest.fixture(scope="module", params=["3.13", "no automerge"])
def client_python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with this package, installed as a user would, that cannot run the daemon."""
    interpreter = sys.executable if request.param == "no automerge" else find_python_313()
    if interpreter is None:
        pytest.skip("there is no Python 3.13 on this machine")
    folder = tmp_path_factory.mktemp("client") / "venv"
    uv("venv", "--quiet", "--no-project", "--python", interpreter, folder)
    # From a copy: a build leaves files in its folder.
    copy = folder / "source"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "tests"))
    uv("pip", "install", "--quiet", "--python", folder / "bin" / "python", f"{copy}[uv]")
    if request.param == "no automerge":
        uv("pip", "uninstall", "--quiet", "--python", folder / "bin" / "python", "automerge")
    return folder / "bin" / "python"


def run(python: Path, code: str, *, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter; `path` is all that is on its PATH, if given."""
    environment = {**os.environ, **({"PATH": os.pathsep.join(map(str, path))} if path else {})}
    command = [str(python), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")


def test_a_client_without_automerge_starts_a_daemon_and_runs_its_own_python(
    client_python: Path, data_dir: Path
) -> None:
    # Nothing half-made stays when uv fails; the next client, with nothing wrong, makes it.
    failed = run(client_python, FAILING)
    assert "a-package-that-nobody-has-published" in failed.stdout, failed.stderr
    assert list((data_dir / "home").iterdir()) == []
    done = run(client_python, CLIENT)
    # The kernel runs in the client's Python, not in the daemon's.
    version = run(client_python, "import sys; print(sys.version_info[:2])").stdout
    assert done.stdout == f"{version}['execution_started', 'output', 'output', 'done']\n", done.stderr
    # The making is told once; the second client finds the environment, and the session that the first has left.
    assert "preparing an environment for runtimed's daemon" in done.stderr
    Client().shutdown()
    again = run(
        client_python, "import runtimed; s = runtimed.Session('shared'); s.connect(); print(len(s.get_cells()))"
    )
    assert (again.stdout, again.stderr) == ("2\n", "")
    status = Client().status()
    assert status is not None
    (home,) = (data_dir / "home").iterdir()
    assert psutil.Process(status.pid).cmdline()[0] == str(home / "bin" / "python")


def test_one_sentence_says_what_to_do_where_there_is_no_uv(client_python: Path, data_dir: Path, tmp_path: Path) -> None:
    beside = client_python.with_name("uv")
    hidden = beside.rename(beside.with_name("uv-hidden"))
    try:
        done = run(client_python, "import runtimed; runtimed.Session().connect()", path=[tmp_path])
    finally:
        hidden.rename(beside)
    (line,) = [line for line in done.stderr.splitlines() if "DaemonUnavailable" in line]
    assert "pip install 'ipython-runtimed[uv]'" in line
    assert not (data_dir / "home").exists()


def test_an_index_that_says_nothing_is_given_up_within_seconds(
    client_python: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
        done = run(
            client_python,
            "import runtimed, runtimed.transport.home as home\n"
            "home._SILENCE = {'UV_HTTP_TIMEOUT': '1'}\n"
            "runtimed.Session().connect()",
        )
    (line,) = [line for line in done.stderr.splitlines() if "DaemonUnavailable" in line]
    assert "`uv pip` could not make one" in line
    assert time.monotonic() - begun < 40


def test_where_automerge_is_no_environment_is_made(tmp_path: Path) -> None:
    assert daemon_interpreter(tmp_path) == sys.executable
    assert list(tmp_path.iterdir()) == []
