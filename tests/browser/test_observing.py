"""What observations show: everything on the page, refs that mean one element for ever, differences, parts."""

import re

import pytest

from runtimed import BrowserError, StaleElement
from runtimed.actions import Secret
from runtimed.browser.survey import survey
from tests.browser.conftest import ref_of


def test_an_observation_tells_where_it_is_and_what_is_there(browser, site):
    browser.goto(f"{site.url}/form")

    seen = browser.observe()

    assert (seen.title, seen.url, seen.since, seen.omitted, seen.dialog) == ("Form", f"{site.url}/form", None, 0, None)
    assert [(tab.title, tab.url, tab.active) for tab in seen.tabs] == [("Form", f"{site.url}/form", True)]
    assert seen.scroll is not None
    assert (seen.scroll.y, seen.scroll.view_width, seen.scroll.view_height) == (0, 1280, 1080)
    assert seen.scroll.page_height > 3000
    assert str(seen).startswith(f"Page: Form\nURL: {site.url}/form\nScrolled: 0 px above, ")
    button = seen.element(ref_of(seen, "button", "Order"))
    assert button is not None
    assert f'- button "Order" [ref={button.ref}]' in str(seen)
    assert button.selector == 'role=button[name="Order"]'


def test_iframes_and_shadow_dom_are_part_of_the_page(browser, site):
    browser.goto(f"{site.url}/frames")
    browser.do("wait", load_state="load")

    seen = browser.observe()

    names = [(element.role, element.name) for element in seen.elements]
    assert names.count(("button", "Inside")) == 2
    assert ("button", "Shadow button") in names
    near, far = (element for element in seen.elements if element.name == "Inside")
    browser.do("click", ref=far.ref)
    browser.do("click", ref=ref_of(seen, "button", "Shadow button"))
    after = str(browser.observe())
    assert after.count("Inside clicked") == 1
    assert "Shadow clicked" in after
    browser.do("click", selector=near.selector)
    assert str(browser.observe()).count("Inside clicked") == 2


def test_what_a_page_renders_anew_meanwhile_is_in_no_observation_twice(browser, site, monkeypatch):
    browser.goto(f"{site.url}/form")
    browser.js("""document.body.innerHTML = '<p>Live</p><ul></ul><div contenteditable>My note</div>';
        window.render = () => { document.querySelector('ul').innerHTML =
            '<li><button onclick=1>Buy</button></li><li tabindex=0>Offer</li>'; };
        window.more = () => document.querySelector('ul').insertAdjacentHTML('beforeend',
            '<li><button onclick=1>More</button> <a href=/ onclick=1>Help</a></li>');
        render()""")
    shown = re.sub(r"ref=\w+", "ref", browser.observe().tree)

    changes = ["more()", "render()"]

    async def late(frame, *arguments, **options):
        await frame.evaluate(changes.pop())
        return await survey(frame, *arguments, **options)

    monkeypatch.setattr("runtimed.browser.surveyor.survey", late)

    while changes:
        browser.js("render()")
        assert re.sub(r"ref=\w+", "ref", browser.observe().tree) == shown


def test_a_ref_means_its_element_until_that_is_gone(browser, site):
    browser.goto(f"{site.url}/form")
    ref = browser.ref("button", "Nothing happens")

    browser.js("document.body.prepend(document.createElement('hr'))")
    browser.observe()
    browser.observe(scope="#order")
    browser.observe(interactive_only=True, depth=2)

    assert browser.do("click", ref=ref).message == 'Clicked button "Nothing happens"'


def test_a_stale_ref_fails_at_once_and_names_the_nearest_match(browser, site):
    browser.goto(f"{site.url}/form")
    ref = browser.ref("button", "Replace me")
    browser.do("click", ref=ref)

    result = browser.execute("click", ref=ref)

    now = browser.ref("button", "Replace me")
    assert now != ref
    assert (result.success, result.error, result.detail) == (False, "StaleElement", {"ref": ref, "nearest": now})
    assert result.message == (
        f'The element {ref} (button "Replace me") is no longer on the page; '
        f'the nearest one is {now} (button "Replace me")'
    )
    assert (result.ended_at - result.started_at).total_seconds() < 2
    assert browser.do("click", ref=now).success


