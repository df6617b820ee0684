"""Kernels and hosts that end: on request, by themselves, by force."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from runtimed.errors import KernelStartFailed, NoKernel, ProtocolError
from runtimed.host.bootstrap import Bootstrap, read_bootstrap
from runtimed.protocol.codec import decode_event
from runtimed.protocol.events import Failed, Finished, KernelState, Started
from runtimed.protocol.host_operations import Execute, HostRequest, HostRequestReply, HostRestart, HostShutdown
from runtimed.protocol.replies import Done
from runtimed.storage.spool import Spool
from tests.host.standin import Daemon, HostProcess, eventually, gather, in_loop, is_running, join, shapes


def kernel_pid(daemon: Daemon) -> int:
    pid = next(e.pid for e in reversed(daemon.events) if isinstance(e, KernelState) and e.status == "starting")
    assert pid is not None
    return pid


@in_loop
async def test_a_shutdown_ends_kernel_and_host_and_leaves_the_folder(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    await daemon.run("1")
    assert await daemon.ask(HostShutdown()) == Done()
    dead = await daemon.state("dead")
    assert (dead.expected, dead.reason, dead.exit_code, dead.signal) == (True, None, 0, None)
    assert await host.ended() == 0
    assert not is_running(kernel_pid(daemon))
    left = {path.name for path in host.folder.iterdir() if path.suffix != ".events"}
    assert left == {"host.log", "host.err", "lock"}


@in_loop
async def test_a_busy_kernel_is_shut_down_within_seconds(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    code = """
import signal, time
print("on", flush=True)
while True:
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        pass
"""
    execution_id = await daemon.start(code)
    await daemon.until(lambda: daemon.text(execution_id))
    await daemon.ask(HostShutdown())
    assert shapes(daemon.of(execution_id))[-2:] == [
        ("failed", "KernelDied", "The kernel was shut down"),
        ("finished", "died", "The kernel was shut down"),
    ]
    assert (await daemon.state("dead")).expected
    assert await host.ended(10) == 0


@pytest.mark.parametrize(
    ("leave", "how", "said"),
    [
        ("os._exit(3)", (3, None), "The kernel died (exit code 3)"),
        ("os.abort()", (None, signal.SIGABRT), "The kernel died (killed by SIGABRT)"),
    ],
)
@in_loop
async def test_all_that_was_printed_arrives_before_code_ends_its_process_and_the_kernel_says_how_it_ended(
    host: HostProcess, leave: str, how: tuple[int | None, int | None], said: str
) -> None:
    daemon = await Daemon().attach(host)
    code = f"""
import os, threading
for number in range(10):
    print(str(number) * 1_000_000, flush=True)
print("not flushed", end="")
thread = threading.Thread(target=lambda: {leave})
thread.start()
thread.join()
"""
    running = await daemon.start(code)
    waiting = await daemon.start("print('never')")
    died = await daemon.finished(running)
    assert (died.status, died.message) == ("died", said)
    expected = "".join(f"{str(number) * 1_000_000}\n" for number in range(10)) + "not flushed"
    assert daemon.text(running) == expected
    assert shapes(daemon.of(running))[-2][:2] == ("failed", "KernelDied")
    assert (await daemon.finished(waiting)).status == "died"
    dead = await daemon.state("dead")
    assert (dead.exit_code, dead.signal, dead.expected) == (*how, False)
    assert await host.ended() == 0


@in_loop
async def test_a_process_that_holds_a_dead_kernels_sockets_open_does_not_hide_the_death(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    code = """
import os, signal, time
child = os.fork()
if child == 0:
    os.setsid()
    time.sleep(1000)
print(child, flush=True)
time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    execution_id = await daemon.start(code)
    assert (await daemon.finished(execution_id)).status == "died"
    child = int(daemon.text(execution_id))
    assert is_running(child)
    os.kill(child, signal.SIGKILL)


