"""What people write about conda environments, as recipes."""

import dataclasses
import textwrap
from pathlib import Path
from typing import Any

import pytest

from runtimed.environments.conda_files import (
    CondaSettings,
    current_platform,
    read_environment_yml,
    read_notebook,
    read_pixi_toml,
    read_pyproject,
    read_settings,
    with_channels,
)
from runtimed.environments.recipes import CondaRecipe
from runtimed.environments.trust import dependency_set, packages
from runtimed.errors import EnvironmentFailed

HERE = current_platform()
SYSTEM = HERE.partition("-")[0]
FOLDER = Path("/projects/mine")
WORKSPACE = f'[workspace]\nchannels = ["conda-forge"]\nplatforms = ["{HERE}"]\n'


def yml(text: str, **more: Any) -> CondaRecipe:
    return read_environment_yml(textwrap.dedent(text), folder=FOLDER, **more)


def pixi(text: str, **more: Any) -> CondaRecipe:
    return read_pixi_toml(WORKSPACE + textwrap.dedent(text), folder=FOLDER, **more)


def test_a_notebook_speaks_of_conda_or_does_not() -> None:
    assert read_notebook({}) is None
    assert read_notebook({"runt": {"uv": {"dependencies": ["requests"]}}}) is None
    assert read_notebook({"runt": "conda"}) is None
    assert read_notebook({"runt": {"conda": {}}}) == CondaRecipe()
    conda = {"dependencies": ["numpy >=2", {"pip": ["rich"]}], "channels": ["mine", "conda-forge"]}
    assert read_notebook({"runt": {"conda": conda}}) == CondaRecipe(
        dependencies=("numpy >=2",), channels=("mine", "conda-forge"), pip=("rich",)
    )


@pytest.mark.parametrize(
    ("conda", "why"),
    [
        ("numpy", "it must be a mapping with `dependencies`"),
        ({"dependencies": "numpy"}, "`dependencies` must be a list of packages, not 'numpy'"),
        ({"dependencies": [3]}, "`dependencies` must be a list of packages, and 3 is none"),
        ({"channels": ["", "a"]}, "`channels` must be a list of texts, and '' is none"),
        ({"dependencies": [{"pip": ["-r x.txt"]}]}, "it cannot include x.txt here; write the requirements themselves"),
    ],
)
def test_a_notebook_of_another_shape_is_refused(conda: Any, why: str) -> None:
    with pytest.raises(EnvironmentFailed) as raised:
        read_notebook({"runt": {"conda": conda}})
    assert raised.value.message == f"the notebook's metadata (runt.conda) cannot be followed: {why}"


def test_an_environment_yml_is_read_with_its_pip_section() -> None:
    files = {
        "requirements/base.txt": "-r more.txt\n--index-url https://mine.example/simple\n",
        "requirements/more.txt": "# a comment\nrich>=13  # for tables\n\n-e ../lib\n./here\n-c limits.txt\n",
    }
    recipe = yml(
        """
        name: mine
        channels:
          - conda-forge
          - nodefaults
        dependencies:
          - python=3.12.*
          - numpy >=1.26, <3
          - pip
          - pip:
              - -r requirements/base.txt
              - requests
        prefix: /home/somebody/miniconda3/envs/mine
        """,
        read=files.__getitem__,
    )
    assert recipe == CondaRecipe(
        dependencies=("python=3.12.*", "numpy >=1.26, <3", "pip"),
        channels=("conda-forge", "nodefaults"),
        pip=(
            "rich>=13",
            "-e /projects/mine/lib",
            "/projects/mine/requirements/here",
            "-c /projects/mine/requirements/limits.txt",
            "--index-url https://mine.example/simple",
            "requests",
        ),
    )


def test_variables_are_read_and_change_no_environment_but_a_consent() -> None:
    text = "dependencies: [numpy]\nvariables: {A: $HOME/x, B: 3}\n"
    recipe = yml(text)
    assert recipe.variables == (("A", "$$HOME/x"), ("B", "3"))
    plain = dataclasses.replace(recipe, variables=())
    assert recipe.digest == plain.digest
    assert dependency_set(recipe) != dependency_set(plain)
    assert packages(recipe) == ["numpy", "the variable A", "the variable B"]
    activated = pixi("""
        [activation.env]
        A = "$PIXI_PROJECT_ROOT/${PIXI_PROJECT_ROOT}"
        B = "$HOME"
        [target.unix.activation.env]
        B = "unix"
        [environments]
        default = ["more"]
        [feature.more.activation.env]
        C = "$A"
    """)
    assert dict(activated.variables) == {"A": f"{FOLDER}/{FOLDER}", "B": "unix", "C": "$A"}


