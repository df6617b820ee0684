"""Where things are looked for: in every frame, also in one that comes late, and at what is visible."""

import pytest

from runtimed.actions import Target
from runtimed.errors import BrowserError
from tests.browser.server import HANGS

LATE = """setTimeout(() => {
  const frame = document.createElement('iframe');
  frame.src = 'ADDRESS/inner';
  document.body.append(frame);
}, 300)"""

HIDDEN_FIRST = """document.body.innerHTML = `
  <p style="display: none" class="note">Ready</p><button style="display: none">Go</button>
  <iframe srcdoc="<p class=note>Ready</p>
    <button onclick='this.textContent = &quot;Gone&quot;'>Go</button>"></iframe>`"""


@pytest.fixture
def plain(browser, site):
    browser.goto(f"{site.url}/plain")
    return browser


@pytest.mark.parametrize("host", ["url", "other"])
def test_what_comes_late_in_a_frame_that_comes_late_is_found(plain, site, host):
    plain.js(LATE.replace("ADDRESS", getattr(site, host)))

    assert plain.do("wait", text="Inside").message == "The text 'Inside' is there"
    assert plain.do("wait", selector="a[href='/inner?again']").success
    plain.goto(f"{site.url}/plain")
    plain.js(LATE.replace("ADDRESS", getattr(site, host)))

    assert plain.do("click", role="button", name="Inside").message == 'Clicked button "Inside"'
    assert "Inside clicked" in str(plain.observe())


def test_what_is_hidden_does_not_stand_for_what_is_visible(plain):
    plain.js(HIDDEN_FIRST)

    assert plain.do("wait", selector=".note").success
    assert plain.do("wait", text="Ready").success
    plain.do("click", selector="button")

    assert 'button "Gone"' in str(plain.observe())
    plain.js("document.querySelector('iframe').remove()")
    hidden = plain.execute("wait", selector=".note", timeout=0.3)
    assert (hidden.error, hidden.message) == (
        "Timeout",
        ".note was not there within 0.3 s, in no frame; raise timeout=",
    )


def test_what_is_hidden_beside_one_that_is_visible_makes_it_no_less_the_one(plain):
    plain.js("document.body.innerHTML = '<button hidden>Go</button><button>Go</button><button hidden>Go</button>'")

    assert plain.do("click", selector="button").message == "Clicked button"
    plain.js("document.body.innerHTML = '<button>Go</button><button hidden>Go</button><button>Go</button>'")
    assert plain.execute("click", selector="button").message.startswith("'button' finds 2 elements of the page")


BUTTON = "<button onclick='parent.document.title += 1'>Deep</button>"
FRAME = f'<iframe srcdoc="{BUTTON}"></iframe>'


def show(plain, body):
    """Let the page show this, and wait until its frames are there."""
    plain.js(f"""document.title = '';
      document.body.innerHTML = {body!r};
      const frames = [...document.querySelectorAll('iframe')];
      await Promise.all(frames.map(frame => new Promise(done => {{ frame.onload = done; }})))""")


@pytest.mark.parametrize("body", [BUTTON + FRAME, FRAME + FRAME], ids=["the page and a frame", "two frames"])
@pytest.mark.parametrize("fields", [{"selector": "button"}, {"role": "button", "name": "deep"}], ids=["css", "role"])
def test_one_of_several_in_different_frames_is_not_taken_for_the_one(plain, body, fields):
    show(plain, body)

    results = [plain.execute(kind, **fields) for kind in ("click", "hover")]

    selector = fields.get("selector", 'role=button[name*="deep" i]')
    says = f"{selector!r} finds elements in 2 frames of the page; name one by its ref (observe() shows them)"
    assert [(result.error, result.message) for result in results] == [("Refused", says)] * 2
    assert plain.js("document.title") == ""
    plain.js("void document.querySelector('iframe').remove()")
    assert plain.do("click", **fields).success
    assert plain.js("document.title") == "1"


