"""Every action on real pages: what it does, what it says, what it gives."""

import asyncio
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from runtimed import BrowserError, InvalidAction, StaleElement
from runtimed.actions import DownloadFile, Fill, Secret, Target, parse_target
from runtimed.browser import operating
from runtimed.browser.watching import start_watch
from tests.browser.conftest import ref_of


@pytest.fixture
def form(browser, site):
    browser.goto(f"{site.url}/form")
    return browser


def said(browser):
    return browser.js("document.getElementById('said').textContent")


def value(browser, element):
    return browser.js(f"document.getElementById({element!r}).value")


def test_goto_says_where_it_arrived_and_with_which_status(browser, site):
    there = browser.do("goto", url=f"{site.url}/to/other")
    missing = browser.do("goto", url=f"{site.url}/no-such-page")

    assert there.data == {"url": f"{site.other}/plain", "status": 200}
    assert there.message.endswith(f" is at {site.other}/plain (status 200)")
    assert there.page_changed
    assert missing.data["status"] == 404


def test_an_address_without_a_scheme_is_that_of_a_site(browser, site):
    assert browser.do("goto", url=site.url.removeprefix("http://") + "/plain").data["status"] == 200
    assert "https://no-such-host.invalid" in browser.execute("goto", url="no-such-host.invalid").message


