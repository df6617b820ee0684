"""Which environment is chosen, and why: real files, no daemon, nothing installed."""

import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimed import EnvironmentFailed
from runtimed.environments.decision import Decision, explain, sentence
from runtimed.environments.detection import decide
from runtimed.environments.facts import base_interpreter, gather, read_document
from runtimed.environments.recipes import CondaRecipe, UvRecipe
from runtimed.environments.script_block import script_blocks
from runtimed.environments.uv_program import find_uv
from runtimed.errors import NotebookFileError

BASE = base_interpreter(sys.executable)

PROJECT = """\
[project]
name = "shop"
version = "1"
requires-python = ">=3.11"
dependencies = ["six"]
"""

PIXI = """\
[workspace]
channels = ["mine"]
[dependencies]
six = ">=1.16"
"""

SCRIPT = """\
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "six>=1.16",
# ]
# ///
import six
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where the search ends, so that nothing above the test's own folder is found."""
    return tmp_path


def choose(
    folder: Path, home: Path, *, variables: dict[str, str] | None = None, metadata: Any = None, **facts: Any
) -> Decision:
    return decide(
        gather(
            asked=facts.pop("asked", "auto"),
            metadata=json.dumps(metadata) if isinstance(metadata, dict) else metadata,
            folder=str(folder),
            environment={"HOME": str(home), "PATH": os.environ["PATH"], **(variables or {})},
            interpreter=sys.executable,
            uv=facts.pop("uv", None),
            **facts,
        )
    )


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- the order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uv", [None, "/usr/bin/uv"])
def test_without_anything_it_is_the_clients_own_whether_there_is_uv_or_not(home, uv):
    decision = choose(home, home, uv=uv)
    nothing = f"no dependencies in the notebook, no project file from {home} up ({home} is the home folder)"
    assert decision == Decision(source="current", reason=nothing, interpreter=sys.executable, uv=uv)
    assert sentence(decision) == f"kernel: current, since {nothing}"
    assert explain(decision) == f"current: {nothing}\n  interpreter: {sys.executable}"
    assert choose(home, home, asked="uv:prewarmed", uv=uv) == Decision(
        source="uv:prewarmed", reason="it was asked for", recipe=UvRecipe(python=BASE), uv=uv
    )


def test_the_notebooks_metadata_come_first_then_its_script_block_then_the_project(home):
    write(home / "pyproject.toml", PROJECT)
    metadata = {"runt": {"uv": {"dependencies": ["requests", "rich>=13"], "requires-python": ">=3.11"}}}

    assert choose(home, home, metadata=metadata, sources=[SCRIPT]) == Decision(
        source="uv:inline",
        reason="the notebook's metadata name dependencies for uv",
        recipe=UvRecipe(dependencies=("requests", "rich>=13"), requires_python=">=3.11", python=BASE),
    )
    assert choose(home, home, metadata={"runt": {"uv": {"dependencies": []}}}, sources=[SCRIPT]) == Decision(
        source="uv:pep723",
        reason="the notebook or the file has a script block (PEP 723)",
        recipe=UvRecipe(dependencies=("six>=1.16",), requires_python=">=3.11", python=BASE),
    )
    assert choose(home, home, sources=["import six"]) == Decision(
        source="uv:pyproject",
        reason=f"{home}/pyproject.toml is the nearest project file",
        file=f"{home}/pyproject.toml",
        recipe=UvRecipe(
            dependencies=("six",),
            requires_python=">=3.11",
            project=str(home),
            files=(("pyproject.toml", PROJECT),),
            python=BASE,
        ),
    )


