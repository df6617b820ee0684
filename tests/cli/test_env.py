"""`runtimed env`: what a kernel would get, and why."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtimed import Session
from tests.cli.conftest import Command
from tests.environments.test_prune import make

SCRIPT = "# /// script\n# dependencies = ['six']\n# ///\nimport six\n"


@pytest.fixture
def runtimed(in_process: Command, data_dir: Path) -> Command:
    """Run a command to its end, on the test's own daemon."""
    return in_process


@pytest.fixture(autouse=True)
def undecided(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIMED_ENV")


def test_explain_says_what_would_be_chosen_and_why_and_starts_nothing(
    runtimed: Command, data_dir: Path, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "shop"\nversion = "1"\ndependencies = ["six"]\n')
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    monkeypatch.chdir(tmp_path)
    done = runtimed("env", "explain")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"uv:pyproject: {project} is the nearest project file\n"
        "  packages: six\n"
        "  versions: the latest that fit; there is no uv.lock\n"
    )
    missing = runtimed("env", "explain", f"{tmp_path}/not/there.ipynb")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == f"There is no {tmp_path}/not/there.ipynb\n"
    assert runtimed("env", "explain", str(script)).stdout == (
        "uv:pep723: the notebook or the file has a script block (PEP 723)\n  packages: six\n"
    )
    assert json.loads(runtimed("env", "explain", "--json", str(tmp_path)).stdout) == {
        "env_source": "uv:pyproject",
        "reason": f"{project} is the nearest project file",
        "file": str(project),
        "refused": None,
    }
    assert list(data_dir.iterdir()) == []


def test_without_uv_the_start_refuses_in_the_words_of_explain_and_with_no_other_traceback(data_dir: Path, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "shop"\nversion = "1"\n')
    begin = "import sys; sys.modules['uv'] = None\n"
    explain = f"{begin}from runtimed.cli.main import main; sys.exit(main(['env', 'explain']))"
    run = f"{begin}import runtimed\nwith runtimed.Session('shop') as s: s.run('1')"
    queue = f"{begin}import runtimed\nwith runtimed.Session('shop') as s: s.queue_cell(s.create_cell('1'))"
    variables = {name: value for name, value in os.environ.items() if name != "RUNTIMED_ENV"} | {"PATH": "/nowhere"}

    def python(code: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)

    refused = python(explain)
    sentence = (
        f"uv:pyproject needs uv, which is not installed ({tmp_path}/pyproject.toml is the nearest project file); "
        "install it with `pip install 'ipython-runtimed[uv]'`, or ask for the interpreter that is there: "
        'env_source="current", `--env current`'
    )
    assert (refused.returncode, refused.stderr) == (1, f"A kernel would not start: {sentence}\n")
    assert refused.stdout.startswith("uv:pyproject: ")
    for code in (run, queue):
        started = python(code)
        assert started.stderr.splitlines()[-1] == f"runtimed.errors.EnvironmentFailed: {sentence}"
        assert started.stderr.count("Traceback") == 1


def test_explain_says_what_cannot_be_understood(runtimed: Command, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project")
    done = runtimed("env", "explain", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{tmp_path}/pyproject.toml is no valid TOML: ")

    (tmp_path / "broken.ipynb").write_text("{")
    done = runtimed("env", "explain", str(tmp_path / "broken.ipynb"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{tmp_path}/broken.ipynb cannot be read: it is no notebook: ")


def test_explain_takes_any_path_and_says_that_the_folder_it_works_in_is_gone(runtimed: Command, tmp_path):
    (tmp_path / "pixi.toml").write_text("[workspace]\nchannels = ['mine']\n")
    too_long = runtimed("env", "explain", f"{tmp_path}/{'a' * 300}/nb.ipynb")
    assert (too_long.returncode, too_long.stdout) == (2, "")
    assert too_long.stderr.startswith(f"There is no {tmp_path}/aaa")

    (tmp_path / "list.ipynb").write_text("[]")
    done = runtimed("env", "explain", str(tmp_path / "list.ipynb"))
    assert done.stderr == f"{tmp_path}/list.ipynb cannot be read: it is no notebook\n"

    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; from runtimed.cli.main import main; "
        "os.chdir('gone'); os.rmdir('../gone'); sys.exit(main(['env', 'explain']))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (
        1,
        "The folder in which this process works was deleted; change to another one (os.chdir, cd) and try again\n",
    )


def test_trust_consents_to_what_a_session_asks_for(runtimed: Command, data_dir: Path):
    assert runtimed("env", "trust", "mine").returncode == 4
    with Session("mine") as session:
        session.create_cell(SCRIPT)
        # As if the document had come from elsewhere.
        shutil.rmtree(data_dir / "trust")
        done = runtimed("env", "trust", "mine")
        assert (done.returncode, done.stdout) == (
            0,
            "The session 'mine' may install what it asks for:\n"
            "uv:pep723: the notebook or the file has a script block (PEP 723)\n"
            "  packages: six\n",
        )
        assert len(list((data_dir / "trust").iterdir())) == 2
        assert session.status().kernel_status == "not_started"
    assert runtimed("env", "trust", "nobody").returncode == 4


def test_list_and_prune_show_and_remove_what_was_made(runtimed: Command, data_dir: Path):
    folder = data_dir / "environments"
    assert runtimed("env", "list").stdout == f"No environments in {folder}\n"
    assert json.loads(runtimed("env", "prune", "--all", "--json").stdout) == {
        "removed": [],
        "kept": [],
        "problems": [],
    }

    now = time.time()
    make(folder, "a", 2, 2**20, at=now)
    make(folder, "b", 40, at=now)
    make(folder, "c", at=now)
    listed = runtimed("env", "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:4]] == [[n * 12, "uv", n] for n in "cab"]
    # Folders take some, too, how much depends on the file system.
    assert f"3 environments in {folder}, together 1." in listed.stdout
    maps = json.loads(runtimed("env", "list", "--json").stdout)
    assert [(one["name"], one["packages"], one["in_use"]) for one in maps] == [
        ("c" * 32, ["c"], False),
        ("a" * 32, ["a"], False),
        ("b" * 32, ["b"], False),
    ]

    dry = runtimed("env", "prune", "--dry-run").stdout
    assert (dry.splitlines()[1].split()[0], dry.splitlines()[-1]) == (
        "b" * 12,
        "Would remove 1 environment; 2 stay, 0 of them in use",
    )
    assert runtimed("env", "prune").stdout.endswith("\nRemoved 1 environment; 2 stay, 0 of them in use\n")
    assert runtimed("env", "prune", "--older-than", "3").stdout == "Removed 0 environments; 2 stay, 0 of them in use\n"
    gone = json.loads(runtimed("env", "prune", "--older-than", "1", "--json").stdout)
    assert [one["name"] for one in gone["removed"]] == ["a" * 32]
    assert runtimed("env", "prune", "--all").stdout == "Removed 0 environments; 1 stay, 0 of them in use\n"
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["c" * 32]
    assert runtimed("env", "prune", "--older-than", "-1").returncode == 2
