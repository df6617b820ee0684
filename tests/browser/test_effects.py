"""Actions have their effect or say that they have not: fields, switches, drags, and pages that swallow their input."""

from datetime import timedelta
from typing import Any

import pytest
from playwright.async_api import async_playwright

from runtimed.actions import Click, Drag, EvaluateJs, Fill, Hover, Secret, Target, Type, parse_action
from runtimed.browser.doing import Refused
from runtimed.browser.keys import key_of
from tests.conftest import wait_until

HELD = "(element => element.value ?? element.innerText)(document.getElementById('ID'))"


@pytest.fixture
def page(browser, site):
    browser.goto(f"{site.url}/effects")
    return browser


def held(page, field):
    return page.js(HELD.replace("ID", field))


def said(page):
    return page.js("said.textContent")


def test_a_field_of_any_kind_holds_what_was_filled_in(page):
    values = {
        "text": "Ada", "area": "two\nlines", "email": "a@b.org", "number": "-12.5", "date": "2026-11-29",
        "time": "12:30", "local": "2026-11-29T12:30", "month": "2026-11", "week": "2026-W48", "colour": "#ff8800",
        "range": "30", "password": "secret", "search": "x", "react": "Ada", "rich": "two\nlines", "onkey": "日本",
    }  # fmt: skip

    for field, value in values.items():
        assert page.do("fill", selector=f"#{field}", value=value).message == f"Filled #{field}"
    page.do("fill", selector="#label", value="by its label")

    assert {field: held(page, field) for field in values} == values
    assert held(page, "labelled") == "by its label"
    assert page.js("react.dataset.state") == "Ada"


def test_a_mask_applies_to_what_is_filled_in(page):
    for field in ("keydown", "keyup", "masked"):
        result = page.do("fill", selector=f"#{field}", value="01022026")

        assert held(page, field) == "01/02/2026"
        assert result.message == f"Filled #{field}; the page has made '01/02/2026' of it"
        page.do("fill", selector=f"#{field}", value="31122027")
        assert held(page, field) == "31/12/2027", field
        page.do("clear", selector=f"#{field}")
        assert held(page, field) == "", field


def test_a_field_that_hears_of_keys_alone_is_emptied_by_its_keys(page):
    for field in ("pin", "card-kind"):
        for value in ("12345", "7", "1234567890123456"):
            assert page.do("fill", selector=f"#{field}", value=value).message == f"Filled #{field}"
            assert held(page, field) == value, field
        page.do("clear", selector=f"#{field}")
        assert held(page, field) == "", field


def test_a_form_of_the_pages_own_adds_what_stands_apart(page):
    for value in ("12", "13"):
        filled = page.do("fill", selector="#unit", value=value)
        assert filled.message == f"Filled #unit; the page has made '{value} kg' of it"
    doubled = page.execute("fill", selector="#twice", value="123")
    assert (doubled.error, doubled.message) == ("Refused", "#twice was filled in, and holds '112233'")


def test_what_is_typed_behind_a_mask_takes_its_form(page):
    page.do("fill", selector="#upper", value="abc")
    assert (
        page.do("type", selector="#upper", value="de").message == "Typed into #upper; the page has made 'ABCDE' of it"
    )
    page.do("type", selector="#phone", value="555")
    typed = page.do("type", selector="#phone", value="1234567")
    assert typed.message == "Typed into #phone; the page has made '(555) 123-4567' of it"
    page.js("document.activeElement.blur()")
    page.do("fill", selector="#phone", value="555")
    page.js("document.activeElement.blur()")
    assert page.do("type", selector="#phone", value="1234567").message == typed.message


def test_a_moment_may_be_written_in_any_way_that_html_takes(page):
    for value in ("2026-11-29 12:30", "2026-11-29T12:30:00"):
        assert page.do("fill", selector="#local", value=value).message == "Filled #local"
        assert held(page, "local") == "2026-11-29T12:30", value
        page.do("clear", selector="#local")