def test_metadata_may_ask_for_conda_or_deno(home):
    conda = {"runt": {"conda": {"dependencies": ["numpy"], "channels": ["conda-forge"]}}}
    decision = choose(home, home, metadata=conda)
    assert (decision.source, decision.recipe) == (
        "conda:inline",
        CondaRecipe(dependencies=("numpy",), channels=("conda-forge",)),
    )
    asks: list[dict[str, Any]] = [
        {"runt": {"deno": {"permissions": []}}},
        {"kernelspec": {"name": "deno", "display_name": "Deno"}},
        {"kernelspec": {"name": "ts", "display_name": "TS", "language": "typescript"}},
    ]
    for metadata in asks:
        assert choose(home, home, metadata=metadata).source == "deno"
    assert choose(home, home, metadata={"kernelspec": {"name": "python3"}}).source == "current"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"pyproject.toml": PROJECT, "pixi.toml": "", "environment.yml": ""}, "uv:pyproject"),
        ({"pyproject.toml": f"{PROJECT}[tool.pixi.workspace]\nchannels = []\n", "pixi.toml": PIXI}, "conda:pyproject"),
        ({"pixi.toml": PIXI, "environment.yml": ""}, "conda:pixi"),
        ({"environment.yml": ""}, "conda:env_yml"),
        ({"environment.yaml": ""}, "conda:env_yml"),
        ({"pyproject.toml": "[tool.ruff]\n", "pixi.toml": PIXI}, "conda:pixi"),
        ({"pyproject.toml": '[dependency-groups]\ndev = ["six"]\n'}, "uv:pyproject"),
    ],
)
def test_in_one_folder_the_order_of_project_files_is_fixed(home, files, expected):
    for name, text in files.items():
        write(home / name, text)
    assert choose(home, home).source == expected


def test_what_was_asked_for_by_name_is_taken(home):
    write(home / "pyproject.toml", PROJECT)
    for asked in ("current", "python:/usr/bin/python3", "kernelspec:ir", "uv:prewarmed", "conda:prewarmed"):
        assert choose(home, home, asked=asked).source == asked
    assert choose(home, home, asked="uv:pyproject", sources=[SCRIPT]).source == "uv:pyproject"
    assert choose(home, home, kernel_type="deno").source == "deno"
    with pytest.raises(EnvironmentFailed, match=r"describes an environment 'uv:inline'; there is uv:pyproject"):
        choose(home, home, asked="uv:inline")
    with pytest.raises(EnvironmentFailed, match=r"'poetry' is not available; use auto, current, uv:prewarmed"):
        choose(home, home, asked="poetry")
    with pytest.raises(EnvironmentFailed, match=r'a TypeScript kernel starts with kernel_type="deno"'):
        choose(home, home, asked="deno")
    with pytest.raises(EnvironmentFailed, match=r"no kernel of the type 'ir' here; kernel_type is python or deno"):
        choose(home, home, kernel_type="ir")


def test_an_interpreter_can_be_named_as_a_shell_would_find_it(home):
    program = write(home / "bin/python9", "#!/bin/sh\n")
    program.chmod(0o755)
    variables = {"PATH": f"bin:{home}/nowhere:{home}/bin", "HOME": str(home)}
    found = choose(home, home, asked="python:python9", variables=variables)
    assert (found.source, found.reason) == (f"python:{program}", "it was asked for, as python:python9")
    assert choose(home, home, asked="python:~/bin/python9", variables=variables).source == f"python:{program}"
    meant = choose(home, home, variables=variables | {"RUNTIMED_ENV": "python:python9"})
    assert (meant.source, meant.reason) == (
        f"python:{program}",
        "the variable RUNTIMED_ENV says so, as python:python9",
    )
    with pytest.raises(EnvironmentFailed, match=r"There is no 'python8' on this client's PATH; name an interpreter by"):
        choose(home, home, asked="python:python8", variables=variables)
    for asked in ("python:", "python:bin/python9", "python:../python9"):
        with pytest.raises(EnvironmentFailed, match=f"{asked!r} names no interpreter; give its full path"):
            choose(home, home, asked=asked, variables=variables)


def test_a_variable_may_say_what_auto_means_and_only_auto(home):
    variables = {"RUNTIMED_ENV": "current"}
    decision = choose(home, home, variables=variables)
    assert (decision.source, decision.reason) == ("current", "the variable RUNTIMED_ENV says so")
    assert choose(home, home, variables=variables, asked="uv:prewarmed").source == "uv:prewarmed"
    assert choose(home, home, variables={"RUNTIMED_ENV": " current\n"}) == decision
    assert choose(home, home, variables={"RUNTIMED_ENV": " "}) == choose(home, home, variables={})


