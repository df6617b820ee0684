"""The process that makes one conda environment: a job on its standard input, a line of JSON for each step as output.

It exists so that a build can be killed at any instant, and so that neither the memory nor a crash of py-rattler's
native code is the daemon's. It never outlives whoever holds the other end of its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
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
from runtimed.errors import EnvironmentFailed

__all__ = ["main"]

_ALONE: Final = "--no-deps"
"""Among the lines of a requirements file: all that the others need is named, too."""
_KERNEL: Final = "ipykernel >=6.20"
_SOLVE: Final = timedelta(minutes=5)
_PROGRESS: Final = 0.2
"""Seconds between two lines about the same step."""

# Tells what a kernel needs, and spares the first start of one two seconds: conda's pure packages are not compiled.
_FINISH: Final = """
import compileall, importlib.util, sys, sysconfig
if importlib.util.find_spec("ipykernel") is None:
    sys.exit("it has no ipykernel")
compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)
"""


def main() -> None:
    """Do the job that comes as one line of JSON; see `conda.build` for its fields."""
    job = json.loads(sys.stdin.buffer.readline())
    # Whatever else writes to the standard output must not come between the lines.
    lines = os.dup(1)
    os.dup2(2, 1)
    try:
        asyncio.run(_Build(job, lines).run())
    except EnvironmentFailed as exc:
        _write(lines, {"failed": exc.message, "data": exc.data})
    else:
        _write(lines, {"made": True})
    # A thread that waits for a silent channel would be waited for.
    os._exit(0)


def _write(fd: int, line: Mapping[str, Any]) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


class _Build:
    def __init__(self, job: Mapping[str, Any], lines: int) -> None:
        self._dependencies: list[str] = job["dependencies"]
        self._channels: list[str] = job["channels"]
        self._shown = [_hidden(channel) for channel in self._channels]
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
            _write(self._lines, {"step": step, "message": message, "done": done, "total": total})

    # --- which packages ---

    async def _resolve(self) -> tuple[list[Any], list[str]]:
        """Return what to install: conda's records, and the lines of a requirements file."""
        locked, pip = ([], self._pip) if self._lock is None else self._read_lock(self._lock)
        names = {_spec_name(spec) for spec in self._dependencies}
        pip_names = {_requirement_name(line) for line in pip}
        wanted = [one for one in ("python", _KERNEL) if _spec_name(one) not in names | pip_names]
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
            _fail(f"{text!r} names no conda package: {why}; write it as `name` or `name >=1.2,<2`", package=text)

    def _read_lock(self, text: str) -> tuple[list[Any], list[str]]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pixi.lock"
            path.write_text(text, encoding="utf-8")
            try:
                environment = rattler.LockFile.from_path(path).default_environment()
            except (ParseCondaLockError, IoError) as exc:
                _fail(f"pixi.lock cannot be read: {_one_line(exc)}; make it anew with `pixi lock`", file="pixi.lock")
        here = current_platform()
        found = [one for one in environment.platforms() if str(one.name) == here] if environment else []
        if environment is None or not found:
            _fail(
                f"pixi.lock says nothing of {here}; add it with `pixi workspace platform add {here}`", file="pixi.lock"
            )
        records = environment.conda_repodata_records_for_platform(found[0]) or []
        packages = environment.pypi_packages_for_platform(found[0]) or []
        return records, self._locked_pip({_normal(package.name): package for package in packages})

    def _locked_pip(self, packages: dict[str, Any]) -> list[str]:
        """Return the lines that install exactly what is locked, or what was asked for if the lock does not cover it."""
        as_asked = [line for line in self._pip if line.startswith("-") or _is_local(line)]
        for line in self._pip:
            package = packages.get(_requirement_name(line))
            if line not in as_asked and (package is None or not _satisfies(package, line)):
                return self._pip
        folders = {_requirement_name(line) for line in as_asked}
        exact = [
            f"{package.name} @ {_location(package)}"
            for name, package in packages.items()
            if name not in folders and not _is_beside(package)
        ]
        return [*exact, *as_asked, _ALONE] if exact or as_asked else []

    async def _solve(self, specs: list[Any], *, pinned: Sequence[Any] = (), preferred: Sequence[Any] = ()) -> list[Any]:
        self.report("resolve", f"Finding out what {_listed([str(spec) for spec in specs])} need")
        try:
            channels = [rattler.Channel(channel) for channel in self._channels]
        except InvalidChannelError as exc:
            _fail(f"{_one_line(exc)}; name a channel by its name or its URL", channels=self._shown)
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
        """Fail if a channel does not answer at all: py-rattler waits for one that is silent for ever."""
        remote = [channel for channel in self._channels if channel.startswith(("http://", "https://"))]
        urls = [f"{channel}/noarch/repodata.json.zst" for channel in remote]
        answers = await asyncio.gather(*(_answers(url, self._patience) for url in urls))
        for channel, problem in zip(remote, answers, strict=True):
            if problem is not None:
                self._fail_at_channel(f"{channel}\n{problem}", channel)

    def _fail_at_channel(self, text: str, channel: str | None = None) -> NoReturn:
        named = re.search(r"(https?|file|s3|oci|gcs)://[^\s')]+", text)
        url = _hidden(named[0]) if named else ""
        place = _hidden(channel) if channel else next((one for one in self._shown if url.startswith(one)), url)
        why = _hidden(text.splitlines()[-1].removeprefix("Caused by: "))
        if "could not find subdir" in text:
            _fail(
                f"There is no conda channel at {place} ({why}); check its name, or choose others with "
                "RUNTIMED_CONDA_CHANNELS",
                channel=place,
            )
        _fail(
            f"The conda channel at {place} cannot be reached: {why}; check the network, or choose another channel with "
            "RUNTIMED_CONDA_CHANNELS",
            channel=place,
        )

    async def _explain(self, error: Exception, specs: list[Any], channels: list[Any], gateway: Any) -> NoReturn:
        """Say which package is the reason: one that no channel has, a version that there is not, or a conflict."""
        where = ", ".join(self._shown)
        for spec in specs:
            name = _spec_name(str(spec))
            try:
                found = await gateway.query(channels, [current_platform(), "noarch"], [name], recursive=False)
            except (GatewayError, InvalidMatchSpecError):
                continue
            candidates = [record for part in found for record in part]
            if not candidates:
                _fail(
                    f"No conda package is called {name!r} in {where}; check the spelling, name the channel that has "
                    "it, or list it under `pip:` if it is on PyPI",
                    package=name,
                    channels=self._shown,
                )
            if not any(record.matches(spec) for record in candidates):
                versions = sorted({record.version for record in candidates}, reverse=True)
                shown = ", ".join(str(version) for version in versions[:8])
                more = "" if len(versions) <= 8 else f" and {len(versions) - 8} older ones"
                _fail(
                    f"There is no conda package {str(spec)!r} in {where}; the versions of {name} there are "
                    f"{shown}{more}",
                    package=name,
                    versions=[str(version) for version in versions],
                    channels=self._shown,
                )
        reason = str(error).removeprefix("Cannot solve the request because of: ").strip()
        _fail(
            f"These conda packages cannot be installed together: {_listed([str(spec) for spec in specs])}. {reason}\n"
            "Allow more versions of one of them.",
            conflict=reason,
            channels=self._shown,
        )

    # --- their files ---

    async def _install(self, records: list[Any]) -> None:
        reporter = _Reporter(self, records)
        installing = asyncio.ensure_future(
            rattler.install(records, self._folder, show_progress=False, client=self._client, reporter=reporter)
        )
        try:
            while not (await asyncio.wait([installing], timeout=min(self._stall / 2, 5.0)))[0]:
                if reporter.silence() > self._stall:
                    _fail(
                        f"The download of {reporter.latest} stopped: not a byte for {self._stall:g} seconds; check "
                        "the network and try again",
                        package=reporter.latest,
                    )
            installing.result()
        except (InstallerError, LinkError, TransactionError, IoError) as exc:
            _check_space(str(exc), self._folder)
            _fail(f"A conda package cannot be installed: {_hidden(_one_line(exc))}")

    async def _install_pip(self, lines: list[str]) -> None:
        flags = [line for line in lines if line == _ALONE]
        packages = [line for line in lines if not line.startswith("-") or line.startswith("-e ")]
        if not packages:
            return
        shown = _listed([_requirement_name(line) or line for line in packages])
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
            _check_space(words, self._folder)
            tool = "pip" if self._uv is None else "uv"
            _fail(f"The packages under `pip:` ({shown}) cannot be installed; {tool} says: {_hidden(words)}", pip=shown)

    async def _finish(self) -> None:
        self.report("install", "Compiling")
        code, words = await self._call([str(self._folder / "bin/python"), "-I", "-c", _FINISH])
        if code:
            _check_space(words, self._folder)
            _fail(f"The environment cannot run a kernel: {words}")

    async def _call(self, command: list[str]) -> tuple[int, str]:
        # Both tools would refuse a Python that its distribution has marked as its own; this one is ours.
        environment = {**os.environ, "PIP_BREAK_SYSTEM_PACKAGES": "1", "UV_BREAK_SYSTEM_PACKAGES": "1"}
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