@in_loop
async def test_a_kernel_that_shuts_down_waits_for_nobody_before_its_last_function_leaves(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    await daemon.run("import atexit, os; atexit.register(os._exit, 5)")
    await daemon.ask(HostShutdown())
    dead = await daemon.state("dead")
    assert (dead.exit_code, dead.signal) == (5, None)


@in_loop
async def test_a_forked_child_leaves_at_once(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    code = """
import os
child = os.fork()
if child == 0:
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    execution_id = await daemon.start(code)
    assert (await daemon.finished(execution_id)).status == "ok"
    assert daemon.text(execution_id) == "7\n"


@in_loop
async def test_a_kernel_that_is_killed_says_by_what(host: HostProcess) -> None:
    daemon = await Daemon(acknowledges=False).attach(host)
    execution_id = await daemon.start("import subprocess, time\nsubprocess.Popen(['sleep', '1000'])\ntime.sleep(1000)")
    await daemon.until(lambda: daemon.of(execution_id, Started))
    kernel = psutil.Process(kernel_pid(daemon))
    await eventually(lambda: bool(kernel.children()))
    (child,) = kernel.children()
    kernel.kill()
    died = await daemon.finished(execution_id)
    assert "SIGKILL" in (died.message or "")
    dead = await daemon.state("dead")
    assert (dead.exit_code, dead.signal, dead.expected) == (None, signal.SIGKILL, False)
    await eventually(lambda: not is_running(child.pid))
    with pytest.raises(NoKernel, match="has ended"):
        await daemon.ask(Execute(execution_id="late", cell_id="c", code="1"))


@in_loop
async def test_a_crash_leaves_a_python_traceback(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    execution_id = await daemon.start("import ctypes\ndef crash_here():\n    ctypes.string_at(0)\ncrash_here()")
    assert (await daemon.finished(execution_id)).message == "The kernel died (killed by SIGSEGV)"
    (failed,) = daemon.of(execution_id, Failed)
    assert "crash_here" in failed.evalue
    assert any("Segmentation fault" in line for line in failed.traceback)


@in_loop
async def test_a_kernel_that_quits_is_no_riddle(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    await daemon.start("import os; os._exit(0)")
    dead = await daemon.state("dead")
    assert (dead.exit_code, dead.expected, dead.reason) == (0, False, "The kernel ended itself (exit code 0)")


@in_loop
async def test_kernel_and_children_die_with_a_host_that_is_killed(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    execution_id = await daemon.start(
        "import subprocess, time\nprint(subprocess.Popen(['sleep', '1000']).pid, flush=True)\ntime.sleep(1000)"
    )
    await daemon.until(lambda: daemon.text(execution_id))
    pids = [kernel_pid(daemon), int(daemon.text(execution_id))]
    everybody = psutil.Process(host.process.pid).children(recursive=True)
    assert all(map(is_running, pids))
    host.process.kill()
    await eventually(lambda: not any(map(is_running, pids)), 5)
    await eventually(lambda: not any(is_running(process.pid) for process in everybody), 5)
    # What it said is in the spool, for the next daemon.
    host.end()
    assert not Spool.is_alive(host.folder)
    numbers = [n for n, _ in Spool.read_dead(host.folder, 0)]
    assert numbers == list(range(1, len(numbers) + 1))


@in_loop
async def test_sigterm_ends_the_host_and_the_spool_says_why(host: HostProcess) -> None:
    daemon = await Daemon(acknowledges=False).attach(host)
    # One that gives in to the interrupt, which comes first, may come to its own end before the kernel's.
    execution_id = await daemon.start(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('on', flush=True)\ntime.sleep(1000)"
    )
    await daemon.until(lambda: daemon.text(execution_id))
    pid = kernel_pid(daemon)
    host.process.send_signal(signal.SIGINT)
    host.process.send_signal(signal.SIGTERM)
    assert await host.ended() == 0
    assert not is_running(pid)
    events = [decode_event(body) for _, body in Spool.read_dead(host.folder, 0)]
    [end] = [event for event in events if isinstance(event, KernelState) and event.status == "dead"]
    assert (end.reason, end.expected) == ("The host was terminated", False)
    # First the kernel's end: whoever sees an execution end may ask for a new one.
    assert shapes(events[events.index(end) + 1 :]) == [
        ("failed", "KernelDied", "The host was terminated"),
        ("finished", "died", "The host was terminated"),
    ]


@in_loop
async def test_a_host_ends_when_its_folder_is_gone(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    await daemon.state("idle")
    pid = kernel_pid(daemon)
    host.folder.rename(host.folder.with_name("away"))
    assert await host.ended(15) == 0
    assert not is_running(pid)


@in_loop
async def test_a_restart_gives_a_new_kernel_ends_what_runs_and_keeps_what_comes_after(host: HostProcess) -> None:
    daemon = await Daemon().attach(host)
    before = (await daemon.run("x = 1"))[0]
    assert before.execution_count == 1
    first_pid = kernel_pid(daemon)
    code = """
import time
print("on", flush=True)
while True:
    try:
        time.sleep(1000)
    except KeyboardInterrupt:
        print("ignored", flush=True)
"""
    running = await daemon.start(code)
    await daemon.until(lambda: daemon.text(running))
    restarting = daemon.request(HostRestart())
    joining = daemon.request(HostRestart())
    meanwhile = await daemon.start("print('new kernel'); x")
    assert await gather(restarting, joining) == [Done(), Done()]
    assert kernel_pid(daemon) != first_pid
    assert shapes(daemon.of(running))[-2:] == [
        ("failed", "KernelDied", "The kernel was restarted"),
        ("finished", "died", "The kernel was restarted"),
    ]
    assert (await daemon.finished(meanwhile)).message == "NameError: name 'x' is not defined"
    assert daemon.text(meanwhile) == "new kernel\n"
    assert daemon.of(meanwhile)[0].execution_count == 1
    states = daemon.states
    assert states[states.index(("restarting", 0)) :][:4] == [
        ("restarting", 0),
        ("starting", 1),
        ("idle", 1),
        ("busy", 1),
    ]


# --- kernels that do not start ----------------------------------------------------------------------------------------


async def death_of(host: HostProcess) -> KernelState:
    daemon = await Daemon().attach(host)
    return await daemon.state("dead")


@in_loop
async def test_an_unknown_kernelspec_names_the_known_ones(start_host: Callable[..., HostProcess]) -> None:
    host = start_host(env_source="kernelspec:no-such-kernel")
    dead = await death_of(host)
    assert "'no-such-kernel'" in (dead.reason or "")
    assert "python3" in (dead.reason or "")
    assert not dead.expected
    assert await host.ended() == 0


@in_loop
async def test_a_missing_interpreter_is_named(start_host: Callable[..., HostProcess]) -> None:
    dead = await death_of(start_host(env_source="python:/no/such/python"))
    assert (dead.reason or "").startswith("There is no Python interpreter at /no/such/python")


@in_loop
async def test_an_interpreter_without_ipykernel_says_how_to_install_it(
    start_host: Callable[..., HostProcess], root: Path
) -> None:
    venv.create(root / "empty", with_pip=False, symlinks=True)
    interpreter = str(root / "empty" / "bin" / "python")
    host = start_host(env_source=f"python:{interpreter}")
    daemon = await Daemon(acknowledges=False).attach(host)
    execution_id = await daemon.start("1")
    dead = await daemon.state("dead")
    assert dead.reason == f"{interpreter} has no ipykernel; install it with `{interpreter} -m pip install ipykernel`"
    assert (dead.exit_code, "ModuleNotFoundError" in dead.stderr) == (1, True)
    assert (await daemon.finished(execution_id)).status == "died"
    daemon.acknowledge(daemon.numbers[-1])
    assert await host.ended() == 0


@in_loop
async def test_an_interpreter_that_breaks_shows_its_last_words(
    start_host: Callable[..., HostProcess], root: Path
) -> None:
    broken = root / "python"
    broken.write_text("#!/bin/sh\necho 'the flux is low' >&2\nexit 7\n")
    broken.chmod(0o755)
    dead = await death_of(start_host(interpreter=str(broken)))
    assert (dead.reason, dead.exit_code, dead.stderr) == (
        "The kernel ended while it started (exit code 7)",
        7,
        "the flux is low",
    )


@in_loop
async def test_a_restart_that_fails_says_so(start_host: Callable[..., HostProcess], root: Path) -> None:
    wrapper = root / "python"
    wrapper.write_text(f'#!/bin/sh\n[ -e {root}/broken ] && exit 9\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    host = start_host(interpreter=str(wrapper))
    daemon = await Daemon().attach(host)
    await daemon.state("idle")
    (root / "broken").touch()
    with pytest.raises(KernelStartFailed, match="exit code 9"):
        await daemon.ask(HostRestart())
    assert (await daemon.state("dead", 1)).exit_code == 9
    assert await host.ended() == 0


@in_loop
async def test_a_restart_may_take_another_environment_or_leave_the_kernel_as_it_is(
    host: HostProcess, root: Path
) -> None:
    daemon = await Daemon().attach(host)
    await daemon.run("x = 1")
    marker = root / "marker"
    request = HostRestart(
        marker=str(marker),
        interpreter=sys.executable,
        env_source="uv:inline",
        environment={**host.bootstrap.environment, "WHERE": "elsewhere"},
    )
    with pytest.raises(KernelStartFailed, match=f"The environment of {marker} was deleted"):
        await daemon.ask(request)
    assert daemon.states[-1][0] == "idle"
    assert daemon.text((await daemon.run("print(x)"))[0].execution_id) == "1\n"

    marker.touch()
    assert await daemon.ask(request) == Done()
    execution_id = await daemon.start("import os, sys; print(os.environ['WHERE'], os.listdir(sys.path[-1]))")
    await daemon.until(lambda: daemon.of(execution_id, Finished))
    assert daemon.text(execution_id) == "elsewhere []\n"
    assert await daemon.ask(HostRequest()) == HostRequestReply(request=b"", marker=str(marker))
    with marker.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("frame", [b"", b"\0\0", b"\0\0\0\1\xc0", b"\xff\xff\xff\xff"], ids=repr)
def test_what_is_no_bootstrap_frame_is_refused(frame: bytes) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, frame)
    os.close(theirs)
    with os.fdopen(ours), pytest.raises(ProtocolError):
        read_bootstrap(ours, Bootstrap)


def test_a_host_without_a_bootstrap_frame_says_why(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "runtimed.host"],
        input=b"\0\0\0\1\xc0",
        capture_output=True,
        timeout=60,
        env={**os.environ},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(b"The host cannot start: ")
