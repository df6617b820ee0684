"""What can go wrong with a conda environment, and what is said then."""

import asyncio
import fcntl
import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from runtimed.environments import conda
from runtimed.environments.recipes import CondaRecipe, Progress
from runtimed.errors import EnvironmentFailed
from tests.conftest import command_of, lives, wait_until
from tests.environments.serving import serve_folder, silent_server

pytestmark = pytest.mark.slow

SMALL = CondaRecipe(dependencies=("ipykernel 0.1", "greeting"))


def fail(recipe: CondaRecipe, folder: Path) -> EnvironmentFailed:
    with pytest.raises(EnvironmentFailed) as raised:
        asyncio.run(conda.build(recipe, folder, lambda _: None))
    return raised.value


def workers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [process for process in children if "runtimed.environments.conda_worker" in command_of(process)]


def test_an_unknown_package_is_named(conda_channel: str, tmp_path: Path) -> None:
    error = fail(CondaRecipe(dependencies=("greeting", "greetign >=1")), tmp_path / "e")
    assert error.message == (
        f"No conda package is called 'greetign' in {conda_channel}; check the spelling, name the channel that has it, "
        "or list it under `pip:` if it is on PyPI"
    )
    assert (error.package, error.channels) == ("greetign", [conda_channel])


def test_a_version_that_does_not_exist_is_answered_with_those_that_do(conda_channel: str, tmp_path: Path) -> None:
    error = fail(CondaRecipe(dependencies=("greeting >=7",)), tmp_path / "e")
    assert error.message == (
        f"There is no conda package 'greeting >=7' in {conda_channel}; the versions of greeting there are 2.0, 1.0"
    )
    assert (error.package, error.versions) == ("greeting", ["2.0", "1.0"])


def test_a_python_that_the_channel_lacks_is_such_a_version(conda_channel: str, tmp_path: Path) -> None:
    error = fail(CondaRecipe(dependencies=("python 3.6.*",)), tmp_path / "e")
    assert error.message.startswith(f"There is no conda package 'python 3.6.*' in {conda_channel}; the versions of")
    assert error.package == "python"


def test_packages_that_exclude_each_other_are_shown_with_the_reason(conda_channel: str, tmp_path: Path) -> None:
    error = fail(CondaRecipe(dependencies=("greeting 2.*", "old-friend")), tmp_path / "e")
    assert error.message.startswith(
        "These conda packages cannot be installed together: greeting 2.*, old-friend, python, ipykernel >=6.20. "
    )
    assert "old-friend 1.0 would require\n   └─ greeting <2" in error.message
    assert error.message.endswith("Allow more versions of one of them.")


def test_a_package_for_another_python_is_such_a_conflict(conda_channel: str, tmp_path: Path) -> None:
    assert (
        "relic 1.0 would require\n   └─ python <3"
        in fail(CondaRecipe(dependencies=("relic",)), tmp_path / "e").conflict
    )


@pytest.mark.parametrize("spec", ["", "??", "greeting ==="])
def test_what_names_no_package_is_refused(conda_channel: str, tmp_path: Path, spec: str) -> None:
    error = fail(CondaRecipe(dependencies=(spec,)), tmp_path / "e")
    assert error.message.startswith(f"{spec!r} names no conda package: ")
    assert error.package == spec


def test_a_channel_that_is_not_there_is_named(conda_channel: str, tmp_path: Path) -> None:
    url = (tmp_path / "nothing").as_uri()
    error = fail(CondaRecipe(channels=(url,)), tmp_path / "e")
    assert error.message.startswith(f"There is no conda channel at {url} (")
    assert error.channel == url


