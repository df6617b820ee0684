"""Starts a stock IPython kernel that never loses output, and never sends much of it in one message.

Run by file path, in whatever interpreter the kernel is to have: Python 3.9 or newer, ipykernel 6 or 7. Needs the
standard library and ipykernel only. Differences from `python -m ipykernel_launcher`:

* A long text is sent in pieces. Stock, `print("y" * 100_000_000)` is one message of 100 MB.
* The iopub socket waits when the reader is slow. Stock, it drops what is beyond 1000 messages, `idle` included.
* Lone surrogates pass. Stock, text that holds one is lost, with all that stood next to it in the buffer.
* What runtimed adds to the running kernel is found last: a folder next to the connection file.
* `flush()` does not wait when there is nothing to flush: an empty cell takes 0.75 of the time (measured). When it
  returns, the text has left. Stock, it may still be on its way through the kernel, and die with that.
* It dies with the host that started it (Linux), even where nobody is left to kill it.
* There is no debugger. Its messages would reach no session, and debugpy is a quarter of the stock start (measured).
* Tab goes on working when a kernel was killed at a Tab. Stock, no kernel of the machine completes anything after it.
* A crash by a signal leaves a Python traceback on the real standard error, where the host finds it. (What goes to file
  descriptor 2 is captured by a thread of the kernel, which a crash takes along.)

With `--spare` as its only argument it first imports all that a kernel needs, and then waits to be told for whom it is.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import json
import os
import signal
import sys
import threading
import time
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import ctypes
except ImportError:  # a Python that was built without
    ctypes = None  # type: ignore[assignment]

# This file's own folder must not shadow the user's modules. As for `python -m ipykernel_launcher`, the working folder
# is left out while ipykernel is imported; InteractiveShellApp.init_path() adds it as '' later.
if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]

# ipykernel has no debugger where debugpy is missing; cells can import it.
try:
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # an import of it fails
    import ipykernel.debugger
finally:
    del sys.modules["debugpy"]

import zmq
from ipykernel import iostream
from ipykernel.kernelapp import IPKernelApp
from traitlets.config import Config

__all__ = ["MAX_PIECE", "SEND_HIGH_WATER", "LauncherApp", "OutStream", "main"]

MAX_PIECE = 2**18
"""Most characters in one stream message: at most 1 MiB in UTF-8."""

SEND_HIGH_WATER = 64
"""Messages that wait for the reader before the kernel does."""


_WARM = (
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "IPython.utils.wildcard",
    "sqlite3",
    "tornado.platform.asyncio",
    "tornado.queues",
)
"""What a kernel imports between its start and its first result; not every version has each of them."""


class OutStream(iostream.OutStream):  # type: ignore[misc,unused-ignore]
    """The kernel's stdout or stderr, which hands over its text piece by piece."""

    _unflushed = 0
    _under_way = 0

    def write(self, string: Any) -> Any:
        """Write a text; wait for the reader after each MAX_PIECE characters."""
        if not isinstance(string, str):
            return super().write(string)  # which refuses it
        self._unflushed += len(string)
        if self._unflushed <= MAX_PIECE:
            return super().write(string)
        for start in range(0, len(string), MAX_PIECE):
            super().write(string[start : start + MAX_PIECE])
            self.flush()
        return len(string)

    def flush(self) -> None:
        """Send the buffer, and wait until the socket has taken it.

        Stock, the waiting ends after ten seconds and the buffer grows; here a slow reader slows down the writer. Stock,
        it also waits when there is nothing to send, several times per cell, and may end just before the socket gets the
        text: what then crashes, or holds the GIL, takes along what it had printed.
        """
        self._unflushed = 0
        pub_thread = self.pub_thread
        thread = getattr(pub_thread, "thread", None)
        if thread is None or not thread.is_alive() or thread is threading.current_thread():
            super().flush()  # type: ignore[no-untyped-call,unused-ignore]
            return
        # The buffers first: an emptied buffer was announced before.
        if not getattr(self, "_buffers", True) and not self._under_way and len(pub_thread._events) < SEND_HIGH_WATER:
            return
        passed = threading.Event()

        def flush_and_tell() -> None:
            self._flush(passed.set)

        pub_thread.schedule(flush_and_tell)
        _wait_for(pub_thread, passed)

    def _flush(self, when_sent: Callable[[], None] | None = None) -> None:
        """Hand over the buffer; the thread sends it after everything handed over earlier.

        Args:
            when_sent: Called once everything written so far has been sent.
        """
        pub_thread = self.pub_thread
        handed_over: Any = getattr(pub_thread, "_events", ())
        waiting = len(handed_over)
        self._under_way += 1  # before the buffers are empty, which is what flush() looks at first
        try:
            super()._flush()  # type: ignore[no-untyped-call,unused-ignore]
        finally:
            if len(handed_over) > waiting:
                # The hand-over wakes the thread, which then takes these, too. With a wake-up for each, the thread
                # would block at 1000 pending ones.
                handed_over.append(self._has_left)
                if when_sent is not None:
                    handed_over.append(when_sent)
            else:
                self._has_left()
                if when_sent is not None:
                    pub_thread.schedule(when_sent)

    def _has_left(self) -> None:
        self._under_way -= 1


def _wait_for(pub_thread: Any, passed: threading.Event) -> None:
    """Wait for what the thread was asked to set, or for its end."""
    while not passed.wait(1.0):
        if not pub_thread.thread.is_alive():
            return