def test_the_page_to_which_a_click_leads_is_there_when_it_is_done(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.js("document.body.innerHTML = '<a href=/late>Late</a>'")
    assert browser.do("click", role="link", name="Late").page_changed
    assert browser.js("[document.title, document.body.innerText.includes('second')]") == ["Late", True]

    browser.do("go_back")
    browser.js("document.body.innerHTML = '<a href=/half>Half</a>'")
    result = browser.do("click", role="link", name="Half")
    assert result.message.endswith("; the page is still loading")


def test_history(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.goto(f"{site.url}/article")

    assert browser.do("go_back").data["url"] == f"{site.url}/plain"
    assert browser.do("go_forward").data["url"] == f"{site.url}/article"
    result = browser.execute("go_forward")
    assert (result.success, result.error, result.message) == (False, "Refused", "There is no page to go forward to")
    browser.js("window.mark = 1")
    browser.do("reload")
    assert browser.js("window.mark ?? null") is None


def test_tabs_have_ids_that_never_come_again(browser, site):
    first = browser.observe().tab
    second = browser.do("new_tab", url=f"{site.url}/plain").data
    third = browser.do("new_tab").data
    browser.do("close_tab", tab=third)
    fourth = browser.do("new_tab").data

    assert len({first, second, third, fourth}) == 4
    assert [tab.id for tab in browser.observe().tabs] == [first, second, fourth]
    assert browser.do("switch_tab", tab=second).message == f"{second} is active: {site.url}/plain"
    assert browser.observe().tab == second
    browser.do("close_tab")
    assert browser.observe().tab == fourth
    gone = browser.execute("switch_tab", tab=third)
    assert (gone.error, gone.message) == ("TabGone", f"There is no tab {third!r}; there are: {first}, {fourth}")


def test_without_a_tab_there_is_an_empty_one(browser):
    browser.do("close_tab")

    seen = browser.observe()

    assert (seen.url, len(seen.tabs)) == ("about:blank", 1)


def test_a_click_that_opens_a_tab_leads_there(form, site):
    before = form.observe().tab

    result = form.do("click", role="link", name="Another tab")

    after = form.observe().tab
    assert after != before
    assert result.message == f'Clicked link "Another tab"; the active tab is {after} now'
    assert result.page_changed
    form.do("wait", url=f"{site.url}/plain")


def test_click_tells_whether_the_page_changed(form):
    assert form.do("click", role="button", name="Rename me").page_changed
    assert not form.do("click", role="button", name="Nothing happens").page_changed


IN_FRAMES = """<title>Frames</title><p>Outside</p>
<iframe sandbox="allow-scripts" srcdoc="<button onclick='this.textContent += 1'>Other site</button>
  <button>Nothing</button>
  <iframe srcdoc='<input type=checkbox onchange=&quot;document.title = 1&quot; aria-label=Inner>'></iframe>"></iframe>
<my-calendar></my-calendar><div id="empty"></div>
<button onclick="empty.attachShadow({ mode: 'open' }).innerHTML = '<b>new'">Shadow</button>
<script>
  const outer = document.querySelector('my-calendar').attachShadow({ mode: 'open' });
  outer.innerHTML = '<p>Dates</p><my-day></my-day>';
  const inner = outer.querySelector('my-day').attachShadow({ mode: 'open' });
  inner.innerHTML = '<button>Day</button><button>Idle</button>';
  inner.querySelector('button').onclick = () => outer.querySelector('p').append('!');
</script>"""


def test_click_tells_whether_a_frame_or_a_shadow_tree_changed(browser):
    browser.goto("data:text/html," + quote(IN_FRAMES))
    refs = {element.name: element.ref for element in browser.observe().elements}

    def changed():
        return [browser.do("click", ref=refs[name]).page_changed for name in ("Other site", "Inner", "Day", "Shadow")]

    assert changed() == [True, True, True, True]
    assert [browser.do("click", ref=refs[name]).page_changed for name in ("Nothing", "Idle", "Shadow")] == [False] * 3
    assert [browser.do("click", selector=f"text={name}").page_changed for name in ("Other", "Idle")] == [True, False]


def test_a_page_is_watched_before_it_is_clicked_however_busy_the_machine(form, monkeypatch):
    form.js("1")  # the document has its first watch
    driver = form.browser._tabs.context._impl_obj._connection
    send = driver.onmessage

    def send_slowly(message):
        send(message)
        if message["method"] == "click":
            time.sleep(0.5)  # others get the processor, and the click is over when we have it again

    monkeypatch.setattr(driver, "onmessage", send_slowly)

    assert form.do("click", role="button", name="Rename me").page_changed


def test_the_page_is_asked_what_a_ref_names_before_that_is_clicked_however_busy_the_machine(form, monkeypatch):
    ref = form.ref("button", "Vanish")
    driver = form.browser._tabs.context._impl_obj._connection
    send = driver.onmessage

    def send_slowly(message):
        send(message)
        if message["method"] == "click":
            time.sleep(0.5)  # the element is gone when we have the processor again

    monkeypatch.setattr(driver, "onmessage", send_slowly)

    form.do("click", ref=ref)

    logged = [entry for entry in form.heard.entries if entry.kind == "action"][-1].data
    assert (logged["selector"], logged["element"]) == (
        'role=button[name="Vanish"]',
        {"role": "button", "name": "Vanish"},
    )


def test_nothing_waits_for_what_a_ref_named_once(form, monkeypatch):
    monkeypatch.setattr(operating, "_PATIENT", 60.0)
    ref = form.ref("textbox", "Name")
    form.js("void document.getElementById('name').remove()")

    for kind, fields in (("click", {}), ("fill", {"value": "x"}), ("type", {"value": "x"}), ("clear", {})):
        began = time.monotonic()
        gone = form.execute(kind, ref=ref, timeout=60, **fields)

        assert (gone.success, gone.error) == (False, "StaleElement"), kind
        assert time.monotonic() - began < 30, kind


def test_an_action_asks_the_page_no_more_than_it_needs(form, monkeypatch):
    driver = form.browser._tabs.context._impl_obj._connection
    send, asked = driver.onmessage, []

    def count(message):
        asked.append(message["method"])
        send(message)

    monkeypatch.setattr(driver, "onmessage", count)
    kinds = {"queryCount", "textContent", "ariaSnapshot", "click", "fill", "keyboardInsertText", "keyboardType"}

    def asked_for(kind, **fields):
        asked.clear()
        form.do(kind, **fields)
        return [method for method in asked if method in kinds]

    write = ["keyboardInsertText", "keyboardType", "textContent"]
    assert asked_for("click", role="button", name="Nothing happens") == ["click", "queryCount"]
    assert asked_for("click", role="button", name="Nothing") == ["click", "queryCount", "ariaSnapshot", "textContent"]
    assert asked_for("fill", role="textbox", name="Name", value="Ada") == ["textContent", "queryCount", *write]
    ref = form.ref("textbox", "Name")
    assert asked_for("click", ref=ref) == ["textContent", "queryCount", "click"]
    assert asked_for("fill", ref=ref, value="Grace") == ["textContent", "textContent", *write]


def test_a_watch_of_a_document_that_was_left_meanwhile_is_not_kept(form, site, monkeypatch):
    tab = form.browser._tabs.latest
    tab.first_watch = None
    ask = tab.connection.send

    async def ask_and_leave(method, params):
        answer = await ask(method, params)
        await tab.page.goto(f"{site.url}/plain")
        return answer

    monkeypatch.setattr(tab.connection, "send", ask_and_leave)

    assert form.run(start_watch(tab)) is not None
    assert tab.first_watch is None


def test_nothing_goes_on_watching_the_page_after_an_action(form):
    form.js(
        "window.watching = 0; const own = MutationObserver.prototype, observe = own.observe, end = own.disconnect;"
        "own.observe = function (...all) { watching += 1; return observe.apply(this, all) };"
        "own.disconnect = function () { watching -= 1; return end.apply(this) }; 1"
    )

    form.do("click", role="button", name="Nothing happens")
    form.execute("click", selector="#no-such", timeout=0.1)
    form.execute("click", ref="d99e9")

    form.until(lambda: not form.browser._performer._background, "something is left to do")
    assert form.js("watching") == 0  # the end of the first question's own watch, and the beginning of this one's


def test_a_page_gets_what_watches_it_once(form):
    """As Chromium draws a page anew when somebody begins to listen to its scrolling."""
    form.js(
        "window.added = 0; const own = document.addEventListener;"
        "document.addEventListener = function (...all) { added += 1; return own.apply(this, all) }; 1"
    )

    assert form.do("click", role="button", name="Rename me").page_changed
    assert not form.do("click", role="button", name="Nothing happens").page_changed
    assert form.do("evaluate_js", code="void scrollBy(0, 5000)").page_changed
    assert form.js("added") == 0


def test_click_with_button_count_and_modifiers(form):
    form.js(
        "window.seen = []; for (const type of ['click', 'dblclick', 'contextmenu']) "
        "document.getElementById('idle').addEventListener(type, event => seen.push([event.type, event.shiftKey]))"
    )

    form.do("click", selector="#idle", count=2, modifiers=["Shift"])
    form.do("click", selector="#idle", button="right")

    assert form.js("seen") == [["click", True], ["click", True], ["dblclick", True], ["contextmenu", False]]


def test_fill_replaces_or_adds_and_presses_enter(form):
    form.do("fill", selector="#notes", value="second", clear=True)
    form.do("fill", selector="#notes", value=" and third", clear=False)
    form.do("fill", ref=form.ref("textbox", "Name"), value="Ada", press_enter=True)

    assert value(form, "notes") == "second and third"
    assert said(form) == "ordered Ada"


def test_a_secret_is_typed_and_shown_nowhere(form):
    result = form.do("fill", selector="#name", value=Secret("swordfish"))

    assert form.js("document.getElementById('name').value === 'swordfish'")
    assert value(form, "name") == "***"
    assert form.js("document.getElementById('name').style.webkitTextSecurity") == "disc"
    assert "swordfish" not in f"{result}{form.observe()}{form.heard.entries}"


def test_keys(form):
    form.do("press_key", selector="[aria-label=Keys]", key="ArrowLeft")
    assert said(form) == "key ArrowLeft"
    form.do("press_key", key="Escape")
    assert said(form) == "key Escape"
    assert form.execute("press_key", key="Escpe").message == "There is no key 'Escpe'; did you mean 'Escape'?"


def test_check_and_select(form):
    form.do("check", role="checkbox", name="Gift")
    form.do("check", role="radio", name="Large")
    assert form.js("[gift.checked, document.querySelector('[value=l]').checked]") == [True, True]
    form.do("check", role="checkbox", name="Gift", value=False)
    assert form.js("gift.checked") is False

    assert form.do("select_option", selector="#colour", value="Green").data == ["g"]
    assert form.do("select_option", selector="#colour", value="r").data == ["r"]
    assert form.do("select_option", selector="#extras", value=["Bow", "Box"]).data == ["Bow", "Box"]
    result = form.execute("select_option", selector="#colour", value="Blue", timeout=0.5)
    assert (result.success, result.error) == (False, "Timeout")


def test_hover_and_drag(form):
    form.do("hover", role="button", name="Hint")
    assert said(form) == "hovered"

    form.do("drag", selector="#box", to=Target(role="region", name="Shelf"))

    assert form.js("place.textContent") == "holds the box"


def test_a_download_is_there_when_the_action_ends(form, site):
    result = form.do("download_file", role="link", name="Report")
    again = form.do("download_file", role="link", name="Report")

    folder = form.folder / "downloads"
    assert result.data == {
        "path": str(folder / "report.txt"),
        "suggested_filename": "report.txt",
        "url": f"{site.url}/download/report.txt",
        "size": 9,
    }
    assert Path(result.data["path"]).read_text() == "a report\n"
    assert again.data["path"] == str(folder / "report (1).txt")


FRAMES = """(async places => {
  let inside = window;
  for (const place of places) await new Promise(done => {
    const frame = document.createElement('iframe');
    Object.assign(frame, { src: place, onload: done });
    inside.document.body.append(frame);
  });
})"""


def test_a_download_of_a_frame_of_another_tab_is_not_the_one_that_an_action_waits_for(browser, site):
    browser.goto(f"{site.url}/plain")
    browser.js(f"{FRAMES}({[f'{site.url}/tiny', f'{site.other}/tiny']})")
    elsewhere = browser.browser._tabs.latest.page
    [foreign] = [frame for frame in elsewhere.frames if frame.url.startswith(site.other)]
    browser.run(foreign.evaluate(f"{FRAMES}({[f'{site.other}/plain', f'{site.url}/form']})"))
    browser.do("new_tab", url=f"{site.url}/plain")
    here = browser.browser._tabs.latest.page
    browser.js(f"{FRAMES}({[f'{site.other}/tiny']})")

    async def scene():
        waiting = asyncio.ensure_future(browser.browser.execute(DownloadFile(role="heading", name="Plain")))
        frames = elsewhere.frames
        for number, frame in enumerate(frames):
            while not browser.browser._downloads._next:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await frame.evaluate(f"location.href = '{site.url}/download/theirs{number}.txt'")
        while [entry.kind for entry in browser.heard.entries].count("download") < len(frames):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await here.frames[1].evaluate(f"location.href = '{site.url}/download/ours.txt'")
        return await waiting

    result = browser.run(asyncio.wait_for(scene(), 30))

    assert len(elsewhere.frames) == 5
    assert Path(result.data["path"]).name == "ours.txt"


def test_scroll(form):
    assert form.do("scroll", amount=500).message == "Scrolled by 500 px"
    assert form.observe().scroll.y == 500
    assert form.do("scroll").message == "Scrolled by 972 px"
    form.do("scroll", selector="#bottom")
    assert form.js("bottom.getBoundingClientRect().top < innerHeight")
    form.do("scroll", amount=10_000)
    assert form.execute("scroll").message == "There is nothing more to scroll"


def test_what_is_waited_for(form, site):
    form.js("setTimeout(() => { said.textContent = 'finally' }, 100)")
    assert form.do("wait", text="finally").message == "The text 'finally' is there"
    form.js("setTimeout(() => { said.innerHTML = '<b id=bold>x</b>' }, 100)")
    assert form.do("wait", selector="#bold").success
    form.js("setTimeout(() => { history.pushState({}, '', '/done') }, 100)")
    assert form.do("wait", url="**/done").message == f"The page is at {site.url}/done"
    assert form.do("wait", load_state="load").success
    assert form.do("wait", seconds=0.01).message == "Waited 0.01 s"
    late = form.execute("wait", text="not to be seen", timeout=0.2)
    assert (late.success, late.error) == (False, "Timeout")


def test_javascript_gives_values_and_its_errors(browser, site):
    browser.goto(f"{site.url}/plain")

    assert browser.js("1 + 1") == 2
    assert browser.js("() => document.title") == "Plain"
    assert browser.js("new Promise(resolve => setTimeout(resolve, 10, {a: [1, null, 'x']}))") == {"a": [1, None, "x"]}
    failed = browser.execute("evaluate_js", code="no_such_thing()")
    assert (failed.success, failed.error) == (False, "Refused")
    assert "no_such_thing is not defined" in failed.message
    large = browser.execute("evaluate_js", code="'x'.repeat(10_000_000)")
    assert large.message == "The value has 10000005 bytes, more than the 8388608 that are allowed"
    assert large.data is None
    assert browser.execute("evaluate_js", code="2n ** 100n").error == "Refused"
    assert browser.execute("evaluate_js", code="nothing.at.all").message == "ReferenceError: nothing is not defined"
    assert browser.js("new Date(0)") == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        (
            {"selector": "#no-such", "timeout": 0.3},
            "Timeout",
            "Nothing on the page is #no-such within 0.3 s; raise timeout=",
        ),
        ({"role": "button", "name": "Never", "timeout": 1}, "Timeout", "is disabled, still after 1 s"),
        ({"selector": "button"}, "Refused", "'button' finds 8 elements of the page"),
        ({"selector": "p >>> q:::"}, "Refused", ""),
        ({"ref": "e5"}, "StaleElement", "There is no element 'e5'"),
    ],
)
def test_what_the_page_refuses_is_said(form, fields, error, says):
    result = form.execute("click", **fields)

    assert (result.success, result.error) == (False, error)
    assert says in result.message
    assert "\n" not in result.message
    assert not result.page_changed