@pytest.mark.parametrize("host", ["http://127.0.0.1:9", "http://someone:secret@nowhere.invalid/t/secret"])
def test_without_a_network_it_fails_within_seconds_and_hides_secrets(
    conda_channel: str, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    error = fail(CondaRecipe(channels=(f"{host}/mine",)), tmp_path / "e")
    shown = host.replace("someone:secret@", "").replace("/t/secret", "/t/…")
    assert error.message.startswith(f"The conda channel at {shown}/mine cannot be reached: ")
    assert error.message.endswith("; check the network, or choose another channel with RUNTIMED_CONDA_CHANNELS")
    assert error.channel == f"{shown}/mine"


def test_a_channel_that_takes_the_question_and_says_nothing_is_given_up(
    conda_channel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conda, "PATIENCE", 0.5)
    with silent_server() as url:
        error = fail(CondaRecipe(channels=(url,)), tmp_path / "e")
    assert error.message == (
        f"The conda channel at {url} cannot be reached: it was silent for 0.5 seconds; check the network, or choose "
        "another channel with RUNTIMED_CONDA_CHANNELS"
    )


def test_a_download_that_stops_is_given_up(
    conda_channel: str, conda_channel_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conda, "STALL", 0.5)
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "cache"))
    with serve_folder(conda_channel_folder, stalls="greeting-2") as url:
        error = fail(CondaRecipe(dependencies=SMALL.dependencies, channels=(url,)), tmp_path / "e")
    assert error.message.endswith("not a byte for 0.5 seconds; check the network and try again")


def test_a_requirement_that_no_index_has_is_told_in_the_words_of_the_tool(conda_channel: str, tmp_path: Path) -> None:
    missing = (tmp_path / "missing-1.0-py3-none-any.whl").as_uri()
    recipe = CondaRecipe(dependencies=("ipykernel 0.1", "pip"), pip=(f"missing @ {missing}",))
    error = fail(recipe, tmp_path / "e")
    assert error.message.startswith("The packages under `pip:` (missing) cannot be installed; ")
    assert "missing-1.0-py3-none-any.whl" in error.message


@pytest.mark.parametrize("text", ["version: 99", "version: 6\nenvironments: [", ""])
def test_a_lock_that_cannot_be_read_is_named(conda_channel: str, tmp_path: Path, text: str) -> None:
    error = fail(CondaRecipe(lock=text), tmp_path / "e")
    assert error.message.startswith("pixi.lock cannot be read: ")
    assert error.file == "pixi.lock"


def test_a_lock_for_other_machines_says_how_to_add_this_one(conda_channel: str, tmp_path: Path) -> None:
    text = "version: 6\nenvironments:\n  default:\n    channels: []\n    packages:\n      win-32: []\npackages: []\n"
    assert "pixi workspace platform add" in fail(CondaRecipe(lock=text), tmp_path / "e").message


def test_without_py_rattler_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rattler", None)
    assert not conda.is_available()
    error = fail(SMALL, tmp_path / "e")
    assert error.message == (
        "Conda environments need py-rattler; install it with `pip install 'ipython-runtimed[conda]'`"
    )
    assert error.extra == "conda"


def test_a_worker_that_is_killed_is_told(conda_channel: str, tmp_path: Path) -> None:
    def kill(_: Progress) -> None:
        for worker in workers():
            worker.kill()

    with pytest.raises(EnvironmentFailed) as raised:
        asyncio.run(conda.build(SMALL, tmp_path / "e", kill))
    assert raised.value.message.startswith("The process that makes conda environments was killed by SIGKILL: ")
    assert raised.value.exit_code == -signal.SIGKILL


@pytest.mark.parametrize(("step", "times"), [("resolve", 1), ("install", 1), ("install", 3)])
def test_a_cancelled_build_leaves_no_process(conda_channel: str, tmp_path: Path, step: str, times: int) -> None:
    async def cancel_at_the_step() -> None:
        reached = asyncio.Event()
        task = asyncio.create_task(
            conda.build(SMALL, tmp_path / "e", lambda one: reached.set() if one.step == step else None)
        )
        await reached.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert workers() == []

    asyncio.run(cancel_at_the_step())
    gc.collect()  # which complains about a process that was not waited for