# --- the search -------------------------------------------------------------------------------------------------------


def test_the_nearest_project_file_above_counts_even_from_a_folder_that_does_not_exist(home):
    write(home / "pyproject.toml", PROJECT)
    near = write(home / "a/environment.yml")
    assert choose(home / "a/b/not/there", home).file == str(near)


@pytest.mark.parametrize("git", ["folder", "file"])
def test_the_search_ends_at_a_repository(home, git):
    write(home / "pyproject.toml", PROJECT)
    repository = home / "repository"
    if git == "folder":
        (repository / ".git").mkdir(parents=True)
    else:
        write(repository / ".git", "gitdir: elsewhere")
    (repository / "deep").mkdir()

    decision = choose(repository / "deep", home)
    assert decision.source == "current"
    assert f"({repository} holds a .git)" in decision.reason

    write(repository / "pixi.toml", PIXI)
    assert choose(repository / "deep", home).file == f"{repository}/pixi.toml"


def test_the_search_ends_at_home(tmp_path):
    write(tmp_path / "pyproject.toml", PROJECT)
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    assert choose(home / "work", home).source == "current"


def test_a_pyproject_that_configures_tools_alone_is_passed_over_and_that_is_said(home):
    passed = write(home / "a/pyproject.toml", "[tool.ruff]\nline-length = 100\n")
    write(home / "pyproject.toml", PROJECT)
    decision = choose(home / "a", home)
    assert (decision.file, decision.notes) == (
        f"{home}/pyproject.toml",
        (f"{passed} has no [project] table, so it describes no environment",),
    )


def test_the_lock_file_of_the_project_or_of_its_workspace_counts_and_no_other(home):
    write(home / "pyproject.toml", '[project]\nname = "root"\nversion = "1"\n')
    write(home / "uv.lock", "version = 1")
    write(home / "member/pyproject.toml", PROJECT)
    write(home / "member/.python-version", "3.11\n")

    def files() -> list[str]:
        recipe = choose(home / "member", home).recipe
        assert isinstance(recipe, UvRecipe)
        return [name for name, _text in recipe.files]

    assert files() == ["pyproject.toml", ".python-version"]
    write(home / "pyproject.toml", '[project]\nname = "root"\nversion = "1"\n[tool.uv.workspace]\nmembers = ["*"]\n')
    assert files() == ["pyproject.toml", "../pyproject.toml", "uv.lock", ".python-version"]
    write(home / "pyproject.toml", "[project\n")
    assert files() == ["pyproject.toml", ".python-version"]


def test_a_root_without_a_project_stands_for_the_members_of_its_workspace(home):
    root = '[tool.uv.workspace]\nmembers = ["parts/*", "/", "", 3]\nexclude = ["parts/old"]\n'
    path = write(home / "pyproject.toml", root)
    for name in ("one", "two", "old"):
        write(home / f"parts/{name}/pyproject.toml", PROJECT)
    write(home / "parts/none/README.md")
    decision = choose(home / "docs", home)
    assert (decision.source, decision.file, decision.doubt) == ("uv:pyproject", str(path), None)
    assert isinstance(decision.recipe, UvRecipe)
    files = ("pyproject.toml", root), ("parts/one/pyproject.toml", PROJECT), ("parts/two/pyproject.toml", PROJECT)
    assert decision.recipe.files == files
    (home / "parts/two/pyproject.toml").chmod(0o666)
    assert choose(home, home).doubt == f"{home}/parts/two/pyproject.toml can be written to by others"


def test_development_dependencies_of_the_old_kind_are_a_project_too(home):
    write(home / "pyproject.toml", '[tool.uv]\ndev-dependencies = ["six"]\n')
    assert choose(home, home).source == "uv:pyproject"


def test_a_project_that_uv_shall_not_manage_is_a_sentence(home):
    write(home / "pyproject.toml", f"{PROJECT}[tool.uv]\nmanaged = false\n")
    with pytest.raises(EnvironmentFailed, match=r"says `managed = false`, so uv must not make its environment"):
        choose(home, home)