def test_suggestions_open_for_what_is_written(page):
    for action in ("fill", "type"):
        for field in ("onkey", "oninput"):
            page.do(action, selector=f"#{field}", value="ber")

            # What it suggests for the keys before is there first.
            wait_until(lambda: page.js("list.textContent") == "BerlinBern", f"no suggestions: {action}, {field}")
            page.js(f"document.getElementById('{field}').value = list.textContent = ''")


def test_a_field_that_takes_something_else_says_what_it_holds(page):
    says = {
        ("short", "abcdefgh"): "#short was filled in, and holds 'abcde': it takes at most 5 characters",
        ("short", Secret("abcdefgh")): "#short was filled in, and holds 5 characters: it takes at most 5 characters",
        ("fixed", "Ada"): "#fixed was filled in, and holds ''",
        ("digits", "1a2"): "#digits was filled in, and holds '12'",
        ("date", "29/11/2026"): "#date holds nothing of that: it takes a date such as 2026-11-29",
        ("number", "many"): "#number holds nothing of that: it takes a number such as 12.5",
        ("readonly", "x"): "#readonly is read-only; timeout= waits until it is not",
    }

    results = {(field, value): page.execute("fill", selector=f"#{field}", value=value) for field, value in says}

    assert {case: result.message for case, result in results.items()} == says
    assert {(result.success, result.error) for result in results.values()} == {(False, "Refused")}


def test_a_field_is_read_as_it_is_whatever_the_page_tells_of_it(page):
    page.js("Object.defineProperty(text, 'value', { get: () => 'another', configurable: true })")

    assert page.do("fill", selector="#text", value="Ada").message == "Filled #text"

    page.js("delete text.value")
    assert held(page, "text") == "Ada"


def test_nothing_is_written_where_people_cannot_write(page):
    for state in ("aria-disabled='true'", "style='visibility: hidden'"):
        page.js(f"text.outerHTML = `<input id=text {state}>`")

        refused = page.execute("fill", selector="#text", value="Ada", timeout=0.3)

        assert (refused.success, refused.error) == (False, "Timeout"), state
        assert held(page, "text") == "", state


def test_what_is_typed_comes_key_by_key_behind_what_the_field_holds(page):
    page.do("fill", selector="#text", value="ab")
    page.js("document.activeElement.blur(); keys.length = 0")

    assert page.do("type", selector="#text", value="cd").message == "Typed into #text"
    assert page.js("keys.slice(-2)") == ["c", "d"]
    assert held(page, "text") == "abcd"
    page.do("press_key", key="Home")
    page.do(Type("0", selector="#text"))
    assert held(page, "text") == "0abcd"  # at the caret, where the field has the focus
    page.do(Type("é!", selector="#text", clear=True, press_enter=True, delay=0.01))
    assert (held(page, "text"), said(page)) == ("é!", "sent")
    page.do(Type(Secret("swordfish")))
    assert page.js("text.value.length") == len("é!swordfish")
    assert page.js("text.style.webkitTextSecurity") == "disc"
    refused = page.execute("type", selector="#short", value="abcdefgh")
    assert refused.message == "#short was typed, and holds 'abcde': it takes at most 5 characters"
    assert "swordfish" not in f"{page.observe()}{page.heard.entries}"
    for field, why in (("readonly", "read-only"), ("disabled", "disabled")):
        assert page.execute("type", selector=f"#{field}", value="x").message == f"#{field} is {why}"


def test_a_list_that_takes_its_choice_back_says_what_is_chosen(page):
    result = page.execute("select_option", selector="#select", value="two")

    assert (result.error, result.message) == ("Refused", "#select has one chosen, not two")