def test_an_empty_environment_yml_asks_for_a_bare_kernel() -> None:
    assert yml("") == yml("name: mine") == yml("dependencies:") == CondaRecipe()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [1\nb: 2", "environment.yml is not YAML: expected ',' or ']', but got ':' (line 2, column 2)"),
        ("- numpy", "environment.yml cannot be followed: it must be a mapping of names to values"),
        ("dependencies: numpy", "environment.yml cannot be followed: `dependencies` must be a list of packages"),
        ("dependencies:\n- numpy:\n  - 1", "environment.yml cannot be followed: `dependencies` must be a list of"),
        ("dependencies:\n- 3.12", "environment.yml cannot be followed: `dependencies` must be a list of packages, and"),
        ("dependencies:\n- pip: rich", "environment.yml cannot be followed: `pip` must be a list, not 'rich'"),
        ("variables: [A]", "environment.yml cannot be followed: `variables` must be a table, not ['A']"),
        ("variables: {A: {B: 1}}", "environment.yml cannot be followed: `variables` must map names to texts, and"),
        ("variables: {a b: x}", "environment.yml cannot be followed: `variables` must map names to texts, and"),
        ("channels: conda-forge", "environment.yml cannot be followed: `channels` must be a list, not 'conda-forge'"),
        ("!!python/object:os.system x", "environment.yml is not YAML: could not determine a constructor"),
        ("a: \x00", "environment.yml is not YAML: unacceptable character"),
        ("[" * 5000, "environment.yml is not YAML: "),
        (
            "dependencies:\n- pip:\n  - -r no.txt",
            "environment.yml cannot be followed: no.txt, which it includes, cannot",
        ),
    ],
)
def test_a_malformed_environment_yml_is_refused_with_the_reason(text: str, sentence: str) -> None:
    def missing(name: str) -> str:
        raise FileNotFoundError(name)

    with pytest.raises(EnvironmentFailed) as raised:
        read_environment_yml(text, folder=FOLDER, read=missing)
    assert raised.value.message.startswith(sentence)
    assert raised.value.file == "environment.yml"


def test_a_file_that_says_much_in_few_words_is_refused_in_few_words() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(EnvironmentFailed) as raised:
        yml("\n".join([*lines, "dependencies: *a29"]))
    inner = "[[...], [...], [...], [...], ...]"
    assert raised.value.message == (
        "environment.yml cannot be followed: `dependencies` must be a list of packages, and "
        f"[{inner}, {inner}, {inner}, {inner}, ...] is none"
    )


def test_requirement_files_that_include_each_other_end() -> None:
    with pytest.raises(EnvironmentFailed, match="cannot include"):
        yml("dependencies:\n- pip:\n  - -r a.txt", read=lambda name: "-r a.txt")


def test_the_forms_of_a_pixi_dependency_become_match_specs() -> None:
    recipe = pixi(
        """
        [dependencies]
        python = "3.12.*"
        numpy = "*"
        pandas = { version = ">=2,<3", channel = "mine" }
        mkl = { build = "*openmp*", build-number = ">=3" }
        [host-dependencies]
        zlib = "1"
        """
    )
    assert recipe == CondaRecipe(
        dependencies=(
            "zlib 1",
            "python 3.12.*",
            "numpy",
            "pandas >=2,<3[channel='mine']",
            "mkl[build='*openmp*',build_number='>=3']",
        ),
        channels=("conda-forge",),
    )


def test_the_forms_of_a_pypi_dependency_become_requirements() -> None:
    recipe = pixi(
        """
        [pypi-options]
        index-url = "https://mine.example/simple"
        find-links = [{ path = "./wheels" }]
        [pypi-dependencies]
        rich = "*"
        requests = { version = ">=2", extras = ["socks"], env-markers = "os_name == 'posix'" }
        exact = "1.2"
        mine = { path = ".", editable = true }
        other = { path = "../other" }
        remote = { git = "https://x.example/r.git", rev = "abc", subdirectory = "py" }
        wheel = { url = "https://x.example/w-1-py3-none-any.whl" }
        """
    )
    assert recipe.pip == (
        "--index-url https://mine.example/simple",
        "--find-links /projects/mine/wheels",
        "rich",
        "requests[socks]>=2 ; os_name == 'posix'",
        "exact==1.2",
        "-e /projects/mine",
        "other @ file:///projects/other",
        "remote @ git+https://x.example/r.git@abc#subdirectory=py",
        "wheel @ https://x.example/w-1-py3-none-any.whl",
    )


def test_what_is_said_of_this_platform_and_of_the_features_counts() -> None:
    recipe = pixi(
        f"""
        [dependencies]
        a = "1"
        b = "1"
        c = "1"
        [target.unix.dependencies]
        b = "2"
        [target.{SYSTEM}.dependencies]
        c = "2"
        [target.{HERE}.dependencies]
        c = "3"
        [target.win-64.dependencies]
        a = "9"
        [feature.extra]
        channels = ["theirs"]
        [feature.extra.dependencies]
        a = "5"
        d = "1"
        [feature.unused.dependencies]
        e = "1"
        [environments]
        default = ["extra"]
        """
    )
    assert recipe == CondaRecipe(dependencies=("a 1", "d 1", "b 2", "c 3"), channels=("theirs", "conda-forge"))


