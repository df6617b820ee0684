"""The kernel that our launcher starts: stock to the eye, and it keeps its output together."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from runtimed.protocol.events import Display, InputRequested, Stream
from runtimed.protocol.host_operations import HostInput
from tests.host.standin import Daemon, HostProcess, client_environment, completion, in_loop, join, shapes

LOOK = """
import __main__, builtins, json, os, sys
print(json.dumps({
    "argv": sys.argv[:2],
    "path": sys.path,
    "main": [__main__.__name__, __main__ is sys.modules["__main__"], hasattr(__main__, "LauncherApp")],
    "names": sorted(name for name in dir(__main__) if not name.startswith("_i")),
    "stdout": [type(stream).__module__ + "." + type(stream).__qualname__ for stream in (sys.stdout, sys.stderr)],
    "modules": sorted(name for name in sys.modules if name.startswith(("runtimed", "launch"))),
    "cwd": os.getcwd(),
}))
"""


@in_loop
async def test_it_looks_like_a_stock_kernel(start_host: Callable[..., HostProcess]) -> None:
    looks = []
    for env_source in ("current", "kernelspec:python3"):
        daemon = await Daemon().attach(start_host(env_source=env_source))
        execution_id = (await daemon.run(LOOK))[0].execution_id
        looks.append(json.loads(daemon.text(execution_id)))
    assert looks[0] == looks[1]
    assert looks[0]["argv"][0].endswith("ipykernel_launcher.py")
    assert "" in looks[0]["path"]
    assert not any("kernel_launcher" in path for path in looks[0]["path"])


@in_loop
async def test_the_debugger_takes_no_time_of_the_start_and_cells_can_import_it(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    code = "import sys; before = 'debugpy' in sys.modules; import debugpy; print(before, debugpy.__name__)"
    execution_id = (await daemon.run(code))[0].execution_id
    assert daemon.text(execution_id) == "False debugpy\n"


@in_loop
async def test_modules_of_the_working_folder_are_found_and_shadow_nothing_at_the_start(
    start_host: Callable[..., HostProcess], root: Path
) -> None:
    (root / "launch.py").write_text("mine = 1")
    (root / "zmq.py").write_text("raise RuntimeError('shadowed')")
    daemon = await Daemon().attach(start_host(cwd=str(root)))
    execution_id = (await daemon.run("import launch; print(launch.mine)"))[0].execution_id
    assert daemon.text(execution_id) == "1\n"


@in_loop
async def test_streams_and_displays_keep_their_order(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    code = """
import sys
from IPython.display import display
for i in range(300):
    print("out", i)
    display({"text/plain": f"shown {i}"}, raw=True)
    if i % 7 == 0:
        print("err", i, file=sys.stderr, flush=True)
    if i % 50 == 0:
        import time
        time.sleep(0.21)  # the timer that flushes takes part
"""
    events = await daemon.run(code)
    seen: list[str] = []
    for event in events:
        if isinstance(event, Stream):
            seen += [line for line in event.text.splitlines() if line]
        elif isinstance(event, Display):
            seen.append(event.data["text/plain"])
    expected: list[str] = []
    for i in range(300):
        expected += [f"out {i}", f"shown {i}", *([f"err {i}"] if i % 7 == 0 else [])]
    assert seen == expected


@in_loop
async def test_a_prompt_does_not_overtake_what_was_shown_before(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    code = """
from IPython.display import display
for i in range(20):
    for j in range(20):
        display({"text/plain": f"{i} {j}"}, raw=True)
    input(str(i))
"""
    execution_id = await daemon.start(code, stdin=True)
    for i in range(20):
        await daemon.count(execution_id, InputRequested, i + 1)
        await daemon.ask(HostInput(execution_id=execution_id, text=""))
    await daemon.finished(execution_id)
    expected: list[object] = []
    for i in range(20):
        expected += [*(f"{i} {j}" for j in range(20)), f"prompt {i}"]
    seen = [
        event.data["text/plain"] if isinstance(event, Display) else f"prompt {event.prompt}"
        for event in daemon.of(execution_id)
        if isinstance(event, Display | InputRequested)
    ]
    assert seen == expected


@in_loop
async def test_what_was_flushed_comes_though_the_kernel_does_nothing_more(shared_host: HostProcess, root: Path) -> None:
    daemon = await join(shared_host)
    for i in range(1, 40, 2):
        os.mkfifo(root / f"gate {i}")
    code = f"""
