"""Runs a source in an IPython kernel as `python FILE.py ARG…` would, in the names of the session.

Its text is executed in the kernel, in a namespace of its own where `PROGRAM` says what to run: Python 3.9 or newer,
IPython and ipykernel, nothing else. What differs from a process of its own:

* The names stay in the session afterwards, and those that were there are seen.
* Standard input and output are those of the cell: neither is a terminal, and bytes that are no text are shown escaped.
* At its end, functions that the file itself gave to `atexit` are called, and threads that it started are waited for.
* A child that it forked ends where the file ends for it: the kernel behind that is its parent's.
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
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from IPython.core.autocall import ExitAutocall

try:
    from _sitebuiltins import Quitter
except ImportError:  # a Python that was built without
    Quitter = None  # type: ignore[assignment,misc]

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
        io.TextIOWrapper(_Output(stream, name), "utf-8", errors, line_buffering=by_line, write_through=True)
        for stream, name, errors, by_line in (
            (before[1], "<stdout>", "strict", False),
            (before[2], "<stderr>", "backslashreplace", True),  # as Python's: the last words of what kills itself
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
def _quitters(names: dict[str, Any]) -> Any:
    """Let `exit` and `quit` end the program, with its status: IPython's would ask the kernel to exit, and go on."""
    hidden = {name: names.pop(name) for name in ("exit", "quit") if isinstance(names.get(name), ExitAutocall)}
    if Quitter is not None:
        for name in ("exit", "quit"):
            setattr(builtins, name, Quitter(name, "Ctrl-D (i.e. EOF)"))
    try:
        yield
    finally:
        for name in ("exit", "quit"):
            vars(builtins).pop(name, None)  # where IPython has none either
        for name, value in hidden.items():
            names.setdefault(name, value)


@contextlib.contextmanager
def _ends_like_a_process(names: dict[str, Any]) -> Any:
    """Call what the file gives to `atexit` in the block, and wait for threads that it starts there."""
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
                except BaseException as exc:  # noqa: BLE001  # as Python does: it is shown, and the next one called
                    _show_ignored(exc, function)
        finally:
            atexit.register, atexit.unregister = register, unregister


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # the program has replaced or closed it
            stream.flush()


def _show_ignored(error: BaseException, function: Any) -> None:
    """Show an error that changes nothing of how the program ends."""
    what = "Exception ignored in atexit callback"
    if sys.unraisablehook is not sys.__unraisablehook__:
        found = {"exc_type": type(error), "exc_value": error, "exc_traceback": _frames(error)}
        hook: Any = sys.unraisablehook
        hook(SimpleNamespace(**found, err_msg=what, object=function))
        return
    head = f"{what} {function!r}:" if sys.version_info >= (3, 13) else f"{what}: {function!r}"
    sys.stderr.write("".join(f"{line}\n" for line in (head, *_formatted(error))))


def _shown(error: BaseException) -> list[str]:
    """Return the lines that Python would print; none if the program's own hook has shown it.

    Raises:
        SystemExit: If that hook ends the program.
    """
    hook: Any = getattr(sys, "excepthook", _no_hook)
    if hook is _no_hook:
        return _formatted(error)
    try:
        hook(type(error), error, _frames(error))
    except SystemExit:
        raise
    except BaseException as exc:  # noqa: BLE001  # shown as Python shows it
        exc.__context__ = None
        lines = _formatted(exc)
        return ["Error in sys.excepthook:", *lines, "", "Original exception was:", *_formatted(error)]
    return []


def _frames(error: BaseException) -> Any:
    """Return its traceback from the program's own frames on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == _HERE:
        frames = frames.tb_next
    return frames


def _formatted(error: BaseException) -> list[str]:
    """Return its traceback in lines, without the frames of this module."""
    frames = _frames(error)
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


def _failure(name: str, error: BaseException, text: str, shown: list[str]) -> _Failure:
    failure: _Failure = type(name, (_Failure,), {})(text)
    failure.shown = shown
    failure.__cause__ = error
    return failure


def _execute(source: str, filename: str, names: dict[str, Any]) -> _Failure | None:
    failure = None
    try:
        with _ends_like_a_process(names):
            try:
                code = compile(source, filename, "exec", dont_inherit=True)
                exec(code, names)  # noqa: S102  # that is its purpose
            except BaseException as exc:  # noqa: BLE001  # raised by the cell
                failure = _end(exc)
    except KeyboardInterrupt as exc:  # while it waits for threads
        failure = _end(exc)
    return failure


def _end(error: BaseException) -> _Failure | None:
    """Return what the cell is to end with; None for a status of 0."""
    if isinstance(error, SystemExit):
        return _exit(error)
    try:
        return _failure(type(error).__name__, error, str(error), _shown(error))
    except SystemExit as exc:  # of the program's hook
        return _exit(exc)


def _exit(error: SystemExit) -> _Failure | None:
    if error.code is None:
        return None
    if isinstance(error.code, int):
        status = error.code & 0xFF if abs(error.code) < 2**63 else 0xFF  # what C cannot hold is -1
        return _failure(SystemExit.__name__, error, str(status), []) if status else None
    try:
        text = str(error.code)
    except Exception:  # noqa: BLE001  # Python prints the end of the line alone
        text = ""
    lines = text.split("\n")
    if not any(lines):  # an error without a text is shown as one without a traceback
        sys.stderr.write(f"{text}\n")
        lines = []
    return _failure(SystemExit.__name__, error, "1", lines)


def _end_child(failure: _Failure | None) -> None:
    """End this process, which the program has forked: nothing but its parent may go on as the kernel."""
    status = 0
    if failure is not None:
        sys.stderr.write("".join(f"{line}\n" for line in failure.shown))
        status = int(str(failure)) if type(failure).__name__ == SystemExit.__name__ else 1
    _flush()
    if isinstance(failure and failure.__cause__, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status)


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
    names, process = shell.user_ns, os.getpid()
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook = _no_hook
    try:
        with _streams(shell.kernel), _as_main(names, program), _quitters(names), _no_running_loop():
            failure = _execute(source, program["path"] or _STDIN, names)
            if os.getpid() != process:
                _end_child(failure)
    finally:
        sys.excepthook, sys.unraisablehook = hooks
    if failure is not None:
        raise failure


def _name_in_history(shell: Any, source: str) -> None:
    """Let the history have the file, not the code that runs it."""
    manager = shell.history_manager
    for inputs in (manager.input_hist_parsed, manager.input_hist_raw):
        if inputs:
            inputs[-1] = source


run(PROGRAM)  # type: ignore[name-defined]  # noqa: F821  # set by whoever executes this text
