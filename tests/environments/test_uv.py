"""Real environments made by a real uv: what they hold, what they leave alone, and how they fail."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtimed import EnvironmentFailed
from runtimed.environments import uv_program
from runtimed.environments.decision import Decision
from runtimed.environments.detection import decide
from runtimed.environments.facts import gather
from runtimed.environments.maker import Environments, refusal
from runtimed.environments.recipes import Progress, UvRecipe
from runtimed.environments.trust import Trust
from runtimed.environments.uv import UvBuilder
from runtimed.environments.uv_program import find_uv
from tests.conftest import wait_until
from tests.environments import wheels
from tests.environments.plain import link_environments, prepare
from tests.environments.serving import serve_folder
from tests.environments.wheels import make_wheel

pytestmark = pytest.mark.slow

OFFLINE = {"UV_OFFLINE": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, cached: Path) -> Path:
    """A folder of environments that has the plain one: the only one for which the network is needed."""
    place = tmp_path_factory.mktemp("environments")
    link_environments(cached, place)
    return place


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own repository, without a lock file."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["alpha"]\n'
        '[dependency-groups]\ndev = ["beta"]\nother = ["not-there"]\n'
    )
    return tmp_path


def recipe_of(project: Path, variables: dict[str, str], base: str) -> UvRecipe:
    decision = decide(gather(asked="auto", folder=str(project), environment=variables, interpreter=base, uv=None))
    assert decision.source == "uv:pyproject"
    assert isinstance(decision.recipe, UvRecipe)
    return decision.recipe


def ask(python: str, code: str) -> str:
    """Run code in an environment."""
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


VERSIONS = """
import importlib.util as u, importlib
print([(n, importlib.import_module(n).version) for n in ("alpha", "beta") if u.find_spec(n)])
"""


# --- what they hold ---------------------------------------------------------------------------------------------------


def test_the_plain_environment_has_a_kernel_compiled_and_linked_from_the_cache(folder, variables, base):
    heard: list[Progress] = []
    python = Path(prepare(folder, UvRecipe(python=base), {**variables, **OFFLINE}, heard))
    assert heard == []
    package = next(python.parent.parent.glob("lib/python3*/site-packages/ipykernel"))
    assert {path.name.split(".")[0] for path in package.glob("*.py")} == {
        path.name.split(".")[0] for path in package.glob("__pycache__/*.pyc")
    }
    cache = Path(variables["UV_CACHE_DIR"]).glob("archive-*/*/ipykernel/kernelapp.py")
    assert any((package / "kernelapp.py").samefile(path) for path in cache)
    assert ask(str(python), "import sys; print(sys.prefix, sys._base_executable)") == f"{python.parent.parent} {base}"


def test_dependencies_are_added_to_it_and_it_stays_as_it_is(folder, variables, base):
    plain = folder / UvRecipe(python=base).digest
    before = contents(plain)
    heard: list[Progress] = []
    python = prepare(folder, UvRecipe(dependencies=("beta",), python=base), {**variables, **OFFLINE}, heard)

    assert ask(python, VERSIONS) == "[('alpha', '1.0'), ('beta', '1.0')]"
    assert ask(python, "import ipykernel.kernelapp, sys; print(sys.prefix)") == str(Path(python).parent.parent)
    assert [progress.message for progress in heard] == [
        "Resolving beta",
        heard[1].message,
        "Byte-compiling 2 packages",
    ]
    modules = list(Path(python).parent.parent.glob("lib/python3*/site-packages/__pycache__/*.pyc"))
    assert {path.name.split(".")[0] for path in modules} >= {"alpha", "beta"}
    # Its scripts start its own Python, not that of the plain one.
    script = Path(python).parent / "ipython"
    told = subprocess.run([script, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(Path(python).parent.parent)
    assert contents(plain) == before


def test_ten_who_ask_at_once_for_a_new_one_get_one(folder, variables, base):
    decision = Decision(
        source="uv:inline", reason="", recipe=UvRecipe(dependencies=("alpha==1.0",), python=base), uv=find_uv()
    )

    async def scene() -> tuple[set[str], list[list[Progress]]]:
        environments = Environments(folder, Trust(folder / "trust"))
        heard: list[list[Progress]] = [[] for _ in range(10)]
        prepared = await asyncio.gather(
            *(environments.prepare(decision, {**variables, **OFFLINE}, "", hears.append) for hears in heard)
        )
        return {one.interpreter for one in prepared if one is not None}, heard

    interpreters, heard = asyncio.run(scene())
    assert len(interpreters) == 1
    assert [progress.message for progress in heard[0]].count("Byte-compiling 1 package") == 1
    assert heard == [heard[0]] * 10


# --- projects ---------------------------------------------------------------------------------------------------------


def test_a_project_without_a_lock_gets_its_packages_and_its_dev_group_and_stays_untouched(
    folder, project, variables, base
):
    before = contents(project)
    python = prepare(folder, recipe_of(project, variables, base), {**variables, **OFFLINE})
    assert ask(python, VERSIONS) == "[('alpha', '1.0'), ('beta', '1.0')]"
    assert contents(project) == before


def test_a_lock_file_is_honoured_and_stays_untouched(folder, project, variables, base):
    (project / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["alpha<2"]\n'
    )
    command = find_uv(variables) or ""
    locked = {**variables, **OFFLINE}
    subprocess.run([command, "lock", "-q"], cwd=project, env=locked, check=True)
    text = (project / "pyproject.toml").read_text()
    (project / "pyproject.toml").write_text(text.replace("alpha<2", "alpha"))
    subprocess.run([command, "lock", "-q"], cwd=project, env=locked, check=True)
    before = contents(project)

    # Without the lock it would be 2.0.
    python = prepare(folder, recipe_of(project, variables, base), locked)
    assert ask(python, VERSIONS) == "[('alpha', '1.0')]"
    assert ask(python, "import ipykernel.kernelapp") == ""
    assert contents(project) == before

    (project / "pyproject.toml").write_text(text.replace("alpha<2", "beta"))
    with pytest.raises(EnvironmentFailed, match="uv.lock does not fit pyproject.toml any more; run `uv lock`"):
        prepare(folder, recipe_of(project, variables, base), locked)


def test_a_lock_file_with_which_no_kernel_can_run_is_not_bent(folder, project, variables, base):
    (project / "pyproject.toml").write_text(
        '[project]\nname = "old"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["traitlets==1.0"]\n'
    )
    locked = {**variables, **OFFLINE}
    subprocess.run([find_uv(variables) or "", "lock", "-q"], cwd=project, env=locked, check=True)
    with pytest.raises(EnvironmentFailed, match=r"(?s)Cannot make the environment of the project .*traitlets"):
        prepare(folder, recipe_of(project, variables, base), locked)


def test_a_project_that_is_a_package_is_installed_so_that_edits_count(folder, tmp_path, variables, base):
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "1"\ndependencies = ["alpha"]\n'
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    )
    (tmp_path / "shop.py").write_text("open_ = True\n")
    before = contents(tmp_path)
    python = prepare(folder, recipe_of(tmp_path, variables, base), variables)
    assert contents(tmp_path) == before
    assert ask(python, "import shop, alpha; print(shop.open_)") == "True"
    (tmp_path / "shop.py").write_text("open_ = False\n")
    assert ask(python, "import shop; print(shop.open_)") == "False"


def freeze(python: str) -> list[str]:
    """What of these tests is installed for a Python."""
    shown = "\n".join(f"{one.metadata['Name']} {one.version}" for one in distributions(path=[site_packages(python)]))
    return sorted(line for line in shown.splitlines() if line.split()[0] in {"alpha", "beta", "part", "shop"})


def site_packages(python: str) -> str:
    return str(next(Path(python).parent.parent.glob("lib/python3*/site-packages")))


@pytest.mark.parametrize(
    ("files", "packages"),
    [
        (
            {
                "pyproject.toml": '[tool.uv]\nworkspace.members = ["parts/*"]\ndev-dependencies = ["alpha<2"]\n',
                "parts/part/pyproject.toml": '[project]\nname = "part"\nversion = "1"\nrequires-python = ">=3.11"\n'
                '[dependency-groups]\ndev = ["beta"]\nother = ["alpha"]\n',
            },
            ["alpha 1.0", "beta 1.0"],
        ),
        (
            {
                "pyproject.toml": '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n[tool.uv]\n'
                'dev-dependencies = ["alpha"]\nsources.alpha.path = "own/alpha-1.0-py3-none-any.whl"\n'
            },
            ["alpha 1.0"],
        ),
        (
            {
                "pyproject.toml": '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.11"\n'
                'dependencies = ["alpha"]\n[tool.uv]\ndev-dependencies = ["beta"]\noverride-dependencies = ["alpha"]\n'
            },
            ["alpha 2.0", "beta 1.0"],
        ),
    ],
    ids=["workspace", "dev-dependencies", "override-dependencies"],
)
def test_a_project_without_a_lock_is_what_it_is_for_uv(folder, tmp_path, variables, base, files, packages):
    (tmp_path / ".git").mkdir()
    (tmp_path / "own").mkdir()
    make_wheel(tmp_path / "own", "alpha", "1.0")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = contents(tmp_path)
    python = prepare(folder, recipe_of(tmp_path, variables, base), {**variables, **OFFLINE})
    assert freeze(python) == packages
    assert contents(tmp_path) == before
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy, ignore=shutil.ignore_patterns("copy", ".git"))
    subprocess.run([find_uv(variables) or "", "sync", "-q"], cwd=copy, env={**variables, **OFFLINE}, check=True)
    assert freeze(str(copy / ".venv/bin/python")) == packages


# --- scripts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "packages"),
    [
        (["[tool.uv.sources]", 'alpha = { path = "own/alpha-1.0-py3-none-any.whl" }'], ["alpha 1.0"]),
        (
            ["[tool.uv.sources]", 'alpha = { index = "own" }', "[[tool.uv.index]]", 'name = "own"'],
            ["alpha 1.5"],
        ),
        (["[[tool.uv.index]]", "default = true"], ["alpha 1.5"]),
        (["[tool.uv]", 'constraint-dependencies = ["alpha<2"]'], ["alpha 1.0"]),
        (["[tool.uv]", 'override-dependencies = ["alpha==1.0"]'], ["alpha 1.0"]),
        (["[tool.uv]", "no-index = true", 'resolution = "lowest"'], ["alpha 1.0"]),
        (["[tool.other]", "uv = 1"], ["alpha 2.0"]),
    ],
    ids=["path", "source-index", "default-index", "constraint", "override", "no-index", "other"],
)
def test_a_script_has_what_uv_run_gives_it(folder, tmp_path, variables, base, lines, packages):
    own = tmp_path / "own"
    (own / "simple/alpha").mkdir(parents=True)
    make_wheel(own, "alpha", "1.0")
    wheel = make_wheel(own / "simple/alpha", "alpha", "1.5")
    (own / "simple/alpha/index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    if "[[tool.uv.index]]" in lines:
        lines = [*lines, f'url = "{(own / "simple").as_uri()}"']
    # A find-links of the client would be looked at beside any index.
    given = {
        name: value for name, value in variables.items() if "uv.index" not in str(lines) or name != "UV_FIND_LINKS"
    }
    given |= {"PIP_FIND_LINKS": variables["UV_FIND_LINKS"], "HOME": str(tmp_path)}
    code = "import importlib.metadata as m; print('alpha', m.version('alpha'))"
    script = "".join(f"# {line}\r\n" for line in ["/// script", 'dependencies = ["alpha"]', *lines, "///"])
    (tmp_path / "script.py").write_text(script + code)
    beside = [find_uv(variables) or "", "run", "-q", "script.py"]
    uv = variables | OFFLINE if given.get("UV_FIND_LINKS") else given | OFFLINE
    told = subprocess.run(beside, cwd=tmp_path, env=uv, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == packages

    facts = gather(asked="auto", sources=[script], folder=str(tmp_path), environment=given, interpreter=base, uv=None)
    decision = decide(facts)
    assert (decision.source, isinstance(decision.recipe, UvRecipe)) == ("uv:pep723", True)
    python = prepare(folder, decision.recipe, given | OFFLINE)  # type: ignore[arg-type]  # asked above
    assert freeze(python) == packages
    assert ask(python, "import ipykernel.kernelapp") == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own", "script.py"]


def test_a_script_whose_packages_no_kernel_goes_with_is_a_sentence(folder, tmp_path, variables, base):
    recipe = UvRecipe(
        dependencies=("traitlets",),
        python=base,
        script='dependencies = ["traitlets"]\ntool.uv.constraint-dependencies = ["traitlets<2"]\n',
        folder=str(tmp_path),
    )
    with pytest.raises(EnvironmentFailed, match=r"(?s)Cannot make the environment of traitlets.*traitlets==1.0"):
        prepare(folder, recipe, variables | OFFLINE)


BACKEND = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from wheels import make_wheel
def build_editable(folder, settings=None, metadata=None):
    return make_wheel(Path(folder), "alpha", "1.0").name
build_wheel = build_editable
"""
"""Builds a package of no other tools than these tests have."""