def test_a_ref_whose_element_has_another_name_or_role_is_stale_with_the_ref_that_it_has_now(browser, site):
    browser.goto(f"{site.url}/plain")
    like = "<button onclick='this.textContent = `Unlike`'>Like</button>"
    html = f"<table><tr><td>Ada<td>{like}<tr><td>Bob<td>{like}</table><div id=x role=button tabindex=0>X</div>"
    browser.js(f"void (document.body.innerHTML = {html!r})")
    seen = browser.observe()
    like, other = (element.ref for element in seen.elements if element.name == "Like")
    box = ref_of(seen, "button", "X")
    browser.do("click", ref=like)
    browser.js("document.querySelector('#x').role = 'link'")

    now = browser.observe()

    named, made = browser.execute("click", ref=like), browser.execute("click", ref=box)

    unlike, link = ref_of(now, "button", "Unlike"), ref_of(now, "link", "X")
    assert (named.detail, made.detail) == ({"ref": like, "nearest": unlike}, {"ref": box, "nearest": link})
    assert named.message == f'The element {like} (button "Like") has changed: it is {unlike} (button "Unlike") now'
    with pytest.raises(StaleElement, match=f"has changed: it is {link} .link"):
        browser.observe(scope=box)

    browser.js("document.querySelector('tr').remove()")

    gone = browser.execute("click", ref=unlike)
    assert (gone.detail, other in str(browser.observe())) == ({"ref": unlike, "nearest": None}, True)


def test_what_is_no_size_and_no_observation_is_refused(browser, site):
    browser.goto(f"{site.url}/plain")
    for size in (0, -1):
        with pytest.raises(BrowserError, match=f"max_chars is a number of characters from 1, not {size}"):
            browser.observe(max_chars=size)
    for name in ("o99999", "99", "o0"):
        with pytest.raises(BrowserError, match=f"There is no observation '{name}' of this browser"):
            browser.observe(since=name)


def test_a_ref_of_another_document_is_stale_though_numbers_begin_anew_there(browser, site):
    browser.goto(f"{site.url}/form")
    old = browser.observe()
    browser.goto(f"{site.url}/form")

    refs = {element.ref for element in browser.observe().elements}

    assert not refs & {element.ref for element in old.elements}
    assert browser.execute("click", ref=ref_of(old, "button", "Order")).error == "StaleElement"


def test_a_ref_in_a_frame_is_stale_when_the_frame_shows_another_document(browser, site):
    browser.goto(f"{site.url}/frames")
    browser.do("wait", load_state="load")
    seen = browser.observe()
    near, far = (element for element in seen.elements if element.name == "Inside")
    outside = ref_of(seen, "button", "Shadow button")
    link = next(element for element in seen.elements if element.name == "Load again")
    browser.do("click", ref=link.ref)
    browser.until(lambda: f"{site.url}/inner?again" in browser.addresses(), "the frame does not load again")

    assert browser.execute("click", ref=near.ref).error == "StaleElement"
    assert browser.do("click", ref=far.ref).success
    assert browser.do("click", ref=outside).success


def test_a_new_address_in_the_same_document_leaves_refs_alone(browser, site):
    browser.goto(f"{site.url}/form")
    ref = browser.ref("button", "Nothing happens")

    browser.js("history.pushState({}, '', '/elsewhere')")
    browser.js("location.hash = 'there'")

    assert browser.do("click", ref=ref).success
    assert browser.observe().url == f"{site.url}/elsewhere#there"


def test_the_difference_is_all_that_changed(browser, site):
    browser.goto(f"{site.url}/list")
    first = browser.observe()
    browser.do("click", role="button", name="Change")

    after = browser.observe(since=first.id)

    assert after.since == first.id
    assert "changed" in after.tree
    assert len(after.tree) < 0.05 * len(first.tree)
    assert browser.observe(since=after.id).tree == ""
    assert str(browser.observe(since=browser.observe().id)).endswith("\n(no change)")


def test_of_a_long_page_what_people_operate_is_a_fifth_at_most(browser, site):
    browser.goto(f"{site.url}/list")

    everything, some = browser.observe(), browser.observe(interactive_only=True)

    assert len(some.tree) < 0.2 * len(everything.tree)
    assert [element.role for element in some.elements] == ["link"] * 200 + ["button"]
    assert some.tree.splitlines()[0] == f'- link "More 0" [ref={some.elements[0].ref}]'


def operated(browser):
    """What people operate on the page, without the refs."""
    return re.sub(r" \[ref=\w+\]", "", browser.observe(interactive_only=True).tree).splitlines()


def test_what_can_be_focused_edited_or_clicked_is_operated_whatever_its_role(browser, site):
    browser.goto(f"{site.url}/pages/widgets")
    shown = operated(browser)
    assert shown.count('- generic "More options"') == 2  # summaries
    assert "- generic: Custom box" in shown  # the label of a box that is not to be seen
    browser.goto(f"{site.url}/pages/icons")
    shown = operated(browser)
    assert "- generic [contenteditable]: plain editor" in shown
    assert '- heading "Title" [level=2] [contenteditable]' in shown
    browser.goto(f"{site.url}/pages/shadow")
    assert "- generic: focus me" in operated(browser)