def test_an_exact_match_in_one_frame_is_meant_before_partial_ones_in_others(plain):
    frame = FRAME.replace("Deep", "Deeper")
    show(plain, frame + FRAME + frame)

    plain.do("click", role="button", name="Deep")

    assert plain.js("document.title") == "1"


def test_a_file_input_is_found_though_pages_hide_it(plain, tmp_path):
    file = tmp_path / "given.txt"
    file.write_text("given")
    plain.js("document.body.innerHTML = '<input type=file hidden>'")

    assert plain.do("upload_file", selector="input", path=str(file)).message == "Gave given.txt to input"


def test_what_is_to_go_is_waited_for_in_all_frames(plain, site):
    plain.goto(f"{site.url}/frames")
    plain.do("wait", selector="text=Load again")

    still = plain.execute("wait", gone="text=Load again", timeout=0.3)
    assert (still.error, still.message) == (
        "Timeout",
        "text=Load again is still there after 0.3 s; raise timeout=",
    )
    plain.js("setTimeout(() => { document.querySelectorAll('iframe').forEach(frame => frame.remove()) }, 200)")

    assert plain.do("wait", gone="text=Load again").message == "text=Load again is not there"
    assert plain.do("wait", gone=".never-there").success


def test_a_selector_that_cannot_be_read_is_said_at_once(plain):
    failed = plain.execute("wait", selector="p >>> q:::", timeout=20)

    assert failed.error == "Refused"
    assert (failed.ended_at - failed.started_at).total_seconds() < 10


def test_a_frame_that_hangs_does_not_hide_what_the_others_show(plain, site):
    frames = f'<iframe src="{site.other}/inner"></iframe><iframe src="{site.url}/inner"></iframe>'
    plain.js(f"void (document.body.innerHTML = {frames!r})")
    plain.until(lambda: sum("/inner" in each for each in plain.addresses()) == 2, "the frames are not there")
    plain.do("wait", selector="text=Inside")

    async def hang():
        frames = plain.browser._tabs.latest.page.frames
        await next(one for one in frames if one.url.startswith(site.other)).evaluate(f"setTimeout(() => {{ {HANGS} }})")

    plain.run(hang())

    assert plain.do("click", selector="a[href='/inner?again']", timeout=8).success
    silent = plain.execute("wait", gone="text=Nowhere", timeout=0.5)
    assert (silent.error, silent.message) == (
        "Timeout",
        "The page did not answer within 0.5 s whether text=Nowhere is still there; raise timeout=, or end a page that "
        "hangs with close_tab",
    )
    plain.js("document.querySelector('iframe').remove()")


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        ("div[[", 'Unexpected token "" while parsing css selector "div[["'),
        ("p:nth-foo(1)", "'p:nth-foo(1)' is not a valid selector"),
        ("//div[", "//div[' is not a valid XPath expression"),
        ("text=/(/", "Invalid regular expression: /(/: Unterminated group"),
        ("role=button[name", "Unexpected end of selector while parsing selector `button[name`"),
        ("nosuch=1", 'Unknown engine "nosuch" while parsing selector'),
    ],
)
def test_a_selector_that_cannot_be_read_gets_a_sentence_wherever_it_is_given(browser, selector, reason):
    browser.goto("data:text/html,<button>Buy</button><p>Tea</p>")
    said = [browser.execute(kind, selector=selector).message for kind in ("click", "wait")]
    schema = {"type": "object", "properties": {"a": {"type": "string", "selector": selector}}}
    for ask in (
        browser.browser.observe(scope=selector),
        browser.browser.scrape(selector=selector),
        browser.browser.screenshot(Target(selector=selector)),
        browser.browser.scrape(schema=schema),
    ):
        with pytest.raises(BrowserError) as raised:
            browser.run(ask)
        said.append(raised.value.message)

    for message in said:
        assert " is no selector: " in message
        assert reason in message
        assert "<anonymous>" not in message
        assert message.endswith("or give role= and name=")
    assert said[0].startswith(f"{selector!r} is no selector")
