"""Consent: what others have named is installed only when the user says so. Real sessions, documents and files."""

import json
import os
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from runtimed import Client, EnvironmentFailed, Session, StorageError
from runtimed.environments.detection import decide
from runtimed.environments.facts import gather
from runtimed.environments.recipes import CondaRecipe, Recipe, UvRecipe
from runtimed.environments.trust import Trust, dependency_set, origins, packages
from tests.conftest import own_daemon

PROJECT = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["alpha<2"]\n'
SCRIPT = "# /// script\n# dependencies = ['alpha']\n# ///\nimport alpha\nalpha.version"
METADATA = json.dumps({"runt": {"uv": {"dependencies": ["alpha", "beta"]}}})

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to others")


# --- consents ---------------------------------------------------------------------------------------------------------


def test_a_consent_is_good_for_its_dependencies_and_its_key_alone(tmp_path):
    trust = Trust(tmp_path / "here")
    assert not trust.has("a" * 32)
    trust.give("a" * 32)
    trust.give("a" * 32)
    assert [Trust(tmp_path / "here").has(name * 32) for name in "ab"] == [True, False]
    assert [oct(path.stat().st_mode & 0o777) for path in (tmp_path / "here").iterdir()] == ["0o600", "0o600"]

    shutil.copy(tmp_path / "here" / ("a" * 32), tmp_path / "here" / ("b" * 32))
    assert not trust.has("b" * 32)
    there = Trust(tmp_path / "there")
    there.give("c" * 32)
    shutil.copy(tmp_path / "here" / ("a" * 32), tmp_path / "there")
    assert [there.has(name * 32) for name in "ac"] == [False, True]


def test_consents_that_are_given_at_once_are_all_kept(tmp_path):
    trust = Trust(tmp_path)
    names = [f"{number:032}" for number in range(50)]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(trust.give, names))
    assert [trust.has(name) for name in names] == [True] * 50


def test_a_consent_that_cannot_be_stored_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=f"The consent .* cannot be stored in {tmp_path}/file"):
        Trust(tmp_path / "file").give("a" * 32)


@pytest.mark.parametrize("harm", ["public", "short", "gone"])
def test_a_key_that_others_may_know_ends_all_consents_and_another_is_made(tmp_path, harm):
    trust = Trust(tmp_path)
    trust.give("a" * 32)
    key = tmp_path / "key"
    match harm:
        case "public":
            key.chmod(0o644)
        case "short":
            key.write_bytes(b"guess")
        case "gone":
            key.unlink()
    assert not trust.has("a" * 32)
    trust.give("b" * 32)
    assert [trust.has(name * 32) for name in "ab"] == [False, True]
    assert (len(key.read_bytes()), key.stat().st_mode & 0o777) == (32, 0o600)


def test_a_dependency_set_is_the_same_for_every_python_and_another_with_every_word():
    recipe = UvRecipe(dependencies=("six",), python="/usr/bin/python3")
    assert dependency_set(recipe) == dependency_set(replace(recipe, python=None))
    others = [UvRecipe(dependencies=("six>1",)), UvRecipe(dependencies=("six",), requires_python=">3")]
    conda = [CondaRecipe(dependencies=("six",)), CondaRecipe(dependencies=("six",), channels=("elsewhere",))]
    everything: list[Recipe] = [recipe, *others, *conda]
    assert len({dependency_set(one) for one in everything}) == 5


def test_the_groups_that_the_default_group_includes_are_named():
    text = PROJECT + '[dependency-groups]\ndev = ["six", {include-group = "docs"}]\ndocs = ["sphinx>8"]\n'
    project = UvRecipe(dependencies=(), project="/shop", files=(("pyproject.toml", text),))
    assert packages(project) == ["six", "sphinx>8", "the project in /shop"]


