"""A kernel's process: its command, start and end. Nothing here knows Jupyter's messages."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final, Literal

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

from runtimed.errors import KernelStartFailed
from runtimed.host.bootstrap import Bootstrap
from runtimed.host.guard import Guard
from runtimed.host.inherited import give
from runtimed.host.memory import DataLimit, Fence
from runtimed.protocol.inherited import Inherited
from runtimed.texts import printable, signal_name, without_colours

__all__ = [
    "Ended",
    "KernelCommand",
    "KernelProcess",
    "check_interpreter",
    "existing_folder",
    "find_command",
    "find_deno",
    "missing_ipykernel",
]

logger = logging.getLogger(__name__)

_LAUNCHER: Final = Path(__file__).parent.parent / "kernel_launcher" / "launch.py"
_STDERR_BYTES: Final = 16 * 2**10
_STDERR_LINES: Final = 20
_STDERR_CHARACTERS: Final = 4096
_CRASH: Final = "Fatal Python error"
_PYTHON_NAME: Final = re.compile(r"python(3(\.\d+)?)?")
_TEMPLATE: Final = re.compile(r"\{([A-Za-z0-9_]+)\}")


# --- what to run ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCommand:
    """How to start a kernel.

    Attributes:
        name: Its name in connection files and messages.
        argv: The command; may contain `{connection_file}`.
        environment: All its variables; left out of the repr.
        cwd: Its working directory; the home folder if that is gone.
        interrupt_mode: How it is interrupted.
        transport: How it can listen.
        waits: Whether it waits while its output is not read (our launcher), instead of dropping output.
        inherited: What it gets from its client; None for what this host has.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: str
    interrupt_mode: Literal["signal", "message"] = "signal"
    transport: Literal["ipc", "tcp"] = "ipc"
    waits: bool = False
    inherited: Inherited | None = None

    @property
    def is_launched(self) -> bool:
        """Whether our launcher starts it, so that it knows our requests."""
        return str(_LAUNCHER) in self.argv

    def __repr__(self) -> str:
        return f"<KernelCommand {self.name} {self.argv}>"


def find_command(bootstrap: Bootstrap) -> KernelCommand:
    """Find the command of the kernel that was asked for, with what it gets from its client.

    Raises:
        KernelStartFailed: If the kernelspec or interpreter does not exist; the sentence names those that do.
    """
    return dataclasses.replace(_find_command(bootstrap), inherited=bootstrap.inherited)


def _find_command(bootstrap: Bootstrap) -> KernelCommand:
    environment = dict(bootstrap.environment)
    # With it, or in an environment that was never byte-compiled, a kernel starts in 2 s instead of 0.8 (measured).
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["JPY_PARENT_PID"] = str(os.getpid())
    cwd = bootstrap.cwd
    if bootstrap.env_source == "deno":
        return _deno_command(bootstrap, environment, cwd)
    scheme, _, rest = bootstrap.env_source.partition(":")
    if scheme == "kernelspec":
        return _kernelspec_command(rest, bootstrap, environment, cwd)
    interpreter = rest if scheme == "python" else bootstrap.interpreter
    if scheme not in {"current", "python", "uv", "conda"} or not interpreter:
        raise KernelStartFailed(f"A kernel cannot be started from the environment {bootstrap.env_source!r}")
    check_interpreter(interpreter)
    environment.pop("PYTHONEXECUTABLE", None)
    return KernelCommand(
        name="python3",
        # As in ipykernel's own kernelspec: otherwise debugpy writes a warning, which becomes output.
        argv=(interpreter, "-Xfrozen_modules=off", str(_LAUNCHER), "-f", "{connection_file}"),
        environment=environment,
        cwd=cwd,
        waits=True,
    )


def check_interpreter(interpreter: str) -> None:
    """Check that the interpreter exists.

    Raises:
        KernelStartFailed: If it does not, or no longer.
    """
    if not (Path(interpreter).is_file() and os.access(interpreter, os.X_OK)):
        raise KernelStartFailed(
            f"There is no Python interpreter at {interpreter}; name another one with `python:/path`, or, if the "
            "environment was deleted, shut the kernel down and start it again"
        )


def missing_ipykernel(command: KernelCommand, stderr: str) -> str | None:
    """Return a sentence that says how to install ipykernel, if the kernel lacked it; else None."""
    if re.search(r"No module named '?ipykernel", stderr) is None:
        return None
    interpreter = command.argv[0]
    return f"{interpreter} has no ipykernel; install it with `{interpreter} -m pip install ipykernel`"


def existing_folder(*candidates: str) -> str:
    """Return the first of these folders that can be entered, else the root."""
    for folder in candidates:
        if folder and Path(folder).is_dir() and os.access(folder, os.X_OK):
            return folder
    return "/"


