"""Spare kernels in environments that runtimed makes: held as long as they live, and as good as others when taken."""

import fcntl
from pathlib import Path

import pytest

from runtimed import Client, DaemonClient, Session, SyncEnvironmentResult
from tests.conftest import wait_until
from tests.daemon.hosting.test_pool import spare_of

pytestmark = pytest.mark.slow


@pytest.fixture
def pool(client: pytest.MonkeyPatch, shared_daemon: Path) -> Path:
    """A data folder whose daemon keeps one spare of each kind."""
    client.setenv("RUNTIMED_POOL_SIZE", "1")
    return shared_daemon


def figures() -> dict[str, int]:
    status = Client().status()
    assert status is not None
    return {name: number for name, number in status.pool.items() if number}


def is_held(marker: Path) -> bool:
    with marker.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_spare_holds_its_environment_before_and_after_it_is_taken_and_packages_can_be_added(pool: Path) -> None:
    look = "import os, sys; print(sys.prefix, os.environ['VIRTUAL_ENV'], os.environ['PATH'].split(':')[0])"
    with Session() as first:
        first.start_kernel(env_source="uv:prewarmed")
        assert first.env_source == "uv:prewarmed"
        wait_until(lambda: figures() == {"uv_available": 1}, "there is no spare")
        where = first.run(look).stdout
        (prefix, again, bin_folder) = where.split()
        assert (again, bin_folder) == (prefix, f"{prefix}/bin")
        spare, _kernel = spare_of(pool, first)
        first.shutdown_kernel()
        marker = Path(prefix, "runtimed.json")
        assert is_held(marker)
        with Session() as second:
            second.start_kernel(env_source="uv:prewarmed")
            assert second.status().host_pid == spare.pid
            assert second.env_source == "uv:prewarmed"
            DaemonClient().flush_pool()
            assert is_held(marker)
            assert second.run(look).stdout == where
            second.add_uv_dependency("alpha<2")
            assert second.sync_environment() == SyncEnvironmentResult(success=True, synced_packages=("alpha==1.0",))
            assert second.run("import alpha; print(alpha.version)").stdout == "1.0\n"
            second.restart_kernel()
            assert second.env_source == "uv:inline"
            assert second.run("import alpha; print(alpha.version)").stdout == "1.0\n"
