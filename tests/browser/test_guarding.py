"""What a browser must not do: ask other hosts, open files, start from nothing."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from runtimed import BrowserError, BrowserUnavailable
from runtimed.actions import NewTab
from runtimed.browser import chromium
from runtimed.browser.domains import refusal
from runtimed.browser.engine import Browser
from runtimed.browser.find import find_chromium
from runtimed.pages import BrowserConfig
from tests.browser.conftest import Heard, browsing, processes_of
from tests.browser.listening import listen

ASK = """async url => Promise.all([
  fetch(url).then(() => 'came', () => 'refused'),
  new Promise(done => {
    const socket = new WebSocket(url.replace('http', 'ws'));
    socket.onerror = () => done('refused');
  }),
  new Promise(done => {
    const image = new Image();
    image.onerror = () => done('refused');
    image.src = url + '/x.png';
  }),
  new Promise(done => {
    const frame = document.createElement('iframe');
    frame.src = url;
    frame.onload = () => done('shown');
    document.body.append(frame);
  }),
  new Promise(done => {
    const text = `fetch('${url}').then(() => postMessage('came'), () => postMessage('refused'))`;
    new Worker(URL.createObjectURL(new Blob([text]))).onmessage = event => done(event.data);
  }),
])"""


SENT = {
    "/audio", "/beacon", "/css", "/embed", "/events", "/fetch", "/font", "/frame", "/frame-redirect", "/image",
    "/import", "/keepalive", "/module", "/modulepreload", "/object", "/poster", "/prefetch", "/preload", "/redirect",
    "/script", "/service", "/shared", "/socket", "/stylesheet", "/video", "/window", "/worker", "/xhr",
}  # fmt: skip


def test_nobody_but_the_allowed_hosts_is_asked_in_any_way_that_a_page_has(run, site, browser, tmp_path):
    def leak(page, port):
        page.goto(f"{site.other}/leaks")
        return f"Promise.all([leak('127.0.0.1', {port}), leak('text-{port}.example', {port})])"

    def names_of(heard):
        return [name for name in heard.names if f"text-{heard.port}".encode() in name]

    with listen() as heard:
        browser.js(f"void {leak(browser, heard.port)}")
        browser.until(lambda: heard.paths > SENT and heard.packets and names_of(heard), f"only {heard.paths} came")
    browser.goto("about:blank")  # the page asks again and again

    log = tmp_path / "net.json"
    with (
        listen() as heard,
        browsing(run, allowed_domains=("localhost",), chrome_args=(f"--log-net-log={log}",)) as guarded,
    ):
        nothing_leads_elsewhere(guarded, site)
        guarded.js(leak(guarded, heard.port))
        guarded.execute("goto", url=f"{site.other}/moved?http://127.0.0.1:{heard.port}/goto")
    # Its Chromium has ended.

    assert (heard.paths, heard.packets, names_of(heard)) == (set(), 0, [])
    assert resolved(log) <= {"localhost", "~notfound"}


def nothing_leads_elsewhere(guarded, site):
    guarded.goto(f"{site.other}/plain")
    site.asked.clear()

    asked = guarded.js(f"({ASK})({site.url!r})")
    gone = guarded.execute("goto", url=f"{site.url}/plain")
    led = guarded.execute("goto", url=f"{site.other}/plain")
    elsewhere = guarded.execute("evaluate_js", code=f"location.href = '{site.url}/plain'; 1")
    guarded.until(lambda: guarded.addresses()[0].startswith("chrome-error:"), "it does not fail")

    assert asked == ["refused", "refused", "refused", "shown", "refused"]
    assert (gone.error, led.success, elsewhere.success) == ("Refused", True, True)
    assert gone.message == (
        f"{site.url}/plain was not opened: 127.0.0.1 is not among the allowed domains of this session (localhost)"
    )
    assert [path for path in site.asked if path not in ("/plain", "/favicon.ico")] == []
    assert guarded.execute("goto", url=f"{site.other}/article").success

    redirected = guarded.execute("goto", url=f"{site.other}/moved?{site.url}/plain")
    assert (redirected.success, redirected.error) == (False, "Navigation")
    assert redirected.message.endswith("; only localhost may be asked in this session")


def resolved(log):
    """The hosts whose addresses Chromium looked for, from its own log."""
    first, _, *events = log.read_text().splitlines()
    jobs = json.loads(f"{first.rstrip(',')}}}")["constants"]["logSourceType"]["HOST_RESOLVER_IMPL_JOB"]
    found = [json.loads(event.rstrip(",")) for event in events if f'"type":{jobs}}}' in event and event.endswith(",")]
    hosts = [event["params"]["host"] for event in found if "host" in event.get("params", {})]
    return {re.sub(r"^\w+://|:\d+$", "", host) for host in hosts}


@pytest.mark.parametrize(
    "argument",
    [
        "--host-resolver-rules=MAP * 127.0.0.1",
        "-proxy-server=x:1",
        " --webrtc-ip-handling-policy=default",
        "--host-rules=",
    ],
)
def test_arguments_that_would_undo_the_allowed_domains_are_refused(run, argument):
    with (
        pytest.raises(BrowserError, match="beside allowed_domains, which it would undo") as no,
        browsing(run, allowed_domains=("localhost",), chrome_args=("--lang=de", argument)),
    ):
        pass

    assert no.value.argument == argument
    arguments = chromium.arguments(BrowserConfig(chrome_args=(argument,)), Path("/profile"), window=False)
    assert arguments[-2:] == [argument, "about:blank"]


@pytest.mark.parametrize("argument", ["--user-data-dir=/x", "--window-size=1,1"])
def test_arguments_that_a_session_settles_itself_are_refused(run, argument):
    with (
        pytest.raises(BrowserError, match=r"chrome_args cannot have .*; use \w+="),
        browsing(run, chrome_args=(argument,)),
    ):
        pass


def test_features_that_are_asked_for_stand_beside_ours():
    def listed(kind, *given):
        config = BrowserConfig(chrome_args=given)
        found = [a for a in chromium.arguments(config, Path("/p"), window=False) if a.startswith(f"--{kind}-features=")]
        assert len(found) == 1
        return found[0].partition("=")[2].split(",")

    ours = listed("disable")
    assert "Translate" in ours
    assert listed("disable", "--disable-features=One,Two", "-disable-features=Three") == [*ours, "One", "Two", "Three"]
    assert listed("enable", "--enable-features=One,Two") == ["One", "Two"]
    # What is asked for by name is not switched off.
    assert listed("disable", "--enable-features=Translate<Trial:a/b") == [one for one in ours if one != "Translate"]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://example.com/x", True),
        ("https://shop.example.com:8443/", True),
        ("https://EXAMPLE.com./", True),
        ("https://notexample.com/", False),
        ("https://example.com.evil.org/", False),
        ("https://example.com@evil.org/", False),
        ("about:blank", True),
        ("data:text/html,x", True),
    ],
)
def test_a_domain_is_that_host_and_those_below_it(url, allowed):
    assert (refusal(url, ["example.com"], allow_files=False) is None) == allowed
    assert (refusal(url, ["*.example.com"], allow_files=False) is None) == allowed


@pytest.mark.parametrize(
    "domain", ["", "https://example.com", "example.com/x", "exa mple.com", "a,b", "user@example.com", "*"]
)
def test_a_domain_that_is_none_starts_no_browser(run, domain, tmp_path):
    with (
        pytest.raises(BrowserError, match="allowed_domains holds host names"),
        browsing(run, allowed_domains=(domain,)),
    ):
        pass


def test_files_are_opened_only_where_that_was_asked_for_and_chromium_asks_nobody_by_itself(
    run, site, browser, tmp_path
):
    page = tmp_path / "page.html"
    page.write_text("<title>A file</title>")

    assert browser.execute("goto", url=page.as_uri()).error == "Refused"

    async def around():
        async with async_playwright() as playwright:
            theirs = await playwright.chromium.connect_over_cdp(browser.browser.cdp_url)
            async with theirs.contexts[0].expect_page():
                await browser.browser.execute(NewTab())
            pages = theirs.contexts[0].pages
            for each in pages:
                with pytest.raises(PlaywrightError, match="ERR_ACCESS_DENIED"):
                    await each.goto(page.as_uri())
            await theirs.close()
            return len(pages)

    assert browser.run(around()) == 2
    log = tmp_path / "net.json"
    logged = (f"--log-net-log={log}", "--net-log-capture-mode=Everything")
    with browsing(run, allow_files=True, chrome_args=logged) as other:
        other.goto(page.as_uri())
        assert other.observe().title == "A file"
        other.goto(f"{site.url}/form")

    hosts = set(re.findall(r'"(?:url|host)":"(?:(?:https?|wss?)://)?([^"/:]+)', log.read_text()))
    assert hosts <= {"127.0.0.1", "localhost"}
    assert "127.0.0.1" in hosts


def test_which_chromium_is_taken(tmp_path):
    def program(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    asked = program(tmp_path / "asked")
    named = program(tmp_path / "named")
    older = program(tmp_path / "playwright" / "chromium-900" / "chrome-linux" / "chrome")
    newer = program(tmp_path / "playwright" / "chromium-1200" / "chrome-linux64" / "chrome")
    on_path = program(tmp_path / "bin" / "google-chrome")
    environment = {
        "RUNTIMED_CHROMIUM": str(named),
        "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "playwright"),
        "PATH": str(tmp_path / "bin"),
    }

    def found(asked=None):
        chromium = find_chromium(asked, environment)
        return chromium.program, chromium.why

    assert found(str(asked)) == (asked, "the argument chromium")
    assert found() == (named, "RUNTIMED_CHROMIUM")
    environment["RUNTIMED_CHROMIUM"] = str(tmp_path / "nothing")
    with pytest.raises(BrowserUnavailable, match="RUNTIMED_CHROMIUM names '.*nothing', which is no program"):
        found()
    environment["RUNTIMED_CHROMIUM"] = " "
    assert found() == (newer, "Playwright")
    newer.unlink()
    assert found() == (older, "Playwright")
    older.unlink()
    assert found() == (on_path, "PATH")


def test_without_a_chromium_the_error_says_how_to_get_one(tmp_path):
    environment = {"PATH": str(tmp_path), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path)}

    with pytest.raises(BrowserUnavailable, match="There is no Chromium.*\n  Debian, Ubuntu:  sudo apt-get install"):
        find_chromium(None, environment)


def test_a_chromium_that_does_not_start_is_told_with_its_last_words(run, tmp_path):
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho 'no libraries here' >&2\nexit 3\n")
    program.chmod(0o755)

    with pytest.raises(BrowserUnavailable) as caught, browsing(run, tmp_path / "s", chromium=str(program)):
        pass

    assert caught.value.message.startswith("Chromium ended with exit code 3. Its last words:\nno libraries here")
    assert caught.value.stderr == "no libraries here"
    assert processes_of(tmp_path) == []


def test_opening_that_is_cancelled_leaves_nothing_running(run, tmp_path):
    heard = Heard()

    async def give_up():
        opening = asyncio.create_task(Browser.open(BrowserConfig(), tmp_path, heard))
        while not heard.pids:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    run(give_up())
    assert processes_of(tmp_path) == []


def test_chromium_loads_no_pages_of_its_own(run, site, browser):
    async def targets():
        async with async_playwright() as playwright:
            theirs = await playwright.chromium.connect_over_cdp(browser.browser.cdp_url)
            session = await theirs.new_browser_cdp_session()
            told = await session.send("Target.getTargets", {"filter": [{}]})
            await theirs.close()
            return [target["url"] for target in told["targetInfos"]]

    browser.goto(f"{site.url}/plain")

    addresses = run(targets())
    assert f"{site.url}/plain" in addresses
    assert [address for address in addresses if address.startswith("chrome")] == []
