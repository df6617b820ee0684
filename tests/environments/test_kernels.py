"""Kernels in environments that are made for them: real sessions, a real daemon, a real uv."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtimed import (
    Client,
    EnvironmentFailed,
    ExecutionCancelled,
    ExecutionEvent,
    ExecutionTimeout,
    RuntimedError,
    Session,
    SessionClosed,
)
from runtimed.environments.store import MARKER
from tests.conftest import command_of, own_daemon, processes_of, wait_until

pytestmark = pytest.mark.slow

ALPHA = "# /// script\n# dependencies = ['alpha']\n# ///\nimport alpha\nprint(alpha.version)"


@pytest.fixture
def data(client: pytest.MonkeyPatch, shared_daemon: Path) -> Path:
    """The data folder of these tests; it has the plain environment."""
    return shared_daemon


def environments(data: Path) -> list[list[str]]:
    """What was asked for in each environment that is complete."""
    markers = (data / "environments").glob(f"*/{MARKER}")
    return sorted(json.loads(marker.read_text())["dependencies"] for marker in markers)


def half_made(data: Path) -> list[Path]:
    """The environments that are not complete."""
    folders = [path for path in (data / "environments").iterdir() if path.is_dir()]
    return [folder for folder in folders if not (folder / MARKER).exists()]


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Do something meanwhile; the list gets its result, or its error."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except RuntimedError as exc:
            results.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_auto_is_the_interpreter_that_asks_where_nothing_is_declared_and_each_start_says_so(client, data, caplog):
    caplog.set_level("INFO", "runtimed")
    with Session() as session:
        assert session.run("import sys; print(sys.executable)").stdout == f"{sys.executable}\n"
        assert session.env_source == "current"
        session.add_uv_dependency("alpha")
        assert session.sync_environment().needs_restart
        session.restart_kernel()
        assert session.run("import alpha; print(alpha.version)").stdout == "2.0\n"
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("kernel: ")]
    assert said[0].startswith("kernel: current, since no dependencies in the notebook, no project file from /")
    assert said[1:] == ["kernel: uv:inline, since the notebook's metadata name dependencies for uv"]


def test_the_plain_environment_of_uv_is_made_once_and_the_second_session_has_it_at_once(client, short_folder):
    client.setenv("RUNTIMED_ENV", "uv:prewarmed")
    with own_daemon(short_folder):
        with Session() as first, contextlib.closing(first.subscribe(event_types=["env_progress"])) as events:
            prefix = first.run("import sys; print(sys.prefix)").stdout.strip()
            assert (Path(prefix).parent, first.env_source) == (short_folder / "environments", "uv:prewarmed")
            told = [next(events) for _ in range(4)]
            assert [event.status for event in told] == ["resolve", "install", "install", "start"]
            assert told[-1] == ExecutionEvent(
                event_type="env_progress", status="start", message="Starting the kernel in uv:prewarmed"
            )
            with Session() as second:
                second.start_kernel()
                assert second.run("import sys; print(sys.prefix)").stdout.strip() == prefix
        assert environments(short_folder) == [[]]


def test_a_notebook_that_names_dependencies_gets_them_and_keeps_them_through_restarts(data):
    with Session("declares") as session:
        session.set_metadata("notebook_metadata", json.dumps({"runt": {"uv": {"dependencies": ["beta"]}}}))
        show = "import alpha, beta, os, sys; print(alpha.version, os.environ['VIRTUAL_ENV'] == sys.prefix)"
        assert session.run(show).stdout == "1.0 True\n"
        assert session.env_source == "uv:inline"
        session.restart_kernel()
        assert (session.run(show).stdout, session.env_source) == ("1.0 True\n", "uv:inline")

        (daemon,) = [p for p in processes_of(data) if "runtimed.daemon" in " ".join(command_of(p))]
        daemon.kill()
        daemon.wait()
        assert (session.run(show).stdout, session.env_source) == ("1.0 True\n", "uv:inline")
        session.stop()


def test_the_first_code_of_a_session_may_say_what_it_needs(data):
    with Session() as session:
        assert session.run(ALPHA).stdout == "2.0\n"
        assert session.env_source == "uv:pep723"


def test_pip_in_a_kernel_changes_neither_the_clients_environment_nor_what_others_share(data, client, tmp_path):
    own = tmp_path / "own/bin"
    own.mkdir(parents=True)
    for name in ("pip", "pip3"):
        (own / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/installed\n")
        (own / name).chmod(0o755)
    client.setenv("PATH", f"{own}:{Path(sys.executable).parent}:/usr/bin:/bin")
    with Session() as session:
        session.start_kernel(env_source="uv:prewarmed")
        prefix = Path(session.run("import sys; print(sys.prefix)").stdout.strip())
        before = sorted(prefix.rglob("*.dist-info"))
        for command in (
            "!pip install alpha",
            "!pip3 --log list.txt uninstall -y ipykernel",
            "%pip install alpha",
            "!uv --color never pip install alpha",
        ):
            said = session.run(command)
            assert "Name what the session needs: session.add_uv_dependency('NAME')" in said.stdout + said.stderr, (
                command
            )
            if command.startswith("!"):
                assert session.run("print(_exit_code); del _exit_code").stdout == "1\n", command
            assert sorted(prefix.rglob("*.dist-info")) == before, command
            assert not (tmp_path / "installed").exists(), command
        assert session.run("!uv --version").stdout.startswith("uv ")
        target = tmp_path / "target"
        assert session.run(f"!uv pip install -q --target {target} alpha").success
        assert (target / "alpha.py").exists()


def test_pip_in_a_kernel_does_all_that_changes_nothing(data, client, tmp_path):
    folder = Path(sys.executable).parent
    too_old = tmp_path / "old"
    too_old.mkdir()
    (too_old / "pip").write_text('#!/bin/sh\n[ "$1" != --python ] || exit 2\ntouch ' + str(tmp_path / "ran"))
    (too_old / "pip").chmod(0o755)
    client.setenv("PATH", f"{too_old}:{folder}:/usr/bin:/bin")
    with Session() as session:
        session.start_kernel(env_source="uv:prewarmed")
        session.run(f"import os; os.chdir({str(tmp_path)!r})")
        interpreter = session.run("import sys; print(sys.executable)").stdout.strip()
        command = [str(folder / "pip"), "--python", interpreter, "list", "--format=freeze"]
        frozen = subprocess.run(command, stdout=-1, text=True, check=True).stdout
        wheels = os.environ["UV_FIND_LINKS"]
        for arguments, expected in (
            ("list --format=freeze", re.escape(frozen)),
            (f"--log pip.log -qq download --no-deps --no-index --find-links {wheels} -d got alpha", ""),
        ):
            assert re.fullmatch(expected, session.run(f"!pip {arguments}").stdout), arguments
            assert session.run("print(_exit_code)").stdout == "0\n", arguments
        assert [path.name.split("-")[0] for path in (tmp_path / "got").iterdir()] == ["alpha"]
        assert session.run("import pip\nprint(pip.main(['install', '--help']))").stdout.endswith("0\n")
        (too_old / "dirname").symlink_to(shutil.which("dirname") or "")
        said = session.run(f"!PATH={too_old} {Path(interpreter).parent}/pip list")
        assert (said.stdout + said.stderr).startswith("pip: not found; this environment has none")
        assert not (tmp_path / "ran").exists()


def test_a_notebooks_path_says_which_project_it_belongs_to(data, tmp_path):
    project = tmp_path / "shop/pyproject.toml"
    project.parent.mkdir()
    project.write_text('[project]\nname = "shop"\nversion = "1"\ndependencies = ["alpha<2"]\n')
    with Session() as session:
        session.start_kernel(notebook_path=project.parent / "not/there/yet.ipynb")
        assert session.run("import alpha, os; print(alpha.version, os.getcwd())").stdout == f"1.0 {project.parent}\n"
        assert session.env_source == "uv:pyproject"


def test_sessions_that_ask_at_once_for_the_same_new_environment_get_one(data):
    code = ALPHA.replace("'alpha'", "'alpha>1'")

    def use() -> str:
        with Session() as session:
            return session.run(code).stdout

    threads = [in_thread(use) for _ in range(3)]
    for thread, _results in threads:
        thread.join()
    assert [results for _thread, results in threads] == [["2.0\n"]] * 3
    assert environments(data).count(["alpha>1"]) == 1


def test_what_cannot_be_had_is_said_to_whoever_asked_and_the_session_lives_on(data, tmp_path):
    with Session("unlucky") as session:
        with pytest.raises(EnvironmentFailed, match="No version of 'alpha' fits") as raised:
            session.run(ALPHA.replace("'alpha'", "'alpha==7'"))
        assert raised.value.package == "alpha"
        assert (session.status().status, session.status().kernel_status, session.env_source) == (
            "active",
            "not_started",
            None,
        )
        (tmp_path / "pyproject.toml").write_text("[broken")
        with pytest.raises(EnvironmentFailed, match="pyproject.toml is no valid TOML"):
            session.start_kernel()
        session.start_kernel(env_source="uv:prewarmed")
        assert session.env_source == "uv:prewarmed"
        session.stop()
    assert (["alpha==7"] in environments(data), half_made(data)) == (False, [])


# --- while it is made -------------------------------------------------------------------------------------------------


@pytest.fixture
def endless(data: Path, client: pytest.MonkeyPatch) -> Iterator[str]:
    """Code whose environment is never finished: its index takes connections and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client.delenv("UV_OFFLINE")
        client.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
        client.setenv("UV_HTTP_TIMEOUT", "600")
        yield "# /// script\n# dependencies = ['gamma']\n# ///\nimport gamma\nprint(gamma.version)"


