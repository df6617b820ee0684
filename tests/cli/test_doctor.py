"""`runtimed doctor`: it finds what is missing, says how to mend it, and changes nothing."""

import contextlib
import json
import socket
import threading
from pathlib import Path

import pytest

from runtimed.cli import doctor
from runtimed.cli.doctor import Check, examine
from runtimed.host.memory import Mechanism
from runtimed.settings import read_settings
from tests.cli.conftest import Command


def found(name: str) -> Check:
    return next(check for check in examine(read_settings()) if check.name == name)


def test_an_installation_in_order_has_no_failures(runtimed: Command, data_dir: Path):
    done = runtimed("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.split()[1] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert names == [
        *("runtimed", "documents", "kernels", "magics", "jupyter", "data", "disk", "socket", "socket", "daemon"),
        *("memory", "uv", "conda", "deno", "browser", "chromium", "sandbox"),
    ]
    assert not any(line.startswith("fail") for line in done.stdout.splitlines())
    assert list(data_dir.iterdir()) == []


def test_a_running_daemon_is_found_and_so_is_who_can_reach_it(runtimed: Command):
    runtimed("start")
    checks = {check["name"]: check for check in json.loads(runtimed("doctor", "--json").stdout)}
    assert checks["daemon"]["verdict"] == "ok"
    assert checks["access"] == {
        "name": "access",
        "verdict": "ok",
        "found": "only you, through a Unix socket of mode 0600; the daemon has no TCP port",
        "advice": "",
    }


def test_a_data_folder_open_to_others_is_a_failure(runtimed: Command, data_dir: Path):
    data_dir.chmod(0o755)
    done = runtimed("doctor")
    assert done.returncode == 1
    assert f"→ chmod 700 {data_dir}\n" in done.stdout
    data_dir.chmod(0o700)


def test_a_folder_that_everybody_may_exchange_is_worth_a_warning(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    place = data_dir / "place"
    place.mkdir()
    place.chmod(0o777)
    (place / "data").mkdir(mode=0o700)
    monkeypatch.setenv("RUNTIMED_DATA_DIR", str(place / "data"))
    check = found("data folder")
    assert (check.verdict, check.advice) == (
        "warn",
        f"chmod o-w {place}, or name another place with RUNTIMED_DATA_DIR",
    )
    place.chmod(0o1777)
    assert found("data folder").verdict == "ok"


def test_nobody_is_told_to_close_a_folder_that_is_meant_to_be_shared(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    (data_dir / "shared").mkdir()
    (data_dir / "shared").chmod(0o1777)
    monkeypatch.setenv("RUNTIMED_SOCKET_PATH", str(data_dir / "shared" / "daemon.sock"))
    check = found("socket folder")
    assert (check.verdict, check.advice) == (
        "fail",
        "name a socket in a folder of your own (mode 0700) with RUNTIMED_SOCKET_PATH",
    )


def test_a_socket_path_too_long_is_a_failure(runtimed: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RUNTIMED_SOCKET_PATH", "/tmp/" + "x" * 120)
    done = runtimed("doctor", "--json")
    assert done.returncode == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["socket path"]["verdict"] == "fail"
    assert checks["socket path"]["advice"].startswith("name a shorter one")


def test_a_network_file_system_is_a_failure(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_file_system", lambda place: "nfs4")
    assert (found("disk").verdict, found("disk").advice) == (
        "fail",
        "name a folder on a local disk with RUNTIMED_DATA_DIR",
    )


def test_missing_packages_are_failures_with_a_command_that_installs_them(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(doctor, "_version", {"automerge": "1.0.0rc1", "ipykernel": "6.29.5"}.get)
    assert found("documents").found == "automerge 1.0.0rc1: this interpreter cannot run the daemon"
    assert found("documents").advice.endswith("-m pip install 'automerge==0.2.0.dev4'")
    assert [found(name).verdict for name in ("documents", "kernels", "magics")] == ["fail"] * 3
    assert found("jupyter").verdict == "warn"
    assert found("kernels").found == "ipykernel 6.29.5: this interpreter cannot be a kernel's"
    assert found("magics").advice.endswith("-m pip install 'ipython>=9'")


@pytest.mark.parametrize(
    ("mechanisms", "limit", "verdict", "says", "advice"),
    [
        ([Mechanism("cgroup v2", Path("/c"))], "2G", "ok", "at most 2 GiB for each kernel; cgroup v2 limits", ""),
        ([Mechanism("cgroup v2", Path("/c"))], "", "ok", "kernels have no limit; cgroup v2 limits", ""),
        ([Mechanism("RLIMIT_DATA")], "2G", "warn", "RLIMIT_DATA limits each process by itself", "systemd-run --user"),
        ([Mechanism("RLIMIT_DATA")], "", "ok", "RLIMIT_DATA limits each process by itself", ""),
        ([], "2G", "warn", "this system enforces no limit", "macOS has no such limit"),
        ([], "", "ok", "this system enforces no limit", ""),
    ],
)
def test_how_a_memory_limit_is_kept_is_told(
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    mechanisms: list[Mechanism],
    limit: str,
    verdict: str,
    says: str,
    advice: str,
):
    monkeypatch.setattr(doctor, "find_mechanisms", lambda: mechanisms)
    monkeypatch.setenv("RUNTIMED_MAX_KERNEL_MEMORY", limit)
    check = found("memory")
    assert (check.verdict, says in check.found) == (verdict, True)
    assert advice in check.advice
    assert bool(advice) == bool(check.advice)


def test_a_running_daemon_is_asked_for_its_memory_limit(runtimed: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RUNTIMED_MAX_KERNEL_MEMORY", "2G")
    runtimed("start")
    monkeypatch.delenv("RUNTIMED_MAX_KERNEL_MEMORY")
    assert "at most 2 GiB for each kernel" in runtimed("doctor").stdout


def test_chromium_is_optional(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(data_dir))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(data_dir))
    assert found("chromium").found == "not found; only browser sessions need it"
    assert found("chromium").verdict == "warn"

    monkeypatch.setenv("RUNTIMED_CHROMIUM", "/nowhere/chromium")
    assert found("chromium").found == "RUNTIMED_CHROMIUM names '/nowhere/chromium', which is no program of this machine"
    assert found("chromium").verdict == "warn"


def test_somebody_else_on_the_socket_is_a_failure(data_dir: Path, monkeypatch: pytest.MonkeyPatch):
    path = data_dir / "other.sock"
    monkeypatch.setenv("RUNTIMED_SOCKET_PATH", str(path))

    def hang_up(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                listener.accept()[0].close()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        thread = threading.Thread(target=hang_up, args=(listener,))
        thread.start()
        check = found("daemon")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)
    path.unlink()
    assert check.verdict == "fail"
    assert "runtimed restart" in check.advice