def test_pixi_takes_the_lock_file_beside_it_and_no_other(home):
    write(home / "pixi.lock", "version: 6\n")
    write(home / "pixi.toml", PIXI)
    recipe = CondaRecipe(dependencies=("six >=1.16",), channels=("mine",), lock="version: 6\n")
    assert choose(home, home).recipe == recipe
    write(home / "member/pixi.toml", PIXI)
    assert choose(home / "member", home).recipe == replace(recipe, lock=None)


def test_an_environment_yml_has_what_its_requirement_files_ask_for(home):
    text = "dependencies:\n- numpy\n- pip:\n  - -r more/requirements.txt\n"
    path = write(home / "environment.yml", text)
    with pytest.raises(EnvironmentFailed, match=f"{path} cannot be followed: more/requirements.txt, .* no such file"):
        choose(home, home)
    write(home / "more/requirements.txt", "-r deeper.txt\nsix\n")
    write(home / "more/deeper.txt", "rich>=13\n")
    decision = choose(home, home)
    assert decision.recipe == CondaRecipe(dependencies=("numpy",), pip=("rich>=13", "six"))
    assert explain(decision) == (
        f"conda:env_yml: {path} is the nearest project file\n  packages: numpy\n  from a Python index: rich>=13, six"
    )


def test_what_decides_names_the_environment_and_nothing_else(home):
    path = write(home / "pyproject.toml", PROJECT)

    def digest() -> str:
        recipe = choose(home, home).recipe
        assert recipe is not None
        return recipe.digest

    first = digest()
    write(home / "main.py", "print()")
    assert digest() == first
    path.write_text(PROJECT.replace("six", "rich"))
    second = digest()
    write(home / "uv.lock", "version = 1")
    assert len({first, second, digest()}) == 3


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[project\n", r"pyproject.toml is no valid TOML: .*line 1"),
        ("project = 1\n", "project must be a table, not int"),
        ('[project]\ndependencies = "six"\n', "project.dependencies must be a list of texts"),
        ('[project]\nrequires-python = "three"\n', "project.requires-python is no version specifier .*'three'"),
        ("tool = []\n", "tool must be a table, not list"),
        ("[project]\n[tool]\nuv = 3\n", "tool.uv must be a table, not int"),
        ("[project]\n[tool.uv]\ndefault-groups = 3\n", "tool.uv.default-groups must be a list of texts"),
        ("dependency-groups = 3\n", "dependency-groups must be a table, not int"),
        ('[project]\ndependencies = ["!!!"]\n', "project.dependencies: '!!!' is no dependency such as"),
        ("x = " + "[" * 5000, "is no valid TOML"),
    ],
)
def test_a_project_file_that_makes_no_sense_is_a_sentence_not_another_environment(home, text, sentence):
    write(home / "pyproject.toml", text)
    with pytest.raises(EnvironmentFailed, match=sentence):
        choose(home, home)


def test_project_files_that_cannot_be_read_are_a_sentence(home):
    path = home / "pyproject.toml"
    path.write_bytes(b"\xff\xfe[")
    with pytest.raises(EnvironmentFailed, match="it is no UTF-8 text"):
        choose(home, home)
    path.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(EnvironmentFailed, match="it has 1048577 bytes; at most 1048576 are read"):
        choose(home, home)


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ("{", "'notebook_metadata' is no JSON"),
        ("[]", "notebook_metadata must be a table, not list"),
        ('{"runt": {"uv": []}}', "runt.uv must be a table"),
        ('{"runt": {"uv": {"dependencies": [1]}}}', "runt.uv.dependencies must be a list of texts"),
        ('{"runt": {"uv": {"requires-python": 3.11}}}', "runt.uv.requires-python is no version specifier"),
        ("[" * 100_000, "'notebook_metadata' is no JSON"),
        ('{"runt": {"uv": {"dependencies": ["six"], "index": "x"}}}', "runt.uv has 'index', and only dependencies and"),
        ('{"runt": {"uv": {"dependencies": ["--index-url=https://x"]}}}', "'--index-url=https://x' is no dependency"),
        ('{"runt": {"uv": {"dependencies": ["./here"]}}}', "runt.uv.dependencies: './here' is no dependency"),
        (
            '{"runt": {"conda": {"dependencies": "numpy"}}}',
            r"\(runt.conda\) cannot be followed: `dependencies` must",
        ),
    ],
)
def test_metadata_that_make_no_sense_are_a_sentence(home, metadata, sentence):
    with pytest.raises(EnvironmentFailed, match=sentence):
        choose(home, home, metadata=metadata)


