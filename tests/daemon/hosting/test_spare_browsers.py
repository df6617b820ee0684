"""Spare browsers: real daemons, hosts and Chromiums, handed over, killed, dropped."""

import asyncio
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtimed import AsyncBrowserSession, BrowserSession, Client, DaemonClient, RuntimedError, Session
from runtimed.daemon.hosting.folder import name_owner
from runtimed.daemon.hosting.launcher import Owner
from runtimed.daemon.serving.daemon import TICK
from runtimed.ids import SessionId, stored_name
from tests.browser.server import Site, serve
from tests.conftest import command_of, processes_of, wait_until
from tests.daemon.conftest import daemon_with_a_clock, look, until
from tests.daemon.hosting.test_pool import (
    NONE,
    ensure_spare,
    figures,
    folder_of,
    folders,
    is_gone,
    kill_daemon,
    problems,
    wait_for_spare,
    wait_gone,
)
from tests.daemon.rooms.test_browser import chromium_of, host_of, seen_in_viewer

pytestmark = pytest.mark.slow

WAITING = {**NONE, "browser_available": 1}


@pytest.fixture(scope="module", autouse=True)
def one_spare() -> Iterator[None]:
    """Let every daemon of these tests keep one spare."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNTIMED_POOL_SIZE", "1")
        yield


@pytest.fixture(scope="module")
def first(shared_daemon: Path, one_spare: None) -> Iterator[BrowserSession]:
    """The one session that lives as long as these tests: the others, and the spare, are beside it."""
    session = started("first", timeout_minutes=None)
    yield session
    session.stop()


@pytest.fixture
def pool(shared_daemon: Path, first: BrowserSession) -> Path:
    """The data folder of a daemon that most tests share, with a spare that waits."""
    ensure_spare(WAITING, lambda: started().stop())
    return shared_daemon


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


def hosts(data_dir: Path) -> dict[int, psutil.Process]:
    return {p.pid: p for p in processes_of(data_dir) if command_of(p)[-1:] == ["runtimed.browser"]}


def spare_of(data_dir: Path, *sessions: BrowserSession) -> tuple[psutil.Process, psutil.Process]:
    """The host and the Chromium that belong to none of these sessions."""
    owned = {session.status().host_pid for session in sessions}
    # The host of a session that was stopped just now may still be ending.
    wait_until(lambda: len(hosts(data_dir).keys() - owned) == 1, "there is not one spare")
    (host,) = (process for pid, process in hosts(data_dir).items() if pid not in owned)
    (chromium,) = (child for child in host.children() if any("--user-data-dir" in part for part in command_of(child)))
    return host, chromium


def profiles_of_spares(data_dir: Path) -> set[str]:
    """The names of the folders with profiles that were made for spares and are no session's, half removed ones too."""
    found = list((data_dir / "browsers").iterdir())
    owned = {path.readlink().name for path in found if path.is_symlink()}
    return {path.name for path in found if path.name.startswith("spare-")} - owned


def profile_of(data_dir: Path, host: psutil.Process) -> str:
    return f"spare-{folder_of(data_dir, host).name}"


def only(data_dir: Path) -> bool:
    """Whether nothing is left of spares, and one session has a host."""
    return profiles_of_spares(data_dir) == set() and len(folders(data_dir)) == 1


