"""The process that makes one conda environment: a job on standard input, one line of JSON per step on standard output.

So a build can be killed at any instant, and memory and crashes of py-rattler's native code stay out of the daemon. It
ends with the process at the other end of its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

import rattler
from rattler.exceptions import (
    GatewayError,
    InstallerError,
    InvalidChannelError,
    InvalidMatchSpecError,
    IoError,
    LinkError,
    ParseCondaLockError,
    RequirementError,
    SolverError,
    TransactionError,
)

from runtimed.environments.conda_files import current_platform
from runtimed.environments.conda_progress import Reporter
from runtimed.environments.conda_words import (
    check_space,
    fail,
    hidden,
    listed,
    normal_name,
    one_line,
    requirement_name,
    spec_name,
)
from runtimed.errors import EnvironmentFailed

__all__ = ["main"]

_ALONE: Final = "--no-deps"
"""Among the lines of a requirements file: all that the others need is named, too."""
_KERNEL: Final = "ipykernel >=6.20"
_LONGEST: Final = 8192
"""Most characters of the solver's reason: it may go through thousands of versions."""
_SOLVE: Final = timedelta(minutes=5)

# Tells what a kernel needs, and spares the first start of one two seconds: conda's pure packages are not compiled.
_FINISH: Final = """
import compileall, importlib.util, pathlib, sys
found = importlib.util.find_spec("ipykernel")
if found is None:
    sys.exit("it has no ipykernel")
compileall.compile_dir(pathlib.Path(found.origin).parent.parent, quiet=2, workers=0)
"""


def main() -> None:
    """Do the job in one line of JSON; see `conda.build` for its fields."""
    job = json.loads(sys.stdin.buffer.readline())
    # Whatever else writes to the standard output must not come between the lines.
    lines = os.dup(1)
    os.dup2(2, 1)
    asyncio.run(_do(job, lines))


async def _do(job: Mapping[str, Any], lines: int) -> NoReturn:
    try:
        await _Build(job, lines).run()
    except EnvironmentFailed as exc:
        _write(lines, {"failed": exc.message, "data": exc.data})
    else:
        _write(lines, {"made": True})
    # Not by an end of the loop: it would wait for the thread that still asks a silent channel.
    os._exit(0)


def _write(fd: int, line: Mapping[str, Any]) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


