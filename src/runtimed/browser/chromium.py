"""One Chromium process with its own profile folder: start, watch, end. Nothing here speaks Chromium's protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from runtimed.browser import domains, emulation
from runtimed.browser.config_check import name_of
from runtimed.browser.find import find_chromium
from runtimed.errors import BrowserUnavailable
from runtimed.pages import BrowserConfig
from runtimed.texts import printable

__all__ = ["Chromium", "arguments", "sandbox_problem"]

_START_TIMEOUT: Final = 60.0
_POLITE: Final = 4.0
_LAST_WORDS: Final = 20
"""Lines of standard error that are kept."""

_QUIET: Final = (
    # Nothing leaves the machine unasked. Source: chromium.org, "List of Chromium Command Line Switches".
    "--component-updater=url-source=https://localhost:9/",  # it asks even when it is disabled; nobody answers here
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-quic",
    "--disable-sync",
    "--gaia-url=https://localhost:9/",  # who is signed in; pages reach Google's own sign-in all the same
    "--metrics-recording-only",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
    "--no-service-autorun",
    "--safebrowsing-disable-auto-update",
    "--disable-features=AutofillServerCommunication,CertificateTransparencyComponentUpdater,DialMediaRouteProvider,"
    "InterestFeedContentSuggestions,MediaRouter,NetworkTimeServiceQuerying,OptimizationHints,OptimizationGuideModelDownloading,"
    "Translate,PasswordLeakDetection,HttpsUpgrades,LensOverlay,AutofillActorMode,"
    # Not to be quiet, but there is one such list. A page shows as soon as it can: `goto` in 0.8 of the time (measured).
    "PaintHolding,"
    # A page of the site that is shown already needs no new frame: again `goto` in 0.8 of the time (measured).
    "RenderDocument,"
    # Two pages for an address bar that nobody uses: half of a start's processor time and 50 MiB (measured).
    "WebUIOmniboxPopup,WebUIOmniboxAimPopup",
)

_STEADY: Final = (
    # A page without viewers works on, and nothing waits for a person.
    # CDPScreenshotNewSurface, which Playwright turns on, is off: Chromium crashes if a page does during a picture.
    "--allow-pre-commit-input",  # a click before the first frame is meant; Playwright starts its browsers so
    "--disable-back-forward-cache",  # Playwright waits for ever for the loading of a page that was never unloaded
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-dev-shm-usage",
    "--disable-hang-monitor",
    "--disable-infobars",
    "--disable-popup-blocking",
    "--disable-prompt-on-repost",
    "--disable-renderer-backgrounding",
    "--disable-search-engine-choice-screen",
    "--enable-aggressive-domstorage-flushing",  # what pages store is on the disk a second later, not five to sixty
    "--force-color-profile=srgb",
    "--hide-crash-restore-bubble",
    "--password-store=basic",
    "--use-mock-keychain",
)

_PREFERENCES: Final = {
    "alternate_error_pages": {"enabled": False},  # of whatever page fails, it asks for the address of google.com
    "plugins": {"always_open_pdf_externally": True},  # its viewer shows nothing that could be read
}
"""Source: chromium.org, chrome/common/pref_names.h."""


class Chromium:
    """A running Chromium, in a process group of its own, whose number is its process id.

    Attributes:
        pid: Its process id.
        headless: Whether it has no window.
        address: Host and port of its debugging port.
        path: Path of its browser target there.
        ended: Resolves with the reason, a sentence, once the process is gone.
    """

    def __init__(self, process: asyncio.subprocess.Process, profile: Path, *, headless: bool) -> None:
        self.pid = process.pid
        self.headless = headless
        self.address = ("127.0.0.1", 0)
        self.path = ""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process = process
        self._profile = profile
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._watcher = asyncio.create_task(self._watch())

    @classmethod
    async def start(
        cls, config: BrowserConfig, profile: Path, folder: Path, started: Callable[[int], None]
    ) -> Chromium:
        """Start a Chromium, and wait until it listens.

        Args:
            config: Its configuration.
            profile: Its profile folder.
            folder: Its working directory, where crashes leave their files.
            started: Called with its process id as soon as it has one.

        Raises:
            BrowserUnavailable: If there is no Chromium, or it ends before it listens.
        """
        program = find_chromium(config.chromium).program
        window = not config.headless and _has_display()
        port_file = profile / "DevToolsActivePort"
        port_file.unlink(missing_ok=True)
        _prefer(profile / "Default" / "Preferences")
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments(config, profile, window=window),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd=folder,
                env={**os.environ, **emulation.variables(config), "BREAKPAD_DUMP_LOCATION": str(folder)},
            )
        except OSError as exc:
            raise BrowserUnavailable(f"{program} cannot be started: {exc}", program=str(program)) from exc
        started(process.pid)
        chromium = cls(process, profile, headless=not window)
        try:
            await chromium._await_port(port_file)
        except BaseException:
            chromium.kill()
            await chromium._watcher
            raise
        return chromium

    async def _await_port(self, port_file: Path) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        pause = 0.005
        # Chromium renames the finished file into its place; otherwise only standard error names the port.
        while not (text := await asyncio.to_thread(_read, port_file)):
            if self.ended.done():
                raise BrowserUnavailable(
                    f"{self.ended.result()} It ended before it could be used.", stderr="\n".join(self._words)
                )
            if time.monotonic() > deadline:
                raise BrowserUnavailable(
                    f"Chromium did not listen within {_START_TIMEOUT:.0f} s.", stderr="\n".join(self._words)
                )
            await asyncio.wait([self.ended], timeout=pause)
            pause = min(pause * 1.5, 0.05)
        port, path = text.split("\n")[:2]
        self.address = ("127.0.0.1", int(port))
        self.path = path

    async def _watch(self) -> None:
        while self._process.stderr is not None:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # longer than the stream's limit, and dropped
                continue
            if not line:
                break
            self._words.append(printable(line.decode(errors="replace").rstrip())[:500])
        code = await self._process.wait()
        self.kill()  # its children must not outlive it
        _remove_socket(self._profile)
        self.ended.set_result(_reason(code, self._words))

    def kill(self) -> None:
        """Kill it with all its children. Idempotent."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End it gracefully, so that its profile is complete; kill it after some seconds. Idempotent."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await asyncio.wait([self.ended], timeout=_POLITE)
        self.kill()
        await self._watcher