def test_a_switch_may_follow_late(page):
    assert page.do("check", selector="#switch").message == "Checked #switch"
    assert page.js("[document.getElementById('switch').ariaChecked, clicks]") == ["true", 1]
    page.do("check", selector="#switch")
    page.js("window.delay = 1000")
    page.do("check", role="switch", name="Switch", value=False)
    assert page.js("[document.getElementById('switch').ariaChecked, clicks]") == ["false", 2]

    result = page.execute("check", selector="#dead", timeout=0.5)

    assert (result.error, result.message) == ("Refused", "#dead was clicked, and is not checked since")


def test_a_box_that_a_page_draws_itself_is_checked_by_its_label(page):
    assert page.do("check", selector="#toggle").message == "Checked #toggle"
    assert page.js("toggle.checked")
    page.do("check", selector="#toggle", value=False)
    assert not page.js("toggle.checked")


def test_a_code_goes_on_in_the_boxes_that_follow(page):
    for action in ("fill", "type"):
        page.do(action, selector="#code input:first-child", value="1234")
        page.do("fill", selector="#code input:last-child", value="5")

        assert page.js("boxes.map(box => box.value).join('')") == "1235", action
        page.js("for (const box of boxes) box.value = ''; document.activeElement.blur()")


def test_a_code_takes_the_place_of_another_one_and_waits_for_where_it_is_led(page):
    first = "#code input:first-child"
    page.do("fill", selector=first, value="1234")
    page.js("window.leading = 30")

    page.do("fill", selector=first, value="5678")

    assert page.js("boxes.map(box => box.value).join('')") == "5678"
    result = page.execute("fill", selector="#unled input:first-child", value="12")
    assert (result.error, result.message) == (
        "Refused",
        "#unled input:first-child was filled in, and holds '1': it takes at most 1 characters",
    )


def test_an_action_for_another_kind_of_element_says_which_is_for_this_one(page):
    asked = [
        {"type": "check"},
        {"type": "fill", "value": ""},
        {"type": "select_option", "value": ""},
    ]

    results = [page.execute({**action, "selector": "#count"}) for action in asked]

    assert [(result.error, result.message) for result in results] == [
        ("Refused", "#count is no checkbox, radio button or switch; click presses what else there is"),
        ("Refused", "#count is no field; click it, and see with observe() whether that opens one"),
        (
            "Refused",
            "#count is no list of options of HTML's own; click opens it, and then clicks an option of it",
        ),
    ]


def test_what_cannot_be_clicked_is_said_soon(page):
    why = {
        "off": "is disabled",
        "aria": "is disabled",
        "inert": "is inert, as what is behind an open dialog",
        "through": "is transparent for the pointer (pointer-events: none)",
        "covered": 'is covered by <div id="cover">Cover</div>',
    }

    results = {name: page.execute("click", selector=f"#{name}") for name in why}

    # Without a word on it, ten seconds.
    assert max(result.ended_at - result.started_at for result in results.values()) < timedelta(seconds=9)
    assert {name: (result.error, result.message) for name, result in results.items()} == {
        name: ("Refused", f"#{name} {reason}; timeout= waits until it is not") for name, reason in why.items()
    }


def test_what_was_waited_for_in_vain_is_said_when_the_time_is_over(page):
    says: list[tuple[dict[str, Any], str]] = [
        ({"type": "fill", "selector": "#readonly", "value": "x"}, "#readonly is read-only, still after 1.5 s"),
        ({"type": "hover", "selector": "#through"}, "#through is transparent for the pointer (pointer-events: none), "
         "still after 1.5 s"),
        ({"type": "drag", "selector": "#card", "to": "#covered"}, '#covered is covered by <div id="cover">Cover</div>, '
         "still after 1.5 s"),
        ({"type": "click", "selector": "#canvas", "x": 500, "y": 9}, "#canvas is 200 by 60, and the point 500, 9 is "
         "outside of it, still after 1.5 s"),
        ({"type": "drag", "selector": "#card", "to": "#missing"}, "Nothing on the page is #missing within 1.5 s; "
         "raise timeout="),
        ({"type": "drag", "x": 9, "y": 9, "to": "#missing"}, "Nothing on the page is #missing within 1.5 s; "
         "raise timeout="),
    ]  # fmt: skip

    results = [page.execute({**action, "timeout": 1.5}) for action, _ in says]

    assert [(result.error, result.message) for result in results] == [("Timeout", sentence) for _, sentence in says]
    assert max(result.ended_at - result.started_at for result in results) < timedelta(seconds=5)