def find_deno(search_path: str, interpreter: str) -> str | None:
    """Return the path of deno: on this PATH, else beside this Python interpreter or ours, where its package puts it."""
    beside = (str(Path(python).parent) for python in (interpreter, sys.executable) if python)
    return shutil.which("deno", path=os.pathsep.join(filter(None, (*search_path.split(os.pathsep), *beside))))


def _deno_command(bootstrap: Bootstrap, environment: dict[str, str], cwd: str) -> KernelCommand:
    deno = find_deno(environment.get("PATH", ""), bootstrap.interpreter)
    if deno is None:
        raise KernelStartFailed(
            "There is no deno here; install it with `pip install 'ipython-runtimed[deno]'`, or put it on the PATH"
        )
    # Otherwise it reports new versions of itself, and asks the network for them.
    environment.setdefault("DENO_NO_UPDATE_CHECK", "1")
    return KernelCommand(
        name="deno",
        argv=(deno, "jupyter", "--kernel", "--conn", "{connection_file}"),
        environment=environment,
        cwd=cwd,
        interrupt_mode="message",  # a signal ends it
        transport="tcp",  # deno 2.9 has no other
    )


def _kernelspec_command(name: str, bootstrap: Bootstrap, environment: dict[str, str], cwd: str) -> KernelCommand:
    client_prefix = str(Path(bootstrap.interpreter).parent.parent) if bootstrap.interpreter else sys.prefix
    with _jupyter_variables(environment):
        manager = KernelSpecManager()
        folders = list(manager.kernel_dirs)
    own = f"{sys.prefix}/share/jupyter/kernels"
    folders.insert(folders.index(own) if own in folders else len(folders), f"{client_prefix}/share/jupyter/kernels")
    manager.kernel_dirs = folders
    try:
        spec: KernelSpec = manager.get_kernel_spec(name)
    except NoSuchKernel:
        known = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise KernelStartFailed(f"There is no kernelspec named {name!r}; those that can be found: {known}") from None
    except (OSError, ValueError, TypeError) as exc:
        raise KernelStartFailed(f"The kernelspec {name!r} cannot be read: {exc}") from exc
    provisioner = spec.metadata.get("kernel_provisioner", {}).get("provisioner_name", "local-provisioner")
    if provisioner != "local-provisioner":
        raise KernelStartFailed(f"The kernelspec {name!r} needs the provisioner {provisioner!r}, which runs elsewhere")
    if not spec.argv:
        raise KernelStartFailed(f"The kernelspec {name!r} has no command")
    values = {"prefix": client_prefix, "resource_dir": spec.resource_dir}
    argv = [_TEMPLATE.sub(lambda match: values.get(match[1], match[0]), part) for part in spec.argv]
    if _PYTHON_NAME.fullmatch(argv[0]):
        # An environment's own kernelspec says "python" and means the environment's.
        of_daemon = spec.resource_dir.startswith(f"{sys.prefix}/") and not spec.resource_dir.startswith(client_prefix)
        argv[0] = sys.executable if of_daemon or not bootstrap.interpreter else bootstrap.interpreter
    if argv[1:3] == ["-m", "ipykernel_launcher"] or argv[1:4] == ["-Xfrozen_modules=off", "-m", "ipykernel_launcher"]:
        # A stock ipykernel drops output when its 1,000 messages of buffer are full; our launcher makes it wait.
        del argv[1 : argv.index("ipykernel_launcher") + 1]
        argv.insert(1, str(_LAUNCHER))
    environment |= {key: Template(str(value)).safe_substitute(environment) for key, value in spec.env.items()}
    if spec.language.lower().startswith("python"):
        environment.pop("PYTHONEXECUTABLE", None)
    return KernelCommand(
        name=name,
        argv=tuple(os.path.expanduser(part) for part in argv),  # noqa: PTH111  # parts of a command, not paths
        environment=environment,
        cwd=cwd,
        interrupt_mode=spec.interrupt_mode,
        transport="tcp" if Path(argv[0]).name == "deno" else "ipc",
    )


@contextlib.contextmanager
def _jupyter_variables(environment: Mapping[str, str]) -> Iterator[None]:
    """Let jupyter_core search where the client would; it reads the process's own environment."""

    def is_relevant(name: str) -> bool:
        return name.startswith("JUPYTER") or name in {"HOME", "IPYTHONDIR", "XDG_DATA_HOME"}

    before = {name: value for name, value in os.environ.items() if is_relevant(name)}
    theirs = {name: value for name, value in environment.items() if is_relevant(name)}
    try:
        for name in before:
            del os.environ[name]
        os.environ.update(theirs)
        yield
    finally:
        for name in theirs:
            os.environ.pop(name, None)
        os.environ.update(before)