def arguments(config: BrowserConfig, profile: Path, *, window: bool) -> list[str]:
    """Return the arguments with which Chromium is started."""
    ours = [
        *_QUIET,
        *_STEADY,
        *([] if window else ["--headless=new", "--hide-scrollbars", "--mute-audio"]),
        *(["--no-sandbox"] if sandbox_problem() else []),
        f"--user-data-dir={profile}",
        "--remote-debugging-address=127.0.0.1",
        "--remote-debugging-port=0",
        f"--window-size={config.viewport_width},{config.viewport_height}",
        *([f"--user-agent={config.user_agent}"] if config.user_agent else []),
        *domains.arguments(config.allowed_domains),
        *emulation.arguments(config),
    ]
    return [*_merged(ours, config.chrome_args), "about:blank"]


def _merged(ours: Iterable[str], theirs: Iterable[str]) -> list[str]:
    """Return arguments with one list of enabled features and one of disabled ones: Chromium takes the last of each.

    Features that they enable by name are not disabled by us.
    """
    on, off, rest = _features(ours)
    their_on, their_off, their_rest = _features(theirs)
    wanted = {re.split("[<:]", feature, maxsplit=1)[0] for feature in their_on}
    off = [feature for feature in off if feature not in wanted]
    features = {"enable": on + their_on, "disable": off + their_off}
    return [*(f"--{verb}-features={','.join(given)}" for verb, given in features.items() if given), *rest, *their_rest]


def _features(given: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the features that arguments enable, those that they disable, and the other arguments."""
    on: list[str] = []
    off: list[str] = []
    rest: list[str] = []
    for argument in given:
        listed = {"enable-features": on, "disable-features": off}.get(name_of(argument))
        if listed is None:
            rest.append(argument)
        else:
            listed += [feature for feature in argument.strip().partition("=")[2].split(",") if feature]
    return on, off, rest


def sandbox_problem() -> str | None:
    """Return a sentence that says why Chromium's sandbox must be off here; None where it is on."""
    if sys.platform != "darwin" and os.geteuid() == 0:
        return "Chromium refuses to run as root with its sandbox; run runtimed as a user of its own."
    return None


def _prefer(file: Path) -> None:
    """Write the preferences of a new profile."""
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.write_text(json.dumps(_PREFERENCES))


def _read(file: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return file.read_text()
    return ""


def _remove_socket(profile: Path) -> None:
    """Remove the temporary folder of the socket that marks a profile as in use. Chromium leaves it behind."""
    with contextlib.suppress(OSError):
        socket = (profile / "SingletonSocket").readlink()
        for name in ("SingletonSocket", "SingletonCookie"):
            (socket.parent / name).unlink(missing_ok=True)
        socket.parent.rmdir()


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _reason(code: int, words: Iterable[str]) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        how = f"Chromium was ended by {name}"
    else:
        how = f"Chromium ended with exit code {code}"
    last = "\n".join(words)
    return f"{how}. Its last words:\n{last}" if last else f"{how}."