def test_what_stays_hidden_is_said_to_be_when_the_time_is_over(page):
    hidden = "<input type=checkbox id=hidden-box hidden><input id=hidden-field hidden>"
    page.js(f"document.body.insertAdjacentHTML('beforeend', '{hidden}')")
    asked = [("check", "#hidden-box"), ("clear", "#hidden-field"), ("scroll", "#hidden-box")]

    told = [page.execute(kind, selector=selector, timeout=1) for kind, selector in asked]

    assert [(result.error, result.message) for result in told] == [
        ("Timeout", f"{selector} is hidden, still after 1 s") for _, selector in asked
    ]


def test_what_can_be_clicked_in_a_moment_is_waited_for(page):
    page.js("setTimeout(() => { off.disabled = false }, 300)")
    page.do("click", selector="#off")
    page.js("setTimeout(() => { cover.remove() }, 1500)")
    page.do("click", selector="#covered", timeout=20)


def test_a_page_that_is_busy_with_a_click_is_clicked_once(page):
    page.do("click", selector="#slow")

    assert page.js("clicks") == 1


def test_points_of_an_element_and_of_the_view_are_clicked_and_dragged(page):
    page.do("click", selector="#canvas", x=30, y=20)
    left, top = page.js("(box => [box.x, box.y])(canvas.getBoundingClientRect())")
    page.do(Click(x=left + 5, y=top + 6, modifiers=("Shift",)))
    assert page.js("drawn.filter(([type]) => type === 'click').map(event => event.slice(1, 3))") == [[30, 20], [5, 6]]
    page.js("drawn.length = 0")
    page.do(Hover(x=left + 9, y=top + 9))
    page.do(Drag(Target(selector="#canvas", x=150, y=50), selector="#canvas", x=10, y=10))
    page.do(Drag(Target(x=left + 20, y=top + 20), x=left + 40, y=top + 40))

    drawn = page.js("drawn")
    assert drawn[0] == ["mousemove", 9, 9, 0]
    assert [event for event in drawn if event[0] in ("mousedown", "mouseup")] == [
        ["mousedown", 10, 10, 1],
        ["mouseup", 150, 50, 0],
        ["mousedown", 40, 40, 1],
        ["mouseup", 20, 20, 0],
    ]
    outside = page.execute("click", x=5000, y=1)
    assert outside.message == "The point 5000, 1 is outside of the view, which is 1280 by 1080; scroll before"


def test_what_is_dragged_arrives_or_that_is_said(page):
    assert page.do("drag", selector="#card", to={"selector": "#tray"}).message == "Dragged #card to #tray"
    assert page.js("tray.textContent") == "holds card"
    page.do("drag", selector="#chip", to={"selector": "#bin"})
    assert said(page) == "chip on bin"
    page.do("drag", selector="#card", to="#inner")
    page.do("wait", text="holds card")

    result = page.execute("drag", selector="#card", to={"selector": "#bin"})

    assert (result.error, result.message) == (
        "Refused",
        "#bin takes nothing that is dragged there; nothing has changed",
    )
    page.do("click", selector="#count")
    assert page.js("clicks") == 1


@pytest.mark.parametrize("happens", ["tray.remove()", "location.reload()", "alert('Sure?')"])
def test_after_a_drag_that_goes_wrong_the_page_is_clicked_and_typed_into(page, happens):
    page.js(f"card.addEventListener('dragstart', () => {{ {happens} }})")

    page.execute("drag", selector="#card", to={"selector": "#tray"}, timeout=1)

    if "alert" in happens:
        page.do("handle_dialog")
    page.do("click", selector="#count")
    page.do("press_key", selector="#text", key="a")
    assert page.js("[clicks, text.value]") == [1, "a"]


