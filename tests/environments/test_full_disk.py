"""The disk fills up while an environment is made: a sentence, nothing half-made, and another one when there is room."""

from pathlib import Path

import pytest

from runtimed import EnvironmentFailed, Session
from tests.small_disk import SmallDisk, on_a_small_disk

MIB = 2**20


@pytest.fixture
def downloaded(variables: dict[str, str], cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plain environment needs was downloaded, and is on another disk."""
    for name, value in {**variables, "UV_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("downloaded")
@on_a_small_disk
def test_an_environment_for_which_there_is_no_room_leaves_nothing_and_is_made_later(disk: SmallDisk) -> None:
    with Session("a") as session:
        session.create_cell("there")
        for free in (24, 4):
            disk.leave(free * MIB)
            with pytest.raises(EnvironmentFailed, match=r"The disk is full; make room, or name another data folder"):
                session.start_kernel(env_source="uv:prewarmed")
            assert [path.suffix for path in (disk.folder / "environments").iterdir()] == [".lock"]
            assert disk.free > (free - 1) * MIB
            assert not session.kernel_started
        disk.make_room()
        disk.grow(512 * MIB)

        session.start_kernel(env_source="uv:prewarmed")
        assert session.run("import sys; print(sys.prefix)").stdout.startswith(f"{disk.folder}/environments/")