class _Reporter:
    """Counts what py-rattler does. Called from its threads, while Python's lock is held."""

    def __init__(self, build: _Build, records: list[Any]) -> None:
        self._build = build
        self._sizes = {record.name.normalized: record.size or 0 for record in records}
        self._missing = sum(self._sizes.values())
        self._count = len(records)
        self._linked = 0
        self._names: dict[int, str] = {}
        self._fetched: dict[int, int] = {}
        self._open: set[int] = set()
        self._downloads: set[int] = set()
        self._heard = time.monotonic()
        self._said = 0.0
        self.latest = ""

    def silence(self) -> float:
        """Seconds since the last byte of a download; zero while there is none."""
        return time.monotonic() - self._heard if self._open else 0.0

    def on_transaction_start(self, total_operations: int) -> None:
        self._build.report("install", f"Installing {total_operations} packages")

    def on_populate_cache_start(self, operation: int, package_name: str) -> int:
        self._names[operation] = package_name
        return operation

    def on_populate_cache_complete(self, cache_entry: int) -> None:
        if cache_entry not in self._downloads:
            self._missing -= self._sizes.get(self._names.get(cache_entry, ""), 0)

    def on_download_start(self, cache_entry: int) -> int:
        self._downloads.add(cache_entry)
        self._open.add(cache_entry)
        self._heard = time.monotonic()
        return cache_entry

    def on_download_progress(self, download_idx: int, progress: int, total: int | None) -> None:  # noqa: ARG002  # py-rattler's
        self._heard = time.monotonic()
        self._fetched[download_idx] = progress
        self.latest = self._names.get(download_idx, self.latest)
        if self._heard - self._said > _PROGRESS:
            self._said = self._heard
            done = sum(self._fetched.values())
            self._build.report("download", f"Downloading {self.latest}", done, max(done, self._missing))

    def on_download_completed(self, download_idx: int) -> None:
        self._open.discard(download_idx)

    def on_link_complete(self, index: int) -> None:  # noqa: ARG002  # py-rattler's
        self._linked += 1
        now = time.monotonic()
        if now - self._said > _PROGRESS:
            self._said = now
            self._build.report("install", f"Installing: {self._linked} of {self._count} packages")

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *_: 0


