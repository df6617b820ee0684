"""Runs a source in an IPython kernel as `python FILE.py ARG…` would, in the names of the session.

Its text is executed in the kernel, in a namespace of its own where `PROGRAM` says what to run: Python 3.9 or newer,
IPython and ipykernel, nothing else. What differs from a process of its own:

* The names stay in the session afterwards, and those that were there are seen.
* Standard input and output are those of the cell: neither is a terminal, and bytes that are no text are shown escaped.
* At its end, functions that the file itself gave to `atexit` are called, and threads that it started are waited for.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import builtins
import codecs
import contextlib
import io
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

__all__ = ["run"]

_STDIN = "<stdin>"


class _Failure(Exception):
    """What the cell ends with: the error of the program, shown as Python shows it.

    IPython would explain a SystemExit, and show a SyntaxError in its own way.
    """

    shown: list[str]

    def _render_traceback_(self) -> list[str]:
        return self.shown


class _Output(io.RawIOBase):
    """The cell's standard output or error, for bytes."""

    def __init__(self, stream: Any, name: str) -> None:
        self.name = name
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        data = bytes(data)
        self._stream.write(self._decoder.decode(data))
        return len(data)

    def flush(self) -> None:
        if not self.closed:
            self._stream.flush()

    def fileno(self) -> int:
        return int(self._stream.fileno())


class _Input(io.RawIOBase):
    """The standard input of the client that runs the program: its bytes come as the text of answers, one each."""

    name = _STDIN

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest and not self._ended:
            try:
                self._rest = self._kernel.raw_input("").encode("latin-1")
            except (EOFError, NotImplementedError):  # nobody there who could answer: as with /dev/null
                self._ended = True
            except KeyboardInterrupt:
                raise KeyboardInterrupt from None  # without the frames of ipykernel
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def _input(prompt: object = "", /) -> str:
    """Read a line, as `input` does where standard input is no terminal."""
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError("EOF when reading a line")
    return line[:-1] if line.endswith("\n") else line


@contextlib.contextmanager
def _streams(kernel: Any) -> Any:
    before = sys.stdin, sys.stdout, sys.stderr, builtins.input
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Input(kernel)), "utf-8")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(_Output(stream, name), "utf-8", errors, write_through=True)
        for stream, name, errors in (
            (before[1], "<stdout>", "strict"),
            (before[2], "<stderr>", "backslashreplace"),
        )
    )
    builtins.input = _input
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the program has closed it
            sys.stdout.flush()
        sys.stdin, sys.stdout, sys.stderr, builtins.input = before