class _Build:
    def __init__(self, job: Mapping[str, Any], lines: int) -> None:
        self._dependencies: list[str] = job["dependencies"]
        self._channels: list[str] = job["channels"]
        self._shown = [hidden(channel) for channel in self._channels]
        self._pip: list[str] = job["pip"]
        self._lock: str | None = job["lock"]
        self._folder = Path(job["folder"])
        self._uv: str | None = job["uv"]
        self._keep_open: list[int] = job["keep_open"]
        self._patience: float = job["patience"]
        self._stall: float = job["stall"]
        self._lines = lines
        self._mutex = threading.Lock()
        self._client = rattler.networking.Client.default_client()

    async def run(self) -> None:
        asyncio.get_running_loop().add_reader(0, self._end_with_parent)
        records, pip = await self._resolve()
        await self._install(records)
        if pip:
            await self._install_pip(pip)
        await self._finish()

    @staticmethod
    def _end_with_parent() -> None:
        if not os.read(0, 1):
            os.killpg(0, signal.SIGKILL)

    def report(self, step: str, message: str, done: int | None = None, total: int | None = None) -> None:
        with self._mutex:  # py-rattler reports from its own threads
            _write(self._lines, {"step": step, "message": hidden(message), "done": done, "total": total})

    # --- which packages ---

    async def _resolve(self) -> tuple[list[Any], list[str]]:
        """Return conda's records and the lines of a requirements file to install."""
        locked, pip = ([], self._pip) if self._lock is None else self._read_lock(self._lock)
        names = {spec_name(spec) for spec in self._dependencies}
        pip_names = {requirement_name(line) for line in pip}
        wanted = [one for one in ("python", _KERNEL) if spec_name(one) not in names | pip_names]
        if pip and self._uv is None and "pip" not in names:
            wanted.append("pip")
        asked = [self._spec(text) for text in self._dependencies]
        specs = [*asked, *(self._spec(text) for text in wanted)]
        if self._lock is None:
            return await self._solve(specs), pip
        if not _all_match(asked, locked):
            # It is older than what it was made from. As with pixi, it is then no more than a preference.
            return await self._solve(specs, preferred=locked), self._pip
        if not _all_match(specs, locked):
            # It lacks what a kernel needs: that is added, and what is locked stays.
            return await self._solve(specs, pinned=locked), pip
        return locked, pip

    def _spec(self, text: str) -> Any:
        try:
            return rattler.MatchSpec(text)
        except InvalidMatchSpecError as exc:
            why = str(exc).splitlines()[0]
            fail(f"{text!r} names no conda package: {why}; write it as `name` or `name >=1.2,<2`", package=text)

    def _read_lock(self, text: str) -> tuple[list[Any], list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pixi.lock"
            path.write_text(text, encoding="utf-8")
            try:
                environment = rattler.LockFile.from_path(path).default_environment()
            except (ParseCondaLockError, IoError) as exc:
                fail(f"pixi.lock cannot be read: {one_line(exc)}; make it anew with `pixi lock`", file="pixi.lock")
        here = current_platform()
        found = [one for one in environment.platforms() if str(one.name) == here] if environment else []
        if environment is None or not found:
            fail(
                f"pixi.lock says nothing of {here}; add it with `pixi workspace platform add {here}`", file="pixi.lock"
            )
        records = environment.conda_repodata_records_for_platform(found[0]) or []
        packages = environment.pypi_packages_for_platform(found[0]) or []
        return records, self._locked_pip({normal_name(package.name): package for package in packages})

    def _locked_pip(self, packages: dict[str, Any]) -> list[str]:
        """Return the lines that install the locked versions, or the requested ones if the lock does not cover them."""
        as_asked = [line for line in self._pip if line.startswith("-") or _is_local(line)]
        for line in self._pip:
            package = packages.get(requirement_name(line))
            if line not in as_asked and (package is None or not _satisfies(package, line)):
                return self._pip
        folders = {requirement_name(line) for line in as_asked}
        exact = [
            f"{package.name} @ {_location(package)}"
            for name, package in packages.items()
            if name not in folders and not _is_beside(package)
        ]
        return [*exact, *as_asked, _ALONE] if exact or as_asked else []

    async def _solve(self, specs: list[Any], *, pinned: Sequence[Any] = (), preferred: Sequence[Any] = ()) -> list[Any]:
        self.report("resolve", f"Finding out what {listed([str(spec) for spec in specs])} need")
        try:
            channels = [rattler.Channel(channel) for channel in self._channels]
        except InvalidChannelError as exc:
            fail(f"{one_line(exc)}; name a channel by its name or its URL", channels=self._shown)
        gateway = rattler.Gateway(client=self._client)
        solving = asyncio.ensure_future(
            rattler.solve(
                channels,
                specs,
                gateway,
                pinned_packages=list(pinned),
                locked_packages=list(preferred),
                virtual_packages=rattler.VirtualPackage.detect(),
                timeout=_SOLVE,
            )
        )
        doubt = self._patience
        try:
            while not (await asyncio.wait([solving], timeout=doubt))[0]:
                await self._check_channels()
                doubt = min(doubt * 2, 60.0)
            return solving.result()
        except GatewayError as exc:
            self._fail_at_channel(str(exc))
        except SolverError as exc:
            await self._explain(exc, specs, channels, gateway)

    async def _check_channels(self) -> None:
        """Fail if a channel does not answer at all: py-rattler waits for a silent one without a timeout."""
        remote = [channel for channel in self._channels if channel.startswith(("http://", "https://"))]
        urls = [f"{channel}/noarch/repodata.json.zst" for channel in remote]
        answers = await asyncio.gather(*(_answers(url, self._patience) for url in urls))
        for channel, problem in zip(remote, answers, strict=True):
            if problem is not None:
                self._fail_at_channel(f"{channel}\n{problem}", channel)

    def _fail_at_channel(self, text: str, channel: str | None = None) -> NoReturn:
        named = re.search(r"(https?|file|s3|oci|gcs)://[^\s')]+", text)
        url = hidden(named[0]) if named else ""
        place = channel or next((one for one in self._shown if url.startswith(one)), url)
        why = text.splitlines()[-1].removeprefix("Caused by: ")
        if "could not find subdir" in text:
            fail(
                f"There is no conda channel at {place} ({why}); check its name, or choose others with "
                "RUNTIMED_CONDA_CHANNELS",
                channel=place,
            )
        fail(
            f"The conda channel at {place} cannot be reached: {why}; check the network, or choose another channel with "
            "RUNTIMED_CONDA_CHANNELS",
            channel=place,
        )

    async def _explain(self, error: Exception, specs: list[Any], channels: list[Any], gateway: Any) -> NoReturn:
        """Raise with the responsible package: an unknown one, a missing version, or a conflict."""
        where = ", ".join(self._shown)
        for spec in specs:
            name = spec_name(str(spec))
            try:
                found = await gateway.query(channels, [current_platform(), "noarch"], [name], recursive=False)
            except (GatewayError, InvalidMatchSpecError):
                continue
            candidates = [record for part in found for record in part]
            if not candidates:
                fail(
                    f"No conda package is called {name!r} in {where}; check the spelling, name the channel that has "
                    "it, or list it under `pip:` if it is on PyPI",
                    package=name,
                    channels=self._shown,
                )
            if not any(record.matches(spec) for record in candidates):
                versions = sorted({record.version for record in candidates}, reverse=True)
                shown = ", ".join(str(version) for version in versions[:8])
                more = "" if len(versions) <= 8 else f" and {len(versions) - 8} older ones"
                fail(
                    f"There is no conda package {str(spec)!r} in {where}; the versions of {name} there are "
                    f"{shown}{more}",
                    package=name,
                    versions=[str(version) for version in versions],
                    channels=self._shown,
                )
        reason = str(error).removeprefix("Cannot solve the request because of: ").strip()[:_LONGEST]
        fail(
            f"These conda packages cannot be installed together: {listed([str(spec) for spec in specs])}. {reason}\n"
            "Allow more versions of one of them.",
            conflict=reason,
            channels=self._shown,
        )

    # --- their files ---

    async def _install(self, records: list[Any]) -> None:
        reporter = Reporter(self.report, records)
        installing = asyncio.ensure_future(
            rattler.install(records, self._folder, show_progress=False, client=self._client, reporter=reporter)
        )
        try:
            while not (await asyncio.wait([installing], timeout=min(self._stall / 2, 5.0)))[0]:
                if reporter.silence() > self._stall:
                    fail(
                        f"The download of {reporter.latest} stopped: not a byte for {self._stall:g} seconds; check "
                        "the network and try again",
                        package=reporter.latest,
                    )
            installing.result()
        except (InstallerError, LinkError, TransactionError, IoError) as exc:
            check_space(str(exc), self._folder)
            fail(f"A conda package cannot be installed: {one_line(exc)}")

    async def _install_pip(self, lines: list[str]) -> None:
        flags = [line for line in lines if line == _ALONE]
        packages = [line for line in lines if not line.startswith("-") or line.startswith("-e ")]
        if not packages:
            return
        shown = listed([requirement_name(line) or line for line in packages])
        self.report("install", f"Installing {shown} from the Python index")
        python = str(self._folder / "bin/python")
        with tempfile.TemporaryDirectory() as folder:
            requirements = Path(folder) / "requirements.txt"
            requirements.write_text("".join(f"{line}\n" for line in lines if line not in flags), encoding="utf-8")
            if self._uv is None:
                command = [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]
            else:
                command = [self._uv, "pip", "install", "--python", python, "--quiet"]
            code, words = await self._call([*command, *flags, "-r", str(requirements)])
        if code:
            check_space(words, self._folder)
            tool = "pip" if self._uv is None else "uv"
            fail(f"The packages under `pip:` ({shown}) cannot be installed; {tool} says: {words}", pip=shown)

    async def _finish(self) -> None:
        self.report("install", "Compiling")
        code, words = await self._call([str(self._folder / "bin/python"), "-I", "-c", _FINISH])
        if code:
            check_space(words, self._folder)
            fail(f"The environment cannot run a kernel: {words}")

    async def _call(self, command: list[str]) -> tuple[int, str]:
        # Settings that are meant for other Pythons would send the packages elsewhere, or refuse to install them at all.
        environment = {
            **os.environ,
            "PIP_BREAK_SYSTEM_PACKAGES": "1",
            "PIP_REQUIRE_VIRTUALENV": "0",
            "PIP_USER": "0",
            "UV_BREAK_SYSTEM_PACKAGES": "1",
        }
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                pass_fds=self._keep_open,
                cwd="/",
            )
        except OSError as exc:
            return 1, f"{command[0]} cannot be started: {exc.strerror}"
        output, _ = await process.communicate()
        words = "\n".join(output.decode(errors="replace").strip().splitlines()[-12:])
        return process.returncode or 0, words or f"exit code {process.returncode}"


