"""A store of environments and a cache of uv for all tests; packages come from a folder of wheels."""

import os
import sys
from pathlib import Path

import pytest

from runtimed.environments.facts import base_interpreter
from tests.environments.conda_fixtures import conda_cache, conda_channel, conda_channel_folder
from tests.environments.wheels import make_wheel

__all__ = ["base", "conda_cache", "conda_channel", "conda_channel_folder", "variables", "wheels"]


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
        "UV_CACHE_DIR": str(tmp_path_factory.mktemp("uv-cache")),
        "UV_FIND_LINKS": str(wheels),
        "UV_PYTHON_DOWNLOADS": "never",
    }


@pytest.fixture(scope="session")
def base() -> str:
    """The Python on which this one is built."""
    found = base_interpreter(sys.executable)
    assert found is not None
    return found