def installers_of(data: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() == "uv" and str(data) in " ".join(process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_a_session_that_is_stopped_meanwhile_leaves_neither_installer_nor_folder(data, endless):
    session = Session("stopped")
    session.connect()
    thread, results = in_thread(lambda: session.run(endless))
    wait_until(lambda: half_made(data) and installers_of(data), "nothing is made")
    status = Client().sessions.get("stopped")
    assert (status.kernel_status, status.env_source) == ("starting", "uv:pep723")

    begun = time.monotonic()
    Client().sessions.stop("stopped")
    thread.join()
    assert time.monotonic() - begun < 5
    assert [type(result) for result in results] == [SessionClosed]
    wait_until(lambda: not installers_of(data), "uv lives on")
    wait_until(lambda: not half_made(data), "what was made lies on")
    session.close()


def test_a_timeout_ends_the_waiting_and_the_execution_begins_when_the_kernel_is_there(data, endless):
    with Session("patient") as session:
        with pytest.raises(ExecutionTimeout, match="timed out after 2 seconds") as raised:
            session.run(endless, timeout_secs=2)
        assert session.status().kernel_status == "starting"
        # Another client's request changes nothing about what is being made.
        assert [cell.source for cell in session.get_cells()] == [endless]
        session.stop()
        assert Client().sessions.get("patient").status == "closed"
    with Session("patient") as session, pytest.raises(ExecutionCancelled):
        session.wait(raised.value.execution_id)


def test_a_daemon_that_dies_meanwhile_leaves_nothing_that_is_used(data, endless):
    session = Session("orphaned")
    session.connect()
    thread, results = in_thread(lambda: session.run(endless))
    wait_until(lambda: half_made(data) and installers_of(data), "nothing is made")
    (daemon,) = [p for p in processes_of(data) if "runtimed.daemon" in " ".join(command_of(p))]
    orphans = installers_of(data)
    daemon.kill()
    # The client's next daemon waits for what the dead one started.
    wait_until(lambda: Client().is_running(), "no daemon comes back")
    assert all(orphan.is_running() for orphan in orphans)
    for orphan in orphans:
        orphan.kill()
    wait_until(
        lambda: [p.pid for p in installers_of(data)] not in ([], [p.pid for p in orphans]), "it is not made anew"
    )
    Client().sessions.stop("orphaned")
    thread.join()
    assert [type(result) for result in results] == [SessionClosed]
    session.close()


def test_an_environment_that_is_deleted_under_its_kernel_costs_no_state_and_is_made_anew(data):
    with Session("robbed") as session:
        session.run(ALPHA)
        folder = Path(session.run("import sys; print(sys.prefix)").stdout.strip())
        shutil.rmtree(folder)
        assert session.run("print(alpha.version)").stdout == "2.0\n"
        session.restart_kernel()
        assert session.run("import alpha; print(alpha.version)").stdout == "2.0\n"
        assert folder.is_dir()
        session.stop()
