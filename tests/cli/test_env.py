"""`runtimed env`: what a kernel would get, and why."""

import json
import shutil
from pathlib import Path

import pytest

from runtimed import Session
from tests.cli.conftest import Command

SCRIPT = "# /// script\n# dependencies = ['six']\n# ///\nimport six\n"


@pytest.fixture(autouse=True)
def undecided(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIMED_ENV")


def test_explain_says_what_would_be_chosen_and_why_and_starts_nothing(runtimed: Command, data_dir: Path, tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\nname = "shop"\nversion = "1"\ndependencies = ["six"]\n')
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    done = runtimed("env", "explain", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"uv:pyproject: {project} is the nearest project file\n"
        "  packages: six\n"
        "  versions: the latest that fit; there is no uv.lock\n"
    )
    assert runtimed("env", "explain", f"{tmp_path}/not/there.ipynb").stdout == done.stdout
    assert runtimed("env", "explain", str(script)).stdout == (
        "uv:pep723: the first code cell begins with a script block (PEP 723)\n  packages: six\n"
    )
    assert json.loads(runtimed("env", "explain", "--json", str(tmp_path)).stdout) == {
        "env_source": "uv:pyproject",
        "reason": f"{project} is the nearest project file",
        "file": str(project),
    }
    assert list(data_dir.iterdir()) == []


def test_explain_says_what_cannot_be_understood(runtimed: Command, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project")
    done = runtimed("env", "explain", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{tmp_path}/pyproject.toml is no valid TOML: ")

    (tmp_path / "broken.ipynb").write_text("{")
    done = runtimed("env", "explain", str(tmp_path / "broken.ipynb"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{tmp_path}/broken.ipynb is no notebook: ")


def test_trust_consents_to_what_a_session_asks_for(runtimed: Command, data_dir: Path):
    assert runtimed("env", "trust", "mine").returncode == 3
    with Session("mine") as session:
        session.create_cell(SCRIPT)
        # As if the document had come from elsewhere.
        shutil.rmtree(data_dir / "trust")
        done = runtimed("env", "trust", "mine")
        assert (done.returncode, done.stdout) == (
            0,
            "The session 'mine' may install what it asks for:\n"
            "uv:pep723: the first code cell begins with a script block (PEP 723)\n"
            "  packages: six\n",
        )
        assert len(list((data_dir / "trust").iterdir())) == 2
        assert session.status().kernel_status == "not_started"
    assert runtimed("env", "trust", "nobody").returncode == 4
