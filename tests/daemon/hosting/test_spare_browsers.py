"""Spare browsers: real daemons, hosts and Chromiums, handed over, killed, dropped."""

import asyncio
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


def test_a_spare_is_what_would_have_been_started(
    shared_daemon: Path, first: BrowserSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    DaemonClient().flush_pool()
    assert figures() == NONE
    monkeypatch.setenv("A_SECRET", "swordfish")
    with started("new") as new:
        wait_for_spare(WAITING)
        status = DaemonClient().status()
        assert status is not None
        assert (status["browser_available"], status["browser_warming"]) == (1, 0)
        cold = seen_of(new)
        assert (shared_daemon / "browsers" / stored_name(SessionId("new"))).is_dir()
        new.stop()
    host, chromium = spare_of(shared_daemon, first)
    assert "A_SECRET" not in chromium.environ()

    second = started()
    assert (host_of(second).pid, chromium_of(second).pid) == (host.pid, chromium.pid)
    assert seen_of(second) == cold
    assert cold[-1] == (True, "idle_timeout", True)
    kill_daemon()
    assert second.observe().url == "about:blank"
    assert second.status().status == "active"
    second.stop()
    assert is_gone(chromium)


def test_what_is_no_argument_of_chromium_is_asked_for_at_the_hand_over(
    pool: Path, first: BrowserSession, tmp_path: Path, site: Site
) -> None:
    cookie = {"name": "a", "value": "1", "domain": "127.0.0.1", "path": "/"}
    file, downloads, page = tmp_path / "cookies.json", tmp_path / "downloads", tmp_path / "page.html"
    file.write_text(json.dumps([cookie]))
    page.write_text("<title>A file</title>")
    host, _chromium = spare_of(pool, first)
    second = started(cookie_file=file, downloads_dir=downloads, allow_files=True)
    assert host_of(second).pid == host.pid
    assert [(each["name"], each["value"]) for each in second.get_cookies()] == [("a", "1")]
    do(second, "goto", url=page.as_uri())
    assert second.observe().title == "A file"
    do(second, "goto", url=f"{site.url}/form")
    do(second, "evaluate_js", code="document.cookie = 'b=2; max-age=1000'")
    do(
        second,
        "evaluate_js",
        code="(() => { const a = document.createElement('a'); a.href = 'data:text/plain,x'; a.download = 'x.txt';"
        " document.body.append(a); a.click() })()",
    )
    wait_until((downloads / "x.txt").exists, "nothing is downloaded")
    second.stop()
    assert {each["name"] for each in json.loads(file.read_text())} == {"a", "b"}


def test_a_session_finds_again_what_it_left_though_its_browser_was_a_spare(
    pool: Path, first: BrowserSession, site: Site
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
    third = started()
    assert host_of(third).pid == spare.pid
    do(third, "goto", url=url)
    assert do(third, "evaluate_js", code="localStorage.kept ?? null") is None
    third.stop()


def test_what_only_a_new_chromium_can_have_gets_a_new_one(
    pool: Path, first: BrowserSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What else no spare fits, and what makes it of another kind, the tests of kinds show.
    host, _chromium = spare_of(pool, first)
    with started(profile="work") as second:
        assert host_of(second).pid != host.pid
        second.stop()
    assert figures() == WAITING
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        with started() as second:
            assert host_of(second).pid != host.pid
            second.stop()
    # The next spare would be for those in Tokyo.
    DaemonClient().flush_pool()


def test_several_sessions_at_once_never_get_the_same_spare(pool: Path, first: BrowserSession) -> None:
    with ThreadPoolExecutor(3) as threads:
        sessions = list(threads.map(lambda _n: started(), range(3)))
    assert len({chromium_of(session).pid for session in (first, *sessions)}) == 4
    for number, session in enumerate(sessions):
        do(session, "goto", url=f"data:text/html,<title>{number}</title>")
    for number, session in enumerate(sessions):
        assert [tab.title for tab in session.observe().tabs] == [str(number)]
        session.stop()


@pytest.mark.parametrize("what", ["host", "chromium", "chromium, without a word"])
def test_a_spare_that_was_killed_is_replaced_and_nobody_gets_it(pool: Path, first: BrowserSession, what: str) -> None:
    host, chromium = spare_of(pool, first)
    if what == "chromium, without a word":
        # It is dead when it is handed over, and its host has not noticed.
        host.suspend()
        chromium.kill()
        threading.Timer(0.5, host.resume).start()
    else:
        (host if what == "host" else chromium).kill()
    second = started()
    assert second.observe().url == "about:blank"
    assert chromium_of(second).pid != chromium.pid
    assert second.status().error is None
    second.stop()
    wait_gone(host, chromium)
    wait_for_spare(WAITING)
    wait_until(lambda: len(profiles_of_spares(pool)) == 1, "a profile is left")


@pytest.mark.parametrize("what", ["host", "chromium"])
def test_a_spare_that_hangs_is_not_waited_for(pool: Path, first: BrowserSession, what: str) -> None:
    host, chromium = spare_of(pool, first)
    (host if what == "host" else chromium).suspend()
    second = started()
    assert chromium_of(second).pid != chromium.pid
    assert second.observe().url == "about:blank"
    second.stop()
    wait_gone(host, chromium)


def test_a_spare_ends_with_a_daemon_that_is_killed_and_leaves_nothing(pool: Path, first: BrowserSession) -> None:
    host, chromium = spare_of(pool, first)
    kill_daemon()
    wait_until(lambda: is_gone(chromium) and is_gone(host), "the spare lives on")
    assert first.observe().url == "about:blank"
    assert only(pool)
    assert problems() == ()


def test_what_a_spare_has_left_that_died_with_its_daemon_goes_when_the_next_one_starts(
    pool: Path, first: BrowserSession
) -> None:
    host, _chromium = spare_of(pool, first)
    profile = profile_of(pool, host)
    kill_daemon(host)
    assert profiles_of_spares(pool) == {profile}
    assert first.observe().url == "about:blank"
    wait_until(lambda: only(pool), "its profile or its folder is left")
    assert problems() == ()


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


@pytest.mark.parametrize("seed", range(6))
def test_whenever_the_daemon_is_killed_in_a_hand_over_the_browser_is_somebodys_or_nobodys(
    pool: Path, first: BrowserSession, seed: int
) -> None:
    status = Client().status()
    assert status is not None
    killing = threading.Timer(0.025 * seed, os.kill, (status.pid, signal.SIGKILL))
    killing.start()
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
        waiting, pids = figures(), hosts(pool).keys()
        spares = waiting["browser_available"]
        return (
            waiting in (NONE, WAITING)
            and owners <= pids
            and len(pids) == len(folders(pool)) == 2 + spares
            and len(profiles_of_spares(pool)) == spares
        )

    wait_until(counted, "a host, a folder or a profile that is nobody's is left", timeout=60)
    assert problems() == ()
    second.stop()


def test_flush_pool_and_the_end_of_the_daemon_leave_nothing_of_a_spare(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIMED_IDLE_EXIT", "3")
    with tempfile.TemporaryDirectory(prefix="rt") as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        with started() as session:
            wait_for_spare(WAITING)
            host, chromium = spare_of(data_dir, session)
            before = left_in(temporary)
            DaemonClient().flush_pool()
            assert figures() == NONE
            wait_until(lambda: is_gone(host) and is_gone(chromium), "the spare lives on")
            # Two Chromiums had the same there, and one has it still.
            assert len(left_in(temporary)) == len(before) / 2
            assert only(data_dir)
            started().stop()
            wait_for_spare(WAITING)
            session.stop()
        wait_until(lambda: not processes_of(data_dir), "something lives on")
        assert profiles_of_spares(data_dir) == set()
        assert left_in(temporary) == []


def test_a_spare_that_ends_slowly_is_let_end(pool: Path, first: BrowserSession) -> None:
    host, chromium = spare_of(pool, first)
    log = pool / "daemon.log"
    before = log.stat().st_size
    host.suspend()
    waking = threading.Timer(3.0, host.resume)
    waking.start()
    DaemonClient().flush_pool()
    waking.join()
    assert is_gone(chromium)
    assert profiles_of_spares(pool) == set()
    assert b"it is killed" not in log.read_bytes()[before:]
    wait_until(lambda: is_gone(host), "the spare lives on")


def test_no_spare_is_made_where_memory_is_short(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIMED_POOL_MIN_MEMORY", "1000T")
    with started() as session, Session() as notebook:
        notebook.start_kernel()
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 3 * TICK, "time stands still")
        assert figures() == NONE
        assert len(folders(data_dir)) == 2
        session.stop()


def test_kernels_and_browsers_do_not_take_each_others_places(pool: Path) -> None:
    with Session() as notebook:
        notebook.start_kernel()
        wait_until(lambda: figures() == {**WAITING, "current_available": 1}, "there are not both", timeout=60)
    DaemonClient().flush_pool()


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
            await first.stop()
            clock.now += 31 * 86400
            await look(daemon)
            assert (folder / "profile").exists()

            await session.stop()
            clock.now += 31 * 86400
            await look(daemon)
            await daemon.flush_pool()
            assert list(browsers.iterdir()) == []

    asyncio.run(scenario())