def test_a_broken_or_doubled_script_block_is_a_sentence(home):
    with pytest.raises(EnvironmentFailed, match="The script block is no valid TOML"):
        choose(home, home, sources=["# /// script\n# dependencies = [\n# ///\n"])
    with pytest.raises(EnvironmentFailed, match="The script block is not the only one in its cell; PEP 723 allows one"):
        choose(home, home, sources=[f"{SCRIPT}\n{SCRIPT}"])
    with pytest.raises(EnvironmentFailed, match="'-r x' is no dependency"):
        choose(home, home, sources=['# /// script\n# dependencies = ["-r x"]\n# ///\n'])


@pytest.mark.parametrize("change", ["\n", "\r\n", "\r", "mark", "behind", "other"])
def test_a_script_block_is_read_however_its_lines_end_and_wherever_it_stands(home, change):
    match change:
        case "mark":
            sources = [f"\ufeff{SCRIPT}"]
        case "behind":
            sources = ["1 + 1", f"#!/usr/bin/python\n\n{SCRIPT}"]
        case "other":
            sources = [f"# /// other\n# x\n# ///\n\n{SCRIPT}"]
        case _:
            sources = [SCRIPT.replace("\n", change)]
    assert choose(home, home, sources=sources).recipe == UvRecipe(
        dependencies=("six>=1.16",), requires_python=">=3.11", python=BASE
    )


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("# /// script \n# dependencies = []\n# ///\n", "line 1 is '# /// script ' and must be '# /// script'"),
        ("# /// script\t\r\n# ///\r\n", r"line 1 is '# /// script\\t' and must be"),
        ("# /// script\n# dependencies = []\n# /// \nx", "line 3 is '# /// ' and must be '# ///'"),
        ("# /// script\n# ///\f\n", r"line 2 is '# ///\\x0c' and must be '# ///'"),
        ("\n# /// script\n#\tdependencies = []\n# ///\n", "what line 2 begins must end with a line '# ///', and each"),
        ("# /// script\n# dependencies = []\n\n# ///\n", "what line 1 begins must end with"),
        ("# /// script\n# dependencies = []", "what line 1 begins must end with"),
    ],
)
def test_a_script_block_that_is_nearly_one_is_a_sentence(home, source, sentence):
    with pytest.raises(EnvironmentFailed, match=f"The script block cannot be read: {sentence}"):
        choose(home, home, sources=[source])


def test_of_several_script_blocks_the_first_counts_and_that_is_said(home):
    decision = choose(home, home, sources=["1", SCRIPT, SCRIPT.replace("six", "rich"), "# /// script\n"])
    assert (decision.source, decision.reason) == (
        "uv:pep723",
        "the notebook or the file has a script block (PEP 723)",
    )
    assert decision.notes == ("of several code cells with a script block the first one counts",)
    (note,) = choose(home, home, sources=["# /// script\n# dependancies = []\n# ///"]).notes
    assert note == "The script block has the keys dependancies, which mean nothing"


def test_what_a_script_block_tells_uv_belongs_to_the_environment(home):
    block = '# /// script\n# dependencies = ["six"]\n#\n# [tool.uv.sources]\n# six = { path = "six" }\n# ///\n'
    decision = choose(home, home, sources=[block])
    content = 'dependencies = ["six"]\n\n[tool.uv.sources]\nsix = { path = "six" }\n'
    assert decision.recipe == UvRecipe(dependencies=("six",), python=BASE, script=content, folder=str(home))
    assert explain(decision).splitlines()[1:] == ["  packages: six", "  uv is told: sources"]
    with pytest.raises(EnvironmentFailed, match=r"The script block: tool.uv must be a table"):
        choose(home, home, sources=["# /// script\n# tool.uv = 3\n# ///"])


