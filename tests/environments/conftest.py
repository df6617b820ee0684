"""A store of environments and a cache of uv for all tests; packages come from a folder of wheels."""

import os
import sys
from pathlib import Path

import pytest

from runtimed.environments.facts import base_interpreter
from runtimed.environments.recipes import UvRecipe
from tests.environments.conda_fixtures import conda_cache, conda_channel, conda_channel_folder
from tests.environments.plain import link_environments, prepare
from tests.environments.wheels import make_wheel
from tests.sharing import made_once

__all__ = ["base", "cached", "client", "conda_cache", "conda_channel", "conda_channel_folder", "variables", "wheels"]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels: `alpha` in two versions, `beta`, which needs the older one."""
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "alpha", "1.0")
    make_wheel(folder, "alpha", "2.0")
    make_wheel(folder, "beta", "1.0", ["alpha<2"])
    make_wheel(folder, "traitlets", "1.0")
    return folder


@pytest.fixture(scope="session")
def variables(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment variables of a client: a cache of the tests' own, those wheels, and the index of this machine."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("UV_", "RUNTIMED_"))},
        "UV_CACHE_DIR": str(made_once(tmp_path_factory, "uv-cache", Path.mkdir)),
        "UV_FIND_LINKS": str(wheels),
        "UV_PYTHON_DOWNLOADS": "never",
    }


@pytest.fixture(scope="session")
def base() -> str:
    """The Python on which this one is built."""
    found = base_interpreter(sys.executable)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def cached(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str], base: str) -> Path:
    """A folder with the plain environment; what that needs is in uv's cache, so that the tests need no network."""
    return made_once(tmp_path_factory, "plain", lambda new: prepare(new, UvRecipe(python=base), variables))


@pytest.fixture(scope="module")
def has_plain(cached: Path, shared_daemon: Path) -> None:
    """The data folder of these tests has the plain environment: making it costs more than most of them."""
    link_environments(cached, shared_daemon / "environments")


@pytest.fixture
def client(
    tmp_path: Path, variables: dict[str, str], has_plain: None, shared_daemon: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """A client in an empty folder that is its home, for which `auto` means what it says."""
    for name, value in {**variables, "UV_OFFLINE": "1", "HOME": str(tmp_path)}.items():
        if not name.startswith("RUNTIMED"):
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("RUNTIMED_ENV")
    monkeypatch.chdir(tmp_path)
    return monkeypatch