def test_what_people_operate_is_shown_also_where_a_snapshot_leaves_it_out(browser, site):
    browser.goto(f"{site.url}/pages/composer")
    browser.do("wait", load_state="load")

    seen = browser.observe()

    assert re.sub(r" \[ref=\w+\]", "", seen.tree).splitlines() == [
        "- generic [active]:",
        '  - heading "Chat" [level=1]',
        "  - generic [contenteditable]",
        '  - generic "Reply" [contenteditable]:',
        "    - paragraph",
        "  - generic [contenteditable]:",
        "    - paragraph: A draft",
        '  - generic "Attach"',
        "  - generic",
        "  - generic [cursor=pointer]",
        "  - generic: Focus me",
        '  - paragraph: "To write ask: here or leave."',
        '    - generic: "ask: here"',
        "  - table:",
        "    - rowgroup:",
        "      - row:",
        '        - cell "Edit":',
        "          - generic: Edit",
        '  - button "Send"',
        "  - iframe:",
        "    - generic [contenteditable]:",
        "      - paragraph",
        "  - iframe:",
        "    - generic:",
        "      - paragraph: Note",
        '      - generic "Note" [contenteditable]',
        "  - generic: Inside",
        '    - generic "Write …" [contenteditable]',
    ]
    assert operated(browser) == [
        "- generic [contenteditable]",
        '- generic "Reply" [contenteditable]',
        "- generic [contenteditable]: A draft",
        '- generic "Attach"',
        "- generic",
        "- generic",
        "- generic: Focus me",
        '- generic: "ask: here"',
        "- generic: Edit",
        '- button "Send"',
        "- generic [contenteditable]",
        '- generic "Note" [contenteditable]',
        '- generic "Write …" [contenteditable]',
    ]


def test_what_a_snapshot_leaves_out_is_acted_on_and_looked_at_by_its_ref(browser, site):
    browser.goto(f"{site.url}/pages/composer")
    browser.do("wait", load_state="load")
    seen = browser.observe()
    asked, focus, edit = (ref_of(seen, "generic", name) for name in ("ask: here", "Focus me", "Edit"))
    editors = [line.split("[ref=")[1].split("]")[0] for line in seen.tree.splitlines() if "contenteditable" in line]
    icon = seen.tree.split('"Attach"')[1].split("[ref=")[2].split("]")[0]

    titles = []
    for ref in (asked, focus, edit, icon):
        browser.do("click", ref=ref)
        titles.append(browser.js("document.title"))
    assert titles == ["asked", "focused", "edited", "sent"]
    browser.do("fill", ref=editors[0], value="hello")
    after = browser.observe(since=seen.id).tree
    assert f"+   - generic [active] [ref={editors[0]}] [contenteditable]: hello" in after.splitlines()
    assert browser.observe(scope=editors[1]).tree.startswith(f'- generic "Reply" [ref={editors[1]}] [contenteditable]')
    assert browser.observe(scope=edit).tree == f"- generic [ref={edit}]: Edit"
    browser.js("document.querySelector('td > span').remove()")
    assert browser.execute("click", ref=edit).error == "StaleElement"


def test_a_page_that_is_nothing_but_an_empty_editor_is_observed(browser, site):
    """In a tab that has shown another page Playwright's refs have a prefix, which an empty outline does not tell."""
    browser.goto(f"{site.url}/plain")
    browser.goto("data:text/html,<div contenteditable style='height:40px'></div>")

    seen = browser.observe()

    browser.do("fill", ref=seen.elements[0].ref, value="hello")
    assert re.fullmatch(r"- generic \[ref=d\d+e\d+\] \[contenteditable\]", seen.tree)
    assert browser.js("document.querySelector('div').textContent") == "hello"


def test_links_and_cards_without_a_name_say_what_is_in_them_or_where_they_lead(browser, site):
    browser.goto(f"{site.url}/pages/shop")

    shown = operated(browser)

    assert shown.count("- link: /p/red") == 1
    assert shown.count("- link: Blue mug") == 1
    assert '- link "Green mug 22,00 €"' in shown
    assert [line for line in shown if line.startswith("- generic: Grey mug ")]


def test_what_a_closed_list_offers_is_shown_with_it(browser, site):
    browser.goto(f"{site.url}/pages/checkout")

    shown = operated(browser)

    country = [
        '- combobox "Country"',
        '  - option "Austria"',
        '  - option "Germany" [selected]',
        '  - option "Switzerland"',
    ]
    first = shown.index(country[0])
    assert shown[first : first + 4] == country


def test_a_password_is_in_no_observation(browser, site):
    browser.goto(f"{site.url}/pages/login")

    for options in ({}, {"interactive_only": True}, {"scope": "form"}):
        seen = browser.observe(**options)
        assert "hunter2" not in str(seen)
        assert f'- textbox "Password" [ref={ref_of(seen, "textbox", "Password")}]: •••' in seen.tree
    before = browser.observe()
    browser.do("fill", role="textbox", name="Password", value="correct horse")
    assert "correct horse" not in browser.observe(since=before.id).tree