@contextlib.contextmanager
def _no_running_loop() -> Any:
    """Let the program call `asyncio.run`: the kernel's own loop is out of sight meanwhile."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        yield
        return
    task = asyncio.current_task(loop)
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
        asyncio.set_event_loop(loop)  # `asyncio.run` leaves none
        if task is not None:
            asyncio.tasks._enter_task(loop, task)


@contextlib.contextmanager
def _as_main(names: dict[str, Any], program: dict[str, Any]) -> Any:
    """Set what a program sees of how it was called."""
    path = program["path"]
    folder = "" if path is None else str(Path(path).parent)
    special: dict[str, Any] = {"__file__": path or _STDIN, "__doc__": None, "__annotations__": {}, "__spec__": None}
    missing = object()
    before = {name: names.get(name, missing) for name in special}
    argv, cwd = sys.argv, str(Path.cwd())
    names.update(special)
    names.pop("__warningregistry__", None)
    sys.argv = list(program["argv"])
    first = sys.path[:1] == [""]
    sys.path[:1] = [folder] if first else [folder, *sys.path[:1]]
    if program["cwd"] != cwd:
        os.chdir(program["cwd"])
    try:
        yield
    finally:
        sys.argv = argv
        if folder in sys.path:
            sys.path.remove(folder)
        if first:
            sys.path.insert(0, "")
        for name, value in before.items():
            names.pop(name, None)
            if value is not missing:
                names[name] = value
        with contextlib.suppress(OSError):
            os.chdir(cwd)


@contextlib.contextmanager
def _ends_like_a_process(names: dict[str, Any]) -> Any:
    """Give the block a list; what the file gives to `atexit` is in it, threads that it starts are waited for."""
    register, unregister = atexit.register, atexit.unregister
    threads = set(threading.enumerate())
    at_exit: list[Any] = []

    def note(function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if sys._getframe(1).f_globals is not names:
            return register(function, *args, **kwargs)  # a module, which lives as long as the kernel
        at_exit.append((function, args, kwargs))
        return function

    def forget(function: Any, /) -> None:
        at_exit[:] = [entry for entry in at_exit if entry[0] != function]
        unregister(function)

    atexit.register, atexit.unregister = note, forget
    try:
        yield
    finally:
        try:
            for thread in threading.enumerate():
                if thread not in threads and not thread.daemon:
                    thread.join()
            while at_exit:
                function, args, kwargs = at_exit.pop()
                try:
                    function(*args, **kwargs)
                except Exception as exc:  # noqa: BLE001  # as Python does: it is shown, and the next one called
                    sys.stderr.write(f"Exception ignored in atexit callback: {function!r}\n")
                    sys.stderr.write("".join(f"{line}\n" for line in _shown(exc)))
        finally:
            atexit.register, atexit.unregister = register, unregister


def _shown(error: BaseException) -> list[str]:
    """Return the lines that Python would print: without the frames of this module."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == _HERE:
        frames = frames.tb_next
    if sys.excepthook is not _no_hook:
        sys.excepthook(type(error), error, frames)
        return []
    explained: traceback.TracebackException | None = traceback.TracebackException(type(error), error, frames)
    waiting = [explained]
    while waiting:
        one = waiting.pop()
        if one is not None:
            one.stack[:] = [frame for frame in one.stack if frame.filename != _HERE]
            waiting += [one.__cause__, one.__context__]
    return "".join(explained.format()).splitlines() if explained is not None else []


def _no_hook(*_error: object) -> None:
    """Stand for `sys.excepthook` until the program sets its own."""


_HERE = _no_hook.__code__.co_filename


def _failure(error: BaseException, text: str, shown: list[str]) -> _Failure:
    failure: _Failure = type(type(error).__name__, (_Failure,), {})(text)
    failure.shown = shown
    failure.__cause__ = error
    return failure


def _execute(source: str, filename: str, names: dict[str, Any]) -> _Failure | None:
    try:
        with _ends_like_a_process(names):
            code = compile(source, filename, "exec", dont_inherit=True)
            exec(code, names)  # noqa: S102  # that is its purpose
    except SystemExit as exc:
        if exc.code is None or exc.code == 0:
            return None
        if isinstance(exc.code, int):
            return _failure(exc, str(int(exc.code)), [])
        return _failure(exc, "1", str(exc.code).splitlines())
    except BaseException as exc:  # noqa: BLE001  # raised by the cell
        return _failure(exc, str(exc), _shown(exc))
    return None


def run(program: dict[str, Any]) -> None:
    """Run a program.

    Args:
        program: `source`, as Base64 of its UTF-8; `argv`; `path`, the file's absolute path, None for standard input;
            `cwd`, the folder where it works.

    Raises:
        Exception: Named as what the program ended with: SystemExit with the status if that is not 0.
    """
    shell = get_ipython()  # type: ignore[name-defined]  # noqa: F821  # one of the kernel's builtins
    source = base64.b64decode(program["source"]).decode()
    _name_in_history(shell, source)
    hook, sys.excepthook = sys.excepthook, _no_hook
    try:
        with _streams(shell.kernel), _as_main(shell.user_ns, program), _no_running_loop():
            failure = _execute(source, program["path"] or _STDIN, shell.user_ns)
    finally:
        sys.excepthook = hook
    if failure is not None:
        raise failure


def _name_in_history(shell: Any, source: str) -> None:
    """Let the history have the file, not the code that runs it."""
    manager = shell.history_manager
    for inputs in (manager.input_hist_parsed, manager.input_hist_raw):
        if inputs:
            inputs[-1] = source


run(PROGRAM)  # type: ignore[name-defined]  # noqa: F821  # set by whoever executes this text