def test_all_that_is_asked_for_is_named_and_where_it_comes_from_without_passwords():
    text = PROJECT + '[dependency-groups]\ndev = ["six", {include-group = "x"}]\n'
    text += '[[tool.uv.index]]\nname = "own"\nurl = "https://me:secret@own.example/simple"\n'
    project = UvRecipe(dependencies=("alpha<2",), project="/shop", files=(("pyproject.toml", text),))
    variables = {"UV_INDEX": "mine=https://u:p@mine.example/simple", "UV_FIND_LINKS": "/wheels"}
    assert packages(project) == ["alpha<2", "six", "the project in /shop"]
    assert origins(project, variables) == [
        "https://own.example/simple",
        "mine=https://mine.example/simple",
        "/wheels",
        "https://pypi.org/simple",
    ]
    script = UvRecipe(dependencies=("alpha",), script='[tool.uv]\nindex-url = "https://u:p@own.example"\n', folder="/x")
    assert dependency_set(script) != dependency_set(UvRecipe(dependencies=("alpha",)))
    assert dependency_set(script) == dependency_set(replace(script, folder="/y"))
    sources = '[tool.uv.sources]\nalpha = [{ git = "https://git.example/alpha" }, { path = "../alpha" }]\n'
    assert origins(replace(script, script=sources), {}) == [
        "https://git.example/alpha",
        "../alpha",
        "https://pypi.org/simple",
    ]
    assert origins(script, {})[0] == "https://own.example"
    conda = CondaRecipe(dependencies=("numpy",), channels=("https://conda.example/t",))
    assert (packages(conda), origins(conda, variables)) == (["numpy"], ["https://conda.example/t"])
    more = replace(conda, pip=("--index-url https://u:p@pip.example/simple", "six"))
    assert packages(more) == ["numpy", "--index-url https://pip.example/simple", "six"]
    assert origins(more, {"UV_DEFAULT_INDEX": "https://all.example"}) == [
        "https://conda.example/t",
        "https://all.example",
    ]


# --- files ------------------------------------------------------------------------------------------------------------


def doubt_about(folder: Path) -> str | None:
    environment = {"HOME": str(folder)}
    facts = gather(asked="auto", folder=str(folder), environment=environment, interpreter=sys.executable, uv=None)
    return decide(facts).doubt