async def _answers(url: str, patience: float) -> str | None:
    """Return None if a server answers at all, else why it does not."""

    def ask() -> str | None:
        try:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310  # only http and https come here
            with urllib.request.urlopen(request, timeout=patience):  # noqa: S310
                return None
        except urllib.error.HTTPError:
            return None
        except urllib.error.URLError as exc:
            # Certificates are py-rattler's to judge: it has its own.
            return None if "certificate" in str(exc.reason).lower() else str(exc.reason)
        except TimeoutError:
            return silent
        except (OSError, ValueError) as exc:
            return str(exc)

    silent = f"it was silent for {patience:g} seconds"
    try:
        return await asyncio.wait_for(asyncio.to_thread(ask), patience)
    except TimeoutError:
        return silent


# --- what is locked ---------------------------------------------------------------------------------------------------


def _is_local(line: str) -> bool:
    return line.startswith(("-e ", "/")) or "@ file:" in line


def _is_beside(package: Any) -> bool:
    """Whether a locked package is a folder of the project; the recipe's own lines install it."""
    return "://" not in package.location and not package.location.startswith("/")


def _satisfies(package: Any, requirement: str) -> bool:
    try:
        return bool(package.satisfies(requirement))
    except RequirementError:
        return False


def _all_match(specs: Sequence[Any], records: Sequence[Any]) -> bool:
    return all(any(record.matches(spec) for record in records) for spec in specs)


def _location(package: Any) -> str:
    location = str(package.location)
    if "://" not in location:
        return Path(location).as_uri()
    try:
        digest = package.hashes.sha256
    except AttributeError:  # py-rattler 0.28: a package without hashes has no `None`, but a broken object
        digest = None
    return location if digest is None or "#" in location else f"{location}#sha256={digest.hex()}"


if __name__ == "__main__":
    main()
