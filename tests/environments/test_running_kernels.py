"""Packages that are added to a running kernel: it keeps its state, nobody else sees them, a restart has them all."""

import fcntl
import functools
import json
from pathlib import Path

import pytest

from runtimed import Client, EnvironmentFailed, NoKernel, Session, SyncEnvironmentResult
from tests.conftest import command_of, processes_of, wait_until
from tests.environments.test_kernels import data, in_thread
from tests.environments.wheels import make_wheel

pytestmark = pytest.mark.slow

__all__ = ["data"]

PREFIX = "import sys; print(sys.prefix)"


@pytest.fixture(autouse=True)
def more_wheels(wheels: Path) -> None:
    make_wheel(wheels, "gamma", "1.0", ["delta"])
    make_wheel(wheels, "delta", "3.0")


def lacks_gamma(session: Session) -> bool:
    error = session.run("import gamma").error
    return error is not None and error.ename == "ModuleNotFoundError"


def test_what_is_added_is_there_at_once_and_the_kernel_keeps_its_variables(data):
    with Session("adds") as session, Session("other") as other:
        for one in (session, other):
            one.start_kernel(env_source="uv:prewarmed")
        session.run("x = 42")
        prefix = session.run(PREFIX).stdout
        assert lacks_gamma(session)
        session.add_uv_dependency("gamma")
        assert session.sync_environment() == SyncEnvironmentResult(
            success=True, synced_packages=("delta==3.0", "gamma==1.0")
        )
        assert session.run("import delta, gamma; print(x, gamma.version)").stdout == "42 1.0\n"
        assert session.run("from importlib.metadata import version; print(version('gamma'))").stdout == "1.0\n"
        assert session.sync_environment() == SyncEnvironmentResult(success=True)
        session.add_uv_dependency("alpha<2")
        assert session.sync_environment() == SyncEnvironmentResult(success=True, synced_packages=("alpha==1.0",))
        assert session.run("import alpha; print(x, alpha.version)").stdout == "42 1.0\n"

        # The other session is in the same environment.
        assert other.run(PREFIX).stdout == prefix
        assert lacks_gamma(other)

        session.restart_kernel()
        assert session.env_source == "uv:inline"
        shown = session.run("import alpha, gamma, sys; print(gamma.__file__.startswith(sys.prefix), alpha.version)")
        assert shown.stdout == "True 1.0\n"
        assert session.run(PREFIX).stdout != prefix
        session.stop()
        other.stop()


def test_a_kernel_that_is_busy_gets_packages_too_and_who_had_them_added_is_in_the_log(data):
    with Session("busy", label="an agent") as session:
        session.start_kernel(env_source="uv:prewarmed")
        session.run("import threading; go = threading.Event()")
        code = (
            "import time\nwhile True:\n    try:\n        import gamma; break\n    except ImportError: time.sleep(.01)"
        )
        execution = session.queue_cell(session.create_cell(f"{code}\nprint(gamma.version)"))
        session.add_uv_dependency("gamma")
        assert session.sync_environment().success
        assert session.wait(execution).stdout == "1.0\n"
        newest = Client().sessions.log("busy", page_size=1)
        assert [(entry.action, entry.label, entry.detail) for entry in newest] == [
            ("environment_sync", "an agent", None)
        ]
        session.stop()


def test_what_cannot_be_added_is_had_by_a_restart(data):
    changes = [
        (lambda s: s.add_uv_dependency("alpha>=2"), "alpha would change under the running kernel", "2.0"),
        (lambda s: s.add_uv_dependencies(["alpha", "beta"]), "alpha would change under the running kernel", "1.0"),
        (
            lambda s: s.remove_uv_dependency("alpha") and s.remove_uv_dependency("beta"),
            "current would take the place of uv:inline",
            "ModuleNotFoundError",
        ),
    ]
    show = "try:\n    import alpha; print(alpha.version)\nexcept ImportError as e: print(type(e).__name__)"
    with Session() as session:
        session.add_uv_dependency("alpha<2")
        shown = "1.0"
        for change, why, after in changes:
            assert session.run(show).stdout == f"{shown}\n"
            change(session)
            assert session.sync_environment() == SyncEnvironmentResult(
                success=False, error=f"The kernel must be restarted: {why}", needs_restart=True
            )
            assert session.run(show).stdout == f"{shown}\n"
            session.restart_kernel()
            assert session.run(show).stdout == f"{after}\n"
            assert session.sync_environment() == SyncEnvironmentResult(success=True)
            shown = after