def left_in(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def started(session_id: str | None = None, **config: Any) -> BrowserSession:
    session = BrowserSession(session_id, **config)
    session.start()
    return session


def do(session: BrowserSession, action: str, **fields: Any) -> Any:
    return session.execute(type=action, raise_on_failure=True, **fields).data


def seen_of(session: BrowserSession) -> list[Any]:
    """What a session can see of its browser as it is at the start."""
    page = do(
        session,
        "evaluate_js",
        code="[history.length, navigator.userAgent, innerWidth, innerHeight, outerWidth, outerHeight, screen.width,"
        " navigator.webdriver, navigator.languages, document.referrer, new Date().getTimezoneOffset()]",
    )
    log = [(entry.n, entry.kind) for entry in session.read_actions() if entry.kind != "picture"]
    viewer = seen_in_viewer(session.viewer_url)
    viewed = viewer["id"] == session.session_id, viewer["why"], 170 < viewer["ends_at"] - time.time() < 180
    return [page, session.observe().tabs, log, session.get_cookies(), viewed]


def test_a_spare_is_what_would_have_been_started_and_what_only_a_new_chromium_can_have_gets_a_new_one(
    pool: Path, first: BrowserSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What else no spare fits, and what makes it of another kind, the tests of kinds show.
    host, chromium = spare_of(pool, first)
    monkeypatch.setenv("A_SECRET", "swordfish")
    with started("new", profile="work") as new:
        assert host_of(new).pid != host.pid
        status = DaemonClient().status()
        assert status is not None
        assert (status["browser_available"], status["browser_warming"]) == (1, 0)
        assert figures() == WAITING
        cold = seen_of(new)
        folder = pool / "browsers" / stored_name(SessionId("new"))
        assert (folder.is_dir(), folder.is_symlink()) == (True, False)
        new.stop()

    second = started()
    assert (host_of(second).pid, chromium_of(second).pid) == (host.pid, chromium.pid)
    assert seen_of(second) == cold
    assert cold[-1] == (True, "idle_timeout", True)
    wait_for_spare(WAITING)
    spare, chromium_of_spare = spare_of(pool, first, second)
    assert "A_SECRET" not in chromium_of_spare.environ()

    # What was a spare outlives the daemon, and what a spare has left that died with it goes when the next one starts.
    profile = profile_of(pool, spare)
    kill_daemon(spare)
    assert profiles_of_spares(pool) == {profile}
    assert second.observe().url == "about:blank"
    assert second.status().status == "active"
    second.stop()
    assert is_gone(chromium)
    assert first.observe().url == "about:blank"
    wait_until(lambda: only(pool), "its profile or its folder is left")
    assert problems() == ()


def test_a_session_finds_again_what_it_left_and_the_next_one_what_is_no_argument_of_chromium(
    pool: Path, first: BrowserSession, tmp_path: Path, site: Site
) -> None:
    url = f"{site.url}/form"
    host, _chromium = spare_of(pool, first)
    second = started("second")
    assert host_of(second).pid == host.pid
    do(second, "goto", url=url)
    do(second, "evaluate_js", code="localStorage.kept = 'yes'")
    file = Path(do(second, "download_file", role="link", name="Report")["path"])
    assert (file.parts[-3:], file.read_text()) == (
        (stored_name(SessionId("second")), "downloads", "report.txt"),
        "a report\n",
    )
    assert second.is_new
    second.stop()

    wait_for_spare(WAITING)
    spare, _chromium = spare_of(pool, first)
    for _ in range(2):
        again = started("second")
        assert (host_of(again).pid != spare.pid, again.is_new) == (True, False)
        do(again, "goto", url=url)
        assert do(again, "evaluate_js", code="localStorage.kept") == "yes"
        again.stop()

    cookie = {"name": "a", "value": "1", "domain": "127.0.0.1", "path": "/"}
    cookies, downloads, page = tmp_path / "cookies.json", tmp_path / "downloads", tmp_path / "page.html"
    cookies.write_text(json.dumps([cookie]))
    page.write_text("<title>A file</title>")
    third = started(cookie_file=cookies, downloads_dir=downloads, allow_files=True)
    assert host_of(third).pid == spare.pid
    assert [(each["name"], each["value"]) for each in third.get_cookies()] == [("a", "1")]
    do(third, "goto", url=page.as_uri())
    assert third.observe().title == "A file"
    do(third, "goto", url=url)
    assert do(third, "evaluate_js", code="localStorage.kept ?? null") is None
    do(third, "evaluate_js", code="document.cookie = 'b=2; max-age=1000'")
    do(third, "download_file", role="link", name="Report")
    assert (downloads / "report.txt").read_text() == "a report\n"
    third.stop()
    assert {each["name"] for each in json.loads(cookies.read_text())} == {"a", "b"}


# A host that dies or hangs, and sessions that start at once, are the same with kernels: the tests of the pool show it.


def test_a_spare_whose_chromium_was_killed_is_replaced(pool: Path, first: BrowserSession) -> None:
    host, chromium = spare_of(pool, first)
    chromium.kill()
    wait_gone(host, chromium)
    wait_for_spare(WAITING)
    wait_until(lambda: len(profiles_of_spares(pool)) == 1, "a profile is left")


@pytest.mark.parametrize("what", ["dead", "hangs"])
def test_a_spare_whose_chromium_is_dead_or_hangs_when_it_is_handed_over_is_nobodys(
    pool: Path, first: BrowserSession, what: str
) -> None:
    host, chromium = spare_of(pool, first)
    if what == "dead":
        # Its host has not noticed.
        host.suspend()
        chromium.kill()
        threading.Timer(0.5, host.resume).start()
    else:
        chromium.suspend()
    second = started()
    assert chromium_of(second).pid != chromium.pid
    assert second.observe().url == "about:blank"
    assert second.status().error is None
    second.stop()
    wait_gone(host, chromium)
    wait_for_spare(WAITING)
    wait_until(lambda: len(profiles_of_spares(pool)) == 1, "a profile is left")


@pytest.mark.parametrize("asleep", [False, True])
def test_a_spare_that_was_given_a_name_and_not_told_ends_and_its_session_gets_another_browser(
    pool: Path, first: BrowserSession, *, asleep: bool
) -> None:
    host, chromium = spare_of(pool, first)
    name = f"named, asleep: {asleep}"
    owner = Owner(notebook_id=name, epoch="e" * 32, kind="browser", kernel_type="", env_source="")
    folder = folder_of(pool, host)
    name_owner(folder, owner)
    if asleep:
        # The next daemon finds it alive, and it ends while its session is being started.
        host.suspend()
        threading.Timer(1.0, host.resume).start()
    kill_daemon()
    second = started(name)
    assert chromium_of(second).pid != chromium.pid
    assert second.observe().url == "about:blank"
    wait_until(lambda: is_gone(chromium) and is_gone(host), "the spare lives on")
    wait_until(lambda: not folder.exists(), "its folder is left")
    assert problems() == ()
    second.stop()


@pytest.mark.parametrize("seed", range(3))
def test_whenever_the_daemon_is_killed_in_a_hand_over_the_browser_is_somebodys_or_nobodys(
    pool: Path, first: BrowserSession, seed: int
) -> None:
    host, chromium = spare_of(pool, first)
    status = Client().status()
    assert status is not None
    killing = threading.Timer(0.04 * seed, os.kill, (status.pid, signal.SIGKILL))
    killing.start()
    if seed == 0:
        killing.join()  # before the hand-over: the spare ends with its daemon
    second = BrowserSession()
    try:
        second.start()
    except RuntimedError as exc:  # whichever it is: the session can be started again
        print(f"the start ended with {exc!r}")
    killing.join()
    second.start()
    assert second.observe().url == first.observe().url == "about:blank"
    owners = {first.status().host_pid, second.status().host_pid}

    def counted() -> bool:
        """Whether there are hosts, folders and profiles of these two and of the spare, if one waits by now."""
        waiting = figures()
        spares = waiting["browser_available"]
        # The processes of the whole machine are looked at last: that takes longest.
        return (
            waiting in (NONE, WAITING)
            and len(profiles_of_spares(pool)) == spares
            and len(folders(pool)) == 2 + spares
            and owners <= (pids := hosts(pool).keys())
            and len(pids) == 2 + spares
        )

    wait_until(counted, "a host, a folder or a profile that is nobody's is left", timeout=60)
    assert problems() == ()
    assert seed != 0 or host.pid not in owners
    assert is_gone(chromium) == is_gone(host) == (host.pid not in owners)
    second.stop()


def test_no_spare_is_made_where_memory_is_short(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIMED_POOL_MIN_MEMORY", "1000T")
    with started() as session, Session() as notebook:
        notebook.start_kernel()
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 3 * TICK, "time stands still")
        assert figures() == NONE
        assert len(folders(data_dir)) == 2
        session.stop()


def test_flush_pool_ends_a_spare_of_another_kind_however_slowly_it_ends_and_leaves_nothing(
    pool: Path, first: BrowserSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _chromium = spare_of(pool, first)
    log = pool / "daemon.log"
    with tempfile.TemporaryDirectory(prefix="rt") as temporary:
        # A variable of the client that Chromium reads at its start makes it, and the next spare, of another kind.
        monkeypatch.setenv("TMPDIR", temporary)
        with started() as session:
            assert host_of(session).pid != plain.pid
            wait_gone(plain)
            wait_for_spare(WAITING)
            host, chromium = spare_of(pool, first, session)
            before, logged = left_in(temporary), log.stat().st_size
            host.suspend()
            waking = threading.Timer(3.0, host.resume)
            waking.start()
            DaemonClient().flush_pool()
            waking.join()
            assert figures() == NONE
            assert is_gone(chromium)
            assert b"it is killed" not in log.read_bytes()[logged:]
            wait_until(lambda: is_gone(host), "the spare lives on")
            # Two Chromiums had the same there, and one has it still.
            assert len(left_in(temporary)) == len(before) / 2
            session.stop()
        wait_until(lambda: only(pool), "its profile or its folder is left")
        assert left_in(temporary) == []


def test_kernels_and_browsers_have_a_spare_each_of_which_the_end_of_the_daemon_leaves_nothing(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "3")
    with tempfile.TemporaryDirectory(prefix="rt") as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        with started() as session, Session() as notebook:
            notebook.start_kernel()
            wait_until(lambda: figures() == {**WAITING, "current_available": 1}, "there are not both", timeout=60)
            session.stop()
        wait_until(lambda: not processes_of(data_dir), "something lives on")
        assert profiles_of_spares(data_dir) == set()
        assert left_in(temporary) == []


def test_the_folder_of_a_session_that_began_with_a_spare_goes_when_nobody_has_used_it_for_long(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "1e12")
    browsers = own_folder / "browsers"

    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            first, session = AsyncBrowserSession("first"), AsyncBrowserSession("shop", timeout_minutes=None)
            await first.start()
            await until(lambda: daemon.pool.figures() == WAITING, "there is no spare")
            await session.start()
            folder = browsers / stored_name(SessionId("shop"))
            assert folder.is_symlink()
            await daemon.flush_pool()
            await first.stop()
            clock.now += 31 * 86400
            await look(daemon)
            assert (folder / "profile").exists()

            await session.stop()
            clock.now += 31 * 86400
            await look(daemon)
            assert list(browsers.iterdir()) == []

    asyncio.run(scenario())