import ctypes, os
for i in range(40):
    print(i, flush=i % 2)
    if i % 2:
        # Waits for a writer, with the GIL held: no thread of the kernel does anything.
        os.close(ctypes.PyDLL(None).open(b"{root}/gate %d" % i, os.O_RDONLY))
"""
    execution_id = await daemon.start(code)
    expected = ""
    for i in range(40):
        expected += f"{i}\n"
        if i % 2:
            await daemon.until(partial(lambda text: daemon.text(execution_id) == text, expected))
            os.close(await asyncio.to_thread(os.open, root / f"gate {i}", os.O_WRONLY))
    assert (await daemon.finished(execution_id)).status == "ok"
    assert daemon.text(execution_id) == expected


@in_loop
async def test_long_texts_come_in_pieces_and_whole(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    code = """
import sys
text = "".join(chr(0x20 + i % 0x1F000) for i in range(600_000)).replace("\\ud800", "")
text = "".join(character for character in text if not "\\ud800" <= character <= "\\udfff")
assert sys.stdout.write(text) == len(text)
sys.stderr.write("e" * 600_000)
for _ in range(30_000):
    sys.stdout.write("0123456789")
import hashlib
digest = hashlib.sha256(text.encode()).hexdigest()
"""
    execution_id = (await daemon.run(code))[0].execution_id
    digest = (await daemon.run("print(digest, len(text), end='')"))[0].execution_id
    expected, size = daemon.text(digest).split()

    text = daemon.text(execution_id)
    assert hashlib.sha256(text[: int(size)].encode()).hexdigest() == expected
    assert text[int(size) :] == "0123456789" * 30_000
    assert daemon.text(execution_id, "stderr") == "e" * 600_000


@in_loop
async def test_forked_children_and_subprocesses_write_too(shared_host: HostProcess) -> None:
    daemon = await join(shared_host)
    code = """
import os, subprocess, sys
print("parent", flush=True)
pid = os.fork()
if pid == 0:
    print("child", flush=True)
    os._exit(0)
os.waitpid(pid, 0)
subprocess.run([sys.executable, "-c", "print('subprocess')"])
"""
    execution_id = (await daemon.run(code))[0].execution_id
    await daemon.until(lambda: set(daemon.text(execution_id).split()) >= {"parent", "child", "subprocess"})
    assert shapes(daemon.of(execution_id))[-1][0] in {"finished", "stdout"}


COMPLETE = """
from IPython.core.completer import provisionalcompleter
with provisionalcompleter():
    list(get_ipython().Completer.completions("getat", 5))
"""


@in_loop
async def test_what_a_killed_kernel_half_stored_of_a_module_keeps_no_other_from_completing(
    start_host: Callable[..., HostProcess], root: Path
) -> None:
    environment = {**client_environment(), "XDG_CACHE_HOME": str(root / "cache"), "IPYTHONDIR": str(root / "ipython")}

    def stored() -> dict[Path, int]:
        return {path: path.stat().st_size for path in root.glob("cache/jedi/*/*.pkl")}

    async def offers_a_name() -> bool:
        daemon = await Daemon().attach(start_host(environment=environment))
        # Reads what is stored, or makes it: on a busy machine that takes longer than a request may take.
        assert (await daemon.run(COMPLETE))[-1].status == "ok"
        return "getattr" in (await daemon.ask(completion("getat"))).content["matches"]

    assert await offers_a_name()
    whole = stored()
    # The largest ones would take seconds to make again.
    halved = sorted(whole, key=lambda path: whole[path])[: len(whole) // 2]
    assert halved
    for path in halved:
        os.truncate(path, whole[path] // 2)
        os.link(path, path.with_suffix(".half"))
    assert await offers_a_name()
    assert stored() == whole
    # Nobody can see half of what is being written.
    assert all(path.with_suffix(".half").stat().st_size == whole[path] // 2 for path in halved)