def test_elements_in_frames_are_found_by_role_too(browser, site):
    browser.goto(f"{site.url}/frames")
    browser.do("wait", load_state="load")
    browser.js("document.querySelector('[title=far]').remove()")

    browser.do("click", role="button", name="Inside")

    assert "Inside clicked" in str(browser.observe())


def test_two_clients_at_once_do_not_mix_their_actions(form):
    async def both():
        return await asyncio.gather(
            *(
                form.browser.execute(Fill(f"{who} {n}", selector=f"#{who}"))
                for n in range(10)
                for who in ("name", "notes")
            ),
            *(form.browser.observe() for _ in range(3)),
        )

    results = form.run(both())

    assert all(result.success for result in results[:20])
    assert [value(form, who) for who in ("name", "notes")] == ["name 9", "notes 9"]


def test_a_screenshot_is_a_picture_of_the_view_or_of_the_page(form):
    view, page = form.run(form.browser.screenshot()), form.run(form.browser.screenshot(full_page=True))

    def size(png):
        assert png.startswith(b"\x89PNG\r\n")
        return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])

    assert size(view) == (1280, 1080)
    assert size(page)[0] == 1280
    assert size(page)[1] > 3000


def test_a_screenshot_of_an_element_named_in_any_way_is_as_large_as_that_element(form):
    def picture(target):
        png = form.run(form.browser.screenshot(parse_target(target)))
        return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])

    ref = form.ref("button", "Rename me")
    form.js(
        "[...document.querySelectorAll('button')].find(one => one.textContent === 'Rename me').style.cssText ="
        " 'position:absolute;top:2500px;left:10px;width:120px;height:40px'"
    )
    ways = [ref, "text=Rename me", {"role": "button", "name": "Rename me"}, Target(ref=ref), {"id": ref}]

    assert [picture(way) for way in ways] == [(120, 40)] * len(ways)
    with pytest.raises(BrowserError, match=r"There is no picture of it: 'button' finds \d+ elements of the page"):
        picture("button")
    with pytest.raises(BrowserError, match=r"^Nothing on the page is #nowhere$"):
        picture("#nowhere")
    form.js("document.body.insertAdjacentHTML('beforeend', '<p hidden id=hid>Hidden</p>')")
    with pytest.raises(BrowserError, match=r"^There is no picture of #hid: it is hidden$"):
        picture("#hid")
    with pytest.raises(StaleElement):
        picture("d9999e1")
    with pytest.raises(InvalidAction, match="did you mean 'role'"):
        parse_target({"rol": "button"})
    with pytest.raises(InvalidAction, match="An element is named by a ref, a selector, a Target, or a dict"):
        parse_target(True)  # what was `full_page` once


def test_refs_act_in_their_own_tab(browser, site):
    browser.goto(f"{site.url}/form")
    ref = ref_of(browser.observe(), "button", "Rename me")
    first = browser.observe().tab
    browser.do("new_tab", url=f"{site.url}/plain")

    browser.do("click", ref=ref)

    browser.do("switch_tab", tab=first)
    assert browser.js("rename.textContent") == "Renamed"
