"""Kernels in conda environments that are made for them: real sessions, a real daemon, a real channel."""

import json
from pathlib import Path

import pytest

from runtimed import Client, EnvironmentFailed, Session
from runtimed.environments.conda_files import current_platform

pytestmark = pytest.mark.slow

SHOW = (
    "import greeting, os, sys\n"
    "print(greeting.WORDS, os.environ['CONDA_PREFIX'] == sys.prefix, os.environ.get('VIRTUAL_ENV'))"
)

WORKSPACE = f'platforms = ["{current_platform()}"]\n'


@pytest.fixture(autouse=True)
def client(tmp_path: Path, conda_channel: str, shared_daemon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client in an empty folder that is its home, for which `auto` means what it says."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/else")
    monkeypatch.delenv("RUNTIMED_ENV")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("source", "name", "text"),
    [
        (
            "conda:env_yml",
            "environment.yml",
            "dependencies: [greeting 1.*]\nvariables:\n  GREETING: is $HOME\n  NUMBER: 3\n  CONDARC_: '{root}/x'\n",
        ),
        (
            "conda:pixi",
            "pixi.toml",
            f'[workspace]\n{WORKSPACE}[dependencies]\ngreeting = "1.*"\n[activation.env]\nGREETING = "is $$HOME"\n'
            'NUMBER = "3"\nCONDARC_ = "$PIXI_PROJECT_ROOT/x"\n',
        ),
        (
            "conda:pyproject",
            "pyproject.toml",
            f'[tool.pixi.workspace]\n{WORKSPACE}[tool.pixi.dependencies]\ngreeting = "1.*"\n'
            '[tool.pixi.activation.env]\nGREETING = "is $$HOME"\nNUMBER = "3"\nCONDARC_ = "$PIXI_PROJECT_ROOT/x"\n',
        ),
    ],
)
def test_a_project_gets_a_kernel_with_the_conda_packages_and_the_variables_that_it_declares(
    source, name, text, tmp_path
):
    (tmp_path / name).write_text(text.replace("{root}", str(tmp_path)))
    show = "import os; print([os.environ[name] for name in ('GREETING', 'NUMBER', 'CONDARC_')])"
    with Session() as session:
        expected = f"{['is $HOME', '3', f'{tmp_path}/x']}\n"
        assert session.run(show).stdout == expected
        assert session.env_source == source
        assert session.run(SHOW).stdout == "greeting 1.0 True None\n"
        session.restart_kernel()
        assert session.run(show).stdout == expected
        # What only this kernel should have goes into no environment of others.
        refused = session.run("!pip install x")
        assert "session.add_conda_dependency('NAME')" in refused.stdout + refused.stderr
        assert session.run("print(_exit_code)").stdout == "1\n"


def test_a_notebook_that_names_conda_packages_gets_them_and_what_is_wrong_is_said(conda_channel):
    def ask_for(package: str) -> None:
        conda = {"dependencies": [package], "channels": [conda_channel]}
        session.set_metadata("notebook_metadata", json.dumps({"runt": {"conda": conda}}))

    with Session() as session:
        ask_for("farewell")
        with pytest.raises(EnvironmentFailed, match="farewell") as raised:
            session.start_kernel()
        assert raised.value.package == "farewell"
        # The environment of the projects above.
        ask_for("greeting 1.*")
        assert session.run(SHOW).stdout == "greeting 1.0 True None\n"
        assert session.env_source == "conda:inline"


def test_the_plain_conda_environment_comes_from_the_configured_channels(shared_daemon):
    with Session() as session:
        session.start_kernel(env_source="conda:prewarmed")
        prefix = Path(session.run("import sys; print(sys.prefix)").stdout.strip())
        assert (prefix.parent, session.env_source) == (shared_daemon / "environments", "conda:prewarmed")
        assert [record.name for record in (prefix / "conda-meta").glob("ipykernel-*.json")]


def test_a_notebook_whose_metadata_ask_for_deno_gets_it():
    with Session("typescript") as session:
        session.set_kernelspec("deno", "Deno")
        assert session.run("console.log(1 as number)").stdout == "1\n"
        status = Client().sessions.get("typescript")
        assert (status.kernel_type, status.env_source) == ("deno", "deno")
        session.stop()