def test_a_part_is_looked_at_alone_and_its_refs_can_be_used(browser, site):
    browser.goto(f"{site.url}/many/1000")
    whole = browser.observe()
    first = ref_of(whole, "button", "Press 0")

    part = browser.observe(scope="p:last-of-type")

    button = ref_of(part, "button", "Press 499")
    assert button == ref_of(whole, "button", "Press 499")
    assert browser.do("click", ref=button).message == 'Clicked button "Press 499"'
    assert browser.observe(scope=first).tree == f'- button "Press 0" [ref={first}]'  # outside of that part
    assert browser.observe(scope=first, since=whole.id).tree == ""


def test_a_part_of_the_page_by_ref_and_by_selector(browser, site):
    browser.goto(f"{site.url}/article")
    table = next(element.ref for element in browser.observe().elements if element.role == "table")

    by_ref, by_selector = browser.observe(scope=table), browser.observe(scope="table")

    assert by_ref.tree == by_selector.tree
    assert by_ref.tree.startswith(f"- table [ref={table}]")
    assert "Sencha" in by_ref.tree
    assert "Boil" not in by_ref.tree
    assert browser.observe(scope=table, depth=1).tree == f"- table [ref={table}]:"
    with pytest.raises(BrowserError, match="The scope 'video' finds nothing on the page"):
        browser.observe(scope="video")
    browser.goto(f"{site.url}/plain")
    with pytest.raises(StaleElement):
        browser.observe(scope=table)


def test_a_text_has_at_most_so_many_characters(browser, site):
    browser.goto(f"{site.url}/article")
    whole = browser.observe().tree

    cut = browser.observe(max_chars=200)

    assert len(cut.tree) <= 200
    assert whole.startswith(cut.tree)
    assert cut.omitted == len(whole) - len(cut.tree)
    assert {element.ref for element in cut.elements} <= {part.split("]")[0] for part in cut.tree.split("[ref=")[1:]}


@pytest.mark.parametrize(
    ("path", "most", "interactive_only"), [("article", 400, False), ("frames", 300, False), ("list", 2000, True)]
)
def test_an_outline_is_read_page_by_page(browser, site, path, most, interactive_only):
    browser.goto(f"{site.url}/{path}")
    whole = browser.observe(interactive_only=interactive_only).tree.split("\n")

    pages = [browser.observe(interactive_only=interactive_only, max_chars=most)]
    while pages[-1].next is not None:
        pages.append(browser.observe(interactive_only=interactive_only, max_chars=most, start=pages[-1].next))

    assert len(pages) > 1
    assert [page for page in pages if len(page.tree) > most or bool(page.omitted) != (page is not pages[-1])] == []
    read: list[str] = []
    for page, former in zip(pages, [None, *pages], strict=False):
        lines = page.tree.split("\n")
        begin = 0 if former is None else next(n for n, line in enumerate(lines) if f"[ref={former.next}]" in line)
        around, lines = lines[:begin], lines[begin:]
        assert set(map(str.strip, around)) <= set(map(str.strip, read))
        read += lines
    assert list(map(str.strip, read)) == list(map(str.strip, whole))


def test_what_an_outline_does_not_show_is_no_place_to_begin(browser, site):
    browser.goto(f"{site.url}/article")
    first = browser.observe(max_chars=400)
    following = first.next

    with pytest.raises(BrowserError, match=f"The outline that is asked for does not show {following}"):
        browser.observe(start=following, depth=1)
    with pytest.raises(BrowserError, match="leave one of them out"):
        browser.observe(start=following, since=first.id)
    browser.goto(f"{site.url}/plain")
    with pytest.raises(StaleElement, match=f"The element {following} .* is no longer on the page"):
        browser.observe(start=following)


def test_a_secret_is_not_in_an_observation(browser, site):
    browser.goto(f"{site.url}/form")

    browser.do("fill", selector="#name", value=Secret("correct horse"))

    assert "correct horse" not in str(browser.observe())
    assert browser.js("document.getElementById('name').value === 'correct horse'")
    browser.js("void (document.querySelector('h1').textContent = `Hello ${document.getElementById('name').value}`)")
    heading = next(element for element in browser.observe().elements if element.name.startswith("Hello"))
    assert (heading.role, heading.name, heading.selector) == ("heading", "Hello ***", None)


def test_ten_thousand_elements(browser, site):
    browser.goto(f"{site.url}/many/10000")

    seen = browser.observe()

    assert sum(element.role == "button" for element in seen.elements) == 5000
    last = ref_of(seen, "button", "Press 4999")
    assert browser.do("click", ref=last).success
    assert browser.do("scroll", ref=last).success
    assert len(browser.observe(since=seen.id).tree) < 500