def test_the_worker_ends_with_a_daemon_that_was_killed(conda_channel: str, tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        from pathlib import Path
        from runtimed.environments import conda
        from runtimed.environments.recipes import CondaRecipe
        recipe = CondaRecipe(channels=(sys.argv[1],))
        asyncio.run(conda.build(recipe, Path(sys.argv[2]), lambda one: print(one.step, flush=True)))
    """
    with silent_server() as url:
        command = [sys.executable, "-c", textwrap.dedent(script), url, str(tmp_path / "e")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"resolve\n"
            (worker,) = workers()
            process.kill()
        wait_until(lambda: not lives(worker), "the worker lives on")


def test_what_makes_an_environment_holds_its_lock_until_it_has_ended(conda_channel: str, tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def is_free() -> bool:
        with path.open() as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    async def give_the_lock_away(url: str) -> None:
        asked = asyncio.Event()
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            task = asyncio.create_task(
                conda.build(CondaRecipe(channels=(url,)), tmp_path / "e", lambda _: asked.set(), lock=file.fileno())
            )
            await asked.wait()
        assert not is_free()
        task.cancel()
        await asyncio.wait([task])
        assert is_free()

    with silent_server() as url:
        asyncio.run(give_the_lock_away(url))


def test_the_channels_are_those_of_the_client_not_of_the_daemon(conda_channel: str, tmp_path: Path) -> None:
    (tmp_path / ".condarc").write_text(f"channels: [mine]\nchannel_alias: {tmp_path.as_uri()}\n")
    client = {name: value for name, value in os.environ.items() if name not in {"RUNTIMED_CONDA_CHANNELS", "CONDARC"}}
    client |= {"HOME": str(tmp_path), "PYTHONPATH": "/nowhere", "PYTHONHOME": "/nowhere"}
    assert conda.configured(client).channels == ("mine",)
    with pytest.raises(EnvironmentFailed) as raised:
        asyncio.run(conda.build(SMALL, tmp_path / "e", lambda _: None, environment=client))
    assert raised.value.channel == (tmp_path / "mine").as_uri()


def test_a_condarc_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".condarc").write_bytes(b"channels: [\xff]")
    with pytest.raises(EnvironmentFailed, match="condarc cannot be read") as raised:
        conda.configured({"HOME": str(tmp_path)})
    assert raised.value.file == str(tmp_path / ".condarc")


def test_builds_killed_at_any_instant_spoil_nothing_for_the_next_one(
    conda_channel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATTLER_CACHE_DIR", str(tmp_path / "cache"))
    chance = random.Random(7)
    steps = []

    async def build_and_kill(delay: float, *, installing: bool) -> None:
        begun = asyncio.Event()

        def tell(one: Progress) -> None:
            steps.append(one.step)
            if one.step == "install":
                begun.set()

        task = asyncio.create_task(conda.build(SMALL, tmp_path / "e", tell))
        if installing:
            # However long the steps before take here.
            waiting = asyncio.create_task(begun.wait())
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            delay /= 5
        await asyncio.wait([task], timeout=delay)
        task.cancel()
        await asyncio.wait([task])

    for number in range(8):
        asyncio.run(build_and_kill(chance.uniform(0.2, 1.5), installing=number % 2 == 1))
        shutil.rmtree(tmp_path / "e", ignore_errors=True)
    assert "install" in steps
    asyncio.run(conda.build(SMALL, tmp_path / "e", lambda _: None))
    code = "import greeting, json, ssl, ctypes; print(greeting.WORDS)"
    said = subprocess.run([tmp_path / "e/bin/python", "-I", "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "greeting 2.0\n"


def test_a_full_disk_is_told_with_what_is_left(
    conda_channel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = tmp_path / "python-on-a-small-disk"
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=8m none {small}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    wrapped.write_text(f'#!/bin/sh\nexec unshare -rm sh -c \'{mount} && exec {sys.executable} "$@"\' sh "$@"\n')
    wrapped.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(wrapped))
    error = fail(SMALL, small / "environment")
    assert error.message.startswith(f"The disk is full: {small} has ")
    assert error.message.endswith(" MiB left, and the environment needs more; make room and try again")
    assert error.path == str(small)
    assert error.free < 8 * 2**20


def test_an_environment_without_ipykernel_is_not_called_made(conda_channel: str, tmp_path: Path) -> None:
    # A requirement that does not apply is no error for pip.
    error = fail(CondaRecipe(dependencies=("pip",), pip=("ipykernel ; python_version < '3'",)), tmp_path / "e")
    assert error.message == "The environment cannot run a kernel: it has no ipykernel"
