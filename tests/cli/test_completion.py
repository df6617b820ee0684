"""Completion with Tab, in real shells and as such."""

import os
import shutil
import sys
from pathlib import Path

import pexpect
import pytest

from runtimed import Client, Session
from runtimed.cli.completion import answer, candidates
from tests.old_sessions import put_old_sessions

NAMES = ("alpha", "alphabet", "two words", "it's", "a:b", "ünï", "esc\x1b[31m")


@pytest.fixture(scope="module")
def sessions(shared_daemon: Path) -> None:
    """Sessions whose ids are to be completed."""
    put_old_sessions(shared_daemon, NAMES)
    for name in NAMES:
        with Session(name) as session:
            session.create_cell("1")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("runtimed sto", ["stop"]),
        ("runtimed env tr", ["trust"]),
        ("runtimed sessions --st", ["--status"]),
        ("runtimed sessions --status ", ["active", "closed", "error", "timed_out"]),
        ("runtimed sessions --json --j", []),
        ("runtimed cells alp", ["alphabet", "alpha"]),
        ("runtimed run --session alphab", ["alphabet"]),
        ("runtimed run --env uv:p", ["prewarmed"]),
        ("runtimed run --session alpha file.py --ses", []),
        ("runtimed run --session alpha --det", ["--detach"]),
        ("runtimed stop --yes 'two", ["'two words'"]),
        ("runtimed stop tw", ["'two words'"]),
        ("runtimed delete a:", ["b"]),
        ("runtimed cells esc", []),
        ("runtimed cells ü", ["ünï"]),
        ("runtimed fly ", []),
        ("runtimed run ", []),
    ],
)
def test_a_line_has_these_candidates(line: str, found: list[str], sessions: None, capsys: pytest.CaptureFixture[str]):
    answer(["bash", line])
    out = capsys.readouterr().out.splitlines()
    quoted = [word.strip("'") for word in found]
    assert [word.strip("'") for word in sorted(out)] == sorted(quoted)


def test_the_cells_of_a_session_are_offered(sessions: None):
    with Session("alpha") as session:
        (cell_id,) = session.get_cell_ids()
    assert list(candidates(["cells", "alpha"], "cell-")) == [cell_id]
    assert list(candidates(["attach", "alpha"], cell_id[:8])) == [cell_id]


def test_tab_starts_no_daemon(short_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(short_folder))
    answer(["bash", "runtimed cells "])
    answer(["bash", "runtimed st"])
    assert capsys.readouterr().out.splitlines() == ["start", "stop", "status"]
    assert not Client().is_running()
    assert list(short_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("shell", "arguments"), [("bash", ["--norc", "--noprofile"]), ("zsh", ["-f"])], ids=["bash", "zsh"]
)
def test_a_real_shell_completes(shell: str, arguments: list[str], sessions: None, tmp_path: Path):
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} here")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    program = bin_folder / "runtimed"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m runtimed "$@"\n')
    program.chmod(0o700)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PS1": "ready> ", "TERM": "dumb"}
    child = pexpect.spawn(path, [*arguments, "-i"], env=environment, timeout=60, encoding="utf-8", dimensions=(24, 200))
    try:
        child.expect_exact("ready> ")
        child.sendline('eval "$(runtimed completion ' + shell + ')"; echo lo""aded')
        child.expect_exact("loaded")
        for typed, whole in (
            ("runtimed inter", "interrupt"),
            ("runtimed cells alphab", "alphabet"),
            ("runtimed run --env uv:pre", "uv:prewarmed"),
            ("runtimed stop tw", "'two words'" if shell == "bash" else r"two\ words"),
        ):
            child.send(f"{typed}\t")
            child.expect_exact(whole)
            child.sendcontrol("u")
    finally:
        child.close(force=True)