def test_what_was_added_and_is_no_longer_named_needs_a_restart(data):
    with Session() as session:
        session.start_kernel(env_source="uv:prewarmed")
        session.add_uv_dependencies(["alpha", "gamma"])
        assert session.sync_environment().synced_packages == ("alpha==2.0", "delta==3.0", "gamma==1.0")
        session.remove_uv_dependency("gamma")
        assert session.sync_environment() == SyncEnvironmentResult(
            success=False,
            error="The kernel must be restarted: delta, gamma would have to be removed",
            needs_restart=True,
        )
        session.restart_kernel()
        assert (session.env_source, session.run("import alpha; print(alpha.version)").stdout) == ("uv:inline", "2.0\n")
        assert lacks_gamma(session)


def test_what_cannot_be_had_is_said_and_costs_no_state(data):
    with Session() as session:
        session.start_kernel(env_source="uv:prewarmed")
        session.run("x = 42")
        with pytest.raises(EnvironmentFailed, match="is no dependency such as 'pandas'"):
            session.add_uv_dependency("not a package")
        session.add_uv_dependency("alpha>7")
        for attempt in (session.sync_environment, session.restart_kernel):
            with pytest.raises(EnvironmentFailed, match="Cannot make the environment of alpha>7"):
                attempt()
        assert session.run("print(x)").stdout == "42\n"


def test_a_kernel_in_an_environment_of_others_is_left_alone(data):
    with Session() as session:
        with pytest.raises(NoKernel):
            session.sync_environment()
        session.start_kernel(env_source="current")
        assert session.sync_environment() == SyncEnvironmentResult(success=True)
        session.add_uv_dependency("alpha")
        with pytest.raises(EnvironmentFailed, match="'current' .*, where runtimed installs nothing; install there"):
            session.sync_environment()
        session.restart_kernel()
        assert session.env_source == "current"


def test_the_next_daemon_knows_what_was_asked_for(data):
    with Session("handed over") as session:
        session.start_kernel(env_source="uv:prewarmed")
        session.run("x = 42")
        session.add_uv_dependency("gamma")
        session.sync_environment()
        (daemon,) = [p for p in processes_of(data) if "runtimed.daemon" in " ".join(command_of(p))]
        daemon.kill()
        daemon.wait()
        session.add_uv_dependency("alpha")
        assert session.sync_environment() == SyncEnvironmentResult(success=True, synced_packages=("alpha==2.0",))
        assert session.run("import alpha, gamma; print(x)").stdout == "42\n"
        session.restart_kernel()
        assert session.run("import alpha, gamma; print(alpha.version)").stdout == "2.0\n"
        assert session.env_source == "uv:inline"
        session.stop()


def test_edits_of_many_clients_at_once_all_stay(data):
    names = [f"package{number}" for number in range(20)]
    with Session("many") as session:
        session.set_metadata("notebook_metadata", json.dumps({"kernelspec": {"name": "x"}}))

        def write(name: str) -> None:
            with Session("many") as mine:
                mine.add_uv_dependency(name)
                mine.add_conda_dependency(name)

        threads = [in_thread(functools.partial(write, name)) for name in names]
        for thread, _results in threads:
            thread.join()
        assert [results for _thread, results in threads] == [[None]] * 20
        assert (sorted(session.get_uv_dependencies()), sorted(session.get_conda_dependencies())) == (
            sorted(names),
            sorted(names),
        )
        assert (session.remove_uv_dependency("Package1"), session.remove_uv_dependency("package1")) == (True, False)
        assert session.remove_conda_dependency("package2") is True
        assert session.get_kernelspec() == {"name": "x"}
        session.stop()


def test_an_environment_is_held_by_the_kernel_that_runs_in_it_and_by_no_other(data):
    def is_held(prefix: str) -> bool:
        with Path(prefix, "runtimed.json").open() as marker:
            try:
                fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    with Session() as session:
        session.add_uv_dependency("alpha>=1.0,<9")
        first = session.run(PREFIX).stdout.strip()
        session.add_uv_dependency("alpha<2,>0.1")
        session.restart_kernel()
        second = session.run(PREFIX).stdout.strip()
        assert (is_held(first), is_held(second), first == second) == (False, True, False)
    wait_until(lambda: not is_held(second), "nobody lets go of it")