# --- the process ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended.

    Attributes:
        stderr: Its last lines on standard error.
        over_limit: Whether it was killed because it exceeded its memory limit.
    """

    exit_code: int | None
    signal: int | None
    stderr: str
    over_limit: bool = False

    @property
    def sentence(self) -> str:
        """The exit code or the signal in words."""
        if self.signal is None:
            return f"exit code {self.exit_code}"
        perhaps = ", perhaps because memory ran out" if self.signal == signal.SIGKILL else ""
        return f"killed by {signal_name(self.signal)}{perhaps}"


class KernelProcess:
    """A kernel's process, from its start to its end.

    Args:
        command: How to start it.
        connection_file: Where it listens.
        guard: Kills it when this host is gone.
        fence: Limits its memory; ends with it.
        stdin: Its standard input.

    Attributes:
        ended: Has its result once the process has ended and its process group was killed.

    Raises:
        OSError: If the operating system refuses to start it.
        ValueError: If an argument or a variable contains a zero byte.
    """

    def __init__(
        self,
        command: KernelCommand,
        connection_file: Path,
        guard: Guard,
        fence: Fence,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = self._loop.create_future()
        self._guard = guard
        self._fence = fence
        self._over_limit = False
        self._tail = bytearray()
        self._fenced = isinstance(fence, DataLimit)
        arguments = [part.replace("{connection_file}", str(connection_file)) for part in command.argv]
        guard.watch(None, fence.folder)
        try:
            self._process, self._read_end = _spawn([*fence.prefix, *arguments], command, stdin)
        except BaseException:
            fence.end()
            fence.close()
            guard.watch(None, None)
            raise
        guard.watch(self._process.pid, fence.folder)
        self.inherit(command.inherited)
        if fence.alarm is not None:
            self._loop.add_reader(fence.alarm, fence.heed_alarm)
        os.set_blocking(self._read_end, False)
        self._loop.add_reader(self._read_end, self._read_stderr)
        threading.Thread(target=self._wait, name="kernel-wait", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id, and its process group's."""
        return self._process.pid

    def inherit(self, inherited: Inherited | None) -> None:
        """Give it the limits and the priority of its client; not the umask."""
        if inherited is not None:
            give(self._process.pid, inherited, fenced=self._fenced)

    def send_signal(self, number: int) -> None:
        """Send a signal to the whole process group; harmless after its end."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    # --- its end ---

    def _wait(self) -> None:
        if hasattr(os, "waitid"):
            # The process stays a zombie until `_finish`: no other process gets its number before its group is killed.
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._process.wait()
        self._over_limit = self._fence.end()
        with contextlib.suppress(RuntimeError):  # the loop may be closed
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        self.send_signal(signal.SIGKILL)  # its children must not outlive it
        if self._fence.alarm is not None:
            self._loop.remove_reader(self._fence.alarm)
        self._fence.close()
        self._guard.watch(None, None)
        code = self._process.wait()
        self._loop.remove_reader(self._read_end)
        self._read_stderr()
        os.close(self._read_end)
        self.ended.set_result(
            Ended(
                exit_code=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                stderr=_last_words(self._tail.decode("utf-8", "replace")),
                over_limit=self._over_limit and code == -signal.SIGKILL,
            )
        )

    def _read_stderr(self) -> None:
        try:
            # A bounded number of reads: output may arrive faster than it is read.
            for _ in range(16):
                data = os.read(self._read_end, 65536)
                if not data:
                    self._loop.remove_reader(self._read_end)
                    return
                self._tail += data
                del self._tail[:-_STDERR_BYTES]
        except BlockingIOError:
            pass


def _spawn(arguments: list[str], command: KernelCommand, stdin: int) -> tuple[subprocess.Popen[Any], int]:
    """Start a process; return it, and the file descriptor of its standard error."""
    read_end, write_end = os.pipe()
    try:
        process: subprocess.Popen[Any] = subprocess.Popen(
            arguments,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=write_end,
            env=dict(command.environment),
            cwd=existing_folder(command.cwd, command.environment.get("HOME", "")),
            start_new_session=True,
            umask=-1 if command.inherited is None else command.inherited.umask,
        )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return process, read_end


def _last_words(text: str) -> str:
    """Return the last lines, printable; after a crash the first ones, since its traceback begins with the cause."""
    start = text.rfind(_CRASH)
    lines = text[start:].splitlines()[:_STDERR_LINES] if start >= 0 else text.splitlines()[-_STDERR_LINES:]
    words = printable(without_colours("\n".join(lines)), "\n\t").strip()
    return words[:_STDERR_CHARACTERS] if start >= 0 else words[-_STDERR_CHARACTERS:]