def test_a_default_environment_without_the_default_feature() -> None:
    recipe = pixi(
        """
        [dependencies]
        a = "1"
        [feature.alone.dependencies]
        b = "1"
        [environments]
        default = { features = ["alone"], no-default-feature = true }
        """,
        lock="version: 6",
    )
    assert recipe == CondaRecipe(dependencies=("b 1",), channels=("conda-forge",), lock="version: 6")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[dependencies]\na = 1", "the version of a must be a text or a table, not 1"),
        ("[dependencies]\na = { git = 'x' }", "a is built from source (git), which only pixi can do"),
        ("dependencies = []", "`dependencies` must be a table, not []"),
        (
            "[environments]\ndefault = ['no']",
            "its environment `default` names the feature 'no', which it does not have",
        ),
        ("[environments]\ndefault = 3", "the environment `default` must be a list of features or a table, not 3"),
        ("[constraints]\na = '1'", "it has [constraints], which only pixi can follow; run `pixi lock` and try again"),
        (
            "[activation]\nscripts = ['x.sh']",
            "its [activation] runs scripts, which only pixi does; set variables in [activation.env] instead, or "
            'ask for what pixi has made: env_source="python:/projects/mine/.pixi/envs/default/bin/python"',
        ),
        ("[pypi-dependencies]\na = ['1']", "the version of a must be a text or a table, not ['1']"),
    ],
)
def test_a_pixi_toml_that_cannot_be_followed_is_refused_with_the_reason(text: str, why: str) -> None:
    whole = f"{text}\n{WORKSPACE}" if text.startswith("dependencies") else WORKSPACE + text
    with pytest.raises(EnvironmentFailed) as raised:
        read_pixi_toml(whole, folder=FOLDER)
    assert raised.value.message == f"pixi.toml cannot be followed: {why}"
    assert raised.value.file == "pixi.toml"


def test_a_pixi_toml_that_is_no_workspace_for_this_machine_is_refused() -> None:
    with pytest.raises(EnvironmentFailed, match=r"pixi.toml cannot be followed: it has no \[workspace\]"):
        read_pixi_toml("", folder=FOLDER)
    with pytest.raises(
        EnvironmentFailed, match=f"it is for win-32, and this machine is {HERE}; add it with `pixi work"
    ):
        read_pixi_toml('[workspace]\nchannels = []\nplatforms = ["win-32"]', folder=FOLDER)
    with pytest.raises(EnvironmentFailed, match="pixi.toml is not TOML: "):
        read_pixi_toml("[workspace", folder=FOLDER)


def test_a_pyproject_brings_its_own_dependencies() -> None:
    text = f"""
        [project]
        name = "mine"
        requires-python = ">=3.11, <3.13"
        dependencies = ["rich>=13"]
        [tool.pixi.workspace]
        channels = ["conda-forge", {{ channel = "https://mine.example/c", priority = 1 }}]
        platforms = ["{HERE}"]
        [tool.pixi.dependencies]
        numpy = ">=2"
        [tool.pixi.pypi-dependencies]
        mine = {{ path = ".", editable = true }}
        """
    assert read_pyproject(textwrap.dedent(text), folder=FOLDER) == CondaRecipe(
        dependencies=("numpy >=2", "python >=3.11,<3.13"),
        channels=("conda-forge", "https://mine.example/c"),
        pip=("rich>=13", "-e /projects/mine"),
    )


def test_a_pyproject_without_a_pixi_table_is_not_condas() -> None:
    assert read_pyproject("[project]\nname = 'mine'", folder=FOLDER) is None
    with pytest.raises(EnvironmentFailed, match="must be a table"):
        read_pyproject("[tool]\npixi = 3", folder=FOLDER)


def test_channels_come_from_the_recipe_then_the_variable_then_the_condarc() -> None:
    condarcs = [
        ("/home/me/.condarc", "channel_alias: https://mirror.example/\nchannels: [bioconda, defaults]"),
        ("/etc/conda/.condarc", "channels: [theirs]\ndefault_channels: [https://main.example/main]\nssl_verify: true"),
    ]
    settings = read_settings(None, condarcs)
    assert settings == CondaSettings(
        channels=("bioconda", "defaults"), defaults=("https://main.example/main",), alias="https://mirror.example/"
    )
    assert with_channels(CondaRecipe(), settings).channels == (
        "https://mirror.example/bioconda",
        "https://main.example/main",
    )
    assert with_channels(CondaRecipe(channels=("nodefaults", "file:///a/b/", "x")), settings).channels == (
        "file:///a/b",
        "https://mirror.example/x",
    )
    single = with_channels(CondaRecipe(dependencies=("one::a 1", "b"), channels=("/srv/channel",)), settings)
    assert single.channels == ("file:///srv/channel", "https://mirror.example/one")
    named = read_settings(" mine , file:///c,,", condarcs)
    assert named.channels == ("mine", "file:///c")
    standard = with_channels(CondaRecipe(), read_settings(None))
    assert standard.channels == ("https://conda.anaconda.org/conda-forge",)
    assert standard.digest == with_channels(CondaRecipe(channels=("conda-forge",)), read_settings(None)).digest
    assert standard.digest != with_channels(CondaRecipe(), named).digest


def test_a_condarc_that_cannot_be_read_is_named() -> None:
    with pytest.raises(EnvironmentFailed, match="/home/me/.condarc is not YAML"):
        read_settings(None, [("/home/me/.condarc", "channels: [")])
