"""Real environments from a real channel, with real kernels in them."""

import asyncio
import hashlib
import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from runtimed import Session
from runtimed.environments import conda
from runtimed.environments.conda_files import (
    current_platform,
    read_environment_yml,
    read_notebook,
    read_pixi_toml,
    read_pyproject,
)
from runtimed.environments.recipes import CondaRecipe, Progress
from tests.environments.conda_channel import PYTHON, build_wheel
from tests.environments.serving import serve_folder

pytestmark = pytest.mark.slow

_OWN_UV = Path(sysconfig.get_path("scripts"), "uv")
UV = str(_OWN_UV) if _OWN_UV.exists() else None


def make(recipe: CondaRecipe, folder: Path, *, uv: str | None = UV) -> list[Progress]:
    heard: list[Progress] = []
    asyncio.run(conda.build(recipe, folder, heard.append, uv=uv))
    return heard


def ask(folder: Path, code: str) -> list[str]:
    """Run code in a real kernel of the environment, in a session; return what it prints, line by line."""
    with Session() as session:
        session.start_kernel(env_source=f"python:{folder}/bin/python")
        result = session.run(code)
        assert result.success, result.error
        return result.stdout.splitlines()


def test_a_notebook_gets_a_kernel_with_the_packages_that_it_names(
    conda_channel: str, tmp_path: Path, shared_daemon: Path
) -> None:
    recipe = read_notebook({"runt": {"conda": {"dependencies": ["greeting 1.*"], "channels": [conda_channel]}}})
    assert recipe == CondaRecipe(dependencies=("greeting 1.*",), channels=(conda_channel,))
    folder = tmp_path / "environment"
    heard = make(recipe, folder)
    said = ask(
        folder, "import greeting, sys; print(greeting.WORDS); print(sys.prefix); print('%d.%d' % sys.version_info[:2])"
    )
    assert said == ["greeting 1.0", str(folder), PYTHON]
    assert [step for step, _ in _runs(heard)] == ["resolve", "install"]
    assert heard[0].message == "Finding out what greeting 1.*, python, ipykernel >=6.20 need"
    packages = folder / f"lib/python{PYTHON}/site-packages"
    assert list((packages / "ipykernel/__pycache__").glob("ipkernel.*.pyc")), "a kernel would compile what it imports"
    assert (packages / "ipykernel/ipkernel.py").stat().st_nlink > 1, "a copy, where a hard link would do"


def test_what_is_under_pip_comes_on_top(conda_channel: str, tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, "tiny", "1.0", "SIZE = 'small'\n")
    (tmp_path / "requirements.txt").write_text(f"tiny @ {wheel.as_uri()}\n")
    text = (
        "name: mine\nchannels: [nodefaults]\ndependencies:\n- greeting=2\n- ipykernel=0.1\n"
        "- pip:\n  - -r requirements.txt\n"
    )
    recipe = read_environment_yml(text, folder=tmp_path, read=lambda name: (tmp_path / name).read_text())
    assert recipe == CondaRecipe(
        dependencies=("greeting=2", "ipykernel=0.1"), channels=("nodefaults",), pip=(f"tiny @ {wheel.as_uri()}",)
    )
    folder = tmp_path / "environment"
    # Without uv, by the environment's own pip.
    make(CondaRecipe(dependencies=recipe.dependencies, pip=recipe.pip), folder, uv=None)
    code = "import greeting, tiny; print(greeting.WORDS, tiny.SIZE)"
    said = subprocess.run([folder / "bin/python", "-c", code], capture_output=True, check=True)
    assert said.stdout == b"greeting 2.0 small\n"


