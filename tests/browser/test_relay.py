"""The relay and the viewer: who gets in, what passes, what watchers see; and the log that both feed."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from runtimed.actions import Fill, Goto, recorded
from runtimed.browser import driver, gate, pictures
from runtimed.browser import relay as relay_module
from runtimed.browser.gate import Guarded
from runtimed.browser.relay import Relay


async def ask(url, path="", method="GET", body=b"", **headers):
    """Send one request to an address of the relay; return status, headers and body."""
    _, _, rest = url.partition("://")
    host, _, own = rest.partition("/")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]))
    given = {"Host": host, "Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}
    lines = [f"{method} /{own}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    try:
        answer = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    await writer.wait_closed()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head.decode(), content


def test_other_programs_see_and_drive_the_same_tabs(browser, site):
    async def elsewhere():
        async with async_playwright() as playwright:
            theirs = await playwright.chromium.connect_over_cdp(browser.browser.cdp_url)
            page = theirs.contexts[0].pages[0]
            await page.goto(f"{site.url}/form")
            await page.fill("#name", "from elsewhere")
            other = await theirs.contexts[0].new_page()
            await other.goto(f"{site.url}/plain")
            picture = await page.screenshot()
            await theirs.close()
            return len(picture)

    uses = browser.heard.uses
    first = browser.observe().tab

    assert browser.run(elsewhere()) > 1000
    assert browser.heard.uses > uses
    assert [tab.url for tab in browser.observe().tabs] == [f"{site.url}/form", f"{site.url}/plain"]
    browser.do("switch_tab", tab=first)
    assert browser.js("document.getElementById('name').value") == "from elsewhere"


def test_tools_that_look_for_a_debugging_port_find_ours(browser):
    url = "http" + browser.browser.cdp_url.removeprefix("ws").partition("/devtools/")[0]

    status, _, version = browser.run(ask(url, "/json/version"))
    _, _, pages = browser.run(ask(url, "/json/list"))

    assert status == 200
    assert json.loads(version)["webSocketDebuggerUrl"] == browser.browser.cdp_url
    assert json.loads(pages)[0]["webSocketDebuggerUrl"].startswith(browser.browser.cdp_url.partition("/devtools/")[0])


def test_nobody_gets_in_without_the_token(browser):
    cdp, viewer = browser.browser.cdp_url, browser.browser.viewer_url
    port = viewer.split("/")[2]
    path = cdp.split("/", 4)[4]
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    key = {"Sec_WebSocket_Key": base64.b64encode(b"0" * 16).decode()}
    watch = viewer.split("/")[3]

    async def statuses():
        return [
            (await ask(f"http://{port}/"))[0],
            (await ask(f"http://{port}/json/version"))[0],
            (await ask(f"http://{port}/{'x' * 32}/json/version"))[0],
            (await ask(f"http://{port}/{watch}/{path}", **upgrade, **key))[0],  # who watches does not drive
            (await ask(cdp, **upgrade, **key, Origin="http://evil.example"))[0],  # no page drives
            (await ask(viewer, Host="evil.example:80"))[0],  # no name that was made to lead here
            (await ask(viewer, "input", "POST", b"{}"))[0],  # this one only watches
            (await ask(cdp, "/../../json"))[0],
        ]

    assert browser.run(statuses()) == [404, 404, 404, 404, 403, 403, 403, 404]


def test_clients_and_chromium_compress_nothing(browser):
    async def shake_hands(address, path):
        reader, writer = await asyncio.open_connection(*address)
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {address[0]}:{address[1]}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(b'0' * 16).decode()}",
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        try:
            return (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).lower()
        finally:
            writer.close()

    chromium, url = browser.browser._chromium, browser.browser.cdp_url
    directly = browser.run(shake_hands(chromium.address, chromium.path))
    through_the_relay = browser.run(
        shake_hands(("127.0.0.1", int(url.split("/")[2].split(":")[1])), f"/{url.split('/', 3)[3]}")
    )

    assert directly.startswith(b"http/1.1 101 ")
    assert b"permessage-deflate" in directly
    assert through_the_relay.startswith(b"http/1.1 101 ")
    assert b"permessage-deflate" not in through_the_relay


def test_the_driver_offers_no_compression(run, monkeypatch, tmp_path):
    folder = tmp_path / 'José\'s "packages" \\ here'
    folder.mkdir()
    shutil.copy(Path(driver.__file__).with_name("uncompressed.cjs"), folder)
    monkeypatch.setattr(driver, "__file__", str(folder / "driver.py"))
    monkeypatch.setenv("NODE_OPTIONS", "--max-http-header-size=20000")
    heads = []

    async def hang_up(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.close()

    async def connect():
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            playwright = await driver.start_driver()
            try:
                with pytest.raises(PlaywrightError):
                    await playwright.chromium.connect_over_cdp(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            finally:
                await playwright.stop()

    run(connect())

    assert b"upgrade: websocket" in heads[0]
    assert b"permessage-deflate" not in heads[0]
    assert os.environ["NODE_OPTIONS"] == "--max-http-header-size=20000"


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET x HTTP/1.1\r\n\r\n", b"A" * 100_000]
)
def test_junk_is_answered_or_hung_up_on(browser, junk):
    async def send():
        port = int(browser.browser.viewer_url.split(":")[2].split("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(junk)
        writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(), 5)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    answer = browser.run(send())

    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert browser.run(ask(browser.browser.viewer_url))[0] == 200


async def watch(url, enough):
    """Read events until there is enough of them, as a list of name and value."""
    host = url.split("/")[2]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]))
    writer.write(f"GET /{url.split('/')[3]}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    seen: list[tuple[str, Any]] = []
    try:
        async with asyncio.timeout(10):
            await reader.readuntil(b"\r\n\r\n")
            while not enough(seen):
                name = (await reader.readline()).decode()
                if name.startswith("event: "):
                    value = await reader.readline()
                    while not value.endswith(b"\n"):
                        value += await reader.readline()
                    seen.append((name[7:].strip(), json.loads(value[6:])))
    finally:
        writer.close()
    return seen


def test_a_watcher_sees_frames_tabs_and_what_happens(browser, site):
    def enough(seen):
        kinds = {name for name, _ in seen}
        return (
            kinds == {"frame", "tabs", "log", "session", "dialog"}
            and any("Plain" in str(value) for name, value in seen if name == "tabs")
            and [value["who"] for name, value in seen if name == "log" and value["kind"] == "action"][-2:]
            == [
                "the agent",
                "client 01234567",
            ]
        )

    async def both():
        watching = asyncio.create_task(watch(browser.browser.viewer_url, enough))
        await browser.browser.execute(Goto(f"{site.url}/plain"), client_id="0123456789", label="the agent")
        await browser.browser.execute(Goto(f"{site.url}/plain"), client_id="0123456789")
        return await watching

    seen = browser.run(both())

    frame = next(value for name, value in reversed(seen) if name == "frame")
    assert base64.b64decode(frame["jpeg"]).startswith(b"\xff\xd8")
    assert (frame["width"], frame["height"]) == (1280, 1080)
    browser.until(lambda: browser.browser._cast._tab is None, "frames are made though nobody watches", 5.0)


def test_who_begins_to_watch_between_two_pages_sees_the_second(browser, site, monkeypatch):
    """Chromium refuses in that moment to show anything: "Not attached to an active page"."""

    async def scene():
        await browser.browser.execute(Goto(f"{site.url}/plain"))
        send = browser.browser._tabs.latest.cdp.send
        refused: list[str] = []

        async def refuse_once(method, params=None):
            if not refused:
                refused.append(method)
                raise PlaywrightError("Not attached to an active page")
            return await send(method, params)

        monkeypatch.setattr(browser.browser._tabs.latest.cdp, "send", refuse_once)
        await watch(browser.browser.viewer_url, lambda seen: any(name == "frame" for name, _ in seen))
        return refused

    assert browser.run(scene()) == ["Page.startScreencast"]


class EndlessPages:
    """A viewer whose answer has no end, and in which nothing ever happens."""

    def __init__(self):
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    def pages(self):
        outer = self

        class Endless(Guarded):
            async def answer(self):
                outer.asked.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    outer.left.set()

        return {"/": (Endless, {})}


class ShortPages:
    """A viewer that answers at once."""

    def pages(self):
        class Short(Guarded):
            async def answer(self):
                self.give("text/plain", b"")

        return {"/": (Short, {})}


class NobodyDrives:
    """A doorkeeper whose browser is only watched."""

    def __getattr__(self, name):
        raise AssertionError("a watcher does not drive")


def test_a_watcher_who_goes_is_noticed_though_nothing_happens_that_could_be_shown():
    async def scene():
        pages = EndlessPages()
        relay = Relay(("127.0.0.1", 1), "/unused", pages, NobodyDrives())
        await relay.open()
        try:
            asking = asyncio.create_task(ask(relay.viewer_url))
            await asyncio.wait_for(pages.asked.wait(), 10)
            assert not pages.left.is_set()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.wait_for(pages.left.wait(), 10)
        finally:
            await relay.close()

    asyncio.run(scene())


@contextlib.asynccontextmanager
async def strangers(relay, count):
    """Connections that say nothing."""
    connections = [await asyncio.open_connection("127.0.0.1", relay.port) for _ in range(count)]
    try:
        yield connections
    finally:
        for _, writer in connections:
            writer.close()


@contextlib.asynccontextmanager
async def relaying(pages):
    relay = Relay(("127.0.0.1", 1), "/unused", pages, NobodyDrives())
    await relay.open()
    try:
        yield relay
    finally:
        await relay.close()


def test_those_without_the_token_use_up_nothing_of_those_who_have_it():
    async def scene():
        async with relaying(ShortPages()) as relay, strangers(relay, 300) as connections:
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(connections[0][0].read(), 2) == b""  # it has made room
            answers = [(await ask(relay.viewer_url))[0] for _ in range(3)]
            return answers, len(relay._gate._strangers)

    assert asyncio.run(scene()) == ([200] * 3, gate._MAX_STRANGERS - 1)  # the last to ask has gone


def test_who_shows_no_token_in_time_is_hung_up_on(monkeypatch):
    monkeypatch.setattr(relay_module, "_HEAD_TIMEOUT", 0.1)

    async def scene():
        async with relaying(ShortPages()) as relay, strangers(relay, 1) as ((reader, _),):
            return await asyncio.wait_for(reader.read(), 2), len(relay._gate._strangers)

    assert asyncio.run(scene()) == (b"", 0)


def test_a_body_is_read_only_of_those_who_have_the_token():
    async def scene():
        async with relaying(ShortPages()) as relay, strangers(relay, 1) as ((reader, writer),):
            head = f"POST /{'x' * 32}/ HTTP/1.1\r\nHost: 127.0.0.1:{relay.port}\r\nContent-Length: 60000\r\n\r\n"
            writer.write(head.encode())
            return await asyncio.wait_for(reader.readline(), 2)

    assert asyncio.run(scene()) == b"HTTP/1.1 404 Not Found\r\n"


def test_too_many_with_the_token_are_told_so(monkeypatch):
    monkeypatch.setattr(gate, "_MAX_GUESTS", 1)

    async def scene():
        pages = EndlessPages()
        async with relaying(pages) as relay:
            first = asyncio.create_task(ask(relay.viewer_url))
            await asyncio.wait_for(pages.asked.wait(), 10)
            second = await ask(relay.viewer_url)
            first.cancel()
            await asyncio.wait_for(pages.left.wait(), 10)
            return second[0], second[2], (await ask(f"{relay.viewer_url}", method="PUT"))[0], len(relay._gate._guests)

    assert asyncio.run(scene()) == (503, b"too many connections\n", 405, 0)


# --- the log ---


def test_every_action_is_logged_with_what_a_replay_needs(browser, site):
    browser.goto(f"{site.url}/form")
    ref = browser.ref("textbox", "Name")
    browser.do("fill", ref=ref, value="Ada")
    browser.execute("click", ref="d9999e1")

    _, fill, click = (entry for entry in browser.heard.entries if entry.kind == "action")

    assert (fill.text, fill.tab) == ('Filled textbox "Name"', browser.observe().tab)
    assert fill.data == {
        "action": {"type": "fill", "value": "Ada", "ref": ref},
        "selector": 'role=textbox[name="Name"]',
        "element": {"role": "textbox", "name": "Name"},
        "success": True,
        "page_changed": True,
        "seconds": fill.data["seconds"],
    }
    assert recorded(fill.data) == Fill("Ada", selector='role=textbox[name="Name"]', role="textbox", name="Name")
    assert (click.data["success"], click.data["error"]) == (False, "StaleElement")


def test_what_pages_say_and_ask_for_is_logged(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.js(
        "console.warn('careful'); setTimeout(() => { throw new Error('oops') }); fetch('/no-such').then(() => 1)"
    )

    def texts(kind):
        return [entry.text for entry in browser.heard.entries if entry.kind == kind]

    browser.until(lambda: len(texts("console")) > 2, "the error is not logged")

    assert f"200 GET {site.url}/plain" in texts("network")
    assert f"404 GET {site.url}/no-such" in texts("network")
    assert "warning: careful" in texts("console")
    assert any("uncaught: oops" in text for text in texts("console"))


def test_no_picture_is_taken_while_a_page_is_read(browser, site, monkeypatch):
    browser.goto(f"{site.url}/list")
    due = browser.browser._pictures
    browser.until(lambda: due._timer is None and due._taking is None, "pictures are taken without an end")
    monkeypatch.setattr(pictures, "_QUIET", 0.0)
    monkeypatch.setattr(pictures, "_LONGEST", 600.0)
    driver = browser.browser._tabs.context._impl_obj._connection
    send, asked = driver.onmessage, []

    def note(message):
        asked.append(message["params"].get("method", message["method"]))
        send(message)

    monkeypatch.setattr(driver, "onmessage", note)
    browser.observe()

    browser.until(lambda: "Page.captureScreenshot" in asked, "there is no picture of the page")
    assert [method for method in asked if method in ("ariaSnapshot", "textContent", "Page.captureScreenshot")] == [
        "ariaSnapshot",
        "textContent",
        "Page.captureScreenshot",
    ]


def test_pictures_from_before_and_after_an_action(browser, site):
    def pictures(moment, action):
        """Those of an action of this test; there may be one of what was done before it."""
        numbers = [entry.n for entry in browser.heard.entries if entry.kind == "action" and action in entry.text]
        return [entry for entry in browser.heard.entries if entry.moment == moment and entry.action in numbers]

    due = browser.browser._pictures
    # One of what was done before would show this page already, if it were taken just now.
    browser.until(lambda: due._timer is None and due._taking is None, "pictures are taken without an end")
    browser.goto(f"{site.url}/form")
    browser.until(lambda: pictures("after", "is at"), "there is no picture of the page")
    browser.do("click", role="button", name="Rename me")
    browser.until(lambda: pictures("after", "Rename me"), "there is no picture of the click")
    browser.js("void (document.body.style.background = 'red')")
    browser.observe()
    browser.until(lambda: pictures("after", "Evaluated"), "there is no picture of the change")

    browser.run(browser.browser._tabs.latest.page.evaluate("document.body.style.background = 'blue'"))
    browser.observe()
    browser.until(lambda: browser.browser._pictures._spare is not None, "what the page did by itself is not seen")
    browser.do("click", role="button", name="Nothing happens")

    (before,) = pictures("before", "Nothing happens")
    found = [*pictures("after", "is at"), *pictures("after", "Rename me"), *pictures("after", "Evaluated"), before]
    assert len({picture.image for picture in found}) == len(found) == 4
    assert all(picture.image.startswith(b"\xff\xd8") and len(picture.image) < 200_000 for picture in found)