def test_a_drag_to_what_cannot_be_reached_presses_nothing(page):
    for clicks, wrong in enumerate(("#hidden", "#covered"), 1):
        page.execute("drag", selector="#card", to={"selector": wrong}, timeout=0.5)
        page.do("click", selector="#count")

        assert page.js("clicks") == clicks, wrong


def test_a_page_that_a_drag_of_another_client_holds_gets_its_input_once(page):
    actions = [
        ({"type": "click", "selector": "#count"}, "clicks"),
        ({"type": "press_key", "selector": "#text", "key": "1"}, "text.value"),
        ({"type": "type", "selector": "#text", "value": "1"}, "text.value"),
        ({"type": "fill", "selector": "#text", "value": "1"}, "text.value"),
    ]

    async def leave_a_drag(playwright):
        other = await playwright.chromium.connect_over_cdp(page.browser.cdp_url)
        card = other.contexts[0].pages[-1].locator("#card")
        await card.hover()
        await card.page.mouse.down()
        await card.page.mouse.move(60, 300, steps=3)
        await other.close()

    async def act():
        got = []
        async with async_playwright() as playwright:
            for action, sees in actions:
                await page.browser.execute(EvaluateJs("clicks = 0; text.value = ''"))
                await leave_a_drag(playwright)
                assert (await page.browser.execute(EvaluateJs("card.className"))).data == "moving", action
                done = await page.browser.execute(parse_action(action))
                got.append((done.error, str((await page.browser.execute(EvaluateJs(sees))).data)))
        return got

    assert page.run(act()) == [(None, "1")] * len(actions)


@pytest.mark.parametrize(
    "happens",
    [
        "for (const type of ['pointermove', 'pointerdown', 'keydown'])"
        " window.addEventListener(type, event => event.stopImmediatePropagation(), true)",
        "document.open(); document.write('<button id=count onclick=\"clicks += 1\">Count</button>'); document.close()",
    ],
)
def test_a_page_that_keeps_events_to_itself_is_clicked_once(page, site, happens):
    page.goto(f"{site.url}/plain")
    page.browser._tabs.latest.first_watch = None  # as before the first action on the page
    page.run(page.browser._tabs.latest.page.evaluate(happens))
    page.js(
        "window.clicks = 0; document.getElementById('count') ?? document.body.append(Object.assign("
        "document.createElement('button'), {id: 'count', textContent: 'Count', onclick() { clicks += 1 }}))"
    )

    page.do("click", selector="#count")
    page.do("click", selector="#count")

    assert page.js("clicks") == 2


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("Esc", "Escape"), ("Return", "Enter"), ("ctrl+k", "Control+k"), ("Ctrl+K", "Control+k"), ("cmd + s", "Meta+s"),
        ("shift+tab", "Shift+Tab"), ("Shift+a", "Shift+A"), ("pgdn", "PageDown"), ("down", "ArrowDown"), (" ", "Space"),
        ("+", "+"), ("Control++", "Control++"), ("ctrl-k", "Control+k"), ("-", "-"), ("a", "a"), ("A", "A"),
        ("Ctrl+Alt+Del", "Control+Alt+Delete"), ("f5", "F5"), ("KeyA", "KeyA"), ("ControlOrMeta+A", "ControlOrMeta+a"),
    ],
)  # fmt: skip
def test_keys_have_the_names_that_people_use(written, key):
    assert key_of(written) == key


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("Escpe", "There is no key 'Escpe'; did you mean 'Escape'?"),
        ("é", "There is no key 'é'; type writes text"),
        ("a+b", "'a' in 'a+b' is no modifier; those are Alt, Control, Meta and Shift"),
        ("Control+", "A key is missing in 'Control+'"),
        ("", "A key is missing in ''"),
    ],
)
def test_a_key_that_is_none_is_named(written, says):
    with pytest.raises(Refused) as caught:
        key_of(written)

    assert caught.value.message == says