class LauncherApp(IPKernelApp):  # type: ignore[misc,unused-ignore]
    """IPKernelApp with an iopub socket that waits instead of dropping, and a session that takes any text."""

    def parse_command_line(self, argv: Any = None) -> None:
        """Take `-f FILE` as it is: the parser for all that IPython could be told is a fifth of its start (measured)."""
        given = sys.argv[1:] if argv is None else list(argv)
        if len(given) != 2 or given[0] != "-f":
            super().parse_command_line(argv)  # type: ignore[no-untyped-call,unused-ignore]
            return
        self.argv = given
        self.cli_config = Config({"IPKernelApp": {"connection_file": given[1]}})
        self.update_config(self.cli_config)

    def init_iopub(self, context: Any) -> None:
        """Prepare the socket through the context: its options hold for connections that are made later."""
        self.session.pack = _pack_any_text(self.session.pack)
        super().init_iopub(_NeverDropping(context))  # type: ignore[no-untyped-call,unused-ignore]

    def init_kernel(self) -> None:
        """Keep prompts behind the output before them: they use different sockets."""
        super().init_kernel()  # type: ignore[no-untyped-call,unused-ignore]
        request_input = self.kernel._input_request

        def request_input_in_order(*args: Any, **kwargs: Any) -> Any:
            passed = threading.Event()
            self.iopub_thread.schedule(passed.set)
            _wait_for(self.iopub_thread, passed)
            return request_input(*args, **kwargs)

        self.kernel._input_request = request_input_in_order
        if getattr(self.kernel, "shell", None) is not None:
            _beside("values").install(self.kernel)
            _beside("parsed").install(self.kernel)
            _beside("leaving").install(self.kernel)

    def init_path(self) -> None:
        """Find what is added later behind everything else. Python looks into a folder again when it has changed."""
        super().init_path()  # type: ignore[no-untyped-call,unused-ignore]
        added = Path(self.abs_connection_file).parent / "packages"
        if added.is_dir():
            sys.path.append(str(added))


def _beside(name: str) -> Any:
    """Load a module beside this file: it belongs to no package, and must be in no user's way."""
    spec = importlib.util.spec_from_file_location(f"runtimed_{name}", Path(__file__).with_name(f"{name}.py"))
    if spec is None or spec.loader is None:
        raise ImportError("The launcher of runtimed is not complete")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _NeverDropping:
    """A ZMQ context whose publishing sockets wait for their readers."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def socket(self, socket_type: int) -> Any:
        """Make a socket."""
        made = self._context.socket(socket_type)
        made.setsockopt(zmq.SNDHWM, SEND_HIGH_WATER)
        made.setsockopt(zmq.XPUB_NODROP, 1)
        return made


def _pack_any_text(pack: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def pack_any_text(value: Any) -> bytes:
        try:
            return pack(value)
        except UnicodeEncodeError:
            return json.dumps(value, ensure_ascii=True, default=str).encode("ascii")

    return pack_any_text


def _die_with_host() -> None:
    """Let the system kill this process when its parent dies: the host's guard does that, too, but may die first.

    ipykernel's own poller needs the GIL, and an init with the number 1.
    """
    host = os.environ.get("JPY_PARENT_PID")
    # The leader of the group is the process that the host itself has started; else that is a wrapper.
    if host is None or os.getpgrp() != os.getpid() or not sys.platform.startswith("linux") or ctypes is None:
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if str(os.getppid()) != host:  # it died before
        os._exit(1)


def _wait_for_owner() -> None:
    """Import what a kernel needs, say so on descriptor 0, a socket, and read from it for whom this kernel is.

    Nothing that a user could see has begun by then: profiles, startup files and history are read after it, with the
    variables and in the folder of the client.
    """
    before = set(os.environb)
    for name in _WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for _ in tokenize.generate_tokens(iter(("0",)).__next__):
        pass  # the first time, Python compiles the expression that finds tokens: 3 ms of the first cell
    set_by_imports = {name: value for name, value in os.environb.items() if name not in before}
    os.write(0, b"w")
    with open(0, "rb", closefd=False) as stream:
        message = stream.read()
    if not message:
        sys.exit("The host of this spare kernel is gone")
    owner = json.loads(message)
    # Bytes, since a locale may read them as other characters than the host.
    environment = {_bytes(name): _bytes(value) for name, value in owner["environment"].items()}
    os.environb.clear()
    os.environb.update({**set_by_imports, **environment})
    time.tzset()
    os.chdir(_bytes(owner["cwd"]))
    if owner["umask"] is not None:
        os.umask(owner["umask"])
    sys.argv[1:] = owner["arguments"]
    os.write(0, b"t")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def main() -> None:
    """Start the kernel; its arguments are those of ipykernel, or `--spare`."""
    _die_with_host()
    # A descriptor of its own: ipykernel replaces number 2 by a pipe to itself.
    faulthandler.enable(file=os.dup(2), all_threads=False)
    if sys.argv[1:] == ["--spare"]:
        _wait_for_owner()
    sys.argv[0] = str(Path(ipykernel.__file__).parent.parent / "ipykernel_launcher.py")
    OutStream.__module__ = iostream.__name__
    iostream.OutStream = OutStream  # type: ignore[misc,unused-ignore]
    LauncherApp.launch_instance()


if __name__ == "__main__":
    main()