@given(
    st.lists(
        st.sampled_from(["# /// script", "# /// other", "# ///", "#", "# x = 1", "#x", "", "x = 1", "# /// script "])
    ).map("\n".join)
)
def test_script_blocks_are_those_of_the_reference(source):
    # Source: PEP 723, "Reference implementation".
    reference = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
    expected = [(match["type"], match["content"]) for match in reference.finditer(source)]
    assert list(script_blocks(source)) == expected


def test_a_cell_that_opens_thousands_of_blocks_is_read_at_once(home):
    begin = time.perf_counter()
    with pytest.raises(EnvironmentFailed, match="what line 1 begins must end with a line"):
        choose(home, home, sources=["# /// script\n" * 50_000])
    assert time.perf_counter() - begin < 5


def test_nothing_that_is_no_file_holds_up_the_search(home):
    (home / "pyproject.toml").symlink_to("pyproject.toml")
    (home / "pixi.toml").mkdir()
    os.mkfifo(home / "environment.yml")
    (home / "loop").symlink_to("loop")
    (home / "down").mkdir()
    (home / "down/up").symlink_to(home / "down")
    assert choose(home / "loop", home).source == "current"
    assert choose(home / "down/up/up/up/up", home).source == "current"


# --- documents, interpreters, words -----------------------------------------------------------------------------------


def test_a_notebook_and_a_script_say_what_they_ask_for(tmp_path):
    notebook = {
        "nbformat": 4,
        "metadata": {"runt": {"uv": {"dependencies": ["six"]}}},
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": ["# no code"]},
            {"cell_type": "code", "metadata": {}, "source": ["import six\n", "six"]},
        ],
    }
    path = write(tmp_path / "a.ipynb", json.dumps(notebook))
    assert read_document(path) == ('{"runt": {"uv": {"dependencies": ["six"]}}}', ("import six\nsix",))
    assert read_document(write(tmp_path / "a.py", SCRIPT)) == (None, (SCRIPT,))
    assert read_document(tmp_path / "not there.ipynb") == (None, ())
    assert read_document(tmp_path) == (None, ())
    for text in ("{", "[]", '{"nbformat": 4, "cells": [1]}'):
        with pytest.raises(NotebookFileError, match=r"broken.ipynb cannot be read: it is (no|a damaged) notebook"):
            read_document(write(tmp_path / "broken.ipynb", text))


def test_two_environments_of_one_python_have_the_same_base(tmp_path):
    assert BASE is not None
    for name, line in (
        ("stdlib", f"executable = {BASE}"),
        ("uv", f"home = {Path(BASE).parent}\nversion_info = 3.11.2"),
    ):
        write(tmp_path / name / "pyvenv.cfg", line)
        python = tmp_path / name / "bin/python"
        python.parent.mkdir()
        python.symlink_to(BASE)
        assert base_interpreter(str(python)) == BASE
    assert base_interpreter(BASE) == BASE
    assert base_interpreter("/not/there") is None
    assert base_interpreter("") is None


def test_uv_is_found_beside_this_python_or_on_the_clients_path():
    assert find_uv({"PATH": ""}) == str(Path(sys.executable).parent / "uv")


def test_a_decision_explains_itself(home):
    write(home / "pyproject.toml", PROJECT)
    assert sentence(choose(home, home)) == f"kernel: uv:pyproject of {home}/pyproject.toml"
    assert explain(choose(home, home)).splitlines() == [
        f"uv:pyproject: {home}/pyproject.toml is the nearest project file",
        "  packages: six",
        "  Python: >=3.11",
        "  versions: the latest that fit; there is no uv.lock",
    ]


def test_a_project_20_folders_deep_is_found_within_5_ms(home):
    write(home / "pyproject.toml", PROJECT + "[tool.ruff]\n" + "".join(f"[tool.x{n}]\ny = {n}\n" for n in range(20)))
    deep = home.joinpath(*(f"level-{n}" for n in range(20)))
    deep.mkdir(parents=True)
    took = []
    for _ in range(20):
        start = time.perf_counter()
        assert choose(deep, home).source == "uv:pyproject"
        took.append(time.perf_counter() - start)
    # The best of many: the figure is of the work, not of what else this machine does.
    assert min(took) < 0.005