def test_a_script_may_have_an_editable_package(folder, tmp_path, variables, base):
    own = tmp_path / "own"
    own.mkdir()
    (own / "pyproject.toml").write_text(
        '[project]\nname = "alpha"\nversion = "1.0"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (own / "backend.py").write_text(BACKEND.format(tests=str(Path(wheels.__file__).parent)))
    recipe = UvRecipe(
        dependencies=("alpha",),
        python=base,
        script='dependencies = ["alpha"]\ntool.uv.sources.alpha = { path = "own", editable = true }\n',
        folder=str(tmp_path),
    )
    python = prepare(folder, recipe, variables | OFFLINE)
    assert freeze(python) == ["alpha 1.0"]
    assert ask(python, "import ipykernel.kernelapp") == ""


def test_a_script_that_names_a_package_that_is_not_there_gets_no_other_of_that_name(folder, tmp_path, variables, base):
    recipe = UvRecipe(
        dependencies=("alpha",),
        python=base,
        script='dependencies = ["alpha"]\ntool.uv.sources.alpha.path = "not/there"\n',
        folder=str(tmp_path),
    )
    with pytest.raises(EnvironmentFailed, match=r"(?s)Cannot make the environment of alpha.*not/there"):
        prepare(folder, recipe, variables | OFFLINE)


# --- how they fail ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "sentence", "package"),
    [
        (UvRecipe(dependencies=("not-there-at-all",)), "not-there-at-all", None),
        (UvRecipe(dependencies=("alpha==9",)), "No version of 'alpha' fits", "alpha"),
        (UvRecipe(dependencies=("alpha==2", "beta")), "These packages do not go together", None),
        (UvRecipe(dependencies=("alpha==",)), "cannot be understood; mend it", None),
        (UvRecipe(requires_python=">=3.99"), "No Python that fits can be had here", None),
    ],
)
def test_what_cannot_be_had_is_a_sentence_and_leaves_nothing(folder, variables, base, recipe, sentence, package):
    recipe = UvRecipe(dependencies=recipe.dependencies, requires_python=recipe.requires_python, python=base)
    begun = time.monotonic()
    with pytest.raises(EnvironmentFailed, match=sentence) as raised:
        prepare(folder, recipe, {**variables, **OFFLINE})
    assert time.monotonic() - begun < 30
    assert raised.value.package == package
    assert re.search(r"\nuv said:\n(error: |  × )", str(raised.value))
    assert not (folder / recipe.digest).exists()