async def _answers(url: str, patience: float) -> str | None:
    """Return None if a server answers, whatever it says, else why it does not."""

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


# --- words ------------------------------------------------------------------------------------------------------------


def _fail(message: str, **data: Any) -> NoReturn:
    raise EnvironmentFailed(message, **data)


def _check_space(words: str, folder: Path) -> None:
    if "No space left on device" not in words and "Disk quota exceeded" not in words:
        return
    places = {_mount_point(Path(name)) for name in [str(folder), *re.findall(r"(?<![\w.])/[^\s`':]+", words)]}
    free, place = min((shutil.disk_usage(place).free, str(place)) for place in places)
    _fail(
        f"The disk is full: {place} has {free / 2**20:.0f} MiB left, and the environment needs more; make room and try "
        "again",
        path=place,
        free=free,
    )


def _mount_point(path: Path) -> Path:
    while not path.is_mount():
        path = path.parent
    return path


def _one_line(error: Exception) -> str:
    """Return the first and the last of the causes that py-rattler lists."""
    lines = [line.removeprefix("Caused by: ") for line in str(error).splitlines() if line.strip()]
    return lines[0] if len(lines) < 2 else f"{lines[0]}: {lines[-1]}"


def _hidden(text: str) -> str:
    """Take tokens and passwords out of URLs: the sentence goes to logs and to other people's screens."""
    return re.sub(r"/t/[^/\s]+", "/t/…", re.sub(r"://[^/\s@]+@", "://", text))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"


def _spec_name(spec: str) -> str:
    match = re.match(r"[\w.\-]+", spec.rsplit("::", 1)[-1].strip())
    return match[0].lower() if match else spec


def _requirement_name(line: str) -> str:
    """Return the name of the package that a line of a requirements file asks for; empty for an option or a path."""
    match = re.match(r"[A-Za-z0-9][\w.\-]*(?=\s*([\[@<>=!~;]|$))", line)
    return _normal(match[0]) if match else ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_local(line: str) -> bool:
    return line.startswith(("-e ", "/")) or "@ file:" in line


def _is_beside(package: Any) -> bool:
    """Whether a locked package is a folder of the project; what to do with it is in the recipe's own lines."""
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
