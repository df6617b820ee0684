"""A conda channel and a package cache for all tests of a run."""

from pathlib import Path

import pytest

from tests.sharing import made_once


@pytest.fixture(scope="session")
def conda_channel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real channel with the running CPython, ipykernel and a few tiny packages."""
    pytest.importorskip("rattler_build", reason="py-rattler-build is for Linux here")
    from tests.environments.conda_channel import build_channel

    return made_once(tmp_path_factory, "conda", lambda new: build_channel(new / "channel", new / "stage")) / "channel"


@pytest.fixture(scope="session")
def conda_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package cache for all tests, on the disk of their environments."""
    return made_once(tmp_path_factory, "conda-cache", Path.mkdir)


@pytest.fixture
def conda_channel(conda_channel_folder: Path, conda_cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of that channel, which is what this machine is configured to use."""
    url = conda_channel_folder.as_uri()
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(conda_cache))
    monkeypatch.setenv("RUNTIMED_CONDA_CHANNELS", url)
    return url