def test_the_version_file_of_a_project_names_a_python_and_is_no_option_of_uv(folder, project, variables, base):
    (project / ".python-version").write_text(f"# ours\n\n{base}\n")
    python = prepare(folder, recipe_of(project, variables, base), variables | OFFLINE)
    assert os.path.realpath(ask(python, "import sys; print(sys._base_executable)")) == os.path.realpath(base)
    (project / ".python-version").write_text("--help\n")
    with pytest.raises(EnvironmentFailed, match="Cannot make an environment with Python --help") as raised:
        prepare(folder, recipe_of(project, variables, base), variables | OFFLINE)
    assert "--no-config" not in str(raised.value)


def test_an_unknown_package_of_the_index_is_named(folder, variables, base):
    recipe = UvRecipe(dependencies=("ipython-runtimed-no-such-package",), python=base)
    with pytest.raises(EnvironmentFailed, match="There is no package 'ipython-runtimed-no-such-package'") as raised:
        prepare(folder, recipe, variables)
    assert raised.value.package == "ipython-runtimed-no-such-package"


@pytest.fixture
def silent_index() -> Iterator[str]:
    """An index that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


def test_without_a_network_what_was_downloaded_earlier_is_used_else_it_fails_within_seconds(folder, variables, base):
    unreachable = {**variables, "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}
    # All of it was seen before, whichever index it came from.
    offline = prepare(folder, UvRecipe(dependencies=("alpha", "beta"), python=base), unreachable | OFFLINE)
    assert ask(offline, VERSIONS) == "[('alpha', '1.0'), ('beta', '1.0')]"

    begun = time.monotonic()
    with pytest.raises(EnvironmentFailed, match="The package index cannot be reached; check the network"):
        prepare(folder, UvRecipe(dependencies=("tomli-w",), python=base), unreachable)
    assert time.monotonic() - begun < 30


def test_an_index_that_says_nothing_is_given_up_within_seconds(folder, variables, base, silent_index, monkeypatch):
    monkeypatch.setattr(uv_program, "_SILENCE", {"UV_HTTP_TIMEOUT": "1"})
    begun = time.monotonic()
    with pytest.raises(EnvironmentFailed, match="(?s)index cannot be reached.*more seconds with UV_HTTP_TIMEOUT=60"):
        prepare(folder, UvRecipe(dependencies=("quiet",), python=base), {**variables, "UV_DEFAULT_INDEX": silent_index})
    assert time.monotonic() - begun < 30


def test_an_index_that_answers_may_stall_in_the_middle_of_a_file(folder, variables, base, tmp_path, monkeypatch):
    monkeypatch.setattr(uv_program, "_SILENCE", {"UV_HTTP_TIMEOUT": "1"})
    wheel = make_wheel(tmp_path, "large", "1.0", ballast=2 * 2**20)
    Path(f"{wheel}.metadata").write_text("Metadata-Version: 2.1\nName: large\nVersion: 1.0\n")
    page = tmp_path / "simple/large/index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="/{wheel.name}" data-core-metadata="true">{wheel.name}</a>')
    with serve_folder(tmp_path, stalls="whl$", seconds=2.5) as url:
        online = {**variables, "UV_INDEX": f"{url}/simple"}
        python = prepare(folder, UvRecipe(dependencies=("large",), python=base), online)
        assert ask(python, "import large; print(large.version)") == "1.0"


@pytest.mark.parametrize(
    ("own", "runs"),
    [
        ({}, [{"UV_HTTP_TIMEOUT": "6"}, {"UV_HTTP_TIMEOUT": "30"}]),
        ({"UV_HTTP_TIMEOUT": "90"}, [{"UV_HTTP_TIMEOUT": "90"}, {"UV_HTTP_TIMEOUT": "90", "UV_OFFLINE": "1"}]),
        ({"UV_REQUEST_TIMEOUT": "90"}, [{"UV_REQUEST_TIMEOUT": "90"}, {"UV_REQUEST_TIMEOUT": "90", "UV_OFFLINE": "1"}]),
        ({"UV_OFFLINE": "1"}, [{"UV_HTTP_TIMEOUT": "6", "UV_OFFLINE": "1"}]),
    ],
)
def test_whoever_has_set_a_timeout_means_it(tmp_path, own, runs):
    stand_in = tmp_path / "uv"
    said = "Downloading large (3.0MiB)\nerror: operation timed out\n"
    stand_in.write_text(f"#!/bin/sh\n(env; echo end) >> {tmp_path}/runs\nprintf '{said}' >&2\nexit 2\n")
    stand_in.chmod(0o755)

    async def never(_recipe: UvRecipe) -> Path:
        raise AssertionError

    with pytest.raises(EnvironmentFailed, match="index cannot be reached"):
        asyncio.run(UvBuilder(str(stand_in), UvRecipe(), own, never).plan(tmp_path))
    heard = (tmp_path / "runs").read_text().split("end\n")[:-1]
    names = {"UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "HTTP_TIMEOUT", "UV_OFFLINE"}
    pairs = [[line.split("=", 1) for line in run.splitlines()] for run in heard]
    assert [{name: value for name, value in run if name in names} for run in pairs] == runs


def test_when_nobody_waits_any_more_uv_is_killed_and_nothing_is_left(folder, variables, base, silent_index):
    recipe = UvRecipe(dependencies=("alpha", "sampleproject"), python=base)
    decision = Decision(source="uv:inline", reason="", recipe=recipe, uv=find_uv())

    async def scene() -> list[psutil.Process]:
        environments = Environments(folder, Trust(folder / "trust"))
        resolving = asyncio.Event()
        asking = asyncio.create_task(
            environments.prepare(
                decision, {**variables, "UV_DEFAULT_INDEX": silent_index}, "", lambda _progress: resolving.set()
            )
        )
        await resolving.wait()
        await asyncio.to_thread(wait_until, lambda: running_uv(folder / recipe.digest), "uv does not start")
        found = running_uv(folder / recipe.digest)
        asking.cancel()
        await asyncio.wait([asking])
        await environments.close()
        return found

    processes = asyncio.run(scene())
    wait_until(lambda: not any(process.is_running() for process in processes), "uv lives on")
    assert not (folder / recipe.digest).exists()


def running_uv(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if str(folder) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_without_uv_it_is_said_what_to_do_and_what_is_there_already_is_used(folder, tmp_path, variables, base):
    decision = Decision(source="uv:pyproject", reason="x/pyproject.toml says so", recipe=UvRecipe(python=base))

    def look(place: Path) -> object:
        environments = Environments(place, Trust(place / "trust"))
        return asyncio.run(environments.prepare(decision, variables, "", lambda _progress: None))

    with pytest.raises(EnvironmentFailed) as raised:
        look(tmp_path)
    assert str(raised.value) == refusal(decision, tmp_path)
    assert str(raised.value) == (
        "uv:pyproject needs uv, which is not installed (x/pyproject.toml says so); install it with "
        "`pip install 'ipython-runtimed[uv]'`, or ask for the interpreter that is there: "
        'env_source="current", `--env current`'
    )
    assert refusal(decision, folder) is None
    assert look(folder) is not None


def test_a_kernel_gets_the_variables_of_an_activated_environment(folder, variables, base):
    decision = Decision(source="uv:prewarmed", reason="", recipe=UvRecipe(python=base), uv=find_uv())
    given: dict[str, str] = {**variables, "PYTHONHOME": "/x", "CONDA_PREFIX": "/y", "SECRET": "z"}
    prepared: Any = asyncio.run(
        Environments(folder, Trust(folder / "trust")).prepare(decision, given, "", lambda _progress: None)
    )
    place = str(folder / UvRecipe(python=base).digest)
    assert prepared.environment == {
        **variables,
        "SECRET": "z",
        "VIRTUAL_ENV": place,
        "PATH": f"{place}/bin{os.pathsep}{variables['PATH']}",
    }