def test_a_combination_reaches_the_page_as_from_a_keyboard(page):
    assert page.do("press_key", key="Ctrl+K").message == "Pressed Ctrl+K"
    assert said(page) == "palette"
    page.do("press_key", selector="#text", key="Return")
    assert said(page) == "sent"


def test_a_name_is_a_part_in_any_case_unless_it_is_to_be_exact(page):
    page.do("click", role="Button", name="save AS")
    assert said(page) == "as"
    page.do("click", role="button", name="Save")  # that of which it is the whole name
    assert said(page) == "saved"
    page.do("click", role="button", name="Save as…", exact=True)
    assert said(page) == "as"
    assert page.execute("click", role="button", name="save", exact=True, timeout=0.2).error == "Timeout"
    several = page.execute("click", role="button", name="ave")
    assert "finds 2 elements of the page" in several.message


def test_code_of_any_form_gives_its_value(page):
    gives = [
        ("return 5", 5),
        ("const one = 1; return one + 1", 2),
        ("const one = 1; one + 1", 2),
        ("await Promise.resolve(7)", 7),
        ("const page = await fetch('/plain'); return page.status", 200),
        ("{a: 1}", {"a": 1}),
        ("document.title // what it is called", "Effects"),
        ("function twice(n) { return 2 * n }; twice(2)", 4),
        ("async () => document.title", "Effects"),
        ("document.querySelector('#count')", '<button id="count" onclick="clicks += 1">Count</button>'),
        ("[Symbol('x'), document.querySelectorAll('option'), x => x]",
         ["Symbol(x)", ["<option>one</option>", "<option>two</option>"], "x => x"]),
        ("({window, error: new Error('no'), get broken() { throw 1 }})",
         {"window": "[object Window]", "error": "Error: no"}),
        ("window.nothing", None),
    ]  # fmt: skip

    assert [(code, page.js(code)) for code, _ in gives] == gives


def test_code_runs_once_whatever_its_errors_are(page):
    page.js("window.runs = 0")

    failed = page.execute("evaluate_js", code="runs += 1; JSON.parse('{')")
    wrong = page.execute("evaluate_js", code="runs += 1; }")

    assert "SyntaxError: Expected property name" in failed.message
    assert "SyntaxError: Unexpected token '}'" in wrong.message
    assert page.js("runs") == 1


def test_a_level_that_is_none_is_no_lost_ref(page):
    ref = page.ref("button", "Count")
    with pytest.raises(Exception, match="depth is a number of levels from 1, not 0"):
        page.observe(scope=ref, depth=0)
    assert 'button "Count"' in page.observe(scope=ref, depth=1).tree


def test_what_is_written_is_an_action_like_any_other(page):
    result = page.do(Fill("x", selector="#text"))

    assert result.page_changed
    assert page.do("clear", selector="#text").message == "Cleared #text"
    assert held(page, "text") == ""


def test_a_long_text_gets_the_time_that_its_keys_take(page, monkeypatch):
    monkeypatch.setattr("runtimed.browser.doing.TIMEOUT", 0.05)
    text = "0123456789" * 30

    assert page.do("type", selector="#area", value=text).message == "Typed into #area"
    monkeypatch.undo()
    assert held(page, "area") == text


def test_a_text_that_takes_too_long_says_how_much_was_typed_and_ends_there(page):
    result = page.execute("type", selector="#area", value="a" * 20_000, timeout=0.5)

    typed = held(page, "area")
    assert (result.error, result.message) == (
        "Timeout",
        f"Only {len(typed)} of 20000 characters were typed into #area within 0.5 s; "
        "raise timeout=, or let fill put them there at once",
    )
    assert 0 < len(typed) < 20_000
    assert held(page, "area") == typed