def test_a_pixi_lock_says_exactly_what_is_installed(
    conda_channel: str, conda_channel_folder: Path, tmp_path: Path, shared_daemon: Path
) -> None:
    wheel = build_wheel(tmp_path, "tiny", "1.0", "SIZE = 'small'\n")
    manifest = (
        f'[workspace]\nchannels = ["{conda_channel}"]\nplatforms = ["{current_platform()}"]\n'
        '[dependencies]\ngreeting = "*"\n[pypi-dependencies]\ntiny = "*"\n'
    )
    lock = _lock(conda_channel_folder, ["python", "greeting-1.0"], wheel)
    folder = tmp_path / "locked"
    # It lacks ipykernel, which is added.
    make(read_pixi_toml(manifest, folder=tmp_path, lock=lock), folder)
    assert ask(folder, "import greeting, tiny; print(greeting.WORDS, tiny.SIZE)") == ["greeting 1.0 small"]

    newer = manifest.replace('greeting = "*"', 'greeting = ">=2"\nipykernel = "0.1"').replace('tiny = "*"', "")
    folder = tmp_path / "outdated"
    make(read_pixi_toml(newer, folder=tmp_path, lock=lock), folder)
    assert _installed(folder)["greeting"] == "2.0"


def test_a_pyproject_with_a_pixi_table_gets_the_dependencies_of_its_project_as_well(
    conda_channel: str, tmp_path: Path
) -> None:
    wheel = build_wheel(tmp_path, "tiny", "1.0", "SIZE = 'small'\n")
    text = (
        f'[project]\nname = "mine"\nversion = "1"\nrequires-python = ">={PYTHON}"\n'
        f'dependencies = ["tiny @ {wheel.as_uri()}"]\n'
        f'[tool.pixi.workspace]\nchannels = ["{conda_channel}"]\nplatforms = ["{current_platform()}"]\n'
        '[tool.pixi.dependencies]\ngreeting = "1.0.*"\nipykernel = "0.1"\n'
    )
    recipe = read_pyproject(text, folder=tmp_path)
    assert recipe is not None
    folder = tmp_path / "environment"
    make(recipe, folder)
    assert _installed(folder)["greeting"] == "1.0"
    said = subprocess.run(
        [folder / "bin/python", "-c", "import tiny; print(tiny.SIZE)"], capture_output=True, check=True
    )
    assert said.stdout == b"small\n"


def test_the_download_is_told_in_bytes(
    conda_channel: str, conda_channel_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "cache"))
    with serve_folder(conda_channel_folder) as url:
        heard = make(CondaRecipe(dependencies=("ipykernel 0.1",), channels=(url,)), tmp_path / "environment")
    downloads = [one for one in heard if one.step == "download"]
    size = sum(path.stat().st_size for path in conda_channel_folder.rglob("*.conda"))
    assert downloads
    counted = [(one.done or 0, one.total or 0) for one in downloads]
    assert counted == sorted(counted, key=lambda pair: pair[0])
    assert all(0 < done <= total <= size for done, total in counted)


def _runs(heard: list[Progress]) -> list[tuple[str, int]]:
    runs: list[tuple[str, int]] = []
    for one in heard:
        if runs and runs[-1][0] == one.step:
            runs[-1] = (one.step, runs[-1][1] + 1)
        else:
            runs.append((one.step, 1))
    return runs


def _installed(folder: Path) -> dict[str, str]:
    records = [json.loads(path.read_text()) for path in (folder / "conda-meta").glob("*.json")]
    return {record["name"]: record["version"] for record in records}


def _lock(channel: Path, wanted: list[str], wheel: Path) -> str:
    """Write a pixi.lock (version 6) as pixi does."""
    files = {name: path for path in channel.rglob("*.conda") for name in wanted if path.name.startswith(name + "-")}
    listed = "".join(f"      - conda: {path.as_uri()}\n" for path in files.values())
    packages = ""
    for path in files.values():
        name, version, build = path.name.removesuffix(".conda").rsplit("-", 2)
        packages += (
            f"- conda: {path.as_uri()}\n  name: {name}\n  version: '{version}'\n  build: {build}\n"
            f"  subdir: {path.parent.name}\n  sha256: {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        )
        packages += "  noarch: python\n  depends:\n  - python >=3\n" if path.parent.name == "noarch" else ""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return (
        f"version: 6\nenvironments:\n  default:\n    channels:\n    - url: {channel.as_uri()}/\n    packages:\n"
        f"      {current_platform()}:\n{listed}      - pypi: {wheel.as_uri()}\npackages:\n{packages}"
        f"- pypi: {wheel.as_uri()}\n  name: tiny\n  version: '1.0'\n  sha256: {digest}\n"
    )