def test_a_project_of_ones_own_is_not_doubted_unless_others_may_write_to_it(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text(PROJECT)
    assert doubt_about(tmp_path) is None
    tmp_path.chmod(0o777)
    assert doubt_about(tmp_path) == f"{tmp_path} can be written to by others"
    tmp_path.chmod(0o700)
    project.chmod(0o666)
    assert doubt_about(tmp_path) == f"{project} can be written to by others"


@needs_root
@pytest.mark.parametrize(
    ("project", "foreign"),
    [
        ("pyproject.toml", "pyproject.toml"),
        ("pyproject.toml", "uv.lock"),
        ("pyproject.toml", "."),
        ("environment.yml", "requirements.txt"),
        ("pixi.toml", "pixi.lock"),
    ],
)
def test_a_project_is_doubted_when_any_of_its_files_belongs_to_somebody_else(tmp_path, project, foreign):
    texts = {
        "pyproject.toml": PROJECT,
        "environment.yml": "dependencies:\n- pip:\n  - -r requirements.txt\n",
        "pixi.toml": "[workspace]\nchannels = []\n",
    }
    (tmp_path / project).write_text(texts[project])
    if foreign not in {project, "."}:
        (tmp_path / foreign).write_text("")
    assert doubt_about(tmp_path) is None
    os.chown(tmp_path / foreign, 54321, -1)
    assert doubt_about(tmp_path) == f"{tmp_path / foreign} belongs to the user with the id 54321"


@needs_root
def test_what_only_a_users_own_group_may_write_to_is_their_own(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    tmp_path.chmod(0o775)
    assert doubt_about(tmp_path) is None
    os.chown(tmp_path, -1, 54321)
    assert doubt_about(tmp_path) == f"{tmp_path} can be written to by others"


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def travelled(shared_daemon: Path) -> None:
    """Documents that were made with another data folder, and so under another key."""
    elsewhere = Path(tempfile.mkdtemp(prefix="rt"))
    with own_daemon(elsewhere):
        # Each names others: consent to one is no consent to the next.
        for name, alpha in (("by metadata", "alpha"), ("by addition", "alpha>0.1"), ("by sync", "alpha>0.2")):
            with Session(name) as session:
                session.set_metadata("notebook_metadata", METADATA.replace("alpha", alpha))
        for name, source in (("by script", SCRIPT), ("by name", SCRIPT.replace("'alpha'", "'alpha>=1'"))):
            with Session(name) as session:
                session.create_cell(source)
    shutil.copytree(elsewhere / "sessions", shared_daemon / "sessions", dirs_exist_ok=True)
    shutil.rmtree(elsewhere)


def refusal(session: Session) -> EnvironmentFailed:
    with pytest.raises(EnvironmentFailed, match="that you have not consented to") as raised:
        session.start_kernel()
    assert (session.status().kernel_status, session.env_source) == ("not_started", None)
    return raised.value


def test_dependencies_that_came_with_a_document_are_installed_when_the_user_says_so(
    travelled: None, client: pytest.MonkeyPatch, wheels: Path, shared_daemon: Path
) -> None:
    before = sorted((shared_daemon / "environments").iterdir())
    with Session("by metadata") as session:
        error = refusal(session)
        assert str(error) == (
            "Session 'by metadata' asks for dependencies that you have not consented to: they came with the document; "
            f"nobody has written them here. uv:inline would install alpha, beta from {wheels}, "
            "https://pypi.org/simple. To consent, run `%runtimed env trust 'by metadata'` or "
            "`runtimed env trust 'by metadata'`, or ask for it by name: start_kernel(env_source='uv:inline')"
        )
        assert (error.env_source, error.packages) == ("uv:inline", ["alpha", "beta"])
        # Whoever writes something else has not written these.
        session.set_kernelspec("python3", "Python")
        refusal(session)
        assert sorted((shared_daemon / "environments").iterdir()) == before

        assert session.trust_environment() == (
            "uv:inline: the notebook's metadata name dependencies for uv\n  packages: alpha, beta"
        )
        assert session.run("import alpha; print(alpha.version)").stdout == "1.0\n"
        assert session.env_source == "uv:inline"
        session.stop()
    Client().shutdown()
    with Session("by metadata") as session:
        session.start_kernel()
        assert session.env_source == "uv:inline"
        session.stop()


def test_a_script_block_that_came_with_a_document_is_not_ones_own_until_it_is_changed(
    travelled: None, client: pytest.MonkeyPatch
) -> None:
    with Session("by script") as session:
        (cell_id,) = session.get_cell_ids()
        session.set_source(cell_id, SCRIPT + "\n1 / 1")
        session.append_source(cell_id, "\n1 / 2")
        assert refusal(session).packages == ["alpha"]
        session.set_source(cell_id, SCRIPT.replace("'alpha'", "'alpha<2'"))
        session.start_kernel()
        assert session.env_source == "uv:pep723"
        session.stop()


def test_asking_by_name_is_consent_for_the_future_too(travelled: None, client: pytest.MonkeyPatch) -> None:
    with Session("by name") as session:
        assert refusal(session).packages == ["alpha>=1"]
        session.start_kernel(env_source="uv:pep723")
        session.shutdown_kernel()
        session.start_kernel()
        assert session.env_source == "uv:pep723"
        session.stop()


def test_a_token_stream_that_writes_a_block_is_consent(client: pytest.MonkeyPatch) -> None:
    with Session() as session:
        cell_id = session.create_cell()
        for token in re.split(r"(?<=[ /'])", SCRIPT.replace("'alpha'", "'alpha>1'")):
            session.append_source(cell_id, token)
        session.start_kernel()
        assert session.env_source == "uv:pep723"


def test_a_project_that_others_may_write_to_needs_consent_for_every_change(client: pytest.MonkeyPatch, tmp_path):
    project = tmp_path / "open/pyproject.toml"
    project.parent.mkdir()
    project.write_text(PROJECT)
    project.parent.chmod(0o777)
    with Session("shared") as session:
        client.chdir(project.parent)
        error = refusal(session)
        assert f"consented to: {project.parent} can be written to by others. uv:pyproject would" in str(error)
        assert error.packages == ["alpha<2", f"the project in {project.parent}"]
        explained = session.trust_environment()
        assert explained.endswith(f"\n  consent: needed once, because {project.parent} can be written to by others")
        session.start_kernel()
        assert session.env_source == "uv:pyproject"
        session.shutdown_kernel()
        project.write_text(PROJECT.replace("<2", ">1"))
        assert refusal(session).packages == ["alpha>1", f"the project in {project.parent}"]
        session.stop()


def test_who_adds_a_package_to_what_came_with_a_document_does_not_ask_for_the_others(
    travelled: None, client: pytest.MonkeyPatch
) -> None:
    with Session("by addition") as session:
        session.add_uv_dependency("gamma")
        assert refusal(session).packages == ["alpha>0.1", "beta", "gamma"]
        session.remove_uv_dependency("beta")
        assert refusal(session).packages == ["alpha>0.1", "gamma"]


def test_a_running_kernel_gets_nothing_that_came_with_the_document_without_consent(
    travelled: None, client: pytest.MonkeyPatch
) -> None:
    with Session("by sync") as session:
        session.start_kernel(env_source="uv:prewarmed")
        for ask in (session.sync_environment, session.restart_kernel):
            with pytest.raises(EnvironmentFailed, match="that you have not consented to"):
                ask()
        assert session.run("print(6 * 7)").stdout == "42\n"
        session.trust_environment()
        assert session.sync_environment().success
        assert session.run("import alpha, beta").error is None
