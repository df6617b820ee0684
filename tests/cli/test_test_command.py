"""`python -m tests` itself: it finds a browser, and stops where something fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tests.__main__ as command
from tests import chromium
from tests.newest import ROOT


def program(path: Path, text: str = "#!/bin/sh\necho Chromium 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any browser."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "browsers"))
    monkeypatch.delenv("RUNTIMED_CHROMIUM", raising=False)
    monkeypatch.setattr("runtimed.browser.find._APPLICATIONS", ())
    return tmp_path


def test_the_tests_drive_the_browser_that_sessions_take(bare: Path):
    on_path = program(bare / "bin/google-chrome")
    assert chromium.ensure_chromium() == on_path
    of_playwright = program(bare / "browsers/chromium-999/chrome-linux/chrome")
    assert chromium.ensure_chromium() == of_playwright


def test_a_browser_that_does_not_run_is_none(bare: Path):
    program(bare / "bin/chromium-browser", "#!/bin/sh\necho requires the chromium snap >&2\nexit 1\n")
    with pytest.raises(chromium.Missing, match="requires the chromium snap"):
        chromium.ensure_chromium()


def test_a_machine_without_a_browser_is_told_how_to_get_one(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: pytest.fail("nothing more should run"))
    assert command.main([]) == 1
    printed = capsys.readouterr().out
    assert "apt-get install --no-install-recommends chromium" in printed
    assert printed.splitlines()[-1].startswith("== Chromium failed after ")


def test_root_installs_a_browser_with_apt(bare: Path, monkeypatch: pytest.MonkeyPatch):
    calls = bare / "calls"
    program(bare / "bin/apt-get", f'#!/bin/sh\necho "$@" >> {calls}\n')
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(chromium.Missing):
        chromium.ensure_chromium()
    assert calls.read_text() == "update -q\ninstall -q -y --no-install-recommends chromium\n"


def test_the_first_failing_step_is_the_last(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    ran: list[str] = []

    def run(arguments: tuple[str, ...], **options: object) -> "subprocess.CompletedProcess[str]":
        ran.append(arguments[-1])
        return subprocess.CompletedProcess(arguments, 3 if arguments[-1] == "mypy" else 0)

    monkeypatch.setattr(command, "ensure_chromium", lambda: Path("/usr/bin/chromium"))
    monkeypatch.setattr(subprocess, "run", run)
    assert command.main(["-k", "foo"]) == 3
    assert ran == ["check", "--check", "mypy"]
    assert "== mypy failed after" in capsys.readouterr().out


def test_the_fast_run_leaves_out_what_is_slow_and_gives_each_test_little_time(monkeypatch: pytest.MonkeyPatch):
    ran: list[tuple[str, ...]] = []

    def run(arguments: tuple[str, ...], **options: object) -> "subprocess.CompletedProcess[str]":
        ran.append(arguments)
        return subprocess.CompletedProcess(arguments, 0)

    monkeypatch.setattr(command, "ensure_chromium", lambda: pytest.fail("no test of the fast run drives a browser"))
    monkeypatch.setattr(subprocess, "run", run)
    assert command.main(["--fast", "-x"]) == 0
    assert [arguments[-1] for arguments in ran[:-1]] == ["check", "--check", "mypy", ran[3][-1]]
    assert ran[-1][-6:] == ("-m", "not slow", "--timeout", "30", "--durations=5", "-x")


MARKED = """
import pytest

@pytest.fixture
def data_dir(): ...

@pytest.fixture(scope="module")
def shared_daemon(): ...

def test_shared(shared_daemon): ...
def test_own(data_dir): ...

@pytest.mark.timeout(240)
def test_patient(): ...

@pytest.mark.slow
def test_marked(): ...
"""


def test_slow_is_what_is_marked_has_processes_of_its_own_or_asks_for_more_time(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(MARKED)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "not slow", "-p", "tests.conftest"),
            *("-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "test_it.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert [line for line in done.stdout.splitlines() if "::" in line] == ["test_it.py::test_shared"]