LISTS = """data:text/html,<select id=one><option value=a>Ah<option>b<option disabled>c</select>
<select id=several multiple><option>x<option>y</select>
<button hidden>Later</button><button style='position:fixed;left:-999px'>Away</button>"""


def test_what_is_typed_where_nothing_gets_it_is_refused(browser):
    browser.goto("data:text/html,<title>0</title><input>")
    browser.js("document.activeElement.blur()")

    lost = browser.execute("type", value="lost")

    assert (lost.error, lost.message) == (
        "Refused",
        "Nothing has the focus, and the page does not listen for keys: name the field, or click it first",
    )
    browser.js("addEventListener('keydown', event => { document.title += event.key; }); 1")
    browser.do("type", value="12")
    assert browser.js("document.title") == "012"
    browser.goto("data:text/html,<body contenteditable>")
    browser.js("document.body.focus()")
    browser.do("type", value="kept")
    assert browser.js("document.body.innerText") == "kept"


def test_a_list_says_which_options_it_lacks_and_takes_several_only_where_it_can(browser):
    browser.goto(LISTS)

    results = [
        browser.execute("select_option", selector="#one", value=value, timeout=1) for value in (("a", "b"), "zz", "c")
    ]

    assert [(result.error, result.message) for result in results] == [
        ("Refused", "#one takes one option, not several: 'a', 'b'; nothing was chosen"),
        ("Timeout", "#one has had no option 'zz'; it has 'Ah' ('a'), 'b', 'c' (disabled), for 1 s"),
        ("Timeout", "#one has had no option 'c' that is enabled; it has 'Ah' ('a'), 'b', 'c' (disabled), for 1 s"),
    ]
    late = browser.execute("select_option", selector="#one", value="zz")
    assert (late.error, late.message) == (
        "Refused",
        "#one has no option 'zz'; it has 'Ah' ('a'), 'b', 'c' (disabled); timeout= waits for it",
    )
    assert (late.ended_at - late.started_at).total_seconds() < 9
    assert browser.do("select_option", selector="#several", value=("x", "y")).data == ["x", "y"]


def test_what_is_hidden_or_out_of_the_view_says_so_with_the_time_that_was_waited(browser):
    browser.goto(LISTS)

    hidden = browser.execute("click", selector="text=Later", timeout=0.5)
    away = browser.execute("click", selector="text=Away", timeout=0.5)
    browser.js("setTimeout(() => { document.querySelector('button').hidden = false }, 1500); 1")

    assert [hidden.message, away.message] == [
        "text=Later is hidden, still after 0.5 s",
        "text=Away is outside of the view, and does not scroll into it, still after 0.5 s",
    ]
    assert browser.do("click", selector="text=Later").message == "Clicked text=Later"


def test_what_a_wait_is_for_is_told_with_where_the_page_is(page, site):
    url = page.execute("wait", url="**/done", timeout=0.5)

    assert url.message == f"The page is at {site.url}/effects, not at **/done, after 0.5 s; raise timeout="


def test_a_role_that_does_not_exist_is_refused_with_the_nearest(page):
    result = page.execute("click", role="buton", name="Go")

    assert (result.error, result.message) == ("Refused", "There is no role 'buton'; did you mean 'button'?")


def test_a_moment_that_is_typed_names_the_form_that_fill_takes(page):
    result = page.execute("type", selector="#date", value="2026-11-29")

    assert result.error == "Refused"
    assert result.message.endswith(
        ": its keys are those of the browser's own field; fill takes a date such as 2026-11-29"
    )


def test_a_radio_button_is_not_unchecked(browser):
    browser.goto("data:text/html,<input type=radio checked>")

    result = browser.execute("check", selector="input", value=False)

    assert result.message == "input is a radio button, which only another one of its group unchecks"
