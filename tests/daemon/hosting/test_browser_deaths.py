"""What is left of a browser session whose Chromium, host or time has ended: its cookies, and nothing in /tmp."""

import asyncio
import json
import stat

from runtimed import AsyncBrowserSession, BrowserSession
from tests.conftest import wait_until
from tests.daemon.conftest import daemon_with_a_clock, until
from tests.daemon.rooms.test_browser import chromium_of, host_of, state

COOKIE = {"name": "basket", "value": "7 apples", "domain": "shop.example", "path": "/"}


def names_in(file):
    """The cookies in a file, which is whole and nobody else's whenever it is looked at."""
    if not file.exists():
        return set()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return {cookie["name"] for cookie in json.loads(file.read_text())}


def test_a_death_leaves_the_cookies_that_were_set_before_and_no_temporary_files(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = data_dir / "cookies.json"
    file.write_text(json.dumps([COOKIE]))
    file.chmod(0o600)
    session = BrowserSession("shop", cookie_file=file)
    expected = {"basket"}
    for process_of, end in ((chromium_of, ("error", "died")), (host_of, ("error", "host_lost"))):
        session.start()
        assert {cookie["name"] for cookie in session.get_cookies()} == expected
        (folder,) = data_dir.glob("run/*/tmp")
        assert {path.name.rpartition(".")[0] for path in folder.glob("org.*")} == {"org.chromium.Chromium"}
        session.set_cookies([{**COOKIE, "name": end[1]}])
        expected |= {end[1]}
        wait_until(lambda: names_in(file) == expected, "cookies are not written while the browser is used")  # noqa: B023

        process_of(session).kill()

        wait_until(lambda: state(session) == end, f"nobody says that it has {end}")  # noqa: B023  # called here
        assert names_in(file) == expected
        assert [path.name for path in data_dir.glob("*cookies*")] == ["cookies.json"]
        wait_until(lambda: not folder.parent.exists(), "the folder of the host is still there")  # noqa: B023  # here
        assert list(tmp_path.iterdir()) == []
    session.start()
    assert {cookie["name"] for cookie in session.get_cookies()} == expected
    session.stop()
    assert names_in(file) == expected


def test_a_session_that_times_out_writes_its_cookies_first(own_folder):
    file = own_folder / "cookies.json"

    async def scenario() -> None:
        async with daemon_with_a_clock() as (clock, daemon):
            session = AsyncBrowserSession("shop", cookie_file=file)
            await session.start()
            await session.set_cookies([COOKIE])
            clock.now += 3.1 * 60
            daemon.tick()

            async def has_ended() -> bool:
                return (await session.status()).status == "timed_out" and not daemon.room("shop").hosted.in_use

            await until(has_ended, "it does not time out")
            assert names_in(file) == {"basket"}
            await session.close()

    asyncio.run(scenario())
