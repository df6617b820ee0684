"""`python -m tests` itself: it finds a browser, and stops where something fails."""

import subprocess
from pathlib import Path

import pytest

import tests.__main__ as command
from tests import chromium


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
